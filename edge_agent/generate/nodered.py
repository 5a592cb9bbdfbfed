"""`nodered.flow.json`: the map's block reads as a Node-RED flow that publishes the same messages.

A tab per connection: one modbus-read per block, one function that makes samples of what they give,
one mqtt out. Nodes are those of node-red-contrib-modbus 5 and of Node-RED itself. Modbus TCP, RTU
and RTU over TCP; what else the map has is named in a comment node.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from edge_agent.generate.subject import (
    LeftOut,
    Rendered,
    Subject,
    not_carried,
    planned,
    sift,
    stable_id,
)
from edge_agent.generate.templating import render
from edge_agent.model import Address, ByteOrder, Tag
from edge_agent.normalize import HEARTBEAT_MS, digits_of
from edge_agent.planner import Block, Connection
from edge_agent.protocols.modbus_syntax import ModbusConn, Transport, parse_conn
from edge_agent.sinks.message import topic_of

LINE_UNIT_MAX: Final = 247
"""Higher unit ids are refused there on a serial line (Modbus over Serial Line 1.02, 2.2)."""
LISTED_MAX: Final = 500
"""Tags that a comment node names; nobody reads more."""
_DATA_TYPES: Final = {
    "coil": "Coil",
    "discrete": "Input",
    "holding": "HoldingRegister",
    "input": "InputRegister",
}
_PARITIES: Final = {"N": "none", "E": "even", "O": "odd"}
_BROKER_ID: Final = stable_id("nodered", "broker")
_ROW_HEIGHT: Final = 60
_COLUMNS: Final = (240, 560, 820)

Node = dict[str, Any]


def render_flow(subject: Subject) -> Rendered:
    """The flow, as Node-RED's editor imports it."""
    carried, left_out = sift(subject.tags, _why_not)
    nodes = list(_front(subject, left_out))
    for connection in planned(carried):
        nodes += _connection(connection)
    text = json.dumps(nodes, indent=2, sort_keys=True, ensure_ascii=False)
    return Rendered(text + "\n", left_out)


def _why_not(tag: Tag) -> str | None:
    if tag.protocol != "modbus":
        return f"its protocol is {tag.protocol}; this flow has Modbus only"
    transport = parse_conn(tag.conn).transport
    if transport is Transport.TLS:
        return "node-red-contrib-modbus has no TLS"
    if transport is Transport.RTU and tag.unit_id > LINE_UNIT_MAX:
        return f"unit {tag.unit_id}: node-red-contrib-modbus allows 0 to {LINE_UNIT_MAX} on a line"
    return None


def _front(subject: Subject, left_out: Sequence[LeftOut]) -> Iterator[Node]:
    """A tab that says what this is, and the broker."""
    tab = stable_id("nodered", "about")
    info = "\n".join(subject.header)
    yield {"id": tab, "type": "tab", "label": "edge-agent", "disabled": False, "info": info}
    host, port, tls = subject.broker
    yield {
        "id": _BROKER_ID,
        "type": "mqtt-broker",
        "name": "",
        "broker": host,
        "port": str(port),
        "clientid": "",
        "autoConnect": True,
        "usetls": tls,
        "tls": "",
        "protocolVersion": "5",
        "keepalive": "60",
        "cleansession": True,
        "autoUnsubscribe": True,
    }
    about = "\n".join(
        (
            *subject.header,
            "",
            "Needs node-red-contrib-modbus 5.",
            "User and password of the broker are entered in its configuration node.",
            "Each tag comes as one message with seven keys on plc/{site}/{device}/{tag}.",
            "Do not run this beside the agent: each sample would come twice.",
        )
    )
    yield _comment(tab, 0, "Generated: the next run replaces this flow", about)
    if left_out:
        named = [str(one) for one in left_out[:LISTED_MAX]]
        if len(left_out) > LISTED_MAX:
            named.append(f"and {len(left_out) - LISTED_MAX} more")
        yield _comment(tab, 1, not_carried(len(left_out)), "\n".join(named))


def _comment(tab: str, row: int, name: str, info: str) -> Node:
    return {
        "id": stable_id("nodered", "comment", row),
        "type": "comment",
        "z": tab,
        "name": name,
        "info": info,
        "x": _COLUMNS[0],
        "y": _ROW_HEIGHT * (row + 1),
        "wires": [],
    }


