"""What the `conn` and `address` cells of a Modbus tag mean. Pure.

Sources: Modbus Application Protocol 1.1b3, section 4.4 (an area has 65,536 cells) and 6.1 to 6.4
(125 registers or 2,000 bits a request); Modbus over Serial Line 1.02, section 2.5.1 (19,200 baud
and even parity unless said otherwise); MODBUS/TCP Security (port 802).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from edge_agent.codec import WIDTHS
from edge_agent.model import Address, Limits, ValueType

CELLS: Final = 65_536
"""Registers or bits of one area."""
REGISTER_BITS: Final = 16

BIT_AREAS: Final = frozenset({"coil", "discrete"})
REGISTER_AREAS: Final = frozenset({"input", "holding"})
PREFIXES: Final = {"coil": "co", "discrete": "di", "input": "ir", "holding": "hr"}
"""How an address says its area, as in ``hr:0``."""

GAP_OVERLAP: Final = -1
"""A ``gap_max`` under which only tags that share a cell share a request, as bits of a register."""


class Transport(StrEnum):
    """How requests travel: the scheme of a `conn`."""

    TCP = "tcp"
    TLS = "tcp+tls"
    RTU = "rtu"
    RTU_TCP = "rtu+tcp"


DEFAULT_PORTS: Final[Mapping[Transport, int]] = {Transport.TCP: 502, Transport.TLS: 802}
"""RTU over TCP has no port of its own: each gateway has another."""

LINE_GAP_MAX: Final = 10
"""The default of ``gap_max`` where bytes go over a serial line in the end: reading ten registers
along takes as long as another request. On Ethernet 50 of them are 100 bytes in the same packet."""


@dataclass(frozen=True, slots=True)
class ModbusConn:
    """A parsed `conn` cell. As a string it is the place that an error names."""

    host: str
    port: int
    timeout_ms: int = 1_000
    gap_max: int = 50
    registers_max: int = 125
    bits_max: int = 2_000
    pause_ms: int = 0
    pause_after_connect_ms: int = 0
    close_after_scan: bool = False
    single_request: bool = False
    retries: int = 0
    zero_based: bool = False
    transport: Transport = Transport.TCP

    # TLS
    ca: str = ""
    cert: str = ""
    key: str = ""
    verify: str = "full"

    # a serial line, which has no host and no port
    path: str = ""
    baudrate: int = 19_200
    parity: str = "E"
    stopbits: int = 1
    bytesize: int = 8

    def __str__(self) -> str:
        if self.transport is Transport.RTU:
            return f"rtu://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}://{host}:{self.port}"

    @property
    def character_s(self) -> float:
        """Time of one byte on a serial line, with its start, parity and stop bits; else 0."""
        if self.transport is not Transport.RTU:
            return 0.0
        return (1 + self.bytesize + (self.parity != "N") + self.stopbits) / self.baudrate

    def limits(self, area: str) -> Limits:
        """Bounds of one request, in the area's cells.

        ``gap_max`` is in registers; the same number of bytes in bits is 16 times that.
        """
        bits = area in BIT_AREAS
        span_max = self.bits_max if bits else self.registers_max
        if self.single_request:
            return Limits(span_max, GAP_OVERLAP)
        return Limits(span_max, self.gap_max * REGISTER_BITS if bits else self.gap_max)


_NUMBERS: Final[Mapping[str, tuple[int, int]]] = {
    "timeout_ms": (10, 60_000),
    "gap_max": (0, 125),
    "registers_max": (1, 125),
    "bits_max": (1, 2_000),
    "pause_ms": (0, 10_000),
    "pause_after_connect_ms": (0, 60_000),
    "retries": (0, 10),
    "baudrate": (300, 4_000_000),
    "stopbits": (1, 2),
    "bytesize": (8, 8),  # RTU has no other: section 2.5.1
}
"""Smallest and largest value of each option that is a number."""
_WORDS: Final[Mapping[str, Mapping[str, object]]] = {
    "close_after_scan": {"true": True, "false": False},
    "single_request": {"true": True, "false": False},
    "zero_based": {"true": True, "false": False},
    "parity": {"N": "N", "E": "E", "O": "O"},
    "verify": {"full": "full", "ca": "ca", "none": "none"},
}
"""What each option that is a word may say, and what that means."""
_FILES: Final = ("ca", "cert", "key")

_COMMON: Final = (
    "timeout_ms",
    "gap_max",
    "registers_max",
    "bits_max",
    "pause_ms",
    "pause_after_connect_ms",
    "close_after_scan",
    "single_request",
    "retries",
    "zero_based",
)
OPTIONS: Final[Mapping[Transport, tuple[str, ...]]] = {
    Transport.TCP: _COMMON,
    Transport.TLS: (*_COMMON, *_FILES, "verify"),
    Transport.RTU: (*_COMMON, "baudrate", "parity", "stopbits", "bytesize"),
    Transport.RTU_TCP: _COMMON,
}
"""The options of each transport."""

_EXPECTED: Final[Mapping[Transport, str]] = {
    Transport.TCP: "expected tcp://HOST:PORT, for example tcp://10.0.0.5:502",
    Transport.TLS: "expected tcp+tls://HOST:PORT, for example tcp+tls://10.0.0.5:802?ca=/etc/ca.pem",
    Transport.RTU: "expected rtu:///DEVICE, for example rtu:///dev/ttyUSB0?baudrate=9600&parity=N",
    Transport.RTU_TCP: "expected rtu+tcp://HOST:PORT, for example rtu+tcp://10.0.0.5:4001",
}


CONNS_KEPT: Final = 1_024
"""Parsed connections kept: a map's rows ask for theirs one by one."""


