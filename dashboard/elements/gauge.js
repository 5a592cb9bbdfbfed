// A gauge and the bars of the last hour, as SVG. Two elements move per tick: the arc and the text.

import { s, setAttribute } from "./base.js";
import { digitsFor, number, say } from "./words.js";

const CENTER_X = 160;
const CENTER_Y = 106;
const RADIUS = 76;
const BARS = 60;
const BARS_LEFT = 18;
const BARS_WIDTH = 228;
const BARS_BOTTOM = 170;
const BARS_HEIGHT = 34;
const MARGIN_PART = 0.12; // of hi..lo, on either side of the limits

const ARC = `M${CENTER_X - RADIUS} ${CENTER_Y}A${RADIUS} ${RADIUS} 0 0 1 ${CENTER_X + RADIUS} ${CENTER_Y}`;

/** From where to where a tag's gauge goes: as somebody chose, else around its limits, else around what it was lately. */
export function rangeOf(tag, values, ends = null) {
  if (ends) return ends;
  const { hi, lo } = tag;
  if (hi !== null && lo !== null) {
    const margin = (hi - lo) * MARGIN_PART;
    return tidy(lo >= 0 ? Math.max(0, lo - margin) : lo - margin, hi + margin);
  }
  const seen = values.filter((value) => value !== null && value !== undefined);
  if (hi !== null) return tidy(Math.min(0, ...seen), Math.max(hi * 1.25, ...seen));
  if (lo !== null) return tidy(Math.min(lo - Math.abs(lo) * 0.25, ...seen), Math.max(2 * lo, ...seen));
  if (!seen.length) return [0, 1];
  const low = Math.min(...seen);
  const high = Math.max(...seen);
  const margin = (high - low) * MARGIN_PART || Math.abs(high) * MARGIN_PART || 1;
  return tidy(low >= 0 && low < high - low ? 0 : low - margin, high + margin);
}

/** Ends that can be read: rounded outwards to two digits of the span. */
function tidy(low, high) {
  const step = 10 ** Math.floor(Math.log10(high - low || 1)) / 10;
  return [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step];
}

/** What all gauges have in common: a copy is made sooner than twelve elements. */
const FACE = s(
  "svg.gauge",
  { viewBox: "0 0 320 180", role: "img" },
  s("path.track", { d: ARC }),
  s("path.fill", { d: ARC, pathLength: 100, "stroke-dasharray": "0 100" }),
  s("g.ticks"),
  s("text.value", { x: CENTER_X, y: CENTER_Y - 14 }),
  s("text.name", { x: CENTER_X, y: CENTER_Y + 6 }),
  s("text.end", { x: CENTER_X - RADIUS, y: CENTER_Y + 18 }),
  s("text.end", { x: CENTER_X + RADIUS, y: CENTER_Y + 18 }),
  s("path.bars"),
  s("path.bars.out"),
);

/** Draws one gauge with bars; `update` and `drawBars` change it. */
export class Gauge {
  constructor(tag) {
    this.tag = tag;
    this.node = FACE.cloneNode(true);
    const [, fill, ticks, value, name, low, high, bars, out] = this.node.children;
    Object.assign(this, { fill, ticks, value, low, high, bars, out });
    name.textContent = tag.unit ? `${tag.tag} · ${tag.unit}` : tag.tag;
    this.range = null;
  }

  /** Show a value; `state` words go into the text alternative. */
  update(value, range, state) {
    if (!this.range || range[0] !== this.range[0] || range[1] !== this.range[1]) {
      this.#setRange(range);
    }
    const [low, high] = range;
    const part = value === null ? 0 : Math.min(Math.max((value - low) / (high - low), 0), 1);
    // An arc of length 0 still paints its round caps: none at all without a value.
    setAttribute(this.fill, "stroke-dasharray", `${(part * 100).toFixed(1)} 100`);
    setAttribute(this.fill, "visibility", value === null ? "hidden" : "visible");
    const text = number(value, this.digits);
    if (this.value.textContent !== text) {
      this.value.textContent = text;
      this.value.classList.toggle("long", text.length > 6);
    }
    const label = `${this.tag.tag} ${text} ${this.tag.unit} ${state}`;
    setAttribute(this.node, "aria-label", label);
  }

  #setRange(range) {
    this.range = range;
    const [low, high] = range;
    this.digits = this.tag.digits ?? digitsFor(high - low);
    const digits = Math.max(digitsFor((high - low) * 20), 0);
    this.low.textContent = number(low, digits);
    this.high.textContent = number(high, digits);
    const ticks = [this.tag.lo, this.tag.hi].filter(
      (limit) => limit !== null && limit > low && limit < high,
    );
    this.ticks.replaceChildren(
      ...ticks.map((limit) => {
        const angle = (180 * (limit - low)) / (high - low);
        return s("path", {
          d: `M${CENTER_X - RADIUS - 11} ${CENTER_Y}h22`,
          transform: `rotate(${angle.toFixed(1)} ${CENTER_X} ${CENTER_Y})`,
        });
      }),
    );
  }

  /** The bars of the last hour, one path for those within the limits and one for those beyond. */
  drawBars(values) {
    const known = (values ?? []).filter((value) => value !== null);
    const { hi, lo } = this.tag;
    let low = Math.min(...known);
    let high = Math.max(...known);
    // Something that hardly moves shall not look as if it did.
    const span = Math.max(high - low, this.range ? (this.range[1] - this.range[0]) / 8 : 0, 1e-9);
    low = Math.min(low, (low + high - span) / 2);
    const width = BARS_WIDTH / BARS;
    let within = "";
    let beyond = "";
    (values ?? []).forEach((value, index) => {
      if (value === null) return;
      const height = 4 + ((BARS_HEIGHT - 4) * (value - low)) / span;
      const x = (BARS_LEFT + index * width).toFixed(1);
      const bar = `M${x} ${BARS_BOTTOM}v${-Math.min(height, BARS_HEIGHT).toFixed(1)}`;
      if ((hi !== null && value > hi) || (lo !== null && value < lo)) beyond += bar;
      else within += bar;
    });
    setAttribute(this.bars, "d", within);
    setAttribute(this.out, "d", beyond);
    this.node.classList.toggle("barless", !known.length);
  }
}

/** What the bars of a card say, for who does not see them. */
export function barsLabel(values, digits, unit) {
  const known = (values ?? []).filter((value) => value !== null);
  if (!known.length) return say("no_history");
  const ends = `${number(Math.min(...known), digits)} – ${number(Math.max(...known), digits)}`;
  return `${say("last_hour")}: ${ends} ${unit}`;
}
