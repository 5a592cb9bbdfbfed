"""OPC UA, as subscriptions or by polling.

**Subscribing** (the default). A block is one subscription with one monitored item per tag, made by
the block's first read, which is the first to know the tags: the publishing interval is half the
period, so that what a read finds is at most half a period old, and the sampling interval is the
period. What the server sends is put aside as it comes, and each read takes what is there, without
ever waiting. A read that finds nothing is fine.

* Nothing is lost between two reads: the server queues `queue_size` changes per tag between two of
  its answers, and ``CHANGES_MAX`` are kept here per block. What goes beyond either is logged.
* A tag that never changes does not turn stale: while the subscription shows signs of life, a good
  value is repeated (opcua_changes.py says when, and under which time).
* A subscription that shows no sign of life for longer than it promised, one that the server gave
  up, and a connection that ended are a ``TransientError``, after what had arrived before it was
  handed over. The poller then connects anew, and everything is made anew, so that a server that has
  forgotten all about us is no special case. Its first answer has the values of all items.
* The first read may be cancelled: what it began goes on, and a later read finds it done.

**Polling** (`mode=poll`). A read asks for all nodes of the block, in as many requests as the
server's own limit takes.

In both a node is resolved when the connection is made, and one that the server does not have costs
its own tag: NaN, said once. Servers load their address space after they begin to listen, so what
was refused is asked for again now and then.

Source: OPC UA Part 4, 5.11 (attributes), 5.13 (monitored items) and 5.14 (subscriptions).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from math import ceil
from typing import Any, Final

from asyncua import ua

from edge_agent.errors import EdgeAgentError, TransientError
from edge_agent.model import Address, Limits, ValueType
from edge_agent.planner import Block
from edge_agent.protocols import opcua_syntax
from edge_agent.protocols.base import Reply, WallClock
from edge_agent.protocols.opcua_changes import Changes
from edge_agent.protocols.opcua_link import NOTIFICATIONS_MAX, Link
from edge_agent.protocols.opcua_syntax import OpcuaConn
from edge_agent.protocols.opcua_wire import Change, Published, read_results, refused

CHANGES_MAX: Final = 100_000
"""Changes of a block that may wait for a read; about 20 MB. The oldest go first."""
PUBLISHING_MS_MIN: Final = 50
"""No server is asked to answer more often than that."""
PUBLISHING_MS_MAX: Final = 5_000
"""A subscription that has died is noticed within some of these, however long the period is."""
KEEP_ALIVE_COUNT: Final = 1
"""Publishing intervals without a change after which the server says that it lives: a read finds a
sign of life in each period."""
LIFETIME_S: Final = 60.0
"""How long a server keeps a subscription whose agent asks for no answers."""
SILENT_INTERVALS_MAX: Final = 3
"""Signs of life that may be missing, on top of ``timeout_ms``; servers count from one or zero."""
REFUSED_RETRY_S: Final = 60.0
"""How often a refused node is asked for again."""
BLOCKS_MAX: Final = 10_000
"""Of one connection; its plan is far smaller."""


class OpcuaDriver:
    """Reads one OPC UA server."""

    def __init__(self, conn: str, *, now_ms: WallClock) -> None:
        self.conn = opcua_syntax.parse_conn(conn)
        self.timeout_s = self.conn.timeout_ms / 1000
        self._now_ms = now_ms
        self._link: Link | None = None
        self._blocks: dict[int, tuple[Block, _Subscribed | _Polled]] = {}
        """By identity, since hashing a block means hashing all its tags; each is kept alive."""

    @staticmethod
    def parse_conn(conn: str) -> OpcuaConn:
        """Check ``opc.tcp://HOST:PORT/PATH?...``."""
        return opcua_syntax.parse_conn(conn)

    @staticmethod
    def parse_address(address: str, value_type: ValueType) -> Address:
        """Check a node id; every node lies at the same place."""
        return opcua_syntax.parse_address(address, value_type)

    @staticmethod
    def limits(conn: str, area: str) -> Limits:
        """All nodes of a scan class are one block."""
        return opcua_syntax.limits(conn, area)

    async def connect(self) -> None:
        """Make a new session in place of the old one, within ``timeout_s``."""
        await self.close()
        link = self._link = Link(self.conn)
        opened = False
        try:
            async with asyncio.timeout(self.timeout_s):
                await link.open()
            opened = True
        except TimeoutError as error:
            raise TransientError(f"{self.conn}: no session within {self.timeout_s:g} s") from error
        finally:
            if not opened:
                await self.close()

    async def read(self, block: Block) -> Sequence[Reply]:
        """What arrived since the last call, or with `mode=poll` the nodes' values now.

        Only a block's first read, and polls, wait for the server.
        """
        if self._link is None:
            raise TransientError(f"{self.conn}: not connected")
        known = self._blocks.get(id(block))
        if known is None:
            known = self._blocks[id(block)] = (block, self._reader(self._link, block))
        return await known[1].read()

    def _reader(self, link: Link, block: Block) -> _Subscribed | _Polled:
        """A new block's reader; the same block made once more has the one that it had."""
        if len(self._blocks) >= BLOCKS_MAX:
            raise TransientError(f"{self.conn}: more than {BLOCKS_MAX} blocks since connect")
        for other, reader in self._blocks.values():
            if other == block:
                return reader
        kind = _Polled if self.conn.mode == "poll" else _Subscribed
        return kind(link, block, self._now_ms)

    async def forget(self, block: Block) -> None:
        """End a block's subscription."""
        for key, (known, reader) in list(self._blocks.items()):
            if known == block:
                del self._blocks[key]
                if isinstance(reader, _Subscribed):
                    await reader.end()

    async def close(self) -> None:
        """End session, subscriptions and tasks."""
        link, self._link = self._link, None
        self._blocks.clear()
        if link is not None:
            await link.close()


