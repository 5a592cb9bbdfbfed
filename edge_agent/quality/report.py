"""A report: judged tags and devices, as plain data for programs. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from edge_agent.clock import MINUTE_MS
from edge_agent.quality.collect import Collected, Subject
from edge_agent.quality.figures import Figures
from edge_agent.quality.judge import (
    Clock,
    DeviceSummary,
    Judged,
    Verdict,
    devices,
    judge,
    summarize,
    worst_first,
)
from edge_agent.text.counts import counted


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that `edge-agent quality` says of a range. Tags and devices: the worst first."""

    source: str
    asked_ms: int
    """Where the range that was asked for begins; ``start_ms`` is where the data does."""
    start_ms: int
    end_ms: int
    samples_from_ms: int
    map_sha256: str | None
    others: int
    """Tags that the source has and the map has not."""
    tags: Sequence[Judged]
    devices: Sequence[DeviceSummary]
    all: DeviceSummary

    @property
    def verdict(self) -> Verdict:
        """That of the worst tag."""
        return self.all.verdict

    def notes(self, clock: Clock) -> list[str]:
        """What whoever reads the figures has to know."""
        notes = []
        if self.start_ms - self.asked_ms > MINUTE_MS:
            notes.append(
                f"The data begins at {clock(self.start_ms)}; what is before is not judged."
            )
        if self.samples_from_ms > self.start_ms:
            notes.append(
                f"Before {clock(self.samples_from_ms)} samples have expired: judged by minutes."
            )
        if self.map_sha256 is None:
            notes.append(
                "Without a map periods are estimated and limits unknown: nothing that follows from"
                " them is called bad."
            )
        if self.others:
            stand = "stands" if self.others == 1 else "stand"
            others = counted(self.others, "other tag")
            notes.append(f"{others} of the source {stand} in no row of the map.")
        return notes


def make_report(
    source: str,
    asked_ms: int,
    collected: Collected,
    subjects: Sequence[Subject],
    clock: Clock,
    *,
    map_sha256: str | None = None,
    others: int = 0,
) -> Report:
    """Judge what was collected; ``clock`` is for the times in its sentences."""
    span_ms = collected.end_ms - collected.start_ms
    judged = [
        judge(subject, figures, span_ms, clock)
        for subject, figures in zip(subjects, collected.figures, strict=True)
    ]
    return Report(
        source,
        asked_ms,
        collected.start_ms,
        collected.end_ms,
        collected.samples_from_ms,
        map_sha256,
        others,
        worst_first(judged),
        devices(judged),
        summarize(judged),
    )


def iso(ts_ms: int) -> str:
    """A time as programs read it: UTC, to the millisecond."""
    moment = datetime.fromtimestamp(ts_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_dict(report: Report, clock: Clock = iso) -> dict[str, Any]:
    """A report as plain data: times as ISO 8601 in UTC, spans in ms, shares from 0 to 1."""
    return {
        "verdict": report.verdict,
        "source": report.source,
        "since": iso(report.start_ms),
        "until": iso(report.end_ms),
        "asked_since": iso(report.asked_ms),
        "samples_since": iso(report.samples_from_ms),
        "map_sha256": report.map_sha256,
        "other_tags": report.others,
        "notes": report.notes(clock),
        "all": _summary_dict(report.all),
        "devices": [
            {"site": one.site, "device": one.device} | _summary_dict(one) for one in report.devices
        ],
        "tags": [_tag_dict(one) for one in report.tags],
    }


def _summary_dict(one: DeviceSummary) -> dict[str, Any]:
    return {
        "verdict": one.verdict,
        "tags": one.tags,
        "good": one.good,
        "look": one.look,
        "bad": one.bad,
        "samples": one.samples,
        "coverage": one.coverage,
    }


def _tag_dict(one: Judged) -> dict[str, Any]:
    expectation = one.subject.expectation
    return {
        **one.subject.key._asdict(),
        "unit": one.subject.unit,
        "verdict": one.verdict,
        "reason": one.reason,
        "findings": [finding._asdict() for finding in one.findings],
        "heartbeat_ms": expectation.heartbeat_ms,
        "lo": expectation.lo,
        "hi": expectation.hi,
        **_figures_dict(one.figures),
    }


def _figures_dict(figures: Figures) -> dict[str, Any]:
    return {
        "samples": figures.samples,
        "period_ms": figures.period_ms,
        "period_is_estimated": figures.period_is_estimated,
        "expected": figures.expected,
        "present": figures.present,
        "coverage": figures.coverage,
        "gap_count": figures.gap_count,
        "gap_ms": figures.gap_ms,
        "gaps": [
            {"since": iso(gap.start_ms), "until": iso(gap.end_ms), "ms": gap.end_ms - gap.start_ms}
            for gap in figures.gaps
        ],
        "periods": figures.periods,
        "late": figures.late,
        "period_mean_ms": figures.period_mean_ms,
        "deviation_p50_ms": figures.deviation_p50_ms,
        "deviation_p95_ms": figures.deviation_p95_ms,
        "deviation_p99_ms": figures.deviation_p99_ms,
        "least": figures.least,
        "greatest": figures.greatest,
        "last": figures.last,
        "outside": figures.outside,
        "outside_share": figures.outside_share,
        "changes": figures.changes,
        "flat_ms": figures.flat_ms,
        "flat_before_ms": figures.flat_before_ms,
        "newest": None if figures.newest_ms is None else iso(figures.newest_ms),
        "age_ms": figures.age_ms,
        "minutes": figures.minutes,
        "minutes_outside": figures.minutes_outside,
    }
