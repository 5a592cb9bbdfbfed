"""Node-RED's flows: node-red-contrib-modbus and node-red-contrib-opcua. Pure.

A flow is a list of nodes that name each other in `wires`. Reading nodes of Modbus say area, first
cell and quantity, and their client says where; what the registers mean stands in nodes behind them,
of which buffer-parser can be read and JavaScript cannot. A flex-getter is told what to read by the
message that comes in: literals of an inject, change or function node before it are carried over.

Sources: the manuals of node-red-contrib-modbus 5.45, node-red-contrib-opcua 0.2.3xx and
node-red-contrib-buffer-parser 3.2. Addresses count from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from edge_agent.errors import ConfigError
from edge_agent.importers import nodered_opcua
from edge_agent.importers.addresses import BIT_PREFIXES, bracketed, host_of, serial_conn
from edge_agent.importers.base import (
    Defaults,
    Found,
    Place,
    Row,
    is_true,
    number,
    table,
    tables,
    text,
    whole,
)
from edge_agent.importers.documents import parse_json
from edge_agent.importers.nodered_flow import Flow
from edge_agent.importers.nodered_parser import PARSER, Unreadable, parsed_items
from edge_agent.importers.nodered_requests import Request, requests_of
from edge_agent.model import ValueType

_AREAS: Final = {"Coil": "co", "Input": "di", "HoldingRegister": "hr", "InputRegister": "ir"}
_FUNCTIONS: Final = {1: "co", 2: "di", 3: "hr", 4: "ir"}
_RATES_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_QUANTITY_MAX: Final = {"co": 2_000, "di": 2_000, "hr": 125, "ir": 125}
"""Cells that one request of Modbus may ask for."""

_READERS: Final = frozenset({"modbus-read", "modbus-getter"})
_WRITING: Final = frozenset({"modbus-write", "modbus-flex-write"})
_OTHERS: Final = frozenset({"modbus-flex-fc", "modbus-flex-connector"})
_PARITIES: Final = {"none": "N", "even": "E", "odd": "O"}
CLIENT_TIMEOUT_MS_DEFAULT: Final = 1_000


def nodes_of(document: object) -> list[Mapping[str, object]]:
    """The nodes of a flow file, or of what the admin API answers; empty if it is no flow."""
    listed = table(document).get("flows") if isinstance(document, dict) else document
    nodes = tables(listed) if isinstance(listed, list) else []
    return nodes if any("type" in node and "id" in node for node in nodes) else []


def read(data: bytes, defaults: Defaults) -> Found:  # noqa: ARG001  (every kind is called alike)
    """All values that Modbus and OPC UA nodes of a flow read. Raises ``ConfigError``."""
    nodes = nodes_of(parse_json(data))
    if not nodes:
        raise ConfigError("not a Node-RED flow: no list of nodes with id and type")
    flow = Flow(nodes)
    found = Found()
    modbus = _Modbus(flow, found)
    opcua = nodered_opcua.Opcua(flow, found)
    for node in flow.nodes:
        kind = text(node.get("type"))
        if not (modbus.knows(kind) or opcua.knows(kind, node) or kind.startswith("s7 ")):
            continue
        if reason := flow.disabled(node):
            found.left_out(flow.place(node), kind, reason)
        elif modbus.knows(kind):
            modbus.read(node, kind)
        elif kind.startswith("s7 "):
            found.left_out(flow.place(node), kind, "nodes of node-red-contrib-s7 are not read")
        else:
            opcua.read(node)
    return found


class _Modbus:
    """Rows of a flow's Modbus nodes."""

    def __init__(self, flow: Flow, found: Found) -> None:
        self._flow = flow
        self._found = found
        self._conns: dict[str, str | None] = {}

    def knows(self, kind: str) -> bool:
        """Whether nodes of a type read or write by Modbus."""
        return kind in _READERS | _WRITING | _OTHERS | {
            "modbus-flex-getter",
            "modbus-flex-sequencer",
        }

    def read(self, node: Mapping[str, object], kind: str) -> None:
        """Carry over one node, or say why not."""
        place = self._flow.place(node)
        if kind in _WRITING:
            self._found.left_out(place, kind, "it writes; the agent only reads")
            return
        if kind in _OTHERS:
            self._found.left_out(place, kind, "what it does is decided while the flow runs")
            return
        conn = self._conn(node, place)
        if conn is None:
            return
        self._report_names(node, place)
        if kind in _READERS:
            self._static(node, place, conn)
        elif kind == "modbus-flex-sequencer":
            self._sequence(node, place, conn)
        else:
            self._flex(node, place, conn)

    def _static(self, node: Mapping[str, object], place: Place, conn: str) -> None:
        area = _AREAS.get(text(node.get("dataType")))
        first, quantity = whole(node.get("adr")), whole(node.get("quantity"))
        if area is None or first is None or quantity is None:
            self._found.left_out(
                place, text(node.get("name")), "dataType, adr or quantity is missing or computed"
            )
            return
        period_ms = self._period_ms(node)
        request = Request(area, whole(node.get("unitid")), first, quantity)
        self._rows(node, place, conn, request, period_ms)

    def _sequence(self, node: Mapping[str, object], place: Place, conn: str) -> None:
        period_ms = self._flow.repeat_ms(node)
        for at, step in enumerate(tables(node.get("sequences"))):
            inner = Place(f"{place.path} sequences[{at}]")
            function = whole(text(step.get("fc")).upper().removeprefix("FC"))
            first, quantity = whole(step.get("address")), whole(step.get("quantity"))
            area = _FUNCTIONS.get(function or 0)
            if area is None or first is None or quantity is None:
                self._found.left_out(
                    inner, text(step.get("name")), "it has no reading fc, address and quantity"
                )
                continue
            request = Request(area, whole(step.get("unitid")), first, quantity)
            self._rows({**node, "name": step.get("name")}, inner, conn, request, period_ms)

    def _flex(self, node: Mapping[str, object], place: Place, conn: str) -> None:
        """A getter that messages tell what to read."""
        requests, problems = requests_of(self._flow, node)
        for source, reason in problems:
            self._found.left_out(self._flow.place(source), text(source.get("name")), reason)
        if not requests and not problems:
            self._found.left_out(
                place,
                text(node.get("name")),
                "nothing before it says in plain numbers what to read; look at the messages that"
                " reach it",
            )
        for source, asked in requests:
            period_ms = self._flow.repeat_ms(source)
            area = _FUNCTIONS.get(asked.function)
            if area is None:
                reason = f"function code {asked.function}; reading are 1, 2, 3, 4"
                self._found.left_out(self._flow.place(source), text(source.get("name")), reason)
                continue
            request = Request(area, asked.unit_id, asked.address, asked.quantity)
            name = text(source.get("name")) if len(requests) > 1 else ""
            named = {**node, "name": name or node.get("name") or source.get("name")}
            self._rows(named, place, conn, request, period_ms)

    def _rows(
        self,
        node: Mapping[str, object],
        place: Place,
        conn: str,
        request: Request,
        period_ms: float | None,
    ) -> None:
        """A row for each cell, or for each item of the parsers behind the node."""
        label = text(node.get("name")) or text(node.get("topic"))
        if not 1 <= request.quantity <= _QUANTITY_MAX[request.area]:
            reason = f"quantity {request.quantity}; allowed: 1 to {_QUANTITY_MAX[request.area]}"
            self._found.left_out(place, label, reason)
            return
        client = self._client(node)
        unit_id = request.unit_id
        if unit_id is None:
            unit_id = whole(client.get("unit_id"))
        name = text(client.get("name"))
        device = name if name and "://" not in name else host_of(conn)
        base = label or f"{request.area}_{request.address}"

        def row(where: Place, tag: str, address: str, kind: ValueType) -> Row:
            return Row(
                place=where,
                device=device,
                tag=tag,
                long_tag=f"{base}.{tag}" if tag != base else "",
                protocol="modbus",
                conn=conn,
                unit_id=unit_id,
                address=address,
                type=kind,
                period_ms=period_ms,
            )

        parsers = [one for one in self._flow.next_nodes(node) if text(one.get("type")) == PARSER]
        if parsers and request.area not in BIT_PREFIXES:
            for parser in parsers:
                self._parsed(parser, request, row)
            return
        bits = request.area in BIT_PREFIXES
        kind = ValueType.BOOL if bits else ValueType.UINT16
        for at in range(request.quantity):
            cell = request.address + at
            tag = base if request.quantity == 1 else f"{base}_{cell}"
            self._found.add(row(place, tag, f"{request.area}:{cell}", kind))
        if not bits:
            reason = "each register as UINT16; what nodes behind it make of them is not known"
            self._found.assumed(place, label or base, f"{reason}: edge-agent probe finds types")

    def _parsed(
        self,
        parser: Mapping[str, object],
        request: Request,
        row: Callable[[Place, str, str, ValueType], Row],
    ) -> None:
        for at, item in enumerate(tables(parser.get("items"))):
            place = Place(f"{self._flow.place(parser).path} items[{at}]")
            try:
                values = parsed_items(parser, item, request)
            except Unreadable as error:
                self._found.left_out(place, text(item.get("name")), str(error))
                continue
            for value in values:
                made = row(place, value.name, value.address, value.type)
                made.byte_order, made.scale = value.byte_order, value.scale
                self._found.add(made)

    def _period_ms(self, node: Mapping[str, object]) -> float | None:
        """How often a node reads: its own rate, or that of what triggers it."""
        rate, unit = number(node.get("rate")), _RATES_MS.get(text(node.get("rateUnit")))
        if text(node.get("type")) == "modbus-read" and rate and unit:
            return rate * unit
        return self._flow.repeat_ms(node)

    def _report_names(self, node: Mapping[str, object], place: Place) -> None:
        file = self._flow.node(node.get("ioFile"))
        if is_true(node.get("useIOFile")) and file:
            path = text(file.get("path"))
            reason = f"names and types stand in the file {path!r}, which is not part of the flow"
            self._found.in_part(place, "modbus-io-config", reason)

    # -- clients -------------------------------------------------------------------------------

    def _client(self, node: Mapping[str, object]) -> Mapping[str, object]:
        return self._flow.node(node.get("server")) or {}

    def _conn(self, node: Mapping[str, object], place: Place) -> str | None:
        """The connection of a node's client; ``None`` after a report."""
        client = self._client(node)
        if not client:
            self._found.left_out(place, text(node.get("name")), "its modbus-client is not in here")
            return None
        key = text(client.get("id"))
        if key not in self._conns:
            try:
                self._conns[key] = _conn_of(client)
            except ValueError as error:
                self._conns[key] = None
                where = self._flow.place(client)
                self._found.left_out(where, text(client.get("name")), str(error))
        if self._conns[key] is None:
            self._found.left_out(place, text(node.get("name")), "its modbus-client is left out")
        return self._conns[key]


