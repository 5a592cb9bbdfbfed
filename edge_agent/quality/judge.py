"""From figures to findings: what is good, what to look at, what is bad, and why. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from edge_agent.model import TagKey
from edge_agent.quality.collect import Subject
from edge_agent.quality.figures import GAP_PERIODS, Figures

COVERAGE_BAD: Final = 0.9
"""Below it averages and energy sums of an hour can't be trusted."""
COVERAGE_LOOK: Final = 0.99
"""A quarter of an hour of a day."""
SILENT_MS_BAD: Final = 60_000
"""A shorter silence at the end may be a restart, or samples on their way."""
GAP_MS_LOOK: Final = 60_000
"""A gap that leaves a minute without a value. A restart of the agent is shorter."""
GAPS_SHARE_LOOK: Final = 0.001
"""Of the range, all gaps together: 86 s of a day."""
LATE_SHARE_LOOK: Final = 0.01
"""As many scans as a busy line leaves out now and then."""
DEVIATION_LOOK: Final = 0.25
"""Part of the period by which 5 % of the periods may be off: the scan has room, but not much."""
PERIOD_ERROR_LOOK: Final = 0.05
"""The mean period: with more, a day has 70 minutes too few or too many samples."""
OUTSIDE_BAD: Final = 0.5
"""A value that lies beyond its limits most of the time has the wrong limits, scale or type."""
OUTSIDE_LOOK: Final = 0.01
"""Alarms are rare: 14 minutes of a day."""
FLAT_MS_MIN: Final = 600_000
"""A value that stands still for less is no news."""
FLAT_FACTOR: Final = 10
"""Times longer than ever before in the range."""
FLAT_CHANGES_MIN: Final = 10
"""With fewer changes nobody knows how long it usually stands still."""

Clock = Callable[[int], str]
"""How a time (ms since 1970 UTC) is shown."""


class Verdict(StrEnum):
    """Of a tag, a device, or all; the worst one last."""

    GOOD = "good"
    LOOK = "look"
    BAD = "bad"


RANKS: Final = {verdict: rank for rank, verdict in enumerate(Verdict)}
SHOWN: Final = {Verdict.GOOD: "good", Verdict.LOOK: "look at it", Verdict.BAD: "bad"}


class Finding(NamedTuple):
    """One thing that is not as it should be, in a sentence."""

    check: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True)
class Judged:
    """A tag, its figures, and what was found; the worst finding first."""

    subject: Subject
    figures: Figures
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """That of the worst finding."""
        return self.findings[0].verdict if self.findings else Verdict.GOOD

    @property
    def reason(self) -> str:
        """The worst finding's sentence."""
        return self.findings[0].text if self.findings else ""


@dataclass(frozen=True, slots=True)
class DeviceSummary:
    """A device's tags by verdict; ``site`` and ``device`` are empty for all devices together."""

    site: str
    device: str
    good: int
    look: int
    bad: int
    samples: int
    coverage: float | None
    """The mean of those tags whose coverage is known."""

    @property
    def tags(self) -> int:
        """How many."""
        return self.good + self.look + self.bad

    @property
    def verdict(self) -> Verdict:
        """That of the worst tag."""
        return Verdict.BAD if self.bad else Verdict.LOOK if self.look else Verdict.GOOD


def judge(subject: Subject, figures: Figures, span_ms: int, clock: Clock) -> Judged:
    """What is to be said of a tag over a range of ``span_ms``.

    Where the period is only estimated nothing that follows from it is called bad.
    """
    if figures.samples == 0:
        silent = Finding("coverage", Verdict.BAD, "Not one sample in the range.")
        return Judged(subject, figures, (silent,))
    found = [
        *_about_presence(subject, figures, span_ms, clock),
        *_about_periods(figures),
        *_about_limits(subject, figures),
        *_about_flatness(subject, figures, clock),
    ]
    found.sort(key=lambda finding: -RANKS[finding.verdict])
    return Judged(subject, figures, tuple(found))


def worst_first(judged: Sequence[Judged]) -> list[Judged]:
    """By verdict, then by coverage, number of findings and name."""
    return sorted(
        judged,
        key=lambda one: (
            -RANKS[one.verdict],
            1.0 if one.figures.coverage is None else one.figures.coverage,
            -len(one.findings),
            one.subject.key,
        ),
    )


def summarize(judged: Sequence[Judged], key: TagKey | None = None) -> DeviceSummary:
    """The tags of one device (of any tag's ``key``), or all."""
    chosen = [one for one in judged if key is None or one.subject.key[:2] == key[:2]]
    counts = {verdict: sum(one.verdict is verdict for one in chosen) for verdict in Verdict}
    known = [one.figures.coverage for one in chosen if one.figures.coverage is not None]
    return DeviceSummary(
        "" if key is None else key.site,
        "" if key is None else key.device,
        counts[Verdict.GOOD],
        counts[Verdict.LOOK],
        counts[Verdict.BAD],
        sum(one.figures.samples for one in chosen),
        sum(known) / len(known) if known else None,
    )


def devices(judged: Sequence[Judged]) -> list[DeviceSummary]:
    """Each device, the worst first."""
    by_device: dict[tuple[str, ...], list[Judged]] = {}
    for one in judged:
        by_device.setdefault(one.subject.key[:2], []).append(one)
    found = [summarize(some, some[0].subject.key) for some in by_device.values()]
    return sorted(
        found, key=lambda one: (-RANKS[one.verdict], -one.bad, -one.look, one.site, one.device)
    )


