"""The verdict: one line that says where the data stops."""

from __future__ import annotations

from typing import Any, cast

import pytest

from edge_agent.status import (
    LAG_WARNING_S,
    ConnectionStatus,
    JournalStatus,
    SinkStatus,
    verdict,
)

NOW_MS = 1_755_432_000_000


def make_connection(conn: str = "tcp://a", **fields: Any) -> ConnectionStatus:
    """A connection that is well."""
    well = {"conn": conn, "connected": True, "error": None, "tags": 5, "tags_good": 5, "scans": 9}
    return cast("ConnectionStatus", well | fields)


def down(conn: str = "tcp://a", error: str = "connection refused") -> ConnectionStatus:
    return make_connection(conn, connected=False, error=error, tags_good=0)


def make_journal(**fields: Any) -> JournalStatus:
    """A journal that is well."""
    return cast("JournalStatus", {"full": False, "disk_full": False, "commit_failures": 0} | fields)


def make_sink(name: str = "mqtt", **fields: Any) -> SinkStatus:
    """A sink that is well."""
    well = {"name": name, "error": None, "error_since_ms": None, "pending": 0, "lag_s": 0.0}
    return cast("SinkStatus", well | fields)


def failing(name: str = "mqtt", **fields: Any) -> SinkStatus:
    fields = {"error_since_ms": NOW_MS - 90_000, "pending": 1200} | fields
    return make_sink(name, error="connection refused", **fields)


CASES = {
    "all well": (
        [make_connection(), make_connection("tcp://b")],
        make_journal(),
        [make_sink(), make_sink("store")],
        True,
        "All well: 10 tags on 2 connections flow to mqtt, store",
    ),
    "one of each": (
        [make_connection(tags=1, tags_good=1)],
        make_journal(),
        [make_sink()],
        True,
        "All well: 1 tag on 1 connection flow to mqtt",
    ),
    "nothing to deliver to": (
        [make_connection()],
        make_journal(),
        [],
        True,
        "All well: 5 tags on 1 connection flow to no sink",
    ),
    "some tags bad": (
        [make_connection(tags_good=3)],
        make_journal(),
        [make_sink()],
        True,
        "3 of 5 tags on 1 connection flow to mqtt; 2 are bad or not read yet",
    ),
    "every connection down": (
        [down(), down("tcp://b", "no route to host")],
        make_journal(),
        [make_sink()],
        False,
        "Data stops at the PLCs: no connection is up; tcp://a: connection refused",
    ),
    "one connection down": (
        [make_connection(), down("tcp://b")],
        make_journal(),
        [make_sink()],
        False,
        "Data stops at tcp://b: connection refused",
    ),
    "two connections down": (
        [make_connection(), down("tcp://b", "no route to host"), down("tcp://c")],
        make_journal(),
        [make_sink()],
        False,
        "Data stops at tcp://b: no route to host; and at tcp://c: connection refused",
    ),
    "a connection without a single good tag": (
        [make_connection(tags_good=0)],
        make_journal(),
        [make_sink()],
        False,
        "Data stops at tcp://a: none of its tags can be read",
    ),
    "a connection that has just begun": (
        [make_connection(tags_good=0, scans=0)],
        make_journal(),
        [make_sink()],
        True,
        "0 of 5 tags on 1 connection flow to mqtt; 5 are bad or not read yet",
    ),
    "journal full": (
        [make_connection()],
        make_journal(full=True),
        [make_sink()],
        False,
        "Data stops at the journal: it is full, reading of the PLCs is paused",
    ),
    "disk full": (
        [make_connection()],
        make_journal(disk_full=True),
        [make_sink()],
        False,
        "Data stops at the journal: the disk refuses to write; free some space",
    ),
    "commits fail": (
        [make_connection()],
        make_journal(commit_failures=3),
        [make_sink()],
        False,
        "Data stops at the journal: the disk refuses to write; free some space",
    ),
    "a sink down": (
        [make_connection()],
        make_journal(),
        [make_sink("store"), failing()],
        False,
        "Data stops at mqtt for 90 s (1200 samples wait in the journal): connection refused",
    ),
    "two sinks down, one of them only now": (
        [make_connection()],
        make_journal(),
        [failing(), failing("postgres", error_since_ms=None, pending=1)],
        False,
        (
            "Data stops at mqtt for 90 s (1200 samples wait in the journal): connection refused; "
            "and at postgres for 0 s (1 samples wait in the journal): connection refused"
        ),
    ),
    "a PLC and a sink": (
        [make_connection(), down("tcp://b")],
        make_journal(),
        [failing()],
        False,
        (
            "Data stops at tcp://b: connection refused; "
            "and at mqtt for 90 s (1200 samples wait in the journal): connection refused"
        ),
    ),
    "a sink behind": (
        [make_connection()],
        make_journal(),
        [make_sink(lag_s=LAG_WARNING_S + 12)],
        False,
        "Catching up: mqtt is 42 s behind",
    ),
    "a sink hardly behind": (
        [make_connection()],
        make_journal(),
        [make_sink(lag_s=LAG_WARNING_S)],
        True,
        "All well: 5 tags on 1 connection flow to mqtt",
    ),
    "a map without tags": (
        [],
        make_journal(),
        [make_sink()],
        True,
        "All well: 0 tags on 0 connections flow to mqtt",
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_verdict_names_every_place_where_data_stops(case: str) -> None:
    """In the order in which data flows, with the reason; well only while it flows everywhere."""
    connections, journal, sinks, well, text = CASES[case]
    assert verdict(connections, journal, sinks, NOW_MS) == (well, text)
