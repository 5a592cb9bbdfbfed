// What the picture shows, as plain data in the page's language: boxes, and lines between them.

import { connectionFlow, connectionWord, journalFlow, overrunning, rank, reasonOf } from "./flows.js";
import { replicationFlow, sinkFlow, waiting, worst } from "./flows.js";
import { budget, bytes, count, perSecond, span } from "./units.js";
import { duration, say, told } from "./words.js";

const BOXES_MAX = 8;
const EDGE_SINK = "postgres"; // the sink whose database replicates

/** `status` and `replication` are null where nothing is known. */
export function pictureOf(status, replication, rates) {
  const plcs = status ? plcBoxes(status, rates) : [unknown("plcs", say("connections"))];
  const journal = status ? [journalBox(status, rates)] : [unknown("journal", say("journal"))];
  const sinks = status ? status.sinks.map((sink) => sinkBox(sink, status, rates)) : [unknown("sinks", say("sinks"))];
  const sinksTitle = titled("sinks", status?.sinks.length);
  if (!sinks.length) sinks.push({ ...unknown("none", say("no_sinks")), state: "" });
  const remote = replication ? [remoteBox(replication)] : [];
  const edge = sinks.find(({ key }) => key === EDGE_SINK) ?? (replication ? edgeBox(replication) : null);
  if (edge && !sinks.includes(edge)) sinks.push(edge);
  const lines = [
    ...plcs.map((box) => line(["plcs", box.key], ["journal", "journal"], box)),
    ...sinks.filter((box) => box !== edge || box.key === EDGE_SINK)
      .map((box) => line(["journal", "journal"], ["sinks", box.key], box)),
    ...remote.map((box) => line(["sinks", edge.key], ["remote", box.key], { flow: box.flow, rate: edge.rate })),
  ];
  return {
    title: say("pipeline"),
    plcs: { title: titled("connections", status?.connections.length), boxes: plcs },
    journal: { title: say("journal"), boxes: journal },
    sinks: { title: sinksTitle, boxes: sinks },
    remote: { title: say("replication"), boxes: remote },
    lines,
  };
}

const titled = (word, number) => (number === undefined ? say(word) : `${say(word)} ${count(number)}`);

const line = (from, to, { flow, rate }) => ({ key: `${from} ${to}`, from, to, flow, rate });

const unknown = (key, title) => ({
  key,
  title,
  flow: "away",
  state: say("not_known_yet"),
  figures: [],
});

/** Broken connections first, then map order; what there is no room for is summed up. */
function plcBoxes(status, rates) {
  const { connections, journal } = status;
  const judged = connections
    .map((connection) => ({ connection, flow: connectionFlow(connection, journal, rates) }))
    .sort((one, other) => rank(one.flow) - rank(other.flow));
  const shown = judged.slice(0, judged.length > BOXES_MAX ? BOXES_MAX - 1 : BOXES_MAX);
  const rest = judged.slice(shown.length);
  const boxes = shown.map(({ connection, flow }) => plcBox(connection, flow, journal, rates));
  return rest.length ? [...boxes, restBox(rest, rates)] : boxes;
}

function plcBox(connection, flow, journal, rates) {
  const { conn, protocol, connected, tags, tags_good: good, overruns } = connection;
  const rate = rates.of(`conn ${conn}`);
  return {
    key: conn,
    title: conn,
    kind: protocol,
    flow,
    state: say(connectionWord(connection, journal, rates)),
    rate,
    error: connected ? null : reasonOf(connection),
    figures: [
      [say("rate"), perSecond(rate)],
      [say("good_short"), `${count(good)}/${count(tags)}`, good < tags && connection.scans ? "warning" : "plain"],
      [say("request_p99"), span(connection.request_p99_s)],
      [say("overruns"), count(overruns), overrunning(connection, rates) ? "warning" : "plain"],
    ],
  };
}

