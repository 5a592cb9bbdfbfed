"""Answers of an OPC UA server, from bytes that asyncua made, or that stand in the specification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from struct import error as StructError  # noqa: N812  (it is a class)
from struct import pack
from typing import Any

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.protocols.opcua_wire import Change, Published, published, read_results

SENT = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
SENT_MS = round(SENT.timestamp() * 1000)
BAD, UNCERTAIN = ua.StatusCodes.BadSensorFailure, ua.StatusCodes.UncertainSensorNotAccurate
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_TICKS = 116_444_736_000_000_000
"""The same in steps of 100 ns since 1601 (Part 6, 5.2.2.5)."""
MILLISECOND = timedelta(milliseconds=1)


def numbers(kind: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[ua.Variant]:
    return values.map(lambda value: ua.Variant(value, ua.VariantType[kind]))


def whole(kind: str, bits: int, *, signed: bool) -> st.SearchStrategy[ua.Variant]:
    smallest = -(2 ** (bits - 1)) if signed else 0
    return numbers(kind, st.integers(smallest, smallest + 2**bits - 1))


NUMBERS = st.one_of(
    numbers("Boolean", st.booleans()),
    whole("SByte", 8, signed=True),
    whole("Byte", 8, signed=False),
    *(whole(f"Int{bits}", bits, signed=True) for bits in (16, 32, 64)),
    *(whole(f"UInt{bits}", bits, signed=False) for bits in (16, 32, 64)),
    numbers("Float", st.floats(width=32)),
    numbers("Double", st.floats()),
)
OTHERS = st.sampled_from(
    [
        (ua.Variant("pump", ua.VariantType.String), "the value is a String, not a number"),
        (ua.Variant([1.0, 2.0], ua.VariantType.Double), "the value is an array, not a number"),
        (ua.Variant(SENT, ua.VariantType.DateTime), "the value is a DateTime, not a number"),
        (ua.Variant(None, ua.VariantType.Null), "the server sent no value"),
    ]
)
TIMES = st.none() | st.integers(1, 7 * 10**15).map(lambda us: EPOCH + timedelta(microseconds=us))
STATUSES = st.sampled_from([None, 0, 0x0480, UNCERTAIN, BAD])


def milliseconds(at: datetime | None) -> int | None:
    return None if at is None else (at - EPOCH) // MILLISECOND


@st.composite
def said(draw: st.DrawFn) -> tuple[ua.DataValue, float, str]:
    """A data value with the number and the complaint that belong to it."""
    variant, complaint = draw(NUMBERS.map(lambda variant: (variant, "")) | OTHERS)
    number = math.nan if complaint else float(variant.Value)
    status = draw(STATUSES)
    if status == BAD:
        number, complaint = math.nan, "BadSensorFailure"
    value = ua.DataValue(
        variant,
        None if status is None else ua.StatusCode(status),
        SourceTimestamp=draw(TIMES),
        ServerTimestamp=draw(TIMES),
    )
    return value, number, complaint


def publish_response(
    notifications: Sequence[Any], *, more: bool = False, available: Sequence[int] = (7,)
) -> bytes:
    response = ua.PublishResponse()
    response.ResponseHeader.Timestamp = SENT
    result = response.Parameters
    result.SubscriptionId = 5
    result.AvailableSequenceNumbers = list(available)
    result.MoreNotifications = more
    result.NotificationMessage.SequenceNumber = 7
    result.NotificationMessage.PublishTime = SENT
    result.NotificationMessage.NotificationData = list(notifications)
    encoded: bytes = struct_to_binary(response)
    return encoded


def data_changes(*values: ua.DataValue) -> Any:
    items = [ua.MonitoredItemNotification(n, value) for n, value in enumerate(values)]
    return ua.DataChangeNotification(MonitoredItems=items)


def read_response(*values: ua.DataValue) -> bytes:
    response = ua.ReadResponse()
    response.ResponseHeader.Timestamp = SENT
    response.Results = list(values)
    encoded: bytes = struct_to_binary(response)
    return encoded


def decoded(raw: bytes) -> Published:
    return published(Buffer(raw))


def check(changes: Sequence[Change], values: Sequence[tuple[ua.DataValue, float, str]]) -> None:
    assert len(changes) == len(values)
    for place, (change, (value, number, complaint)) in enumerate(zip(changes, values, strict=True)):
        assert change.position == place
        assert change.value == number or (math.isnan(change.value) and math.isnan(number))
        assert change.complaint.startswith(complaint)
        assert bool(change.complaint) == bool(complaint)
        assert change.status == (0 if value.StatusCode_ is None else value.StatusCode_.value)
        assert change.source_ms == milliseconds(value.SourceTimestamp)
        assert change.server_ms == milliseconds(value.ServerTimestamp)


@given(
    st.lists(said(), max_size=8),
    st.lists(said(), max_size=3),
    st.booleans(),
    st.lists(st.just(7), max_size=3),
)
def test_what_is_published_is_what_was_said(
    first: list[tuple[ua.DataValue, float, str]],
    second: list[tuple[ua.DataValue, float, str]],
    more: bool,
    available: list[int],
) -> None:
    """Any type in any order, with and without status and times, also in two notifications."""
    parts = [data_changes(*(value for value, _, _ in part)) for part in (first, second)]
    answer = decoded(publish_response(parts, more=more, available=available))
    check(answer.changes[: len(first)], first)
    check(answer.changes[len(first) :], second)
    assert (answer.subscription_id, answer.sequence_number) == (5, 7)
    assert (answer.sent_ms, answer.more, answer.notified) == (SENT_MS, more, True)
    assert answer.given_up is None


@given(st.lists(said(), max_size=8))
def test_what_is_read_is_what_was_said(values: list[tuple[ua.DataValue, float, str]]) -> None:
    """Results come in the order of the nodes that were asked for."""
    raw = read_response(*(value for value, _, _ in values))
    changes, sent_ms = read_results(Buffer(raw), range(len(values)))
    check(changes, values)
    assert sent_ms == SENT_MS


def test_results_belong_to_the_places_asked_for() -> None:
    """A block's places, which need not begin with 0; another number of results is no answer."""
    raw = read_response(ua.DataValue(ua.Variant(1.0)), ua.DataValue(ua.Variant(2.0)))
    changes, _ = read_results(Buffer(raw), [3, 8])
    assert [(change.position, change.value) for change in changes] == [(3, 1.0), (8, 2.0)]
    with pytest.raises(ua.UaError, match="2 results for 3 nodes"):
        read_results(Buffer(raw), [1, 2, 3])


