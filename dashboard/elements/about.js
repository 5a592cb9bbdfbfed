// Under the chart: which device this is, its tags to choose from, and key figures of the first one.

import { Drawn, h, setAttribute, setText } from "./base.js";
import { digitsOf, stateOf } from "./card.js";
import { averageDigits, digitsOfStep } from "./chart-data.js";
import { live } from "./live.js";
import { TAGS_MAX, watched } from "./watched.js";
import { addWords, ago, duration, number, say } from "./words.js";

const UNKNOWN = { tag: "", unit: "", description: "", hi: null, lo: null, digits: null };
const COVERAGE_DIGITS = 2;

addWords({
  shown_tags: ["차트에 보일 태그", "Tags on the chart"],
  tags_max: ["태그는 6개까지 볼 수 있습니다", "Up to 6 tags can be shown"],
  figure_now: ["현재", "Now"],
  figure_average: ["{} 평균", "{} average"],
  figure_average_range: ["기간 평균", "Average"],
  figure_ends: ["최소 / 최대", "Min / max"],
  figure_coverage: ["기록률", "Coverage"],
  figure_coverage_why: ["기록이 있는 분의 비율", "Part of the minutes that have a record"],
  limits: ["정상 범위 {}", "limits {}"],
  not_in_map: ["주소 맵에 없음", "Not in the address map"],
});

class About extends Drawn {
  start() {
    this.name = h("span");
    this.description = h("small");
    this.dot = h("i.dot");
    this.where = h("span");
    this.chips = h("div.chips", { role: "group" });
    this.figures = ["figure_now", "figure_average", "figure_ends", "figure_coverage"].map(() => new Figure());
    this.boxes = h("dl.figures", {}, ...this.figures.map((figure) => figure.node));
    this.replaceChildren(
      h(
        "section.device",
        {},
        h("div.name", {}, h("h1", {}, this.name, this.description), h("p", {}, this.dot, this.where)),
        this.chips,
        this.boxes,
      ),
    );
    this.on(live, "layout", () => this.#make());
    this.on(live, "tick", () => this.#update());
    this.on(watched, "question", () => this.#make());
    this.on(watched, "answer", () => this.#update());
    this.on(document, "language", () => this.#make());
    this.#make();
  }

  /** The chips, in map order; what the map does not have stands at the end, to be taken off. */
  #make() {
    const names = [...new Set([...watched.positions.keys(), ...watched.question.tags])];
    if (names.join("\n") !== this.names) {
      this.names = names.join("\n");
      this.tags = names.map((name) => this.#makeChip(name));
      this.chips.replaceChildren(...this.tags.map(({ node }) => node));
    }
    // A device that the map does not have, and of which nothing is asked.
    this.chips.hidden = this.boxes.hidden = live.ready && !names.length;
    setAttribute(this.chips, "aria-label", say("shown_tags"));
    const { device } = watched.question;
    setText(this.name, device);
    if (device) document.title = `${device} · Edge Vibe`;
    this.#update();
  }

  #makeChip(name) {
    const dot = h("i.dot", { hidden: true });
    const value = h("b");
    const state = h("span.hidden");
    const node = h("button.chip", { type: "button", onclick: () => watched.toggle(name) }, dot, name, value, state);
    return { name, node, dot, value, state };
  }

  #update() {
    const { question } = watched;
    setText(this.description, newest(question.tags[0]).tag.description);
    this.#updateWhere();
    const isFull = question.tags.length >= TAGS_MAX;
    for (const { name, node, dot, value, state } of this.tags) {
      const { tag, text, reason } = newest(name);
      const isPressed = question.tags.includes(name);
      const troubled = reason ? stateOf(reason) : "ok";
      setAttribute(node, "aria-pressed", String(isPressed));
      setAttribute(node, "data-colour", String(watched.colourOf(name)));
      setAttribute(node, "data-state", troubled);
      setAttribute(dot, "data-state", troubled);
      dot.hidden = !reason;
      setText(value, text);
      setText(state, reason ? ` ${say(reason)}` : "");
      setAttribute(node, "aria-disabled", String(isFull && !isPressed));
      setAttribute(node, "title", isFull && !isPressed ? say("tags_max") : tag.description);
    }
    this.#updateFigures();
  }

  #updateWhere() {
    const { question, device, positions } = watched;
    const index = live.devices.indexOf(device);
    const isUnknown = live.ready && question.device && !device;
    this.dot.hidden = index < 0;
    if (index >= 0) setAttribute(this.dot, "data-state", live.states[index][0]);
    const newestMs = Math.max(0, ...[...positions.values()].map((position) => live.tsMs[position] ?? 0));
    const age = newestMs ? ago(live.nowMs() - newestMs) : device ? say("never") : isUnknown ? say("not_in_map") : "";
    setText(this.where, [question.site, device?.line, age].filter(Boolean).join(" · "));
  }

  #updateFigures() {
    const { question, answer } = watched;
    const name = question.tags[0];
    const [now, average, ends, coverage] = this.figures;
    const { tag, text, reason, since } = newest(name);
    const found = answer?.tags.find((line) => line.tag === name)?.figures ?? {};
    const written = (value) => number(value, digitsOf(tag, value ?? null));
    now.show(
      [say("figure_now"), name].filter(Boolean).join(" · "),
      text,
      reason ? `${say(reason)} ${duration(live.nowMs() - since)}` : "",
      reason ? stateOf(reason) : "ok",
    );
    const digits = averageDigits(digitsOf(tag, found.average ?? null), found.lowest ?? null, found.highest ?? null);
    average.show(averageText(question), withUnit(number(found.average, digits), found.average, tag));
    const limits = [tag.lo, tag.hi].map((limit) => (limit === null ? "" : number(limit, digitsOfStep(Math.abs(limit))))).join(" – ");
    ends.show(
      say("figure_ends"),
      `${written(found.lowest)} / ${written(found.highest)}`,
      tag.hi === null && tag.lo === null ? "" : say("limits", limits.trim()),
    );
    coverage.show(say("figure_coverage"), coverageText(found.coverage), "", "ok", say("figure_coverage_why"));
  }
}

/** One of the four boxes. */
class Figure {
  constructor() {
    this.label = h("span");
    this.more = h("small");
    this.value = h("dd");
    this.node = h("div", {}, h("dt", {}, this.label, this.more), this.value);
  }

