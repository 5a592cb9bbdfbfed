"""Values out of a server's answers, straight from their bytes. No I/O.

asyncua decodes anything, with some ten Python objects and twenty calls for each value: 8 to 11 us.
A plant's values are of eleven types of fixed width, so one `struct` per combination of type and
fields reads a value, its status and its times at once. What is rare (texts, arrays, the answer's
head, other notifications) is left to asyncua, at its place in the bytes: there is one path for
every message.

Bytes that end too early or lead past their end raise ``struct.error`` or ``ua.UaError``.

Source: OPC UA Part 6, 5.2.2.16 and 5.2.2.17 (Variant, DataValue); Part 4, 5.11.2 (Read), 5.14.5
(Publish) and 7.25 (notifications). asyncua reads picoseconds at the wrong place: each stands behind
its own time stamp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple

from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import (
    extensionobject_from_binary,
    from_binary,
    nodeid_from_binary,
    struct_from_binary,
    variant_from_binary,
)

_TICKS_PER_MS: Final = 10_000
_EPOCH_MS: Final = 11_644_473_600_000
"""From 1601, where OPC UA's time begins, to 1970."""

# Part 4, 7.39.1: the topmost bit says bad.
_BAD: Final = 0x8000_0000
_CODE: Final = 0xFFFF_0000
_STATUS_NAMES_KEPT_MAX: Final = 256
"""More than a server has reasons; a dead PLC behind it gives one for each of its nodes."""

_VALUE, _STATUS, _SOURCE, _SERVER = 0x01, 0x02, 0x04, 0x08
_SOURCE_PICOSECONDS, _SERVER_PICOSECONDS = 0x10, 0x20
_MASKS: Final = 0x40
"""Fields of a DataValue that are there."""
_NUMBERS: Final = "?bBhHiIqQfd"
"""Boolean (1) to Double (11), as `struct` calls them; without the bits that say array."""


def _rest(mask: int) -> str:
    """Status, source time and server time; an empty text for each that is not there."""
    return "".join(
        (
            "I" if mask & _STATUS else "0s",
            "q" if mask & _SOURCE else "0s",
            "2x" if mask & _SOURCE_PICOSECONDS else "",
            "q" if mask & _SERVER else "0s",
            "2x" if mask & _SERVER_PICOSECONDS else "",
        )
    )


_RESTS: Final = tuple(Struct("<" + _rest(mask)) for mask in range(_MASKS))
_SHAPES: Final = {
    mask | kind << 8: Struct("<" + number + _rest(mask))
    for mask in range(_MASKS)
    if mask & _VALUE
    for kind, number in enumerate(_NUMBERS, 1)
}
"""By a DataValue's first two bytes: the rest of it."""

_LENGTH_AND_COUNT: Final = Struct("<ii")
_ITEM: Final = Struct("<IH")
_SHAPE: Final = Struct("<H")
_INT32: Final = Struct("<i")
_TICKS: Final = Struct("<q")
_MORE_AND_SEQUENCE: Final = Struct("<?Iqi")
_SUBSCRIPTION: Final = Struct("<Ii")

_DATA_CHANGE: Final = ua.NodeId(ua.ObjectIds.DataChangeNotification_Encoding_DefaultBinary)


class Change(NamedTuple):
    """What a server said of a node; times in milliseconds since 1970, None where it gave none."""

    position: int
    value: float
    """NaN where the status is bad, and for what is no number."""
    status: int
    complaint: str
    """Why the value is NaN; empty where it is good."""
    source_ms: int | None
    server_ms: int | None


@dataclass(frozen=True, slots=True)
class Published:
    """An answer to a Publish request."""

    subscription_id: int
    sequence_number: int
    sent_ms: int
    more: bool
    """The server has more to say than this answer could take."""
    notified: bool
    """It said anything, and waits for an acknowledgement."""
    changes: Sequence[Change]
    """Positions are the client handles."""
    given_up: str | None
    """The status under which the server gave the subscription up."""


