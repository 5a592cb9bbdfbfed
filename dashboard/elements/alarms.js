// The alarm strip: what is out of limits now, since when, how far.

import { Drawn, h, icon, setAttribute, setText } from "./base.js";
import { digitsOf, stateOf } from "./card.js";
import { live } from "./live.js";
import { deviceUrl } from "./view.js";
import { duration, number, say } from "./words.js";

const SHOWN_MAX = 20;

class Alarms extends Drawn {
  start() {
    this.list = h("ul");
    this.strip = h("section.alarms", { hidden: true }, icon("warn"), this.list);
    this.replaceChildren(this.strip);
    for (const type of ["layout", "tick"]) this.on(live, type, () => this.#update());
    this.on(document, "language", () => this.#update());
    this.items = new Map();
    if (live.ready) this.#update();
  }

  #update() {
    const alarms = [...live.troubles]
      .filter(([, trouble]) => stateOf(trouble.reason) === "alarm")
      .sort(([, one], [, other]) => other.since - one.since);
    this.strip.hidden = !alarms.length;
    setAttribute(this.strip, "aria-label", say("alarms_now"));
    const shown = alarms.slice(0, SHOWN_MAX);
    const keep = new Set(shown.map(([position]) => position));
    for (const [position, item] of this.items) {
      if (!keep.has(position) || item.device !== this.#deviceOf(position)) {
        item.node.remove();
        this.items.delete(position);
      }
    }
    shown.forEach(([position, trouble], place) => {
      const item = this.items.get(position) ?? this.#make(position);
      this.#fill(item, position, trouble);
      if (this.list.children[place] !== item.node) this.list.insertBefore(item.node, this.list.children[place] ?? null);
    });
    const rest = alarms.length - shown.length;
    if (rest && !this.rest) this.rest = this.list.appendChild(h("li.rest"));
    if (!rest) {
      this.rest?.remove();
      this.rest = null;
    } else {
      setText(this.rest, say("more", rest));
    }
  }

  #deviceOf(position) {
    return live.devices.find((device) => device.tags.includes(position));
  }

  #make(position) {
    const device = this.#deviceOf(position);
    const tag = live.tags[position];
    const where = h("b", {}, `${device.device} ${tag.tag}`);
    const what = h("span");
    const since = h("span.since");
    const node = h("li", {}, h("a", { href: deviceUrl(device, tag.tag) }, where, what, since));
    const item = { node, what, since, device };
    this.items.set(position, item);
    return item;
  }

  #fill(item, position, { reason, since }) {
    const tag = live.tags[position];
    const value = live.values[position];
    const limit = reason === "above_hi" ? tag.hi : tag.lo;
    const digits = digitsOf(tag, value);
    const far = value === null ? "" : ` (${value > limit ? "+" : "−"}${number(Math.abs(value - limit), digits)})`;
    const side = say(reason === "above_hi" ? "hi" : "lo");
    setText(item.what, `${number(value, digits)} ${tag.unit} · ${side} ${number(limit, digits)}${far}`);
    setText(item.since, duration(live.nowMs() - since));
  }
}

customElements.define("plc-alarms", Alarms);
