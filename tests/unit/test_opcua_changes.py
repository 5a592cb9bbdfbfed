"""What becomes of what an OPC UA server says: samples, their times and their order."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from asyncua import ua

from edge_agent.model import Address, ValueType
from edge_agent.planner import Block
from edge_agent.protocols.base import Reply
from edge_agent.protocols.opcua_changes import Changes
from edge_agent.protocols.opcua_wire import Change
from tests.tags import plain_tag

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
START_MS = round(START.timestamp() * 1000)
NOW_MS = START_MS + 60_000
BAD = ua.StatusCodes.BadSensorFailure
OVERFLOW = 0x0480


def changes(tags: int = 2) -> Changes:
    members = tuple(
        plain_tag(
            f"t{n}",
            protocol="opcua",
            conn="opc.tcp://h",
            address=f"i={n}",
            type=ValueType.FLOAT64,
        )
        for n in range(tags)
    )
    block = Block(1, "node", 0, 1, members, (Address("node", 0),) * tags)
    return Changes(block, "opc.tcp://h:4840", lambda: NOW_MS)


def value(
    place: int,
    number: float,
    after_ms: int | None = 0,
    status: int = 0,
    server_after_ms: int | None = None,
) -> Change:
    bad = "BadSensorFailure" if status & 0x8000_0000 else ""
    return Change(place, number, status, bad, at(after_ms), at(server_after_ms))


def at(after_ms: int | None) -> int | None:
    return None if after_ms is None else START_MS + after_ms


def flat(replies: Sequence[Reply], size: int = 2) -> list[tuple[int, int, float]]:
    """(milliseconds after START, position, value) in order."""
    return [
        (reply.ts_ms - START_MS, place, number)
        for reply in replies
        for place, number in zip(
            range(size) if reply.positions is None else reply.positions, reply.values, strict=True
        )
    ]


def test_changes_come_oldest_first_whichever_tag_they_are_of() -> None:
    """A server tells them tag by tag."""
    said = [value(0, 1.0, 1), value(0, 2.0, 3), value(1, 5.0, 1), value(1, 6.0, 2)]
    replies = changes().replies(said)
    assert flat(replies) == [(1, 0, 1.0), (1, 1, 5.0), (2, 1, 6.0), (3, 0, 2.0)]
    assert replies[0].positions is None


def test_two_changes_within_a_millisecond_are_two_samples() -> None:
    """No reply has a tag twice."""
    replies = changes().replies([value(0, 1.0), value(0, 2.0)])
    assert [list(reply.values) for reply in replies] == [[1.0], [2.0]]


def test_a_clock_that_steps_back_keeps_the_newest_value_last() -> None:
    """Order of arrival counts then, since the last one is what holds now."""
    replies = changes().replies([value(0, 1.0, 500), value(0, 2.0, 100)])
    assert flat(replies) == [(500, 0, 1.0), (100, 0, 2.0)]


def test_what_did_not_change_is_repeated_under_the_servers_time() -> None:
    """Once per answer, and only what is good and was not told anew."""
    known = changes(3)
    known.replies([value(0, 1.0), value(1, 2.0), value(2, math.nan, status=BAD)])
    replies = known.replies([value(1, 3.0, 400)], START_MS + 500)
    assert flat(replies, 3) == [(400, 1, 3.0), (500, 0, 1.0)]
    assert known.replies([]) == []


def test_nothing_is_repeated_that_was_never_told() -> None:
    """A sign of life says nothing of a value."""
    assert changes().replies([], START_MS) == []


def test_an_answer_to_a_poll_tells_what_is_new_and_repeats_the_rest() -> None:
    """By value and time stamp; after a failure everything is told once more."""
    known = changes()
    first = known.polled([value(0, 1.0), value(1, 2.0)], START_MS + 1000)
    assert flat(first) == [(0, 0, 1.0), (0, 1, 2.0)]
    again = known.polled([value(0, 1.0), value(1, 2.5, 1500)], START_MS + 2000)
    assert flat(again) == [(1500, 1, 2.5), (2000, 0, 1.0)]
    under_the_same_time = known.polled([value(0, 1.0), value(1, 2.75, 1500)], START_MS + 2500)
    assert flat(under_the_same_time) == [(1500, 1, 2.75), (2500, 0, 1.0)]
    known.forget()
    once_more = known.polled([value(0, 1.0), value(1, 2.5, 1500)], START_MS + 3000)
    assert flat(once_more) == [(0, 0, 1.0), (1500, 1, 2.5)]


def test_what_stays_bad_is_said_with_each_poll() -> None:
    """As of any other protocol that is asked, also under the same time stamp."""
    known = changes(1)
    for _ in range(2):
        [reply] = known.polled([value(0, math.nan, status=BAD)], START_MS + 500)
        assert math.isnan(reply.values[0])


@pytest.mark.parametrize("year", [1601, 9999])
def test_a_time_that_is_none_gives_way_to_the_servers(year: int) -> None:
    """Source first, then server, then arrival."""
    away_ms = round((datetime(year, 1, 1, tzinfo=UTC) - START).total_seconds() * 1000)
    with_server = value(0, 1.0, away_ms, server_after_ms=5)
    replies = changes(3).replies([with_server, value(1, 1.0, away_ms), value(2, 1.0, None)])
    assert flat(replies, 3) == [(5, 0, 1.0), (60_000, 1, 1.0), (60_000, 2, 1.0)]


def test_complaints_are_said_once_and_their_end_too(caplog: pytest.LogCaptureFixture) -> None:
    """One line for all tags of one reason, a warning the first time only."""
    caplog.set_level(logging.DEBUG)
    known = changes(6)
    for _ in range(2):
        known.replies([value(place, math.nan, status=BAD) for place in range(6)])
        known.replies([value(place, math.nan, status=BAD) for place in range(6)])
        known.replies([value(place, 1.0) for place in range(6)])
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "DEBUG", "INFO"]
    first = caplog.records[0].message
    assert first.startswith("opc.tcp://h:4840: 6 tags: PUMP01/t0 (i=0), ")
    assert first.endswith("and 2 more: BadSensorFailure")


def test_an_overflow_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """The value itself is good."""
    known = changes()
    for _ in range(2):
        assert flat(known.replies([value(0, 1.0, status=OVERFLOW)])) == [(0, 0, 1.0)]
    assert caplog.text.count("the server's queue was full") == 1
