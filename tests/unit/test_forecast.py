"""What a map will cost: frames, time on the wire, cycles against periods, journal and disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import forecast as module
from edge_agent.bus_load import Verdict, cycles_s, frame_bytes, line_s, request_s
from edge_agent.forecast import (
    RAW_BYTES,
    RAW_BYTES_COMPRESSED,
    ROLLUP_BYTES,
    ROLLUP_BYTES_COMPRESSED,
    Forecast,
    forecast,
)
from edge_agent.journal import entry, journal, room
from edge_agent.model import LineTiming, Tag, ValueType, timing_of
from edge_agent.planner import Block, plan
from edge_agent.protocols import load
from edge_agent.schedule import EARLY_S, Schedule
from edge_agent.settings import JournalSettings, PostgresSettings


def tag(address: str, conn: str = "tcp://10.0.0.5:502", **changes: object) -> Tag:
    base = Tag(
        site="S", line="L", device="D", tag=address.replace(":", ""), protocol="modbus", conn=conn,
        unit_id=1, address=address, type=ValueType.BOOL if address[:2] in ("co", "di")
        else ValueType.INT16, scale=1.0, offset=0.0, period_ms=1000, unit="",
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]


def look(
    tags: Sequence[Tag],
    *,
    postgres: PostgresSettings | None = None,
    bytes_max: int = 2_000_000_000,
    round_trip_s: float = 0.005,
) -> Forecast:
    return forecast(
        tags,
        load,
        journal=JournalSettings(bytes_max=bytes_max),
        postgres=postgres or PostgresSettings(),
        commit_interval_s=0.2,
        round_trip_s=round_trip_s,
    )


def timing(conn: str, protocol: str = "modbus") -> LineTiming:
    found = timing_of(load(protocol), conn)
    assert found is not None
    return found


# -- frames and time ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("area", "count", "tcp", "rtu"),
    [
        ("holding", 1, (12, 11), (8, 7)),
        ("input", 125, (12, 259), (8, 255)),
        ("coil", 1, (12, 10), (8, 6)),
        ("coil", 8, (12, 10), (8, 6)),
        ("discrete", 9, (12, 11), (8, 7)),
        ("coil", 2_000, (12, 259), (8, 255)),
    ],
)
def test_frames_have_the_sizes_of_the_specification(
    area: str, count: int, tcp: tuple[int, int], rtu: tuple[int, int]
) -> None:
    """Request and reply with an MBAP header, and with unit id and CRC."""
    block = Block(1, area, 0, count, (), ())
    assert frame_bytes(block, timing("tcp://h")) == tcp
    assert frame_bytes(block, timing("tcp+tls://h")) == tcp
    assert frame_bytes(block, timing("rtu:///dev/ttyUSB0")) == rtu
    assert frame_bytes(block, timing("rtu+tcp://h:4001")) == rtu


@pytest.mark.parametrize(("count", "received"), [(1, 26), (222, 247), (942, 967)])
def test_frames_of_s7_hold_the_pdu(count: int, received: int) -> None:
    """TPKT and DT header, 7 bytes, around a job of 24 bytes and a reply of 18 with its data."""
    block = Block(1, "DB1", 0, count, (), ())
    assert frame_bytes(block, timing("s7://h", "s7")) == (31, received)


@pytest.mark.parametrize(
    ("conn", "character_us", "silence_us"),
    [
        ("rtu:///dev/ttyUSB0", 11 / 19_200 * 1e6, 3.5 * 11 / 19_200 * 1e6),
        ("rtu:///dev/ttyUSB0?baudrate=9600&parity=N", 10 / 9_600 * 1e6, 3.5 * 10 / 9_600 * 1e6),
        ("rtu:///d?baudrate=9600&parity=N&stopbits=2", 11 / 9_600 * 1e6, 3.5 * 11 / 9_600 * 1e6),
        ("rtu:///d?baudrate=20000", 550, 1_925),
        ("rtu:///d?baudrate=115200&parity=O", 11 / 115_200 * 1e6, 1_750),
        ("rtu+tcp://h:4001", 0, 0),
        ("tcp://h:502?timeout_ms=500", 0, 0),
    ],
)
def test_a_serial_line_by_its_options(conn: str, character_us: float, silence_us: float) -> None:
    """Start bit, 8 data bits, parity unless N, stop bits; 3.5 characters, 1.75 ms at least."""
    line = timing(conn)
    assert line.character_s * 1e6 == pytest.approx(character_us)
    assert line.silence_s * 1e6 == pytest.approx(silence_us)


def test_time_of_a_request() -> None:
    """By hand: 10 registers at 9600 8N1 are 33 characters of 1.0417 ms, and 3.5 of silence."""
    block = Block(1, "holding", 0, 10, (), ())
    serial = timing("rtu:///d?baudrate=9600&parity=N")
    wire_s, work_s = request_s(block, serial, 0.005)
    assert wire_s == pytest.approx(36.5 * 10 / 9_600)
    assert work_s == pytest.approx(wire_s + 0.005)
    # A device can't answer before the silence that ends the request.
    assert request_s(block, serial, 0.0)[1] == pytest.approx(wire_s + 35 / 9_600)
    # The silence before the next request passes within the pause.
    paused = timing("rtu:///d?baudrate=9600&parity=N&pause_ms=20")
    assert request_s(block, paused, 0.005) == pytest.approx((wire_s, 330 / 9_600 + 0.005 + 0.020))
    assert request_s(block, timing("tcp://h?pause_ms=7"), 0.005) == (0.005, 0.012)
    assert request_s(block, timing("s7://h", "s7"), 0.005) == (0.005, 0.005)


@pytest.mark.parametrize("conn", ["tcp://h?pause_ms=7", "rtu:///d?baudrate=9600&pause_ms=20"])
def test_what_is_not_the_devices_own_time(conn: str) -> None:
    """A device that takes longer than a line's silence has the rest of a request for itself."""
    block = Block(1, "holding", 0, 10, (), ())
    _, work_s = request_s(block, timing(conn), 0.030)
    assert work_s - line_s(block, timing(conn)) == pytest.approx(0.030)