def published(data: Any) -> Published:
    """Decode a PublishResponse."""
    raw, position, _ = _answer(data)
    subscription_id, available = _SUBSCRIPTION.unpack_from(raw, position)
    position += _SUBSCRIPTION.size + 4 * max(available, 0)
    more, sequence_number, ticks, count = _MORE_AND_SEQUENCE.unpack_from(raw, position)
    position += _MORE_AND_SEQUENCE.size
    changes: list[Change] = []
    given_up = None
    for _ in range(count):
        buffer = Buffer(raw, position)
        if nodeid_from_binary(buffer) == _DATA_CHANGE and raw[buffer.cur_pos] == 1:
            position = _data_changes(raw, buffer.cur_pos + 1, changes)
            continue
        buffer = Buffer(raw, position)
        notification = extensionobject_from_binary(buffer)
        position = buffer.cur_pos
        if isinstance(notification, ua.StatusChangeNotification):
            given_up = status_name(notification.Status.value)
    return Published(
        subscription_id, sequence_number, _ms(ticks), more, count > 0, changes, given_up
    )


def read_results(data: Any, positions: Sequence[int]) -> tuple[list[Change], int]:
    """Decode a ReadResponse to a request for the nodes at ``positions``, and when it was sent."""
    raw, at, sent_ms = _answer(data)
    (count,) = _INT32.unpack_from(raw, at)
    if count != len(positions):
        raise ua.UaError(f"{max(count, 0)} results for {len(positions)} nodes")
    at += _INT32.size
    changes = []
    for position in positions:
        (shape,) = _SHAPE.unpack_from(raw, at)
        change, at = _data_value(raw, at, position, shape)
        changes.append(change)
    return changes, sent_ms


def refused(position: int, status: int) -> Change:
    """What is known of a node that the server refuses."""
    return Change(position, math.nan, status, status_name(status), None, None)


@lru_cache(_STATUS_NAMES_KEPT_MAX)
def status_name(status: int) -> str:
    """A status code as the specification calls it."""
    name, _ = ua.status_codes.get_name_and_doc(status & _CODE)
    return str(name)


def _answer(data: Any) -> tuple[bytes, int, int]:
    """A response's bytes, where its own part begins, and when it was sent."""
    raw = bytes(data)
    buffer = Buffer(raw)
    nodeid_from_binary(buffer)
    (ticks,) = _TICKS.unpack_from(raw, buffer.cur_pos)
    struct_from_binary(ua.ResponseHeader, buffer).ServiceResult.check()
    return raw, buffer.cur_pos, _ms(ticks)


def _data_changes(raw: bytes, at: int, changes: list[Change]) -> int:
    """Decode a DataChangeNotification from its length on; where it ends."""
    length, count = _LENGTH_AND_COUNT.unpack_from(raw, at)
    end: int = at + 4 + length
    at += 8
    for _ in range(count):
        position, shape = _ITEM.unpack_from(raw, at)
        change, at = _data_value(raw, at + 4, position, shape)
        changes.append(change)
    if length == -1:  # old servers leave it out
        buffer = Buffer(raw, at)
        from_binary(list[ua.DiagnosticInfo], buffer)
        return int(buffer.cur_pos)
    if not at <= end <= len(raw):
        raise ua.UaError("a notification that is longer than it says")
    return end


def _data_value(raw: bytes, at: int, position: int, shape: int) -> tuple[Change, int]:
    """Decode the DataValue at ``at``, which begins with the two bytes ``shape``; where it ends."""
    layout = _SHAPES.get(shape)
    complaint = ""
    if layout is not None:
        value, status, source, server = layout.unpack_from(raw, at + 2)
        at += 2 + layout.size
    else:
        mask = shape & 0xFF
        buffer = Buffer(raw, at + 1)
        variant = variant_from_binary(buffer) if mask & _VALUE else None
        value, complaint = _number(variant)
        layout = _RESTS[mask % _MASKS]
        status, source, server = layout.unpack_from(raw, buffer.cur_pos)
        at = buffer.cur_pos + layout.size
    status = status or 0
    if status & _BAD:
        value, complaint = math.nan, status_name(status)
    change = Change(
        position,
        float(value),
        status,
        complaint,
        source // _TICKS_PER_MS - _EPOCH_MS if source else None,
        server // _TICKS_PER_MS - _EPOCH_MS if server else None,
    )
    return change, at


def _number(variant: Any) -> tuple[float, str]:
    """A variant's number and, where it has none, why: "" or a complaint."""
    value = None if variant is None else variant.Value
    if value is None:
        return math.nan, "the server sent no value"
    if isinstance(value, int | float):
        return float(value), ""
    kind = "an array" if isinstance(value, list) else f"a {variant.VariantType.name}"
    return math.nan, f"the value is {kind}, not a number or Boolean"


def _ms(ticks: int) -> int:
    return ticks // _TICKS_PER_MS - _EPOCH_MS
