"""MQTT in: topics that others publish on become tags.

One subscription of QoS 1 per topic, MQTT 5, a clean session per connection. Messages are decoded
as they come and wait, per block, until the poller asks: `read` gives all of them, oldest first,
and waits for nothing but the broker's answer to a block's first SUBSCRIBE.

What a message is worth
-----------------------
* Its time is its arrival; that of a seven-key message is its own ``ts``.
* A *retained* message is a value of unknown age, which every connection gets again. It counts only
  if it is a seven-key message, whose age is known, and not older than what its tag has had. After a
  reconnect the same one can so come twice, with the same time, which databases keep once: it says
  that nothing has changed meanwhile, and the tag is good again.
* A payload that is not understood is NaN, at its arrival: the tag turns bad, since what stood there
  before is no longer what the publisher says. It is counted, and said once per topic. One tag's
  path that leads nowhere leaves the topic's other tags as they are.
* A topic that the broker refuses makes its tags bad; the others go on. It is asked for again each
  ``REFUSED_RETRY_S``. (Mosquitto's `acl_file` does not refuse to be asked: it just sends nothing,
  and the tag stays "not read yet".)
* What nobody fetches is bounded: past ``WAITING_MAX`` the oldest are dropped, counted, and that is
  said once per connection.

What is lost
------------
aiomqtt acknowledges a message when it has handed it over. Killed then, what had arrived and was
not in the journal yet is lost: at most what came within one period and one commit. What is
published while there is no connection is not kept for us. A publisher whose messages must survive
that speaks the seven-key message, and `ingest_topics` takes it (`pipeline/ingest.py`).
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Final

from edge_agent.errors import DeviceError, TransientError
from edge_agent.model import Limits, Tag, ValueType
from edge_agent.planner import Block
from edge_agent.protocols import mqtt_syntax
from edge_agent.protocols.base import Reply, WallClock
from edge_agent.protocols.mqtt_link import LOGIN_HINT, Link, Message

log = logging.getLogger(__name__)

WAITING_MAX: Final = 100_000
"""Messages that wait to be read, per block: 12 MB. 20 s at 5,000/s, or a day at one a second."""
TOPICS_PER_SUBSCRIBE_MAX: Final = 200
"""A SUBSCRIBE of 1,000-character topics stays below the 268,435,455 bytes of a packet by far."""
REFUSED_RETRY_S: Final = 60.0
"""A broker's rights are changed by a person: a minute later it is noticed."""
SHOWN_BYTES_MAX: Final = 60
"""Of a payload that is not understood; enough to recognise it."""


