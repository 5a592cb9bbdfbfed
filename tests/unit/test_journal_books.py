"""The journal's arithmetic, without a file: cursors, ledger, quarantine, spans and thinning."""

from __future__ import annotations

import itertools
import sqlite3
from array import array
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import JournalError
from edge_agent.journal.books import (
    BYTES_PER_LEDGER_ROW,
    BYTES_PER_QUARANTINE_ROW,
    LEDGER_GAP_MS,
    SCHEMA,
    Acknowledgement,
    Books,
    Quarantined,
    SinkTotals,
    joined,
)
from edge_agent.journal.entries import batch_of, samples_of, spans_of, thin
from edge_agent.model import Batch, Series

SERIES = {n: Series("A1", "L1", "PUMP01", f"T{n}", "bar") for n in range(1, 6)}
ROWS = st.lists(
    st.tuples(st.integers(0, 50), st.integers(1, 5), st.integers(-100, 100).map(float)),
    min_size=1,
    max_size=60,
)


@pytest.fixture
def books() -> Iterator[Books]:
    """Books of a 1 MB journal with two sinks."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(SCHEMA)
    made = Books(connection, 1_000_000, lambda: 0)
    made.load()
    for sink in ("a", "b"):
        made.write(SinkTotals(sink))
    yield made
    connection.close()


def acknowledge(books: Books, ack: Acknowledgement) -> None:
    """As the file does it, which deletes entries in between."""
    if books.advance(ack):
        books.refuse(ack.sink, ack.rejected)


def lost(books: Books, sink: str) -> int:
    """What the ledger says a sink lost."""
    return sum(row.samples for row in books.ledger() if row.sink == sink)


# -- cursors ------------------------------------------------------------------------------------


def test_an_acknowledgement_moves_the_cursor_and_counts(books: Books) -> None:
    """Delivered and quarantined together are what was acknowledged; duplicates are part of it."""
    rejected = (Quarantined(1, 5, 2.0, "no"),)
    acknowledge(books, Acknowledgement("a", 0, 7, 99, 3, rejected))
    assert books.totals["a"] == SinkTotals("a", 7, 0, 99, 3, 1, 0)
    assert books.totals["a"].accounted == 100
    assert books.totals["b"] == SinkTotals("b")
    assert books.quarantine() == [("a", rejected[0])]


def test_the_same_acknowledgement_again_changes_nothing(books: Books) -> None:
    """A commit whose outcome is not known is repeated: it must not count twice."""
    again = Acknowledgement("a", 0, 7, 99, 0, (Quarantined(1, 5, 2.0, "no"),))
    acknowledge(books, again)
    before = books.totals["a"]
    acknowledge(books, again)
    assert books.totals["a"] == before
    assert len(books.quarantine()) == 1


def test_cursors_are_read_back(books: Books) -> None:
    """What was written is what a new process finds."""
    acknowledge(books, Acknowledgement("a", 0, 7, 99, 3, (Quarantined(1, 5, 2.0, "no"),)))
    other = Books(books.connection, books.bytes_max, lambda: 0)
    other.load()
    assert other.totals == books.totals
    assert other.quarantine_rows == 1


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE cursor SET delivered = delivered + 1",
        "UPDATE ledger SET samples = samples + 1",
        "UPDATE ledger SET series_id = 2",
        "UPDATE quarantine SET value = 3",
        "UPDATE quarantine SET ts_ms = ts_ms + 1",
    ],
)
def test_a_changed_row_is_found(books: Books, change: str) -> None:
    """No number of the books can change unseen."""
    acknowledge(books, Acknowledgement("a", 0, 7, 99, 0, (Quarantined(1, 5, 2.0, "no"),)))
    books.lose({("a", 1): (1, 2, 3)}, "full")
    books.load()
    books.connection.execute(change)
    with pytest.raises(JournalError, match="damaged"):
        books.load()


# -- ledger -------------------------------------------------------------------------------------


def test_losses_that_follow_each_other_share_a_row(books: Books) -> None:
    """One outage, one line: its time range grows in both directions."""
    for first in (1000, 1000 + LEDGER_GAP_MS, 500):
        books.lose({("a", 1): (first, first, 2)}, "full")
    (row,) = books.ledger()
    assert row.span == (500, 1000 + LEDGER_GAP_MS, 6)
    assert books.totals["a"].lost == 6


@pytest.mark.parametrize("first", [-LEDGER_GAP_MS * 10, LEDGER_GAP_MS * 10])
def test_losses_far_apart_do_not(books: Books, first: int) -> None:
    """Neither later nor, with a clock that was set back, earlier ones."""
    books.lose({("a", 1): (0, 10, 2)}, "full")
    books.lose({("a", 1): (first, first + 10, 2)}, "full")
    assert len(books.ledger()) == 2


def test_losses_differ_by_sink_tag_and_reason(books: Books) -> None:
    """Each has a row of its own."""
    books.lose({("a", 1): (0, 1, 1), ("a", 2): (0, 1, 1), ("b", 1): (0, 1, 1)}, "full")
    books.lose({("a", 1): (0, 1, 1)}, "thinned")
    books.lose({("a", None): (None, None, 5)}, "full")
    assert len(books.ledger()) == 5
    assert (books.totals["a"].lost, books.totals["b"].lost) == (8, 1)


def test_a_full_ledger_merges_and_stays_exact(books: Books) -> None:
    """Rows become fewer, samples do not."""
    for hour in range(60):
        ts_ms = hour * 3_600_000
        books.lose({("a", tag): (ts_ms, ts_ms + 1, 3) for tag in range(100)}, "full")
        assert len(books.ledger()) <= books.bytes_max // BYTES_PER_LEDGER_ROW
    assert lost(books, "a") == books.totals["a"].lost == 60 * 100 * 3
    assert {row.series_id for row in books.ledger()} == set(range(100))
    assert min(row.first_ts_ms or 0 for row in books.ledger()) == 0
    assert max(row.last_ts_ms or 0 for row in books.ledger()) == 59 * 3_600_000 + 1


def test_more_tags_than_the_ledger_has_rows(books: Books) -> None:
    """Then they are told per sink; the number of samples is still exact."""
    tags = books.bytes_max // BYTES_PER_LEDGER_ROW + 10
    for hour in range(3):
        ts_ms = hour * 3_600_000
        books.lose({("a", tag): (ts_ms, ts_ms + 1, 1) for tag in range(tags)}, "full")
        assert len(books.ledger()) < tags
    assert lost(books, "a") == books.totals["a"].lost == 3 * tags


# -- quarantine ---------------------------------------------------------------------------------


def test_a_full_quarantine_moves_its_oldest_to_the_ledger(books: Books) -> None:
    """It stays bounded, and every sample stays accounted for."""
    rows_max = books.bytes_max // BYTES_PER_QUARANTINE_ROW
    for number in range(5):
        rejected = tuple(Quarantined(1, number * 1000 + n, float(n), "no") for n in range(300))
        acknowledge(books, Acknowledgement("a", number, number + 1, 0, 0, rejected))
        kept = len(books.quarantine())
        assert kept <= rows_max
        totals = books.totals["a"]
        assert (totals.quarantined, books.quarantine_rows) == (kept, kept)
        assert totals.quarantined + totals.lost == totals.accounted == (number + 1) * 300
        assert lost(books, "a") == totals.lost
    assert books.quarantine()[-1][1] == rejected[-1]


def test_more_refused_at_once_than_the_quarantine_holds(books: Books) -> None:
    """The newest are kept and the rest is lost, tag by tag, without ever being written there."""
    rows_max = books.bytes_max // BYTES_PER_QUARANTINE_ROW
    rejected = tuple(Quarantined(1 + n % 2, n, float(n), "no") for n in range(2 * rows_max))
    acknowledge(books, Acknowledgement("a", 0, 1, 0, 0, rejected[:3]))
    changes = books.connection.total_changes
    acknowledge(books, Acknowledgement("a", 1, 2, 0, 0, rejected))
    assert books.connection.total_changes - changes < rows_max + 20
    assert [sample for _, sample in books.quarantine()] == list(rejected[rows_max:])
    totals = books.totals["a"]
    assert (totals.quarantined, totals.lost) == (rows_max, rows_max + 3)
    assert lost(books, "a") == totals.lost
    assert {row.series_id for row in books.ledger()} == {1, 2}


def test_brief_books_take_a_row_per_sink(books: Books) -> None:
    """For losses as for refused samples, with exact counts and the whole range of time."""
    rejected = tuple(Quarantined(n, n, float(n), "no") for n in range(1, 6))
    books.brief = True
    acknowledge(books, Acknowledgement("a", 0, 1, 7, 0, rejected))
    books.lose({("b", n): (n, n + 1, 2) for n in range(1, 6)}, "full")
    assert [(row.sink, row.series_id, row.span, row.reason) for row in books.ledger()] == [
        ("a", None, (1, 5, 5), "quarantine full"),
        ("b", None, (1, 6, 10), "full"),
    ]
    assert books.totals["a"] == SinkTotals("a", 1, delivered=7, lost=5)
    assert books.totals["b"].lost == 10
    assert books.quarantine() == []


def test_what_is_taken_out_of_quarantine_is_gone_from_it(books: Books) -> None:
    """Only the named sink's samples, and its counter with them."""
    for sink in ("a", "b"):
        rejected = tuple(Quarantined(1, n, float(n), "no") for n in range(3))
        acknowledge(books, Acknowledgement(sink, 0, 1, 0, 0, rejected))
    assert books.take_quarantined("a") == [(n, 1, float(n)) for n in range(3)]
    assert books.take_quarantined("a") == []
    assert [sink for sink, _ in books.quarantine()] == ["b"] * 3
    assert (books.totals["a"].quarantined, books.totals["b"].quarantined) == (0, 3)


