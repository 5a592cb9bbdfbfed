// The chart of the chosen tags in a box with a bar below it, as people know it from videos: whether
// it is live, the range, how the values were summarised, downloads.

import { Drawn, h, setAttribute, setText } from "./base.js";
import { digitsOf } from "./card.js";
import { averageDigits, digitsOfStep, gapMs, isSwitch } from "./chart-data.js";
import { inputOf, msOfInput, timeText } from "./clock.js";
import { colourName, LineChart } from "./line-chart.js";
import { live } from "./live.js";
import { show } from "./view.js";
import { watched } from "./watched.js";
import { addWords, ago, number, say, told } from "./words.js";

const RANGES = ["1h", "24h", "7d", "30d"];
const ZOOM_MS_MIN = 10_000;
const ZOOM_FACTOR = 2;
const LIMITS_OF_TAGS_MAX = 2; // more tags than that, and only the first one's limits are drawn
const STEPS_FAST = 10;
const SECONDS_SHOWN_MS = 2 * 3_600_000;
const UNKNOWN = { unit: "", description: "", hi: null, lo: null, digits: null, period_ms: null };

addWords({
  chart: ["차트", "Chart"],
  chart_keys: [
    "왼쪽과 오른쪽 화살표로 시점을 옮기고, 더하기와 빼기로 확대하고 축소합니다.",
    "Left and right arrows move the cursor, plus and minus zoom.",
  ],
  to_live: ["지금까지 보기", "Show up to now"],
  range: ["기간", "Range"],
  range_1h: ["최근 1시간", "Last hour"],
  range_24h: ["최근 24시간", "Last 24 hours"],
  range_7d: ["최근 7일", "Last 7 days"],
  range_30d: ["최근 30일", "Last 30 days"],
  from: ["시작", "From"],
  to: ["끝", "To"],
  apply: ["적용", "Apply"],
  range_wrong: ["끝이 시작보다 뒤여야 합니다", "The end must be after the start"],
  raw: ["샘플", "Every value"],
  step_seconds: ["{}초 집계", "{}-second averages"],
  step_minutes: ["{}분 집계", "{}-minute averages"],
  step_hours: ["{}시간 집계", "{}-hour averages"],
  step_days: ["{}일 집계", "{}-day averages"],
  step_ms: ["{}ms 집계", "{} ms averages"],
  points: ["{}점", "{} points"],
  csv: ["CSV로 내려받기", "Download as CSV"],
  png: ["그림으로 내려받기", "Download as a picture"],
  chart_error: ["차트를 불러오지 못했습니다", "The chart could not be loaded"],
  chart_error_hint: ["5초마다 다시 시도합니다.", "It is tried again each 5 seconds."],
  retry: ["다시 시도", "Try again"],
  no_device: ["장치를 고르지 않았습니다", "No device is chosen"],
  unknown_device: ["{} 장치가 주소 맵에 없습니다", "{} is not in the address map"],
  unknown_device_why: [
    "이름이 바뀌었거나 맵에서 빠졌을 수 있습니다.",
    "It may have another name now, or has left the map.",
  ],
  to_home: ["모든 장치 보기", "Show all devices"],
  no_data: ["이 기간에 기록이 없습니다", "There is no record of this time"],
  no_data_of: ["이 기간에 기록 없음: {}", "No record of this time: {}"],
  newest_is: ["최신 값: {}", "Newest value: {}"],
  never_recorded: ["이 태그는 아직 기록된 적이 없습니다.", "This tag has not been recorded yet."],
  average: ["평균", "average"],
  lowest: ["최소", "lowest"],
  highest: ["최대", "highest"],
  gap: ["기록 없음", "no record"],
});