class MqttDriver:
    """Reads the topics of one broker. ``counters`` are since the driver was made."""

    def __init__(self, conn: str, *, now_ms: WallClock) -> None:
        self.conn = mqtt_syntax.parse_conn(conn)
        self.timeout_s = self.conn.timeout_ms / 1000
        self.counters = Counters()
        self._now_ms = now_ms
        self._link: Link | None = None
        self._inboxes: dict[int, _Inbox] = {}
        self._left: list[_Inbox] = []
        """Inboxes whose tags others took over on this connection, and whose map is gone."""
        self._topics: dict[str, _Topic] = {}
        self._client_id = self.conn.client_id or f"edge-agent-{uuid.uuid4().hex[:16]}"

    parse_conn = staticmethod(mqtt_syntax.parse_conn)
    parse_address = staticmethod(mqtt_syntax.parse_address)

    @staticmethod
    def limits(conn: str, area: str) -> Limits:  # noqa: ARG004
        """All topics lie on one spot: any number of them is one block."""
        return Limits(1, 0)

    async def connect(self) -> None:
        """Open a new connection in place of the old one, within ``timeout_s``."""
        await self.close()
        self._drop(self._left)
        self._link = await Link.open(self.conn, self._take, client_id=self._client_id)
        for topic in self._topics.values():
            topic.asked_at = None

    async def read(self, block: Block) -> Sequence[Reply]:
        """What has arrived for a block's tags since the last call.

        The first call after a connect subscribes to the block's topics and waits for the broker's
        answer. Raises ``DeviceError`` if it refuses all of them.
        """
        if self._link is None:
            raise TransientError(f"{self.conn}: not connected")
        self._link.check()
        inbox = self._inboxes.get(id(block)) or self._inbox_of(block)
        await self._subscribe(self._link, inbox)
        if refusal := inbox.refusal():
            raise DeviceError(f"{self.conn}: {refusal}", hint=LOGIN_HINT)
        return inbox.take_all()

    async def forget(self, block: Block) -> None:
        """End the subscriptions that only this block had."""
        names = self._drop([inbox for inbox in self._inboxes.values() if inbox.block == block])
        if self._link is not None:
            for start in range(0, len(names), TOPICS_PER_SUBSCRIBE_MAX):
                await self._link.unsubscribe(names[start : start + TOPICS_PER_SUBSCRIBE_MAX])

    def _drop(self, inboxes: Sequence[_Inbox]) -> list[str]:
        """Close inboxes; the topics that nobody wants any more."""
        self._inboxes = {key: one for key, one in self._inboxes.items() if one not in inboxes}
        self._left = [one for one in self._left if one not in inboxes]
        names = []
        for topic in list(self._topics.values()):
            topic.wanted = [one for one in topic.wanted if one.inbox not in inboxes]
            if not topic.wanted:
                names.append(topic.name)
                del self._topics[topic.name]
        return names

    async def close(self) -> None:
        """Hang up. What has arrived and was not read yet is kept for the next connection."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def _inbox_of(self, block: Block) -> _Inbox:
        """The inbox of a block that is new as an object: that of an equal one, or a new one."""
        equal = (one for one in self._inboxes.values() if one.block == block)
        inbox = next((one for one in equal if one not in self._left), None)
        if inbox is None:
            inbox = self._open_inbox(block)
        else:
            del self._inboxes[id(inbox.block)]
            inbox.block = block
        self._inboxes[id(block)] = inbox
        return inbox

    def _open_inbox(self, block: Block) -> _Inbox:
        inbox = _Inbox(block)
        for position, tag in enumerate(block.tags):
            source = mqtt_syntax.parse_source(tag.address)
            topic = self._topics.setdefault(source.topic, _Topic(source.topic))
            topic.asked_at = None  # again, if it was before: what is retained comes once more
            is_bool = tag.type is ValueType.BOOL
            pick = mqtt_syntax.picker(source.path)
            topic.wanted.append(_Wanted(inbox, position, pick, is_bool))
            if topic not in inbox.topics:
                inbox.topics.append(topic)
        for former in self._inboxes.values():
            if former.link is not self._link:
                self._take_over(inbox, former)
        return inbox

    def _take_over(self, inbox: _Inbox, former: _Inbox) -> None:
        """What waits in an inbox of an earlier connection for tags that both have.

        One block of a map has each tag: the former's map is gone, changed while there was no
        connection, so that nobody reads it or forgets it. It gets nothing more, and keeps what it
        has for further inboxes that share its tags.
        """
        places = {_source(tag): place for place, tag in enumerate(inbox.block.tags)}
        found = ((place, places.get(_source(tag))) for place, tag in enumerate(former.block.tags))
        moves = {old: new for old, new in found if new is not None}
        if not moves:
            return
        self._left.append(former)
        inbox.waiting += [(ms, moves[at], value) for ms, at, value in former.waiting if at in moves]
        former.waiting = deque(one for one in former.waiting if one[1] not in moves)
        newest: dict[int, int] = {}
        for topic in former.topics:
            ended = [one for one in topic.wanted if one.inbox is former]
            newest |= {moves[w.position]: w.newest_ms for w in ended if w.position in moves}
            topic.wanted = [one for one in topic.wanted if one.inbox is not former]
        for topic in inbox.topics:
            for wanted in topic.wanted:
                if wanted.inbox is inbox:
                    wanted.newest_ms = newest.get(wanted.position, wanted.newest_ms)

    async def _subscribe(self, link: Link, inbox: _Inbox) -> None:
        """Ask for the topics that were not asked for yet, or were refused long enough ago."""
        now = asyncio.get_running_loop().time()
        if inbox.link is link and now < inbox.retry_at:
            return
        due = [topic for topic in inbox.topics if topic.is_due(now)]
        for start in range(0, len(due), TOPICS_PER_SUBSCRIBE_MAX):
            portion = due[start : start + TOPICS_PER_SUBSCRIBE_MAX]
            refusals = await link.subscribe([topic.name for topic in portion])
            for topic, refusal in zip(portion, refusals, strict=True):
                topic.asked_at, topic.refusal = now, refusal
                if refusal is not None:
                    self._refused(topic, refusal)
        inbox.link, inbox.retry_at = link, now + REFUSED_RETRY_S

    def _refused(self, topic: _Topic, reason: str) -> None:
        self.counters.refused += 1
        self._say_once(topic, f"the broker refuses the subscription: {reason}; {LOGIN_HINT}")
        self._spoil(topic, self._now_ms())

    def _spoil(self, topic: _Topic, ts_ms: int) -> None:
        for wanted in topic.wanted:
            self._put(wanted.inbox, ts_ms, wanted.position, nan)

    def _take(self, message: Message) -> None:
        """One message, as it arrives. Never raises, for whatever is in it."""
        topic = self._topics.get(message.topic.value)
        if topic is None:
            return
        self.counters.messages += 1
        now_ms = self._now_ms()
        payload = message.payload
        try:
            document = mqtt_syntax.decode(payload)
            own_ms = mqtt_syntax.own_time_ms(document, now_ms)
        except ValueError as error:
            if not message.retain:
                self._not_understood(topic, payload, error)
                self._spoil(topic, now_ms)
            return
        if message.retain and own_ms is None:
            self.counters.retained_left_out += 1
            return
        ts_ms = now_ms if own_ms is None else own_ms
        for wanted in topic.wanted:
            if message.retain and ts_ms < wanted.newest_ms:
                continue
            wanted.newest_ms = max(ts_ms, wanted.newest_ms)
            try:
                value = mqtt_syntax.number(wanted.pick(document), is_bool=wanted.is_bool)
            except ValueError as error:
                self._not_understood(topic, payload, error)
                value = nan
            self._put(wanted.inbox, ts_ms, wanted.position, value)

    def _not_understood(self, topic: _Topic, payload: bytes, error: ValueError) -> None:
        self.counters.not_understood += 1
        shown = payload[:SHOWN_BYTES_MAX].decode(errors="replace")
        self._say_once(topic, f"not understood: {error}; payload={shown!r}")

    def _say_once(self, topic: _Topic, text: str) -> None:
        level = logging.DEBUG if topic.complained else logging.WARNING
        topic.complained = True
        log.log(level, "%s: topic %s: %s (said once per topic)", self.conn, topic.name, text)

    def _put(self, inbox: _Inbox, ts_ms: int, position: int, value: float) -> None:
        if len(inbox.waiting) >= WAITING_MAX:
            inbox.waiting.popleft()
            self.counters.overflowed += 1
            if self.counters.overflowed == 1:
                log.warning(
                    "%s: more than %d messages wait to be read, the oldest are dropped (said once);"
                    " a shorter period_ms fetches them more often",
                    self.conn,
                    WAITING_MAX,
                )
        inbox.waiting.append((ts_ms, position, value))


def _source(tag: Tag) -> tuple[object, ...]:
    """What makes two rows the same tag with the same raw values."""
    return tag.key, tag.address, tag.type


@dataclass(slots=True)
class Counters:
    """What a driver has seen."""

    messages: int = 0
    not_understood: int = 0
    """Values that a payload did not have: one for each tag that wanted one."""
    retained_left_out: int = 0
    overflowed: int = 0
    refused: int = 0
    """Subscriptions that the broker refused, repetitions included."""


@dataclass(slots=True, eq=False)
class _Wanted:
    """One tag's interest in a topic."""

    inbox: _Inbox
    position: int
    pick: Callable[[object], object]
    is_bool: bool
    newest_ms: int = 0
    """Newest time of a value that it was given."""


