"""From figures to verdicts, and how a report tells them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pytest

from edge_agent.cli.quality import _show, _write
from edge_agent.errors import TransientError
from edge_agent.model import TagKey
from edge_agent.quality.collect import Collected, Columns, Kept, Subject, collect
from edge_agent.quality.figures import Expectation, Figures, Fold, Gap, Minutes
from edge_agent.quality.judge import Judged, Verdict, devices, judge, percent, span, worst_first
from edge_agent.quality.page import page
from edge_agent.quality.report import as_dict, iso, make_report
from tests.terminal import plain, set_width

HOUR = 3_600_000
DAY = 24 * HOUR
SUBJECT = Subject(
    TagKey("A1", "PUMP01", "PRESS"), Expectation(period_ms=1_000, lo=2.0, hi=12.0), unit="bar"
)
FINE = Figures(
    samples=86_400,
    period_ms=1_000,
    period_is_estimated=False,
    expected=86_400,
    present=86_400,
    coverage=1.0,
    gap_count=0,
    gap_ms=0,
    gaps=(),
    periods=86_399,
    late=0,
    period_mean_ms=1_000.0,
    deviation_p50_ms=1,
    deviation_p95_ms=3,
    deviation_p99_ms=5,
    least=3.0,
    greatest=9.0,
    last=4.0,
    outside=0,
    outside_share=0.0,
    changes=80_000,
    flat_ms=0,
    flat_before_ms=2_000,
    newest_ms=DAY - 500,
    age_ms=500,
    is_silent=False,
    minutes=0,
    minutes_outside=0,
)


def judged(subject: Subject = SUBJECT, **changes: Any) -> Judged:
    """What is said of figures that are fine but for these."""
    return judge(subject, replace(FINE, **changes), DAY, iso)


def test_a_good_tag_has_no_findings() -> None:
    """Nothing to say."""
    assert (judged().verdict, judged().reason, judged().findings) == (Verdict.GOOD, "", ())


@pytest.mark.parametrize(
    ("changes", "check", "verdict", "text"),
    [
        (
            {"coverage": 0.98991, "present": 85_528},
            "coverage",
            "look",
            "99.0 % of the expected samples are there: 85,528 of 86,400.",
        ),
        ({"coverage": 0.8999}, "coverage", "bad", "90.0 % of the expected samples"),
        (
            {"is_silent": True, "age_ms": 2 * HOUR, "newest_ms": 22 * HOUR},
            "age",
            "bad",
            "No sample since 1970-01-01T22:00:00.000Z, the last 2.0 h of the range.",
        ),
        (
            {"gaps": (Gap(HOUR, HOUR + 90_000),), "gap_count": 1, "gap_ms": 90_000},
            "gaps",
            "look",
            "A gap of 90.0 s from 1970-01-01T01:00:00.000Z.",
        ),
        (
            {"gaps": (Gap(HOUR, HOUR + 9_000),), "gap_count": 12, "gap_ms": 87_000},
            "gaps",
            "look",
            "12 gaps, the longest of 9.0 s from 1970-01-01T01:00:00.000Z.",
        ),
        (
            {"period_mean_ms": 1_100.4},
            "period",
            "look",
            "A sample each 1,100 ms on average; period_ms is 1,000.",
        ),
        ({"late": 900}, "late", "look", "1.0 % of the samples came more than half a period late."),
        (
            {"deviation_p95_ms": 251},
            "jitter",
            "look",
            "5 % of the periods are 251 ms or more away from 1,000 ms.",
        ),
        (
            {"outside_share": 0.02, "greatest": 13.5},
            "range",
            "look",
            "2.0 % of the samples lie outside 2..12; the values go from 3 to 13.5.",
        ),
        ({"outside_share": 0.6}, "range", "bad", "60.0 % of the samples lie outside"),
        (
            {"minutes": 60, "minutes_outside": 6},
            "range",
            "look",
            "10.0 % of the minutes have a value outside 2..12",
        ),
        ({"changes": 0, "flat_ms": DAY}, "flat", "look", "Has been 4 bar all the time."),
        (
            {"flat_ms": HOUR, "flat_before_ms": 30_000, "newest_ms": 20 * HOUR},
            "flat",
            "look",
            "Has been 4 bar since 1970-01-01T19:00:00.000Z; before, it never stood still for",
        ),
        (
            {"flat_ms": HOUR, "flat_before_ms": 0, "newest_ms": 20 * HOUR},
            "flat",
            "look",
            "Has been 4 bar since 1970-01-01T19:00:00.000Z; before, it changed with every sample.",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 10 else "",
)
def test_what_is_found(changes: dict[str, Any], check: str, verdict: str, text: str) -> None:
    """One thing is wrong: one finding, with its sentence."""
    (finding,) = judged(**changes).findings
    assert (finding.check, finding.verdict) == (check, verdict)
    assert finding.text.startswith(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"coverage": 0.99},
        {"is_silent": True, "age_ms": 59_999},
        {"gaps": (Gap(0, 59_999),), "gap_count": 1, "gap_ms": 59_999},
        {"gaps": (Gap(0, 9_000),), "gap_count": 9, "gap_ms": 86_400},
        {"period_mean_ms": 1_050.0},
        {"late": 863},
        {"deviation_p95_ms": 250},
        {"outside_share": 0.01},
        {"flat_ms": 599_999, "changes": 0},
        {"flat_ms": HOUR, "flat_before_ms": HOUR // 10},
        {"flat_ms": HOUR, "changes": 9},
        {"flat_ms": DAY, "changes": 0, "is_switch": True},
    ],
    ids=str,
)
def test_what_is_let_pass(changes: dict[str, Any]) -> None:
    """On the bounds, and a switch that nobody switched."""
    subject = SUBJECT
    if changes.pop("is_switch", False):
        subject = replace(SUBJECT, expectation=Expectation(1_000, is_switch=True))
    assert not judged(subject, **changes).findings


def test_without_a_map_nothing_about_presence_is_bad() -> None:
    """The period is a guess; a tag of zeros and ones may be a switch."""
    subject = Subject(SUBJECT.key, Expectation())
    found = judged(
        subject,
        period_is_estimated=True,
        coverage=0.2,
        is_silent=True,
        age_ms=HOUR,
        outside=None,
        outside_share=None,
    )
    assert {finding.verdict for finding in found.findings} == {Verdict.LOOK}
    constant = {"changes": 0, "flat_ms": DAY, "outside": None, "outside_share": None}
    assert not judged(subject, least=1.0, greatest=1.0, last=1.0, **constant).findings
    assert judged(subject, least=2.0, greatest=2.0, last=2.0, **constant).findings


def test_a_tag_without_samples_is_bad_for_that_reason_alone() -> None:
    """Not for each figure that follows from it."""
    found = judge(SUBJECT, Fold(SUBJECT.expectation, 0, DAY).figures(), DAY, iso)
    assert (found.verdict, found.reason) == (Verdict.BAD, "Not one sample in the range.")
    assert len(found.findings) == 1


def test_heartbeats_are_what_is_expected_of_a_tag_recorded_by_change() -> None:
    """The sentence says so."""
    subject = replace(SUBJECT, expectation=Expectation(1_000, heartbeat_ms=60_000))
    (finding,) = judged(
        subject, coverage=0.5, present=700, expected=1_400, outside_share=None
    ).findings
    assert finding.text == "50.0 % of the expected heartbeats are there: 700 of 1,400."


def test_the_worst_stands_first() -> None:
    """The worst finding of a tag, the worst tag, the worst device."""
    both = judged(late=9_000, outside_share=0.9)
    assert [finding.check for finding in both.findings] == ["range", "late"]

    def tag(name: str, device: str, **changes: Any) -> Judged:
        return judged(replace(SUBJECT, key=TagKey("A1", device, name)), **changes)

    tags = [
        tag("good", "P1"),
        tag("half", "P1", coverage=0.5),
        tag("late", "P2", late=9_000),
        tag("less", "P3", coverage=0.2),
    ]
    assert [one.subject.key.tag for one in worst_first(tags)] == ["less", "half", "late", "good"]
    found = devices(tags)
    assert [(one.device, one.verdict) for one in found] == [
        ("P1", "bad"),
        ("P3", "bad"),
        ("P2", "look"),
    ]
    assert (found[0].good, found[0].bad, found[0].tags, found[0].coverage) == (1, 1, 2, 0.75)


def test_shares_are_rounded_and_never_to_all_or_nothing() -> None:
    """99.99 % is not all of it, and a trace is not nothing."""
    assert [percent(share) for share in (0.0667, 0.9999, 1.0, 0.00001, 0.0, 0.5)] == [
        "6.7 %",
        "99.9 %",
        "100.0 %",
        "below 0.1 %",
        "0.0 %",
        "50.0 %",
    ]
    assert [span(ms) for ms in (999, 1_500, 119_900, 600_000, 2 * HOUR)] == [
        "999 ms",
        "1.5 s",
        "119.9 s",
        "10 min",
        "2.0 h",
    ]


# -- reports -----------------------------------------------------------------------------------

EVIL = "<b>&\"'펌프</b>"


def report(**changes: Any) -> Any:
    """Of two tags, one of which has names that are HTML."""
    evil = replace(SUBJECT, key=TagKey("A1", EVIL, "온도<script>alert(1)</script>"), unit="<i>°C")
    gaps = (Gap(HOUR, HOUR + 90_000),)
    bad = replace(FINE, coverage=0.5, gaps=gaps, gap_count=1, gap_ms=90_000)
    collected = Collected(HOUR, DAY, 2 * HOUR, [FINE, bad])
    return make_report("store", 0, collected, [SUBJECT, evil], iso, **changes)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_reasons_are_sentences_on_a_narrow_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With room for some words, or without the lines of a table; no number is cut."""
    set_width(width, monkeypatch)
    found = report()
    _show(found, None)
    text = plain(capsys.readouterr().out)
    assert "…" not in text
    reason = found.tags[0].reason
    assert " " in reason
    lines = text.splitlines()
    whys = [line.split("│")[8].strip() for line in lines if line.startswith("│")]
    assert reason in " ".join(whys) or any(line.endswith(reason) for line in lines)


