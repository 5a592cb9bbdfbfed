"""What the `conn` and `address` cells of an S7 tag mean. Pure.

Cells are bytes. An area is "M", "I" or "Q", or one data block, "DB1": blocks never cross them.

Sources: the absolute addresses of STEP 7 and TIA Portal, in English and German mnemonics (Siemens,
"SIMATIC Programming with STEP 7", chapter on absolute addressing); read requests and their
replies as python-snap7 3.3 builds and parses them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from edge_agent.codec import REGISTER_BYTES, WIDTHS
from edge_agent.model import Address, Limits, ValueType

DEFAULT_PORT: Final = 102
AREA_BYTES: Final = 65_536
"""Bytes of one area: an S7-ANY pointer has 16 bits for the byte."""
DB_NUMBER_MAX: Final = 65_535
BITS: Final = 8

REPLY_HEADER_BYTES: Final = 18
"""What a PDU with one item's data has before the data: header 12, parameters 2, item header 4."""
PDU_BYTES_MIN, PDU_BYTES_MAX = 240, 960
"""What CPUs grant: S7-1200 and small S7-300 240, S7-400 480, S7-1500 960."""


@dataclass(frozen=True, slots=True)
class S7Conn:
    """A parsed `conn` cell. As a string it is the place that an error names."""

    host: str
    port: int
    rack: int = 0
    slot: int = 1
    timeout_ms: int = 1_000
    pdu: int = 480
    gap_max: int = 100

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"s7://{host}:{self.port}"

    def limits(self) -> Limits:
        """Bounds of one request, in bytes; the same for all areas."""
        return Limits(self.pdu - REPLY_HEADER_BYTES, self.gap_max)


_OPTIONS: Final[Mapping[str, tuple[int, int]]] = {
    "rack": (0, 7),
    "slot": (0, 31),
    "timeout_ms": (10, 60_000),
    "pdu": (PDU_BYTES_MIN, PDU_BYTES_MAX),
    "gap_max": (0, PDU_BYTES_MAX),
}
"""Smallest and largest value of each option."""

_EXPECTED_CONN: Final = "expected s7://HOST:PORT, for example s7://10.0.0.1:102?rack=0&slot=1"


def parse_conn(conn: str) -> S7Conn:
    """Parse ``s7://host:102?rack=0&slot=1&timeout_ms=1000&pdu=480&gap_max=100``.

    The port and every option may be left out. Raises ``ValueError``.
    """
    try:
        parts = urlsplit(conn)
        port = DEFAULT_PORT if parts.port is None else parts.port
        host = parts.hostname or ""
        host.encode("idna")
    except ValueError as error:
        raise ValueError(f"{conn!r}: {error}; {_EXPECTED_CONN}") from error
    if parts.scheme != "s7" or not host or re.search(r"\s", conn):
        raise ValueError(f"{conn!r} is not an S7 connection; {_EXPECTED_CONN}")
    if parts.path not in {"", "/"} or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{conn!r} has more than host, port and options; {_EXPECTED_CONN}")
    if port == 0:
        raise ValueError(f"{conn!r}: port 0; allowed: 1 to 65535")
    return S7Conn(host, port, **_parse_options(parts.query))


def _parse_options(query: str) -> dict[str, int]:
    options: dict[str, int] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in _OPTIONS:
            raise ValueError(f"unknown option {name!r}; allowed: {', '.join(_OPTIONS)}")
        if name in options:
            raise ValueError(f"option {name} is given twice")
        smallest, largest = _OPTIONS[name]
        if not re.fullmatch("[0-9]{1,9}", text) or not smallest <= int(text) <= largest:
            raise ValueError(f"{name}={text}; allowed: {smallest} to {largest}")
        options[name] = int(text)
    return options


_AREAS: Final = {"M": "M", "I": "I", "E": "I", "Q": "Q", "A": "Q"}
"""English and German mnemonics: Eingang, Ausgang."""
_SIZES: Final = {"B": 1, "W": 2, "D": 4}

