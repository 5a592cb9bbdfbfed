// The newest values of the chosen tags, newest on top. It grows from the live stream.
//
// Only the rows that are in sight are elements. Who has scrolled down stays where they are.

import { Drawn, h, setAttribute, setText } from "./base.js";
import { digitsOf } from "./card.js";
import { clockText, isSameDay, timeText } from "./clock.js";
import { live } from "./live.js";
import { sourceQuery } from "./view.js";
import { watched } from "./watched.js";
import { addWords, number, say } from "./words.js";

const FIRST = 200;
const ROWS_MAX = 1_000;
const ROW_PX = 34; // assets/detail.css has the same
const BEYOND = 12; // rows above and below what is in sight
const RETRY_MS = 5_000;
const WRONG_QUESTION = 400;
const UNKNOWN = { unit: "", hi: null, lo: null, digits: null };

addWords({
  newest_values: ["최신 값", "Newest values"],
  rows: ["{}행", "{} rows"],
  time: ["시각", "Time"],
  tag: ["태그", "Tag"],
  value: ["값", "Value"],
  no_rows: ["아직 기록된 값이 없습니다", "No value has been recorded yet"],
  rows_error: ["값을 불러오지 못했습니다", "The values could not be loaded"],
});

class Rows extends Drawn {
  start() {
    this.items = [];
    this.key = null;
    this.heading = h("h2");
    this.count = h("span");
    this.heads = ["time", "tag", "value"].map(() => h("th", { scope: "col" }));
    this.above = h("tr.space", { "aria-hidden": "true" }, h("td", { colspan: 3 }));
    this.below = h("tr.space", { "aria-hidden": "true" }, h("td", { colspan: 3 }));
    this.body = h("tbody", {}, this.above, this.below);
    this.table = h("table", {}, h("thead", {}, h("tr", {}, ...this.heads)), this.body);
    this.empty = h("p.none", { hidden: true });
    this.box = h("div.scroll", { tabindex: "0", role: "region" }, this.table, this.empty);
    this.replaceChildren(h("section.rows", {}, h("header", {}, this.heading, this.count), this.box));
    this.pool = [];
    this.on(this.box, "scroll", () => this.#show());
    this.on(watched, "question", () => this.#follow());
    this.on(live, "layout", () => this.#show());
    this.on(live, "tick", () => this.#grow());
    this.on(document, "language", () => this.#label());
    this.on(document, "visibilitychange", () => document.hidden || this.#ask());
    const observer = new ResizeObserver(() => this.#show());
    observer.observe(this.box);
    this.leaving.signal.addEventListener("abort", () => {
      observer.disconnect();
      this.request?.abort();
      clearTimeout(this.timer);
    });
    this.#label();
    this.#follow();
  }

  #label() {
    setText(this.heading, say("newest_values"));
    setAttribute(this.box, "aria-label", say("newest_values"));
    ["time", "tag", "value"].forEach((word, at) => setText(this.heads[at], say(word)));
    this.#show();
  }

  #follow() {
    const { site, device, source, tags } = watched.question;
    const key = JSON.stringify([site, device, source, tags]);
    if (key === this.key) return;
    this.key = key;
    this.#set([]);
    this.loaded = !tags.length;
    this.#ask();
    this.#show();
  }

  async #ask() {
    clearTimeout(this.timer);
    this.request?.abort();
    this.request = null;
    const { site, device, tags } = watched.question;
    if (!site || !device || !tags.length) return;
    const request = (this.request = new AbortController());
    const parameters = new URLSearchParams({ site, device });
    for (const tag of tags) parameters.append("tag", tag);
    parameters.append("limit", FIRST);
    let wrong = false;
    let found = null;
    try {
      const response = await fetch(`/api/rows?${sourceQuery()}${parameters}`, { signal: request.signal });
      wrong = response.status === WRONG_QUESTION;
      if (response.ok) found = (await response.json()).rows;
    } catch {
      // Not there yet: asked again below.
    }
    if (this.request !== request) return;
    this.loaded = true;
    this.failed = !found;
    if (found) this.#take(found);
    else if (!wrong) this.timer = setTimeout(() => this.#ask(), RETRY_MS);
    this.#show();
  }

  /** Rows of the history; newer ones that the stream brought meanwhile stay on top. */
  #take(found) {
    const newest = found[0]?.[0] ?? 0;
    this.#set([...this.items.filter(([time]) => time > newest), ...found]);
  }

  #set(items) {
    this.items = items.slice(0, ROWS_MAX);
    this.seen = new Map();
    for (const [time, tag] of this.items) this.seen.set(tag, Math.max(this.seen.get(tag) ?? 0, time));
    this.#show();
  }

  #grow() {
    if (document.hidden || !this.loaded) return;
    const fresh = [];
    for (const tag of watched.question.tags) {
      const position = watched.positions.get(tag);
      const [time, value] = [live.tsMs[position], live.values[position]];
      const isNew = value !== undefined && value !== null && live.qualities[position] === "g" && time > (this.seen.get(tag) ?? 0);
      if (!isNew) continue;
      this.seen.set(tag, time);
      fresh.push([time, tag, value]);
    }
    if (!fresh.length) return;
    fresh.sort(([one], [other]) => other - one);
    const isAtTop = this.box.scrollTop < ROW_PX / 2;
    this.items = [...fresh, ...this.items].slice(0, ROWS_MAX);
    this.#show();
    if (!isAtTop) this.box.scrollTop += fresh.length * ROW_PX;
  }

  /** Fill the rows that are in sight. */
  #show() {
    const { items, box } = this;
    setText(this.count, say("rows", number(items.length, 0)));
    const first = Math.max(Math.floor(box.scrollTop / ROW_PX) - BEYOND, 0);
    const last = Math.min(Math.ceil((box.scrollTop + box.clientHeight) / ROW_PX) + BEYOND, items.length);
    const length = Math.max(last - first, 0);
    while (this.pool.length < length) this.pool.push(makeRow());
    this.pool.forEach((row, at) => {
      if (at >= length) return row.node.remove();
      if (!row.node.isConnected) this.body.insertBefore(row.node, this.below);
      fillRow(row, items[first + at]);
    });
    this.above.firstChild.style.height = `${first * ROW_PX}px`;
    this.below.firstChild.style.height = `${Math.max(items.length - last, 0) * ROW_PX}px`;
    this.above.hidden = first === 0;
    this.below.hidden = last >= items.length;
    const oldest = items.at(-1)?.[0];
    this.table.classList.toggle("dated", items.length > 0 && !isSameDay(oldest, live.nowMs()));
    setAttribute(this.table, "aria-rowcount", String(items.length + 1));
    const isEmpty = !items.length && this.loaded;
    this.empty.hidden = !isEmpty;
    if (isEmpty) setText(this.empty, say(this.failed ? "rows_error" : "no_rows"));
  }
}

function makeRow() {
  const day = h("small");
  const time = h("span");
  const tag = h("td");
  const value = h("span");
  const unit = h("small");
  return { node: h("tr", {}, h("td", {}, day, time), tag, h("td", {}, value, unit)), day, time, tag, value, unit };
}

function fillRow(row, [time, name, value]) {
  const tag = live.tags[watched.positions.get(name)] ?? UNKNOWN;
  const isOut = (tag.hi !== null && value > tag.hi) || (tag.lo !== null && value < tag.lo);
  setText(row.day, isSameDay(time, live.nowMs()) ? "" : `${timeText(time, "day")} `);
  setText(row.time, clockText(time));
  setText(row.tag, name);
  setAttribute(row.tag, "title", name);
  setText(row.value, number(value, digitsOf(tag, value)));
  setText(row.unit, tag.unit && ` ${tag.unit}`);
  row.node.classList.toggle("out", isOut);
}

customElements.define("plc-rows", Rows);
