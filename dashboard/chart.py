"""What a chart shows of some tags of one device: which resolution, and the columns to draw.

Pure but for the questions it asks a `History`. A range is answered by

* *samples*, where it is short and the source still has them. A tag with more samples than a chart
  has room for is reduced to their average, lowest and highest per step; one with more than may be
  read is answered by minutes, while its slower neighbours keep their samples;
* *minutes*, else, grouped into steps;
* *hours*, where the minutes would be too many to read in time, or have expired.

The newest two minutes, which minutes and hours may not have yet, are always made of samples, so
that a chart reaches to now. Steps begin at multiples of their length, so all tags share one grid.
No value is left out of a step's lowest and highest.
"""

from __future__ import annotations

import asyncio
import math
import operator
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from dashboard.data.base import Buckets, History, Kept, Samples
from edge_agent.clock import DAY_MS, HOUR_MS, MINUTE_MS
from edge_agent.errors import ConfigError

Kind = Literal["samples", "minutes", "hours"]

POINTS_MAX: Final = 3_000
"""Of a tag: more than a screen has columns; three such tags are drawn in a second."""
TAGS_MAX: Final = 20
"""Of one chart: more colours than that nobody can tell apart."""
RANGE_MS_MAX: Final = 3_660 * DAY_MS
"""Ten years: as long as any source keeps hours."""
SAMPLES_RANGE_MS_MAX: Final = 2 * HOUR_MS
"""Longer ranges are answered by minutes: more than 120 of them."""
SAMPLES_READ_MAX: Final = 60_000
"""Of all tags together: each lies in a page of its own in PostgreSQL, and these take 0.2 s."""
MINUTES_RANGE_MS_MAX: Final = 14 * DAY_MS
"""Longer ranges are answered by hours: more than 336 of them."""
MINUTES_READ_MAX: Final = 210_000
"""Of all tags together: 20 tags for a week. In the store they take 0.2 s, in PostgreSQL less."""
LIVE_MS: Final = 2 * MINUTE_MS
"""How long minutes may lag: a fold or a rollup each minute, and the delivery before it."""
SEEN_MS: Final = 31 * DAY_MS
"""How far before the range a tag is looked for, to tell one that is new from one that was away."""

SAMPLE_STEPS_MS: Final = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(seconds * 1_000 for seconds in (1, 2, 3, 5, 10, 15, 20, 30, 60)),
)
MINUTE_STEPS_MS: Final = tuple(minutes * MINUTE_MS for minutes in (1, 2, 3, 5, 10, 15, 20, 30))
HOUR_STEPS_MS: Final = tuple(hours * HOUR_MS for hours in (1, 2, 3, 4, 6, 8, 12, 24, 48))