class _Nodes:
    """A block's nodes at the server that a link leads to."""

    def __init__(self, link: Link, block: Block, now_ms: WallClock) -> None:
        self.block = block
        self._link = link
        self._changes = Changes(block, str(link.conn), now_ms)
        refs = [opcua_syntax.parse_node(tag.address) for tag in block.tags]
        self._node_ids = [link.node_id(ref) for ref in refs]
        self._known = [place for place, node_id in enumerate(self._node_ids) if node_id is not None]
        self._unknown = [
            refused(place, ua.StatusCodes.BadNodeIdUnknown)
            for place, node_id in enumerate(self._node_ids)
            if node_id is None
        ]


class _Polled(_Nodes):
    """A block that is asked for."""

    def __init__(self, link: Link, block: Block, now_ms: WallClock) -> None:
        super().__init__(link, block, now_ms)
        parts = [
            self._known[start : start + link.read_max]
            for start in range(0, len(self._known), link.read_max)
        ]
        self._requests = [(self._request(places), places) for places in parts]

    async def read(self) -> Sequence[Reply]:
        changes = list(self._unknown)
        confirmed_ms = None
        complete = False
        try:
            for request, places in self._requests:
                decode = partial(read_results, positions=places)
                part, sent_ms = await self._link.exchange(request, decode)
                confirmed_ms = confirmed_ms or sent_ms
                changes += part
            complete = True
        finally:
            if not complete:
                self._changes.forget()
        if confirmed_ms is None:
            return self._changes.replies(self._unknown)
        return self._changes.polled(changes, confirmed_ms)

    def _request(self, places: Sequence[int]) -> Any:
        request = ua.ReadRequest()
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.NodesToRead = [
            ua.ReadValueId(NodeId_=self._node_ids[place], AttributeId=ua.AttributeIds.Value)
            for place in places
        ]
        return request