@pytest.mark.parametrize(
    ("conn", "wire_ms", "work_ms"),
    [
        ("tcp://h", 5, 5),
        ("tcp://h?close_after_scan=true", 10, 10),
        ("tcp://h?close_after_scan=true&pause_after_connect_ms=50", 10, 60),
        ("tcp://h?close_after_scan=false&pause_after_connect_ms=50", 5, 5),
        ("tcp+tls://h?close_after_scan=true", 20, 20),
    ],
)
def test_a_connection_for_each_scan_costs_connecting(
    conn: str, wire_ms: float, work_ms: float
) -> None:
    """A round trip, three with TLS, and the pause that follows; nothing where it is kept."""
    (one,) = look([tag("hr:0", conn)]).connections
    (scan_class,) = one.classes
    assert scan_class.wire_s * 1000 == pytest.approx(wire_ms)
    assert scan_class.work_s * 1000 == pytest.approx(work_ms)
    assert scan_class.cycle_s * 1000 == pytest.approx(work_ms)


# -- counts ------------------------------------------------------------------------------------


def test_requests_bytes_and_registers_are_counted() -> None:
    """Two classes of one connection, a gap that is read along, a register that two tags share."""
    tags = [
        tag("hr:0", period_ms=200),
        tag("hr:5", period_ms=200),
        tag("hr:100", period_ms=200),
        tag("ir:0.1", type=ValueType.BOOL, period_ms=700),
        tag("ir:0.2", type=ValueType.BOOL, period_ms=700),
        tag("co:0", period_ms=700),
        tag("co:9", period_ms=700),
    ]
    (connection,) = look(tags).connections
    fast, slow = connection.classes
    assert (fast.period_ms, fast.tags, fast.requests) == (200, 3, 2)
    assert connection.cell == "register"
    assert (fast.cells_wanted, fast.cells_read, fast.bits_read) == (3, 7, 0)
    assert (fast.bytes_sent, fast.bytes_received) == (24, 9 + 12 + 9 + 2)
    assert (slow.cells_wanted, slow.cells_read) == (1, 1)
    assert (slow.bits_wanted, slow.bits_read) == (2, 10)
    assert (slow.bytes_sent, slow.bytes_received) == (24, 9 + 2 + 9 + 2)
    assert connection.requests_per_s == Fraction(10) + Fraction(20, 7)
    assert connection.rows_per_s == Fraction(15) + Fraction(40, 7)
    assert connection.busy == pytest.approx(0.010 / 0.2 + 0.010 / 0.7)
    assert connection.verdict is Verdict.FITS