def _conn_of(client: Mapping[str, object]) -> str:
    """A client's connection. Raises ``ValueError``."""
    options = []
    timeout_ms = whole(client.get("clientTimeout"))
    if timeout_ms and timeout_ms != CLIENT_TIMEOUT_MS_DEFAULT and 10 <= timeout_ms <= 60_000:
        options.append(f"timeout_ms={timeout_ms}")
    if text(client.get("clienttype")) == "tcp":
        kind = text(client.get("tcpType")).upper() or "DEFAULT"
        scheme = {"DEFAULT": "tcp", "RTU-BUFFERED": "rtu+tcp", "TELNET": "rtu+tcp"}.get(kind)
        if scheme is None:
            raise ValueError(f"tcpType {kind!r} is not spoken; DEFAULT and RTU-BUFFERED are")
        host = text(client.get("tcpHost"))
        if not host:
            raise ValueError("the client has no host")
        conn = f"{scheme}://{bracketed(host)}:{whole(client.get('tcpPort')) or 502}"
    else:
        conn = _serial_conn(client)
    return conn + (("&" if "?" in conn else "?") + "&".join(options) if options else "")


def _serial_conn(client: Mapping[str, object]) -> str:
    path = text(client.get("serialPort"))
    if "ASCII" in text(client.get("serialType")).upper():
        raise ValueError("Modbus ASCII is not spoken; set the devices to RTU")
    if not path.startswith("/"):
        raise ValueError(f"serial port {path!r}; a device file of Linux begins with /dev/")
    if whole(client.get("serialDatabits")) not in {8, None}:
        raise ValueError("RTU has 8 data bits")
    parity = _PARITIES.get(text(client.get("serialParity")).lower() or "none")
    if parity is None:
        raise ValueError("parity; allowed: none, even, odd")
    stopbits = whole(client.get("serialStopbits")) or 1
    return serial_conn(path, whole(client.get("serialBaudrate")) or 9600, parity, stopbits)
