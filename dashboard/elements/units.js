// Figures with their units: counts, bytes, spans of time, moments, and what a check is counted in.

import { duration, number, say } from "./words.js";

const NONE = "–";
const BYTES = ["B", "kB", "MB", "GB", "TB"];
const EPOCH_MS_MIN = 1e11; // as a span it would be three years: no check counts that in milliseconds
const formats = new Map();

/** One formatter for each language and kind: making one is what takes time. */
function format(kind, make) {
  const { lang } = document.documentElement;
  const key = `${lang} ${kind}`;
  if (!formats.has(key)) formats.set(key, make(lang));
  return formats.get(key);
}

const known = (value) => value !== null && value !== undefined;

/** A count; always in full, however large. */
export const count = (value) =>
  known(value) ? format("count", (lang) => new Intl.NumberFormat(lang)).format(Math.round(value)) : NONE;

/** A figure with as many digits as can be read at a glance. */
const short = (value) => number(value, Math.abs(value) < 10 && !Number.isInteger(value) ? 1 : 0);

export const perSecond = (rate) => (known(rate) ? say("per_second", short(rate)) : NONE);

/** Bytes, by thousands as disks are sold. */
export function bytes(value) {
  if (!known(value)) return NONE;
  let [scaled, unit] = [value, 0];
  while (Math.abs(scaled) >= 1000 && unit < BYTES.length - 1) {
    scaled /= 1000;
    unit += 1;
  }
  return `${number(scaled, unit && Math.abs(scaled) < 100 ? 1 : 0)} ${BYTES[unit]}`;
}

/** A span of seconds, from milliseconds to days. */
export function span(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds !== 0 && Math.abs(seconds) < 1) return `${short(seconds * 1000)} ms`;
  if (Math.abs(seconds) < 60) return say("seconds", short(seconds));
  return duration(seconds * 1000);
}

/** How long the remote may stay away; hours, since it is hours that one has to act. */
export const budget = (hours) => (known(hours) ? say("hours", number(hours, hours < 100 ? 1 : 0)) : NONE);

/** A moment in local time; with its date where that is not today. */
export function when(ms) {
  if (!known(ms)) return NONE;
  const date = new Date(ms);
  const today = date.toDateString() === new Date().toDateString();
  const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  const day = today ? {} : { year: "numeric", month: "short", day: "numeric" };
  return format(`when ${today}`, (lang) => new Intl.DateTimeFormat(lang, { ...day, ...clock })).format(date);
}

/** Yes and no, where that is known. */
export const yesNo = (value) => (known(value) ? say(value ? "yes" : "no") : NONE);

const CHECK_UNITS = {
  bytes: (value) => (value < 0 ? say("unlimited") : bytes(value)),
  ms: (value) => (value > EPOCH_MS_MIN ? when(value) : span(value / 1000)),
  s: span,
  seconds: span,
  minutes: (value) => span(value * 60),
  hours: (value) => say("hours", short(value)),
  days: (value) => say("days", short(value)),
  active: (value) => yesNo(value !== 0),
};

/** What a check found: its unit ends its name. */
export function checked(check, value) {
  const unit = CHECK_UNITS[check.slice(check.lastIndexOf("_") + 1)];
  return known(value) && unit ? unit(value) : Number.isInteger(value) ? count(value) : number(value, 2);
}
