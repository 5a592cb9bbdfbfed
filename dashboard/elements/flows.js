// How data flows, judged from what the agent counts: nothing here knows the page but its language.
//
// A flow is "ok", "behind" (it comes, but late or not all of it), "stopped", or "away" where
// nobody says anything.

import { told } from "./words.js";

const WINDOW_POLLS = 4; // a figure of three intervals is calm, and still of now
const WINDOW_MAX_S = 20; // after a pause of the page, what was before is no part of "now"
const LAG_BEHIND_S = 30;
const REMOTE_LAG_BEHIND_S = 60; // each as the agent and edge-remote judge by themselves
const FILL_HIGH = 0.8;
const OVERRUN_SHARE = 0.1; // of the scans that were due; one alone is no news

/** Rates of counters, from the last few polls. */
export class Rates {
  #polls = [];

  /** Take a poll's counters. An agent that was started anew counts from zero. */
  add(status) {
    const at = status.agent.uptime_s;
    const last = this.#polls.at(-1);
    if (last && at === last.at) return; // the same answer again
    if (last && (at < last.at || at - last.at > WINDOW_MAX_S)) this.#polls = [];
    const counters = new Map([["journal", status.journal.taken]]);
    for (const one of status.connections) {
      counters.set(`conn ${one.conn}`, one.samples);
      counters.set(`overruns ${one.conn}`, one.overruns);
      counters.set(`scans ${one.conn}`, one.scans);
    }
    for (const one of status.sinks) counters.set(`sink ${one.name}`, one.delivered);
    this.#polls.push({ at, counters });
    this.#polls.splice(0, this.#polls.length - WINDOW_POLLS);
  }

  /** Per second; null where it is not known yet. */
  of(name) {
    const last = this.#polls.at(-1);
    const first = this.#polls.find((poll) => poll.counters.has(name));
    if (!last?.counters.has(name) || first === last) return null;
    const rate = (last.counters.get(name) - first.counters.get(name)) / (last.at - first.at);
    return rate < 0 ? null : rate;
  }
}

export function connectionFlow(connection, journal, rates) {
  const { connected, scans, tags, tags_good: good } = connection;
  if (!connected || (scans && !good) || journal.full) return "stopped";
  return (scans && good < tags) || overrunning(connection, rates) ? "behind" : "ok";
}

/** Whether scans take longer than their period again and again. */
export function overrunning({ conn }, rates) {
  const overruns = rates.of(`overruns ${conn}`);
  return overruns > OVERRUN_SHARE * (overruns + rates.of(`scans ${conn}`));
}

/** Why a connection is down; its name, which stands beside it anyway, not again. */
export const reasonOf = (connection) => told(connection, "error")?.replace(`${connection.conn}: `, "") ?? null;

/** A word for how a connection is. */
export function connectionWord(connection, journal, rates) {
  const flow = connectionFlow(connection, journal, rates);
  if (connection.connected && journal.full) return "paused";
  if (flow === "behind") return overrunning(connection, rates) ? "overrunning" : "partly";
  return `flow_${flow}`;
}

export function journalFlow(journal) {
  if (journal.full || journal.disk_full || journal.commit_failures) return "stopped";
  return journal.bytes_used > journal.bytes_max * FILL_HIGH ? "behind" : "ok";
}

export function sinkFlow(sink) {
  if (sink.error) return "stopped";
  return sink.lag_s > LAG_BEHIND_S ? "behind" : "ok";
}

export function replicationFlow(replication) {
  if (replication.error) return "away";
  const { edge_up, remote_up, wal_status, enabled, worker_pid, lag_s, problems } = replication;
  if (!edge_up || !remote_up || wal_status === "lost" || !enabled || worker_pid === null) return "stopped";
  return lag_s > REMOTE_LAG_BEHIND_S || problems.length ? "behind" : "ok";
}

const RANKS = { stopped: 0, behind: 1, away: 2, ok: 3 };
export const rank = (flow) => RANKS[flow];

/** The worst of several flows. */
export const worst = (flows) => flows.reduce((one, other) => (rank(other) < rank(one) ? other : one), "ok");

/** Samples that the slowest sink has still to get. */
export const waiting = (status) => Math.max(0, ...status.sinks.map((sink) => sink.pending));
