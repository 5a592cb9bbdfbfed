// What this page looks at: a device, some of its tags, a range, and the chart's answer about them.
//
// The URL says what; the question leaves as soon as this module runs, before anything is drawn.
//
// "question": another device, other tags or another range; `answer` is still the one before.
// "answer":   a new answer, or a new error.
// "grown":    the newest values were added to the answer.

import { live } from "./live.js";
import { show, sourceQuery, view } from "./view.js";

const HOUR_MS = 3_600_000;
const UNITS_MS = { m: 60_000, h: HOUR_MS, d: 24 * HOUR_MS };
const RANGE_DEFAULT = "24h";
const RANGE_MS_MAX = 3_660 * UNITS_MS.d; // what the server answers
const RETRY_MS = 5_000;
const REFRESH_MS = 60_000;
const REFRESH_SHORT_MS = 30_000;
const ANSWER_TIMEOUT_MS = 20_000; // the server itself gives up after 10 s
const CLOCK_OFF_MS = 5_000;
const WRONG_QUESTION = 400;
const NOT_SIGNED_IN = 401;

export const TAGS_MAX = 6; // as many as there are colours

/** Length of a range like "24h", or null. */
export function rangeMs(text) {
  const [, count, unit] = /^([1-9]\d{0,4})([mhd])$/.exec(text ?? "") ?? [];
  const ms = count * UNITS_MS[unit];
  return ms <= RANGE_MS_MAX ? ms : null;
}

class Watched extends EventTarget {
  question = null;
  positions = new Map(); // of the device's tags by name, in map order
  device = null; // as `live` has it; null if it has none of that name
  answer = null;
  error = null; // {body, final}
  asking = false;
  #colours = new Map();
  #request = null;
  #timer = null;
  #askedAt = 0;
  #clock = null;