@lru_cache(maxsize=CONNS_KEPT)
def parse_conn(conn: str) -> ModbusConn:
    """Parse ``tcp://HOST``, ``tcp+tls://HOST``, ``rtu+tcp://HOST:PORT`` or ``rtu:///DEVICE``.

    Options follow after ``?``, joined by ``&``; each may be left out. Raises ``ValueError``.
    """
    expected = _EXPECTED[Transport.TCP]
    try:
        parts = urlsplit(conn)
        if parts.scheme in set(Transport):
            expected = _EXPECTED[Transport(parts.scheme)]
        port = parts.port
        host = parts.hostname or ""
        host.encode("idna")
    except ValueError as error:
        raise ValueError(f"{conn!r}: {error}; {expected}") from error
    if parts.scheme not in set(Transport) or re.search(r"\s", conn):
        raise ValueError(f"{conn!r} is not a Modbus connection; {expected}")
    transport = Transport(parts.scheme)
    if transport is Transport.RTU:
        path = _device(conn, parts)
        host, port = "", 0
    else:
        path = ""
        port = _check_place(conn, parts, transport, host, port)
    options = _parse_options(parts.query, transport)
    if transport in {Transport.RTU, Transport.RTU_TCP}:
        options.setdefault("gap_max", LINE_GAP_MAX)
    if options.get("key") and not options.get("cert"):
        raise ValueError(f"{conn!r}: a key without its certificate; add cert=/path")
    return ModbusConn(host, port, transport=transport, path=path, **options)


def _device(conn: str, parts: SplitResult) -> str:
    """The path of a serial line's device."""
    path = unquote(parts.path)
    begins = re.match("rtu:///[^/]", conn, re.IGNORECASE)
    if not begins or parts.fragment or not path.isprintable():
        raise ValueError(
            f"{conn!r} is not a serial line, whose path begins after three slashes;"
            f" {_EXPECTED[Transport.RTU]}"
        )
    return path


