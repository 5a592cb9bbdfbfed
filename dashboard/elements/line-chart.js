// The chart itself: lines with their bands, limits, a cursor, a selection. It knows nothing of where
// its data come from; `draw` is told all, `slide` moves the window over what is drawn.

import uPlot from "uplot";
import { axisText } from "./clock.js";
import { digitsOfStep, laneRange, lanes, limitsWithin, merged, places, withGaps } from "./chart-data.js";
import { number } from "./words.js";

const AXIS_FONT_PX = 12;
const LINE_PX = 1.8;
const LABEL_PX = 17;
const DRAG_PX_MIN = 6;
const BAND_ALPHA = "30";
const SIDES = { left: 3, right: 1 };
const HEADROOM = { min: { pad: 0.08, soft: 0, mode: 3 }, max: { pad: 0.08, soft: 0, mode: 3 } };
const LANE_GAP = 0.03; // of the height, between lanes of switches and the lines above them
const LANE_NAMED_PX = 30; // a lower lane has no room for its tag's name
const SWITCH_RANGE = [-0.08, 1.08];

const family = () => getComputedStyle(document.body).fontFamily;
const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export const colourName = (line) => `--series-${line.colour}`;

export class LineChart {
  /** `on.zoom(from, to)`, `on.back()`, `on.cursor(chart)`, `on.drawn()`. */
  constructor(host, on) {
    this.host = host;
    this.on = on;
    this.plot = null;
    this.window = [0, 1];
    this.observer = new ResizeObserver(() => this.#fit());
    this.observer.observe(host);
  }

  destroy() {
    this.observer.disconnect();
    this.clear();
  }

  clear() {
    this.plot?.destroy();
    this.plot = null;
    this.#key = null;
  }

  #key = null;

  /**
   * Lines: {tag, unit, colour, hi, lo, isSwitch, gap, times, avg, min, max}; limits: {value, unit,
   * text, isUpper}. What looks the same as before only gets new data.
   */
  draw(lines, limits, window) {
    this.window = window;
    const columns = lines.map((line) => withGaps(line, line.gap));
    const data = merged(columns);
    this.alone = columns.map(({ alone }) => indices(data[0], alone));
    const placed = places(lines);
    const looks = lines.map(({ tag, unit, colour, isSwitch, max }) => [tag, unit, colour, isSwitch, max !== null]);
    const key = JSON.stringify([looks, placed, limits, document.documentElement.className, document.documentElement.lang]);
    if (this.plot && key === this.#key) {
      this.plot.batch(() => {
        this.plot.setData(data, false);
        this.#slide();
      });
      return;
    }
    this.clear();
    this.#key = key;
    this.lines = lines.map((line, at) => ({ ...line, side: placed[at] }));
    this.limits = limits.map((limit) => ({
      ...limit,
      side: this.lines.find(({ unit }) => unit === limit.unit)?.side ?? "left",
    }));
    this.plot = new uPlot(this.#options(), data, this.host);
  }

  /** Another part of time, with the same data. */
  slide(window) {
    this.window = window;
    if (this.plot) this.#slide();
  }

  #slide() {
    const [min, max] = this.window;
    this.plot.setScale("x", { min, max });
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.host;
    const isOther = this.plot && (this.plot.width !== width || this.plot.height !== height);
    if (isOther && width && height) this.plot.setSize({ width, height });
  }

  // -- what the cursor is at -----------------------------------------------------------------

  /** Time and each line's values below the cursor; null without one. */
  get reading() {
    const { cursor, data } = this.plot ?? {};
    if (!cursor || cursor.idx === null || cursor.idx === undefined || cursor.left < 0) return null;
    const values = this.lines.map((_, at) => {
      const first = this.firsts[at];
      const place = cursor.idxs[first];
      const of = (offset) => (place === null ? null : (data[first + offset][place] ?? null));
      return { avg: of(0), max: this.bands[at] ? of(1) : null, min: this.bands[at] ? of(2) : null };
    });
    return { time: data[0][cursor.idx], values, left: cursor.left, width: this.plot.over.clientWidth };
  }

  /** Move the cursor by some points; from the newest one if there is no cursor. */
  step(by) {
    if (!this.plot) return;
    const { cursor, data } = this.plot;
    const times = data[0];
    const [low, high] = this.#shown();
    if (high < low) return;
    const start = cursor.left >= 0 && cursor.idx !== null ? cursor.idx + by : by < 0 ? high : low;
    const place = Math.min(Math.max(start, low), high);
    this.plot.setCursor({ left: this.plot.valToPos(times[place], "x"), top: this.plot.over.clientHeight / 2 });
  }

  hideCursor() {
    this.plot?.setCursor({ left: -10, top: -10 });
  }

  #shown() {
    const times = this.plot.data[0];
    const [from, to] = this.window;
    let [low, high] = [0, times.length - 1];
    while (low < high && times[low] < from) low++;
    while (high >= low && times[high] > to) high--;
    return [low, high];
  }

