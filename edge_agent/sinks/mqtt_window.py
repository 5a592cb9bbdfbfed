"""QoS 1 in a sliding window: framing, packet ids and PUBACKs. Pure.

Guarantee: a message counts as answered when the broker's PUBACK for it has come, and as refused
when that PUBACK's reason code is an error (128 and above). 3.1.1 has no such code, which is why
nothing older than MQTT 5 is spoken.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import repeat

from edge_agent.sinks.message import Messages

PACKET_IDS_MAX = 2_048
"""Packet ids in use; more than any window, so that an id names one unanswered message."""

PUBACK_BYTES_MIN = 4
"""Type, length and packet id; a reason code adds one byte, properties more."""

REFUSED_MIN = 128
"""Reason codes from here on are errors. 16, "no matching subscribers", is not."""

_PUBACK = 0x40
_PUBLISH_QOS1 = 0x32
_RETAIN = 0x01

_WITHHELD = b""

_USER_PROPERTY = 0x26

# MQTT 5.0, 2.4. Kept here because brokers use codes where the standard has no place for them:
# Mosquitto answers a message over its size limit with 149 in a PUBACK.
_REASONS = {
    128: "unspecified error",
    129: "malformed packet",
    130: "protocol error",
    131: "implementation specific error",
    132: "unsupported protocol version",
    133: "client id not valid",
    134: "bad user name or password",
    135: "not authorized",
    136: "server unavailable",
    137: "server busy",
    138: "banned",
    139: "server shutting down",
    140: "bad authentication method",
    141: "keep alive timeout",
    142: "session taken over",
    143: "topic filter invalid",
    144: "topic name invalid",
    145: "packet id in use",
    146: "packet id not found",
    147: "receive maximum exceeded",
    148: "topic alias invalid",
    149: "packet too large",
    150: "message rate too high",
    151: "quota exceeded",
    152: "administrative action",
    153: "payload format invalid",
    154: "retain not supported",
    155: "QoS not supported",
    156: "use another server",
    157: "server moved",
    159: "connection rate exceeded",
    160: "maximum connect time",
}


def reason_in_words(code: int, text: str | None = None) -> str:
    """``not authorized (135)``, and the broker's own text where it sent one."""
    words = f"{_REASONS.get(code, 'unknown reason')} ({code})"
    return f"{words}: {text}" if text else words


@lru_cache(maxsize=4_096)  # one entry per length of packet, and lengths hardly differ
def _fixed_header(first_byte: int, remaining: int) -> bytes:
    """MQTT 5.0, 2.1: packet type and flags, then the length of what follows."""
    return bytes([first_byte]) + _variable_length(remaining)


def _variable_length(size: int) -> bytes:
    """MQTT 5.0, 1.5.5: groups of seven bits, the lowest first."""
    groups = bytearray()
    while size > 0x7F:
        groups.append(size & 0x7F | 0x80)
        size >>= 7
    groups.append(size)
    return bytes(groups)


@lru_cache(maxsize=4_096)  # one entry per length of topic
def _length(size: int) -> bytes:
    """MQTT 5.0, 1.5.4: a string is preceded by its length in two bytes."""
    return size.to_bytes(2, "big")


def encoded_property(name: str, value: str) -> bytes:
    """MQTT 5.0, 3.3.2.3.7: a pair of strings that a broker hands on unaltered."""
    texts = [text.encode() for text in (name, value)]
    return bytes([_USER_PROPERTY]) + b"".join(_length(len(text)) + text for text in texts)


@lru_cache(maxsize=4)  # one agent has one list of properties
def _ids_with(properties: bytes) -> list[bytes]:
    """Packet id and the properties that follow it, by position in the window."""
    tail = _variable_length(len(properties)) + properties
    return [packet_id.to_bytes(2, "big") + tail for packet_id in range(1, PACKET_IDS_MAX + 1)]


