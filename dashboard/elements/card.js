// A device's card. It is made once for a layout, and changes in place from then on.

import { h, setAttribute, setText } from "./base.js";
import { barsLabel, Gauge, rangeOf } from "./gauge.js";
import { live } from "./live.js";
import { deviceUrl } from "./view.js";
import { ago, digitsFor, duration, number, say } from "./words.js";

const BADGES_MAX = 3;
const COLOURS = 6;

export class Card {
  #node;

  constructor(index) {
    this.index = index;
    this.device = live.devices[index];
    this.main = live.tags[this.device.main];
    this.words = this.#words();
    this.#node = null;
  }

  /** Its element, made when it is first needed: most cards lie below the window at first. */
  get node() {
    if (!this.#node) this.#make();
    return this.#node;
  }

  #make() {
    this.gauge = new Gauge(this.main);
    this.live = h("span.badge.live");
    this.period = h("span.badge.period");
    this.age = h("span");
    this.link = h("a", { href: deviceUrl(this.device) }, this.device.title);
    this.badges = this.#shownTags().map(() => h("li"));
    const rest = this.device.tags.length - this.badges.length;
    const places = [this.device.site, this.device.line].filter(Boolean).join(" · ");
    this.#node = h(
      "article.card",
      { "data-device": this.device.device },
      h("div.thumb", {}, this.gauge.node, this.live, this.period),
      h("span.line", { "aria-hidden": "true", "data-colour": colourOf(this.device.line) }, short(this.device.line)),
      h(
        "div.about",
        {},
        h("h2", {}, this.link, this.main.description ? h("small", {}, this.main.description) : null),
        h("p", {}, h("i.dot"), h("span.place", {}, places), this.age),
        h(
          "ul.tags",
          {},
          ...this.badges,
          rest > 0 ? h("li.rest", {}, `+${rest}`) : null,
        ),
      ),
    );
    this.#node.card = this;
    this.draw();
  }

  /** Tags in trouble, then the main one, then map order; as many as there is room for. */
  #shownTags() {
    const { main, tags } = this.device;
    const rank = (position) => {
      const trouble = live.troubles.get(position);
      if (trouble && stateOf(trouble.reason) === "alarm") return 0;
      return position === main ? 1 : trouble ? 2 : 3;
    };
    return [...tags].sort((one, other) => rank(one) - rank(other)).slice(0, BADGES_MAX);
  }

  /** What the card is found by. */
  #words() {
    const { site, line, device, title, tags } = this.device;
    const names = tags.flatMap((position) => [live.tags[position].tag, live.tags[position].description]);
    return [site, line, device, title, ...names].join("\n").toLocaleLowerCase();
  }

  get state() {
    return live.states[this.index][0];
  }

  /** Everything anew: another language, new bars. */
  draw() {
    this.bars = live.bars.devices[this.index] ?? null;
    this.update();
    this.gauge.drawBars(this.bars);
  }

  /** Newest values, state and age. */
  update() {
    const [state, since] = live.states[this.index];
    const now = live.nowMs();
    const value = live.values[this.device.main];
    this.range = rangeOf(this.main, [...(this.bars ?? []), value], this.device.gauge);
    setAttribute(this.node, "data-state", state);
    const own = live.troubles.get(this.device.main);
    setAttribute(this.gauge.node, "data-state", own ? stateOf(own.reason) : "ok");
    const [position, trouble] = this.#worst() ?? [];
    const whose = trouble && position !== this.device.main ? `${live.tags[position].tag} ` : "";
    const why = trouble ? `${whose}${say(trouble.reason)}` : say("ok");
    this.gauge.update(value, this.range, own ? say(own.reason) : say("ok"));
    setAttribute(this.link, "aria-description", `${why}. ${barsLabel(this.bars, this.gauge.digits, this.main.unit)}`);
    this.live.hidden = !trouble;
    if (trouble) setText(this.live, `${why} ${duration(now - since)}`);
    const newest = Math.max(...this.device.tags.map((position) => live.tsMs[position] ?? 0));
    const age = newest ? now - newest : null;
    setText(this.age, age === null ? say("never") : ago(age));
    setText(this.period, state === "stale" && age !== null ? duration(age) : periodText(this.main));
    this.period.hidden = !this.period.textContent;
    this.#shownTags().forEach((position, place) => this.#updateBadge(position, this.badges[place]));
  }

  /** The trouble that gives the device its state, with its tag's position; the oldest of them. */
  #worst() {
    const [state] = live.states[this.index];
    if (state === "ok") return null;
    const own = this.device.tags
      .filter((position) => live.troubles.has(position))
      .map((position) => [position, live.troubles.get(position)]);
    const fitting = own.filter(([, { reason }]) => stateOf(reason) === state);
    const found = fitting.length ? fitting : own;
    return found.sort(([, one], [, other]) => one.since - other.since)[0] ?? null;
  }

  #updateBadge(position, node) {
    const tag = live.tags[position];
    const value = live.values[position];
    const digits = position === this.device.main ? this.gauge.digits : digitsOf(tag, value);
    setText(node, `${tag.tag} ${number(value, digits)} ${tag.unit}`.trim());
    const reason = live.troubles.get(position)?.reason;
    setAttribute(node, "data-state", reason ? stateOf(reason) : "ok");
  }
}

const STATES = { above_hi: "alarm", below_lo: "alarm", near_hi: "warning", near_lo: "warning" };

/** The state that a reason stands for. */
export const stateOf = (reason) => STATES[reason] ?? "stale";

/** Digits after the point for a tag's value: what the agent says, else by its limits or its size. */
export function digitsOf(tag, value) {
  if (tag.digits !== null) return tag.digits;
  if (tag.hi !== null && tag.lo !== null) return digitsFor(tag.hi - tag.lo);
  return digitsFor(Math.abs(tag.hi ?? tag.lo ?? value ?? 1) || 1);
}

function periodText(tag) {
  if (!tag.period_ms) return "";
  return tag.period_ms < 1000 ? `${tag.period_ms} ms` : duration(tag.period_ms);
}

/** A line's number, or how its name begins. */
const short = (line) => line.match(/\d{1,3}/)?.[0] ?? [...line].slice(0, 2).join("");

function colourOf(line) {
  let sum = 0;
  for (const letter of line) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  return String(sum % COLOURS);
}
