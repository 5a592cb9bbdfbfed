// Times as a person at this place reads them.

const DAY_MS = 86_400_000;
const MINUTE_MS = 60_000;
const YEAR_MS = 365 * DAY_MS;

const STYLES = {
  minute: { hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
  second: { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" },
  day: { month: "short", day: "numeric" },
  weekday: { weekday: "short", day: "numeric" },
  month: { year: "numeric", month: "short" },
  moment: { weekday: "short", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23" },
  full: {
    weekday: "short", month: "short", day: "numeric",
    hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
  },
};

const formats = new Map();

/** A time in one of the styles, in the page's language. */
export function timeText(ms, style) {
  const language = document.documentElement.lang;
  const key = `${language}${style}`;
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(language, STYLES[style]));
  return formats.get(key).format(ms);
}

const two = (part) => String(part).padStart(2, "0");

/** hh:mm:ss.mmm; by hand, because a table has hundreds of them. */
export function clockText(ms) {
  const date = new Date(ms);
  const clock = [date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(":");
  return `${clock}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

export const isSameDay = (one, other) => new Date(one).toDateString() === new Date(other).toDateString();

/** What stands below an axis whose marks are `step` apart. The first mark of a day says which. */
export function axisText(ms, step, span) {
  const date = new Date(ms);
  const isMidnight = !date.getHours() && !date.getMinutes() && !date.getSeconds() && !date.getMilliseconds();
  if (step >= 28 * DAY_MS || span > 2 * YEAR_MS) return timeText(ms, "month");
  if (step >= DAY_MS) return timeText(ms, span <= 9 * DAY_MS ? "weekday" : "day");
  if (isMidnight) return timeText(ms, "day");
  return timeText(ms, step < MINUTE_MS ? "second" : "minute");
}

/** For an input of type datetime-local, and back. */
export function inputOf(ms) {
  const local = new Date(ms - new Date(ms).getTimezoneOffset() * MINUTE_MS);
  return local.toISOString().slice(0, 19);
}

export const msOfInput = (text) => new Date(text).getTime();
