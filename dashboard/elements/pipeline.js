// A picture of boxes in columns with lines between them. Boxes are text, in the order in which data
// goes through them; lines only repeat what the boxes say, so nobody has to see them.
//
// Lines follow the boxes wherever the style sheet puts them: from column to column where columns
// stand side by side, along a rail at the left where they stand below each other.

import { h, s, setAttribute, setText } from "./base.js";
import { rank } from "./flows.js";
import { said } from "./said.js";

const THIN = 3;
const THICK = 12;
const PORT_STEP = 16; // between the lines that end at one box
const PORT_MARGIN = 18;
const RAIL_X = 9;
const REMOTE_RAIL_X = 22;
const CORNER = 9;

/** Thicker by the same for each ten times as much. */
const thickness = (rate) => Math.min(THIN + 2 * Math.log10(1 + (rate ?? 0)), THICK);

/** One box. It shows plain data: see `picture.js`. */
class Box {
  constructor() {
    this.title = h("b");
    this.link = h("a", { hidden: true });
    this.kind = h("span.kind");
    this.state = h("span.state");
    this.big = h("p.big", { hidden: true });
    this.bar = h("div.bar", { role: "meter", "aria-valuemin": "0", "aria-valuemax": "100", hidden: true }, h("i"));
    this.figures = h("dl");
    this.error = h("p.error", { hidden: true });
    this.node = h(
      "li.box",
      {},
      h("div.name", {}, h("i.dot"), h("p", {}, this.title, this.link, this.kind), this.state),
      this.big,
      this.bar,
      this.figures,
      this.error,
    );
  }

  update(data) {
    setAttribute(this.node, "data-flow", data.flow);
    setText(this.title, data.href ? "" : data.title);
    setText(this.link, data.href ? data.title : "");
    this.link.hidden = !data.href;
    if (data.href) setAttribute(this.link, "href", data.href);
    setAttribute(this.title, "title", data.title);
    setText(this.kind, data.kind ?? "");
    setText(this.state, data.state);
    this.big.hidden = !data.big;
    setText(this.big, data.big ?? "");
    this.bar.hidden = !data.bar;
    if (data.bar) this.#fill(data.bar);
    this.#list(data.figures);
    this.error.hidden = !data.error;
    said(this.error, data.error ?? "");
    setAttribute(this.error, "title", data.error ?? "");
  }

  #fill({ label, part, text }) {
    setAttribute(this.bar, "aria-label", label);
    setAttribute(this.bar, "aria-valuenow", String(Math.round(part * 100)));
    setAttribute(this.bar, "aria-valuetext", text);
    this.bar.firstChild.style.width = `${Math.min(part, 1) * 100}%`;
  }

  #list(figures) {
    while (this.figures.children.length > figures.length) this.figures.lastChild.remove();
    while (this.figures.children.length < figures.length) {
      this.figures.append(h("div", {}, h("dt"), h("dd")));
    }
    figures.forEach(([label, value, tone], place) => {
      const [term, shown] = this.figures.children[place].children;
      setText(term, label);
      setText(shown, value);
      setAttribute(shown, "data-tone", tone ?? "plain");
    });
  }
}

/** A column: boxes by key, which stay the same ones from look to look. */
class Column {
  constructor(name, observer) {
    this.boxes = new Map();
    this.observer = observer;
    this.title = h("h3");
    this.list = h("ul");
    this.node = h(`div.column.${name}`, {}, this.title, this.list);
  }

  update(title, boxes) {
    this.node.hidden = !boxes.length;
    setText(this.title, title);
    const keep = new Set(boxes.map(({ key }) => key));
    for (const [key, box] of this.boxes) {
      if (keep.has(key)) continue;
      this.observer.unobserve(box.node);
      box.node.remove();
      this.boxes.delete(key);
    }
    boxes.forEach((data, place) => {
      if (!this.boxes.has(data.key)) {
        const box = new Box();
        this.boxes.set(data.key, box);
        this.observer.observe(box.node);
      }
      const { node } = this.boxes.get(data.key);
      if (this.list.children[place] !== node) this.list.insertBefore(node, this.list.children[place] ?? null);
      this.boxes.get(data.key).update(data);
    });
  }
}

