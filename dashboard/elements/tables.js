// Tables that change in place, in panels with a title each.

import { h, setAttribute, setText } from "./base.js";
import { said } from "./said.js";
import { say } from "./words.js";

/** A table of rows with a key each. A column's `cell` gives a text, or a text and its tone.
 *
 * `number` columns stand at the right; `note` gives a second, smaller line; `sentence` columns may
 * hold commands.
 */
class Table {
  constructor(columns) {
    this.columns = columns;
    this.rows = new Map();
    this.caption = h("caption.hidden");
    this.heads = columns.map((column) => h(column.number ? "th.number" : "th", { scope: "col" }));
    this.body = h("tbody");
    this.node = h("table", {}, this.caption, h("thead", {}, h("tr", {}, ...this.heads)), this.body);
  }

  update(title, rows) {
    setText(this.caption, title);
    this.columns.forEach(({ head }, place) => setText(this.heads[place], say(head)));
    const keep = new Set(rows.map(({ key }) => key));
    for (const [key, row] of this.rows) {
      if (keep.has(key)) continue;
      row.remove();
      this.rows.delete(key);
    }
    rows.forEach((data, place) => {
      if (!this.rows.has(data.key)) this.rows.set(data.key, this.#make());
      const row = this.rows.get(data.key);
      if (this.body.children[place] !== row) this.body.insertBefore(row, this.body.children[place] ?? null);
      this.columns.forEach((column, number) => this.#fill(row.children[number], column, data));
    });
  }

  #make() {
    const cells = this.columns.map(({ number, note, sentence }, place) => {
      const kind = number ? ".number" : sentence ? ".sentence" : "";
      return h(place ? `td${kind}` : "th", place ? {} : { scope: "row" }, h("span"), note ? h("small") : null);
    });
    return h("tr", {}, ...cells);
  }

  #fill(cell, { cell: show, note, sentence }, data) {
    const [text, tone] = [show(data)].flat();
    const [shown, small] = cell.children;
    if (sentence) said(shown, text ?? "");
    else setText(shown, text ?? "");
    setAttribute(cell, "data-tone", tone ?? "plain");
    if (note) setText(small, note(data) ?? "");
  }
}

/** A title with a count, and below it a table, or a sentence where there are no rows. */
export class Panel {
  constructor(name, columns) {
    this.table = new Table(columns);
    this.title = h("h2", { id: `${name}-title` });
    this.count = h("span.sum");
    this.empty = h("p.none", { hidden: true });
    this.scroll = h("div.scroll", { role: "region", tabindex: "0" }, this.table.node);
    this.node = h(
      "section.panel",
      { id: name, "aria-labelledby": `${name}-title` },
      h("header", {}, this.title, this.count),
      this.empty,
      this.scroll,
    );
  }

  /** `empty` is a text, or a text and its tone. */
  update(title, rows, empty, sum = "") {
    setText(this.title, title);
    setText(this.count, sum);
    setAttribute(this.scroll, "aria-label", title);
    const [text, tone] = [empty].flat();
    said(this.empty, text ?? "");
    setAttribute(this.empty, "data-tone", tone ?? "plain");
    this.empty.hidden = rows.length > 0;
    this.scroll.hidden = !rows.length;
    this.table.update(title, rows);
  }
}

/** Terms and their values side by side, as many as there is room for. */
export class Figures {
  constructor(kind) {
    this.node = h(`dl.${kind}`);
  }

  /** Rows of a term, its value, and what else to know of it: a tone, a note, a title. */
  update(rows) {
    while (this.node.children.length > rows.length) this.node.lastChild.remove();
    while (this.node.children.length < rows.length) {
      this.node.append(h("div", {}, h("dt"), h("dd", {}, h("span"), h("small"))));
    }
    rows.forEach(([term, value, { tone = "plain", note = "", title = "" } = {}], place) => {
      const [label, shown] = this.node.children[place].children;
      setText(label, term);
      setText(shown.firstChild, value);
      setText(shown.lastChild, note);
      setAttribute(shown, "data-tone", tone);
      setAttribute(shown, "title", title);
    });
  }
}
