"""One MQTT 5 connection that publishes.

How it is fast. The broker says how many messages may be unanswered (`receive maximum`, 20 with
Mosquitto's defaults). Sending that many and waiting for all would cost a delayed ACK per window,
45 ms; instead the window slides: whatever PUBACKs a read brings are refilled in one write. That
write carries TCP's acknowledgement, without which a broker that lacks TCP_NODELAY (Mosquitto by
default) would hold the next PUBACKs back; where there is nothing to write, TCP_QUICKACK asks for
it. With a large window (Mosquitto: `max_inflight_messages 1000`) reading rests for a millisecond
while the broker has enough to do: 1.1 us of CPU per message then, against 4 to 6 at the default.

The PUBLISH and the short PUBACK are handled by `mqtt_window`, every other packet by `mqtt5`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import Self, cast

import mqtt5

from edge_agent.errors import TransientError
from edge_agent.sinks.message import Messages
from edge_agent.sinks.mqtt_window import (
    REFUSED_MIN,
    PublishWindow,
    reason_in_words,
)
from edge_agent.text.reasons import reason_of

CONNECT_TIMEOUT_S = 10.0
"""From the name look-up to the broker's CONNACK: a TLS handshake on a Pi over a slow link."""

CLOSE_TIMEOUT_S = 2.0
"""For the broker to take a farewell and hang up; shutdown has little time."""

ACK_TIMEOUT_S = 10.0
"""Without any PUBACK while some are due."""

KEEP_ALIVE_S = 30
"""Our own proposal; the broker may name another one. It is what the last will waits for."""

TICK_S = 1.0
"""How often silence is looked at."""

WINDOW_MAX = 1_000
"""Unanswered messages at most: past this a larger window brings no speed, only duplicates."""

READ_PAUSE_S = 0.001
"""Shortest sleep that uvloop knows."""

READ_PAUSE_UNANSWERED_MIN = 200
"""A broker is busy with so many for `READ_PAUSE_S` (Mosquitto: 4 to 6 us each); it never idles."""

INCOMING_BYTES_MAX = 65_536
"""Largest packet that the broker may send; it has only short ones for a publisher."""

_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux only

_QOS_NOT_SUPPORTED = 155

_HINTS: dict[int, str] = {
    132: "the agent needs a broker that speaks MQTT 5, such as Mosquitto 1.6 or newer",
    133: "allow client ids that start with edge-agent-",
    134: "check username and password of [mqtt]",
    135: "check username, password and client certificate of [mqtt]; Mosquitto's log says more",
    142: "another client has this client id: give each agent an agent_id of its own",
    154: "allow retained messages: the status topic needs them",
    _QOS_NOT_SUPPORTED: "allow QoS 1 (Mosquitto: max_qos 1 or 2)",
}
"""What to do next, by reason code."""

_LOGIN_HINT = "is this the port of an MQTT 5 broker, and does it want TLS (mqtts://)?"

# Mosquitto 2.0.11 hangs up without a reason when another client takes the id.
_LOST_HINT = "the broker's log tells why; a second agent with the same agent_id would do this"


