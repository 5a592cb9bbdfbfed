"""Which resolution a chart gets, and that nothing of the data is lost on the way to it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dashboard import chart as charts
from dashboard import export as exports
from dashboard.chart import (
    HOUR_STEPS_MS,
    MINUTE_STEPS_MS,
    POINTS_MAX,
    SAMPLE_STEPS_MS,
    TAGS_MAX,
    Plan,
    Question,
    aggregates_plan,
    chart,
    step_for,
    summarised,
    with_minutes,
)
from dashboard.data.base import (
    Buckets,
    Check,
    Kept,
    Minutes,
    Newest,
    Row,
    Samples,
    is_by_hours,
)
from dashboard.export import cell, export, export_kind
from edge_agent.clock import DAY_MS, HOUR_MS, MINUTE_MS
from edge_agent.errors import ConfigError, TransientError
from edge_agent.model import Series, TagKey

NOW_MS = 20_000 * DAY_MS + 12 * HOUR_MS + 34 * MINUTE_MS + 56_789
FOREVER = Kept(0, 0)


class ListHistory:
    """A history of samples in memory, whose minutes lag as those of a real one do."""

    name = "store"

    def __init__(
        self,
        samples: Mapping[str, Sequence[tuple[int, float]]],
        *,
        now_ms: int = NOW_MS,
        kept: Kept = FOREVER,
        lag_ms: int = charts.LIVE_MS,
    ) -> None:
        self.all = {tag: sorted(rows) for tag, rows in samples.items()}
        self.is_kept = kept
        self.ready_ms = now_ms // MINUTE_MS * MINUTE_MS - lag_ms
        self.asked: list[str] = []

    async def close(self) -> None:
        self.asked.append("close")

    async def minutes(
        self, start_ms: int, end_ms: int, tags: Collection[TagKey] | None = None
    ) -> Mapping[TagKey, Minutes]:
        return {}

    async def newest(self, since_ms: int) -> list[Newest]:
        return []

    async def health(self) -> list[Check]:
        return []

    async def kept(self) -> Kept:
        return self.is_kept

    def _within(self, tag: str, start_ms: int, end_ms: int) -> list[tuple[int, float]]:
        return [row for row in self.all.get(tag, []) if start_ms <= row[0] < end_ms]

    async def samples(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int
    ) -> Mapping[str, Samples]:
        self.asked.append(f"samples {','.join(tags)}")
        found = {tag: self._within(tag, start_ms, end_ms) for tag in tags}
        return {tag: as_samples(rows) for tag, rows in found.items() if rows}

    async def buckets(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int, step_ms: int
    ) -> Mapping[str, Buckets]:
        part_ms = HOUR_MS if is_by_hours(step_ms) else MINUTE_MS
        self.asked.append(f"{'hours' if part_ms == HOUR_MS else 'minutes'} {','.join(tags)}")
        first, end = (-(-ms // part_ms) * part_ms for ms in (start_ms, end_ms))
        found = {tag: self._within(tag, first, min(end, self.ready_ms)) for tag in tags}
        return {tag: plain_buckets(rows, step_ms, part_ms) for tag, rows in found.items() if rows}

    async def counts(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int
    ) -> Mapping[str, int]:
        found = {tag: self._within(tag, start_ms, min(end_ms, self.ready_ms)) for tag in tags}
        return {tag: len(rows) for tag, rows in found.items() if rows}

    async def seen(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int
    ) -> set[str]:
        self.asked.append(f"seen {','.join(tags)}")
        return {tag for tag in tags if self._within(tag, start_ms, end_ms)}

    async def series(self, site: str, device: str, tags: Sequence[str]) -> Mapping[str, Series]:
        return {tag: Series(site, "L1", device, tag, "°C") for tag in tags if tag in self.all}

    async def rows(self, site: str, device: str, tags: Sequence[str], limit: int) -> list[Row]:
        return []


def as_samples(rows: Sequence[tuple[int, float]]) -> Samples:
    """Columns of rows."""
    return Samples(array("q", [ts for ts, _ in rows]), array("d", [v for _, v in rows]))


def plain_buckets(rows: Sequence[tuple[int, float]], step_ms: int, part_ms: int) -> Buckets:
    """Aggregates computed the plain way: every part of a bucket weighs the same."""
    groups: dict[int, dict[int, list[float]]] = {}
    for ts_ms, value in rows:
        parts = groups.setdefault(ts_ms // step_ms * step_ms, {})
        parts.setdefault(ts_ms // part_ms, []).append(value)
    found = charts.nothing()
    for start_ms, parts in sorted(groups.items()):
        values = [value for part in parts.values() for value in part]
        means = [math.fsum(value / len(part) for value in part) for part in parts.values()]
        found.times_ms.append(start_ms)
        average = math.fsum(mean / len(means) for mean in means)
        found.averages.append(min(max(average, min(values)), max(values)))
        found.lowest.append(min(values))
        found.highest.append(max(values))
        found.parts.append(len(parts))
    return found


def every(period_ms: int, range_ms: int, until_ms: int = NOW_MS) -> list[tuple[int, float]]:
    """Samples at a steady period; the value tells the time within a day."""
    first = -(-(until_ms - range_ms) // period_ms) * period_ms
    return [(ts_ms, ts_ms % DAY_MS / 1000) for ts_ms in range(first, until_ms, period_ms)]


async def drawn(
    history: ListHistory, tags: Sequence[str], range_ms: int, to_ms: int = NOW_MS
) -> dict[str, dict[str, Any]]:
    """A chart of the range before a time, by tag, and itself under an empty name."""
    found = await chart(history, "A1", "PUMP01", tags, to_ms - range_ms, to_ms, NOW_MS)
    assert orjson.loads(orjson.dumps(found)) == found
    return {line["tag"]: line for line in found["tags"]} | {"": found}


# Which resolution


async def test_a_short_range_shows_the_samples() -> None:
    """An hour of a tag that is read every two seconds: as it was sampled, up to now."""
    rows = every(2_000, 3 * HOUR_MS)
    lines = await drawn(ListHistory({"PRESS": rows}), ["PRESS"], HOUR_MS)
    assert (lines[""]["kind"], lines[""]["step_ms"]) == ("samples", 0)
    line = lines["PRESS"]
    assert line["times"] == [ts for ts, _ in rows if ts >= NOW_MS - HOUR_MS]
    assert line["avg"] == [v for ts, v in rows if ts >= NOW_MS - HOUR_MS]
    assert line["min"] is line["max"] is None
    assert line["figures"]["coverage"] == 1.0


async def test_of_a_fast_and_a_slow_tag_each_gets_what_fits() -> None:
    """The slow one keeps its samples; the fast one is reduced to steps that have its extremes."""
    fast = every(200, HOUR_MS)
    fast[1234] = (fast[1234][0], 1e6)
    history = ListHistory({"SLOW": every(5_000, HOUR_MS), "FAST": fast})
    lines = await drawn(history, ["FAST", "SLOW"], HOUR_MS)
    assert (lines[""]["kind"], lines[""]["step_ms"]) == ("samples", 0)
    assert len(lines["SLOW"]["times"]) == HOUR_MS // 5_000
    assert lines["FAST"]["kind"] == "samples"
    assert lines["FAST"]["step_ms"] == 2_000
    assert max(lines["FAST"]["max"]) == 1e6
    assert len(lines["FAST"]["times"]) <= POINTS_MAX


async def test_a_tag_with_more_samples_than_may_be_read_gets_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its neighbour keeps its samples, and both reach to now."""
    monkeypatch.setattr(charts, "SAMPLES_READ_MAX", 10_000)
    history = ListHistory({"SLOW": every(5_000, HOUR_MS), "FAST": every(200, HOUR_MS)})
    lines = await drawn(history, ["FAST", "SLOW"], HOUR_MS)
    assert (lines["SLOW"]["kind"], lines["FAST"]["kind"]) == ("samples", "minutes")
    assert lines["FAST"]["times"][-1] == NOW_MS // MINUTE_MS * MINUTE_MS
    assert lines["FAST"]["step_ms"] == MINUTE_MS
    assert lines[""]["kind"] == "samples"