function restBox(rest, rates) {
  const flow = worst(rest.map((one) => one.flow));
  const sum = (values) => values.reduce((one, other) => one + (other ?? 0), 0);
  const rate = sum(rest.map(({ connection }) => rates.of(`conn ${connection.conn}`)));
  const good = sum(rest.map(({ connection }) => connection.tags_good));
  const tags = sum(rest.map(({ connection }) => connection.tags));
  return {
    key: "\nrest", // no connection has this name
    title: say(flow === "ok" ? "rest_well" : "rest", rest.length),
    href: "#connections",
    flow,
    state: say(`flow_${flow}`),
    rate,
    figures: [
      [say("rate"), perSecond(rate)],
      [say("good_short"), `${count(good)}/${count(tags)}`],
    ],
  };
}

function journalBox(status, rates) {
  const { journal } = status;
  const flow = journalFlow(journal);
  const rate = rates.of("journal");
  const part = journal.bytes_max ? journal.bytes_used / journal.bytes_max : 0;
  const used = `${bytes(journal.bytes_used)} / ${bytes(journal.bytes_max)}`;
  const why = journal.full ? say("full") : flow === "stopped" ? say("disk_full") : say("filling");
  return {
    key: "journal",
    title: say("journal"),
    flow,
    state: flow === "ok" ? say("flow_ok") : why,
    big: say("journal_taken", perSecond(rate)),
    bar: { label: say("fill"), part, text: used },
    figures: [
      [say("fill"), used, flow === "behind" ? "warning" : "plain"],
      [say("waiting"), count(waiting(status))],
      [say("uncommitted"), count(journal.uncommitted)],
      [say("commit_failures"), count(journal.commit_failures), journal.commit_failures ? "alarm" : "plain"],
      ...(journal.salvages ? [[say("salvages"), count(journal.salvages), "warning"]] : []),
    ],
  };
}

function sinkBox(sink, status, rates) {
  const flow = sinkFlow(sink);
  const rate = rates.of(`sink ${sink.name}`);
  const since = sink.error_since_ms ? ` ${duration(status.agent.now_ms - sink.error_since_ms)}` : "";
  return {
    key: sink.name,
    title: sink.name,
    flow,
    state: `${say(`flow_${flow}`)}${since}`,
    rate,
    error: told(sink, "error"),
    figures: [
      [say("delivered"), perSecond(rate)],
      [say("lag"), span(sink.lag_s), flow === "ok" ? "plain" : TONES[flow]],
      [say("pending"), count(sink.pending)],
      [say("refused"), count(sink.refused), sink.refused ? "warning" : "plain"],
      [say("quarantined"), count(sink.quarantined), sink.quarantined ? "warning" : "plain"],
      [say("lost"), count(sink.lost), sink.lost ? "alarm" : "plain"],
    ],
  };
}

export const TONES = { ok: "ok", behind: "warning", stopped: "alarm", away: "stale" };

/** The database that replicates, where this agent does not write into it. */
function edgeBox(replication) {
  const flow = replication.error ? "away" : replication.edge_up ? "ok" : "stopped";
  return { key: "\nedge", title: say("edge"), flow, state: say(`flow_${flow}`), figures: [] };
}

function remoteBox(replication) {
  const flow = replicationFlow(replication);
  const box = { key: "remote", title: say("edge_to_remote"), flow, state: say(`flow_${flow}`) };
  if (replication.error) return { ...box, figures: [], error: `${say("replication_away")}: ${told(replication, "error")}` };
  const { name, lag_s: lag, slot_active: slot, wal_budget_hours: hours, worker_pid: worker, problems } = replication;
  const { clock_skew_s: skew } = replication;
  const known = (value, yes, no) => (value === null ? say("unknown") : say(value ? yes : no));
  return {
    ...box,
    kind: name,
    error: told(replication, "problems")[0],
    figures: [
      [say("lag"), span(lag), flow === "ok" ? "plain" : TONES[flow]],
      [say("slot"), known(slot, "active", "inactive"), slot === false ? "alarm" : "plain"],
      [say("budget"), budget(hours)],
      [say("worker"), say(worker === null ? "runs_not" : "runs"), worker === null ? "alarm" : "plain"],
      [say("clock_skew"), span(skew)],
      [say("remote_problems"), count(problems.length), problems.length ? "warning" : "plain"],
    ],
  };
}