class Player extends Drawn {
  start() {
    this.isMarked = false;
    this.#makeScreen();
    this.#makeBar();
    this.replaceChildren(h("section.player", {}, this.screen, this.bar, this.said));
    this.chart = new LineChart(this.plot, {
      zoom: (from, to) => this.#zoomTo(from, to, true),
      back: () => this.#goLive(),
      cursor: () => this.#pointTo(),
      drawn: () => this.#mark(),
    });
    this.on(watched, "question", () => this.#ask());
    this.on(watched, "answer", () => this.#draw());
    this.on(watched, "grown", () => this.#draw());
    this.on(live, "layout", () => this.#draw());
    this.on(document, "theme", () => this.#draw());
    this.on(document, "language", () => this.#relabel());
    this.on(document, "pointerdown", (event) => this.picker.contains(event.target) || this.#closeRange());
    this.leaving.signal.addEventListener("abort", () => this.chart.destroy());
    this.#relabel();
  }

  #makeScreen() {
    this.plot = h("div.plot", { tabindex: "0", role: "img", "aria-describedby": "chart-keys" });
    this.keys = h("span.hidden", { id: "chart-keys" });
    this.tip = h("div.tip", { hidden: true, "aria-hidden": "true" });
    this.said = h("div.hidden", { "aria-live": "polite" });
    this.noteText = h("strong");
    this.noteHint = h("span");
    this.retry = h("button.chip", { type: "button", onclick: () => watched.again() });
    this.home = h("a.chip", { href: "/" });
    this.note = h("div.note", { hidden: true, role: "status" }, this.noteText, this.noteHint, this.retry, this.home);
    this.skeleton = h("div.skeleton", { "aria-hidden": "true" });
    this.screen = h("div.screen", {}, this.skeleton, this.plot, this.tip, this.note, this.keys);
    this.on(this.plot, "keydown", (event) => this.#key(event));
    this.on(this.plot, "blur", () => this.chart.hideCursor());
  }

  #makeBar() {
    this.live = h("button.live", { type: "button", onclick: () => this.#goLive() }, h("i"), "LIVE");
    this.ranges = RANGES.map((range) => {
      const choose = () => show({ range, from: null, to: null }, { push: true });
      return h("button", { type: "button", "data-range": range, onclick: choose }, range);
    });
    this.rangeButton = h("button", { type: "button", "aria-expanded": "false", onclick: () => this.#toggleRange() });
    const field = (name) => h("input", { type: "datetime-local", step: 1, required: true, name });
    this.from = field("from");
    this.to = field("to");
    this.fromLabel = h("span");
    this.toLabel = h("span");
    this.apply = h("button.apply", { type: "submit" });
    this.form = h(
      "form",
      { hidden: true },
      h("label", {}, this.fromLabel, this.from),
      h("label", {}, this.toLabel, this.to),
      this.apply,
    );
    this.picker = h("div.picker", {}, this.rangeButton, this.form);
    this.group = h("div.ranges", { role: "group" }, ...this.ranges, this.picker);
    this.how = h("span.how");
    this.csv = h("a", { download: "" }, "CSV");
    this.png = h("button", { type: "button", onclick: () => this.#savePicture() }, "PNG");
    this.bar = h("div.bar", {}, this.live, this.group, h("div.end", {}, this.how, this.csv, this.png));
    this.on(this.form, "submit", (event) => this.#applyRange(event));
    this.on(this.form, "input", () => this.to.setCustomValidity(""));
    this.on(this.picker, "keydown", (event) => event.key === "Escape" && this.#closeRange(true));
  }

  #relabel() {
    setText(this.keys, say("chart_keys"));
    setText(this.rangeButton, say("range"));
    setText(this.fromLabel, say("from"));
    setText(this.toLabel, say("to"));
    setText(this.apply, say("apply"));
    setText(this.retry, say("retry"));
    setText(this.home, say("to_home"));
    setAttribute(this.group, "aria-label", say("range"));
    setAttribute(this.live, "title", say("to_live"));
    setAttribute(this.csv, "title", say("csv"));
    setAttribute(this.png, "title", say("png"));
    for (const button of this.ranges) setAttribute(button, "title", say(`range_${button.dataset.range}`));
    this.#ask();
  }

  /** Another question: show at once what of it is there. */
  #ask() {
    const { range, tags } = watched.question;
    setAttribute(this.live, "aria-pressed", String(watched.isLive));
    for (const button of this.ranges) setAttribute(button, "aria-pressed", String(button.dataset.range === range));
    const isOther = range === null || !RANGES.includes(range);
    setAttribute(this.rangeButton, "aria-pressed", String(isOther));
    this.bar.classList.toggle("idle", !tags.length);
    if (watched.answer) this.chart.slide(watched.window());
    this.#draw();
  }

  #draw() {
    const { answer, asking } = watched;
    setAttribute(this.screen, "aria-busy", String(asking));
    const lines = answer ? this.#lines(answer) : [];
    const hasData = lines.some((line) => line.times.length);
    this.#explain(lines, hasData);
    this.skeleton.hidden = hasData || !this.note.hidden;
    this.plot.hidden = !hasData;
    this.lines = lines;
    this.drawn = lines.filter((line) => line.times.length);
    if (hasData) this.chart.draw(this.drawn, this.#limits(lines), this.#window());
    else this.chart.clear();
    this.#summarise();
    this.#pointTo();
  }

  /** Of the answer; a short one moves with the clock from answer to answer. */
  #window() {
    if (watched.asking) return watched.window();
    const { from, to } = watched.answer;
    if (!watched.isLive) return [from, to];
    const newest = Math.max(to, ...watched.answer.tags.map((line) => line.times.at(-1) ?? 0));
    return [newest - (to - from), newest];
  }

  #lines(answer) {
    return answer.tags.map((line) => {
      const known = live.tags[watched.positions.get(line.tag)] ?? UNKNOWN;
      const isBits = isSwitch(line);
      // A band from 0 to 1 around a switch says nothing, and covers the others.
      const band = isBits ? { min: null, max: null } : {};
      return {
        ...line,
        ...band,
        known,
        unit: known.unit,
        colour: watched.colourOf(line.tag) || 1,
        isSwitch: isBits,
        gap: gapMs(line.times, line.step_ms, known.period_ms),
      };
    });
  }

  #limits(lines) {
    const shown = lines.length > LIMITS_OF_TAGS_MAX ? lines.slice(0, 1) : lines;
    return shown.flatMap(({ tag, unit, known }) =>
      ["hi", "lo"]
        .filter((side) => known[side] !== null)
        .map((side) => {
          const whose = lines.length > 1 ? `${tag} ` : "";
          const text = `${whose}${say(side)} ${limitText(known[side])} ${unit}`.trim();
          return { value: known[side], unit, text, isUpper: side === "hi" };
        }),
    );
  }

  #mark() {
    if (this.isMarked) return;
    this.isMarked = true;
    performance.mark("chart");
  }

  // -- sentences -----------------------------------------------------------------------------

  /** What is the matter, where something is. */
  #explain(lines, hasData) {
    const matter = this.#matter(lines, hasData);
    this.note.hidden = !matter;
    this.note.classList.toggle("over", hasData);
    if (!matter) return;
    setText(this.noteText, matter.text);
    setText(this.noteHint, matter.hint);
    this.retry.hidden = !matter.canRetry;
    this.home.hidden = !matter.canLeave;
  }

  #matter(lines, hasData) {
    const { question, error, device, answer, asking } = watched;
    if (!question.device) return { text: say("no_device"), hint: "", canLeave: true };
    if (error) {
      const hint = told(error.body, "hint") || (error.final ? "" : say("chart_error_hint"));
      const why = told(error.body, "error");
      const text = why ? `${say("chart_error")}: ${why}` : say("chart_error");
      return { text, hint, canRetry: !error.final, canLeave: error.final };
    }
    const isUnknown = live.ready && live.fresh && !device;
    if (isUnknown && !hasData && !asking) {
      return { text: say("unknown_device", question.device), hint: say("unknown_device_why"), canLeave: true };
    }
    if (!answer || asking) return null;
    const without = lines.filter((line) => !line.times.length).map((line) => line.tag);
    if (!without.length) return null;
    if (hasData) return { text: say("no_data_of", without.join(", ")), hint: "" };
    const newest = Math.max(...question.tags.map((tag) => live.tsMs[watched.positions.get(tag)] ?? 0));
    const hint = newest ? say("newest_is", ago(live.nowMs() - newest)) : say("never_recorded");
    return { text: say("no_data"), hint };
  }

  /** The bar's right end, and the chart in words. */
  #summarise() {
    const { answer, question } = watched;
    const lines = this.lines;
    const steps = [...new Set(lines.map((line) => stepText(line.step_ms)))];
    const points = lines.reduce((sum, line) => sum + line.times.length, 0);
    setText(this.how, answer ? `${steps.join(" + ")} · ${say("points", number(points, 0))}` : "");
    this.csv.hidden = this.png.hidden = !answer;
    this.png.disabled = !points;
    if (answer) setAttribute(this.csv, "href", `/api/export.csv?${watched.query(answer.from, answer.to)}`);
    const told = lines.map((line) => {
      const text = (name) => `${say(name)} ${this.#valueText(line, line.figures[name], name === "average")}`;
      if (line.figures.average === null) return `${line.tag}: ${say("gap")}`;
      return `${line.tag}: ${["average", "lowest", "highest"].map(text).join(", ")}`;
    });
    setAttribute(this.plot, "aria-label", `${say("chart")} ${question.device}. ${told.join(". ")}`);
  }

  #valueText({ known, unit, figures }, value, isAverage = false) {
    const digits = digitsOf(known, value);
    const shown = isAverage ? averageDigits(digits, figures.lowest, figures.highest) : digits;
    return `${number(value, shown)} ${value === null ? "" : unit}`.trim();
  }

  // -- the cursor ----------------------------------------------------------------------------

  #pointTo() {
    const reading = this.drawn?.length ? this.chart.reading : null;
    this.tip.hidden = !reading;
    if (!reading) return;
    const style = this.chart.window[1] - this.chart.window[0] <= SECONDS_SHOWN_MS ? "full" : "moment";
    const rows = this.drawn.map((line, at) => {
      const { avg, min, max } = reading.values[at];
      const swatch = h("i");
      swatch.style.background = `var(${colourName(line)})`;
      const digits = digitsOf(line.known, avg);
      const band = min === null || min === max ? null : `${number(min, digits)} – ${number(max, digits)}`;
      const value = avg === null ? say("gap") : this.#valueText(line, avg, line.step_ms > 0);
      return h("p", {}, swatch, h("span", {}, line.tag), h("b", {}, value), band && h("small", {}, band));
    });
    this.tip.replaceChildren(h("time", {}, timeText(reading.time, style)), ...rows);
    const { left: boxLeft } = this.screen.getBoundingClientRect();
    const { left, width } = this.chart.plot.over.getBoundingClientRect();
    const x = left - boxLeft + reading.left;
    const isRight = reading.left > width / 2;
    this.tip.style.transform = `translateX(${isRight ? `calc(${(x - 14).toFixed(0)}px - 100%)` : `${(x + 14).toFixed(0)}px`})`;
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.chart.plot) return;
    const by = event.shiftKey ? STEPS_FAST : 1;
    if (event.key === "ArrowLeft") this.#step(-by);
    else if (event.key === "ArrowRight") this.#step(by);
    else if (event.key === "+" || event.key === "=") this.#zoomBy(1 / ZOOM_FACTOR);
    else if (event.key === "-" || event.key === "_") this.#zoomBy(ZOOM_FACTOR);
    else if (event.key === "Escape") this.chart.hideCursor();
    else return;
    event.preventDefault();
  }

  #step(by) {
    this.chart.step(by);
    this.#pointTo();
    setText(this.said, [...this.tip.children].map(textOf).join(", "));
  }

  // -- the range -----------------------------------------------------------------------------

  #zoomBy(factor) {
    const [from, to] = this.chart.window;
    const { time } = this.chart.reading ?? {};
    const middle = time ?? (from + to) / 2;
    this.#zoomTo(middle - (middle - from) * factor, middle + (to - middle) * factor, watched.isLive);
  }