class Publisher(asyncio.Protocol):
    """One connection to a broker. All its waiting is in `connect`, `publish` and `close`.

    Once it has failed it stays failed: every later call raises what went wrong first.
    """

    def __init__(self, broker: str, ack_timeout_s: float, properties: bytes) -> None:
        self.limits = mqtt5.ConnAckPacket()
        self._broker = broker
        self._ack_timeout_s = ack_timeout_s
        self._properties = properties
        self._tick_s = min(TICK_S, ack_timeout_s / 4)
        self._loop = asyncio.get_running_loop()
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._finished: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._window: PublishWindow | None = None
        self._error: TransientError | None = None
        self._closing = False
        self._unread = b""
        self._keep_alive_s = float(KEEP_ALIVE_S)
        self._heard_at = self._spoke_at = self._progress_at = self._loop.time()

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        packet: mqtt5.ConnectPacket,
        *,
        tls: ssl.SSLContext | None = None,
        ack_timeout_s: float = ACK_TIMEOUT_S,
        properties: bytes = b"",
    ) -> Self:
        """Make one attempt to connect and log in; every message will have ``properties``.

        Raises ``TransientError``.
        """
        broker = f"broker {host}:{port}"
        publisher = cls(broker, ack_timeout_s, properties)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await publisher._loop.create_connection(lambda: publisher, host, port, ssl=tls)
                publisher._write(packet.write())
                await publisher._accepted
        except TimeoutError as error:
            text = f"{broker}: no answer within {CONNECT_TIMEOUT_S:g} s"
            raise TransientError(text, hint=_LOGIN_HINT) from error
        except OSError as error:
            raise TransientError(f"{broker}: cannot connect: {reason_of(error)}") from error
        finally:
            if publisher._accepted.cancelled() or not publisher._accepted.done():
                publisher._abort()
        return publisher

    def window(
        self,
        portions: Iterable[Messages],
        *,
        retain: bool = False,
        careful: int = 0,
        withheld: Mapping[bytes, str] | None = None,
    ) -> PublishWindow:
        """A window that obeys this broker's limits."""
        return PublishWindow(
            portions,
            size=min(self.limits.receive_max, WINDOW_MAX),
            packet_bytes_max=self.limits.max_packet_size,
            retain=retain,
            properties=self._properties,
            careful=careful,
            withheld=withheld,
        )

    async def publish(self, window: PublishWindow) -> None:
        """Send a window's messages until each has its answer.

        After ``TransientError`` or cancellation the window tells how far it came, and the
        connection is of no more use.
        """
        if self._error is None and self._window is not None:
            self._fail("an earlier publish was cut short; the connection must be opened again")
        if self._error is not None:
            raise TransientError(str(self._error), hint=self._error.hint) from self._error
        self._window = window
        self._finished = self._loop.create_future()
        self._progress_at = self._loop.time()
        try:
            self._advance(window)
            await self._finished
        finally:
            self._finished = None  # from here on nothing of this window is sent any more
        self._window = None

    async def close(self, farewell: bytes = b"") -> None:
        """Send ``farewell`` and DISCONNECT, and hang up. Never raises; bounded; twice is fine."""
        if self._error is None and not self._closing:
            self._closing = True
            self._write(farewell + mqtt5.DisconnectPacket().write())
            # The broker hangs up first: were we to, with PUBACKs unread, the kernel would reset
            # the connection and the farewell could be lost.
            try:
                await asyncio.wait((self._lost,), timeout=CLOSE_TIMEOUT_S)
            finally:
                self._abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)
        descriptor = transport.get_extra_info("socket").fileno()
        # A duplicate, because uvloop does not let its own socket's options be set.
        self._socket = socket.socket(fileno=os.dup(descriptor))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._heard_at = self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: PUBACKs in bulk, then any other packet."""
        self._heard_at = self._loop.time()
        if self._unread:
            data, self._unread = self._unread + data, b""
        try:
            self._unread = self._receive(data)
        except ValueError as error:
            hint = "" if self._accepted.done() else _LOGIN_HINT
            self._fail(f"broke the protocol: {error}", hint=hint, cause=error)
        if self._window is not None:
            self._advance(self._window)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop, once."""
        if self._ticker is not None:
            self._ticker.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._transport = None
        what = "closed" if self._closing else f"connection lost: {exc or 'closed by the broker'}"
        hint = _LOST_HINT if self._accepted.done() else _LOGIN_HINT
        self._fail(what, hint=hint, cause=exc)
        if not self._lost.done():
            self._lost.set_result(None)

    def _receive(self, data: bytes) -> bytes:
        """Handle the whole packets of ``data``; returns the rest, an incomplete one."""
        while data and self._error is None:
            if self._window is not None and (size := self._window.acknowledge(data)):
                self._progress_at = self._heard_at
            else:
                try:
                    packet, size = mqtt5.read(memoryview(data))
                except IndexError:  # incomplete
                    if len(data) > INCOMING_BYTES_MAX:
                        raise ValueError(f"packet over {INCOMING_BYTES_MAX} bytes") from None
                    break
                self._handle(packet)
            data = data[size:]
        return data

    def _handle(self, packet: mqtt5.Packet) -> None:
        match packet:
            case mqtt5.ConnAckPacket() if not self._accepted.done():
                self._handle_connack(packet)
            case mqtt5.PubAckPacket():
                # Without a window it is the answer to what a cancelled publish had sent.
                if self._window is not None:
                    self._window.answer(
                        packet.packet_id, packet.reason_code.value, packet.reason_str
                    )
                    self._progress_at = self._heard_at
            case mqtt5.DisconnectPacket():
                code = packet.reason_code.value
                words = reason_in_words(code, packet.reason_str)
                self._fail(f"disconnected us: {words}", hint=_HINTS.get(code, ""))
            case mqtt5.PingRespPacket():
                pass
            case _:
                raise ValueError(f"unexpected {type(packet).__name__}")

    def _handle_connack(self, packet: mqtt5.ConnAckPacket) -> None:
        self.limits = packet
        code = packet.reason_code.value
        if code >= REFUSED_MIN:
            words = reason_in_words(code, packet.reason_str)
            self._fail(f"refused the connection: {words}", hint=_HINTS.get(code, ""))
        elif packet.max_qos == mqtt5.QoS.AT_MOST_ONCE:
            self._fail("takes QoS 0 only, which confirms nothing", hint=_HINTS[_QOS_NOT_SUPPORTED])
        else:
            # 0 from the broker switches its own check off; ours stays.
            self._keep_alive_s = float(packet.server_keep_alive or KEEP_ALIVE_S)
            self._tick_s = min(self._tick_s, self._keep_alive_s / 4)
            self._ticker = self._loop.call_later(self._tick_s, self._tick)
            self._accepted.set_result(None)

    def _advance(self, window: PublishWindow) -> None:
        if self._finished is None or self._finished.done():
            return
        packets = window.take()
        if packets:
            self._write(packets)
        elif window.unanswered and _QUICKACK is not None and self._socket is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
        if window.done:
            self._finished.set_result(None)
        elif window.unanswered >= READ_PAUSE_UNANSWERED_MIN and self._transport is not None:
            self._transport.pause_reading()
            self._loop.call_later(READ_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _tick(self) -> None:
        """All that is about time: silence, PUBACKs that do not come, the broker's keep-alive."""
        now = self._loop.time()
        due = self._window.unanswered if self._window is not None and self._finished else 0
        if due and now - self._progress_at > self._ack_timeout_s:
            self._fail(f"no PUBACK within {self._ack_timeout_s:g} s, {due} messages unanswered")
        elif now - self._heard_at > self._keep_alive_s * 1.5:
            self._fail(f"silent for {now - self._heard_at:.0f} s")
        else:
            if now - self._spoke_at >= self._keep_alive_s / 2:
                self._write(mqtt5.PingReqPacket().write())
            self._ticker = self._loop.call_later(self._tick_s, self._tick)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
            self._spoke_at = self._loop.time()

    def _fail(self, what: str, *, hint: str = "", cause: BaseException | None = None) -> None:
        """Give up the connection; the first reason is the one that is told."""
        if self._error is None:
            self._error = TransientError(f"{self._broker}: {what}", hint=hint)
            self._error.__cause__ = cause
            for waiter in (self._accepted, self._finished):
                if waiter is not None and not waiter.done():
                    waiter.set_exception(self._error)
        self._abort()

    def _abort(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        if self._transport is not None:
            self._transport.abort()
