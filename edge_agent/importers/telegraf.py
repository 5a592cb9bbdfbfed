"""Telegraf's TOML: `inputs.modbus` in its three styles, and `inputs.opcua`. Pure.

Sources: the manuals of Telegraf's inputs modbus, opcua and opcua_listener (1.39). Addresses count
from 0, as the map's ``hr:0`` does. Byte orders mean the same here and there; an 8-bit type is the
low (L) or high (H) byte of a register, and the high one is what the map reads under BA.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from edge_agent.codec import WIDTHS
from edge_agent.importers import telegraf_opcua
from edge_agent.importers.addresses import (
    BIT_PREFIXES,
    PREFIXES,
    bracketed,
    host_of,
    serial_conn,
)
from edge_agent.importers.base import (
    Defaults,
    Found,
    Place,
    Row,
    duration_ms,
    is_true,
    number,
    table,
    tables,
    text,
    whole,
)
from edge_agent.importers.documents import parse_toml
from edge_agent.importers.telegraf_tags import (
    Labels,
    interval_ms,
    report_filters,
    report_processors,
)
from edge_agent.model import ByteOrder, ValueType

PLC_INPUTS: Final = frozenset({"s7comm", "mqtt_consumer", "ethernetip", "bacnet", "plc4x"})
"""Inputs that ask devices and are not read here, so that their absence is said."""

_LISTS: Final = {
    "coils": "coil",
    "discrete_inputs": "discrete",
    "holding_registers": "holding",
    "input_registers": "input",
}
"""The four lists of the register style."""

_ORDERS: Final[Mapping[str, ByteOrder]] = {
    **dict.fromkeys(("", "AB", "ABCD", "ABCDEFGH"), ByteOrder.ABCD),
    **dict.fromkeys(("BA", "DCBA", "HGFEDCBA"), ByteOrder.DCBA),
    **dict.fromkeys(("BADC", "BADCFEHG"), ByteOrder.BADC),
    **dict.fromkeys(("CDAB", "GHEFCDAB"), ByteOrder.CDAB),
}
_TYPES: Final[Mapping[str, ValueType]] = {
    "BIT": ValueType.BOOL,
    **dict.fromkeys(("INT8L", "INT8H"), ValueType.INT8),
    **dict.fromkeys(("UINT8L", "UINT8H"), ValueType.UINT8),
    "INT16": ValueType.INT16,
    "UINT16": ValueType.UINT16,
    "INT32": ValueType.INT32,
    "UINT32": ValueType.UINT32,
    "INT64": ValueType.INT64,
    "UINT64": ValueType.UINT64,
    **dict.fromkeys(("FLOAT16", "FLOAT16-IEEE"), ValueType.FLOAT16),
    "FLOAT32-IEEE": ValueType.FLOAT32,
    **dict.fromkeys(("FLOAT64", "FLOAT64-IEEE"), ValueType.FLOAT64),
}
_FIXED: Final[Mapping[tuple[bool, int], ValueType]] = {
    (True, 1): ValueType.INT16,
    (True, 2): ValueType.INT32,
    (True, 4): ValueType.INT64,
    (False, 1): ValueType.UINT16,
    (False, 2): ValueType.UINT32,
    (False, 4): ValueType.UINT64,
}
"""FIXED and UFIXED, by sign and registers: integers that become numbers with a point by scaling."""

_WORKAROUNDS: Final = {
    "pause_after_connect": "pause_after_connect_ms",
    "pause_between_requests": "pause_ms",
}
_OPTION_MS_MAX: Final = {"timeout_ms": 60_000, "pause_after_connect_ms": 60_000, "pause_ms": 10_000}
_OPTION_MS_MIN: Final = {"timeout_ms": 10}
_PARITIES: Final = {"": "N", "N": "N", "E": "E", "O": "O"}
TIMEOUT_MS_DEFAULT: Final = 1_000
"""Of Telegraf and of the agent."""


def read(data: bytes, defaults: Defaults) -> Found:
    """All Modbus and OPC UA fields of a configuration. Raises ``ConfigError``."""
    document = parse_toml(data)
    found = Found()
    inputs = table(document.get("inputs"))
    common = Labels.of(table(document.get("global_tags")), Labels(), Place("global_tags"), found)
    interval = interval_ms(table(document.get("agent")).get("interval"))
    for at, section in enumerate(tables(inputs.get("modbus"))):
        _Modbus(section, f"inputs.modbus[{at}]", common, interval, found, defaults).read()
    for kind in ("opcua", "opcua_listener"):
        for at, section in enumerate(tables(inputs.get(kind))):
            place = f"inputs.{kind}[{at}]"
            telegraf_opcua.read(section, place, common, interval, found, poll=kind == "opcua")
    if found.rows:
        report_processors(table(document.get("processors")), found)
    for kind in sorted(inputs.keys() & PLC_INPUTS):
        reason = "this input is not read; its devices are not in the map"
        found.left_out(Place(f"inputs.{kind}"), kind, reason)
    return found


@dataclass(slots=True)
class _Modbus:
    """One `[[inputs.modbus]]`."""

    section: Mapping[str, object]
    path: str
    common: Labels
    interval: float | None
    found: Found
    defaults: Defaults

    def read(self) -> None:
        """Report or carry over every field."""
        place = Place(self.path)
        try:
            conn = self._conn(place)
        except ValueError as error:
            self.found.left_out(place, text(self.section.get("controller")), str(error))
            return
        report_filters(self.section, place, self.found)
        period_ms = interval_ms(self.section.get("interval")) or self.interval
        labels = Labels.of(
            table(self.section.get("tags")), self.common, Place(f"{self.path}.tags"), self.found
        )
        fields = _Fields(conn, period_ms, self.found)
        name = text(self.section.get("name")) or host_of(conn)
        style = text(self.section.get("configuration_type")).lower() or "register"
        if style == "register":
            unit_id = whole(self.section.get("slave_id"))
            for key, area in _LISTS.items():
                for at, one in enumerate(tables(self.section.get(key))):
                    fields.registers(
                        one, f"{self.path}.{key}[{at}]", area, unit_id, labels.named(name)
                    )
        elif style in {"request", "metric"}:
            self._groups(style, fields, labels, name)
        else:
            self.found.left_out(
                place, style, "configuration_type; allowed: register, request, metric"
            )

    def _groups(self, style: str, fields: _Fields, labels: Labels, name: str) -> None:
        """The requests or metrics of a section, whose fields look alike."""
        groups = tables(self.section.get(style))
        units = Counter(whole(group.get("slave_id")) for group in groups)
        for at, group in enumerate(groups):
            path = f"{self.path}.{style}[{at}]"
            unit_id = whole(group.get("slave_id")) or 0
            own = Labels.of(table(group.get("tags")), labels, Place(f"{path}.tags"), self.found)
            device = own.named(name if len(units) < 2 else f"{name}_{unit_id}")
            for index, one in enumerate(tables(group.get("fields"))):
                fields.field(one, group, f"{path}.fields[{index}]", unit_id, device)

    def _conn(self, place: Place) -> str:
        """The connection of a section. Raises ``ValueError``."""
        controller = text(self.section.get("controller"))
        mode = text(self.section.get("transmission_mode")).lower()
        if "ascii" in mode:
            raise ValueError("Modbus ASCII is not spoken; set the device or gateway to RTU or TCP")
        parts = urlsplit(controller)
        if parts.scheme == "tcp" and parts.hostname:
            scheme = {"": "tcp", "auto": "tcp", "tcp": "tcp", "rtuovertcp": "rtu+tcp"}.get(mode)
            if scheme is None:
                raise ValueError(f"transmission_mode {mode!r} of a TCP controller")
            conn = f"{scheme}://{bracketed(parts.hostname)}:{parts.port or 502}"
        elif controller.startswith("file:///"):
            conn = self._serial(controller.removeprefix("file://"))
        else:
            raise ValueError("controller; carried over are tcp://HOST:PORT and file:///DEVICE")
        options = self._options(place)
        return conn + (("&" if "?" in conn else "?") + "&".join(options) if options else "")

    def _serial(self, path: str) -> str:
        data_bits = whole(self.section.get("data_bits", 8))
        if data_bits != 8:
            raise ValueError(f"{data_bits} data bits; RTU has 8")
        parity = _PARITIES.get(text(self.section.get("parity")).upper()[:1])
        if parity is None:
            raise ValueError(f"parity {text(self.section.get('parity'))!r}; allowed: N, E, O")
        baudrate = whole(self.section.get("baud_rate", 9600)) or 9600
        return serial_conn(path, baudrate, parity, whole(self.section.get("stop_bits", 1)) or 1)

    def _options(self, place: Place) -> list[str]:
        options = []
        workarounds = table(self.section.get("workarounds"))
        asked = {"timeout_ms": duration_ms(self.section.get("timeout"))}
        asked |= {ours: duration_ms(workarounds.get(key)) for key, ours in _WORKAROUNDS.items()}
        for option, wanted in asked.items():
            if not wanted or (option == "timeout_ms" and wanted == TIMEOUT_MS_DEFAULT):
                continue
            given = round(min(max(wanted, _OPTION_MS_MIN.get(option, 0)), _OPTION_MS_MAX[option]))
            if given != wanted:
                self.found.changed(place, option, f"{wanted:g} ms is now {given}")
            options.append(f"{option}={given}")
        if is_true(workarounds.get("close_connection_after_gather")):
            options.append("close_after_scan=true")
        if is_true(workarounds.get("one_request_per_field")):
            options.append("single_request=true")
        if whole(self.section.get("busy_retries")):
            self.found.in_part(
                place, "busy_retries", "a device that says it is busy is asked again next time"
            )
        return options


@dataclass(slots=True)
class _Fields:
    """Makes rows of a section's fields."""

    conn: str
    period_ms: float | None
    found: Found

    def registers(
        self,
        one: Mapping[str, object],
        path: str,
        area: str,
        unit_id: int | None,
        labels: Labels,
    ) -> None:
        """A field of the register style, whose `address` lists every cell of the value."""
        name = text(one.get("name"))
        place = Place(path)
        try:
            first, cells = _cells(one.get("address"))
            kind, order = self._layout(one, area, text(one.get("data_type")), cells, True)
            _check_width(kind, cells)
            self._add(one, place, area, first, kind, order, unit_id, labels, "")
        except ValueError as error:
            self.found.left_out(place, name, str(error))

    def field(
        self,
        one: Mapping[str, object],
        group: Mapping[str, object],
        path: str,
        unit_id: int,
        labels: Labels,
    ) -> None:
        """A field of the request or metric style, whose `address` is the first cell."""
        if is_true(one.get("omit")):
            return  # it only fills a gap of a request
        place = Place(path)
        area = text(one.get("register") or group.get("register")).lower() or "holding"
        try:
            first = _first_cell(area, one.get("address"))
            merged = {**one, "byte_order": group.get("byte_order")}
            kind, order = self._layout(merged, area, text(one.get("type")), 0, False)
            measurement = text(one.get("measurement") or group.get("measurement"))
            self._add(one, place, area, first, kind, order, unit_id, labels, measurement)
        except ValueError as error:
            self.found.left_out(place, text(one.get("name")), str(error))

    def _layout(
        self, one: Mapping[str, object], area: str, name: str, cells: int, registers_style: bool
    ) -> tuple[ValueType, ByteOrder]:
        """Type and byte order of a field. Raises ``ValueError``."""
        if PREFIXES[area] in BIT_PREFIXES:
            return ValueType.BOOL, ByteOrder.ABCD
        name = name.upper()
        given = text(one.get("byte_order")).upper()
        if given not in _ORDERS:
            raise ValueError(f"byte_order {given!r}; allowed: {', '.join(filter(None, _ORDERS))}")
        order = _ORDERS[given]
        if name.startswith("STRING"):
            raise ValueError("a text; the agent carries numbers and BOOL")
        if registers_style and name in {"FIXED", "UFIXED", "FLOAT32"}:
            kind = _FIXED.get((name == "FIXED", cells))
            if kind is None:
                raise ValueError(f"{name} of {cells} registers; allowed: 1, 2, 4")
            return kind, order
        kind = ValueType.FLOAT32 if name == "FLOAT32" else _TYPES.get(name)
        if kind is None:
            raise ValueError(f"type {name!r} is not known")
        if kind in {ValueType.INT8, ValueType.UINT8}:
            swapped = order in {ByteOrder.DCBA, ByteOrder.BADC}
            order = ByteOrder.BADC if name.endswith("H") is not swapped else ByteOrder.ABCD
        return kind, order

    def _add(
        self,
        one: Mapping[str, object],
        place: Place,
        area: str,
        first: int,
        kind: ValueType,
        order: ByteOrder,
        unit_id: int | None,
        labels: Labels,
        measurement: str,
    ) -> None:
        name = text(one.get("name"))
        if not name:
            raise ValueError("the field has no name")
        prefix = PREFIXES[area]
        bit, scale = "", 1.0
        if kind is ValueType.BOOL and prefix not in BIT_PREFIXES:
            bit = f".{whole(one.get('bit')) or 0}"
        elif prefix not in BIT_PREFIXES and "scale" in one:
            given = number(one["scale"])
            if given is None:
                raise ValueError(f"scale {text(one['scale'])!r} is not a number")
            scale = given or 1.0  # as Telegraf does: 0 says nothing
        self.found.add(
            Row(
                place=place,
                site=labels.site,
                line=labels.line,
                device=labels.device,
                tag=labels.tag or name,
                long_tag=".".join(filter(None, (labels.tag or measurement, name))),
                unit=labels.unit,
                protocol="modbus",
                conn=self.conn,
                unit_id=unit_id,
                address=f"{prefix}:{first}{bit}",
                type=kind,
                byte_order=order,
                scale=scale,
                period_ms=self.period_ms,
            )
        )


def _first_cell(area: str, value: object) -> int:
    """The first cell of a field. Raises ``ValueError``, also for an area that there is not."""
    if area not in PREFIXES:
        raise ValueError(f"register {area!r}; allowed: {', '.join(PREFIXES)}")
    first = whole(value)
    if first is None:
        raise ValueError("address is not a whole number")
    return first


def _check_width(kind: ValueType, cells: int) -> None:
    if WIDTHS[kind] != cells:
        raise ValueError(f"{kind} takes {WIDTHS[kind]} registers, address lists {cells}")


def _cells(value: object) -> tuple[int, int]:
    """First cell and number of cells of an `address` list. Raises ``ValueError``."""
    listed: Sequence[object] = value if isinstance(value, list) else [value]
    cells = [cell for one in listed if (cell := whole(one)) is not None]
    if not cells or len(cells) != len(listed) or len(cells) > 4:
        raise ValueError("address is not a list of one to four whole numbers")
    if cells != list(range(cells[0], cells[0] + len(cells))):
        raise ValueError(f"address {cells} is not one cell after the other")
    return cells[0], len(cells)