@dataclass(frozen=True, slots=True)
class Plan:
    """How a range is read: by which kind of aggregates, and in steps of which length."""

    kind: Literal["minutes", "hours"]
    step_ms: int

    @property
    def part_ms(self) -> int:
        """Length of what is read: a minute or an hour."""
        return MINUTE_MS if self.kind == "minutes" else HOUR_MS


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be drawn. Raises ``ConfigError`` for what no chart can show."""

    site: str
    device: str
    tags: tuple[str, ...]
    from_ms: int
    to_ms: int
    now_ms: int

    def __post_init__(self) -> None:
        if not 0 < len(self.tags) <= TAGS_MAX:
            raise ConfigError(f"{len(self.tags)} tags: a chart shows 1 to {TAGS_MAX}")
        if not 0 <= self.from_ms < self.to_ms:
            raise ConfigError(
                f"from {self.from_ms} to {self.to_ms}: from must be before to,"
                " both in milliseconds since 1970 UTC"
            )
        if self.range_ms > RANGE_MS_MAX:
            raise ConfigError(
                f"a range of {self.range_ms / DAY_MS:.0f} days:"
                f" at most {RANGE_MS_MAX // DAY_MS} are allowed"
            )

    @property
    def range_ms(self) -> int:
        """Length of the range."""
        return self.to_ms - self.from_ms

    @property
    def live_from_ms(self) -> int:
        """From here on samples are asked for: the two whole minutes before this one."""
        return _floor(self.now_ms, MINUTE_MS) - LIVE_MS

    @property
    def about(self) -> tuple[str, str, tuple[str, ...]]:
        """Site, device and tags, as a `History` wants them."""
        return self.site, self.device, self.tags


async def chart(
    history: History,
    site: str,
    device: str,
    tags: Sequence[str],
    from_ms: int,
    to_ms: int,
    now_ms: int,
) -> dict[str, Any]:
    """The columns of a chart, ready for JSON.

    ``{"from", "to", "kind", "step_ms", "tags": [{"tag", "kind", "step_ms", "times", "avg", "min",
    "max", "figures": {"average", "lowest", "highest", "coverage"}}]}``, times in milliseconds since
    1970 UTC. ``min`` and ``max`` are null where ``avg`` has the samples themselves, whose
    ``step_ms`` is 0. The chart's own ``kind`` and ``step_ms`` are those of its tags; *samples*, if
    they differ. ``coverage`` is the part (0 to 1) of the range's minutes (hours, where the kind is
    hours) that have samples, counted from the tag's first one and without the minute that runs.
    Tags stand in the order asked for; one without data has empty columns and null figures.

    Raises ``ConfigError`` for what no chart can show, ``TransientError`` while the source is away.
    """
    question = Question(site, device, tuple(dict.fromkeys(tags)), from_ms, to_ms, now_ms)
    if question.range_ms <= SAMPLES_RANGE_MS_MAX:
        kept, sampled = await asyncio.gather(history.kept(), _sampled_tags(history, question))
        if from_ms < kept.samples_from_ms:
            sampled = ()
    else:
        kept, sampled = await history.kept(), ()
    plan = aggregates_plan(question, kept)
    found = await asyncio.gather(
        _lines_of_samples(history, question, sampled),
        _lines_of_buckets(
            history, question, plan, [tag for tag in question.tags if tag not in sampled]
        ),
    )
    lines = {line.tag: line for part in found for line in part}
    seen = await _seen_before(history, question, lines.values())
    shown = [lines[tag].shown(tag in seen) for tag in question.tags]
    kinds = {(line["kind"], line["step_ms"]) for line in shown}
    kind, step_ms = kinds.pop() if len(kinds) == 1 else ("samples", 0)
    return {"from": from_ms, "to": to_ms, "kind": kind, "step_ms": step_ms, "tags": shown}


def aggregates_plan(question: Question, kept: Kept) -> Plan:
    """Minutes or hours, and the shortest step that leaves at most `POINTS_MAX` of them."""
    minutes = question.range_ms // MINUTE_MS * len(question.tags)
    if (
        question.range_ms > MINUTES_RANGE_MS_MAX
        or minutes > MINUTES_READ_MAX
        or question.from_ms < kept.minutes_from_ms
    ):
        return Plan("hours", step_for(question.range_ms, HOUR_STEPS_MS))
    return Plan("minutes", step_for(question.range_ms, MINUTE_STEPS_MS))


def step_for(range_ms: int, steps_ms: Sequence[int]) -> int:
    """The shortest of these steps of which no more than `POINTS_MAX` touch a range so long."""
    return next(
        (step_ms for step_ms in steps_ms if range_ms // step_ms + 2 <= POINTS_MAX), steps_ms[-1]
    )


@dataclass(frozen=True, slots=True)
class Line:
    """One tag as it is drawn, and what its figures are made of.

    ``present`` counts the parts (minutes or hours, ``part_ms``) within ``counted_ms``, the part of
    the range that counts for the coverage, that have samples.
    """

    tag: str
    kind: Kind
    step_ms: int
    part_ms: int
    drawn: Samples | Buckets
    figures: Mapping[str, float | None]
    counted_ms: tuple[int, int]
    present: int

    def begins_late(self) -> bool:
        """Whether it has data, but none in the first minute or hour that counts."""
        times_ms = self.drawn.times_ms
        return bool(times_ms) and _floor(times_ms[0], self.part_ms) > self.counted_ms[0]

    def shown(self, is_seen_before: bool) -> dict[str, Any]:
        """As it stands in the chart."""
        match self.drawn:
            case Samples(_, values):
                columns = {"avg": values.tolist(), "min": None, "max": None}
            case Buckets(_, averages, lowest, highest):
                band = {"min": lowest.tolist(), "max": highest.tolist()}
                columns = {"avg": averages.tolist(), **band}
        return {
            "tag": self.tag,
            "kind": self.kind,
            "step_ms": self.step_ms,
            "times": self.drawn.times_ms.tolist(),
            **columns,
            "figures": {**self.figures, "coverage": self._coverage(is_seen_before)},
        }

    def _coverage(self, is_seen_before: bool) -> float:
        times_ms = self.drawn.times_ms
        if not times_ms:
            return 0.0
        start_ms, end_ms = self.counted_ms
        if not is_seen_before:
            start_ms = max(start_ms, _floor(times_ms[0], self.part_ms))
        parts = (end_ms - start_ms) // self.part_ms
        return min(1.0, self.present / parts) if parts > 0 else 1.0


def line_of_samples(question: Question, tag: str, samples: Samples) -> Line:
    """The samples themselves, or what they come down to per step where they are too many.

    For the coverage only whole minutes count: of the first and the last some samples lie outside.
    """
    start_ms = _ceiling(question.from_ms, MINUTE_MS)
    end_ms = _floor(min(question.to_ms, question.now_ms), MINUTE_MS)
    minutes = {ts_ms // MINUTE_MS for ts_ms in samples.times_ms if start_ms <= ts_ms < end_ms}
    step_ms = 0
    drawn: Samples | Buckets = samples
    if len(samples.times_ms) > POINTS_MAX:
        step_ms = step_for(question.range_ms, SAMPLE_STEPS_MS)
        drawn = summarised(samples, step_ms)
    figures = _figures(samples.values, samples.values, samples.values)
    counted_ms = start_ms, end_ms
    return Line(tag, "samples", step_ms, MINUTE_MS, drawn, figures, counted_ms, len(minutes))


def line_of_buckets(
    question: Question, tag: str, plan: Plan, buckets: Buckets, live: Samples
) -> Line:
    """Minutes or hours, with the newest samples joined in. The minute that runs does not count."""
    start_ms = _floor(question.from_ms, plan.part_ms)
    running_ms = _floor(question.now_ms, MINUTE_MS)
    end_ms = _ceiling(min(question.to_ms, running_ms), plan.part_ms)
    minutes = summarised(live, MINUTE_MS)
    drawn = with_minutes(buckets, minutes, plan)
    present = sum(drawn.parts)
    if plan.part_ms == MINUTE_MS:
        present -= sum(minute_ms >= end_ms for minute_ms in minutes.times_ms)
    figures = _figures(drawn.averages, drawn.lowest, drawn.highest, drawn.parts)
    counted_ms = start_ms, end_ms
    return Line(tag, plan.kind, plan.step_ms, plan.part_ms, drawn, figures, counted_ms, present)


def summarised(samples: Samples, step_ms: int) -> Buckets:
    """Average, lowest and highest of the samples of each step; ``parts`` is 1 for each."""
    times_ms, values = samples.times_ms, samples.values
    steps = nothing()
    start = 0
    while start < len(times_ms):
        start_ms = _floor(times_ms[start], step_ms)
        end = bisect_left(times_ms, start_ms + step_ms, start)
        part = values[start:end]
        _append(steps, start_ms, (_mean(part), min(part), max(part), 1))
        start = end
    return steps


def with_minutes(buckets: Buckets, minutes: Buckets, plan: Plan) -> Buckets:
    """The buckets, and minutes that they do not have yet joined into them.

    Averages are weighted by time, so minutes that an hour has already do it no harm. In a bucket of
    hours they count as a part only where there was nothing yet.
    """
    if not minutes.times_ms:
        return buckets
    done = bisect_left(buckets.times_ms, _floor(minutes.times_ms[0], plan.step_ms))
    rows = {start_ms: row for start_ms, *row in _rows(_part(buckets, slice(done, None)))}
    weights_ms = {start_ms: row[-1] * plan.part_ms for start_ms, row in rows.items()}
    for minute_ms, average, lowest, highest, _ in _rows(minutes):
        start_ms = _floor(minute_ms, plan.step_ms)
        if start_ms not in rows:
            rows[start_ms] = [average, lowest, highest, 1]
            weights_ms[start_ms] = MINUTE_MS
            continue
        weights_ms[start_ms] += MINUTE_MS
        new = MINUTE_MS / weights_ms[start_ms]
        old_average, old_lowest, old_highest, parts = rows[start_ms]
        joined_average = old_average * (1 - new) + average * new
        between = sorted((old_average, average))
        rows[start_ms] = [
            min(max(joined_average, between[0]), between[1]),  # rounding must not take it outside
            min(old_lowest, lowest),
            max(old_highest, highest),
            parts + (plan.part_ms == MINUTE_MS),
        ]
    joined = _part(buckets, slice(done))
    for start_ms in sorted(rows):
        _append(joined, start_ms, rows[start_ms])
    return joined


def nothing() -> Buckets:
    """Columns without rows."""
    return Buckets(array("q"), array("d"), array("d"), array("d"), array("q"))


async def _sampled_tags(history: History, question: Question) -> tuple[str, ...]:
    """The tags that have few enough samples in the range to read them all."""
    start_ms = _floor(question.from_ms, MINUTE_MS)
    end_ms = min(question.to_ms, question.live_from_ms)
    if start_ms >= end_ms:
        return question.tags
    counts = await history.counts(*question.about, start_ms, end_ms)
    room = max(POINTS_MAX, SAMPLES_READ_MAX // len(question.tags))
    scale = question.range_ms / (end_ms - start_ms)
    return tuple(tag for tag in question.tags if counts.get(tag, 0) * scale <= room)


async def _lines_of_samples(
    history: History, question: Question, tags: Sequence[str]
) -> list[Line]:
    found = await _samples(history, question, tags, question.from_ms)
    return [line_of_samples(question, tag, found.get(tag, _NO_SAMPLES)) for tag in tags]


async def _lines_of_buckets(
    history: History, question: Question, plan: Plan, tags: Sequence[str]
) -> list[Line]:
    buckets, live = await asyncio.gather(
        _buckets(history, question, plan, tags),
        _samples(history, question, tags, max(question.from_ms, question.live_from_ms)),
    )
    return [
        line_of_buckets(
            question, tag, plan, buckets.get(tag) or nothing(), live.get(tag, _NO_SAMPLES)
        )
        for tag in tags
    ]


async def _samples(
    history: History, question: Question, tags: Sequence[str], start_ms: int
) -> Mapping[str, Samples]:
    if not tags or start_ms >= question.to_ms:
        return {}
    return await history.samples(question.site, question.device, tags, start_ms, question.to_ms)


async def _buckets(
    history: History, question: Question, plan: Plan, tags: Sequence[str]
) -> Mapping[str, Buckets]:
    """Minutes up to the newest, hours up to the one that runs."""
    start_ms, end_ms = _floor(question.from_ms, plan.part_ms), question.to_ms
    if plan.part_ms == MINUTE_MS:
        end_ms = min(end_ms, question.live_from_ms)
    if not tags or start_ms >= end_ms:
        return {}
    about = question.site, question.device, tags
    return await history.buckets(*about, start_ms, end_ms, plan.step_ms)


async def _seen_before(history: History, question: Question, lines: Iterable[Line]) -> set[str]:
    """Those of the tags that begin late which are not new, but were away."""
    late = [line.tag for line in lines if line.begins_late()]
    if not late:
        return set()
    end_ms = _floor(question.from_ms, HOUR_MS)
    return await history.seen(question.site, question.device, late, end_ms - SEEN_MS, end_ms)


_NO_SAMPLES: Final = Samples(array("q"), array("d"))


def _floor(ms: int, step_ms: int) -> int:
    return ms // step_ms * step_ms


def _ceiling(ms: int, step_ms: int) -> int:
    return -(-ms // step_ms) * step_ms


def _part(buckets: Buckets, rows: slice) -> Buckets:
    """A copy of some rows."""
    return Buckets(
        buckets.times_ms[rows],
        buckets.averages[rows],
        buckets.lowest[rows],
        buckets.highest[rows],
        buckets.parts[rows],
    )


def _rows(buckets: Buckets) -> Iterator[tuple[Any, ...]]:
    columns = (buckets.averages, buckets.lowest, buckets.highest, buckets.parts)
    return zip(buckets.times_ms, *columns, strict=True)


def _append(buckets: Buckets, start_ms: int, row: Sequence[Any]) -> None:
    average, lowest, highest, parts = row
    buckets.times_ms.append(start_ms)
    buckets.averages.append(average)
    buckets.lowest.append(lowest)
    buckets.highest.append(highest)
    buckets.parts.append(parts)


def _figures(
    averages: Sequence[float],
    lowest: Sequence[float],
    highest: Sequence[float],
    parts: Sequence[int] | None = None,
) -> dict[str, float | None]:
    if not averages:
        return {"average": None, "lowest": None, "highest": None}
    return {
        "average": _mean(averages, parts),
        "lowest": min(lowest),
        "highest": max(highest),
    }


def _mean(values: Sequence[float], weights: Sequence[int] | None = None) -> float:
    """The mean of at least one finite value: finite, and within the values."""
    if weights is None:
        total, products = len(values), iter(values)
    else:
        total, products = sum(weights), map(operator.mul, values, weights)
    mean = sum(products) / total
    if not math.isfinite(mean):  # the sum of huge values overflows, their mean does not
        weights = weights or [1] * len(values)
        mean = math.fsum(v * (w / total / 2) for v, w in zip(values, weights, strict=True)) * 2
    return min(max(mean, min(values)), max(values))
