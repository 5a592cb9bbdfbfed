"""`telegraf.toml` (what MQTT brings into InfluxDB and PostgreSQL) and `telegraf-modbus.toml`.

The second one polls the PLCs itself. It is written in the input's *metric* style: there each tag
keeps labels of its own while neighbours still share a request. In the *request* style labels belong
to a request, so that two units of measure in one block would be two requests on the line.

What Telegraf's Modbus input can't do is done by a Starlark script behind it: offset, rounding, a
whole register as a BOOL, and one type (float) for the field of every tag.

Source: Telegraf 1.32 or newer (`buffer_strategy`), plugins/inputs/modbus.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from edge_agent import protocols
from edge_agent.codec import WIDTHS
from edge_agent.generate.subject import Rendered, Subject, not_carried, planned, sift
from edge_agent.generate.templating import render
from edge_agent.model import Address, ByteOrder, Tag, ValueType, locate
from edge_agent.normalize import digits_of
from edge_agent.planner import Connection, ScanClass
from edge_agent.protocols.modbus_syntax import BIT_AREAS, CELLS, ModbusConn, Transport, parse_conn

_TYPES: Final = {
    ValueType.BOOL: "UINT16",
    ValueType.INT8: "INT8L",
    ValueType.UINT8: "UINT8L",
}
"""Where Telegraf's name differs."""
_BCD: Final = frozenset({ValueType.BCD16, ValueType.BCD32})
_PLAIN: Final = ModbusConn("", 0)
"""A connection without options."""
_MODES: Final = {Transport.TCP: "TCP", Transport.RTU: "RTU", Transport.RTU_TCP: "RTUoverTCP"}


def render_mqtt(subject: Subject) -> Rendered:
    """MQTT in, databases out. Every tag comes by MQTT, whatever its protocol."""
    return Rendered(render("telegraf.toml", **_common(subject)))


def render_modbus(subject: Subject) -> Rendered:
    """Modbus in, databases out."""
    carried, left_out = sift(subject.tags, _why_not)
    inputs = [one for connection in planned(carried) for one in _inputs(connection)]
    changes = [row for tag in carried if (row := _change(tag)) is not None]
    script = render("telegraf-values.star", changes=changes)
    values = _common(subject) | {"inputs": inputs, "script": script, "left_out": left_out}
    values["not_carried"] = not_carried(len(left_out))
    return Rendered(render("telegraf-modbus.toml", **values), left_out)


def _common(subject: Subject) -> dict[str, Any]:
    host, port, tls = subject.broker
    host = f"[{host}]" if ":" in host else host
    influx = subject.settings.influx
    return {
        "header": subject.header,
        "broker": f"{'ssl' if tls else 'tcp'}://{host}:{port}",
        "tls": tls,
        "client_id": f"telegraf-{subject.settings.agent.id}",
        "measurement": influx.measurement,
        "influx_url": influx.url or "http://127.0.0.1:8086",
        "influx_org": influx.org or "plant",
        "influx_bucket": influx.bucket or "plc",
    }


def _why_not(tag: Tag) -> str | None:
    if tag.protocol != "modbus":
        return f"its protocol is {tag.protocol}; this file has Modbus only"
    if parse_conn(tag.conn).transport is Transport.TLS:
        return "Telegraf's Modbus input has no TLS"
    if tag.type in _BCD:
        return f"Telegraf's Modbus input has no {tag.type}"
    address = locate(protocols.load(tag.protocol), tag.conn, tag.address, tag.type)
    if address.offset + address.width >= CELLS:
        return "Telegraf's Modbus input refuses the last cell of an area"
    return None


def _inputs(connection: Connection) -> Iterator[dict[str, Any]]:
    """One input per scan class: a period is an interval."""
    conn = parse_conn(connection.conn)
    line = conn.transport is Transport.RTU
    host = f"[{conn.host}]" if ":" in conn.host else conn.host
    for scan_class in connection.scan_classes:
        yield {
            "name": connection.conn,
            "interval": f"{scan_class.period_ms}ms",
            "timeout": f"{conn.timeout_ms}ms",
            "controller": f"file://{conn.path}" if line else f"tcp://{host}:{conn.port}",
            "mode": _MODES[conn.transport],
            "line": conn if line else None,
            "gap_max": 0 if _one_by_one(conn) else conn.gap_max,
            "workarounds": _workarounds(conn, shared=line and len(connection.scan_classes) > 1),
            "metrics": list(_metrics(scan_class)),
        }


def _workarounds(conn: ModbusConn, *, shared: bool) -> dict[str, str]:
    """What the device wants otherwise, as TOML; inputs that share a line let it go each time."""
    wanted = {
        "pause_after_connect": f'"{conn.pause_after_connect_ms}ms"'
        if conn.pause_after_connect_ms
        else None,
        "pause_between_requests": f'"{conn.pause_ms}ms"' if conn.pause_ms else None,
        "close_connection_after_gather": "true" if conn.close_after_scan or shared else None,
        "one_request_per_field": "true" if _one_by_one(conn) else None,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def _one_by_one(conn: ModbusConn) -> bool:
    """Telegraf knows no smaller requests than the specification's, but one for each value."""
    smaller = conn.registers_max < _PLAIN.registers_max or conn.bits_max < _PLAIN.bits_max
    return conn.single_request or smaller


def _metrics(scan_class: ScanClass) -> Iterator[dict[str, Any]]:
    for block in scan_class.blocks:
        for tag, address in zip(block.tags, block.addresses, strict=True):
            yield {
                "tag": tag,
                "unit_id": block.unit_id,
                "order": _order(tag),
                "field": _field(tag, address),
            }


def _order(tag: Tag) -> str:
    """The byte order; one register has only two, and 8-bit types take no other name."""
    if WIDTHS[tag.type] == 1:
        swapped = tag.byte_order in {ByteOrder.BADC, ByteOrder.DCBA}
        return ByteOrder.DCBA if swapped else ByteOrder.ABCD
    return tag.byte_order


def _field(tag: Tag, address: Address) -> dict[str, str]:
    """The field's keys with values as TOML."""
    field = {"register": f'"{address.area}"', "address": str(address.offset), "name": '"value"'}
    if address.area in BIT_AREAS:
        return field
    if address.bit is not None:
        return field | {"type": '"BIT"', "bit": str(address.bit)}
    field["type"] = f'"{_TYPES.get(tag.type, tag.type.value)}"'
    if tag.type is not ValueType.BOOL:
        if tag.scale != 1:
            field["scale"] = repr(tag.scale)
        field["output"] = '"FLOAT64"'
    return field


def _change(tag: Tag) -> dict[str, Any] | None:
    """What the script must do to a tag's value; None if nothing."""
    digits = digits_of(tag)
    cell = locate(protocols.load(tag.protocol), tag.conn, tag.address, tag.type)
    bits = cell.area in BIT_AREAS or cell.bit is not None
    truth = tag.type is ValueType.BOOL and not bits
    # A bit, and a BOOL as a whole, are scaled here too: Telegraf knows no scale for them.
    scale = tag.scale if tag.type is ValueType.BOOL else 1.0
    if (scale, tag.offset, digits, truth) == (1.0, 0.0, None, False):
        return None
    factor = "None" if digits is None else repr(float(10**digits))
    row = f"({truth}, {scale!r}, {tag.offset!r}, {factor})"
    return {"tag": tag, "row": row}
