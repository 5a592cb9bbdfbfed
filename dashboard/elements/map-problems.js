// What is wrong with a map: each problem with its place, and the file's own lines around it.

import { h } from "./base.js";
import { count } from "./units.js";
import { say, told } from "./words.js";

const MARGIN = 1; // lines before and after

/** A panel with a row for each problem. `total` is how many there are; `text` is the file's or null. */
export function problemsPanel(name, problems, total, text = null) {
  const title = say("problems_all", count(total));
  const heads = ["line", "column", "value", "message"].map((word, place) =>
    h(place ? "th" : "th.number", { scope: "col" }, say(word)),
  );
  const table = h(
    "table.wrong",
    {},
    h("caption.hidden", {}, title),
    h("thead", {}, h("tr", {}, ...heads)),
    h("tbody", {}, ...rowsOf(problems, text)),
  );
  const shown = total > problems.length ? say("problems_shown", count(problems.length)) : "";
  return h(
    "section.panel",
    { id: name, "aria-labelledby": `${name}-title` },
    h("header", {}, h("h3", { id: `${name}-title` }, title), h("span.sum", {}, shown)),
    h("div.scroll", { role: "region", tabindex: "0", "aria-label": title }, table),
  );
}

function rowsOf(problems, text) {
  return problems.flatMap((problem, place) => {
    const next = problems[place + 1];
    const isLast = next?.line !== problem.line; // of its line
    const excerpt = isLast && text && problem.line ? excerptRow(problem.line, problems, text) : null;
    return excerpt ? [problemRow(problem), excerpt] : [problemRow(problem)];
  });
}

function problemRow(problem) {
  const { line, column, value } = problem;
  const plain = { "data-tone": "plain" };
  return h(
    "tr",
    {},
    h("th.number", { scope: "row" }, line === null ? say("whole_file") : String(line)),
    h("td", plain, column ?? ""),
    h("td.value", plain, value ?? ""),
    h("td.sentence", plain, told(problem, "message")),
  );
}

function excerptRow(line, problems, text) {
  const columns = problems.filter((one) => one.line === line && one.column).map(({ column }) => column);
  const lines = text.around(line, MARGIN).map(([number, content]) => {
    const isIt = number === line;
    const marks = isIt ? text.marks(number, columns) : [];
    return h(isIt ? "p.it" : "p", {}, h("b", {}, String(number)), h("span", {}, ...marked(content, marks)));
  });
  const cell = h("td", { colspan: "4", "data-tone": "plain", "aria-label": say("row_of_file", line) }, ...lines);
  return h("tr.excerpt", {}, cell);
}

function marked(content, marks) {
  let at = 0;
  const parts = [];
  for (const [start, end] of marks) {
    parts.push(content.slice(at, start), h("mark", {}, content.slice(start, end) || "\u00a0"));
    at = end;
  }
  return [...parts, content.slice(at)];
}