async def test_a_longer_range_shows_minutes_and_the_newest_out_of_samples() -> None:
    """A day: one point a minute, the two that the source has not summarised yet included."""
    history = ListHistory({"PRESS": every(10_000, 2 * DAY_MS)})
    lines = await drawn(history, ["PRESS"], DAY_MS)
    line = lines["PRESS"]
    assert (lines[""]["kind"], lines[""]["step_ms"]) == ("minutes", MINUTE_MS)
    start_ms = (NOW_MS - DAY_MS) // MINUTE_MS * MINUTE_MS
    assert line["times"] == list(range(start_ms, NOW_MS, MINUTE_MS))
    assert line["figures"]["coverage"] == 1.0
    assert line["figures"]["highest"] == max(line["max"])


async def test_a_range_in_the_past_asks_for_no_newest_samples() -> None:
    """What is long summarised is not read sample by sample."""
    history = ListHistory({"PRESS": every(10_000, DAY_MS)})
    await drawn(history, ["PRESS"], 6 * HOUR_MS, NOW_MS - 3 * HOUR_MS)
    assert history.asked == ["minutes PRESS"]


@pytest.mark.parametrize(
    ("range_ms", "tags", "kept", "plan"),
    [
        (3 * HOUR_MS, 1, FOREVER, Plan("minutes", MINUTE_MS)),
        (2 * DAY_MS, 5, FOREVER, Plan("minutes", MINUTE_MS)),
        (7 * DAY_MS, 5, FOREVER, Plan("minutes", 5 * MINUTE_MS)),
        (7 * DAY_MS, 20, FOREVER, Plan("minutes", 5 * MINUTE_MS)),
        (14 * DAY_MS, 5, FOREVER, Plan("minutes", 10 * MINUTE_MS)),
        (14 * DAY_MS, 20, FOREVER, Plan("hours", HOUR_MS)),
        (15 * DAY_MS, 1, FOREVER, Plan("hours", HOUR_MS)),
        (3650 * DAY_MS, 20, FOREVER, Plan("hours", 48 * HOUR_MS)),
        (HOUR_MS, 1, Kept(0, NOW_MS), Plan("hours", HOUR_MS)),
    ],
)
def test_minutes_or_hours(range_ms: int, tags: int, kept: Kept, plan: Plan) -> None:
    """By the length of the range, by how much is to be read, by what the source still has."""
    names = tuple(f"T{n}" for n in range(tags))
    question = Question("A1", "PUMP01", names, NOW_MS - range_ms, NOW_MS, NOW_MS)
    assert aggregates_plan(question, kept) == plan


