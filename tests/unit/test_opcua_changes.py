"""What becomes of what an OPC UA server says: samples, their times and their order."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from asyncua import ua

from edge_agent.model import Address, Tag, ValueType
from edge_agent.planner import Block
from edge_agent.protocols.base import Reply
from edge_agent.protocols.opcua_changes import Changes

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOW_MS = round(START.timestamp() * 1000) + 60_000
BAD = ua.StatusCodes.BadSensorFailure
OVERFLOW = 0x0480


def changes(tags: int = 2) -> Changes:
    members = tuple(
        Tag(
            site="S", line="L", device="D", tag=f"t{n}", protocol="opcua", conn="opc.tcp://h",
            unit_id=1, address=f"i={n}", type=ValueType.FLOAT64, scale=1.0, offset=0.0,
            period_ms=1000, unit="",
        )
        for n in range(tags)
    )  # fmt: skip
    block = Block(1, "node", 0, 1, members, (Address("node", 0),) * tags)
    return Changes(block, "opc.tcp://h:4840", lambda: NOW_MS)


def value(
    number: float | None, after_ms: int = 0, status: int = 0, server_after_ms: int | None = None
) -> ua.DataValue:
    return ua.DataValue(
        ua.Variant(number),
        ua.StatusCode(status),
        SourceTimestamp=at(after_ms),
        ServerTimestamp=None if server_after_ms is None else at(server_after_ms),
    )


def at(after_ms: int) -> datetime:
    return START + timedelta(milliseconds=after_ms)


def flat(replies: Sequence[Reply], size: int = 2) -> list[tuple[int, int, float]]:
    """(milliseconds after START, position, value) in order."""
    return [
        (reply.ts_ms - NOW_MS + 60_000, place, number)
        for reply in replies
        for place, number in zip(
            range(size) if reply.positions is None else reply.positions, reply.values, strict=True
        )
    ]


def test_changes_come_oldest_first_whichever_tag_they_are_of() -> None:
    """A server tells them tag by tag."""
    said = [(0, value(1.0, 1)), (0, value(2.0, 3)), (1, value(5.0, 1)), (1, value(6.0, 2))]
    replies = changes().replies(said)
    assert flat(replies) == [(1, 0, 1.0), (1, 1, 5.0), (2, 1, 6.0), (3, 0, 2.0)]
    assert replies[0].positions is None


def test_two_changes_within_a_millisecond_are_two_samples() -> None:
    """No reply has a tag twice."""
    replies = changes().replies([(0, value(1.0)), (0, value(2.0))])
    assert [list(reply.values) for reply in replies] == [[1.0], [2.0]]


def test_a_clock_that_steps_back_keeps_the_newest_value_last() -> None:
    """Order of arrival counts then, since the last one is what holds now."""
    replies = changes().replies([(0, value(1.0, 500)), (0, value(2.0, 100))])
    assert flat(replies) == [(500, 0, 1.0), (100, 0, 2.0)]


def test_what_did_not_change_is_repeated_under_the_servers_time() -> None:
    """Once per answer, and only what is good and was not told anew."""
    known = changes(3)
    known.replies([(0, value(1.0)), (1, value(2.0)), (2, value(None, status=BAD))])
    replies = known.replies([(1, value(3.0, 400))], at(500))
    assert flat(replies, 3) == [(400, 1, 3.0), (500, 0, 1.0)]
    assert known.replies([]) == []


def test_nothing_is_repeated_that_was_never_told() -> None:
    """A sign of life says nothing of a value."""
    assert changes().replies([], at(0)) == []


def test_an_answer_to_a_poll_tells_what_is_new_and_repeats_the_rest() -> None:
    """By value and time stamp; after a failure everything is told once more."""
    known = changes()
    assert flat(known.polled([value(1.0), value(2.0)], at(1000))) == [(0, 0, 1.0), (0, 1, 2.0)]
    again = known.polled([value(1.0), value(2.5, 1500)], at(2000))
    assert flat(again) == [(1500, 1, 2.5), (2000, 0, 1.0)]
    known.forget()
    assert flat(known.polled([value(1.0), value(2.5, 1500)], at(3000))) == [
        (0, 0, 1.0),
        (1500, 1, 2.5),
    ]


def test_a_bad_value_is_nan_and_a_number_of_another_kind_is_a_number() -> None:
    """Severity alone decides; Booleans are 0 and 1."""
    replies = changes().replies([(0, value(7.0, status=BAD)), (1, ua.DataValue(ua.Variant(True)))])
    numbers = {place: number for _, place, number in flat(replies)}
    assert math.isnan(numbers[0])
    assert numbers[1] == 1.0


@pytest.mark.parametrize(
    "stamp", [datetime(1601, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)]
)
def test_a_time_that_is_none_gives_way_to_the_servers(stamp: datetime) -> None:
    """Source first, then server, then arrival."""
    with_server = ua.DataValue(ua.Variant(1.0), SourceTimestamp=stamp, ServerTimestamp=at(5))
    without = ua.DataValue(ua.Variant(1.0), SourceTimestamp=stamp)
    replies = changes().replies([(0, with_server), (1, without)])
    assert flat(replies) == [(5, 0, 1.0), (60_000, 1, 1.0)]


def test_complaints_are_said_once_and_their_end_too(caplog: pytest.LogCaptureFixture) -> None:
    """One line for all tags of one reason, a warning the first time only."""
    caplog.set_level(logging.DEBUG)
    known = changes(6)
    for _ in range(2):
        known.replies([(place, value(None, status=BAD)) for place in range(6)])
        known.replies([(place, value(None, status=BAD)) for place in range(6)])
        known.replies([(place, value(1.0)) for place in range(6)])
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "DEBUG", "INFO"]
    first = caplog.records[0].message
    assert first.startswith("opc.tcp://h:4840: 6 tags: D/t0 (i=0), ")
    assert first.endswith("and 2 more: BadSensorFailure")


def test_an_overflow_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The value itself is good."""
    known = changes()
    for _ in range(2):
        assert flat(known.replies([(0, value(1.0, status=OVERFLOW))])) == [(0, 0, 1.0)]
    assert caplog.text.count("the server's queue was full") == 1