def percent(share: float) -> str:
    """A share as it is shown; 100 % is only what is all of it, and 0 % what is nothing."""
    tenths = round(share * 1000)
    if share > 0 and not tenths:
        return "below 0.1 %"
    if share < 1:
        tenths = min(tenths, 999)
    return f"{tenths / 10:.1f} %"


def span(ms: float) -> str:
    """A time span as it is shown."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 120_000:
        return f"{ms / 1000:.1f} s"
    minutes, hours = ms / 60_000, ms / 3_600_000
    return f"{minutes:.0f} min" if minutes < 120 else f"{hours:.1f} h"


def _about_presence(
    subject: Subject, figures: Figures, span_ms: int, clock: Clock
) -> Iterator[Finding]:
    bad = Verdict.LOOK if figures.period_is_estimated else Verdict.BAD
    newest_ms, age_ms = figures.newest_ms, figures.age_ms
    if figures.is_silent and newest_ms is not None and (age_ms or 0) >= SILENT_MS_BAD:
        text = f"No sample since {clock(newest_ms)}, the last {span(age_ms or 0)} of the range."
        yield Finding("age", bad, text)
    if figures.coverage is not None and figures.coverage < COVERAGE_LOOK:
        by_change = subject.expectation.heartbeat_ms is not None
        what = "heartbeats" if by_change else "samples"
        yield Finding(
            "coverage",
            bad if figures.coverage < COVERAGE_BAD else Verdict.LOOK,
            f"{percent(figures.coverage)} of the expected {what} are there:"
            f" {figures.present:,} of {figures.expected:,}.",
        )
    if figures.gaps and figures.gap_ms is not None:
        longest = figures.gaps[0]
        longest_ms = longest.end_ms - longest.start_ms
        if longest_ms >= GAP_MS_LOOK or figures.gap_ms > GAPS_SHARE_LOOK * span_ms:
            many = "A gap" if figures.gap_count == 1 else f"{figures.gap_count:,} gaps, the longest"
            yield Finding(
                "gaps",
                Verdict.LOOK,
                f"{many} of {span(longest_ms)} from {clock(longest.start_ms)}.",
            )


def _about_periods(figures: Figures) -> Iterator[Finding]:
    period_ms = figures.period_ms
    if not figures.periods or period_ms is None or figures.late is None:
        return
    mean_ms = figures.period_mean_ms
    if mean_ms is not None and abs(mean_ms - period_ms) > PERIOD_ERROR_LOOK * period_ms:
        yield Finding(
            "period",
            Verdict.LOOK,
            f"A sample each {mean_ms:,.0f} ms on average; period_ms is {period_ms:,}.",
        )
    if figures.late > LATE_SHARE_LOOK * figures.periods:
        yield Finding(
            "late",
            Verdict.LOOK,
            f"{percent(figures.late / figures.periods)} of the samples came more than half a"
            " period late.",
        )
    p95_ms = figures.deviation_p95_ms
    if p95_ms is not None and p95_ms > DEVIATION_LOOK * period_ms:
        yield Finding(
            "jitter",
            Verdict.LOOK,
            f"5 % of the periods are {p95_ms:,} ms or more away from {period_ms:,} ms.",
        )


def _about_limits(subject: Subject, figures: Figures) -> Iterator[Finding]:
    lo, hi = subject.expectation.lo, subject.expectation.hi
    if lo is None and hi is None:
        return
    limits = f"{'' if lo is None else f'{lo:g}'}..{'' if hi is None else f'{hi:g}'}"
    seen = f"the values go from {figures.least:g} to {figures.greatest:g}"
    share = figures.outside_share
    if share is not None and share > OUTSIDE_LOOK:
        yield Finding(
            "range",
            Verdict.BAD if share > OUTSIDE_BAD else Verdict.LOOK,
            f"{percent(share)} of the samples lie outside {limits}; {seen}.",
        )
    by_minutes = figures.minutes_outside / figures.minutes if figures.minutes else 0.0
    if by_minutes > OUTSIDE_LOOK:
        yield Finding(
            "range",
            Verdict.LOOK,
            f"{percent(by_minutes)} of the minutes have a value outside {limits}; {seen}.",
        )


def _about_flatness(subject: Subject, figures: Figures, clock: Clock) -> Iterator[Finding]:
    if subject.expectation.is_switch or _looks_like_a_switch(subject, figures):
        return
    if figures.flat_ms < max(FLAT_MS_MIN, GAP_PERIODS * (figures.period_ms or 0)):
        return
    value = f"{figures.last:g} {subject.unit}".rstrip()
    if not figures.changes:
        yield Finding("flat", Verdict.LOOK, f"Has been {value} all the time.")
    elif (
        figures.changes >= FLAT_CHANGES_MIN
        and figures.flat_ms > FLAT_FACTOR * figures.flat_before_ms
        and figures.newest_ms is not None
    ):
        since = clock(figures.newest_ms - figures.flat_ms)
        before = "it changed with every sample"
        if figures.flat_before_ms:
            before = f"it never stood still for longer than {span(figures.flat_before_ms)}"
        yield Finding("flat", Verdict.LOOK, f"Has been {value} since {since}; before, {before}.")


def _looks_like_a_switch(subject: Subject, figures: Figures) -> bool:
    """Where no map says what it is."""
    known = subject.expectation.period_ms is not None
    return not known and figures.least in (0.0, 1.0) and figures.greatest in (0.0, 1.0)
