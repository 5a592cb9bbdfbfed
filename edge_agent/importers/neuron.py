"""Neuron's tag export: an Excel workbook (or CSV file) with a row per tag. Pure.

Sources: Neuron 2.x, "Batch Data Tag Configuration", "Modbus TCP", "Siemens S7 ISOTCP", "OPC UA".
In a Modbus address ``#LL`` is ABCD, the default, and the digits of the manual's table name the
bytes: BB 4321, BL 3412, LB 2143. `decimal` multiplies, `bias` is added, `precision` counts digits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge_agent.codec import WIDTHS
from edge_agent.importers.addresses import DIGIT_PREFIXES, protocol_of, s7_address
from edge_agent.importers.base import Defaults, Found, Place, Row, number, whole
from edge_agent.importers.documents import Record, Sheet, tag_sheet
from edge_agent.model import ByteOrder, ValueType

COLUMNS: Final = frozenset({"name", "address", "attribute", "type"})
"""The least by which an export is known."""

_TYPES: Final[Mapping[str, ValueType]] = {
    **dict.fromkeys(("BIT", "BOOL"), ValueType.BOOL),
    "INT8": ValueType.INT8,
    **dict.fromkeys(("UINT8", "BYTE"), ValueType.UINT8),
    "INT16": ValueType.INT16,
    **dict.fromkeys(("UINT16", "WORD"), ValueType.UINT16),
    "INT32": ValueType.INT32,
    **dict.fromkeys(("UINT32", "DWORD"), ValueType.UINT32),
    "INT64": ValueType.INT64,
    **dict.fromkeys(("UINT64", "LWORD"), ValueType.UINT64),
    "FLOAT": ValueType.FLOAT32,
    "DOUBLE": ValueType.FLOAT64,
}
_ORDERS: Final[Mapping[str, ByteOrder]] = {
    **dict.fromkeys(("", "L", "LL"), ByteOrder.ABCD),
    "B": ByteOrder.BADC,
    "BB": ByteOrder.DCBA,
    "BL": ByteOrder.CDAB,
    "LB": ByteOrder.BADC,
}
_MODBUS: Final = re.compile(
    r"(?P<unit>[0-9]{1,3})!(?P<area>[0134])(?P<number>[0-9]{4,5})"
    r"(?:\.(?P<bit>[0-9]{1,2}))?(?:#(?P<order>[BL]{1,2}))?"
)
_OPCUA: Final = re.compile(r"(?P<space>[0-9]{1,5})!(?P<node>.+)", re.DOTALL)
_GUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def read(data: bytes, defaults: Defaults) -> Found:
    """All tags of an export. Raises ``ConfigError``."""
    sheet = tag_sheet(data, COLUMNS, "Neuron: no columns name, address, attribute, type")
    found = Found()
    reader = _Tags(sheet, defaults, found)
    for record in sheet.records:
        reader.read(record)
    if reader.by_device:
        found.assumed(
            Place("the file"),
            "byte_order",
            "ABCD for values of two and four registers whose address has no #: Neuron's default,"
            " unless the device's 'Endianness' says otherwise",
        )
    return found


@dataclass(slots=True)
class _Tags:
    sheet: Sheet
    defaults: Defaults
    found: Found
    by_device: bool = False
    """Whether the device's own byte order counts for some tag."""

    def read(self, record: Record) -> None:
        """One tag, or why it is none of the map."""
        name = self.sheet.cell(record, "name")
        attribute = self.sheet.cell(record, "attribute").lower()
        address = self.sheet.cell(record, "address")
        place = Place(f"cell {self.sheet.place_of('address')}{record.line}", record.line)
        self.found.named(*self._names(record))
        try:
            _check_attribute(attribute)
            row = self._row(record, place, name, address)
        except ValueError as error:
            self.found.left_out(place, name, str(error))
        else:
            self.found.add(row)

    def _names(self, record: Record) -> tuple[str, str]:
        """Node and group."""
        node = self.sheet.cell(record, "node") or self.sheet.cell(record, "driver")
        return node, self.sheet.cell(record, "group")

    def _row(self, record: Record, place: Place, name: str, written: str) -> Row:
        if not name:
            raise ValueError("the row has no name")
        node, group = self._names(record)
        conn = self.defaults.conn_of(node, group)
        if not conn:
            raise ValueError("an export does not say how the device is reached: give --conn")
        declared = self.sheet.cell(record, "type").upper()
        kind = _TYPES.get(declared)
        if kind is None:
            raise ValueError(f"{declared}; the agent carries single numbers and BOOL")
        unit_id: int | None = None
        order = ByteOrder.ABCD
        protocol = protocol_of(conn)
        if protocol == "modbus":
            unit_id, address, order = self._modbus(written, kind)
        elif protocol == "s7":
            address, kind = s7_address(re.sub(r"(?<=\.)DB[BWD](?=\d+$)", "", written), kind)
        elif protocol == "opcua":
            address = _opcua(written)
        else:
            raise ValueError(f"addresses of Neuron go over to Modbus, S7 and OPC UA, not {conn}")
        return Row(
            place=place,
            device=node,
            tag=name,
            long_tag=f"{group}.{name}" if group else "",
            protocol=protocol,
            conn=conn,
            unit_id=unit_id,
            address=address,
            type=kind,
            byte_order=order,
            scale=self._number(record, "decimal") or 1.0,
            offset=self._number(record, "bias"),
            period_ms=number(self.sheet.cell(record, "interval")) or None,
            precision=whole(self.sheet.cell(record, "precision")) or None,
            description=self.sheet.cell(record, "description"),
        )

    def _number(self, record: Record, column: str) -> float:
        cell = self.sheet.cell(record, column)
        found = number(cell or "0")
        if found is None:
            raise ValueError(f"{column} {cell!r} is not a number")
        return found

    def _modbus(self, address: str, kind: ValueType) -> tuple[int, str, ByteOrder]:
        match = _MODBUS.fullmatch(address.removesuffix("."))
        if match is None:
            raise ValueError(
                f"{address!r}; carried over are addresses like 1!400001, 1!400001.3, 1!400001#LB"
            )
        given = match["order"] or ""
        if WIDTHS[kind] > 1 and not given:
            self.by_device = True
        bit = "" if match["bit"] is None else f".{match['bit']}"
        first = int(match["number"]) - 1
        area = f"{DIGIT_PREFIXES[match['area']]}:{first}{bit}"
        return int(match["unit"]), area, _ORDERS[given]


def _check_attribute(attribute: str) -> None:
    if "static" in attribute:
        raise ValueError("a static value, which no device has")
    if "read" not in attribute and "subscribe" not in attribute:
        raise ValueError(f"attribute {attribute!r}; the agent only reads")


def _opcua(address: str) -> str:
    """`2!Pump.Speed`, `0!2258` or `2!GUID` as a node id. Raises ``ValueError``."""
    match = _OPCUA.fullmatch(address)
    if match is None:
        raise ValueError(f"{address!r}; carried over are node ids like 2!Pump.Speed, no arrays")
    node = match["node"]
    letter = "i" if node.isascii() and node.isdigit() else "g" if _GUID.fullmatch(node) else "s"
    space = int(match["space"])
    return f"{letter}={node}" if space == 0 else f"ns={space};{letter}={node}"