def _check_place(
    conn: str, parts: SplitResult, transport: Transport, host: str, port: int | None
) -> int:
    """The port of a `conn` that has a host."""
    expected = _EXPECTED[transport]
    if not host:
        raise ValueError(f"{conn!r} is not a Modbus connection; {expected}")
    if parts.path not in {"", "/"} or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{conn!r} has more than host, port and options; {expected}")
    if port is None and transport not in DEFAULT_PORTS:
        raise ValueError(f"{conn!r} has no port; {expected}")
    if port == 0:
        raise ValueError(f"{conn!r}: port 0; allowed: 1 to 65535")
    return DEFAULT_PORTS[transport] if port is None else port


def _parse_options(query: str, transport: Transport) -> dict[str, Any]:
    """The options as `ModbusConn` names and types them."""
    options: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        allowed = OPTIONS[transport]
        if name not in allowed:
            raise ValueError(f"unknown option {name!r}; allowed: {', '.join(allowed)}")
        if name in options:
            raise ValueError(f"option {name} is given twice")
        options[name] = _parse_option(name, text)
    return options


def _parse_option(name: str, text: str) -> object:
    if name in _WORDS:
        if text not in _WORDS[name]:
            raise ValueError(f"{name}={text}; allowed: {', '.join(_WORDS[name])}")
        return _WORDS[name][text]
    if name in _FILES:
        if not text.startswith("/") or not text.isprintable():
            raise ValueError(f"{name}={text}; allowed: the whole path of a PEM file, from / on")
        return text
    smallest, largest = _NUMBERS[name]
    if not re.fullmatch("[0-9]{1,9}", text) or not smallest <= int(text) <= largest:
        allowed = f"{smallest} to {largest}" if smallest < largest else f"{smallest}"
        raise ValueError(f"{name}={text}; allowed: {allowed}")
    return int(text)


_AREAS: Final = {prefix: area for area, prefix in PREFIXES.items()}
_DIGITS: Final = {"0": "coil", "1": "discrete", "3": "input", "4": "holding"}

_ADDRESS: Final = re.compile(
    r"""(?: (?P<prefix> co|di|ir|hr ) : (?P<offset> [0-9]{1,5} )
          | (?P<digit> [0134] ) (?P<number> [0-9]{4,5} ) )
        (?: \. (?P<bit> [0-9]{1,2} ) )?""",
    re.VERBOSE,
)


def parse_address(address: str, value_type: ValueType, *, zero_based: bool = False) -> Address:
    """Locate a value: ``40001``, ``400001``, ``hr:0``, each with ``.0`` to ``.15`` for one bit.

    Where a connection is ``zero_based`` the first two are ``40000`` and ``400000``; ``hr:0`` stays.
    The area is "holding", "input", "coil" or "discrete"; offset and width are in registers or in
    bits. Raises ``ValueError``.
    """
    match = _ADDRESS.fullmatch(address.lower())
    if match is None:
        raise ValueError(f"{address!r} is not a Modbus address; {_expected(zero_based)}")
    first = 0 if match["prefix"] or zero_based else 1
    area = _AREAS[match["prefix"]] if match["prefix"] else _DIGITS[match["digit"]]
    offset = int(match["offset"] or match["number"]) - first
    if not 0 <= offset < CELLS:
        raise ValueError(f"{address!r} is out of range; {_range(match['digit'], first, offset)}")
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


def _range(digit: str | None, first: int, offset: int) -> str:
    """What the cells of an area are called where the first one has the number ``first``."""
    last = CELLS - 1 + first
    if digit is None:
        return f"allowed: {first} to {last} in each area"
    text = f"allowed: {digit}{first:04} to {digit}9999, {digit}{first:05} to {digit}{last:05}"
    if offset < 0:
        return f"{text}; where {digit}0000 is the first, `conn` needs ?zero_based=true"
    return text


def _expected(zero_based: bool) -> str:
    first = 0 if zero_based else 1
    return (
        f"allowed: 4000{first} or 40000{first} (holding register), 3000{first} (input register),"
        f" 1000{first} (discrete input), 0000{first} (coil), counted from {first};"
        f" or hr:0, ir:0, di:0, co:0, counted from 0; 4000{first}.3 is bit 3 of a register"
    )
