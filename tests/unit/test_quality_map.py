"""What `edge-agent quality --map-only` finds suspicious in a legal map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from edge_agent import protocols
from edge_agent.forecast import forecast
from edge_agent.model import Tag, ValueType
from edge_agent.quality.judge import Finding, Verdict
from edge_agent.quality.map_findings import map_findings
from edge_agent.settings import JournalSettings, PostgresSettings


def tag(name: str, address: str, **changes: Any) -> Tag:
    """A row with which nothing is wrong, but for the changes."""
    row: dict[str, Any] = {
        "site": "A1",
        "line": "L1",
        "device": "PUMP01",
        "tag": name,
        "protocol": "modbus",
        "conn": "tcp://10.0.0.5:502",
        "unit_id": 1,
        "address": address,
        "type": ValueType.FLOAT32,
        "scale": 1.0,
        "offset": 0.0,
        "period_ms": 1_000,
        "unit": "bar",
        "lo": 0.0,
        "hi": 100.0,
    }
    return Tag(**(row | changes))


def findings(*tags: Tag) -> Sequence[Finding]:
    """What is found in these rows."""
    load = forecast(
        tags,
        protocols.load,
        journal=JournalSettings(),
        postgres=PostgresSettings(),
        commit_interval_s=0.2,
    )
    return map_findings(tags, protocols.load, load)


INTEGER = {"type": ValueType.INT16}


def test_a_sound_map_has_no_findings() -> None:
    """Neighbours, bits of a word that is also read whole, a switch without limits or unit."""
    assert not findings(
        tag("A", "40001"),
        tag("B", "40003"),
        tag("STATUS", "40005", type=ValueType.UINT32, unit="", lo=None, hi=None),
        tag("RUN", "40005.0", type=ValueType.BOOL, unit="", lo=None, hi=None),
        tag("TRIP", "40006.1", type=ValueType.BOOL, unit="", lo=None, hi=None),
        tag("LEVEL", "40010", **INTEGER, scale=0.1),
        tag("A", "40001", device="PUMP02", unit_id=2),
    )


@pytest.mark.parametrize(
    ("tags", "check", "text"),
    [
        (
            [tag("A", "40001"), tag("B", "40001"), tag("C", "hr:0")],
            "address",
            "A1/PUMP01/A, A1/PUMP01/B, A1/PUMP01/C read the same value: tcp://10.0.0.5:502,",
        ),
        (
            [tag("A", "40001"), tag("B", "40002")],
            "overlap",
            "A1/PUMP01/B (40002) begins inside A1/PUMP01/A (40001, FLOAT32).",
        ),
        (
            [tag("A", "40001", **INTEGER, lo=0.0, hi=12.0)],
            "scale",
            "A1/PUMP01/A: INT16 with scale 1 has 13 values in 0..12 bar",
        ),
        (
            [tag("A", "40001", type=ValueType.UINT16, scale=0.1, lo=-40.0, hi=-10.0)],
            "limits",
            "A1/PUMP01/A: UINT16 with this scale and offset goes from 0 to 6553.5, never inside",
        ),
        (
            [tag("A", "40001", deadband=50.0)],
            "deadband",
            "A1/PUMP01/A: a deadband of 50 hides half of 0..100.",
        ),
        (
            [
                tag("A", "40001"),
                tag("A", "40001", device="PUMP02", unit_id=2),
                tag("A", "40001", device="PUMP03", unit_id=3, unit="kPa"),
                tag("A", "40001", device="PUMP04", unit_id=4, unit=""),
            ],
            "unit",
            "A is in bar in 2 rows, but no unit: A1/PUMP04/A; kPa: A1/PUMP03/A.",
        ),
        (
            [
                *(tag(f"T{n}", f"{40001 + 2 * n}", lo=None, hi=None) for n in range(7)),
                tag("HIGH", "40101", lo=None),
            ],
            "limits",
            "A1/PUMP01: 7 of 8 analog tags have neither lo nor hi, so nobody",
        ),
        (
            [tag("T", "40001", lo=None, hi=None)],
            "limits",
            "A1/PUMP01: 1 of 1 analog tag has neither lo nor hi, so nobody",
        ),
    ],
    ids=["address", "overlap", "scale", "range", "deadband", "unit", "limits", "no limits"],
)
def test_what_is_suspicious(tags: list[Tag], check: str, text: str) -> None:
    """One finding each, to look at, with the rows that it is about."""
    (finding,) = findings(*tags)
    assert (finding.check, finding.verdict) == (check, Verdict.LOOK)
    assert finding.text.startswith(text)


def test_a_sentence_names_a_few_rows_only() -> None:
    """A map without limits gets one sentence a device, not one a row."""
    bare = [tag(f"T{n}", f"{40001 + 2 * n}", lo=None, hi=None) for n in range(7)]
    (finding,) = findings(*bare)
    assert finding.text.endswith(": T0, T1, T2, T3, T4 and 2 more.")


def test_a_period_that_the_line_cannot_keep_is_bad() -> None:
    """As `plan` forecasts it: 60 requests of 5 ms in 200 ms."""
    far = [tag(f"T{n}", f"{400001 + 300 * n}", period_ms=200) for n in range(60)]
    (finding,) = findings(*far)
    assert (finding.check, finding.verdict) == ("period", Verdict.BAD)
    assert finding.text.startswith("tcp://10.0.0.5:502: 60 tags each 200 ms, but their scan takes")
    (tight,) = findings(*far[:32])
    assert (tight.check, tight.verdict) == ("period", Verdict.LOOK)


def test_s7_is_asked_too_much_as_well() -> None:
    """Its blocks cost requests like any other's."""
    far = [
        tag(f"T{n}", f"DB{n + 1}.DBD0", protocol="s7", conn="s7://10.0.0.1", period_ms=200)
        for n in range(60)
    ]
    (finding,) = findings(*far)
    assert (finding.check, finding.verdict) == ("period", Verdict.BAD)


def test_another_type_or_byte_order_at_the_same_address_is_no_twin() -> None:
    """Nor is the same address of another unit or connection."""
    assert not findings(
        tag("A", "40001"),
        tag("B", "40001", type=ValueType.UINT32, unit=""),
        tag("C", "40001", unit_id=2),
        tag("D", "40001", conn="tcp://10.0.0.6:502"),
    )
