"""Kepware's tag export: CSV, one row per tag of a device. Pure.

Sources: "Tag Generation/CSV Import and Export", "Modbus Addressing" and "Standard
S7-300/400/1200/1500 Item Syntax" of the manuals of KEPServerEX 6. The file names neither the
connection nor the order of registers: both are properties of the device, which a person looks up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge_agent.codec import WIDTHS
from edge_agent.importers.addresses import BIT_PREFIXES, DIGIT_PREFIXES, protocol_of, s7_address
from edge_agent.importers.base import Defaults, Found, Place, Row, number
from edge_agent.importers.documents import Record, Sheet, tag_sheet
from edge_agent.importers.scaling import linear
from edge_agent.model import ByteOrder, ValueType

COLUMNS: Final = frozenset({"tagname", "address", "datatype"})
"""The least by which an export is known."""

_TYPES: Final[Mapping[str, ValueType | None]] = {
    **dict.fromkeys(("", "default"), None),
    "boolean": ValueType.BOOL,
    "char": ValueType.INT8,
    "byte": ValueType.UINT8,
    "short": ValueType.INT16,
    "word": ValueType.UINT16,
    "long": ValueType.INT32,
    "dword": ValueType.UINT32,
    "llong": ValueType.INT64,
    "qword": ValueType.UINT64,
    "float": ValueType.FLOAT32,
    "double": ValueType.FLOAT64,
    "bcd": ValueType.BCD16,
    "lbcd": ValueType.BCD32,
}
_MODBUS: Final = re.compile(
    r"(?P<hex>H)?(?P<area>[0134])(?P<number>[0-9A-F]{1,5})(?:\.(?P<bit>[0-9]{1,2}))?"
)
_TRUE: Final = frozenset({"1", "true", "yes"})


def read(data: bytes, defaults: Defaults) -> Found:
    """All tags of an export. Raises ``ConfigError``."""
    sheet = tag_sheet(data, COLUMNS, "Kepware: no columns Tag Name, Address, Data Type")
    found = Found()
    reader = _Tags(sheet, defaults, found)
    for record in sheet.records:
        reader.read(record)
    if reader.wide:
        found.assumed(
            Place("the file"),
            "byte_order",
            "CDAB for values of two and four registers: Kepware's 'First word low', which is on"
            " unless the device's properties say otherwise; edge-agent probe tries the others",
        )
    return found


@dataclass(slots=True)
class _Tags:
    sheet: Sheet
    defaults: Defaults
    found: Found
    wide: bool = False

    def read(self, record: Record) -> None:
        """One tag, or why it is none of the map."""
        name = self.sheet.cell(record, "tagname")
        place = Place("", record.line)
        self.found.named(*_prefixes(name))
        access = self.sheet.cell(record, "clientaccess").upper()
        if access in {"WO", "W"}:
            self.found.left_out(place, name, "write only; the agent only reads")
            return
        try:
            row = self._row(record, place, name)
        except ValueError as error:
            self.found.left_out(place, name, str(error))
        else:
            self.found.add(row)

    def _row(self, record: Record, place: Place, name: str) -> Row:
        if not name:
            raise ValueError("the row has no tag name")
        device, tag, conn = self._where(name)
        declared = self.sheet.cell(record, "datatype")
        if declared.lower() not in _TYPES:
            raise ValueError(f"{declared}; the agent carries single numbers and BOOL")
        address, kind = self._address(conn, self.sheet.cell(record, "address"), declared.lower())
        scale, offset = self._scaling(record, place, name)
        wide = protocol_of(conn) == "modbus" and WIDTHS[kind] > 1
        self.wide = self.wide or wide
        return Row(
            place=place,
            device=device,
            tag=tag,
            long_tag=name,
            protocol=protocol_of(conn),
            conn=conn,
            address=address,
            type=kind,
            byte_order=ByteOrder.CDAB if wide else ByteOrder.ABCD,
            scale=scale,
            offset=offset,
            period_ms=number(self.sheet.cell(record, "scanrate")) or None,
            unit=self.sheet.cell(record, "engunits") or self.sheet.cell(record, "engineeringunits"),
            description=self.sheet.cell(record, "description"),
        )

    def _where(self, name: str) -> tuple[str, str, str]:
        """Device, tag and connection of `Channel1.Device1.Group.Tag`, or of `Group.Tag`."""
        parts = name.split(".")
        for prefix in _prefixes(name):
            if prefix in self.defaults.conns:
                count = prefix.count(".") + 1
                device, conn = parts[count - 1], self.defaults.conns[prefix]
                return device, ".".join(parts[count:]), conn
        if self.defaults.conn:
            if len(parts) > 2:
                return parts[1], ".".join(parts[2:]), self.defaults.conn
            return "", name, self.defaults.conn
        raise ValueError("an export does not say how the device is reached: give --conn")

    def _address(self, conn: str, address: str, declared: str) -> tuple[str, ValueType]:
        protocol = protocol_of(conn)
        kind = _TYPES[declared]
        if protocol == "modbus":
            return _modbus(address, kind)
        if protocol == "s7":
            return s7_address(address, kind)
        if protocol == "opcua":
            return address, kind or ValueType.FLOAT64
        raise ValueError(f"addresses of Kepware are carried over to Modbus, S7 and OPC UA: {conn}")

    def _scaling(self, record: Record, place: Place, name: str) -> tuple[float, float]:
        def cell(column: str) -> str:
            return self.sheet.cell(record, column)

        mode = cell("scaling").lower()
        scale, offset = 1.0, 0.0
        if mode == "linear":
            raw, scaled = (
                [number(cell(f"{kind}{end}")) for end in ("low", "high")]
                for kind in ("raw", "scaled")
            )
            scale, offset = linear(raw, scaled)
            if cell("clamplow").lower() in _TRUE or cell("clamphigh").lower() in _TRUE:
                self.found.in_part(place, name, "clamping: values beyond the range stay as read")
        elif mode not in {"", "none"}:
            raise ValueError(f"scaling {cell('scaling')}; carried over is Linear")
        if cell("negatevalue").lower() in _TRUE:
            scale, offset = -scale, -offset
        return scale, offset + 0.0


def _prefixes(name: str) -> list[str]:
    """What of a tag's name may name its device: the longer one first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in (2, 1) if len(parts) > count]


def _modbus(address: str, kind: ValueType | None) -> tuple[str, ValueType]:
    """A Modbus address of Kepware in the map's form. Raises ``ValueError``."""
    match = _MODBUS.fullmatch(address.upper())
    if match is None or (not match["hex"] and not match["number"].isdigit()):
        raise ValueError(
            f"{address!r}; carried over are 40001, 400001, H40001 and bits like 400001.3, no"
            " arrays and texts"
        )
    prefix = DIGIT_PREFIXES[match["area"]]
    first = int(match["number"], 16 if match["hex"] else 10) - 1
    if match["bit"] is not None:
        return f"{prefix}:{first}.{match['bit']}", ValueType.BOOL
    if prefix in BIT_PREFIXES:
        return f"{prefix}:{first}", ValueType.BOOL
    return f"{prefix}:{first}", kind or ValueType.UINT16
