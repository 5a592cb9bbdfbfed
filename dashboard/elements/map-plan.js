// What a map will change, before it does: rows, connections, series, and what it costs.

import { h } from "./base.js";
import { budget, count } from "./units.js";
import { number, say } from "./words.js";

const TONES = { fits: "plain", tight: "warning", impossible: "alarm" };
const OPEN_MAX = 30; // a longer list is opened by who wants to read it

export const isImpossible = (plan) => plan.after.verdict === "impossible";

export const changesNothing = ({ rows }) => !rows.added.count && !rows.changed.count && !rows.removed.count;

/** Everything of a plan (dashboard/maps.py, `in_short`) as elements. */
export function planParts(plan) {
  const { rows, connections } = plan;
  return [
    changesNothing(plan) ? h("p.nothing", {}, say("plan_nothing")) : null,
    h(
      "div.changes",
      {},
      list("rows_added", rows.added, keyItem, "added"),
      list("rows_changed", rows.changed, changedItem, "changed"),
      list("rows_removed", rows.removed, keyItem, "removed"),
      list("connections_begun", connections.begun, keyItem, "added"),
      list("connections_changed", connections.changed, keyItem, "changed"),
      list("connections_ended", connections.ended, keyItem, "removed"),
      list("connections_kept", connections.kept, keyItem, "kept"),
      list("series_begun", plan.series_begun, keyItem, "added"),
      list("series_ended", plan.series_ended, keyItem, "removed"),
    ),
    loadTable(plan.before, plan.after),
    isImpossible(plan) ? h("p.warn", {}, say("impossible_why")) : null,
  ];
}

const keyItem = (key) => h("li", {}, key);

function changedItem({ key, columns }) {
  const changes = Object.entries(columns).map(([name, [before, after]]) =>
    h("span.cell", {}, `${name}: `, h("del", {}, before || "–"), " → ", h("ins", {}, after || "–")),
  );
  return h("li", {}, h("b", {}, key), ...changes);
}

/** Of nothing there is no list. */
function list(word, { count: total, first }, item, kind) {
  if (!total) return null;
  const more = total - first.length;
  return h(
    "details",
    { "data-kind": kind, open: kind !== "kept" && total <= OPEN_MAX },
    h("summary", {}, `${say(word)} `, h("b", {}, count(total))),
    h("ul", {}, ...first.map(item), more > 0 ? h("li.more", {}, say("list_more", count(more))) : null),
  );
}

function loadTable(before, after) {
  const verdict = ({ verdict: found }) => (found ? say(found) : "–");
  const rows = [
    ["load_tags", ({ tags }) => count(tags)],
    ["load_connections", ({ connections }) => count(connections)],
    ["load_requests", ({ requests_per_s }) => number(requests_per_s, 1)],
    ["load_rows", ({ rows_per_day }) => count(rows_per_day)],
    ["load_journal", ({ journal_hours }) => budget(journal_hours)],
    ["load_verdict", verdict],
  ];
  const head = (word, kind = "") => h(`th${kind}`, { scope: "col" }, say(word));
  const line = ([word, show]) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, say(word)),
      h("td.number", {}, show(before)),
      h("td.number", { "data-tone": word === "load_verdict" ? TONES[after.verdict] : null }, h("span", {}, show(after))),
    );
  return h(
    "table.load",
    {},
    h("caption.hidden", {}, say("load")),
    h("thead", {}, h("tr", {}, head("load"), head("before", ".number"), head("after", ".number"))),
    h("tbody", {}, ...rows.map(line)),
  );
}