export class Pipeline {
  constructor() {
    this.observer = new ResizeObserver(() => this.#route());
    this.svg = s("svg.lines", { "aria-hidden": "true" });
    this.columns = {};
    for (const name of ["plcs", "journal", "sinks", "remote"]) this.columns[name] = new Column(name, this.observer);
    this.title = h("h2.hidden", { id: "pipeline-title" });
    this.pipe = h("div.pipe", {}, this.svg, ...Object.values(this.columns).map((column) => column.node));
    this.node = h("section.pipeline", { "aria-labelledby": "pipeline-title" }, this.title, this.pipe);
    this.lines = [];
    this.paths = new Map();
    this.observer.observe(this.pipe);
  }

  close() {
    this.observer.disconnect();
  }

  update(picture) {
    setText(this.title, picture.title);
    setAttribute(this.pipe, "data-columns", picture.remote.boxes.length ? "4" : "3");
    for (const [name, column] of Object.entries(this.columns)) column.update(picture[name].title, picture[name].boxes);
    this.#take(picture.lines);
    this.#route();
  }

  /** What flows lies over what does not, where both use the rail. */
  #take(lines) {
    this.lines = [...lines].sort((one, other) => rank(one.flow) - rank(other.flow));
    const keep = new Set(lines.map(({ key }) => key));
    for (const [key, path] of this.paths) {
      if (keep.has(key)) continue;
      path.remove();
      this.paths.delete(key);
    }
    this.lines.forEach((line, place) => {
      if (!this.paths.has(line.key)) this.paths.set(line.key, s("path"));
      const path = this.paths.get(line.key);
      if (this.svg.children[place] !== path) this.svg.insertBefore(path, this.svg.children[place] ?? null);
      setAttribute(path, "data-flow", line.flow);
      path.style.strokeWidth = `${thickness(line.flow === "stopped" ? 0 : line.rate).toFixed(1)}px`;
    });
  }

  /** Read all places first, then write all lines: the page is laid out once. */
  #route() {
    const origin = this.pipe.getBoundingClientRect();
    if (!origin.width) return;
    const place = ([column, key]) => {
      const box = this.columns[column].boxes.get(key).node.getBoundingClientRect();
      const [left, top] = [box.left - origin.left, box.top - origin.top];
      return { left, right: left + box.width, middle: top + box.height / 2, height: box.height, top };
    };
    const routes = this.lines.map((line) => ({ line, from: place(line.from), to: place(line.to) }));
    const ports = new Ports(routes);
    for (const route of routes) {
      const below = route.to.left < route.from.right;
      const rail = route.line.to[0] === "remote" ? REMOTE_RAIL_X : RAIL_X;
      const path = below ? alongRail(route, rail) : across(route, ports.at(route, "from"), ports.at(route, "to"));
      setAttribute(this.paths.get(route.line.key), "d", path);
    }
  }
}

/** Where lines touch a box that has several: one below the other, in the order of the other ends. */
class Ports {
  constructor(routes) {
    this.ends = new Map();
    for (const route of routes) {
      for (const [end, other] of [["from", "to"], ["to", "from"]]) {
        const key = `${end} ${route.line[end].join(" ")}`;
        if (!this.ends.has(key)) this.ends.set(key, []);
        this.ends.get(key).push([route[other].middle, route]);
      }
    }
    for (const list of this.ends.values()) list.sort(([one], [other]) => one - other);
  }

  at(route, end) {
    const list = this.ends.get(`${end} ${route.line[end].join(" ")}`);
    const { middle, height } = route[end];
    const step = Math.min(PORT_STEP, (height - 2 * PORT_MARGIN) / Math.max(list.length - 1, 1));
    return middle + (list.findIndex(([, one]) => one === route) - (list.length - 1) / 2) * step;
  }
}

function across({ from, to }, start, end) {
  const half = (from.right + to.left) / 2;
  return `M${r(from.right)} ${r(start)}C${r(half)} ${r(start)} ${r(half)} ${r(end)} ${r(to.left)} ${r(end)}`;
}

function alongRail({ from, to }, rail) {
  const turn = Math.min(CORNER, Math.abs(to.middle - from.middle) / 2);
  return (
    `M${r(from.left)} ${r(from.middle)}H${rail + turn}Q${rail} ${r(from.middle)} ${rail} ${r(from.middle + turn)}` +
    `V${r(to.middle - turn)}Q${rail} ${r(to.middle)} ${rail + turn} ${r(to.middle)}H${r(to.left)}`
  );
}

const r = (value) => value.toFixed(1);
