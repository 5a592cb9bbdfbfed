"""One simulated OPC UA server: its nodes, who monitors them, and its restarts.

asyncua's server does the talking, behind a relay of our own (`opcua_relay.py`). No security, no
users, nothing can be written. Each tag is a variable with the node id that the map gives it, below
an object that is called like its device, and of the map's `type` (FLOAT16 as a Float, since OPC UA
has none). Its value is the raw one, before scale and offset.

A value is made when somebody asks for it. In between a node with monitored items is looked at on
the grid of `STEP_MS`, at the shortest sampling interval that a client has asked for, and clients
are told if value or status differ from what they were told last. Source time stamps are those of
the step, so that every sample can be checked by its own time.

Two faults are at home here. *bad_status*: the values of the chosen nodes carry a status; one that
is bad takes the value with it (Part 4, 7.11). Whether it hits is a hash of seed, fault, address and
the number of steps since the start. *restart*: while it is on the listener is closed and all
clients are cut off, with which asyncua forgets their sessions and subscriptions; then the server is
back on its port, with a new start time.

Source: OPC UA Part 4, 5.13.1.2 (sampling interval); Part 6, 5.3.1.10 (node ids).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import NAMESPACE_OID, UUID, uuid5

from asyncua import Server, ua
from asyncua.common.callback import CallbackType
from asyncua.server.user_managers import User, UserRole

from edge_agent.errors import TransientError
from edge_agent.model import Tag
from edge_agent.protocols.opcua_syntax import NodeRef, parse_conn, parse_node
from edge_agent.simulator.base import LOOPBACK
from edge_agent.simulator.faults import Fault, Kind, ListenerFaults
from edge_agent.simulator.opcua_relay import Relay
from edge_agent.simulator.opcua_values import TYPES, Values
from edge_agent.simulator.signals import STEP_MS

# It logs each client that vanishes, and more. Even CRITICAL is used.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)

NAMESPACES_MAX: Final = 1_000
"""Largest index; a server names all namespaces below it to each client."""
SAMPLING_MS_MAX: Final = 3_600_000
"""An hour: a client that wants a value more rarely gets it as often as this."""
RESTART_LATE_S: Final = 0.05
"""How late a restart may begin or end: it is looked for at each step."""

APPLICATION_URI: Final = "urn:edge-agent:simulator"
"""Namespace 1 is the server's own."""
_UA_URI: Final = "http://opcfoundation.org/UA/"