def test_reconcile_follows_the_rows(books: Books) -> None:
    """After a recovery: missing ledger rows are replaced, missing quarantined samples are not."""
    rejected = tuple(Quarantined(1, n, float(n), "no") for n in range(3))
    acknowledge(books, Acknowledgement("a", 0, 1, 10, 0, rejected))
    books.lose({("a", 1): (0, 1, 4), ("a", 2): (0, 1, 5)}, "full")
    books.connection.execute("DELETE FROM ledger WHERE series_id = 2")
    books.connection.execute("DELETE FROM quarantine WHERE ts_ms = 0")
    books.reconcile()
    totals = books.totals["a"]
    assert (totals.delivered, totals.quarantined, totals.lost) == (10, 2, 9)
    assert lost(books, "a") == 9


# -- spans and thinning -------------------------------------------------------------------------


@given(ROWS)
def test_batch_of_keeps_every_sample(rows: list[tuple[int, int, float]]) -> None:
    """Samples in, the same samples out, in order; equal times share a run."""
    batch = batch_of(1, rows, SERIES)
    assert list(samples_of(batch)) == rows
    times = [ts_ms for ts_ms, _ in batch.runs]
    assert all(one != other for one, other in itertools.pairwise(times))


@given(ROWS, ROWS)
def test_spans_are_first_last_and_count_per_series(
    one: list[tuple[int, int, float]], other: list[tuple[int, int, float]]
) -> None:
    """Over all batches together, whatever the order of times."""
    spans = spans_of([batch_of(1, one, SERIES), batch_of(2, other, SERIES)])
    rows = one + other
    assert set(spans) == {id_ for _, id_, _ in rows}
    for series_id, (first, last, samples) in spans.items():
        times = [ts_ms for ts_ms, id_, _ in rows if id_ == series_id]
        assert (first, last, samples) == (min(times), max(times), len(times))


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_thin_keeps_every_second_sample_of_each_series(
    entries: list[list[tuple[int, int, float]]],
) -> None:
    """From batch to batch; kept and dropped together are what there was."""
    keep_next: dict[int, bool] = {}
    kept: list[tuple[int, int, float]] = []
    dropped: list[tuple[int, int, float]] = []
    for sequence, rows in enumerate(entries):
        left, gone = thin(batch_of(sequence, rows, SERIES), keep_next)
        assert (left.sequence, gone.sequence) == (sequence, sequence)
        assert Counter(samples_of(left)) + Counter(samples_of(gone)) == Counter(rows)
        kept += samples_of(left)
        dropped += samples_of(gone)
    rows = [row for entry in entries for row in entry]
    for series_id in SERIES:
        assert [r for r in kept if r[1] == series_id] == [r for r in rows if r[1] == series_id][::2]
    assert len(kept) + len(dropped) == len(rows)


def test_thin_may_leave_nothing() -> None:
    """A batch whose only sample is dropped is empty, without runs."""
    batch = Batch(1, [(5, 1)], array("I", [1]), array("d", [2.0]), SERIES)
    kept, dropped = thin(batch, {1: False})
    assert (len(kept), list(kept.runs), len(dropped)) == (0, [], 1)


def test_joined_spans() -> None:
    """Unknown times do not hide known ones."""
    assert joined(None, (1, 2, 3)) == (1, 2, 3)
    assert joined((1, 2, 3), (0, 1, 4)) == (0, 2, 7)
    assert joined((None, None, 3), (0, 1, 4)) == (0, 1, 7)
    assert joined((None, None, 3), (None, None, 4)) == (None, None, 7)