async def test_what_has_expired_is_answered_by_what_is_left() -> None:
    """No samples any more: minutes; no minutes any more: hours."""
    rows = every(10_000, DAY_MS)
    without_samples = ListHistory({"PRESS": rows}, kept=Kept(NOW_MS - 30 * MINUTE_MS, 0))
    lines = await drawn(without_samples, ["PRESS"], HOUR_MS)
    assert lines[""]["kind"] == "minutes"
    without_minutes = ListHistory({"PRESS": rows}, kept=Kept(NOW_MS, NOW_MS))
    lines = await drawn(without_minutes, ["PRESS"], 12 * HOUR_MS)
    assert lines[""]["kind"] == "hours"
    assert lines["PRESS"]["times"][-1] == NOW_MS // HOUR_MS * HOUR_MS


@given(
    st.integers(1, charts.RANGE_MS_MAX),
    st.integers(0, 1 << 42),
    st.sampled_from([SAMPLE_STEPS_MS, MINUTE_STEPS_MS, HOUR_STEPS_MS]),
)
def test_no_step_leaves_more_points_than_allowed(
    range_ms: int, from_ms: int, steps_ms: tuple[int, ...]
) -> None:
    """Wherever a range begins, as far as its kind is used."""
    longest = {
        SAMPLE_STEPS_MS: charts.SAMPLES_RANGE_MS_MAX,
        MINUTE_STEPS_MS: charts.MINUTES_RANGE_MS_MAX,
        HOUR_STEPS_MS: charts.RANGE_MS_MAX,
    }
    range_ms = range_ms % longest[steps_ms] + 1
    step_ms = step_for(range_ms, steps_ms)
    assert (from_ms + range_ms - 1) // step_ms - from_ms // step_ms + 1 <= POINTS_MAX
    assert step_ms == steps_ms[0] or range_ms // steps_ms[steps_ms.index(step_ms) - 1] > 2_900


@pytest.mark.parametrize(
    ("tags", "from_ms", "to_ms", "words"),
    [
        ([], 0, 1, "1 to 20"),
        ([f"T{n}" for n in range(TAGS_MAX + 1)], 0, 1, "21 tags"),
        (["T"], 5, 5, "from must be before to"),
        (["T"], 6, 5, "from must be before to"),
        (["T"], -1, 5, "from must be before to"),
        (["T"], 0, 3_661 * DAY_MS, "3661 days: at most 3660"),
    ],
)
async def test_what_no_chart_can_show_is_refused(
    tags: list[str], from_ms: int, to_ms: int, words: str
) -> None:
    """With what is allowed; a file is refused for the same reasons."""
    with pytest.raises(ConfigError, match=words):
        await chart(ListHistory({}), "A1", "PUMP01", tags, from_ms, to_ms, NOW_MS)
    with pytest.raises(ConfigError, match=words):
        await export(ListHistory({}), "A1", "PUMP01", tags, from_ms, to_ms, NOW_MS)