class OpcuaListener:
    """One simulated connection: an OPC UA server and its nodes.

    ``conns`` are the map's names for it, ``tags`` what it answers for; ``port`` is the real one
    after the start. Counted from then on: ``sessions`` activated, ``read_requests`` and
    ``nodes_read`` (those too with which clients look around), ``monitored_items`` created,
    ``changes`` handed to them, and ``spoiled``: values by bad_status, restarts, and replies.
    """

    def __init__(self, host: str, port: int, now_ms: Callable[[], int]) -> None:
        self.conns: list[str] = []
        self.tags: list[Tag] = []
        self.sessions = 0
        self.read_requests = 0
        self.nodes_read = 0
        self.monitored_items = 0
        self.changes = 0
        self._now_ms = now_ms
        self._relay = Relay(host, port)
        self._refs: dict[NodeRef, Tag] = {}
        self._faults: ListenerFaults | None = None
        self._restarts: list[Fault] = []
        self._spoiled: Counter[str] = Counter()
        self._server: Any = None
        self._attributes: list[Any] = []
        """asyncua's own record of each node's value, with its monitored items."""
        self._places: dict[Any, int] = {}
        """By node id, in the order of the signals."""
        self._values = Values((), None, now_ms())
        self._every: dict[int, int] = {}
        """Nodes that are monitored, and each so many steps."""
        self._told: dict[int, tuple[object, int]] = {}
        """What their clients know: value and status."""
        self._step = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def host(self) -> str:
        """Where it listens."""
        return self._relay.host

    @property
    def port(self) -> int:
        """The port that the map names, or the real one once it listens."""
        return self._relay.port

    @property
    def listening(self) -> bool:
        """Whether a client would find it; not so during a restart."""
        return self._relay.listening

    @property
    def spoiled(self) -> Counter[str]:
        """How often each kind of fault has hit."""
        return self._spoiled + self._relay.spoiled + self._values.spoiled

    def describe(self) -> dict[str, object]:
        """What listens where, ready for JSON."""
        return {
            "host": self.host,
            "port": self.port,
            "conns": self.conns,
            "tags": len(self.tags),
        }

    def counted(self) -> dict[str, object]:
        """What was counted since the start, ready for JSON."""
        return {
            "conns": self.conns,
            "sessions": self.sessions,
            "read_requests": self.read_requests,
            "nodes_read": self.nodes_read,
            "monitored_items": self.monitored_items,
            "changes": self.changes,
            "bytes_received": self._relay.bytes_received,
            "bytes_sent": self._relay.bytes_sent,
            "spoiled": dict(self.spoiled),
        }

    def add(self, tag: Tag) -> str | None:
        """Answer for this tag too; or say why it cannot be had."""
        ref = parse_node(tag.address)
        if ref.namespace == APPLICATION_URI:
            ref = replace(ref, namespace=1)
        if ref.namespace in {0, _UA_URI}:
            return f"{tag.address} is in namespace 0, which is the server's own"
        if isinstance(ref.namespace, int) and ref.namespace > NAMESPACES_MAX:
            return f"{tag.address}: namespaces up to {NAMESPACES_MAX} are simulated"
        if not ref.identifier or ref.identifier == UUID(int=0):
            return f"{tag.address} is no node that a server can have: its identifier is null"
        if tag.type not in TYPES:
            return f"OPC UA has no {tag.type}"
        if self._refs.setdefault(ref, tag) is not tag:
            return f"an earlier tag of the map has {tag.address} already"
        if tag.conn not in self.conns:
            self.conns.append(tag.conn)
        self.tags.append(tag)
        return None

    def spoil(self, faults: ListenerFaults | None) -> None:
        """Let these faults happen."""
        if faults is None:
            return
        at_home = {Kind.BAD_STATUS, Kind.RESTART}
        transport = [fault for fault in faults.faults if fault.kind not in at_home]
        self._faults = faults
        self._restarts = [fault for fault in faults.faults if fault.kind is Kind.RESTART]
        self._relay.faults = replace(faults, faults=transport) if transport else None

    async def start(self) -> None:
        """Listen. Raises ``TransientError`` if the address is taken or not this machine's."""
        self._server = await self._build()
        try:
            await self._relay.start(self._server.bserver.port)
        except TransientError:
            await self.stop()
            raise
        self._task = asyncio.create_task(self._run(), name=f"simulator[{self.port}]")

    async def stop(self) -> None:
        """Stop listening and cut all clients off; may be called in any state, also twice.

        Raises whatever has ended the server before, against all expectation.
        """
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._relay.stop()
        server, self._server = self._server, None
        if server is not None:
            await server.stop()
        if task is not None and not task.cancelled():
            task.result()

    async def _build(self) -> Any:
        """asyncua's server with all nodes, listening where nobody looks for it."""
        server = Server(user_manager=_Anybody(self))
        await server.init()
        await server.set_application_uri(APPLICATION_URI)
        await server.get_node(ua.ObjectIds.Server_ServerArray).write_value([APPLICATION_URI])
        server.set_server_name("edge-agent simulator")
        server.set_endpoint(str(parse_conn(self.conns[0])))
        server.socket_address = (LOOPBACK, 0)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.set_identity_tokens([ua.AnonymousIdentityToken])
        await self._add_nodes(server)
        listen = server.iserver.subscribe_server_callback
        listen(CallbackType.PreRead, self._asked)
        listen(CallbackType.ItemSubscriptionCreated, self._monitored)
        await server.start()
        return server

    async def _add_nodes(self, server: Any) -> None:
        values = self._values = Values(self.tags, self._faults, self._now_ms())
        refs = {id(tag): ref for ref, tag in self._refs.items()}
        uris = _namespaces(list(self._refs))
        await server.nodes.namespace_array.write_value(uris)
        devices: dict[tuple[str, ...], Any] = {}
        self._attributes, self._places = [], {}
        self._every, self._told = {}, {}
        for place, tag in enumerate(values.tags):
            name = (tag.site, tag.line, tag.device)
            if name not in devices:
                devices[name] = await server.nodes.objects.add_object(
                    ua.NodeId(uuid5(NAMESPACE_OID, "\x1f".join(name)), 1),
                    ua.QualifiedName(tag.device, 1),
                )
            ref = refs[id(tag)]
            space = ref.namespace
            index = space if isinstance(space, int) else uris.index(space)
            node_id = ua.NodeId(ref.identifier, index)
            kind, convert = TYPES[tag.type]
            await devices[name].add_variable(
                node_id, ua.QualifiedName(tag.tag, index), convert(0), kind
            )
            server.set_attribute_value_callback(node_id, partial(self._value, place))
            self._attributes.append(
                server.iserver.aspace[node_id].attributes[ua.AttributeIds.Value]
            )
            self._places[node_id] = place

    def _value(self, place: int, *_: object) -> Any:
        return self._values.at(place, self._now_ms() // STEP_MS)

    def _asked(self, event: Any, _: object) -> None:
        """A client, or asyncua itself, is about to read."""
        if event.is_external:
            self.read_requests += 1
            self.nodes_read += len(event.request_params.NodesToRead)

    def _monitored(self, event: Any, _: object) -> None:
        """A client has created monitored items, and asyncua has given each its first value."""
        params = event.request_params
        for item, result in zip(params.ItemsToCreate, event.response_params, strict=True):
            place = self._places.get(item.ItemToMonitor.NodeId)
            value = item.ItemToMonitor.AttributeId == ua.AttributeIds.Value
            if place is None or not value or not result.StatusCode.is_good():
                continue
            wanted_ms = item.RequestedParameters.SamplingInterval
            if wanted_ms < 0:  # as often as it is published
                subscriptions = self._server.iserver.subscription_service.subscriptions
                wanted_ms = subscriptions[params.SubscriptionId].data.RevisedPublishingInterval
            every = int(min(max(STEP_MS, wanted_ms), SAMPLING_MS_MAX)) // STEP_MS
            result.RevisedSamplingInterval = float(every * STEP_MS)
            self.monitored_items += 1
            self._every[place] = min(every, self._every.get(place, every))
            self._told.pop(place, None)  # what the others know, this one does not

    async def _run(self) -> None:
        """Tell clients what has changed, at each step; be away while a restart is on."""
        while True:
            await self._follow_restarts()
            step = self._now_ms() // STEP_MS
            if step != self._step:
                await self._tell(step)
                self._step = step
            left_ms = (step + 1) * STEP_MS - self._now_ms()
            await asyncio.sleep(min(max(left_ms / 1000, 0.001), RESTART_LATE_S))

    async def _tell(self, step: int) -> None:
        """Hand on what changed of the nodes that are due, also of those that a late step left."""
        gone = []
        for place, every in self._every.items():
            if step // every == self._step // every:
                continue
            items = self._attributes[place].datachange_callbacks
            if not items:
                gone.append(place)
                continue
            value = self._values.at(place, step)
            known = (value.Value.Value, value.StatusCode.value)
            if known == self._told.get(place):
                continue
            self._told[place] = known
            for handle, tell in list(items.items()):
                self.changes += 1
                await tell(handle, value)
        for place in gone:
            del self._every[place]
            self._told.pop(place, None)

    async def _follow_restarts(self) -> None:
        if self._faults is None or not self._restarts:
            return
        at_s = self._faults.now_s()
        away = any(fault.on(at_s) for fault in self._restarts)
        if away and self._relay.listening:
            self._spoiled[Kind.RESTART] += 1
            await self._relay.stop()
        elif not away and not self._relay.listening:
            started = self._server.get_node(ua.ObjectIds.Server_ServerStatus_StartTime)
            await started.write_value(datetime.now(UTC))
            with suppress(TransientError):  # somebody else has the port now: try at the next step
                await self._relay.start(self._server.bserver.port)


class _Anybody:
    """asyncua's question who a client is, once per session."""

    def __init__(self, server: OpcuaListener) -> None:
        self._server = server

    def get_user(self, *_: object, **__: object) -> Any:
        self._server.sessions += 1
        return User(role=UserRole.User)


def _namespaces(refs: Sequence[NodeRef]) -> list[str]:
    """All namespaces, by their index: those that the map names by a number, then the others."""
    last = max([1, *(ref.namespace for ref in refs if isinstance(ref.namespace, int))])
    numbered = [f"urn:edge-agent:simulator:ns{index}" for index in range(2, last + 1)]
    named = dict.fromkeys(ref.namespace for ref in refs if isinstance(ref.namespace, str))
    return [_UA_URI, APPLICATION_URI, *numbered, *named]
