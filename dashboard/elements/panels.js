// Everything in figures: connections, sinks, losses, database upkeep, checks, replication.

import { h, setText } from "./base.js";
import { connectionFlow, connectionWord, rank, reasonOf, sinkFlow } from "./flows.js";
import { TONES } from "./picture.js";
import { Figures, Panel } from "./tables.js";
import { budget, bytes, checked, count, perSecond, span, when, yesNo } from "./units.js";
import { duration, say, told } from "./words.js";

const COUNTED_MAX = 100; // so many rows the agent tells of its ledger

const plain = (head, key) => ({ head, cell: (row) => row[key] });
const counted = (head, key = head) => ({ head, number: true, cell: (row) => count(row[key]) });
const spanned = (head, key) => ({ head, number: true, cell: (row) => span(row[key]) });
const marked = (head, tone) => ({ head, number: true, cell: (row) => [count(row[head]), row[head] ? tone : "plain"] });

/** "timeout 3, device 1" of counts by kind. */
const kinds = (counts) =>
  Object.entries(counts)
    .map(([kind, times]) => `${kind} ${count(times)}`)
    .join(", ") || "0";

const CONNECTIONS = [
  { head: "connection", cell: (row) => row.conn, note: (row) => row.protocol },
  {
    head: "state",
    sentence: true,
    cell: (row) => [(row.connected ? null : reasonOf(row)) ?? say(row.word), TONES[row.flow]],
  },
  {
    head: "good",
    number: true,
    cell: (row) => [`${count(row.tags_good)}/${count(row.tags)}`, row.tags_good < row.tags ? "warning" : "plain"],
  },
  { head: "rate", number: true, cell: (row) => perSecond(row.rate) },
  spanned("request_p99", "request_p99_s"),
  spanned("late_p99", "late_p99_s"),
  counted("overruns"),
  counted("scans"),
  counted("requests"),
  counted("samples_all", "samples"),
  counted("suppressed"),
  counted("bad_values", "bad"),
  { head: "errors", number: true, cell: (row) => kinds(row.errors) },
  counted("connects"),
  spanned("paused_for", "paused_s"),
];

const SINKS = [
  plain("sink", "name"),
  { head: "state", sentence: true, cell: (row) => [row.said, TONES[row.flow]] },
  { head: "delivered", number: true, cell: (row) => perSecond(row.rate) },
  spanned("lag", "lag_s"),
  spanned("lag_p99", "lag_p99_s"),
  counted("pending"),
  counted("delivered_all", "delivered"),
  counted("duplicates"),
  marked("refused", "warning"),
  marked("quarantined", "warning"),
  marked("lost", "alarm"),
  { head: "failures", number: true, cell: (row) => kinds(row.failures) },
];

const LOSSES = [
  plain("sink", "sink"),
  {
    head: "what",
    cell: (row) => (row.tag === null ? say("all_tags") : `${row.device} ${row.tag}`),
    note: (row) => row.site,
  },
  { head: "first", cell: (row) => when(row.first_ts_ms) },
  { head: "last", cell: (row) => when(row.last_ts_ms) },
  counted("samples"),
  { head: "reason", sentence: true, cell: (row) => say(row.reason) },
];

const JOBS = [
  plain("job", "name"),
  {
    head: "state",
    cell: (row) => (row.error ? [say("failing_for", duration(row.failing_s * 1000)), "alarm"] : [say("ok"), "ok"]),
  },
  { head: "told", cell: (row) => (row.health_age_s === null ? "–" : say("ago", span(Math.round(row.health_age_s)))) },
  { head: "problem", sentence: true, cell: (row) => told(row, "error") },
];

const CHECKS = [
  {
    head: "check",
    cell: (row) => say(row.check === "refused_rows" ? "refused_rows_check" : row.check),
    note: (row) => row.check,
  },
  { head: "place", cell: (row) => say(row.where) },
  plain("object", "object"),
  { head: "value", number: true, cell: (row) => checked(row.check, row.value) },
  { head: "problem", sentence: true, cell: (row) => [told(row, "problem") ?? say("ok"), row.problem ? "warning" : "ok"] },
];

/** What all databases say of themselves, each figure once; problems first. */
export function checksOf(status, health, replication) {
  // The agent's sink and the source "edge" ask the same database.
  const upkeep = (status?.upkeep ?? []).map(({ name, checks }) => [name === "postgres" ? "edge" : name, checks]);
  const told = [
    ...upkeep,
    [health?.source, health?.checks],
    ["edge", replication?.edge_health],
    ["remote", replication?.remote_health],
  ];
  const found = new Map();
  for (const [where, checks] of told) {
    for (const check of checks ?? []) {
      const key = [where, check.check, check.object].join("\n");
      if (!found.get(key)?.problem) found.set(key, { ...check, where, key });
    }
  }
  return [...found.values()].sort((one, other) => Number(!one.problem) - Number(!other.problem));
}