# What is in it

values = st.one_of(
    st.floats(-1e3, 1e3), st.sampled_from([0.0, -0.0, 5e-324, 1e308, -1e308, 1.7e308])
)
bursts = st.lists(
    st.tuples(st.integers(1, 6 * HOUR_MS), values), max_size=60, unique_by=lambda row: row[0]
)


@given(bursts, st.sampled_from([HOUR_MS, 5 * HOUR_MS, 30 * DAY_MS]), st.booleans())
@example([(1, 5e-324), (56_790, 5e-324)], 30 * DAY_MS, False)  # an average that rounds to 0
@settings(max_examples=150, deadline=None)
async def test_extremes_and_averages_stand_for_all_samples(
    ages: list[tuple[int, float]], range_ms: int, are_too_many: bool
) -> None:
    """At any resolution no extreme vanishes, nothing is invented, and figures fit the columns."""
    rows = sorted((NOW_MS - age, value) for age, value in ages)
    with pytest.MonkeyPatch.context() as patch:
        if are_too_many:
            patch.setattr(charts, "SAMPLES_READ_MAX", 0)
        if are_too_many and range_ms == HOUR_MS:
            patch.setattr(charts, "POINTS_MAX", 5)
            patch.setattr(charts, "MINUTE_STEPS_MS", (30 * MINUTE_MS,))
        line = (await drawn(ListHistory({"PRESS": rows}), ["PRESS"], range_ms))["PRESS"]
    start_ms = NOW_MS - range_ms
    part_ms = {"samples": 1, "minutes": MINUTE_MS, "hours": HOUR_MS}[str(line["kind"])]
    inside = [value for ts, value in rows if ts >= start_ms // part_ms * part_ms]
    times, averages, figures = line["times"], line["avg"], line["figures"]
    assert times == sorted(set(times))
    if not inside:
        assert (times, figures["average"], figures["coverage"]) == ([], None, 0.0)
        return
    lowest, highest = line["min"] or averages, line["max"] or averages
    assert (min(lowest), max(highest)) == (min(inside), max(inside))
    assert (figures["lowest"], figures["highest"]) == (min(inside), max(inside))
    assert all(a <= b <= c for a, b, c in zip(lowest, averages, highest, strict=True))
    assert figures["lowest"] <= figures["average"] <= figures["highest"]
    assert 0 < figures["coverage"] <= 1 or times[-1] >= NOW_MS // MINUTE_MS * MINUTE_MS


@given(st.lists(st.tuples(st.integers(0, 100_000), values), min_size=1), st.integers(1, 20_000))
def test_steps_say_what_their_samples_say(rows: list[tuple[int, float]], step_ms: int) -> None:
    """Average, lowest and highest of each step, on the grid."""
    rows = sorted(dict(rows).items())
    found = summarised(as_samples(rows), step_ms)
    groups: dict[int, list[float]] = {}
    for ts_ms, value in rows:
        groups.setdefault(ts_ms // step_ms * step_ms, []).append(value)
    assert found.times_ms.tolist() == list(groups)
    assert found.lowest.tolist() == [min(group) for group in groups.values()]
    assert found.highest.tolist() == [max(group) for group in groups.values()]
    for average, group in zip(found.averages, groups.values(), strict=True):
        wanted = 2 * math.fsum(value / len(group) / 2 for value in group)
        assert average == pytest.approx(wanted, rel=1e-6, abs=1e-6 * max(map(abs, group)) + 1e-300)


def test_new_minutes_join_the_step_that_they_belong_to() -> None:
    """By their weight: three minutes at 1.0 and one at 5.0 are 2.0 on average."""
    step = Plan("minutes", 5 * MINUTE_MS)
    old = Buckets(
        array("q", [0, 5 * MINUTE_MS]),
        array("d", [9.0, 1.0]),
        array("d", [8.0, 0.5]),
        array("d", [10.0, 1.5]),
        array("q", [5, 3]),
    )
    new = plain_buckets(
        [(8 * MINUTE_MS, 5.0), (11 * MINUTE_MS, 7.0), (12 * MINUTE_MS, 8.0)], MINUTE_MS, MINUTE_MS
    )
    joined = with_minutes(old, new, step)
    assert joined.times_ms.tolist() == [0, 5 * MINUTE_MS, 10 * MINUTE_MS]
    assert joined.averages.tolist() == [9.0, 2.0, 7.5]
    assert joined.lowest.tolist() == [8.0, 0.5, 7.0]
    assert joined.highest.tolist() == [10.0, 5.0, 8.0]
    assert joined.parts.tolist() == [5, 4, 2]
    assert old.parts.tolist() == [5, 3]


def test_new_minutes_do_not_count_an_hour_twice() -> None:
    """An hour that has its row already gets the new extremes and stays one part."""
    plan = Plan("hours", HOUR_MS)
    old = plain_buckets([(0, 1.0)], HOUR_MS, HOUR_MS)
    new = plain_buckets([(59 * MINUTE_MS, 62.0), (HOUR_MS, 3.0)], MINUTE_MS, MINUTE_MS)
    joined = with_minutes(old, new, plan)
    assert joined.parts.tolist() == [1, 1]
    assert joined.averages.tolist() == [pytest.approx(2.0), 3.0]
    assert joined.highest.tolist() == [62.0, 3.0]


async def test_coverage_counts_from_the_first_data() -> None:
    """A tag that is new does not lack what was before it; one that was away does."""
    half = every(10_000, 6 * HOUR_MS)
    before = every(10_000, HOUR_MS, NOW_MS - 13 * HOUR_MS)
    history = ListHistory({"NEW": half, "AWAY": before + half})
    lines = await drawn(history, ["NEW", "AWAY", "NEVER"], 12 * HOUR_MS)
    coverage = {tag: lines[tag]["figures"]["coverage"] for tag in lines if tag}
    assert coverage == {"NEW": 1.0, "AWAY": pytest.approx(0.5, abs=0.002), "NEVER": 0.0}
    assert "seen NEW,AWAY" in history.asked


@pytest.mark.parametrize(("range_ms", "parts"), [(HOUR_MS, 60), (10 * HOUR_MS, 600)])
async def test_coverage_is_the_part_of_the_minutes_that_have_samples(
    range_ms: int, parts: int
) -> None:
    """A quarter of an hour without any is missing, however the range is shown."""
    from_ms, to_ms = NOW_MS - 30 * MINUTE_MS, NOW_MS - 15 * MINUTE_MS
    rows = [row for row in every(1_000, DAY_MS) if not from_ms <= row[0] < to_ms]
    lines = await drawn(ListHistory({"PRESS": rows}), ["PRESS"], range_ms)
    assert lines["PRESS"]["figures"]["coverage"] == pytest.approx(1 - 14 / parts, abs=1.1 / parts)


@pytest.mark.parametrize(("range_ms", "minutes"), [(HOUR_MS, 59), (10 * HOUR_MS, 600)])
async def test_the_minute_that_runs_does_not_count(range_ms: int, minutes: int) -> None:
    """It is neither missing before its first sample, nor does it make up for another one.

    Of samples only whole minutes count, and of the range's first one some lie outside.
    """
    running_ms = NOW_MS // MINUTE_MS * MINUTE_MS
    rows = every(1_000, DAY_MS)
    not_yet = [row for row in rows if row[0] < running_ms]
    one_less = [row for row in rows if not 5 <= (running_ms - row[0] - 1) // MINUTE_MS < 6]
    lines = await drawn(ListHistory({"A": not_yet, "B": one_less}), ["A", "B"], range_ms)
    assert lines["A"]["figures"]["coverage"] == 1.0
    assert lines["B"]["figures"]["coverage"] == (minutes - 1) / minutes


async def test_one_tag_asked_twice_is_drawn_once_in_the_order_asked_for() -> None:
    """Tags come back as they were asked for, with and without data."""
    history = ListHistory({"온도": every(1_000, HOUR_MS), "A": every(1_000, HOUR_MS)})
    found = await chart(history, "A1", "P", ["온도", "Z", "A", "온도"], NOW_MS - 9, NOW_MS, NOW_MS)
    assert [line["tag"] for line in found["tags"]] == ["온도", "Z", "A"]


# The file


async def text_of(history: ListHistory, tags: Sequence[str], range_ms: int) -> list[str]:
    """The lines of an export up to now."""
    pieces = await export(history, "A1", "=PUMP,1", tags, NOW_MS - range_ms, NOW_MS, NOW_MS)
    data = b"".join([piece async for piece in pieces])
    assert data.startswith(b"\xef\xbb\xbf")
    assert data.endswith(b"\r\n")
    return data.decode("utf-8-sig").split("\r\n")[:-1]


async def test_a_file_of_samples_has_every_one_of_them_in_order() -> None:
    """By time and then by tag, over all pieces, however many samples a tag has."""
    history = ListHistory({"온도": every(1_000, 3 * HOUR_MS), "@T": every(2_000, 3 * HOUR_MS)})
    lines = await text_of(history, ["온도", "@T"], 2 * HOUR_MS)
    assert lines[0] == "ts,site,line,device,tag,value,unit"
    assert len(lines) == 1 + 7_200 + 3_600
    assert lines[1] == '2024-10-04T10:34:57.000Z,A1,L1,"\'=PUMP,1",온도,38097.0,°C'
    assert lines[2] == "2024-10-04T10:34:58.000Z,A1,L1,\"'=PUMP,1\",'@T,38098.0,°C"
    keys = [(line.split(",")[0], line.split(",")[5]) for line in lines[1:]]
    assert keys == sorted(keys)


async def test_a_long_file_has_complete_minutes_then_hours() -> None:
    """The minutes and the hour that are not over yet are left out."""
    history = ListHistory({"T": every(HOUR_MS // 2, 100 * DAY_MS)})
    lines = await text_of(history, ["T"], 30 * DAY_MS)
    assert lines[0] == "bucket,site,line,device,tag,avg,min,max,unit"
    assert len(lines) == 1 + 30 * 48
    assert lines[-1].startswith("2024-10-04T12:30:00.000Z,A1,")
    lines = await text_of(history, ["T"], 95 * DAY_MS)
    assert lines[-1] == ('2024-10-04T11:00:00.000Z,A1,L1,"\'=PUMP,1",T,40500.0,39600.0,41400.0,°C')
    assert len(lines) == 1 + 95 * 24 - 1


@pytest.mark.parametrize(
    ("range_ms", "kept", "kind"),
    [
        (DAY_MS, FOREVER, "samples"),
        (DAY_MS + 1, FOREVER, "minutes"),
        (HOUR_MS, Kept(NOW_MS, 0), "minutes"),
        (HOUR_MS, Kept(NOW_MS, NOW_MS), "hours"),
        (90 * DAY_MS, FOREVER, "minutes"),
        (91 * DAY_MS, FOREVER, "hours"),
    ],
)
def test_the_resolution_of_a_file(range_ms: int, kept: Kept, kind: str) -> None:
    """The finest that its length allows and the source still has."""
    question = Question("A1", "P", ("T",), NOW_MS - range_ms, NOW_MS, NOW_MS)
    assert export_kind(question, kept) == kind


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("PRESS", "PRESS"),
        ("=1+1", "'=1+1"),
        ("+A", "'+A"),
        ("-A", "'-A"),
        ("@SUM", "'@SUM"),
        (" =1", "' =1"),
        (" a", '" a"'),
        ("a,b", '"a,b"'),
        ('a"b', '"a""b"'),
        ('=a"b', '"\'=a""b"'),
        ("온도", "온도"),
        ("", ""),
    ],
)
def test_no_name_becomes_a_formula(name: str, shown: str) -> None:
    """A spreadsheet would run what begins with one of these."""
    assert cell(name) == shown


async def test_a_file_comes_in_pieces_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the file nor what is read for it is ever in memory as a whole."""
    history = ListHistory({"T": every(200, HOUR_MS)})
    pieces = await export(history, "A1", "P", ["T"], NOW_MS - HOUR_MS, NOW_MS, NOW_MS)
    sizes = [piece.count(b"\n") async for piece in pieces]
    assert max(sizes) <= exports.ROWS_PER_PIECE
    assert sum(sizes) == 1 + HOUR_MS // 200
    assert len([asked for asked in history.asked if asked.startswith("samples")]) == 13


async def test_an_absent_source_is_told_before_the_file_begins() -> None:
    """So that a page can say it, instead of handing out half a file."""

    class AbsentHistory(ListHistory):
        async def kept(self) -> Kept:
            raise TransientError("away")

    with pytest.raises(TransientError, match="away"):
        await export(AbsentHistory({}), "A1", "P", ["T"], NOW_MS - 1, NOW_MS, NOW_MS)