  constructor() {
    super();
    document.addEventListener("view", () => this.#follow());
    document.addEventListener("visibilitychange", () => this.#wake());
    live.addEventListener("layout", () => this.#meet());
    live.addEventListener("tick", () => this.#grow());
    live.addEventListener("link", () => live.linked && this.#wake());
    this.#find();
    this.#follow();
  }

  /** Which of the six colours a tag's line has; it keeps it while it is shown. */
  colourOf(tag) {
    return this.#colours.get(tag) ?? 0;
  }

  /** Whether the range ends now, and moves. */
  get isLive() {
    return this.question?.rangeMs !== null;
  }

  /** Show a tag or don't; one stays. */
  toggle(tag) {
    const chosen = this.question.tags;
    const rest = chosen.filter((one) => one !== tag);
    if (!rest.length || (rest.length === chosen.length && rest.length >= TAGS_MAX)) return;
    show({ tag: rest.length === chosen.length ? [...rest, tag] : rest });
  }

  /** The same question again, at once. */
  again() {
    this.#ask();
  }

  /** The query that stands for what is shown, for downloads too. */
  query(fromMs, toMs) {
    const { site, device, tags } = this.question;
    const parameters = new URLSearchParams({ site, device });
    for (const tag of tags) parameters.append("tag", tag);
    parameters.append("from", Math.round(fromMs));
    parameters.append("to", Math.round(toMs));
    return `${sourceQuery()}${parameters}`;
  }

  /** From when to when the chart goes: to now, where it is live. */
  window() {
    const { rangeMs: length, fromMs, toMs } = this.question;
    if (length === null) return [fromMs, toMs];
    const now = Math.round(live.nowMs());
    return [now - length, now];
  }

  #find() {
    const parameters = view();
    const [site, name] = [parameters.get("site"), parameters.get("device")];
    const own = live.devices.filter((one) => one.device === name && (site === null || one.site === site));
    this.device = own[0] ?? null;
    const positions = own.filter((one) => one.site === own[0].site).flatMap((one) => one.tags);
    this.positions = new Map(positions.map((position) => [live.tags[position].tag, position]));
  }

  #read() {
    const parameters = view();
    let tags = [...new Set(parameters.getAll("tag"))].slice(0, TAGS_MAX);
    if (!tags.length && this.device) tags = [live.tags[this.device.main].tag];
    const [fromMs, toMs] = ["from", "to"].map((name) => Number.parseInt(parameters.get(name) ?? "", 10));
    const fixed = fromMs >= 0 && toMs > fromMs;
    const named = rangeMs(parameters.get("range")) ? parameters.get("range") : RANGE_DEFAULT;
    return {
      site: parameters.get("site") ?? this.device?.site ?? "",
      device: parameters.get("device") ?? "",
      source: parameters.get("source") ?? "",
      tags,
      range: fixed ? null : named,
      rangeMs: fixed ? null : rangeMs(named),
      fromMs: fixed ? fromMs : null,
      toMs: fixed ? toMs : null,
    };
  }

  #follow() {
    this.#find();
    const question = this.#read();
    const before = this.question;
    if (before && JSON.stringify(before) === JSON.stringify(question)) return;
    this.question = question;
    const same = before && ["site", "device", "source"].every((name) => before[name] === question[name]);
    if (!same) {
      this.answer = null;
      this.#colours.clear();
    }
    this.error = null;
    this.#colour(question.tags);
    this.#ask();
    this.dispatchEvent(new Event("question"));
  }

  #colour(tags) {
    for (const tag of this.#colours.keys()) if (!tags.includes(tag)) this.#colours.delete(tag);
    for (const tag of tags) {
      if (this.#colours.has(tag)) continue;
      const used = new Set(this.#colours.values());
      this.#colours.set(tag, [1, 2, 3, 4, 5, 6].find((colour) => !used.has(colour)));
    }
  }

  /** The layout is there, or another one: a question that could not be asked now can be. */
  #meet() {
    const first = this.#clock === null;
    this.#clock ??= Math.abs(Date.now() - live.nowMs());
    this.#follow();
    // A browser whose clock is wrong asked for the wrong hours.
    if (first && this.isLive && this.#clock > CLOCK_OFF_MS && this.question.tags.length) this.#ask();
  }

  async #ask() {
    clearTimeout(this.#timer);
    this.#request?.abort();
    this.#request = null;
    const { site, device, tags } = this.question;
    this.asking = Boolean(site && device && tags.length);
    if (!this.asking) return;
    const request = (this.#request = new AbortController());
    const first = this.#takeFirst();
    const url = first ? first.url : `/api/chart?${this.query(...this.window())}`;
    this.#askedAt = performance.now();
    let answer = null;
    let error = null;
    try {
      const signal = AbortSignal.any([request.signal, AbortSignal.timeout(ANSWER_TIMEOUT_MS)]);
      const response = await (first ? first.response : fetch(url, { signal }));
      // A session that has ended shows in the page itself.
      if (response.status === NOT_SIGNED_IN) return location.reload();
      const body = await response.json();
      if (response.ok) answer = body;
      else error = { body, final: response.status === WRONG_QUESTION };
    } catch {
      error = { body: {}, final: false };
    }
    if (this.#request !== request) return;
    this.asking = false;
    this.error = error;
    if (answer) this.answer = answer;
    this.#schedule();
    this.dispatchEvent(new Event("answer"));
  }

  /** What the page itself has asked already, if it is the same question. */
  #takeFirst() {
    const first = globalThis.firstChart;
    globalThis.firstChart = null;
    if (!first || first.url !== `/api/chart?${this.query(first.from, first.to)}`) return null;
    const { rangeMs: length, fromMs, toMs } = this.question;
    const same = length === null ? first.from === fromMs && first.to === toMs : first.to - first.from === length;
    return same ? first : null;
  }

  #refreshMs() {
    return this.question.rangeMs <= HOUR_MS ? REFRESH_SHORT_MS : REFRESH_MS;
  }

  #schedule() {
    clearTimeout(this.#timer);
    if (document.hidden || this.error?.final) return;
    if (this.error) this.#timer = setTimeout(() => this.#ask(), RETRY_MS);
    else if (this.isLive) this.#timer = setTimeout(() => this.#ask(), this.#refreshMs());
  }

  /** Somebody looks again, or the stream is back: what was missed is asked for. */
  #wake() {
    if (document.hidden || this.asking) return;
    const old = performance.now() - this.#askedAt > this.#refreshMs();
    if (this.error ? !this.error.final : this.isLive && old) this.#ask();
    else this.#schedule();
  }

  /** Add the newest values where the range is so short that a second shows. */
  #grow() {
    const isShort = this.isLive && this.question.rangeMs <= HOUR_MS;
    if (!isShort || document.hidden || !this.answer || this.asking) return;
    for (const line of this.answer.tags) {
      const position = this.positions.get(line.tag);
      const [value, time] = [live.values[position], live.tsMs[position]];
      if (value === undefined || value === null || live.qualities[position] !== "g") continue;
      if (line.times.length && time <= line.times.at(-1)) continue;
      line.times.push(time);
      line.avg.push(value);
      line.min?.push(value);
      line.max?.push(value);
    }
    this.dispatchEvent(new Event("grown"));
  }
}

export const watched = new Watched();
