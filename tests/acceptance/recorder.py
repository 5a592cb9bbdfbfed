"""A durable MQTT subscriber that keeps every message: what anybody else in the plant would get.

MQTT 3.1.1 over a plain socket in a thread of its own, QoS 1, a persistent session: the broker
keeps messages while the recorder is away, as far as the broker itself survives.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from datetime import datetime
from itertools import starmap
from typing import Self

from tests.servers import wait_until

TOPICS = b"plc/#"
CLIENT_ID = b"recorder"
KEEP_ALIVE_S = 60
PING_INTERVAL_S = 20.0
READ_BYTES = 1 << 20
READ_TIMEOUT_S = 0.2
CONNECT_TIMEOUT_S = 2.0
RETRY_INTERVAL_S = 0.05
QUIET_S = 0.5
QUIET_TIMEOUT_S = 20.0

_CONNECT, _CONNACK, _PUBLISH, _SUBACK, _PINGREQ = 0x10, 0x20, 0x30, 0x90, b"\xc0\x00"

Sample = tuple[str, str, str, int, float]
"""Site, device, tag, time in milliseconds since 1970 UTC, value."""


class Recorder:
    """Subscribes until closed, reconnecting for ever; `messages` grows."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        """Topic and payload, in the order of arrival, duplicates included."""
        self.connects = 0
        self._port = port
        self._subscribed = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._subscribed.wait(QUIET_TIMEOUT_S):
            raise TimeoutError("the recorder could not subscribe")
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def finish(self) -> None:
        """Wait until the broker has nothing more for us."""
        wait_until(self._subscribed.is_set, "the recorder's connection", QUIET_TIMEOUT_S)
        deadline = time.monotonic() + QUIET_TIMEOUT_S
        seen = -1
        while seen != len(self.messages) and time.monotonic() < deadline:
            seen = len(self.messages)
            time.sleep(QUIET_S)

    def samples(self) -> set[Sample]:
        """Every sample that arrived; fails on a message that is not as documented."""
        return {_sample(*message) for message in set(self.messages)}

    def arrivals(self) -> list[tuple[tuple[str, str, str], int]]:
        """Site, device and tag, and the time, of every message in the order of arrival."""
        return [(sample[:3], sample[3]) for sample in starmap(_sample, self.messages)]

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), CONNECT_TIMEOUT_S) as link:
                    self._session(link)
            except OSError:
                pass
            self._subscribed.clear()
            self._closing.wait(RETRY_INTERVAL_S)

    def _session(self, link: socket.socket) -> None:
        link.settimeout(READ_TIMEOUT_S)
        login = b"\x00\x04MQTT\x04\x00" + KEEP_ALIVE_S.to_bytes(2, "big") + _text(CLIENT_ID)
        link.sendall(bytes([_CONNECT, len(login)]) + login)
        wish = b"\x00\x01" + _text(TOPICS) + b"\x01"
        link.sendall(bytes([0x82, len(wish)]) + wish)
        self.connects += 1
        rest = b""
        pinged = time.monotonic()
        while not self._closing.is_set():
            if time.monotonic() - pinged > PING_INTERVAL_S:
                link.sendall(_PINGREQ)
                pinged = time.monotonic()
            try:
                data = link.recv(READ_BYTES)
            except TimeoutError:
                continue
            if not data:
                return
            rest = self._take(link, rest + data)

    def _take(self, link: socket.socket, data: bytes) -> bytes:
        """Keep whole PUBLISH packets and acknowledge them; returns what is left."""
        at, acknowledgements = 0, bytearray()
        while (packet := _packet(data, at)) is not None:
            kind, start, end = packet
            if kind & 0xF0 == _PUBLISH:
                names = start + 2
                payload = names + int.from_bytes(data[start:names], "big")
                topic = data[names:payload]
                if kind & 0x06:
                    acknowledgements += b"\x40\x02" + data[payload : payload + 2]
                    payload += 2
                self.messages.append((topic, data[payload:end]))
            elif kind == _CONNACK and data[end - 1]:
                raise ConnectionRefusedError(f"the broker says {data[end - 1]}")
            elif kind == _SUBACK:
                self._subscribed.set()
            at = end
        if acknowledgements:
            link.settimeout(CONNECT_TIMEOUT_S)
            link.sendall(acknowledgements)
            link.settimeout(READ_TIMEOUT_S)
        # Else the broker, which has Nagle's algorithm on, waits for a delayed ACK of ours.
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data[at:]


def _sample(topic: bytes, payload: bytes) -> Sample:
    message = json.loads(payload)
    assert list(message) == ["ts", "site", "line", "device", "tag", "value", "unit"]
    names = message["site"], message["device"], message["tag"]
    assert topic.decode() == "/".join(("plc", *names))
    assert len(message["ts"]) == len("2025-08-17T12:00:00.000Z")
    assert message["ts"].endswith("Z")
    ts = datetime.fromisoformat(message["ts"])
    return (*names, round(ts.timestamp() * 1000), float(message["value"]))


def _text(text: bytes) -> bytes:
    return len(text).to_bytes(2, "big") + text


def _packet(data: bytes, at: int) -> tuple[int, int, int] | None:
    """First byte, start and end of the body of the packet that begins here; None if not whole."""
    length = shift = 0
    start = at + 1
    while start < len(data):
        byte = data[start]
        length |= (byte & 0x7F) << shift
        shift += 7
        start += 1
        if byte < 0x80:
            return (data[at], start, start + length) if start + length <= len(data) else None
    return None
