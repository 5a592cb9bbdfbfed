"""Binary COPY rows, read back by an independent decoder."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.model import Batch, Series
from edge_agent.sinks.copy_rows import (
    COLUMNS,
    RowRenderer,
    UnstorableTextError,
    days_of,
    screen,
    whole,
    why_unstorable,
)

SERIES = {7: Series("A1", "L1", "PUMP01", "온도", "°C"), 9: Series("A1", "", "FAN", "RPM", "")}


def make_batch(
    runs: list[tuple[int, int]], series_ids: list[int], series: dict[int, Series] | None = None
) -> Batch:
    values = array("d", [index + 0.5 for index in range(len(series_ids))])
    return Batch(5, runs, array("I", series_ids), values, series or SERIES)


def decode(data: bytes) -> Iterator[tuple[int, float, Series]]:
    """Time in microseconds since 2000, value and series of each row, by the documented format."""
    at = 0
    while at < len(data):
        (count,) = struct.unpack_from(">h", data, at)
        at += 2
        fields = []
        for _ in range(count):
            (length,) = struct.unpack_from(">i", data, at)
            fields.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        assert len(fields) == len(COLUMNS)
        ts, value = struct.unpack(">q", fields[0])[0], struct.unpack(">d", fields[1])[0]
        yield ts, value, Series._make(field.decode() for field in fields[2:])


def test_rows_follow_the_format() -> None:
    """Every sample is one row, in order, with its run's time and its series' texts."""
    rows = decode(RowRenderer().render(make_batch([(946_684_800_001, 2), (0, 1)], [7, 9, 7])))
    assert list(rows) == [
        (1000, 0.5, SERIES[7]),
        (1000, 1.5, SERIES[9]),
        (-946_684_800_000_000, 2.5, SERIES[7]),
    ]


@given(
    st.lists(
        st.tuples(
            st.integers(-60_000_000_000_000, 200_000_000_000_000),
            st.lists(
                st.tuples(
                    st.sampled_from([7, 9]), st.floats(allow_nan=False, allow_infinity=False)
                ),
                max_size=5,
            ),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_batch_reads_back(scans: list[tuple[int, list[tuple[int, float]]]]) -> None:
    """Times, values and series of any batch come out as they went in, bit for bit."""
    flat = [(ts_ms, *sample) for ts_ms, samples in scans for sample in samples]
    batch = Batch(
        1,
        [(ts_ms, len(samples)) for ts_ms, samples in scans],
        array("I", [series_id for _, series_id, _ in flat]),
        array("d", [value for _, _, value in flat]),
        SERIES,
    )
    found = [(ts, value.hex(), series) for ts, value, series in decode(RowRenderer().render(batch))]
    assert found == [
        ((ts_ms - 946_684_800_000) * 1000, value.hex(), SERIES[series_id])
        for ts_ms, series_id, value in flat
    ]


def test_a_series_that_comes_later_is_rendered_too() -> None:
    """The mapping of a journal grows while it is in use."""
    renderer, series = RowRenderer(), {7: SERIES[7]}
    renderer.render(make_batch([(0, 1)], [7], series))
    series[9] = SERIES[9]
    rows = list(decode(renderer.render(make_batch([(0, 2)], [7, 9], series))))
    assert [row[2] for row in rows] == [SERIES[7], SERIES[9]]


@pytest.mark.parametrize(("text", "reason"), [("A\0B", "NUL"), ("\ud800", "surrogate")])
@pytest.mark.parametrize("field", Series._fields)
def test_text_that_cannot_be_stored_is_named(field: str, text: str, reason: str) -> None:
    """Each field is checked; the error carries the series, the reason the field."""
    series = SERIES[7]._replace(**{field: text})
    assert field in why_unstorable(series)
    assert reason in why_unstorable(series)
    with pytest.raises(UnstorableTextError, match=reason):
        RowRenderer().render(make_batch([(0, 1)], [3], {3: series}))


def test_days_are_utc_days_before_1970_too() -> None:
    """A day starts at midnight UTC."""
    runs = [(-1, 1), (0, 1), (86_399_999, 1), (86_400_000, 1)]
    assert days_of(make_batch(runs, [7] * 4)) == {-1, 0, 1}


def test_screening_keeps_order_and_positions() -> None:
    """Samples of refused days and unstorable series are set aside with a reason each."""
    series = {**SERIES, 1: Series("A1", "L1", "X\0", "T", "")}
    batch = make_batch([(0, 2), (86_400_000, 3), (90_000_000, 1)], [7, 9, 7, 1, 9, 1], series)
    portion = screen(batch, {0})
    assert list(portion.indices) == [2, 4]
    assert list(portion.batch.values) == [2.5, 4.5]
    assert list(portion.batch.series_ids) == [7, 9]
    assert portion.batch.runs == [(86_400_000, 2), (90_000_000, 0)]
    assert {at: "clock" in reason for at, reason in portion.refused.items()} == {
        0: True, 1: True, 3: False, 5: False,
    }  # fmt: skip
    assert [row[1] for row in decode(RowRenderer().render(portion.batch))] == [2.5, 4.5]


def test_a_whole_batch_keeps_its_positions() -> None:
    """The usual case copies nothing."""
    batch = make_batch([(0, 2)], [7, 9])
    portion = whole(batch)
    assert portion.batch is batch
    assert (list(portion.indices), portion.refused) == ([0, 1], {})