class _Subscribed(_Nodes):
    """A block whose changes are sent to us."""

    def __init__(self, link: Link, block: Block, now_ms: WallClock) -> None:
        super().__init__(link, block, now_ms)
        self._arrived = deque(self._unknown)
        self._dropped = 0
        self._confirmed_ms: int | None = None
        self._given_up: str | None = None
        self._monotonic = asyncio.get_running_loop().time
        self._seen_at = self._monotonic()
        self._silent_s_max = LIFETIME_S
        self._subscription_id: int | None = None
        self._refused: list[int] = []
        self._retry_at = 0.0
        self._setup: asyncio.Task[None] | None = None

    async def read(self) -> Sequence[Reply]:
        if self._subscription_id is None or self._setup is not None:
            await self._set_up()
        replies = self._take()
        if not replies:
            self._check_alive()
        if self._refused and self._setup is None and self._monotonic() >= self._retry_at:
            self._setup = self._link.start(self._retry(), "subscribe")
        return replies

    async def end(self) -> None:
        """Ask the server to send nothing any more."""
        if self._setup is not None:
            await asyncio.wait([self._setup])
        subscription_id, self._subscription_id = self._subscription_id, None
        if subscription_id is not None and self._link.ended is None:
            await self._link.unsubscribe(subscription_id)

    async def _set_up(self) -> None:
        """Wait for the subscription; a wait that is cancelled leaves it in the making."""
        if self._setup is None:
            self._setup = self._link.start(self._subscribe(), "subscribe")
        elif not self._setup.done() and self._subscription_id is not None:
            return  # only refused nodes are asked for again
        try:
            await asyncio.shield(self._setup)
        finally:
            if self._setup.done():
                self._setup = None

    async def _subscribe(self) -> None:
        period_ms = self.block.tags[0].period_ms
        interval_ms = min(max(period_ms / 2, PUBLISHING_MS_MIN), PUBLISHING_MS_MAX)
        params = ua.CreateSubscriptionParameters()
        params.RequestedPublishingInterval = interval_ms
        params.RequestedMaxKeepAliveCount = KEEP_ALIVE_COUNT
        params.RequestedLifetimeCount = max(ceil(LIFETIME_S * 1000 / interval_ms), 3)
        params.MaxNotificationsPerPublish = NOTIFICATIONS_MAX
        params.PublishingEnabled = True
        result = await self._link.subscribe(params, self._published)
        keep_alive_s = (
            result.RevisedPublishingInterval / 1000 * (result.RevisedMaxKeepAliveCount + 1)
        )
        self._silent_s_max = keep_alive_s * SILENT_INTERVALS_MAX + self._link.conn.timeout_ms / 1000
        try:
            await self._monitor(result.SubscriptionId, self._known)
        except EdgeAgentError:
            if self._link.ended is None:
                with suppress(EdgeAgentError):
                    await self._link.unsubscribe(result.SubscriptionId)
            raise
        self._subscription_id = result.SubscriptionId
        self._seen_at = self._monotonic()

    async def _monitor(self, subscription_id: int, places: Sequence[int]) -> None:
        """Create monitored items; what the server refuses becomes bad."""
        refusals = []
        for start in range(0, len(places), self._link.monitor_max):
            part = places[start : start + self._link.monitor_max]
            request = ua.CreateMonitoredItemsRequest()
            request.Parameters.SubscriptionId = subscription_id
            request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
            request.Parameters.ItemsToCreate = [self._item(place) for place in part]
            answer = await self._link.request(request, ua.CreateMonitoredItemsResponse)
            _check_count(self._link.conn, answer.Results, part)
            for place, result in zip(part, answer.Results, strict=True):
                if not result.StatusCode.is_good():
                    refusals.append(place)
                    self._put([refused(place, result.StatusCode.value)])
        self._refused = refusals
        self._retry_at = self._monotonic() + REFUSED_RETRY_S

    def _item(self, place: int) -> Any:
        conn: OpcuaConn = self._link.conn
        period_ms = self.block.tags[0].period_ms
        item = ua.MonitoredItemCreateRequest()
        item.ItemToMonitor.NodeId = self._node_ids[place]
        item.ItemToMonitor.AttributeId = ua.AttributeIds.Value
        item.MonitoringMode = ua.MonitoringMode.Reporting
        parameters = item.RequestedParameters
        parameters.ClientHandle = place
        parameters.SamplingInterval = float(
            period_ms if conn.sampling_ms is None else conn.sampling_ms
        )
        parameters.QueueSize = conn.queue_size
        parameters.DiscardOldest = True
        return item

    def _published(self, answer: Published) -> None:
        """Put an answer of the server aside."""
        self._seen_at = self._monotonic()
        size = len(self.block.tags)
        self._put([change for change in answer.changes if change.position < size])
        if answer.given_up is not None:
            self._given_up = f"the server gave the subscription up: {answer.given_up}"
        if not answer.more:
            self._confirmed_ms = answer.sent_ms

    def _put(self, changes: Sequence[Change]) -> None:
        self._arrived.extend(changes)
        while len(self._arrived) > CHANGES_MAX:
            self._arrived.popleft()
            self._dropped += 1

    def _take(self) -> Sequence[Reply]:
        arrived, self._arrived = self._arrived, deque()
        confirmed_ms, self._confirmed_ms = self._confirmed_ms, None
        if self._dropped:
            self._changes.lost(self._dropped)
            self._dropped = 0
        return self._changes.replies(arrived, confirmed_ms)

    def _check_alive(self) -> None:
        """Raises ``TransientError`` where nothing will arrive any more."""
        silent_s = self._monotonic() - self._seen_at
        text = self._link.ended or self._given_up
        if text is None and silent_s > self._silent_s_max:
            text = f"the subscription has shown no sign of life for {silent_s:.1f} s"
        if text is not None:
            raise TransientError(f"{self._link.conn}: {text}")

    async def _retry(self) -> None:
        """Ask again for what was refused; a failure of this is not the block's."""
        assert self._subscription_id is not None
        self._retry_at = self._monotonic() + REFUSED_RETRY_S
        try:
            await self._monitor(self._subscription_id, self._refused)
        except EdgeAgentError:
            self._retry_at = self._monotonic() + REFUSED_RETRY_S


def _check_count(conn: OpcuaConn, results: Sequence[Any], asked: Sequence[int]) -> None:
    if len(results or ()) != len(asked):
        raise TransientError(f"{conn}: {len(results or ())} results for {len(asked)} nodes")
