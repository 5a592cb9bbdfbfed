"""Addresses as other systems write them, in the map's syntax. Pure.

Sources: Modbus Application Protocol 1.1b3, section 4.4 (areas); "Standard S7-300/400/1200/1500
Item Syntax" of Kepware's Siemens driver and "Siemens" in Ignition's manual, which share the form
AREA TYPE OFFSET; STEP 7's absolute addresses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit

from edge_agent.codec import WIDTHS
from edge_agent.model import ValueType

PREFIXES: Final = {"coil": "co", "discrete": "di", "input": "ir", "holding": "hr"}
"""How the map writes the four areas of Modbus, counted from 0."""
DIGIT_PREFIXES: Final = {"0": "co", "1": "di", "3": "ir", "4": "hr"}
"""The same by the first digit of a reference such as 40001."""
BIT_PREFIXES: Final = frozenset({"co", "di"})

_PROTOCOLS: Final = {
    "tcp": "modbus",
    "tcp+tls": "modbus",
    "rtu": "modbus",
    "rtu+tcp": "modbus",
    "opc.tcp": "opcua",
    "s7": "s7",
}


def protocol_of(conn: str) -> str:
    """The protocol that a connection speaks; empty if addresses of it can't be made here."""
    return _PROTOCOLS.get(conn.partition("://")[0], "")


def host_of(conn: str) -> str:
    """Host or device file of a connection, as a name for what lies behind it."""
    try:
        parts = urlsplit(conn)
        return parts.hostname or parts.path.rpartition("/")[2]
    except ValueError:
        return ""


def serial_conn(path: str, baudrate: int, parity: str, stopbits: int) -> str:
    """A serial line's connection; all that other systems default otherwise is said."""
    options = f"baudrate={baudrate}&parity={parity}"
    if stopbits != 1:
        options += f"&stopbits={stopbits}"
    return f"rtu://{quote(path)}?{options}"


def bracketed(host: str) -> str:
    """A host as it stands in a connection."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


_S7_TYPES: Final[Mapping[str, ValueType]] = {
    **dict.fromkeys(("X", "DBX"), ValueType.BOOL),
    **dict.fromkeys(("B", "BYTE", "DBB"), ValueType.UINT8),
    **dict.fromkeys(("C", "CHAR"), ValueType.INT8),
    **dict.fromkeys(("W", "WORD", "DBW"), ValueType.UINT16),
    **dict.fromkeys(("I", "INT", "DBI"), ValueType.INT16),
    **dict.fromkeys(("D", "DW", "DWORD", "DBD"), ValueType.UINT32),
    **dict.fromkeys(("DI", "DINT"), ValueType.INT32),
    **dict.fromkeys(("REAL", "R"), ValueType.FLOAT32),
    **dict.fromkeys(("LREAL",), ValueType.FLOAT64),
}
_S7: Final = re.compile(
    r"%? (?: (?P<db> DB[0-9]{1,5} ) [.,] | (?P<area> [MFIEQAO] ) ) (?P<type> [A-Z]*? )"
    r" (?P<offset> [0-9]{1,5} ) (?: \. (?P<bit> [0-9]{1,2} ) )?",
    re.VERBOSE,
)
_S7_AREAS: Final = {"F": "M", "O": "Q"}
S7_ALLOWED: Final = "read are DB1.DBW2, DB1,INT2, MW10, IX0.3 and the like"


def s7_address(address: str, declared: ValueType | None) -> tuple[str, ValueType]:
    """An S7 address in the map's form, and its type. Raises ``ValueError``.

    ``declared`` is the type that the file says beside the address; it wins where it is as wide as
    what the address says, or where the address says no width. Times, counters and texts are none.
    """
    match = _S7.fullmatch(address.upper()) if address.isascii() else None
    if match is None or (match["type"] and match["type"] not in _S7_TYPES):
        raise ValueError(f"{address!r} is no value of an S7; {S7_ALLOWED}")
    own = _S7_TYPES.get(match["type"])
    bit = "" if match["bit"] is None else f".{match['bit']}"
    if own not in {None, ValueType.BOOL} and bit:
        raise ValueError(f"{address!r} is a bit of a word; write it as a bit of a byte, DB1.DBX0.3")
    if bit:
        own = declared = ValueType.BOOL
    found = declared if declared is not None and _same_width(declared, own) else own
    if found is None:
        raise ValueError(f"{address!r} says no type; {S7_ALLOWED}")
    area = match["db"] or _S7_AREAS.get(match["area"], match["area"])
    separator = "." if match["db"] else ""
    letter = ("DBX" if match["db"] else "") if bit else ""
    return f"{area}{separator}{letter}{int(match['offset'])}{bit}", found


def _same_width(one: ValueType, other: ValueType | None) -> bool:
    def size(kind: ValueType) -> int:
        small = kind in {ValueType.INT8, ValueType.UINT8}
        return 0 if kind is ValueType.BOOL else 1 if small else 2 * WIDTHS[kind]

    return other is None or size(one) == size(other)
