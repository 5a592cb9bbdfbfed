"""What the `conn` and `address` cells of an MQTT tag mean, and what a payload says. Pure.

An address is a topic, or a topic, ``#`` and a path into a JSON payload:

    factory/pump1/pressure          the payload is the value
    factory/pump1#data.pressure     the member "pressure" of the member "data"
    factory/pump1#readings.0        the first of a list
    factory/pump1#/data/pres.bar    RFC 6901, for names that have a dot in them

``#`` divides them because it is the one printable character besides ``+`` that no topic name may
have (MQTT 5.0, 4.7.1.2): whatever stands before it is a topic, to the letter, however odd. For the
same reason no address can be taken for a wildcard.

A payload is a JSON number, true or false, a number in quotes, or a JSON object: the seven-key
message of `sinks/message.py`, whose ``value`` and ``ts`` count, or, with a path, any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import orjson

from edge_agent.model import Address, ValueType

DEFAULT_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}
TOPIC_BYTES_MAX: Final = 65_535
"""MQTT 5.0, 1.5.4: a string's length has two bytes."""
TOPIC_LEVELS_MAX: Final = 200
"""Mosquitto ends a connection that asks for a deeper topic, and with it every other tag's."""
AHEAD_MS_MAX: Final = 3_600_000
"""A stamp further in the future comes from a clock that is wrong: its row would outlive retention
and hide every later one from whoever asks for the newest."""
BEHIND_MS_MAX: Final = 366 * 86_400_000
"""A stamp older than a year comes from a clock that was never set, not from a buffer."""

AREA: Final = "topics"
SEVEN_KEYS: Final = frozenset({"ts", "site", "line", "device", "tag", "value", "unit"})

_EXPECTED_CONN: Final = (
    "expected mqtt://HOST:PORT or mqtts://HOST:PORT, for example mqtt://10.0.0.5"
)
_EXPECTED_ADDRESS: Final = (
    "expected a topic, for example factory/pump1/pressure, or a topic, # and a path into its JSON,"
    " for example factory/pump1#data.pressure"
)
_NOT_IN_TOPICS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)
_PLACE_DIGITS_MAX: Final = 9
"""No payload has a list that is longer."""
_NUMBER: Final = re.compile(rb"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\s*")


@dataclass(frozen=True, slots=True)
class MqttConn:
    """A parsed `conn` cell. As a string it is the place that an error names: no secret in it."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password_file: str | None = None
    client_id: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    timeout_ms: int = 4_000
    keepalive_s: int = 15

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{host}:{self.port}"


_TEXTS: Final = ("user", "password_file", "client_id", "ca", "cert", "key")
_NUMBERS: Final[Mapping[str, tuple[int, int]]] = {
    "timeout_ms": (100, 60_000),
    "keepalive_s": (5, 3_600),
}
"""Smallest and largest value of each."""


def parse_conn(conn: str) -> MqttConn:
    """Parse ``mqtts://broker:8883?user=edge&password_file=/etc/edge-agent/broker&ca=/etc/ca.pem``.

    The port and every option may be left out. Files are looked at when the driver connects. Raises
    ``ValueError``, in a text that does not repeat a password.
    """
    try:
        parts = urlsplit(conn)
        port = DEFAULT_PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
        host = parts.hostname or ""
        host.encode("idna")
    except ValueError as error:
        raise ValueError(f"not a broker's address: {error}; {_EXPECTED_CONN}") from error
    if "@" in parts.netloc:
        raise ValueError("no user or password before the host: write ?user=...&password_file=...")
    if parts.scheme not in DEFAULT_PORTS or not host or re.search(r"\s", conn):
        raise ValueError(f"{conn.partition('?')[0]!r} is not a broker's address; {_EXPECTED_CONN}")
    if parts.path not in {"", "/"} or parts.fragment:
        raise ValueError(f"only options may follow the port; {_EXPECTED_CONN}")
    if port == 0:
        raise ValueError("port 0; allowed: 1 to 65535")
    found = MqttConn(host, port, parts.scheme == "mqtts", **_parse_options(parts.query))
    if not found.tls and (found.ca or found.cert or found.key):
        raise ValueError("ca, cert and key are for TLS: write mqtts://")
    if (found.cert is None) != (found.key is None):
        raise ValueError("cert and key go together: give both or neither")
    if found.password_file is not None and found.user is None:
        raise ValueError("password_file needs user=, the name that the password belongs to")
    return found


def _parse_options(query: str) -> dict[str, Any]:
    """Each option that is given, as `MqttConn` takes it."""
    options: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name == "password":
            raise ValueError("a password does not stand in a map: write password_file=, a file")
        if name not in _TEXTS and name not in _NUMBERS:
            allowed = ", ".join((*_TEXTS, *_NUMBERS))
            raise ValueError(f"unknown option {name!r}; allowed: {allowed}")
        if name in options:
            raise ValueError(f"option {name} is given twice")
        options[name] = _number_option(name, text) if name in _NUMBERS else _text_option(name, text)
    return options


def _text_option(name: str, text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(f"option {name}: allowed: printable text that is not empty")
    return text


def _number_option(name: str, text: str) -> int:
    smallest, largest = _NUMBERS[name]
    if not re.fullmatch("[0-9]{1,9}", text) or not smallest <= int(text) <= largest:
        raise ValueError(f"{name}={text}; allowed: {smallest} to {largest}")
    return int(text)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a tag's values come from: a topic, and the way into its payload (empty: all of it)."""

    topic: str
    path: tuple[str, ...] = ()