  /** A range of its own; never one that ends later than now. */
  #zoomTo(from, to, push) {
    const length = Math.max(to - from, ZOOM_MS_MIN);
    const end = Math.min((from + to + length) / 2, live.nowMs());
    show({ from: Math.max(Math.round(end - length), 0), to: Math.round(end) }, { push });
  }

  #goLive() {
    show({ from: null, to: null }, { push: true });
  }

  #toggleRange() {
    if (!this.form.hidden) return this.#closeRange();
    const [from, to] = watched.window();
    this.from.value = inputOf(from);
    this.to.value = inputOf(to);
    this.form.hidden = false;
    setAttribute(this.rangeButton, "aria-expanded", "true");
    this.from.focus();
  }

  #closeRange(isBack = false) {
    if (this.form.hidden) return;
    this.form.hidden = true;
    setAttribute(this.rangeButton, "aria-expanded", "false");
    if (isBack) this.rangeButton.focus();
  }

  #applyRange(event) {
    event.preventDefault();
    const [from, to] = [msOfInput(this.from.value), msOfInput(this.to.value)];
    if (!(from < to)) {
      this.to.setCustomValidity(say("range_wrong"));
      this.to.reportValidity();
      return;
    }
    this.#closeRange(true);
    show({ from, to }, { push: true });
  }

  // -- downloads -----------------------------------------------------------------------------

  #savePicture() {
    if (!this.chart.plot) return;
    const { site, device } = watched.question;
    const [from, to] = this.chart.window.map((ms) => timeText(ms, "moment"));
    const title = [device, site, watched.device?.line].filter(Boolean).join(" · ");
    this.chart.picture(title, `${from} – ${to}`).toBlob((blob) => {
      const url = URL.createObjectURL(blob);
      h("a", { href: url, download: `${site}-${device}.png` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    });
  }
}

/** The texts of an element's parts, apart from each other. */
const textOf = (node) => (node.children.length ? [...node.children].map(textOf).filter(Boolean).join(" ") : node.textContent);

/** A limit as the map has it: 8.5, not 8.500. */
const limitText = (limit) => number(limit, digitsOfStep(Math.abs(limit)));

function stepText(ms) {
  if (!ms) return say("raw");
  const units = [["step_days", 86_400_000], ["step_hours", 3_600_000], ["step_minutes", 60_000], ["step_seconds", 1_000]];
  const [word, length] = units.find(([, unit]) => ms % unit === 0) ?? ["step_ms", 1];
  return say(word, ms / length);
}

customElements.define("plc-player", Player);