class PublishWindow:
    """Messages numbered from 0, as far as they were sent and answered. No I/O.

    ``answered`` counts the messages before the first one that has no answer, ``unanswered`` the
    PUBACKs that are due, at most ``size`` at any time. ``refused`` gives the reason of those that
    the broker did not let through, or that must not be sent: ``withheld`` topics, with the reason,
    and what the broker's known limits forbid. The first ``careful`` messages go one at a time.
    ``properties`` are encoded (`encoded_property`) and the same for all.
    """

    def __init__(
        self,
        portions: Iterable[Messages],
        *,
        size: int,
        packet_bytes_max: int | None = None,
        retain: bool = False,
        properties: bytes = b"",
        careful: int = 0,
        withheld: Mapping[bytes, str] | None = None,
    ) -> None:
        self.careful = careful
        self.answered = 0
        self.sent = 0
        self.unanswered = 0
        self.refused: dict[int, str] = {}
        self._portions: Iterator[Messages] = iter(portions)
        self._first_byte = _PUBLISH_QOS1 | (_RETAIN if retain else 0)
        self._ids = _ids_with(properties)
        self._frame_bytes = 2 + len(self._ids[0])  # topic length, packet id, properties
        self._size = size
        self._packet_bytes_max = packet_bytes_max
        self._withheld = withheld or {}
        self._exhausted = False
        self._packets: list[bytes] = []
        self._next = 0
        # Answered out of order, or refused before they were sent.
        self._ahead: set[int] = set()

    @property
    def done(self) -> bool:
        """Whether every message has its answer."""
        return self._exhausted and self.answered == self.sent

    def take(self) -> bytes:
        """The packets that may be sent now; they count as sent."""
        taken: list[bytes] = []
        while (free := self._free()) > 0 and self._load():
            packets = self._packets[self._next : self._next + free]
            self._next += len(packets)
            self.sent += len(packets)
            self.unanswered += len(packets) - packets.count(_WITHHELD)
            taken += packets
            self._close_gaps()
        return b"".join(taken)

    def _free(self) -> int:
        """How many more messages may be sent now."""
        size = 1 if self.sent < self.careful else self._size
        return size - (self.sent - self.answered)

    def acknowledge(self, data: bytes) -> int:
        """Take the short PUBACKs at the head of ``data``; returns how many bytes they were.

        Short is one without properties, which is what brokers send. Raises ``ValueError`` for one
        that nobody waits for.
        """
        at, end = 0, len(data)
        answered = self.answered
        while end - at >= PUBACK_BYTES_MIN and data[at] == _PUBACK:
            remaining = data[at + 1]
            if remaining == 2:
                code = 0
            elif remaining == 3 and end - at > PUBACK_BYTES_MIN:
                code = data[at + 4]
            else:
                break
            packet_id = data[at + 2] << 8 | data[at + 3]
            in_order = packet_id == answered % PACKET_IDS_MAX + 1 and answered < self.sent
            if in_order and code < REFUSED_MIN and not self._ahead:
                answered += 1
            else:
                self._answered_up_to(answered)
                self.answer(packet_id, code)
                answered = self.answered
            at += 2 + remaining
        self._answered_up_to(answered)
        return at

    def answer(self, packet_id: int, code: int, text: str | None = None) -> None:
        """Note one answer. Raises ``ValueError`` for one that nobody waits for."""
        position = self.answered + (packet_id - 1 - self.answered) % PACKET_IDS_MAX
        expected = 0 < packet_id <= PACKET_IDS_MAX and position < self.sent
        if not expected or position in self._ahead:
            raise ValueError(f"PUBACK for packet id {packet_id}, which is not in flight")
        if code >= REFUSED_MIN:
            self.refused[position] = f"broker: {reason_in_words(code, text)}"
        self.unanswered -= 1
        self._ahead.add(position)
        self._close_gaps()

    def _answered_up_to(self, position: int) -> None:
        self.unanswered -= position - self.answered
        self.answered = position

    def _close_gaps(self) -> None:
        while self.answered in self._ahead and self.answered < self.sent:
            self._ahead.remove(self.answered)
            self.answered += 1

    def _load(self) -> bool:
        """Whether there is a packet to send; frames the next portion if need be."""
        while self._next == len(self._packets) and not self._exhausted:
            portion = next(self._portions, None)
            if portion is None:
                self._exhausted = True
            else:
                self._packets, self._next = self._frame(portion), 0
        return self._next < len(self._packets)

    def _frame(self, portion: Messages) -> list[bytes]:
        """PUBLISH packets (MQTT 5.0, 3.3), or `_WITHHELD` where it must not be sent."""
        count = len(portion.topics)
        offset = self.sent % PACKET_IDS_MAX
        ids = (self._ids * (2 + count // PACKET_IDS_MAX))[offset : offset + count]
        topics, payloads = portion
        topic_sizes = list(map(len, topics))
        body_sizes = map(operator.add, topic_sizes, map(len, payloads))
        remaining = map(operator.add, body_sizes, repeat(self._frame_bytes))
        headers = map(_fixed_header, repeat(self._first_byte), remaining)
        parts = zip(headers, map(_length, topic_sizes), topics, ids, payloads, strict=False)
        packets = list(map(b"".join, parts))
        self._withhold(portion, packets)
        return packets

    def _withhold(self, portion: Messages, packets: list[bytes]) -> None:
        """Refuse what the broker is known to hang up over."""
        limit = self._packet_bytes_max
        if limit is not None and max(map(len, packets), default=0) > limit:
            for index, packet in enumerate(packets):
                if len(packet) > limit:
                    reason = f"packet too large: {len(packet)} bytes, the broker takes {limit}"
                    self._refuse(index, reason, packets)
        if not self._withheld.keys().isdisjoint(portion.topics):
            for index, topic in enumerate(portion.topics):
                if topic in self._withheld:
                    self._refuse(index, self._withheld[topic], packets)
        if b"" in portion.topics:
            for index, topic in enumerate(portion.topics):
                if not topic:
                    self._refuse(index, "topic name invalid: site, device or tag", packets)

    def _refuse(self, index: int, reason: str, packets: list[bytes]) -> None:
        packets[index] = _WITHHELD
        self.refused[self.sent + index] = reason
        self._ahead.add(self.sent + index)
