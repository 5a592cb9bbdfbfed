// Filter chips with counts. What they choose stands in the URL.

import { Drawn, h, setAttribute, setText } from "./base.js";
import { live } from "./live.js";
import { show, view } from "./view.js";
import { say } from "./words.js";

const STATES = ["alarm", "warning", "stale"];

class Chips extends Drawn {
  start() {
    this.row = h("div.chips", { role: "group" });
    this.replaceChildren(this.row);
    this.on(live, "layout", () => this.#make());
    this.on(live, "tick", () => this.#update());
    this.on(document, "view", () => this.#update());
    this.on(document, "language", () => this.#make());
    this.#make();
  }

  #make() {
    const of = (name) => [...new Set(live.devices.map((device) => device[name]))].filter(Boolean).sort();
    const sites = of("site");
    const chips = [
      ["all", null],
      ...STATES.map((state) => ["state", state]),
      ...(sites.length > 1 ? sites.map((site) => ["site", site]) : []),
      ...of("line").map((line) => ["line", line]),
    ];
    this.chips = chips.map(([name, value]) => {
      const label = h("span");
      const count = h("span.count");
      const dot = name === "state" ? h("i.dot", { "data-state": value }) : null;
      const node = h("button.chip", { type: "button", onclick: () => this.#toggle(name, value) }, dot, label, count);
      label.textContent = name === "all" ? say("all") : name === "state" ? say(value) : value;
      return { name, value, node, count };
    });
    setAttribute(this.row, "aria-label", say("filters"));
    this.row.replaceChildren(...this.chips.map((chip) => chip.node));
    this.#update();
  }

  #toggle(name, value) {
    if (name === "all") {
      show({ state: null, site: null, line: null });
      return;
    }
    const chosen = view().getAll(name);
    const rest = chosen.filter((one) => one !== value);
    show({ [name]: rest.length === chosen.length ? [...rest, value] : rest });
  }

  #update() {
    const parameters = view();
    const none = !["state", "site", "line"].some((name) => parameters.has(name));
    for (const { name, value, node, count } of this.chips) {
      const pressed = name === "all" ? none : parameters.getAll(name).includes(value);
      setAttribute(node, "aria-pressed", String(pressed));
      if (name === "state") {
        const number = live.states.filter(([state]) => state === value).length;
        setText(count, number ? ` ${number}` : "");
        node.hidden = !number && !pressed;
      }
    }
  }
}

customElements.define("plc-chips", Chips);
