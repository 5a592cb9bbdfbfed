"""The MQTT sink: every sample as one message, confirmed by the broker.

Guarantee: at least once, in order per tag, QoS 1, each PUBACK's reason code checked. A message
that the broker refuses (an ACL, its size limit) is a rejected row with the broker's reason; it is
never taken for delivered. Mosquitto's own queues are not part of the guarantee.

Duplicates are kept few: after a failure the sink remembers how far the broker had confirmed, and
skips that part when the same batches come again. A restart of the agent forgets it.

Status: the retained topic ``edge-agent/{agent_id}/status`` says ``online``, or ``offline`` with
the reason ``stopped`` (closed on purpose) or ``connection lost`` (the last will). How each device
is stands in the retained topic ``plc-status/{site}/{device}``; while the agent is offline it is as
old as that.

If the agent also listens to the broker, whatever is published says by a user property which agent
it comes from (`message.ORIGIN`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, starmap
from pathlib import Path

import mqtt5
import orjson

from edge_agent import __version__
from edge_agent.errors import RejectedRow, RejectedRows, TransientError
from edge_agent.model import Batch
from edge_agent.settings import Broker
from edge_agent.sinks.base import DeviceReport, JournalIdentity
from edge_agent.sinks.message import ORIGIN, MessageRenderer, Messages, status_topic_of, topic_of
from edge_agent.sinks.mqtt_publisher import (
    ACK_TIMEOUT_S,
    INCOMING_BYTES_MAX,
    KEEP_ALIVE_S,
    Publisher,
)
from edge_agent.sinks.mqtt_window import PublishWindow, encoded_property

logger = logging.getLogger(__name__)

WITHHOLD_S = 600
"""How long a topic that the broker hangs up over is not tried: two connections are lost per try."""

TELLING_LOSSES_MAX = 2
"""Connections lost in a row while devices' status was sent; the first may be chance."""


@dataclass(slots=True)
class _Confirmed:
    """How far the broker has answered for a batch that is not delivered yet."""

    length: int
    count: int
    rejected: list[RejectedRow] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Withheld:
    """A topic that the broker hangs up over: why, and until when it is not sent."""

    reason: str
    until: float