  show(label, value, more = "", state = "ok", title = "") {
    setText(this.label, label);
    setText(this.more, more);
    setText(this.value, value);
    setAttribute(this.node, "data-state", state);
    setAttribute(this.node, "title", title);
  }
}

function withUnit(text, value, { unit }) {
  return value === null || value === undefined ? text : `${text} ${unit}`.trim();
}

/** What is known of a tag now. */
function newest(name) {
  const position = watched.positions.get(name);
  const tag = live.tags[position] ?? UNKNOWN;
  const value = live.values[position] ?? null;
  const { reason, since } = live.troubles.get(position) ?? {};
  return { tag, text: withUnit(number(value, digitsOf(tag, value)), value, tag), reason, since };
}

function averageText({ range }) {
  const [, count, unit] = /^(\d+)([mhd])$/.exec(range ?? "") ?? [];
  if (!count) return say("figure_average_range");
  return say("figure_average", say({ m: "minutes", h: "hours", d: "days" }[unit], count));
}

/** Rounded down: 100 % is only what misses nothing. */
function coverageText(part) {
  if (part === null || part === undefined) return "–";
  const scale = 10 ** COVERAGE_DIGITS;
  const percent = Math.floor(part * 100 * scale) / scale;
  return `${number(percent, percent % 100 === 0 ? 0 : COVERAGE_DIGITS)} %`;
}

customElements.define("plc-about", About);
