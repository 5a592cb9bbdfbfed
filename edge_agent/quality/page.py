"""A report as one HTML file: no script, nothing from elsewhere, readable light and dark. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from edge_agent.quality.judge import SHOWN, Clock, DeviceSummary, Judged, Verdict, percent, span
from edge_agent.quality.report import Report
from edge_agent.text.counts import counted

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --line: #d0d7de;
  --dim: #57606a; --good: #116329; --look: #7d4e00; --bad: #a40e26; --head: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --line: #30363d; --dim: #9198a1; --good: #3fb950;
    --look: #d29922; --bad: #ff7b72; --head: #161b22; } }
body { margin: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Noto Sans CJK KR", "Noto Sans KR", "Malgun Gothic", sans-serif; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
p { margin: .3rem 0; } .dim { color: var(--dim); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left;
  vertical-align: top; }
th { background: var(--head); position: sticky; top: 0; white-space: nowrap; }
td.n { text-align: right; white-space: nowrap; } td.v { white-space: nowrap; font-weight: 600; }
.good { color: var(--good); } .look { color: var(--look); } .bad { color: var(--bad); }
ul { margin: 0; padding-left: 1.1rem; min-width: 24rem; }
td:first-child { min-width: 9rem; }
"""


def page(report: Report, clock: Clock) -> str:
    """The whole file; names and units are escaped."""
    title = f"Data quality, {clock(report.start_ms)} to {clock(report.end_ms)}"
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            f"<p>{_verdict(report.verdict)}: {escape(_counts(report))}</p>",
            *(f'<p class="dim">{escape(note)}</p>' for note in report.notes(clock)),
            "<h2>Devices</h2>",
            _table(
                ("device", "verdict", "tags", "good", "look at it", "bad", "samples", "coverage"),
                map(_device_cells, report.devices),
            ),
            "<h2>Tags</h2>",
            _table(
                (
                    "tag",
                    "verdict",
                    "why",
                    "coverage",
                    "gaps",
                    "longest",
                    "late",
                    "period",
                    "deviation p50 / p95 / p99",
                    "least",
                    "greatest",
                    "outside",
                    "unchanged",
                    "age",
                ),
                (_tag_cells(one, clock) for one in report.tags),
            ),
            "</body></html>\n",
        )
    )


def _table(columns: Sequence[str], rows: Iterable[str]) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>'
        "</table></div>"
    )


def _verdict(verdict: Verdict) -> str:
    return f'<span class="{verdict}">{SHOWN[verdict]}</span>'


def _counts(report: Report) -> str:
    every = report.all
    return (
        f"{counted(every.tags, 'tag')} out of {report.source}: {every.good:,} good,"
        f" {every.look:,} to look at, {every.bad:,} bad"
    )


def _number(text: str, more: str = "") -> str:
    title = f' title="{escape(more)}"' if more else ""
    return f'<td class="n"{title}>{escape(text)}</td>'


def _device_cells(one: DeviceSummary) -> str:
    numbers = (f"{count:,}" for count in (one.tags, one.good, one.look, one.bad, one.samples))
    return "".join(
        (
            f"<td>{escape(f'{one.site} {one.device}')}</td>",
            f'<td class="v">{_verdict(one.verdict)}</td>',
            *map(_number, numbers),
            _number("" if one.coverage is None else percent(one.coverage)),
        )
    )


def _tag_cells(one: Judged, clock: Clock) -> str:
    figures, unit = one.figures, one.subject.unit
    key = one.subject.key
    reasons = "".join(f"<li>{escape(finding.text)}</li>" for finding in one.findings)
    gaps = "; ".join(
        f"{clock(gap.start_ms)} for {span(gap.end_ms - gap.start_ms)}" for gap in figures.gaps
    )
    deviations = (figures.deviation_p50_ms, figures.deviation_p95_ms, figures.deviation_p99_ms)
    longest = figures.gaps[0] if figures.gaps else None
    numbers = (
        "" if figures.late is None else f"{figures.late:,}",
        _period(one),
        " / ".join(f"{each:,} ms" for each in deviations if each is not None),
        "" if figures.least is None else f"{figures.least:g} {unit}".rstrip(),
        "" if figures.greatest is None else f"{figures.greatest:g} {unit}".rstrip(),
        "" if figures.outside_share is None else percent(figures.outside_share),
        "" if figures.samples == 0 else span(figures.flat_ms),
        "" if figures.age_ms is None else span(figures.age_ms),
    )
    return "".join(
        (
            f"<td>{escape(f'{key.site} {key.device} {key.tag}')}</td>",
            f'<td class="v">{_verdict(one.verdict)}</td>',
            f"<td>{f'<ul>{reasons}</ul>' if reasons else ''}</td>",
            _number("" if figures.coverage is None else percent(figures.coverage)),
            _number("" if figures.gap_count is None else f"{figures.gap_count:,}"),
            _number("" if longest is None else span(longest.end_ms - longest.start_ms), gaps),
            *map(_number, numbers),
        )
    )


def _period(one: Judged) -> str:
    figures = one.figures
    if figures.period_ms is None:
        return ""
    told = f"{figures.period_ms:,} ms{' (estimated)' if figures.period_is_estimated else ''}"
    mean_ms = figures.period_mean_ms
    return told if mean_ms is None else f"{told}, mean {mean_ms:,.1f}"