def _connection(connection: Connection) -> Iterator[Node]:
    """A tab with all that is read over one connection."""
    place = ("nodered", connection.conn)
    tab, client = stable_id(*place, "tab"), stable_id(*place, "client")
    decode, out = stable_id(*place, "decode"), stable_id(*place, "out")
    yield {"id": tab, "type": "tab", "label": connection.conn, "disabled": False, "info": ""}
    yield {"id": client, "type": "modbus-client", "name": connection.conn} | _client(
        parse_conn(connection.conn)
    )
    blocks: dict[str, list[Node]] = {}
    for scan_class in connection.scan_classes:
        for block in scan_class.blocks:
            name = _name(block, scan_class.period_ms)
            blocks[name] = [
                _row(tag, address, block)
                for tag, address in zip(block.tags, block.addresses, strict=True)
            ]
            yield {
                "id": stable_id(*place, name),
                "type": "modbus-read",
                "z": tab,
                "name": name,
                "topic": name,
                "showStatusActivities": False,
                "logIOActivities": False,
                "showErrors": True,
                "showWarnings": True,
                "unitid": str(block.unit_id),
                "dataType": _DATA_TYPES[block.area],
                "adr": str(block.start),
                "quantity": str(block.count),
                "rate": str(scan_class.period_ms),
                "rateUnit": "ms",
                "delayOnStart": False,
                "enableDeformedMessages": False,
                "startDelayTime": "",
                "server": client,
                "useIOFile": False,
                "ioFile": "",
                "useIOForPayload": False,
                "emptyMsgOnFail": False,
                "x": _COLUMNS[0],
                "y": _ROW_HEIGHT * len(blocks),
                "wires": [[decode], []],
            }
    yield {
        "id": decode,
        "type": "function",
        "z": tab,
        "name": "samples",
        "func": render("nodered-decode.js"),
        "initialize": render("nodered-start.js", blocks=blocks),
        "finalize": "",
        "libs": [],
        "outputs": 1,
        "timeout": 0,
        "noerr": 0,
        "x": _COLUMNS[1],
        "y": _ROW_HEIGHT,
        "wires": [[out]],
    }
    yield {
        "id": out,
        "type": "mqtt out",
        "z": tab,
        "name": "plc/{site}/{device}/{tag}",
        "topic": "",
        "qos": "1",
        "retain": "false",
        "respTopic": "",
        "contentType": "",
        "userProps": "",
        "correl": "",
        "expiry": "",
        "broker": _BROKER_ID,
        "x": _COLUMNS[2],
        "y": _ROW_HEIGHT,
        "wires": [],
    }


def _name(block: Block, period_ms: int) -> str:
    """What tells a block from the others of its connection."""
    last = block.start + block.count - 1
    return f"unit {block.unit_id} {block.area} {block.start} to {last}, {period_ms} ms"


def _client(conn: ModbusConn) -> Node:
    """Of the configuration node what the connection decides."""
    serial = conn.transport is Transport.RTU
    framed_as_rtu = conn.transport is Transport.RTU_TCP
    return {
        "clienttype": "simpleser" if serial else "tcp",
        "bufferCommands": True,
        "stateLogEnabled": False,
        "queueLogEnabled": False,
        "failureLogEnabled": True,
        "tcpHost": conn.host,
        "tcpPort": str(conn.port),
        # "TCP-RTU-BUFFERED" has Modbus TCP's frames; plain RTU frames through TCP are called so.
        "tcpType": "TELNET" if framed_as_rtu else "DEFAULT",
        "serialPort": conn.path,
        "serialType": "RTU-BUFFERD",
        "serialBaudrate": str(conn.baudrate),
        "serialDatabits": str(conn.bytesize),
        "serialStopbits": str(conn.stopbits),
        "serialParity": _PARITIES[conn.parity],
        "serialConnectionDelay": str(max(conn.pause_after_connect_ms, 100)),
        "serialAsciiResponseStartDelimiter": "0x3A",
        "unit_id": "1",
        "commandDelay": str(max(conn.pause_ms, 1)),
        "clientTimeout": str(conn.timeout_ms),
        "reconnectOnTimeout": True,
        "reconnectTimeout": "2000",
        # RTU's frames have no number: two units' replies could not be told apart.
        "parallelUnitIdsAllowed": conn.transport is Transport.TCP,
        "showErrors": True,
        "showWarnings": True,
        "showLogs": False,
    }


def _row(tag: Tag, address: Address, block: Block) -> Node:
    """What the function must know of a tag; fields at their defaults are left out."""
    digits = digits_of(tag)
    filtered = tag.deadband > 0 or tag.heartbeat_ms is not None
    fields: Node = {
        "topic": topic_of(tag.series).decode(),
        "site": tag.site,
        "line": tag.line,
        "device": tag.device,
        "tag": tag.tag,
        "unit": tag.unit,
        "at": address.offset - block.start,
        "type": tag.type.value,
        "order": None if tag.byte_order is ByteOrder.ABCD else tag.byte_order.value,
        "bit": address.bit,
        "scale": None if tag.scale == 1 else tag.scale,
        "offset": None if tag.offset == 0 else tag.offset,
        "digits": digits,
        "deadband": tag.deadband if filtered else None,
        "heartbeat_ms": (tag.heartbeat_ms or HEARTBEAT_MS) if filtered else None,
    }
    return {name: value for name, value in fields.items() if value is not None}