_ADDRESS: Final = re.compile(
    r"""%? (?: DB (?P<db> [0-9]{1,5} ) \. (?: DB (?P<db_size> [XBWD] ) )?
             | (?P<area> [MIEQA] ) (?P<size> [XBWD] )? )
        (?P<offset> [0-9]{1,5} ) (?: \. (?P<bit> [0-9]{1,2} ) )?""",
    re.VERBOSE,
)
_EXPECTED_ADDRESS: Final = (
    "allowed: DB1.DBX0.3 (one bit), DB1.DBB0, DB1.DBW2, DB1.DBD4 (1, 2, 4 bytes), or DB1.4 and"
    " DB1.0.3, where `type` gives the size; likewise M0.3, MW2, I0.3, IW2, Q0.3, QW2"
)


def parse_address(address: str, value_type: ValueType) -> Address:
    """Locate a value: ``DB1.DBW2``, ``DB1.2``, ``MD4``, ``M4``, ``I0.3``; capital or small letters.

    A letter for the size must suit the type; 64-bit types are written without one. Offset and
    width are in bytes. Raises ``ValueError``.
    """
    match = _ADDRESS.fullmatch(address.upper()) if address.isascii() else None
    if match is None:
        raise ValueError(f"{address!r} is not an S7 address; {_EXPECTED_ADDRESS}")
    area = _AREAS[match["area"]] if match["area"] else f"DB{int(match['db'])}"
    if area.startswith("DB") and not 1 <= int(match["db"]) <= DB_NUMBER_MAX:
        raise ValueError(f"{address!r}: no such data block; allowed: DB1 to DB{DB_NUMBER_MAX}")
    width = width_bytes(value_type)
    bit = _bit(address, match, value_type)
    letter = match["db_size"] or match["size"]
    if letter in _SIZES and _SIZES[letter] != width:
        raise ValueError(
            f"{address!r}: {letter} is {_plural(_SIZES[letter])} and {value_type} takes {width};"
            f" {_advice(width, value_type)}"
        )
    offset = int(match["offset"])
    if offset + width > AREA_BYTES:
        raise ValueError(
            f"{address!r}: {value_type} takes {_plural(width)} and the area ends;"
            f" allowed: 0 to {AREA_BYTES - width}"
        )
    return Address(area, offset, width, bit)


def width_bytes(value_type: ValueType) -> int:
    """How many bytes a value of a type takes; one bit takes the byte that it stands in."""
    if value_type in {ValueType.BOOL, ValueType.INT8, ValueType.UINT8}:
        return 1
    return WIDTHS[value_type] * REGISTER_BYTES


def _bit(address: str, match: re.Match[str], value_type: ValueType) -> int | None:
    """The bit that is asked for; a BOOL has one, nothing else does."""
    letter = match["db_size"] or match["size"]
    if match["bit"] is None:
        if letter == "X" or value_type is ValueType.BOOL:
            raise ValueError(
                f"{address!r}: which bit? write .0 to .{BITS - 1} behind the byte, as in DB1.DBX0.3"
                " or M0.3, with `type` BOOL"
            )
        return None
    bit = int(match["bit"])
    if letter in _SIZES:
        raise ValueError(f"{address!r}: {letter} is no bit; write DB1.DBX0.3 or M0.3")
    if bit >= BITS:
        raise ValueError(f"{address!r}: bit {bit}; allowed: 0 to {BITS - 1}")
    if value_type is not ValueType.BOOL:
        raise ValueError(f"{address!r}: one bit is a BOOL, not {value_type}")
    return bit


def _advice(width: int, value_type: ValueType) -> str:
    fitting = [letter for letter, size in _SIZES.items() if size == width]
    if not fitting:
        return f"write the byte alone, as in DB1.8, for {value_type}"
    return f"write {fitting[0]}, or choose another `type`"


def _plural(count: int) -> str:
    return "1 byte" if count == 1 else f"{count} bytes"