@dataclass(slots=True, eq=False)
class _Topic:
    """One subscription, and who wants its values."""

    name: str
    wanted: list[_Wanted] = field(default_factory=list)
    asked_at: float | None = None
    """Loop time of the broker's answer; None if there is none on this connection."""
    refusal: str | None = None
    complained: bool = False

    def is_due(self, now: float) -> bool:
        """Whether to ask the broker for it."""
        if self.asked_at is None:
            return True
        return self.refusal is not None and now - self.asked_at >= REFUSED_RETRY_S


@dataclass(slots=True, eq=False)
class _Inbox:
    """What waits for one block: (ms since 1970 UTC, tag's place in the block, value)."""

    block: Block  # keeps it alive: `MqttDriver._inboxes` goes by its identity
    topics: list[_Topic] = field(default_factory=list)
    waiting: deque[tuple[int, int, float]] = field(default_factory=deque)
    link: Link | None = None
    """The connection on which all its topics were asked for."""
    retry_at: float = 0.0
    """Loop time at which those that the broker refused are asked for again."""

    def refusal(self) -> str | None:
        """Why no topic of the block can be had; None if one can."""
        if any(topic.refusal is None for topic in self.topics):
            return None
        first = self.topics[0]
        more = f" (and {len(self.topics) - 1} more)" if len(self.topics) > 1 else ""
        return f"topic {first.name}{more}: the broker refuses the subscription: {first.refusal}"

    def take_all(self) -> list[Reply]:
        """Everything that waits, oldest first; neighbours that share a time share a reply."""
        replies: list[Reply] = []
        waiting, self.waiting = self.waiting, deque()
        last_ms: int | None = None
        for ts_ms, position, value in waiting:
            if ts_ms != last_ms:
                last_ms = ts_ms
                values: list[float] = []
                positions: list[int] = []
                replies.append(Reply(ts_ms, values, positions))
            values.append(value)
            positions.append(position)
        return replies