def test_of_other_protocols_only_rows_are_told() -> None:
    """Nothing is invented, and they make no verdict."""
    tags = [tag("1", "sim://a", protocol="simulated", type=ValueType.INT16, period_ms=500)] * 2
    result = look(tags)
    (connection,) = result.connections
    assert (connection.classes, connection.verdict, connection.decisive) == ((), None, None)
    assert result.verdict is None
    assert result.rows_per_s == 4
    assert look([*tags, tag("hr:0")]).verdict is Verdict.FITS


def s7(address: str, conn: str = "s7://10.0.0.1", **changes: object) -> Tag:
    return tag(address, conn, protocol="s7", **changes)


def test_s7_has_a_verdict_too() -> None:
    """Bytes are counted; blocks are as large as the PDU, and a row too many is named."""
    (one,) = look([s7("DB1.DBW0"), s7("DB1.DBW10"), s7("M0.3", type=ValueType.BOOL)]).connections
    (scan_class,) = one.classes
    assert (one.cell, one.verdict) == ("byte", Verdict.FITS)
    assert (scan_class.requests, scan_class.cells_wanted, scan_class.cells_read) == (2, 5, 13)
    assert (scan_class.bytes_sent, scan_class.bytes_received) == (62, 25 + 12 + 25 + 1)
    assert scan_class.work_s == pytest.approx(0.010)
    words = [f"DB1.DBW{2 * at}" for at in range(462)]
    for pdu, requests in ((240, 5), (480, 2), (960, 1)):
        conn = f"s7://10.0.0.1?pdu={pdu}"
        (one,) = look([s7(address, conn) for address in words]).connections
        assert one.requests_per_s == requests
    many = [s7(f"DB{at}.DBW0", period_ms=200) for at in range(1, 60)]
    (one,) = look(many).connections
    assert (one.verdict, one.breaks) == (Verdict.IMPOSSIBLE, many[40])


class Untimed:
    """A driver of others, from before there was `timing`."""

    parse_conn = staticmethod(load("modbus").parse_conn)
    parse_address = staticmethod(load("modbus").parse_address)
    limits = staticmethod(load("modbus").limits)


class Unknowing(Untimed):
    """One that knows its timing on some connections only."""

    @staticmethod
    def timing(conn: str) -> LineTiming | None:
        return timing("tcp://h") if conn.endswith("5020") else None


def test_a_driver_need_not_tell_its_timing() -> None:
    """Without it, or with None, rows are told and no verdict is made."""
    fast, slow = tag("hr:0", "tcp://h:5020"), tag("hr:0", "tcp://h:502")
    for driver, verdicts in ((Untimed, [None, None]), (Unknowing, [Verdict.FITS, None])):
        result = forecast(
            [fast, slow],
            lambda _, driver=driver: driver,  # type: ignore[misc]
            journal=JournalSettings(),
            postgres=PostgresSettings(),
            commit_interval_s=0.2,
        )
        assert [one.verdict for one in result.connections] == verdicts
        assert result.rows_per_s == 2


def test_tags_that_give_fewer_rows_are_counted() -> None:
    """A deadband or a heartbeat: how many rows they give, nobody knows beforehand."""
    tags = [tag("hr:0"), tag("hr:1", deadband=0.5), tag("hr:2", heartbeat_ms=60_000)]
    assert look(tags).thinned_tags == 2


# -- verdicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("round_trip_s", "verdict"),
    [
        (0.069, Verdict.FITS),
        (0.071, Verdict.TIGHT),
        (0.1, Verdict.TIGHT),
        (0.101, Verdict.IMPOSSIBLE),
    ],
)
def test_the_verdict_by_share_of_the_period(round_trip_s: float, verdict: Verdict) -> None:
    """Two requests a scan of 200 ms: tight above 70 %, impossible above all of it."""
    tags = [tag("hr:0", period_ms=200), tag("hr:100", period_ms=200)]
    result = look(tags, round_trip_s=round_trip_s)
    assert result.verdict is verdict
    (connection,) = result.connections
    assert (connection.breaks is not None) == (verdict is Verdict.IMPOSSIBLE)


