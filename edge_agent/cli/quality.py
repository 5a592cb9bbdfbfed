"""`edge-agent quality`: how good the data of each tag is, or what is suspicious in a map."""

from __future__ import annotations

import argparse
import asyncio
import shlex
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from edge_agent import protocols
from edge_agent.address_map import AddressMap
from edge_agent.cli.options import add_json, add_map, inputs_of, load_map_or_tell
from edge_agent.cli.tables import Grid, clock
from edge_agent.clock import epoch_ms
from edge_agent.command_line import DONE, FAILED, WRONG_INPUT, print_json
from edge_agent.errors import ConfigError, TransientError
from edge_agent.files import replace_file
from edge_agent.forecast import forecast
from edge_agent.model import TagKey
from edge_agent.output_file import check_not_input, check_output, unwritable
from edge_agent.progress_bar import progress
from edge_agent.quality.collect import Collected, Source, Subject, collect
from edge_agent.quality.figures import Expectation
from edge_agent.quality.judge import SHOWN, Finding, Judged, Verdict, percent, span
from edge_agent.quality.map_findings import map_findings
from edge_agent.quality.page import page
from edge_agent.quality.report import Report, as_dict, make_report
from edge_agent.settings import Settings
from edge_agent.text.counts import counted
from edge_agent.text.durations import ALLOWED, duration_ms
from edge_agent.text.selection import FORMS, UnknownNameError, selected

SINCE_DEFAULT: Final = "24h"
SETTLE_MS: Final = 10_000
"""What is younger may still be on its way into a database: without --until it is left out."""
RANGE_DAYS_MAX: Final = 366
RANGE_MS_MAX: Final = RANGE_DAYS_MAX * 86_400_000
"""A year of one tag each second is 31 million samples."""
TIME_LIMIT_S: Final = 3_600.0
"""A day of 3,000 tags each second takes minutes on a PC and some quarters of an hour on a Pi."""
TAGS_SHOWN: Final = 20
"""The worst; a terminal has few more lines."""

