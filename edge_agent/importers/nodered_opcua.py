"""OPC UA nodes of Node-RED: items and injected node ids that reach a reading client. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from edge_agent.importers.addresses import host_of
from edge_agent.importers.base import Found, Place, Row, is_true, number, text
from edge_agent.importers.nodered_flow import Flow
from edge_agent.model import ValueType

ITEM: Final = "OpcUa-Item"
CLIENT: Final = "OpcUa-Client"
_READERS: Final = frozenset({"read", "subscribe", "monitor", "readmultiple"})
_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_NODE_ID: Final = re.compile(r"(ns=[0-9]+;|nsu=[^;]+;)?[isgb]=.+", re.DOTALL)
_DATATYPE: Final = re.compile(r";datatype=([A-Za-z0-9 ]*)$")
TYPES: Final[Mapping[str, ValueType]] = {
    "boolean": ValueType.BOOL,
    "sbyte": ValueType.INT8,
    "byte": ValueType.UINT8,
    "int16": ValueType.INT16,
    "uint16": ValueType.UINT16,
    "int32": ValueType.INT32,
    "uint32": ValueType.UINT32,
    "int64": ValueType.INT64,
    "uint64": ValueType.UINT64,
    "float": ValueType.FLOAT32,
    "double": ValueType.FLOAT64,
}
"""Built-in types of OPC UA that are numbers or BOOL."""


class Opcua:
    """Rows of a flow's OPC UA nodes."""

    def __init__(self, flow: Flow, found: Found) -> None:
        self._flow = flow
        self._found = found
        self._reported: set[str] = set()

    def knows(self, kind: str, node: Mapping[str, object]) -> bool:
        """Whether a node names a node of a server: an item, or an inject node with a node id."""
        if kind == "inject":
            return bool(_NODE_ID.fullmatch(text(node.get("topic"))))
        return kind == ITEM

    def read(self, node: Mapping[str, object]) -> None:
        """Carry over one node for each connection whose client reads it, or say why not."""
        place = self._flow.place(node)
        topic = text(node.get("item")) or text(node.get("topic"))
        datatype = _DATATYPE.search(topic)
        address = topic[: datatype.start()] if datatype else topic
        declared = text(node.get("datatype")) or (datatype[1].strip() if datatype else "")
        label = text(node.get("name")) or address
        if not _NODE_ID.fullmatch(address):
            self._found.left_out(place, label, "the item is no node id such as ns=2;s=Pump.Speed")
            return
        kind = TYPES.get(declared.lower())
        if declared and kind is None:
            self._found.left_out(place, label, f"{declared}; the agent carries numbers and BOOL")
            return
        clients = [one for one in self._flow.behind(node) if text(one.get("type")) == CLIENT]
        readers = [one for one in clients if text(one.get("action")).lower() in _READERS]
        if not readers:
            actions = ", ".join(sorted({text(one.get("action")) for one in clients}))
            reason = f"its client does {actions}" if clients else "no OpcUa-Client is behind it"
            self._found.left_out(place, label, f"{reason}; the agent only reads")
            return
        if not declared:
            reason = "FLOAT64; the node names no type, and the server's own decides"
            self._found.assumed(place, label, reason)
        tag = text(node.get("name")) or re.split("[.;=/]", address)[-1]
        self._rows(node, place, readers, tag, address, kind or ValueType.FLOAT64)

    def _rows(
        self,
        node: Mapping[str, object],
        place: Place,
        clients: list[Mapping[str, object]],
        tag: str,
        address: str,
        kind: ValueType,
    ) -> None:
        conns: dict[str, float | None] = {}
        for client in clients:
            conn = self._conn(client)
            if conn:
                conns.setdefault(conn, self._period_ms(node, client))
        if not conns:
            self._found.left_out(place, tag, "its client names no endpoint opc.tcp://HOST:PORT")
        for conn, period_ms in conns.items():
            self._found.add(
                Row(
                    place=place,
                    device=host_of(conn),
                    tag=tag,
                    long_tag=re.sub("^.*?[isgb]=", "", address),
                    protocol="opcua",
                    conn=conn,
                    address=address,
                    type=kind,
                    period_ms=period_ms,
                )
            )

    def _conn(self, client: Mapping[str, object]) -> str:
        """The connection of a client; what it lacks beside the flow's own is reported once."""
        endpoint = self._flow.node(client.get("endpoint"))
        conn = text((endpoint or client).get("endpoint"))
        if not conn.startswith("opc.tcp://"):
            return ""
        if endpoint is not None and conn not in self._reported:
            self._reported.add(conn)
            place = self._flow.place(endpoint)
            if text(endpoint.get("secpol")) not in {"", "None"}:
                reason = "not encrypted: add security, certificate and key to conn"
                self._found.in_part(place, text(endpoint.get("secpol")), reason)
            if is_true(endpoint.get("login")):
                reason = "flows hold no passwords: add user and password_file to conn"
                self._found.in_part(place, "login", reason)
        return conn

    def _period_ms(self, node: Mapping[str, object], client: Mapping[str, object]) -> float | None:
        interval, unit = number(client.get("time")), _UNITS_MS.get(text(client.get("timeUnit")))
        if text(client.get("action")).lower() in {"subscribe", "monitor"} and interval and unit:
            return interval * unit
        return self._flow.repeat_ms(node)