def parse_source(address: str) -> Source:
    """Parse an `address` cell. Raises ``ValueError``."""
    topic, divider, path = address.partition("#")
    if "+" in topic or (divider and (not path or topic.endswith("/"))):
        raise ValueError(
            f"{address!r} has a wildcard, which stands for many topics; a tag is one value:"
            f" write one row for each topic; {_EXPECTED_ADDRESS}"
        )
    if not topic:
        raise ValueError(f"{address!r} has no topic; {_EXPECTED_ADDRESS}")
    if topic.startswith(("$share/", "$queue/")):
        raise ValueError(
            f"{address!r} is a shared subscription, which splits values; use the topic"
        )
    if found := _NOT_IN_TOPICS.search(topic):
        raise ValueError(f"U+{ord(found[0]):04X} is not allowed in a topic")
    if len(topic.encode()) > TOPIC_BYTES_MAX or topic.count("/") >= TOPIC_LEVELS_MAX:
        raise ValueError(
            f"a topic of {len(topic.encode())} bytes and {topic.count('/') + 1} levels;"
            f" allowed: {TOPIC_BYTES_MAX} bytes, {TOPIC_LEVELS_MAX} levels"
        )
    return Source(topic, _parse_path(path) if divider else ())


def _parse_path(path: str) -> tuple[str, ...]:
    if path.startswith("/"):
        if found := re.search("~(?![01])", path):
            raise ValueError(f"#{path} has ~ at {found.start()}; write ~0 for ~, ~1 for /")
        return tuple(
            part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]
        )  # RFC 6901, section 4: in this order
    parts = tuple(path.split("."))
    if not all(parts):
        raise ValueError(
            f"#{path} has an empty name; write names with a dot between them, #data.pressure, or"
            " #/data/pressure where a name has a dot itself"
        )
    return parts


def parse_address(address: str, value_type: ValueType) -> Address:  # noqa: ARG001
    """Check an `address` cell. Every type is allowed.

    All topics lie on the same spot of one area, so that all tags of a connection that share a
    period are one block: what has arrived for any of them is fetched with one call.
    """
    parse_source(address)
    return Address(AREA, 0)


# Payloads.


def decode(payload: bytes) -> object:
    """A payload's JSON, or the number it is. Raises ``ValueError`` with what it is instead."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        if _NUMBER.fullmatch(payload):  # +1, 5. and .5, as devices write them
            return float(payload)
    if not payload:
        raise ValueError("the payload is empty")
    raise ValueError("the payload is neither a number nor JSON")


def number(found: object, *, is_bool: bool = False) -> float:
    """The value that a part of a payload is. Raises ``ValueError`` if it is none.

    ``is_bool`` is for a tag of type BOOL, which has two values and no others.
    """
    if isinstance(found, bool):
        return float(found)
    if isinstance(found, str) and _NUMBER.fullmatch(found.encode(errors="replace")):
        found = float(found)
    if not isinstance(found, int | float):
        raise ValueError(  # noqa: TRY004  (the payload's fault, not the caller's)
            f"expected a number, true or false, found {_kind(found)}"
        )
    value = float(found)
    if is_bool and value not in {0.0, 1.0}:
        raise ValueError(f"expected true, false, 1 or 0 for a BOOL, found {value:.12g}")
    return value


def _kind(found: object) -> str:
    kinds: Mapping[type, str] = {dict: "an object", list: "a list", str: "text"}
    return kinds.get(type(found), "null")


def picker(path: tuple[str, ...]) -> Callable[[object], object]:
    """What finds a path's part of a document, or a message's ``value`` where there is no path.

    The function raises ``ValueError`` with what is missing.
    """
    if not path:
        return lambda document: (
            document["value"]
            if isinstance(document, dict) and document.keys() == SEVEN_KEYS
            else document
        )

    def pick(document: object) -> object:
        for depth, name in enumerate(path):
            if isinstance(document, dict) and name in document:
                document = document[name]
            elif isinstance(document, list) and _is_place(name, document):
                document = document[int(name)]
            else:
                way = ".".join(path[: depth + 1])
                raise ValueError(f"the payload has no {way!r}")
        return document

    return pick


def _is_place(name: str, found: Sequence[object]) -> bool:
    return len(name) <= _PLACE_DIGITS_MAX and name.isdecimal() and int(name) < len(found)


def own_time_ms(document: object, now_ms: int) -> int | None:
    """When a seven-key message was measured, in ms since 1970 UTC; None for any other document.

    Raises ``ValueError`` if its ``ts`` is no time with an offset, or none that can be true.
    """
    if isinstance(document, dict) and document.keys() == SEVEN_KEYS:
        return time_ms(document["ts"], now_ms)
    return None


def time_ms(text: object, now_ms: int) -> int:
    """ISO 8601 with Z or an offset, to milliseconds since 1970 UTC; finer digits are cut off.

    Raises ``ValueError`` if it is not that, or too far from ``now_ms``.
    """
    try:
        moment = datetime.fromisoformat(text)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError("ts is not a time like 2025-08-17T12:00:00.000Z") from error
    if moment.tzinfo is None:
        raise ValueError("ts has no time zone; write Z at its end for UTC")
    since = moment - _EPOCH
    ts_ms = (since.days * 86_400 + since.seconds) * 1_000 + since.microseconds // 1_000
    if not now_ms - BEHIND_MS_MAX <= ts_ms <= now_ms + AHEAD_MS_MAX:
        raise ValueError(
            "ts is more than an hour ahead of this machine's clock, or a year behind it"
        )
    return ts_ms


_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
