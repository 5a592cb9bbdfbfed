"""Figures of a tag's samples: literal cases, and any samples against a plain reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from statistics import median_low

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.model import ValueType
from edge_agent.quality.figures import (
    ESTIMATE_PERIODS,
    ESTIMATE_PERIODS_MIN,
    GAPS_KEPT,
    Expectation,
    Figures,
    Fold,
    Gap,
    Minutes,
    bin_of,
    percentile,
)
from tests.tags import plain_tag

MINUTE = 60_000
SECOND = Expectation(period_ms=1_000, lo=0.0, hi=10.0)


def folded(
    expectation: Expectation,
    times_ms: Sequence[int],
    values: Sequence[float] | None = None,
    *,
    start_ms: int = 0,
    end_ms: int = 10_000,
    cuts: Sequence[int] = (),
) -> Figures:
    """The figures of samples that come in pieces; without values each is its place."""
    values = list(map(float, range(len(times_ms)))) if values is None else values
    fold = Fold(expectation, start_ms, end_ms)
    places = [0, *sorted(cuts), len(times_ms)]
    for first, last in pairwise(places):
        fold.add(times_ms[first:last], values[first:last])
    return fold.figures()


# -- literal cases -----------------------------------------------------------------------------


def test_a_tag_as_it_should_be() -> None:
    """Ten samples a second apart: nothing is missing, late or off."""
    figures = folded(SECOND, range(500, 10_000, 1_000))
    assert (figures.samples, figures.expected, figures.coverage) == (10, 10, 1.0)
    assert (figures.gap_count, figures.gap_ms, figures.gaps, figures.late) == (0, 0, (), 0)
    assert (figures.periods, figures.period_mean_ms) == (9, 1_000.0)
    assert (figures.deviation_p50_ms, figures.deviation_p99_ms) == (0, 0)
    assert (figures.newest_ms, figures.age_ms, figures.is_silent) == (9_500, 500, False)


def test_coverage_is_samples_of_those_expected() -> None:
    """Seven of ten are there; more than expected is not better than all."""
    times = [0, 1_000, 2_000, 3_000, 4_000, 8_000, 9_000]
    assert folded(SECOND, times).coverage == 0.7
    assert folded(SECOND, range(0, 10_000, 500)).coverage == 1.0


def test_a_gap_is_more_than_three_periods() -> None:
    """Three periods are none; the ends of the range count like samples."""
    assert folded(SECOND, [0, 3_000, 6_000, 9_000]).gap_count == 0
    figures = folded(SECOND, [3_001, 6_001, 9_002])
    assert figures.gaps == (Gap(0, 3_001), Gap(6_001, 9_002))
    assert (figures.gap_count, figures.gap_ms, figures.is_silent) == (2, 6_002, False)
    silent = folded(SECOND, [0, 1_000, 6_999])
    assert silent.gaps == (Gap(1_000, 6_999), Gap(6_999, 10_000))
    assert silent.is_silent


def test_only_the_longest_gaps_are_kept() -> None:
    """All are counted; of equal ones the earliest stay."""
    times = [0]
    for place in range(40):
        times.append(times[-1] + (9_000 if place in (7, 20) else 4_000))
    figures = folded(SECOND, times, end_ms=times[-1])
    assert (figures.gap_count, figures.gap_ms) == (40, 38 * 4_000 + 2 * 9_000)
    assert len(figures.gaps) == GAPS_KEPT
    lengths = [gap.end_ms - gap.start_ms for gap in figures.gaps]
    assert lengths == [9_000, 9_000, 4_000, 4_000, 4_000]
    assert [gap.start_ms for gap in figures.gaps[:3]] == [28_000, 85_000, 0]


def test_late_is_more_than_half_a_period_but_no_gap() -> None:
    """1,500 ms after the sample before is on time, 1,501 is late, 3,001 is a gap."""
    assert folded(SECOND, [0, 1_500, 3_000]).late == 0
    assert folded(SECOND, [0, 1_501, 4_501, 7_502]).late == 2


def test_deviations_are_percentiles_of_the_distance_to_the_period() -> None:
    """Of 20 periods 10 are exact, 8 off by 5, one by 7, and one by 40; gaps are none of them."""
    spans = [1_000] * 10 + [995] * 4 + [1_005] * 4 + [993, 1_040]
    times = [0]
    for span in spans:
        times.append(times[-1] + span)
    times.append(times[-1] + 5_000)
    figures = folded(SECOND, times, end_ms=times[-1] + 1)
    assert figures.periods == 20
    assert figures.period_mean_ms == sum(spans) / 20
    deviations = (figures.deviation_p50_ms, figures.deviation_p95_ms, figures.deviation_p99_ms)
    assert deviations == (0, 7, 40)


def test_out_of_range_counts_samples_beyond_the_limits() -> None:
    """The limits themselves are inside; one that is not given is none."""
    values = [0.0, 10.0, -0.001, 10.001, 5.0, 99.0]
    figures = folded(SECOND, range(0, 6_000, 1_000), values)
    assert (figures.outside, figures.outside_share) == (3, 0.5)
    assert (figures.least, figures.greatest, figures.last) == (-0.001, 99.0, 99.0)
    above = folded(replace(SECOND, lo=None), range(0, 6_000, 1_000), values)
    assert above.outside == 2
    none = folded(Expectation(1_000), range(0, 6_000, 1_000), values)
    assert (none.outside, none.outside_share) == (None, None)


def test_a_flat_line_and_what_was_before_it() -> None:
    """Unchanged from 5,000 on; before, 2 stood from 1,000 to 3,000, and no gap is counted in."""
    times = [0, 1_000, 2_000, 3_000, 5_000, 6_000, 9_000]
    figures = folded(SECOND, times, [1.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0])
    assert (figures.changes, figures.flat_ms, figures.flat_before_ms) == (2, 4_000, 2_000)
    never = folded(SECOND, times, [1.0] * 7)
    assert (never.changes, never.flat_ms, never.flat_before_ms) == (0, 9_000, 0)


def test_a_tag_that_is_recorded_by_change_owes_its_heartbeat_only() -> None:
    """A sample in each 10 + 3 s; three of the four whole pieces of 52 s have one."""
    expectation = Expectation(period_ms=1_000, heartbeat_ms=10_000)
    times = [0, 200, 400, 12_000, 13_500, 45_000, 51_999, 53_000]
    figures = folded(expectation, times, end_ms=54_000)
    assert (figures.expected, figures.present, figures.coverage) == (4, 3, 0.75)
    assert figures.gaps == (Gap(13_500, 45_000),)
    assert (figures.late, figures.periods, figures.deviation_p50_ms) == (None, 0, None)


def test_no_sample_at_all() -> None:
    """The whole range is one gap; there is nothing else to tell."""
    figures = folded(SECOND, [])
    assert (figures.samples, figures.coverage, figures.gaps) == (0, 0.0, (Gap(0, 10_000),))
    assert (figures.newest_ms, figures.age_ms, figures.least, figures.last) == (None,) * 4
    unknown = folded(Expectation(), [])
    assert (unknown.gap_count, unknown.coverage, unknown.period_ms) == (None, None, None)


def test_a_range_shorter_than_a_period_expects_nothing() -> None:
    """No coverage is told, and none is missing."""
    figures = folded(Expectation(60_000), [], end_ms=59_999)
    assert (figures.expected, figures.coverage, figures.gap_count) == (0, None, 0)


def test_without_a_map_the_period_is_the_median_of_the_first() -> None:
    """A few gaps do not move it; with fewer than ten periods nothing is estimated."""
    times = [0, 9_000, *range(9_500, 20_000, 500)]
    figures = folded(Expectation(), times, end_ms=20_000)
    assert (figures.period_ms, figures.period_is_estimated) == (500, True)
    assert (figures.gap_count, figures.expected) == (1, 40)
    few = folded(Expectation(), range(0, 500 * ESTIMATE_PERIODS_MIN, 500))
    assert (few.period_ms, few.period_is_estimated, few.late) == (None, False, None)
    assert few.samples == ESTIMATE_PERIODS_MIN


def test_minutes_stand_in_for_samples_that_are_gone() -> None:
    """Counts as from samples, gaps and limits by the minute, no periods."""
    fold = Fold(SECOND, 0, 10 * MINUTE)
    starts = [0, MINUTE, 4 * MINUTE, 5 * MINUTE]
    fold.add_minutes(Minutes(starts, [60, 58, 60, 60], [1.0, 1.0, 2.0, 2.0], [1.0, 11.0, 2.0, 2.0]))
    fold.add([6 * MINUTE + 1_000 * n for n in range(240)], [2.0] * 240)
    figures = fold.figures()
    assert (figures.samples, figures.expected) == (478, 600)
    assert (figures.minutes, figures.minutes_outside, figures.outside) == (4, 1, 0)
    assert figures.outside_share == 0.0
    assert figures.gaps == (Gap(2 * MINUTE, 4 * MINUTE),)
    assert (figures.periods, figures.late) == (239, 0)
    assert (figures.least, figures.greatest) == (1.0, 11.0)
    # 1 for a minute; several values in the next one; 2 from minute 4 on
    assert (figures.changes, figures.flat_before_ms) == (2, MINUTE)
    assert figures.flat_ms == 6 * MINUTE - 1_000


def test_minutes_alone() -> None:
    """The newest sample is somewhere in the newest minute."""
    fold = Fold(replace(SECOND, heartbeat_ms=30_000), 0, 5 * MINUTE)
    fold.add_minutes(Minutes([0, MINUTE], [60, 60], [0.0, 3.0], [5.0, 4.0]))
    figures = fold.figures()
    assert (figures.newest_ms, figures.age_ms) == (2 * MINUTE, 3 * MINUTE)
    assert figures.gaps == (Gap(2 * MINUTE, 5 * MINUTE),)
    assert (figures.expected, figures.present) == (9, 4)  # of 33 s each
    assert (figures.outside, figures.outside_share) == (0, None)


def test_what_the_map_says() -> None:
    """A deadband alone brings the heartbeat that the agent takes; a BOOL is a switch."""
    tag = plain_tag(type=ValueType.INT16, period_ms=500, hi=9.0)
    assert Expectation.of(tag) == Expectation(500, None, None, 9.0)
    assert Expectation.of(replace(tag, deadband=0.1)).heartbeat_ms == 60_000
    assert Expectation.of(replace(tag, heartbeat_ms=5_000)).heartbeat_ms == 5_000
    assert Expectation.of(replace(tag, type=ValueType.BOOL)).is_switch


@pytest.mark.parametrize(
    ("ms", "upper"),
    [(0, 0), (63, 63), (64, 65), (65, 65), (66, 67), (127, 127), (128, 131), (1_000, 1_007)],
)
def test_bins_are_fixed(ms: int, upper: int) -> None:
    """Exact below 64, then 1/32 of their place."""
    assert bin_of(ms) == upper


@given(st.integers(0, 10**9))
def test_a_bin_is_little_wider_than_its_place(ms: int) -> None:
    """At most 3.2 % above, never below; and its own upper end lies in it."""
    assert ms <= bin_of(ms) <= ms + ms / 32
    assert bin_of(bin_of(ms)) == bin_of(ms)


def test_there_are_few_bins() -> None:
    """Memory stays constant: up to four days of deviation."""
    edges = {bin_of(1 << bit | part << max(bit - 6, 0)) for bit in range(29) for part in range(64)}
    assert len(edges) < 1_000
    assert percentile(Counter(), 50) is None


# -- any samples, against a reference ----------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Samples in a range, what is expected of them, and where they are cut."""

    expectation: Expectation
    times_ms: list[int]
    values: list[float]
    end_ms: int
    cuts: list[int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Mostly regular samples with gaps, late ones, runs of equal values and values outside."""
    period_ms = draw(st.sampled_from([200, 1_000, 1_001, 60_000]))
    count = draw(st.integers(0, 150))
    factors = st.sampled_from([1.0, 1.0, 1.0, 1.0, 0.99, 1.013, 0.5, 1.5, 1.6, 2.0, 3.0, 3.1, 40.0])
    first = draw(st.integers(0, 5 * period_ms))
    times = [first]
    for _ in range(count):
        times.append(times[-1] + max(int(period_ms * draw(factors)), 1))
    values = draw(
        st.lists(st.sampled_from([0.0, 1.0, 1.5, 12.0]), min_size=count + 1, max_size=count + 1)
    )
    if draw(st.booleans()):
        times, values = times[:-1], values[:-1]
    newest = times[-1] if times else first
    expectation = Expectation(
        draw(st.sampled_from([period_ms, None])),
        None,
        draw(st.sampled_from([None, 0.5])),
        draw(st.sampled_from([None, 10.0])),
    )
    if expectation.period_ms is not None and draw(st.booleans()):
        expectation = replace(expectation, heartbeat_ms=5 * period_ms)
    return Case(
        expectation,
        times,
        values,
        newest + draw(st.integers(1, 5 * period_ms)),
        draw(st.lists(st.integers(0, len(times)), max_size=4)),
    )


def reference(case: Case) -> dict[str, object]:
    """The figures by their definitions, in plain passes over all samples."""
    times, values, expectation = case.times_ms, case.values, case.expectation
    period = expectation.period_ms
    spans = [b - a for a, b in pairwise(times)]
    if period is None and len(spans) >= ESTIMATE_PERIODS_MIN:
        period = median_low(spans[:ESTIMATE_PERIODS])
    runs = [list(run) for _, run in groupby(zip(times, values, strict=True), lambda pair: pair[1])]
    lengths = [run[-1][0] - run[0][0] for run in runs]
    found: dict[str, object] = {
        "samples": len(times),
        "period_ms": period,
        "changes": max(len(runs) - 1, 0),
        "flat_ms": lengths[-1] if lengths else 0,
        "flat_before_ms": max(lengths[:-1], default=0),
        "least": min(values, default=None),
        "greatest": max(values, default=None),
    }
    lo, hi = expectation.lo, expectation.hi
    if (lo, hi) != (None, None):
        found["outside"] = sum(
            (lo is not None and value < lo) or (hi is not None and value > hi) for value in values
        )
    if period is None:
        return found | {"coverage": None, "gap_count": None, "late": None}
    limit = 3 * period + (expectation.heartbeat_ms or 0)
    gaps = [(a, b) for a, b in pairwise([0, *times, case.end_ms]) if b - a > limit]
    gaps_kept = sorted(gaps, key=lambda gap: (gap[0] - gap[1], gap[0]))[:GAPS_KEPT]
    found |= {
        "gap_count": len(gaps),
        "gap_ms": sum(b - a for a, b in gaps),
        "gaps": tuple(gaps_kept),
    }
    if expectation.heartbeat_ms is not None:
        pieces = case.end_ms // limit
        present = {time // limit for time in times} & set(range(pieces))
        coverage = len(present) / pieces if pieces else None
        return found | {"coverage": coverage, "late": None, "periods": 0}
    regular = [span for span in spans if span <= limit]
    deviations = sorted(abs(span - period) for span in regular)
    expected = case.end_ms // period
    found |= {
        "coverage": min(len(times) / expected, 1.0) if expected else None,
        "periods": len(regular),
        "late": sum(span > 1.5 * period for span in regular),
        "period_mean_ms": sum(regular) / len(regular) if regular else None,
    }
    for percent in (50, 95, 99):
        place = -(-percent * len(deviations) // 100) - 1
        exact = bin_of(deviations[place]) if deviations else None
        found[f"deviation_p{percent}_ms"] = exact
    return found


@given(cases())
def test_figures_are_what_their_definitions_say(case: Case) -> None:
    """For any samples, and however they are cut into pieces."""
    figures = folded(
        case.expectation, case.times_ms, case.values, end_ms=case.end_ms, cuts=case.cuts
    )
    wanted = reference(case)
    assert {name: getattr(figures, name) for name in wanted} == wanted
    assert figures == folded(case.expectation, case.times_ms, case.values, end_ms=case.end_ms)