  // -- how it looks --------------------------------------------------------------------------

  #options() {
    const font = `${AXIS_FONT_PX}px ${family()}`;
    const soft = token("--soft");
    const grid = { stroke: token("--grid"), width: 1 };
    const series = [{}];
    const bands = [];
    this.firsts = [];
    this.bands = [];
    this.floors = {};
    this.lines.forEach((line, at) => {
      const stroke = token(colourName(line));
      const paths = line.isSwitch ? uPlot.paths.stepped({ align: 1 }) : uPlot.paths.linear();
      const own = { scale: line.side, paths, spanGaps: false };
      const first = series.length;
      this.firsts.push(first);
      this.bands.push(line.max !== null);
      const points = { show: () => false, filter: () => this.alone[at], size: 5, fill: stroke, width: 0 };
      series.push({ ...own, stroke, width: LINE_PX, points });
      if (line.max === null) return;
      const edge = { ...own, width: 0, points: { show: false } };
      series.push({ ...edge }, { ...edge });
      bands.push({ series: [first + 1, first + 2], fill: /^#\w{6}$/.test(stroke) ? stroke + BAND_ALPHA : "transparent" });
    });
    const used = ["left", "right"].filter((side) => this.lines.some((line) => line.side === side));
    const scales = { x: { time: true, range: () => this.window } };
    for (const side of used) scales[side] = { range: (_, min, max) => this.#range(side, min, max) };
    this.lanes = lanes(this.lines.map(({ side }) => side));
    for (const [scale, lane] of this.lanes) scales[scale] = { range: laneRange(lane) };
    const axes = [
      {
        font, stroke: soft, size: 30, gap: 8, space: 76,
        grid: { show: false }, ticks: { show: false },
        values: (plot, splits, _axis, _space, step) =>
          splits.map((ms) => axisText(ms, step, plot.scales.x.max - plot.scales.x.min)),
      },
      ...used.map((side) => ({
        font, stroke: soft, scale: side, side: SIDES[side], gap: 8, space: 44,
        size: (plot, texts) => this.#axisSize(plot, texts, font),
        filter: (_plot, splits) => this.#aboveLanes(side, splits),
        grid: side === "left" ? { ...grid, filter: (_plot, splits) => this.#aboveLanes(side, splits) } : { show: false },
        ticks: { show: false },
        ...(this.#isSwitches(side) ? { splits: () => [0, 1], incrs: [1] } : {}),
        values: (_plot, splits, _axis, _space, step) => splits.map((value) => (value === null ? "" : number(value, digitsOfStep(step)))),
      })),
    ];
    const { clientWidth, clientHeight } = this.host;
    return {
      width: Math.max(clientWidth, 40),
      height: Math.max(clientHeight, 40),
      ms: 1,
      padding: [this.#units("left") || this.#units("right") ? 30 : 16, used.length > 1 ? 4 : 16, 0, 4],
      series, bands, scales, axes,
      legend: { show: false },
      select: { show: true, left: 0, top: 0, width: 0, height: 0 },
      cursor: {
        x: true,
        y: false,
        drag: { x: true, y: false, setScale: false, dist: DRAG_PX_MIN },
        bind: { dblclick: () => () => this.on.back() },
        points: {
          size: 9, width: 2,
          show: (plot, at) => this.#cursorPoint(plot, at),
        },
      },
      hooks: {
        draw: [(plot) => this.#drawOver(plot)],
        setCursor: [() => this.on.cursor(this)],
        setSelect: [(plot) => this.#select(plot)],
      },
    };
  }

  /** A dot where the cursor meets a line; the edges of bands have none. */
  #cursorPoint(_plot, at) {
    const line = this.firsts.indexOf(at);
    const dot = document.createElement("div");
    dot.className = "at-cursor";
    if (line < 0) dot.hidden = true;
    else dot.style.background = token(colourName(this.lines[line]));
    return dot;
  }

  #select(plot) {
    const { left, width } = plot.select;
    if (width < DRAG_PX_MIN) return;
    const [from, to] = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.on.zoom(from, to);
  }

  #isSwitches(side) {
    return this.lines.every((line) => line.side !== side || line.isSwitch);
  }

  #units(side) {
    return [...new Set(this.lines.filter((line) => line.side === side).map(({ unit }) => unit))].filter(Boolean).join(" · ");
  }

  #range(side, min, max) {
    this.floors[side] = -Infinity;
    if (this.#isSwitches(side)) return SWITCH_RANGE;
    if (min === null || max === null || !isFinite(min) || !isFinite(max)) return [0, 1];
    const own = this.limits.filter((limit) => limit.side === side).map(({ value }) => value);
    let [low, high] = limitsWithin(min, max, own);
    if (low === high) {
      const margin = Math.abs(low) * 0.05 || 1;
      [low, high] = [low - margin, high + margin];
    }
    [low, high] = uPlot.rangeNum(low, high, HEADROOM);
    this.floors[side] = low;
    const top = Math.max(0, ...[...this.lanes.values()].map(({ bottom, height }) => bottom + height + LANE_GAP));
    return [low - ((high - low) * top) / (1 - top), high];
  }

  /** Marks of an axis, but those beside the lanes of switches: these have no numbers. */
  #aboveLanes(side, splits) {
    return splits.map((value) => (value < this.floors[side] ? null : value));
  }

  #axisSize(plot, texts, font) {
    if (!texts) return 40;
    plot.ctx.save();
    plot.ctx.font = font;
    const widest = Math.max(...texts.map((text) => plot.ctx.measureText(text ?? "").width));
    plot.ctx.restore();
    return Math.ceil(widest) + 18;
  }

  /** Limits and the axes' units, over the lines. */
  #drawOver(plot) {
    const { ctx, bbox } = plot;
    const ratio = uPlot.pxRatio;
    ctx.save();
    ctx.font = `${AXIS_FONT_PX * ratio}px ${family()}`;
    ctx.lineWidth = 1.2 * ratio;
    ctx.strokeStyle = token("--alarm");
    const right = bbox.left + bbox.width;
    const high = LABEL_PX * ratio;
    const shown = this.limits
      .filter(({ value, side }) => value >= plot.scales[side].min && value <= plot.scales[side].max)
      .map((limit) => ({ ...limit, y: Math.round(plot.valToPos(limit.value, limit.side, true)) + 0.5 }))
      .sort((one, other) => one.y - other.y);
    // An upper limit's label stands above its line unless another one is there, a lower one's below.
    let taken = bbox.top;
    for (const [at, { y, text, isUpper }] of shown.entries()) {
      ctx.setLineDash([6 * ratio, 4 * ratio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(right, y);
      ctx.stroke();
      const next = shown[at + 1]?.y ?? bbox.top + bbox.height;
      const isBelow = y - high < taken || (!isUpper && y + high < next);
      ctx.fillStyle = token("--alarm-text");
      ctx.textAlign = "right";
      ctx.textBaseline = isBelow ? "top" : "bottom";
      ctx.fillText(text, right - 4 * ratio, y + (isBelow ? 4 : -3) * ratio);
      taken = isBelow ? y + high : y;
    }
    ctx.fillStyle = token("--soft");
    ctx.textBaseline = "bottom";
    ctx.textAlign = "left";
    for (const { tag, side } of this.lines) {
      const lane = this.lanes.get(side);
      if (!lane || lane.height * bbox.height < LANE_NAMED_PX * ratio) continue;
      ctx.fillText(tag, bbox.left + 2 * ratio, bbox.top + bbox.height * (1 - lane.bottom - lane.height) - 6 * ratio);
    }
    ctx.fillText(this.#units("left"), 12 * ratio, bbox.top - 9 * ratio);
    ctx.textAlign = "right";
    ctx.fillText(this.#units("right"), ctx.canvas.width - 12 * ratio, bbox.top - 9 * ratio);
    ctx.restore();
    if (plot.data[0].length) this.on.drawn();
  }

  // -- a picture -----------------------------------------------------------------------------

  /** The chart as a canvas of its own, with a title and what its lines are. */
  picture(title, subtitle) {
    const source = this.plot.ctx.canvas;
    const ratio = uPlot.pxRatio;
    const head = 84 * ratio;
    const canvas = document.createElement("canvas");
    canvas.width = source.width;
    canvas.height = source.height + head;
    const ctx = canvas.getContext("2d");
    ctx.fillStyle = token("--page");
    ctx.fillRect(0, 0, canvas.width, canvas.height);
    ctx.textBaseline = "middle";
    const write = (text, x, y, px, colour, weight = 400) => {
      ctx.font = `${weight} ${px * ratio}px ${family()}`;
      ctx.fillStyle = colour;
      ctx.fillText(text, x, y * ratio);
      return ctx.measureText(text).width;
    };
    write(title, 14 * ratio, 24, 18, token("--text"), 700);
    ctx.textAlign = "right";
    write(subtitle, canvas.width - 14 * ratio, 24, 12, token("--soft"));
    ctx.textAlign = "left";
    let x = 14 * ratio;
    for (const line of this.lines) {
      ctx.fillStyle = token(colourName(line));
      ctx.fillRect(x, 54 * ratio, 14 * ratio, 4 * ratio);
      x += 20 * ratio;
      x += write(`${line.tag}${line.unit ? ` (${line.unit})` : ""}`, x, 56, 13, token("--text")) + 18 * ratio;
    }
    ctx.drawImage(source, 0, head);
    return canvas;
  }
}

/** Where in a sorted column these times stand; null for none, as the plot wants it. */
function indices(times, wanted) {
  if (!wanted.length) return null;
  const set = new Set(wanted);
  const found = [];
  for (let at = 0; at < times.length; at++) if (set.has(times[at])) found.push(at);
  return found;
}
