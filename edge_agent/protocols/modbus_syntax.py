"""What the `conn` and `address` cells of a Modbus tag mean. Pure.

Source: Modbus Application Protocol 1.1b3, section 4.4 (an area has 65,536 cells) and 6.1 to 6.4
(125 registers or 2,000 bits a request).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from edge_agent.codec import WIDTHS
from edge_agent.model import Address, Limits, ValueType

DEFAULT_PORT: Final = 502
CELLS: Final = 65_536
"""Registers or bits of one area."""
REGISTER_BITS: Final = 16

BIT_AREAS: Final = frozenset({"coil", "discrete"})
REGISTER_AREAS: Final = frozenset({"input", "holding"})


@dataclass(frozen=True, slots=True)
class ModbusConn:
    """A parsed `conn` cell. As a string it is the place that an error names."""

    host: str
    port: int
    timeout_ms: int = 1_000
    gap_max: int = 10
    registers_max: int = 125
    bits_max: int = 2_000

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"

    def limits(self, area: str) -> Limits:
        """Bounds of one request, in the area's cells.

        ``gap_max`` is in registers; the same number of bytes in bits is 16 times that.
        """
        if area in BIT_AREAS:
            return Limits(self.bits_max, self.gap_max * REGISTER_BITS)
        return Limits(self.registers_max, self.gap_max)


_OPTIONS: Final[Mapping[str, tuple[int, int]]] = {
    "timeout_ms": (10, 60_000),
    "gap_max": (0, 125),
    "registers_max": (1, 125),
    "bits_max": (1, 2_000),
}
"""Smallest and largest value of each option."""

_EXPECTED_CONN: Final = "expected tcp://HOST:PORT, for example tcp://10.0.0.5:502"


def parse_conn(conn: str) -> ModbusConn:
    """Parse ``tcp://host:502?timeout_ms=1000&gap_max=10&registers_max=125&bits_max=2000``.

    The port and every option may be left out. Raises ``ValueError``.
    """
    try:
        parts = urlsplit(conn)
        port = DEFAULT_PORT if parts.port is None else parts.port
        host = parts.hostname or ""
        host.encode("idna")
    except ValueError as error:
        raise ValueError(f"{conn!r}: {error}; {_EXPECTED_CONN}") from error
    if parts.scheme in {"rtu", "rtu+tcp"}:
        raise ValueError(
            f"{parts.scheme}:// (Modbus RTU) is not available in this version; {_EXPECTED_CONN}"
        )
    if parts.scheme != "tcp" or not host or re.search(r"\s", conn):
        raise ValueError(f"{conn!r} is not a Modbus connection; {_EXPECTED_CONN}")
    if parts.path not in {"", "/"} or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{conn!r} has more than host, port and options; {_EXPECTED_CONN}")
    if port == 0:
        raise ValueError(f"{conn!r}: port 0; allowed: 1 to 65535")
    return ModbusConn(host, port, **_parse_options(parts.query))


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


_PREFIXES: Final = {"co": "coil", "di": "discrete", "ir": "input", "hr": "holding"}
_DIGITS: Final = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}

_ADDRESS: Final = re.compile(
    r"""(?: (?P<prefix> co|di|ir|hr ) : (?P<offset> [0-9]{1,5} )
          | (?P<digit> [0134] ) (?P<number> [0-9]{4,5} ) )
        (?: \. (?P<bit> [0-9]{1,2} ) )?""",
    re.VERBOSE,
)
_EXPECTED_ADDRESS: Final = (
    "allowed: 40001 or 400001 (holding register), 30001 (input register), 10001 (discrete input),"
    " 00001 (coil), counted from 1; or hr:0, ir:0, di:0, co:0, counted from 0;"
    " 40001.3 is bit 3 of a register"
)


def parse_address(address: str, value_type: ValueType) -> Address:
    """Locate a value: ``40001``, ``400001``, ``hr:0``, each with ``.0`` to ``.15`` for one bit.

    The area is "holding", "input", "coil" or "discrete"; offset and width are in registers or in
    bits. Raises ``ValueError``.
    """
    match = _ADDRESS.fullmatch(address.lower())
    if match is None:
        raise ValueError(f"{address!r} is not a Modbus address; {_EXPECTED_ADDRESS}")
    first = 0 if match["prefix"] else 1
    area = _PREFIXES[match["prefix"]] if match["prefix"] else _DIGITS[match["digit"]]
    offset = int(match["offset"] or match["number"]) - first
    if not 0 <= offset < CELLS:
        raise ValueError(
            f"{address!r} is out of range; allowed: {first} to {CELLS - 1 + first} in each area"
        )
    bit = int(match["bit"]) if match["bit"] else None
    if area in BIT_AREAS:
        if bit is not None:
            raise ValueError(f"{address!r}: a {area} is one bit already; leave out .{bit}")
        if value_type is not ValueType.BOOL:
            raise ValueError(f"{address!r}: a {area} holds a BOOL, not {value_type}")
        return Address(area, offset)
    if bit is not None:
        if bit >= REGISTER_BITS:
            raise ValueError(f"{address!r}: bit {bit}; allowed: 0 to {REGISTER_BITS - 1}")
        if value_type is not ValueType.BOOL:
            raise ValueError(f"{address!r}: one bit is a BOOL, not {value_type}")
    width = WIDTHS[value_type]
    if offset + width > CELLS:
        raise ValueError(f"{address!r}: {value_type} takes {width} registers and the area ends")
    return Address(area, offset, width, bit)