export class Panels {
  constructor() {
    this.connections = new Panel("connections", CONNECTIONS);
    this.sinks = new Panel("sinks", SINKS);
    this.losses = new Panel("losses", LOSSES);
    this.jobs = new Panel("jobs", JOBS);
    this.checks = new Panel("checks", CHECKS);
    this.replication = new Figures("full");
    this.replicationTitle = h("h2", { id: "replication-title" });
    this.replicationPanel = h(
      "section.panel",
      { id: "replication", "aria-labelledby": "replication-title", hidden: true },
      h("header", {}, this.replicationTitle),
      this.replication.node,
    );
    const { connections, sinks, losses, jobs, checks } = this;
    this.ofAgent = h("div.panels.agent", {}, connections.node, sinks.node, losses.node, jobs.node);
    this.ofDatabases = h("div.panels", {}, checks.node, this.replicationPanel);
    this.nodes = [this.ofAgent, this.ofDatabases];
  }

  /** `status`, `losses` and `replication` are null where nothing is known. */
  update({ status, losses, health, replication }, rates) {
    this.ofAgent.hidden = !status;
    if (status) this.#agent(status, losses, rates);
    const checks = checksOf(status, health, replication);
    this.checks.update(say("checks"), checks, errorOf(health) ?? say("no_checks"), counts(checks, "problem"));
    const looked = replication && !replication.error;
    this.replicationPanel.hidden = !looked;
    setText(this.replicationTitle, say("replication"));
    if (looked) this.replication.update(replicationRows(replication));
  }

  #agent(status, losses, rates) {
    const connections = status.connections
      .map((connection) => {
        const flow = connectionFlow(connection, status.journal, rates);
        const rate = rates.of(`conn ${connection.conn}`);
        const word = flow === "ok" ? "connected" : connectionWord(connection, status.journal, rates);
        return { ...connection, key: connection.conn, flow, rate, word };
      })
      .sort((one, other) => rank(one.flow) - rank(other.flow));
    this.connections.update(say("connections"), connections, say("no_connections"), count(connections.length));
    const sinks = status.sinks
      .map((sink) => {
        const flow = sinkFlow(sink);
        const failing_ms = status.agent.now_ms - (sink.error_since_ms ?? status.agent.now_ms);
        const error = sink.error && `${say("failing_for", duration(failing_ms))}: ${told(sink, "error")}`;
        const said = error ?? say(flow === "ok" ? "connected" : "flow_behind");
        return { ...sink, key: sink.name, flow, said, rate: rates.of(`sink ${sink.name}`) };
      })
      .sort((one, other) => rank(one.flow) - rank(other.flow));
    this.sinks.update(say("sinks"), sinks, say("no_sinks"), count(sinks.length));
    this.#ledger(status, losses);
    const jobs = status.upkeep.map((job) => ({ ...job, key: job.name }));
    this.jobs.update(say("jobs"), jobs, say("no_jobs"), counts(jobs, "error"));
  }

  #ledger(status, losses) {
    const rows = (losses?.losses ?? []).map((loss) => ({
      ...loss,
      key: [loss.sink, loss.site, loss.device, loss.tag, loss.reason, loss.first_ts_ms].join("\n"),
    }));
    const lost = status.sinks.reduce((sum, sink) => sum + sink.lost, 0);
    const none = errorOf(losses) ?? (lost ? say("none_listed") : [say("none_lost"), losses ? "ok" : "plain"]);
    const newest = rows.length >= COUNTED_MAX ? ` · ${say("losses_newest", rows.length)}` : "";
    const sum = lost ? `${say("lost")} ${count(lost)}${newest}` : "";
    this.losses.update(say("losses"), rows, none, sum);
  }
}

const errorOf = (answer) => answer && told(answer, "error");

/** "3", or "3 · problem 1". */
function counts(rows, what) {
  const wrong = rows.filter((row) => row[what]).length;
  return wrong ? `${count(rows.length)} · ${say("problem")} ${count(wrong)}` : count(rows.length);
}

function replicationRows(replication) {
  const of = (key) => replication[key];
  const bad = (wrong) => ({ tone: wrong ? "alarm" : "plain" });
  const { wal_status: wal, worker_pid: worker } = replication;
  const time = (key) => when(of(key) && Date.parse(of(key)));
  return [
    [say("lag"), span(of("lag_s"))],
    [say("lag_bytes"), bytes(of("lag_bytes"))],
    [say("edge_up"), yesNo(of("edge_up")), bad(!of("edge_up"))],
    [say("remote_up"), yesNo(of("remote_up")), bad(!of("remote_up"))],
    [say("slot_active"), yesNo(of("slot_active")), bad(of("slot_active") === false)],
    [say("wal_status"), wal ?? say("unknown"), bad(wal === "lost" || wal === "unreserved")],
    [say("wal_rate"), of("wal_bytes_per_s") === null ? "–" : say("per_second", bytes(of("wal_bytes_per_s")))],
    [say("budget_bytes"), bytes(of("wal_budget_bytes"))],
    [say("budget_hours"), budget(of("wal_budget_hours"))],
    [say("enabled"), yesNo(of("enabled")), bad(of("enabled") === false)],
    [say("worker"), worker === null ? say("runs_not") : `pid ${worker}`, bad(worker === null)],
    [say("copied"), yesNo(of("copied"))],
    [say("apply_errors"), count(of("apply_errors"))],
    [say("sync_errors"), count(of("sync_errors"))],
    [say("refused_rows"), count(of("refused_rows")), bad(of("refused_rows"))],
    [say("clock_skew"), span(of("clock_skew_s"))],
    [say("edge_newest"), time("edge_newest")],
    [say("remote_newest"), time("remote_newest")],
    [say("looked_at"), time("looked_at")],
  ];
}