def test_a_sign_of_life_says_nothing_else() -> None:
    """It is not acknowledged."""
    answer = decoded(publish_response([]))
    assert (answer.notified, answer.changes, answer.sent_ms) == (False, [], SENT_MS)


def test_a_subscription_that_is_given_up() -> None:
    """Its status by name; what is said beside it counts too, and an event is passed over."""
    lost = ua.StatusChangeNotification(Status=ua.StatusCode(ua.StatusCodes.BadTimeout))
    event = ua.EventNotificationList(Events=[])
    value = data_changes(ua.DataValue(ua.Variant(1.5)))
    answer = decoded(publish_response([event, lost, value]))
    assert answer.given_up == "BadTimeout"
    assert [change.value for change in answer.changes] == [1.5]


def test_picoseconds_stand_behind_their_time() -> None:
    """Part 6, 5.2.2.17: each time stamp is followed by its own picoseconds."""
    item = pack("<IBBd", 0, 0x3D, 11, 2.5) + pack(
        "<qHqH", EPOCH_TICKS + 10_000, 9, EPOCH_TICKS + 20_000, 9
    )
    empty = publish_response([data_changes()])
    body = pack("<i", 1) + item + pack("<i", -1)
    before = empty[: empty.rindex(pack("<iii", 8, 0, 0))]
    raw = before + pack("<i", len(body)) + body + pack("<ii", -1, -1)
    assert decoded(raw).changes == [Change(0, 2.5, 0, "", 1, 2)]


def test_a_notification_without_its_length_is_read() -> None:
    """Servers of old write -1 there; what comes behind it is found all the same."""
    first, second = (data_changes(ua.DataValue(ua.Variant(n))) for n in (1.5, 2.5))
    length = pack("<ii", len(struct_to_binary(first)), 1)
    raw = publish_response([first, second]).replace(length, pack("<ii", -1, 1), 1)
    assert [change.value for change in decoded(raw).changes] == [1.5, 2.5]


def test_bytes_that_end_too_early_are_an_error() -> None:
    """At any place up to the last value."""
    value = ua.DataValue(ua.Variant(1.5), SourceTimestamp=SENT)
    text = ua.DataValue(ua.Variant("pump"), ua.StatusCode(0))
    raw = publish_response([data_changes(value, text)])
    for end in range(len(raw) - 12):
        with pytest.raises((ua.UaError, StructError, IndexError, ValueError, TypeError)):
            decoded(raw[:end])


@pytest.mark.parametrize("length", [0, 20, 100_000, -2])
def test_a_length_that_is_not_that_of_its_values_is_an_error(length: int) -> None:
    """What would come behind it is not to be found."""
    raw = publish_response([data_changes(*[ua.DataValue(ua.Variant(1.5))] * 3)])
    right = len(struct_to_binary(data_changes(*[ua.DataValue(ua.Variant(1.5))] * 3)))
    assert raw.count(pack("<ii", right, 3)) == 1
    with pytest.raises(ua.UaError, match="longer than it says"):
        decoded(raw.replace(pack("<ii", right, 3), pack("<ii", length, 3)))


def test_a_service_that_failed_is_an_error() -> None:
    """However well-formed the rest is."""
    response = ua.PublishResponse()
    response.ResponseHeader.ServiceResult = ua.StatusCode(ua.StatusCodes.BadTooManyPublishRequests)
    with pytest.raises(ua.UaStatusCodeError, match="BadTooManyPublishRequests"):
        decoded(struct_to_binary(response))
