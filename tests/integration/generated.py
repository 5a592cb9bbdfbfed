"""Maps for the tests of generated files, with names that break what is not quoted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_agent import address_map, protocols
from edge_agent.generate.subject import Subject
from edge_agent.model import ByteOrder, Tag, ValueType
from edge_agent.settings import load_settings
from tests.tags import plain_tag

NASTY_DEVICE = 'O\'Brien "\\n" $__timeFilter(x) [[y]] ${z} {{ $x }}'
NASTY_TAG = "온도 '\"\\ {{ $value }} :psql"


def make_tag(name: str = "PRESS", **fields: Any) -> Tag:
    """A row with what matters to a test."""
    return plain_tag(name, **fields)


def nasty_tags() -> list[Tag]:
    """Few rows, on several connections and protocols."""
    line = "라인 'A' \\ {{1}} <b>"
    return [
        make_tag(lo=0.5, hi=4.0, precision=2),
        make_tag("TEMP", address="hr:2", type=ValueType.INT16, scale=0.1, offset=-40.0, unit="°C"),
        make_tag("RUN", address="co:0", type=ValueType.BOOL, unit=""),
        make_tag("STATE", address="hr:9", type=ValueType.BOOL, unit=""),
        make_tag("FAULT", address="hr:9.3", type=ValueType.BOOL, unit=""),
        make_tag("COUNT", address="hr:10", type=ValueType.BCD32, unit=""),
        make_tag("LAST", address="hr:65535", type=ValueType.UINT16, period_ms=5000),
        make_tag(NASTY_TAG, device=NASTY_DEVICE, line=line, address="hr:20", unit="'\"\\%"),
        make_tag("A", device="GATE", conn="rtu+tcp://10.0.0.6:4001", line=line),
        make_tag("A", device="LINE", conn="rtu:///dev/ttyUSB0?baudrate=9600&parity=N"),
        make_tag("SLOW", device="LINE", conn="rtu:///dev/ttyUSB0?baudrate=9600&parity=N",
                 address="hr:5", period_ms=60_000),
        make_tag("A", device="SAFE", conn="tcp+tls://10.0.0.7"),
        make_tag("A", device="OPC", protocol="opcua", conn="opc.tcp://10.0.0.8:4840",
                 address="ns=2;s=Pump 'A'", site="B2"),
    ]  # fmt: skip


def _live(name: str, address: str, value_type: str, **fields: Any) -> Tag:
    """A row with limits, within which the simulator moves it."""
    common = {"address": address, "type": ValueType(value_type), "period_ms": 500}
    return make_tag(name, **common | {"lo": 0.0, "hi": 100.0} | fields)


def plant_tags() -> list[Tag]:
    """Every type, order and area, on TCP, RTU through TCP and a serial line."""
    tags = [
        _live(f"F32_{order}", f"hr:{2 * place}", "FLOAT32", byte_order=order, precision=3)
        for place, order in enumerate(ByteOrder)
    ]
    tags += [
        _live(f"I64_{order}", f"hr:{20 + 4 * place}", "INT64", byte_order=order, lo=-9e9, hi=9e9)
        for place, order in enumerate(ByteOrder)
    ]
    tags += [
        _live("U64", "hr:40", "UINT64", hi=1e12),
        _live("F64", "hr:44", "FLOAT64", byte_order=ByteOrder.CDAB),
        _live("F16", "ir:0", "FLOAT16", byte_order=ByteOrder.BADC),
        _live("I16", "ir:1", "INT16", scale=0.1, offset=-40.0, lo=-40.0, hi=900.0, unit="°C"),
        _live("U16", "ir:2", "UINT16", byte_order=ByteOrder.BADC, scale=0.05, precision=1),
        _live("I8", "ir:3", "INT8", lo=-100.0),
        _live("U8", "ir:4", "UINT8", byte_order=ByteOrder.BADC),
        _live("I32", "ir:5", "INT32", byte_order=ByteOrder.CDAB, lo=-5e6, hi=5e6),
        _live("U32", "ir:7", "UINT32", scale=0.001, precision=2, hi=4e6),
        _live("BCD16", "ir:9", "BCD16", hi=9_999.0),
        _live("BCD32", "ir:10", "BCD32", byte_order=ByteOrder.CDAB, hi=99_999_999.0),
        _live("TRUTH", "ir:12", "BOOL"),
        _live("BIT", "hr:60.11", "BOOL"),
        _live("COIL", "co:9", "BOOL", period_ms=1000),
        _live("COIL_FAR", "co:30", "BOOL", period_ms=1000),
        _live("INPUT", "di:3", "BOOL"),
        _live("DEADBAND", "hr:64", "FLOAT32", deadband=0.5, heartbeat_ms=1000),
        _live(
            '이름 "\\$', "hr:66", "FLOAT32", device="보일러 '01'", line="1'{{라인}}", unit='"\\%'
        ),
    ]
    gateway = {"conn": "rtu+tcp://127.0.0.1:2", "device": "GATE"}
    tags += [
        _live("A", "hr:0", "FLOAT32", **gateway),
        _live("B", "hr:0", "INT16", unit_id=7, lo=-30_000.0, hi=30_000.0, **gateway),
    ]
    line = {"conn": "rtu:///tmp/line?parity=N", "device": "LINE", "period_ms": 1000}
    tags += [
        _live("A", "hr:0", "FLOAT32", **line),
        _live("B", "ir:0", "UINT16", unit_id=2, hi=60_000.0, **line),
    ]
    return tags


def make_subject(
    folder: Path, tags: Sequence[Tag], settings: Mapping[str, object] | None = None
) -> Subject:
    """The tags as a map on the disk, with settings by dotted name."""
    path = folder / "address_map.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    address_map.write(path, tags)
    loaded = load_settings(None, {}, {"agent.id": "edge-01", **(settings or {})})
    return Subject(address_map.load(path, protocols.load), loaded)