def test_a_rounding_error_breaks_nothing() -> None:
    """Forty times 5 ms are 200 ms, and twenty-eight are 70 % of them, though not as floats."""
    tags = [tag(f"hr:{at * 200}", period_ms=200) for at in range(41)]
    assert sum([0.005] * 40) > 0.2
    counts = {28: Verdict.FITS, 29: Verdict.TIGHT, 40: Verdict.TIGHT, 41: Verdict.IMPOSSIBLE}
    assert {count: look(tags[:count]).verdict for count in counts} == counts
    # A class that is just done by itself is not, where a faster one takes its turns.
    _, slow = cycles_s([(0.1, [0.06], 0.0), (0.2, [0.005] * 40, 0.0)])
    assert slow > 0.2 + 0.06


def test_the_row_that_breaks_a_connection() -> None:
    """With the rows above it the connection keeps up; with it, it does not."""
    addresses = [f"hr:{at * 60}" for at in (3, 1, 1000, 7, 5, 2, 900, 4)]
    tags = [tag(address, period_ms=200) for address in addresses]
    (connection,) = look(tags, round_trip_s=0.045).connections
    assert connection.breaks == tags[4]  # four requests of 45 ms fit into 200
    assert look(tags[:4], round_trip_s=0.045).verdict is Verdict.TIGHT
    assert look(tags[:5], round_trip_s=0.045).verdict is Verdict.IMPOSSIBLE


def test_a_request_longer_than_the_period_breaks_at_the_first_row() -> None:
    """Other connections keep their verdicts."""
    tags = [tag("hr:0", "rtu:///d?baudrate=300", period_ms=200), tag("hr:1")]
    broken, sound = look(tags).connections
    assert broken.breaks == tags[0]
    assert (sound.verdict, sound.breaks) == (Verdict.FITS, None)


def test_slow_classes_wait_for_fast_ones() -> None:
    """By hand: C = 60 ms each 100, then 2 x 25 ms each 300: R = 50 + 2 x 60 = 170 ms."""
    fast, slow = cycles_s([(0.1, [0.06], 0.0), (0.3, [0.025, 0.025], 0.0)])
    assert fast == pytest.approx(0.085)  # a block of the slow one may be under way
    assert slow == pytest.approx(0.17)


def test_a_load_above_one_is_never_said_to_fit() -> None:
    """1.05 of the time: the slowest class starves."""
    cycles = cycles_s([(0.2, [0.1], 0.0), (0.4, [0.1], 0.0), (1.0, [0.3], 0.0)])
    assert cycles[-1] > 1.0


def run(classes: Sequence[tuple[float, Sequence[float]]], for_s: float) -> tuple[int, list[float]]:
    """The real schedule on a clock of its own: overruns, and the longest scan of each class."""
    schedule = Schedule([(period_s, len(blocks)) for period_s, blocks in classes], start=0.0)
    now, longest, began = 0.0, [0.0] * len(classes), [0.0] * len(classes)
    while now < for_s:
        step = schedule.next_step(now)
        if step is None:
            now += schedule.wait_s(now)
            continue
        if step.late_s is not None:
            began[step.scan_class] = now - step.late_s
        now += classes[step.scan_class][1][step.block]
        schedule.finish(step, now)
        if step.last:
            taken = now - began[step.scan_class]
            longest[step.scan_class] = max(longest[step.scan_class], taken)
    return schedule.overruns, longest


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.2, 0.3, 0.5, 0.7, 1.0, 2.0]),
            st.lists(st.integers(1, 120).map(lambda ms: ms / 1000), min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda one: one[0],
    ).map(sorted)
)
def test_the_real_schedule_keeps_to_the_forecast(
    classes: list[tuple[float, list[float]]],
) -> None:
    """Where all cycles are within their periods no tick is left out, and no scan takes longer."""
    cycles = cycles_s([(period_s, blocks, 0.0) for period_s, blocks in classes])
    overruns, longest = run(classes, 45.0)
    if all(
        cycle + 5 * EARLY_S < period for cycle, (period, _) in zip(cycles, classes, strict=True)
    ):
        assert overruns == 0
        for seen, cycle in zip(longest, cycles, strict=True):
            assert seen <= cycle + 5 * EARLY_S
    if sum(sum(blocks) / period_s for period_s, blocks in classes) > 1.02:
        assert overruns > 0
        assert any(cycle > period for cycle, (period, _) in zip(cycles, classes, strict=True))


