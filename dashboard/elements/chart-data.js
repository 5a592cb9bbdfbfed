// What a chart is made of, without drawing anything: gaps, one column of times, axes and ranges.

const GAP_MS_MIN = 10_000;
const GAP_STEPS = 2.5;
const GAP_PERIODS = 5;
// A tag with a deadband is recorded when it moves, and once a minute if nobody set another time.
const HEARTBEAT_MS = 60_000;
const RARE_PART = 0.05;
const LIMIT_PART = 0.25; // data shall keep this part of the height beside its limits

/** A distance in time above which a line is broken. */
export function gapMs(times, stepMs, periodMs) {
  const usual = Math.max(stepMs, periodMs ?? 0);
  const gap = Math.max(GAP_STEPS * stepMs, GAP_PERIODS * (periodMs ?? 0), stepMs ? 0 : GAP_MS_MIN);
  const steps = Float64Array.from({ length: Math.max(times.length - 1, 0) }, (_, at) => times[at + 1] - times[at]);
  const long = steps.filter((step) => step > 1.5 * usual);
  if (long.length <= RARE_PART * steps.length) return gap;
  // Whoever is recorded only when it moves has such distances all the time.
  steps.sort();
  const common = steps[Math.floor((1 - RARE_PART) * (steps.length - 1))];
  return Math.max(gap, GAP_STEPS * Math.max(HEARTBEAT_MS, common));
}

/** A line's columns with a null in each gap, so that nothing is drawn across. */
export function withGaps({ times, avg, min, max }, gap) {
  const columns = { times: [], avg: [], min: min && [], max: max && [], alone: [] };
  for (let at = 0; at < times.length; at++) {
    const before = at > 0 && times[at] - times[at - 1] > gap;
    const after = at + 1 < times.length && times[at + 1] - times[at] > gap;
    if (before) {
      columns.times.push((times[at - 1] + times[at]) / 2);
      columns.avg.push(null);
      columns.min?.push(null);
      columns.max?.push(null);
    }
    const isAlone = (before || at === 0) && (after || at + 1 === times.length);
    if (isAlone) columns.alone.push(times[at]);
    columns.times.push(times[at]);
    columns.avg.push(avg[at]);
    columns.min?.push(min[at]);
    columns.max?.push(max[at]);
  }
  return columns;
}

/**
 * All lines over one column of times: `[times, columns…]`, of each line `avg`, and `max`, `min` if
 * it has them. Undefined where a line has nothing at that time, null where it is broken.
 */
export function merged(lines) {
  const all = new Float64Array(lines.reduce((sum, line) => sum + line.times.length, 0));
  let end = 0;
  for (const line of lines) {
    all.set(line.times, end);
    end += line.times.length;
  }
  all.sort();
  let count = 0;
  for (let at = 0; at < all.length; at++) {
    if (!count || all[at] !== all[count - 1]) all[count++] = all[at];
  }
  const times = all.slice(0, count);
  const data = [times];
  for (const line of lines) {
    const places = new Uint32Array(line.times.length);
    let place = 0;
    for (let at = 0; at < places.length; at++) {
      while (times[place] < line.times[at]) place++;
      places[at] = place;
    }
    for (const column of [line.avg, line.max, line.min]) {
      if (!column) continue;
      const spread = new Array(count).fill(undefined);
      for (let at = 0; at < places.length; at++) spread[places[at]] = column[at];
      data.push(spread);
    }
  }
  return data;
}

/** Whether a line is a switch: 0 and 1 only. */
export function isSwitch({ avg, min, max }) {
  const isBit = (value) => value === 0 || value === 1;
  return avg.length > 0 && (min ? min.every(isBit) && max.every(isBit) : avg.every(isBit));
}

const SHARE_DIGITS = 2;

/** Digits for an average: that of a switch is a part of 1, however few digits the switch has. */
export function averageDigits(digits, lowest, highest) {
  const isShare = digits === 0 && lowest >= 0 && highest <= 1 && lowest !== null && highest !== null;
  return isShare && lowest !== highest ? SHARE_DIGITS : digits;
}

/**
 * Where each line is drawn: on the axis "left" or "right", or, for switches beside others, in a lane
 * of its own ("lane 0", "lane 1", ...) where it covers nothing.
 */
export function places(lines) {
  const values = lines.filter((line) => !line.isSwitch);
  const axes = sides(values);
  const isOnly = lines.length === 1;
  let lane = 0;
  return lines.map((line) => {
    if (!line.isSwitch || isOnly) return isOnly ? "left" : axes[values.indexOf(line)];
    return `lane ${lane++}`;
  });
}

/**
 * One axis per unit; where there are more units than axes, those of like size share one, so that no
 * line is flat because another is large.
 */
function sides(lines) {
  const sizes = new Map();
  for (const { unit, avg } of lines) {
    const size = avg.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-3);
    sizes.set(unit, Math.max(sizes.get(unit) ?? 0, size));
  }
  const units = [...sizes.keys()].sort((one, other) => sizes.get(one) - sizes.get(other));
  let cut = 1;
  for (let at = 1; at < units.length; at++) {
    const ratio = (place) => sizes.get(units[place]) / sizes.get(units[place - 1]);
    if (ratio(at) > ratio(cut)) cut = at;
  }
  const small = new Set(units.slice(0, cut));
  return lines.map(({ unit }) => (small.has(unit) === small.has(lines[0].unit) ? "left" : "right"));
}

const LANE_HEIGHT = 0.055; // of the chart, below lines of values
const LANE_GAP = 0.03;

/** Lanes from the bottom up, as parts of the height; without lines of values they share all of it. */
export function lanes(placed) {
  const names = placed.filter((place) => place.startsWith("lane"));
  const isShared = names.length < placed.length;
  const pitch = isShared ? LANE_HEIGHT + LANE_GAP : 1 / Math.max(names.length, 1);
  const height = isShared ? LANE_HEIGHT : pitch * 0.6;
  const below = isShared ? LANE_GAP / 2 : pitch * 0.2;
  // The first tag's lane is the uppermost, as it is the first in every list.
  return new Map(names.map((name, at) => [name, { bottom: below + (names.length - 1 - at) * pitch, height }]));
}

/** The range of a scale on which 0 and 1 are the lower and the upper edge of a lane. */
export const laneRange = ({ bottom, height }) => [-bottom / height, (1 - bottom) / height];

/** Which limits an axis makes room for: those that leave the data most of the height. */
export function limitsWithin(min, max, limits) {
  const span = Math.max(max - min, Math.abs(max) * 0.02);
  let [low, high] = [min, max];
  const distance = (limit) => Math.max(limit - max, min - limit);
  for (const limit of [...limits].sort((one, other) => distance(one) - distance(other))) {
    const [lower, upper] = [Math.min(low, limit), Math.max(high, limit)];
    if (span < LIMIT_PART * (upper - lower)) continue;
    [low, high] = [lower, upper];
  }
  return [low, high];
}

const DIGITS_MAX = 6;

/** Digits after the point that marks of this distance need. */
export function digitsOfStep(step) {
  for (let digits = 0; digits < DIGITS_MAX; digits++) {
    const scaled = step * 10 ** digits;
    if (Math.abs(scaled - Math.round(scaled)) < 1e-6 * scaled) return digits;
  }
  return DIGITS_MAX;
}