class MqttSink:
    """Delivers to one MQTT 5 broker. The constructor does no I/O.

    Messages carry the agent's id if ``is_marked``. Files are PEM, for a broker with TLS;
    ``cert_file`` and ``key_file`` go together.
    """

    name = "mqtt"

    def __init__(
        self,
        *,
        agent_id: str,
        broker: Broker,
        username: str | None = None,
        password: str | None = None,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        is_marked: bool = False,
        version: str = __version__,
        ack_timeout_s: float = ACK_TIMEOUT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._broker = broker
        self._agent_id = agent_id
        self._origin = [(ORIGIN, agent_id)] if is_marked else []
        self._version = version
        self._username = username
        self._password = password
        self._ca_file = ca_file
        self._cert_file = cert_file
        self._key_file = key_file
        self._ack_timeout_s = ack_timeout_s
        self._status_topic = f"edge-agent/{agent_id}/status"
        self._status_was_refused = False
        self._silent_until = -math.inf
        self._said_silent = False
        self._losses_by_telling = 0
        self._session = 0
        self._publishing = asyncio.Lock()  # a connection publishes one window at a time
        self._publisher: Publisher | None = None
        self._renderer = MessageRenderer()
        self._journal: JournalIdentity | None = None
        self._confirmed: dict[int, _Confirmed] = {}
        self._careful = 0
        self._withheld: dict[bytes, _Withheld] = {}
        self._monotonic = monotonic

    async def open(self, journal: JournalIdentity) -> None:
        """Make one attempt to connect and say ``online``. Raises ``TransientError``."""
        await self.close()
        if journal != self._journal:
            self._journal = journal
            self._confirmed.clear()
        self._renderer = MessageRenderer()  # series ids mean something within one journal only
        tls = await asyncio.to_thread(self._tls_context) if self._broker.tls else None
        self._publisher = await Publisher.connect(
            self._broker.host,
            self._broker.port,
            self._login(),
            tls=tls,
            ack_timeout_s=self._ack_timeout_s,
            properties=b"".join(starmap(encoded_property, self._origin)),
        )
        await self._announce(self._publisher)
        self._session += 1

    @property
    def session(self) -> int:
        """How often `open` succeeded."""
        return self._session

    async def tell(
        self, reports: Sequence[DeviceReport], gone: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Publish how devices are, retained. A broker that does not want it still gets samples.

        Of those that are gone the retained message is removed (MQTT 5.0, 3.3.1.3: by an empty one).

        Raises ``TransientError``, also for a while after the broker has refused it, or has hung
        up over it twice: it shall not cost the samples their connection again and again.
        """
        if self._monotonic() < self._silent_until:
            raise TransientError("the broker does not want the devices' status")
        topics = [status_topic_of(report.site, report.device) for report in reports]
        topics += [status_topic_of(*device) for device in gone]
        payloads = [*map(orjson.dumps, reports), *[b""] * len(gone)]
        async with self._publishing:
            if self._publisher is None:
                raise TransientError("the MQTT sink is not open")
            window = self._publisher.window([Messages(topics, payloads)], retain=True)
            self._losses_by_telling += 1
            await self._publish_status(window)
        refused = next(((topics[at], reason) for at, reason in window.refused.items()), None)
        if refused:
            self._keep_silent(f"topic={refused[0].decode()} reason={refused[1]}")
        else:
            self._said_silent = False

    async def _publish_status(self, window: PublishWindow) -> None:
        assert self._publisher is not None
        try:
            await self._publisher.publish(window)
        except TransientError as error:
            if self._losses_by_telling >= TELLING_LOSSES_MAX:
                self._keep_silent(str(error))
            raise
        self._losses_by_telling = 0

    def _keep_silent(self, reason: str) -> None:
        self._silent_until = self._monotonic() + WITHHOLD_S
        if not self._said_silent:
            logger.warning(
                "device status refused, samples are delivered all the same, it is tried again in"
                " %d s; %s",
                WITHHOLD_S,
                reason,
            )
        self._said_silent = True

    async def deliver(self, batches: Sequence[Batch]) -> int:
        """Publish all samples and wait for every PUBACK.

        Returns how many the broker had confirmed in an earlier, failed attempt. Raises
        ``TransientError``, or ``RejectedRows`` with the broker's reason for each refused message.
        """
        if self._publisher is None:
            raise TransientError("the MQTT sink is not open")
        if batches and batches[0].sequence not in self._confirmed:
            self._confirmed.clear()  # not the batches of the failed attempt
        confirmed = [self._confirmed_of(batch) for batch in batches]
        had = [so_far.count - len(so_far.rejected) for so_far in confirmed]
        starts = [so_far.count for so_far in confirmed]
        window = self._publisher.window(
            self._render(batches, starts), careful=self._careful, withheld=self._withheld_now()
        )
        try:
            async with self._publishing:
                await self._publisher.publish(window)
        except TransientError:
            self._confirmed = _progress(batches, confirmed, window)
            self._suspect(batches, window)
            raise
        except asyncio.CancelledError:
            self._confirmed = _progress(batches, confirmed, window)
            raise
        _progress(batches, confirmed, window)
        self._careful = 0
        self._confirmed = {}
        rejected = [row for so_far in confirmed for row in so_far.rejected]
        if rejected:
            raise RejectedRows(rejected, duplicates=sum(had))
        return sum(had)

    async def close(self) -> None:
        """Say ``offline`` and hang up. Never raises; takes a bounded time."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            farewell = mqtt5.PublishPacket(
                self._status_topic,
                self._status("offline", "stopped"),
                retain=True,
                user_properties=self._origin,
            )
            await publisher.close(farewell.write())

    def _withheld_now(self) -> dict[bytes, str]:
        """The topics that are not sent now, each with the broker's reason."""
        now = self._monotonic()
        self._withheld = {t: held for t, held in self._withheld.items() if held.until > now}
        return {topic: held.reason for topic, held in self._withheld.items()}

    def _suspect(self, batches: Sequence[Batch], window: PublishWindow) -> None:
        """The connection was lost: was it over one of the messages in flight?

        Mosquitto 2.0 with ``max_queued_messages 0`` refuses a message that its ACL denies and then
        hangs up, and most answers are lost with the connection. So what was in flight is sent one
        message at a time next; if the connection then ends right after a refusal, that topic is
        refused without being sent for a while. Otherwise one denied tag would stop all others.
        """
        self._careful = max(window.sent - window.answered, 1)
        if not window.careful or window.answered - 1 not in window.refused:
            return
        confirmed = (self._confirmed[batch.sequence] for batch in batches)
        row = [row for so_far in confirmed for row in so_far.rejected][-1]
        batch = next(batch for batch in batches if batch.sequence == row.sequence)
        topic = topic_of(batch.series[batch.series_ids[row.index]])
        if topic in self._withheld:
            return  # refused here, not by the broker
        self._withheld[topic] = _Withheld(row.reason, self._monotonic() + WITHHOLD_S)
        logger.warning(
            "the broker hangs up over a topic, it is not sent for %d s; topic=%s reason=%s",
            WITHHOLD_S,
            topic.decode(),
            row.reason,
        )

    def _confirmed_of(self, batch: Batch) -> _Confirmed:
        # A batch that the journal has thinned out meanwhile is another one.
        known = self._confirmed.get(batch.sequence)
        if known is None or known.length != len(batch):
            return _Confirmed(len(batch), 0)
        return known

    def _render(self, batches: Sequence[Batch], starts: Sequence[int]) -> Iterator[Messages]:
        for batch, start in zip(batches, starts, strict=True):
            yield from self._renderer.render(batch, start)

    async def _announce(self, publisher: Publisher) -> None:
        message = Messages([self._status_topic.encode()], [self._status("online")])
        window = publisher.window([message], retain=True)
        await publisher.publish(window)
        refused = bool(window.refused)
        if refused and not self._status_was_refused:
            logger.warning(
                "status topic refused, samples are delivered all the same; topic=%s reason=%s",
                self._status_topic,
                window.refused[0],
            )
        self._status_was_refused = refused

    def _status(self, status: str, reason: str | None = None) -> bytes:
        message = {"status": status, "agent": self._agent_id, "version": self._version}
        return orjson.dumps(message | ({"reason": reason} if reason else {}))

    def _login(self) -> mqtt5.ConnectPacket:
        return mqtt5.ConnectPacket(
            f"edge-agent-{self._agent_id}",
            username=self._username,
            password=self._password.encode() if self._password is not None else None,
            clean_start=True,
            keep_alive=KEEP_ALIVE_S,
            max_packet_size=INCOMING_BYTES_MAX,
            will=mqtt5.Will(
                self._status_topic,
                payload=self._status("offline", "connection lost"),
                qos=mqtt5.QoS.AT_LEAST_ONCE,
                retain=True,
                user_properties=self._origin,
            ),
        )

    def _tls_context(self) -> ssl.SSLContext:
        """Reads the files, so it does not belong on the event loop."""
        host, port, _ = self._broker
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
            if self._cert_file:
                # An empty password makes an encrypted key an error; without it OpenSSL asks on
                # the terminal and waits.
                context.load_cert_chain(self._cert_file, self._key_file, password="")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise TransientError(
                f"broker {host}:{port}: cannot load the TLS files: {error}",
                hint="check ca_file, cert_file and key_file of [mqtt]: PEM, readable, key not"
                " encrypted",
            ) from error
        return context


def _progress(
    batches: Sequence[Batch], confirmed: Sequence[_Confirmed], window: PublishWindow
) -> dict[int, _Confirmed]:
    """Add a window's answers to what was confirmed before; by sequence.

    Counts only the answers before the first missing one: what lies behind comes again.
    """
    to_send = [so_far.length - so_far.count for so_far in confirmed]
    ends = list(accumulate(to_send))
    starts = [so_far.count for so_far in confirmed]
    for position in sorted(window.refused):
        if position < window.answered:
            which = bisect_right(ends, position)
            index = starts[which] + position - (ends[which] - to_send[which])
            row = RejectedRow(batches[which].sequence, index, window.refused[position])
            confirmed[which].rejected.append(row)
    for so_far, end, size in zip(confirmed, ends, to_send, strict=True):
        so_far.count += max(0, min(size, window.answered - (end - size)))
    return {batch.sequence: so_far for batch, so_far in zip(batches, confirmed, strict=True)}
