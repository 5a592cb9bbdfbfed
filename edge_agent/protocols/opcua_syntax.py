"""What the `conn` and `address` cells of an OPC UA tag mean. Pure: no file is opened here.

Sources: OPC UA Part 6, 5.3.1.10 (how a NodeId is written), Part 7 (security policies).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import UUID

from edge_agent.model import Address, Limits, ValueType

DEFAULT_PORT: Final = 4840

MODES: Final = ("subscribe", "poll")
POLICIES: Final = ("None", "Basic256Sha256")
SECURITY_MODES: Final = ("Sign", "SignAndEncrypt")

AREA: Final = "node"
NAMESPACES: Final = 65_536
NUMBERS: Final = 4_294_967_296
"""A numeric identifier has 32 bits."""
STRING_CHARS_MAX: Final = 4_096
"""Part 3, 8.2.4: a server need not take a longer string identifier."""

_BCD: Final = frozenset({ValueType.BCD16, ValueType.BCD32})


@dataclass(frozen=True, slots=True)
class OpcuaConn:
    """A parsed `conn` cell. As a string it is the server's address, as an error names it.

    Files are named, never opened, and no secret stands here.
    """

    host: str
    port: int
    path: str = ""
    mode: str = "subscribe"
    security: str = "None"
    security_mode: str | None = None
    certificate: str | None = None
    key: str | None = None
    server_certificate: str | None = None
    user: str | None = None
    password_file: str | None = None
    password_env: str | None = None
    user_certificate: str | None = None
    user_key: str | None = None
    timeout_ms: int = 4_000
    sampling_ms: int | None = None
    queue_size: int = 100

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"opc.tcp://{host}:{self.port}{self.path}"


def _one_of(*allowed: str) -> Callable[[str, str], str]:
    def parse(name: str, text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{name}={text}; allowed: {', '.join(allowed)}")
        return text

    return parse


def _whole(smallest: int, largest: int) -> Callable[[str, str], int]:
    def parse(name: str, text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not smallest <= int(text) <= largest:
            raise ValueError(f"{name}={text}; allowed: {smallest} to {largest}")
        return int(text)

    return parse


def _text(name: str, text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(f"{name} is empty or has characters that nobody sees; write its value")
    return text


_OPTIONS: Final[Mapping[str, Callable[[str, str], object]]] = {
    "mode": _one_of(*MODES),
    "security": _one_of(*POLICIES),
    "security_mode": _one_of(*SECURITY_MODES),
    "certificate": _text,
    "key": _text,
    "server_certificate": _text,
    "user": _text,
    "password_file": _text,
    "password_env": _text,
    "user_certificate": _text,
    "user_key": _text,
    "timeout_ms": _whole(100, 60_000),
    "sampling_ms": _whole(0, 3_600_000),
    "queue_size": _whole(1, 10_000),
}

_EXPECTED_CONN: Final = "expected opc.tcp://HOST:PORT/PATH, for example opc.tcp://10.0.0.5:4840"


def parse_conn(conn: str) -> OpcuaConn:
    """Parse ``opc.tcp://host:4840/path?mode=subscribe&security=Basic256Sha256&...``.

    Port, path and every option may be left out. Raises ``ValueError``.
    """
    if "@" in conn.partition("?")[0]:  # not quoted: a password may stand in front of the @
        raise ValueError(
            "no user or password in front of the host; write ?user=NAME&password_file=FILE"
        )
    if "?password=" in conn or "&password=" in conn:
        raise ValueError("no password here; write password_file=FILE or password_env=VARIABLE")
    try:
        parts = urlsplit(conn)
        port = DEFAULT_PORT if parts.port is None else parts.port
        host = parts.hostname or ""
        host.encode("idna")
    except ValueError as error:
        raise ValueError(f"{conn!r}: {error}; {_EXPECTED_CONN}") from error
    if parts.scheme != "opc.tcp" or not host or re.search(r"\s", conn):
        raise ValueError(f"{conn!r} is not an OPC UA connection; {_EXPECTED_CONN}")
    if parts.fragment:
        raise ValueError(f"{conn!r} has a # in it; write %23")
    if port == 0:
        raise ValueError(f"{conn!r}: port 0; allowed: 1 to 65535")
    parsed = OpcuaConn(host, port, parts.path, **_parse_options(parts.query))
    _check_security(parsed)
    _check_user(parsed)
    return parsed


def _parse_options(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    # Names of files may have a + in them, which a form would take for a space.
    for name, text in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        if name not in _OPTIONS:
            raise ValueError(f"unknown option {name!r}; allowed: {', '.join(_OPTIONS)}")
        if name in options:
            raise ValueError(f"option {name} is given twice")
        options[name] = _OPTIONS[name](name, text)
    if options.get("security", "None") != "None":
        options.setdefault("security_mode", "SignAndEncrypt")
    return options


def _check_security(conn: OpcuaConn) -> None:
    files = ("certificate", "key")
    if conn.security == "None":
        for name in (*files, "security_mode", "server_certificate"):
            if getattr(conn, name) is not None:
                raise ValueError(f"{name} is for a secured connection; add security=Basic256Sha256")
        return
    missing = [name for name in files if getattr(conn, name) is None]
    if missing:
        raise ValueError(
            f"security={conn.security} needs the agent's own certificate and its key:"
            f" add {' and '.join(f'{name}=FILE' for name in missing)}"
        )


def _check_user(conn: OpcuaConn) -> None:
    secrets = [name for name in ("password_file", "password_env") if getattr(conn, name)]
    if (conn.user_certificate is None) != (conn.user_key is None):
        raise ValueError("user_certificate and user_key go together: give both or neither")
    if conn.user is not None and conn.user_certificate is not None:
        raise ValueError("user and user_certificate are two ways to log in: give one of them")
    if conn.user is None and secrets:
        raise ValueError(f"{secrets[0]} without a user; add user=NAME")
    if conn.user is not None and len(secrets) != 1:
        raise ValueError(
            "user needs a password: give one of password_file=FILE and password_env=VARIABLE"
        )


@dataclass(frozen=True, slots=True)
class NodeRef:
    """A node id as the map writes it.

    ``namespace`` is an index, or the URI that the server has an index for.
    """

    namespace: int | str
    identifier: int | str | bytes | UUID

    def __str__(self) -> str:
        space = self.namespace
        prefix = f"nsu={space};" if isinstance(space, str) else f"ns={space};" if space else ""
        match self.identifier:
            case int():
                return f"{prefix}i={self.identifier}"
            case UUID():
                return f"{prefix}g={self.identifier}"
            case bytes():
                return f"{prefix}b={base64.b64encode(self.identifier).decode()}"
        return f"{prefix}s={self.identifier}"


_NODE: Final = re.compile(
    r"""(?: ns=(?P<index> [0-9]{1,5} ); | nsu=(?P<uri> [^;]+ ); )?
        (?P<kind> [isgb] ) = (?P<text> .+ )""",
    re.VERBOSE | re.DOTALL,
)
_EXPECTED_NODE: Final = (
    "allowed: a node id like ns=2;s=Pump.Pressure, ns=2;i=1001, i=2258, ns=2;g=UUID, ns=2;b=BASE64,"
    " or with the namespace's URI nsu=http://vendor.com/plc;s=Pump.Pressure"
)


def parse_node(address: str) -> NodeRef:
    """Parse a node id. Raises ``ValueError``."""
    match = _NODE.fullmatch(address)
    if match is None:
        raise ValueError(f"{address!r} is not a node id; {_EXPECTED_NODE}")
    # In a URI, ; and % are escaped (Part 6, 5.3.1.11).
    namespace = unquote(match["uri"]) if match["uri"] else int(match["index"] or 0)
    if isinstance(namespace, int) and namespace >= NAMESPACES:
        raise ValueError(f"{address!r}: namespace {namespace}; allowed: 0 to {NAMESPACES - 1}")
    return NodeRef(namespace, _identifier(match["kind"], match["text"], address))


def _identifier(kind: str, text: str, address: str) -> int | str | bytes | UUID:
    if kind == "i":
        if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= NUMBERS:
            raise ValueError(f"{address!r}: i={text}; allowed: 0 to {NUMBERS - 1}")
        return int(text)
    if kind == "g":
        if not re.fullmatch("[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", text):
            raise ValueError(
                f"{address!r}: g={text} is no GUID; it looks like"
                " 09087e75-8e5e-499b-954f-f2a9603db28a"
            )
        return UUID(text)
    if kind == "b":
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"{address!r}: b={text} is not Base64: {error}") from error
    if len(text) > STRING_CHARS_MAX:
        raise ValueError(f"{address!r}: longer than {STRING_CHARS_MAX} characters")
    return text


def parse_address(address: str, value_type: ValueType) -> Address:
    """Check a node id.

    Nodes have no place in a row of cells, so each is the cell 0: the planner then puts all nodes of
    a scan class into one block, in map order. ``value_type`` says nothing about decoding, since
    OPC UA's values carry their own type. Raises ``ValueError``.
    """
    parse_node(address)
    if value_type in _BCD:
        raise ValueError(
            f"{address!r}: an OPC UA server gives numbers, not {value_type}; write the type that"
            " the server shows, for example UINT16"
        )
    return Address(AREA, 0)


def limits(conn: str, area: str) -> Limits:  # noqa: ARG001
    """One block for all nodes; the driver cuts requests to what the server takes."""
    return Limits(span_max=1, gap_max=0)