def test_the_poller_reads_a_block_a_request() -> None:
    """What is counted here is what the planner planned."""
    tags = [tag(f"hr:{at * 7 % 400}", period_ms=200 + 100 * (at % 3)) for at in range(100)]
    (connection,) = look(tags).connections
    (planned,) = plan(tags, load)
    assert [one.requests for one in connection.classes] == [
        len(scan_class.blocks) for scan_class in planned.scan_classes
    ]


# -- journal and disk --------------------------------------------------------------------------


def test_the_journal_lasts_longer_with_fewer_rows() -> None:
    """Twice the size, twice the hours; nothing to write, for ever."""
    tags = [tag(f"hr:{at}", period_ms=200) for at in range(100)]
    once, twice = look(tags).journal, look(tags, bytes_max=4_000_000_000).journal
    assert twice.hours == pytest.approx(2 * once.hours)
    assert once.bytes_per_row == pytest.approx(4096 / 3 / 100)  # 1,274 bytes, three to a page
    assert once.hours == pytest.approx(2e9 * 254 / 256 / (500 * once.bytes_per_row) / 3600)
    assert look([]).journal.hours == math.inf
    (alone,) = look([tag("hr:0", period_ms=3_600_000)]).connections
    assert alone.rows_per_s == Fraction(1, 3600)


def test_disk_with_and_without_compression() -> None:
    """By hand: one tag a second, chunks of a day that are compressed after seven."""
    day, week, quarter = look([tag("hr:0")]).disk
    per_day = 86_400 * RAW_BYTES + (1_440 + 24) * ROLLUP_BYTES
    assert (day.days, week.days, quarter.days) == (1, 7, 90)
    assert day.plain_bytes == day.compressed_bytes == round(per_day)
    assert week.plain_bytes == round(7 * per_day)
    assert quarter.plain_bytes == round(90 * per_day)
    raw = 86_400 * (8 * RAW_BYTES + 82 * RAW_BYTES_COMPRESSED)
    minutes = 1_440 * (9 * ROLLUP_BYTES + 81 * ROLLUP_BYTES_COMPRESSED)
    assert quarter.compressed_bytes == round(raw + minutes + 90 * 24 * ROLLUP_BYTES)


def test_what_is_deleted_takes_no_disk() -> None:
    """`raw_days` and `minute_days` are the most that is kept; hours are kept for ever."""
    postgres = PostgresSettings(
        raw_days=5, minute_days=10, refresh_minute_days=5, refresh_hour_days=9
    )
    quarter = look([tag("hr:0")], postgres=postgres).disk[-1]
    rollups = (10 * 1_440 + 90 * 24) * ROLLUP_BYTES
    assert quarter.plain_bytes == round(5 * 86_400 * RAW_BYTES + rollups)


def test_a_slow_tag_has_a_row_of_each_table_per_sample() -> None:
    """A minute without a sample has no row."""
    (day, *_) = look([tag("hr:0", period_ms=3_600_000)]).disk
    assert day.plain_bytes == round(24 * (RAW_BYTES + 2 * ROLLUP_BYTES))


# -- what it takes from elsewhere --------------------------------------------------------------


def test_the_journals_numbers_are_the_journals() -> None:
    """It stands above this module, so they can't be imported."""
    assert module._PAGE_BYTES == room.PAGE_BYTES
    assert module._ENTRY_SAMPLES_MAX == journal.SAMPLES_PER_ENTRY_MAX
    assert Fraction(4, room.RECLAIM_FRACTION) == 2 * (1 - module._ROOM_SHARE)
    assert module._COLUMN_BYTES == entry.BYTES_PER_SAMPLE