def test_the_document_is_plain_data() -> None:
    """Counts, tags worst first, times in UTC; JSON can carry it."""
    document = orjson.loads(orjson.dumps(as_dict(report(map_sha256="ab", others=3))))
    assert (document["verdict"], document["all"]["bad"], document["all"]["good"]) == ("bad", 1, 1)
    assert document["since"] == "1970-01-01T01:00:00.000Z"
    first, second = document["tags"]
    assert (first["device"], first["verdict"], second["verdict"]) == (EVIL, "bad", "good")
    assert first["gaps"] == [
        {"since": "1970-01-01T01:00:00.000Z", "until": "1970-01-01T01:01:30.000Z", "ms": 90_000}
    ]
    assert {finding["check"] for finding in first["findings"]} == {"coverage", "gaps"}
    notes = " ".join(document["notes"])
    assert "judged by minutes" in notes
    assert "3 other tags" in notes
    assert "begins at 1970-01-01T01:00" in notes
    assert "Without a map" in " ".join(as_dict(report())["notes"])


class _Page(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """As a whole: what was there is not written into, so that half a page is never left."""
    path, before = tmp_path / "report.html", tmp_path / "before"
    path.write_text("old")
    before.hardlink_to(path)
    _write(path, "온도")
    assert path.read_text() == "온도"
    assert before.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


def test_the_page_shows_names_as_they_are_and_needs_nothing() -> None:
    """Markup in a name is text; no script, no style sheet, no image, no address of anything."""
    text = page(report(), iso)
    parsed = _Page()
    parsed.feed(text)
    assert parsed.elements.isdisjoint({"b", "i", "script", "link", "img", "iframe"})
    assert not [name for name, _ in parsed.attributes if name in ("src", "href")]
    assert f"A1 {EVIL} 온도<script>alert(1)</script>" in parsed.text
    assert "3 <i>°C" in parsed.text
    assert not re.search(r"url\(|@import|https?:", text)
    assert "prefers-color-scheme: dark" in text


# -- collecting --------------------------------------------------------------------------------


class _Recording:
    """A source with a sample each second of every tag, which notes what it was asked."""

    name = "store"

    def __init__(self, kept: Kept = Kept(0, 0)) -> None:  # noqa: B008
        self.kept_ = kept
        self.asked: list[tuple[str, str, int, int, int]] = []

    async def close(self) -> None:
        """Nothing to close."""

    async def tags(self, start_ms: int, end_ms: int) -> set[TagKey]:
        """None are listed here."""
        return set()

    async def kept(self, start_ms: int) -> Kept:
        """As the test wants it."""
        return self.kept_

    async def samples(
        self, site: str, device: str, tags: Any, start_ms: int, end_ms: int
    ) -> Mapping[str, Columns]:
        """Nothing at all: what was asked counts."""
        self.asked.append(("samples", device, len(tags), start_ms, end_ms))
        return {}

    async def minutes(
        self, site: str, device: str, tags: Any, start_ms: int, end_ms: int
    ) -> Mapping[str, Minutes]:
        """Likewise."""
        self.asked.append(("minutes", device, len(tags), start_ms, end_ms))
        return {}


def subjects(device: str, count: int, period_ms: int) -> list[Subject]:
    """Tags of a device."""
    expectation = Expectation(period_ms)
    return [Subject(TagKey("A1", device, f"T{number}"), expectation) for number in range(count)]


async def test_reads_are_bounded_and_cover_the_range_once() -> None:
    """Of fast tags an hour of few, of slow ones a day of many; every tag's windows join."""
    source = _Recording()
    wanted = subjects("FAST", 20, 200) + subjects("SLOW", 150, 60_000)
    told: list[tuple[int, int]] = []
    await collect(source, wanted, 0, DAY, progress=lambda *done: told.append(done))
    for _, device, tags, start_ms, end_ms in source.asked:
        period_ms = 200 if device == "FAST" else 60_000
        assert tags * (end_ms - start_ms) // period_ms <= 100_000
    assert [tags for _, device, tags, _, _ in source.asked if device == "FAST"] == [5] * 4 * 24
    assert sum(tags * (end - start) for _, _, tags, start, end in source.asked) == 170 * DAY
    assert told[-1] == (len(source.asked), len(source.asked))


async def test_what_has_expired_is_read_as_minutes() -> None:
    """Up to the first whole minute that has all of its samples; the range begins with one too."""
    source = _Recording(Kept(samples_from_ms=HOUR + 1, begins_ms=0))
    found = await collect(source, subjects("P", 1, 1_000), 30_000, 2 * HOUR)
    assert (found.start_ms, found.samples_from_ms, found.has_minutes) == (
        60_000,
        HOUR + 60_000,
        True,
    )
    assert source.asked == [
        ("minutes", "P", 1, 60_000, HOUR + 60_000),
        ("samples", "P", 1, HOUR + 60_000, 2 * HOUR),
    ]
    gone = _Recording(Kept(samples_from_ms=1 << 60, begins_ms=0))
    await collect(gone, subjects("P", 1, 1_000), 0, HOUR)
    assert [asked[0] for asked in gone.asked] == ["minutes"]


async def test_what_was_never_there_is_not_judged() -> None:
    """The range begins where the source does; one that ends before is an error that says so."""
    source = _Recording(Kept(0, begins_ms=HOUR))
    found = await collect(source, subjects("P", 1, 1_000), 0, 2 * HOUR)
    assert (found.start_ms, found.figures[0].expected) == (HOUR, 3_600)
    with pytest.raises(TransientError, match="before the data begins"):
        await collect(source, subjects("P", 1, 1_000), 0, HOUR)


async def test_time_is_limited() -> None:
    """It ends with what to do, not after hours."""
    now_s = iter(range(100))
    with pytest.raises(TransientError, match="3 of 24 reads done when the time limit of 2") as got:
        await collect(
            _Recording(),
            subjects("P", 25, 1_000),
            0,
            DAY,
            time_limit_s=2,
            monotonic=lambda: float(next(now_s)),
        )
    assert "--time-limit" in got.value.hint