_STYLES: Final = {Verdict.GOOD: "green", Verdict.LOOK: "yellow", Verdict.BAD: "bold red"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_map(parser)
    parser.add_argument(
        "--since",
        default=SINCE_DEFAULT,
        metavar="TIME",
        help="so long before the end (30m, 24h, 7d), or a time with zone (default: %(default)s)",
    )
    parser.add_argument(
        "--until", metavar="TIME", help="so long ago, or a time with zone (default: now)"
    )
    parser.add_argument("--device", metavar="DEVICE", help=f"this one only: {FORMS}")
    parser.add_argument(
        "--source",
        choices=("store", "edge", "remote"),
        help="where samples are read (default: the store if it is on, else edge)",
    )
    parser.add_argument("--dsn", help="of edge or remote (default: its dsn of [dashboard])")
    parser.add_argument("--all", action="store_true", help=f"every tag, not the worst {TAGS_SHOWN}")
    add_json(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a report to read")
    parser.add_argument(
        "--time-limit",
        type=_seconds,
        default=TIME_LIMIT_S,
        metavar="S",
        help="give up after so many seconds (default: %(default)g)",
    )
    parser.add_argument(
        "--map-only", action="store_true", help="look at the map alone, at no sample"
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Report; exit code 1 if something is bad."""
    if options.html is not None:
        check_not_input(options.html, inputs_of(options, "html"))
        check_output(options.html)
    loaded: AddressMap | None = None
    if options.map is not None or options.map_only:
        loaded = load_map_or_tell(options)
        if loaded is None:
            return WRONG_INPUT
    if options.map_only:
        assert loaded is not None
        return _map_only(loaded, settings, as_json=options.json)
    start_ms, end_ms = parse_range(options.since, options.until, epoch_ms())
    source = _source(options.source, options.dsn, settings)
    report = asyncio.run(_report(source, loaded, options, start_ms, end_ms))
    if options.html is not None:
        _write(options.html, page(report, clock))
    if options.json:
        print_json(as_dict(report, clock))
    else:
        _show(report, limit=None if options.all else TAGS_SHOWN)
    return FAILED if report.verdict is Verdict.BAD else DONE


def parse_range(since: str, until: str | None, now_ms: int) -> tuple[int, int]:
    """Start and end in ms since 1970 UTC. Raises ``ConfigError``."""
    end_ms = now_ms - SETTLE_MS if until is None else _moment(until, "--until", now_ms)
    if end_ms < 0:
        raise ConfigError(
            f"--until {until}: that is before 1970", hint="a later time, or leave it out for now"
        )
    start_ms = _moment(since, "--since", end_ms)
    if start_ms < 0:
        raise ConfigError(
            f"--since {since}: that is before 1970; allowed: at most {RANGE_DAYS_MAX} days",
            hint=f"--since {SINCE_DEFAULT}, or a later time",
        )
    if start_ms >= end_ms:
        raise ConfigError(
            f"--since {since}: not before the end of the range, {clock(end_ms)}",
            hint="--since 24h, or an earlier time",
        )
    if end_ms - start_ms > RANGE_MS_MAX:
        raise ConfigError(f"--since {since}: allowed: at most {RANGE_DAYS_MAX} days")
    return start_ms, end_ms


def _moment(text: str, option: str, before_ms: int) -> int:
    with suppress(ValueError):
        return before_ms - round(duration_ms(text))
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is not None:
            return round(moment.timestamp() * 1000)
    raise ConfigError(
        f"{option} {text}: allowed: {ALLOWED}; or a time with its zone like"
        " 2026-11-23T10:00:00+09:00"
    )


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: a number of seconds above 0")
    return number


def _source(name: str | None, dsn: str | None, settings: Settings) -> Source:
    name = name or ("edge" if dsn or not settings.store_enabled else "store")
    if name == "store":
        if dsn is not None:
            raise ConfigError("--dsn is of --source edge or remote; the store is a file")
        from edge_agent.quality.store_source import StoreSource

        return StoreSource(settings.agent.store_path)
    pages = settings.dashboard
    secret = pages.remote_dsn if name == "remote" else pages.edge_dsn or settings.postgres.dsn
    address = dsn or (None if secret is None else secret.get_secret_value())
    if address is None:
        raise ConfigError(
            f"--source {name}: no database is known",
            hint=f"--dsn postgresql://viewer@host/database, or set dashboard.{name}_dsn",
        )
    from edge_agent.quality.postgres_source import PostgresSource

    return PostgresSource(name, address)


async def _report(
    source: Source,
    loaded: AddressMap | None,
    options: argparse.Namespace,
    start_ms: int,
    end_ms: int,
) -> Report:
    try:
        known = await source.tags(start_ms, end_ms)
        subjects = _subjects(known, loaded, options.device)
        with progress("quality") as show:
            collected: Collected = await collect(
                source,
                subjects,
                start_ms,
                end_ms,
                progress=lambda done, total: show(done / total, f"{done:,} of {total:,} reads"),
                time_limit_s=options.time_limit,
            )
    finally:
        await source.close()
    others = 0
    if loaded is not None and options.device is None:
        others = len(known - {subject.key for subject in subjects})
    sha256 = None if loaded is None else loaded.sha256
    return make_report(
        source.name, start_ms, collected, subjects, clock, map_sha256=sha256, others=others
    )


def _subjects(known: set[TagKey], loaded: AddressMap | None, device: str | None) -> list[Subject]:
    """The map's tags, or the source's where there is no map; those of ``device`` if asked."""
    if loaded is None:
        subjects = [Subject(key, Expectation()) for key in sorted(known)]
    else:
        subjects = [Subject(tag.key, Expectation.of(tag), tag.unit) for tag in loaded.tags]
    if device is not None:
        try:
            subjects = selected(subjects, [device], lambda one: one.key)
        except UnknownNameError as error:
            missing = "no sample of it in the range"
            if loaded is not None:
                missing = f"it stands in no row of {loaded.path}"
            raise ConfigError(
                f"--device {device}: {missing}; expected {FORMS}",
                hint=f"for example --device {shlex.quote(error.near)}" if error.near else "",
            ) from error
    if not subjects:
        raise TransientError(
            "the source has no sample in the range", hint="--map tells which tags should be there"
        )
    return subjects


def _write(path: Path, text: str) -> None:
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise unwritable(path, error) from error


# -- the map alone -----------------------------------------------------------------------------


def _map_only(loaded: AddressMap, settings: Settings, *, as_json: bool) -> int:
    load = forecast(
        loaded.tags,
        protocols.load,
        journal=settings.journal,
        postgres=settings.postgres,
        commit_interval_s=settings.agent.commit_interval_ms / 1000,
    )
    findings: Sequence[Finding] = map_findings(loaded.tags, protocols.load, load)
    is_bad = any(finding.verdict is Verdict.BAD for finding in findings)
    if as_json:
        document = {
            "verdict": Verdict.BAD if is_bad else Verdict.LOOK if findings else Verdict.GOOD,
            "map_sha256": loaded.sha256,
            "tags": len(loaded.tags),
            "findings": [finding._asdict() for finding in findings],
        }
        print_json(document)
    else:
        console = Console(highlight=False, markup=False, soft_wrap=True)
        for finding in findings:
            style = _STYLES[finding.verdict]
            console.print(f"{SHOWN[finding.verdict]}: {finding.text}", style=style)
        console.print(
            f"{loaded.path}: {counted(len(loaded.tags), 'tag')},"
            f" {counted(len(findings), 'thing')} to look at"
        )
    return FAILED if is_bad else DONE


# -- text --------------------------------------------------------------------------------------

_COLUMNS: Final = ("tag", "verdict", "coverage", "gaps", "longest", "p95", "outside", "why")
_NUMBERS: Final = frozenset(_COLUMNS) - {"tag", "verdict", "why"}
WHY_WIDTH_MIN: Final = 12
"""Some words of a sentence; a date stays whole."""


def _show(report: Report, limit: int | None) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    every = report.all
    console.print(
        f"{report.source}, {clock(report.start_ms)} to {clock(report.end_ms)}:"
        f" {counted(every.tags, 'tag')}, {counted(every.samples, 'sample')}"
    )
    for note in report.notes(clock):
        console.print(f"note: {note}", style="dim")
    shown = [one for one in report.tags if limit is None or one.verdict is not Verdict.GOOD]
    rows = shown[:limit]
    grid = Grid("", _COLUMNS, _NUMBERS, {"why": WHY_WIDTH_MIN})
    for row in rows:
        grid.add(*_cells(row), style=_STYLES[row.verdict])
    if rows:
        grid.show(console)
    for one in report.devices:
        coverage = "" if one.coverage is None else f", coverage {percent(one.coverage)}"
        console.print(
            f"{one.site}/{one.device}: {one.good:,} good, {one.look:,} to look at, {one.bad:,} bad"
            f"{coverage}",
            style=_STYLES[one.verdict],
        )
    left = len(shown) - len(rows)
    console.print(
        f"all: {every.good:,} good, {every.look:,} to look at, {every.bad:,} bad"
        + (f"; {left:,} of them not shown, --all shows every tag" if left else ""),
        style=_STYLES[report.verdict],
    )


def _cells(one: Judged) -> tuple[str, ...]:
    figures = one.figures
    longest = figures.gaps[0] if figures.gaps else None
    p95_ms = figures.deviation_p95_ms
    return (
        "/".join(one.subject.key),
        SHOWN[one.verdict],
        "" if figures.coverage is None else percent(figures.coverage),
        "" if figures.gap_count is None else f"{figures.gap_count:,}",
        "" if longest is None else span(longest.end_ms - longest.start_ms),
        "" if p95_ms is None else f"{p95_ms:,} ms",
        "" if figures.outside_share is None else percent(figures.outside_share),
        one.reason,
    )
