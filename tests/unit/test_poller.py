"""The poller: drivers that fail on demand on one side, a list instead of a journal on the other."""

from __future__ import annotations

import asyncio
import logging
import math
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from edge_agent.errors import DeviceError, RefusedError, SilentUnitError, TransientError
from edge_agent.journal import Journal
from edge_agent.metrics import ConnectionCounters
from edge_agent.model import Address, Limits, Series, ValueType
from edge_agent.pipeline import poller as poller_module
from edge_agent.pipeline import reader as reader_module
from edge_agent.pipeline.gap_book import GapBook
from edge_agent.pipeline.parts import Gaps
from edge_agent.pipeline.poller import ConnectionPoller, phase_of
from edge_agent.pipeline.reader import REFUSED_BEFORE, BlockReader, Quality
from edge_agent.planner import Block, Connection, ScanClass
from edge_agent.protocols.base import Driver, Frames, Reply, WallClock
from edge_agent.schedule import Schedule
from tests.tags import plain_tag
from tests.waiting import until

WAIT_S = 5.0
TS_MS = 1_755_432_000_000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that no test waits for."""
    monkeypatch.setattr(poller_module, "BACKOFF_FIRST_S", 0.002)
    monkeypatch.setattr(poller_module, "BACKOFF_MAX_S", 0.004)
    monkeypatch.setattr(poller_module, "PAUSE_S", 0.002)
    monkeypatch.setattr(poller_module, "STEADY_S", 0.03)


class Taken:
    """In place of a journal: what was appended, and whether it takes more."""

    def __init__(self) -> None:
        self.accepting = True
        self.samples: list[tuple[str, int, float]] = []
        self._names: list[str] = []

    def intern(self, series: Series) -> int:
        self._names.append(series.tag)
        return len(self._names)

    def append(self, ts_ms: int, series_ids: bytes, values: Sequence[float]) -> None:
        ids = struct.unpack(f"={len(values)}I", series_ids)
        self.samples += [(self._names[n - 1], ts_ms, v) for n, v in zip(ids, values, strict=True)]

    def tags(self) -> list[str]:
        return [tag for tag, _, _ in self.samples]


class Plc:
    """A driver that does what a test says, block by block; the class is the PLC behind it."""

    timeout_s = 0.02
    close_after_scan: ClassVar[bool] = False
    instances: ClassVar[list[Plc]]
    refuses: ClassVar[bool]
    faults: ClassVar[dict[str, Exception | str]]
    """By a block's area: what its read raises; "mute" for no answer, "short" for half a reply."""
    missing: ClassVar[set[int]]
    """Cells that it has not got."""
    reads: ClassVar[list[str]]
    units: ClassVar[list[int]]

    def __init__(self, conn: str, *, now_ms: WallClock) -> None:
        self.conn = conn
        self.now_ms = now_ms
        self.connects = self.closes = 0
        self.instances.append(self)

    @staticmethod
    def parse_conn(conn: str) -> object:
        return conn

    @staticmethod
    def parse_address(address: str, value_type: ValueType) -> Address:
        return Address("a", 0)

    @staticmethod
    def limits(conn: str, area: str) -> Limits:
        return Limits(1, 0)

    async def connect(self) -> None:
        self.connects += 1
        if self.refuses:
            raise TransientError("connection refused")

    async def read(self, block: Block) -> Sequence[Reply]:
        self.reads.append(block.area)
        self.units.append(block.unit_id)
        if self.missing & set(range(block.start, block.start + block.count)):
            raise RefusedError("exception 2")
        match self.faults.get(block.area):
            case "mute":
                await asyncio.Event().wait()
            case "short":
                return [Reply(self.now_ms(), [1.0] * (len(block.tags) - 1))]
            case "silent":
                return []
            case Exception() as error:
                raise error
        return [Reply(self.now_ms(), [float(address.offset) for address in block.addresses])]

    async def close(self) -> None:
        self.closes += 1


@pytest.fixture
def plc() -> type[Plc]:
    """A PLC of this test's own."""

    class Fresh(Plc):
        instances: ClassVar[list[Plc]] = []
        refuses: ClassVar[bool] = False
        faults: ClassVar[dict[str, Exception | str]] = {}
        missing: ClassVar[set[int]] = set()
        reads: ClassVar[list[str]] = []
        units: ClassVar[list[int]] = []

    return Fresh


def make_block(area: str, tags: int = 1, period_ms: int = 10, unit_id: int = 1) -> Block:
    """A block whose tags are called after its area: A0, A1 ..."""
    members = tuple(
        plain_tag(
            f"{area}{number}",
            protocol="plc",
            conn="plc://a",
            unit_id=unit_id,
            address="0",
            type=ValueType.FLOAT64,
            period_ms=period_ms,
        )
        for number in range(tags)
    )
    addresses = tuple(Address(area, number) for number in range(tags))
    return Block(unit_id, area, 0, tags, members, addresses)


def make_connection(*classes: tuple[int, str], conn: str = "plc://a") -> Connection:
    """Scan classes as (period_ms, one letter for each block)."""
    return Connection(
        "plc",
        conn,
        tuple(
            ScanClass(period_ms, tuple(make_block(area, 1, period_ms) for area in areas))
            for period_ms, areas in classes
        ),
    )


class Rig:
    """Pollers that are ended with the test."""

    def __init__(self) -> None:
        self.journal = Taken()
        self.wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
        self.tasks: list[asyncio.Task[None]] = []

    def poll(
        self, connection: Connection, driver: type[Plc], gap_book: GapBook | None = None
    ) -> ConnectionPoller:
        made = ConnectionPoller(
            connection,
            cast("type[Driver]", driver),
            cast("Journal", self.journal),
            phase=0.0,
            now_ms=lambda: self.wall_ms(),
            monotonic=time.monotonic,
            gap_book=gap_book,
        )
        self.tasks.append(asyncio.create_task(made.run()))
        return made

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        for result in await asyncio.gather(*self.tasks, return_exceptions=True):
            assert result is None or isinstance(result, asyncio.CancelledError), result


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await made.end()


# -- scanning -----------------------------------------------------------------------------------


async def test_every_class_is_scanned_at_its_own_pace(rig: Rig, plc: type[Plc]) -> None:
    """Twice as often means twice as many scans; what is read is in the journal."""
    poller = rig.poll(make_connection((10, "AB"), (20, "C")), plc)
    await until(lambda: plc.reads.count("C") >= 5)
    fast, slow = poller.schedule._scans
    ticks = [plc.reads.count("A") + fast.overruns, plc.reads.count("C") + slow.overruns]
    assert abs(ticks[0] - 2 * ticks[1]) <= 2
    assert poller.counters.samples == len(rig.journal.samples) > 20
    assert poller.counters.requests == len(plc.reads)
    assert poller.counters.scans == plc.reads.count("B") + plc.reads.count("C")
    assert poller.connected
    assert poller.error is None


async def test_a_jump_of_the_wall_clock_neither_stops_nor_doubles_scans(
    rig: Rig, plc: type[Plc]
) -> None:
    """Hours back and forth between two reads: the ticks stay where they were."""
    jumps = iter(range(10_000))
    rig.wall_ms = lambda: TS_MS + (-1) ** next(jumps) * 7_200_000
    started = time.monotonic()
    poller = rig.poll(make_connection((20, "A")), plc)
    await until(lambda: len(plc.reads) >= 10)
    ticks = (time.monotonic() - started) / 0.02
    assert abs(len(plc.reads) + poller.schedule.overruns - ticks) <= 2
    times = {ts_ms for _, ts_ms, _ in rig.journal.samples}
    assert times == {TS_MS - 7_200_000, TS_MS + 7_200_000}


async def test_connections_do_not_wait_for_each_other(rig: Rig, plc: type[Plc]) -> None:
    """One that is mute costs the other nothing."""

    class Mute(Plc):
        timeout_s = 60.0
        instances: ClassVar[list[Plc]] = []
        refuses: ClassVar[bool] = False
        faults: ClassVar[dict[str, Exception | str]] = {"A": "mute"}
        missing: ClassVar[set[int]] = set()
        reads: ClassVar[list[str]] = []
        units: ClassVar[list[int]] = []

    rig.poll(make_connection((10, "A")), Mute)
    rig.poll(make_connection((10, "A"), conn="plc://b"), plc)
    await until(lambda: len(plc.reads) >= 10)
    assert Mute.reads == ["A"]


async def test_stop_ends_the_running_scan_and_starts_no_other(rig: Rig, plc: type[Plc]) -> None:
    """What a scan has begun it ends, so that no scan is half in the journal."""
    poller = rig.poll(make_connection((5_000, "ABCDE"), (10_000, "F")), plc)
    read = plc.read

    async def stop_at_b(self: Plc, block: Block) -> Sequence[Reply]:
        if block.area == "B":
            poller.stop()
        return await read(self, block)

    plc.read = stop_at_b  # type: ignore[method-assign]
    async with asyncio.timeout(WAIT_S):
        await rig.tasks[0]
    assert plc.reads == list("ABCDE")
    assert plc.instances[0].closes == 1


async def test_stop_while_a_device_is_away_ends_at_once(
    rig: Rig, plc: type[Plc], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pause between attempts is slept to its end."""
    monkeypatch.setattr(poller_module, "BACKOFF_FIRST_S", 60.0)
    plc.refuses = True
    poller = rig.poll(make_connection((10, "A")), plc)
    await until(lambda: poller.counters.errors["connection"])
    poller.stop()
    async with asyncio.timeout(WAIT_S):
        await rig.tasks[0]


# -- failures -----------------------------------------------------------------------------------


async def test_a_device_error_costs_its_block_only(rig: Rig, plc: type[Plc]) -> None:
    """Its tags are bad, with the reason; the others are read on the same connection."""
    plc.faults["B"] = DeviceError("illegal address")
    poller = rig.poll(make_connection((10, "ABC")), plc)
    await until(lambda: plc.reads.count("C") >= 3)
    a, b, c = poller.readers[0]
    assert (a.qualities, b.qualities, c.qualities) == (
        [Quality.GOOD], [Quality.BAD], [Quality.GOOD]
    )  # fmt: skip
    assert b.problem(0) == "illegal address"
    assert math.isnan(b.values[0])
    assert set(rig.journal.tags()) == {"A0", "C0"}
    assert plc.instances[0].connects == 1
    assert poller.counters.errors.keys() == {"device"}
    assert poller.counters.bad == poller.counters.errors["device"]


async def test_a_block_says_once_that_it_fails_and_once_that_it_works(
    rig: Rig, plc: type[Plc], caplog: pytest.LogCaptureFixture
) -> None:
    """WARNING, then DEBUG for repeats, then INFO."""
    caplog.set_level(logging.DEBUG, poller_module.__name__)
    plc.faults["A"] = DeviceError("busy")
    poller = rig.poll(make_connection((10, "A")), plc)
    await until(lambda: poller.counters.errors["device"] >= 3)
    plc.faults.clear()
    await until(lambda: rig.journal.samples)
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.WARNING, *[logging.DEBUG] * (len(levels) - 2), logging.INFO]
    assert caplog.records[0].message == "plc://a: unit 1 A 0..0: 1 tag bad: busy"
    assert caplog.records[-1].message.startswith("plc://a: unit 1 A 0..0: read again after 0.")


async def test_a_lost_connection_makes_tags_stale_and_comes_back(rig: Rig, plc: type[Plc]) -> None:
    """The last value is still shown, and said to be old; reading goes on after a reconnect."""
    poller = rig.poll(make_connection((10, "A")), plc)
    await until(lambda: rig.journal.samples)
    plc.faults["A"], plc.refuses = TransientError("connection reset"), True
    await until(lambda: poller.counters.errors["connection"] >= 2)
    reader = poller.readers[0][0]
    assert reader.qualities == [Quality.STALE]
    assert reader.values == [0.0]
    assert reader.problem(0) == "connection refused"
    assert poller.error == "connection refused"
    assert not poller.connected
    plc.faults.clear()
    plc.refuses = False
    await until(lambda: poller.connected)
    assert reader.qualities == [Quality.GOOD]
    assert poller.counters.disconnects == 1
    assert plc.instances[0].closes == plc.instances[0].connects - 1


async def test_a_block_that_breaks_the_connection_does_not_cost_those_behind_it(
    rig: Rig, plc: type[Plc], caplog: pytest.LogCaptureFixture
) -> None:
    """A PLC that hangs up on one address still has its other tags read, and is no flood of logs."""
    plc.faults["B"] = TransientError("connection closed by the PLC")
    rig.poll(make_connection((10, "ABC")), plc)
    await until(lambda: plc.reads.count("C") >= 4)
    assert {"A0", "C0"} <= set(rig.journal.tags())
    assert [record.levelno for record in caplog.records if record.levelno > logging.DEBUG] == [
        logging.WARNING
    ]


async def test_an_idle_connection_that_was_dropped_costs_no_sample(
    rig: Rig, plc: type[Plc]
) -> None:
    """The read that finds it out is done again on the new connection, not a period later."""
    plc.faults["A"] = TransientError("connection reset")
    rig.poll(make_connection((60_000, "A")), plc)
    await until(lambda: plc.reads)
    plc.faults.clear()
    await until(lambda: rig.journal.samples)


async def test_a_recovery_is_told_when_it_lasts(
    rig: Rig, plc: type[Plc], caplog: pytest.LogCaptureFixture
) -> None:
    """One WARNING for an outage, one INFO with its length."""
    caplog.set_level(logging.INFO, poller_module.__name__)
    plc.refuses = True
    poller = rig.poll(make_connection((10, "A")), plc)
    await until(lambda: poller.counters.errors["connection"] >= 5)
    plc.refuses = False
    await until(lambda: len(caplog.records) == 2)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.INFO]
    assert "answers again after 0." in caplog.records[1].message


async def test_a_mute_device_is_not_called_connected(rig: Rig, plc: type[Plc]) -> None:
    """It accepts connections and answers nothing: after TIMEOUTS_MAX requests it is left."""
    plc.faults = dict.fromkeys("ABCD", "mute")
    poller = rig.poll(make_connection((10, "ABCD")), plc)
    await until(lambda: poller.counters.errors["connection"] >= 2)
    assert plc.reads[:6] == list("ABCDAB")
    assert not poller.connected
    assert poller.error == f"{poller_module.TIMEOUTS_MAX} requests in a row without an answer"
    assert poller.counters.errors["timeout"] >= 2 * poller_module.TIMEOUTS_MAX
    assert poller.counters.disconnects == 0


async def test_a_mute_unit_does_not_take_the_others_with_it(rig: Rig, plc: type[Plc]) -> None:
    """Behind a gateway with more mute blocks than TIMEOUTS_MAX the last block is still read."""
    plc.faults = dict.fromkeys("ABCDE", "mute")
    rig.poll(make_connection((10, "ABCDEF")), plc)
    await until(lambda: rig.journal.samples)
    assert set(rig.journal.tags()) == {"F0"}


async def test_one_timeout_is_the_blocks_own(rig: Rig, plc: type[Plc]) -> None:
    """Its tags are bad; an answer in between keeps the connection."""
    plc.faults["A"] = "mute"
    poller = rig.poll(make_connection((10, "AB")), plc)
    await until(lambda: poller.counters.errors["timeout"] > poller_module.TIMEOUTS_MAX)
    assert plc.instances[0].connects == 1
    assert poller.readers[0][0].problem(0) == "no answer within 0.02 s"
    assert poller.readers[0][1].qualities == [Quality.GOOD]


# -- addresses that a device has not got --------------------------------------------------------


def make_wide(tags: int = 8) -> Connection:
    """One block with some tags: A0, A1 ..."""
    return Connection("plc", "plc://a", (ScanClass(10, (make_block("A", tags),)),))


async def test_one_missing_address_costs_one_tag(
    rig: Rig, plc: type[Plc], caplog: pytest.LogCaptureFixture
) -> None:
    """From the first scan on; it is said once, and the tag says why it is bad."""
    plc.missing.add(5)
    poller = rig.poll(make_wide(), plc)
    await until(lambda: poller.counters.scans >= 5)
    [[reader]] = poller.readers
    assert [place for place in range(8) if reader.qualities[place] is Quality.BAD] == [5]
    assert reader.problem(5) == "exception 2"
    assert [value for value in reader.values if not math.isnan(value)] == [0, 1, 2, 3, 4, 6, 7]
    first_scan = rig.journal.tags()[:7]
    assert sorted(first_scan) == [f"A{n}" for n in range(8) if n != 5]
    assert poller.counters.requests == 1 + 2 * 3 + 2 * (poller.counters.scans - 1)
    assert poller.counters.bad == poller.counters.scans
    assert [record.message for record in caplog.records] == [
        "plc://a: unit 1 A 0..7: the device refuses A5; the others are read without: exception 2"
    ]
    assert poller.connected


async def test_a_missing_address_is_tried_again(
    rig: Rig, plc: type[Plc], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A PLC program gets its register; while it has not, nobody loses a sample by the attempt."""
    monkeypatch.setattr(reader_module, "RETRY_S", 0.05)
    caplog.set_level(logging.INFO, poller_module.__name__)
    plc.missing.add(5)
    poller = rig.poll(make_wide(), plc)
    await until(lambda: poller.counters.errors["device"] > 12)  # three searches
    assert poller.counters.samples == 7 * (poller.counters.scans)
    plc.missing.clear()
    await until(lambda: "A5" in rig.journal.tags())
    assert poller.readers[0][0].problem(5) is None
    await until(lambda: "all tags can be read" in caplog.text)
    assert caplog.text.count("refuses") == 1


async def test_what_was_refused_is_known_after_a_restart(rig: Rig, plc: type[Plc]) -> None:
    """It is not asked for at the start, and its tag says why it has no value."""
    plc.missing.add(5)
    book = GapBook()
    book.learn("plc://a", make_block("A", 8), Gaps(frozenset({5})))
    poller = rig.poll(make_wide(), plc, book)
    await until(lambda: poller.counters.scans >= 3)
    [[reader]] = poller.readers
    assert poller.counters.errors["device"] == 0
    assert reader.problem(5) == REFUSED_BEFORE
    assert reader.qualities.count(Quality.GOOD) == 7


async def test_a_refused_address_is_bad_again_after_a_reconnect(rig: Rig, plc: type[Plc]) -> None:
    """Not stale for ever."""
    plc.missing.add(5)
    poller = rig.poll(make_wide(), plc)
    await until(lambda: poller.counters.scans >= 3)
    plc.faults["A"] = TransientError("cable pulled")
    await until(lambda: poller.counters.errors["connection"])
    plc.faults.clear()
    [[reader]] = poller.readers
    await until(lambda: reader.qualities.count(Quality.GOOD) == 7)
    assert reader.qualities[5] is Quality.BAD
    assert reader.problem(5) == "exception 2"


# -- a device that wants to be left alone between scans ------------------------------------------


async def test_a_connection_that_is_closed_after_each_scan(rig: Rig, plc: type[Plc]) -> None:
    """One connection a scan, closed while nothing is due; nothing turns stale by it."""
    plc.close_after_scan = True
    poller = rig.poll(make_connection((30, "AB")), plc)
    await until(lambda: poller.counters.scans >= 4)
    [driver] = plc.instances
    await until(lambda: driver.closes == driver.connects)
    assert driver.connects in (poller.counters.scans, poller.counters.scans + 1)
    assert poller.connected
    assert [reader.qualities for reader in poller.readers[0]] == [[Quality.GOOD]] * 2
    assert poller.counters.errors.total() == 0
    plc.refuses = True
    await until(lambda: not poller.connected)
    plc.refuses = False
    samples = len(rig.journal.samples)
    await until(lambda: poller.connected and len(rig.journal.samples) > samples)


# -- what was on the wire -----------------------------------------------------------------------


async def test_the_exchange_that_made_a_tag_bad_is_kept(
    rig: Rig, plc: type[Plc], caplog: pytest.LogCaptureFixture
) -> None:
    """With the good one before it, and while the block goes on failing nothing pushes it out."""
    caplog.set_level(logging.INFO, poller_module.__name__)

    class Talking(plc):  # type: ignore[misc, valid-type]
        frames: Frames | None = None

        async def read(self, block: Block) -> Sequence[Reply]:
            self.frames = Frames(b"\x01\x02", b"")
            replies: Sequence[Reply] = await super().read(block)
            self.frames = Frames(b"\x01\x02", b"\xaa\xbb")
            return replies

    poller = rig.poll(make_wide(3), Talking)
    await until(lambda: poller.counters.scans >= 2)
    Talking.faults["A"] = "mute"
    await until(lambda: poller.counters.errors["timeout"] >= 2)
    [[reader]] = poller.readers
    [incident] = reader.recorder.incidents
    assert incident.tags == ("A0", "A1", "A2")
    good, bad = incident.exchanges
    assert (good.frames.reply, good.error) == (b"\xaa\xbb", None)
    assert (bad.frames, bad.error) == (Frames(b"\x01\x02", b""), "no answer within 0.02 s")
    assert good.ts_ms <= bad.ts_ms <= incident.ts_ms
    assert "3 tags went bad: sent 01 02, received nothing" in caplog.text
    Talking.faults.clear()
    await until(lambda: reader.qualities == [Quality.GOOD] * 3)
    assert len(reader.recorder.incidents) == 1


async def test_a_driver_that_shows_no_frames_keeps_none(rig: Rig, plc: type[Plc]) -> None:
    """And costs nothing by it."""
    plc.faults["A"] = DeviceError("busy")
    poller = rig.poll(make_wide(3), plc)
    await until(lambda: poller.counters.errors["device"] >= 2)
    [[reader]] = poller.readers
    assert not reader.recorder.exchanges
    assert not reader.recorder.incidents


# -- pauses -------------------------------------------------------------------------------------


async def test_a_busy_block_is_read_again_as_soon_as_it_works(rig: Rig, plc: type[Plc]) -> None:
    """Each second period meanwhile, then at its own pace; its neighbour never noticed."""
    plc.faults["A"] = DeviceError("exception 6")
    poller = rig.poll(make_connection((10, "AB")), plc)
    await until(lambda: poller.counters.errors["device"] >= 6)
    assert plc.reads.count("B") >= 10
    assert "ABAB" not in "".join(plc.reads[4:])
    plc.faults.clear()
    before = len(plc.reads)
    await until(lambda: rig.journal.tags().count("A0") >= 3)
    assert plc.reads[before : before + 4].count("A") >= 1
    assert plc.reads[-4:].count("A") == 2


@pytest.mark.parametrize("silence", ["mute", SilentUnitError("exception 11")])
async def test_a_silent_unit_is_left_alone_for_longer_and_longer(
    rig: Rig, plc: type[Plc], silence: Exception | str
) -> None:
    """One request ends each pause, whatever the number of its blocks; one answer ends them all.

    What costs 20 ms of a 10 ms period leaves out more scans than what costs next to nothing.
    """
    blocks = (*(make_block(area, unit_id=1) for area in "ABC"), make_block("N", unit_id=2))
    plc.faults = dict.fromkeys("ABC", silence)
    poller = rig.poll(Connection("plc", "plc://a", (ScanClass(10, blocks),)), plc)
    await until(lambda: plc.units.count(1) >= 5)
    gaps = [len(run) for run in "".join(map(str, plc.units)).split("1")[1:-1]]
    assert min(gaps[1:]) >= (3 if silence == "mute" else 2), plc.units
    assert poller.counters.connects == 1
    [readers] = poller.readers
    assert [reader.qualities for reader in readers] == [*[[Quality.BAD]] * 3, [Quality.GOOD]]
    assert "unit 1 does not answer" in {reader.problem(0) for reader in readers}
    plc.faults.clear()
    await until(lambda: {"A0", "B0", "C0"} <= set(rig.journal.tags()))
    assert plc.units[-8:].count(1) >= 3


async def test_a_silent_unit_that_holds_nobody_up_is_asked_each_second_period(
    rig: Rig, plc: type[Plc]
) -> None:
    """It is asked last, and its whole timeout fits before the next tick: no reason to pause long.

    Its neighbour, which comes behind it in the plan, does not wait for it.
    """
    plc.timeout_s = 0.06
    blocks = (make_block("A", unit_id=1), make_block("N", unit_id=2))
    rig.poll(Connection("plc", "plc://a", (ScanClass(200, blocks),)), plc)
    await until(lambda: {"A0", "N0"} <= set(rig.journal.tags()))
    plc.faults["A"] = "mute"
    await until(lambda: plc.reads.count("A") >= 6)
    told = "".join(plc.reads)
    assert "NA" in told[4:], told
    assert told.endswith("NANNANNANNA"), told


async def test_dead_units_side_by_side_do_not_end_the_connection(rig: Rig, plc: type[Plc]) -> None:
    """More of them than TIMEOUTS_MAX, from the start: whoever else is on the line is read."""
    dead, well = "ABCDEFG", "XY"
    blocks = tuple(make_block(area, unit_id=n) for n, area in enumerate(dead + well, 1))
    plc.faults = dict.fromkeys(dead, "mute")
    poller = rig.poll(Connection("plc", "plc://a", (ScanClass(10, blocks),)), plc)
    await until(lambda: rig.journal.tags().count("Y0") >= 5)
    assert plc.units[:9] == [*range(1, 10)]
    assert plc.instances[0].connects == 1
    assert poller.counters.errors["connection"] == 0
    plc.faults = dict.fromkeys(dead + well, "mute")
    await until(lambda: poller.counters.errors["connection"])
    assert "requests in a row without an answer" in str(poller.error)


async def test_a_unit_that_was_quick_is_not_waited_for_long(rig: Rig, plc: type[Plc]) -> None:
    """Of a timeout of 2 s it takes one whole, and then a small part each time."""
    plc.timeout_s = 2.0
    blocks = (make_block("A", unit_id=1), make_block("N", unit_id=2))
    poller = rig.poll(Connection("plc", "plc://a", (ScanClass(10, blocks),)), plc)
    await until(lambda: {"A0", "N0"} <= set(rig.journal.tags()))
    plc.faults["A"] = "mute"
    await until(lambda: poller.counters.errors["timeout"] >= 1)
    started = time.monotonic()
    await until(lambda: poller.counters.errors["timeout"] >= 3)
    assert time.monotonic() - started < 1.9
    assert poller.readers[0][0].problem(0) in {"no answer within 0.02 s", "unit 1 does not answer"}
    plc.faults.clear()
    before = rig.journal.tags().count("A0")
    await until(lambda: rig.journal.tags().count("A0") > before)


async def test_a_gateway_that_waits_for_the_silent_unit_is_not_hurried(
    rig: Rig, plc: type[Plc]
) -> None:
    """It keeps the next request until then: after three of them the silent one has all its time."""

    class Gateway(plc):  # type: ignore[misc, valid-type]
        timeout_s = 0.4
        waited: ClassVar[list[float]] = []
        busy_until = 0.0

        async def read(self, block: Block) -> Sequence[Reply]:
            started = time.monotonic()
            await asyncio.sleep(max(self.busy_until - started, 0))
            try:
                replies: Sequence[Reply] = await super().read(block)
            except asyncio.CancelledError:
                self.busy_until = started + 0.25
                self.waited.append(time.monotonic() - started)
                raise
            return replies

    blocks = (make_block("A", unit_id=1), make_block("N", unit_id=2))
    rig.poll(Connection("plc", "plc://a", (ScanClass(10, blocks),)), Gateway)
    await until(lambda: {"A0", "N0"} <= set(rig.journal.tags()))
    plc.faults["A"] = "mute"
    await until(lambda: len(Gateway.waited) >= 5)
    first, *hurried, last = Gateway.waited[:5]
    assert min(first, last) >= 0.4 > 0.3 > max(hurried), Gateway.waited


async def test_a_line_on_which_nobody_answers_is_asked_on(rig: Rig, plc: type[Plc]) -> None:
    """Pauses spare those beside who is silent; here they would only make the return late."""
    plc.timeout_s = 0.05
    plc.faults = dict.fromkeys("AB", "mute")
    blocks = (make_block("A", unit_id=1), make_block("B", unit_id=2))
    poller = rig.poll(Connection("plc", "plc://a", (ScanClass(10, blocks),)), plc)
    # with pauses: twice as long
    await until(lambda: poller.counters.errors["connection"] >= 8, within_s=WAIT_S)
    assert poller.counters.errors["timeout"] == len(plc.reads)


# -- another plan -------------------------------------------------------------------------------


async def test_another_plan_costs_what_both_have_no_scan(rig: Rig, plc: type[Plc]) -> None:
    """Blocks come and go each few ms; the one that stays is read once in each of its periods."""
    starts: list[float] = []

    class Noting(plc):  # type: ignore[misc, valid-type]
        async def read(self, block: Block) -> Sequence[Reply]:
            if block.area == "A":
                starts.append(time.monotonic())
            await asyncio.sleep(0.002)
            replies: Sequence[Reply] = await super().read(block)
            return replies

    poller = rig.poll(make_connection((100, "AB"), (300, "X")), Noting)
    await until(lambda: len(starts) == 2)
    for blocks in ("ABC", "CA", "A", "DEA", "A") * 4:
        wanted = make_connection((100, blocks), (200, "Y"), (50, "Z"))
        async with asyncio.timeout(WAIT_S):
            await poller.replan(wanted).wait()
        assert poller.connection is wanted
        await asyncio.sleep(0.037)
    await until(lambda: {"C0", "E0", "Y0", "Z0"} <= set(rig.journal.tags()))
    gaps = [round((late - first) / 0.1) for first, late in pairwise(starts)]
    assert set(gaps) == {1}, starts
    assert poller.replans == 20
    assert plc.instances[0].connects == 1
    assert poller.counters.scans > 0
    before = len(plc.reads)
    await until(lambda: len(plc.reads) > before + 20)
    assert set(plc.reads[before + 5 :]) == {"A", "Y", "Z"}


async def test_a_plan_comes_true_while_the_connection_is_down(rig: Rig, plc: type[Plc]) -> None:
    """What is shown is the new map's, and the new blocks are read when the device is back."""
    plc.refuses = True
    poller = rig.poll(make_connection((10, "A")), plc)
    await until(lambda: poller.counters.errors["connection"])
    async with asyncio.timeout(WAIT_S):
        await poller.replan(make_connection((10, "BC"))).wait()
    assert [reader.block.area for reader in poller.readers[0]] == ["B", "C"]
    plc.refuses = False
    await until(lambda: {"B0", "C0"} <= set(rig.journal.tags()))
    assert "A" not in plc.reads


async def test_two_plans_at_once_the_newer_one_counts(rig: Rig, plc: type[Plc]) -> None:
    """The first that is still waiting is as good as done."""
    poller = rig.poll(make_connection((10, "A")), plc)
    await until(lambda: "A0" in rig.journal.tags())
    first, second = (poller.replan(make_connection((10, area))) for area in "BC")
    async with asyncio.timeout(WAIT_S):
        await first.wait()
        await second.wait()
    await until(lambda: "C0" in rig.journal.tags())
    assert "B" not in plc.reads


async def test_a_driver_that_keeps_blocks_begins_the_new_ones_before_it_ends_the_old(
    rig: Rig, plc: type[Plc]
) -> None:
    """A last look at the old ones lies in between: no change falls between the two."""
    told: list[str] = []

    class Keeping(plc):  # type: ignore[misc, valid-type]
        async def read(self, block: Block) -> Sequence[Reply]:
            told.append(f"read {block.area}")
            replies: Sequence[Reply] = await super().read(block)
            return replies

        async def forget(self, block: Block) -> None:
            told.append(f"forget {block.area}")

    poller = rig.poll(make_connection((10, "AB")), Keeping)
    await until(lambda: "B0" in rig.journal.tags())
    async with asyncio.timeout(WAIT_S):
        await poller.replan(make_connection((10, "BC"))).wait()
    await until(lambda: "forget A" in told)
    at = told.index("forget A")
    assert told[at - 2 : at] == ["read C", "read A"]
    assert "read A" not in told[at:]


@pytest.mark.parametrize("defect", [KeyError("no"), "short"])
async def test_a_defect_in_a_driver_is_contained(
    rig: Rig, plc: type[Plc], defect: Exception | str
) -> None:
    """An exception that nobody classed, or half a reply: reconnect, and the other blocks go on."""
    plc.faults["A"] = defect
    poller = rig.poll(make_connection((10, "AB")), plc)
    await until(lambda: len(rig.journal.samples) >= 3)
    assert set(rig.journal.tags()) == {"B0"}
    assert poller.counters.errors["connection"] >= 2
    assert not rig.tasks[0].done()


@pytest.mark.parametrize("where", ["connect", "close"])
async def test_a_defect_in_connecting_or_closing_is_contained(
    rig: Rig, plc: type[Plc], where: str
) -> None:
    """Tried again like a device that is away."""
    calls = 0

    async def fail_twice(self: Plc) -> None:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise ZeroDivisionError

    setattr(plc, where, fail_twice)
    plc.faults["A"] = TransientError("gone")
    poller = rig.poll(make_connection((10, "A")), plc)
    await until(lambda: calls > 2)
    plc.faults.clear()
    await until(lambda: poller.connected)


@pytest.mark.parametrize("where", ["connect", "close"])
async def test_connecting_and_closing_have_a_limit(
    rig: Rig, plc: type[Plc], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A driver that hangs there does not hang the poller."""
    monkeypatch.setattr(poller_module, "CONNECT_TIMEOUT_S", 0.01)
    monkeypatch.setattr(poller_module, "CLOSE_TIMEOUT_S", 0.01)
    calls = 0

    async def hang(self: Plc) -> None:
        nonlocal calls
        calls += 1
        await asyncio.Event().wait()

    setattr(plc, where, hang)
    plc.faults["A"] = TransientError("gone")
    rig.poll(make_connection((10, "A")), plc)
    await until(lambda: calls >= 3)


# -- a journal that takes no more ---------------------------------------------------------------


async def test_nothing_is_read_while_the_journal_takes_no_more(
    rig: Rig, plc: type[Plc], caplog: pytest.LogCaptureFixture
) -> None:
    """What is not read is not lost; the ticks left out are no overruns, the time is counted."""
    caplog.set_level(logging.INFO, poller_module.__name__)
    poller = rig.poll(make_connection((10, "A")), plc)
    await until(lambda: rig.journal.samples)
    rig.journal.accepting = False
    await until(lambda: "reading paused" in caplog.text)
    read, overruns, beat_at = len(plc.reads), poller.schedule.overruns, poller.beat_at
    await asyncio.sleep(0.05)
    assert len(plc.reads) == read
    assert poller.beat_at > beat_at, "a poller that waits is not stuck"
    rig.journal.accepting = True
    await until(lambda: len(plc.reads) > read)
    assert poller.counters.paused_s >= 0.05
    assert poller.schedule.overruns - overruns <= 1
    assert caplog.records[-1].message.startswith("plc://a: reading goes on after 0.")


async def test_stop_ends_a_pause(rig: Rig, plc: type[Plc]) -> None:
    """A full journal does not keep the agent from ending."""
    rig.journal.accepting = False
    poller = rig.poll(make_connection((10, "A")), plc)
    await asyncio.sleep(0.01)
    poller.stop()
    async with asyncio.timeout(WAIT_S):
        await rig.tasks[0]
    assert not plc.reads


# -- one block's newest values ------------------------------------------------------------------


def make_reader(tags: int) -> tuple[BlockReader, Taken, ConnectionCounters]:
    journal = Taken()
    return (
        BlockReader(make_block("A", tags), cast("Journal", journal)),
        journal,
        ConnectionCounters(),
    )


def test_a_tag_that_was_never_read_is_stale() -> None:
    """And says so."""
    reader, _, _ = make_reader(1)
    assert reader.qualities == [Quality.STALE]
    assert reader.problem(0) == "not read yet"
    assert reader.ts_ms == [None]


def test_values_of_a_whole_reply() -> None:
    """Values, time and quality of every tag; one that is no number is bad and keeps its time."""
    reader, journal, counters = make_reader(2)
    reader.take(Reply(TS_MS, [1.0, 2.0]), counters)
    reader.take(Reply(TS_MS + 1, [math.nan, 3.0]), counters)
    assert reader.qualities == [Quality.BAD, Quality.GOOD]
    assert reader.problem(0) == "not a finite number"
    assert reader.problem(1) is None
    assert reader.ts_ms == [TS_MS, TS_MS + 1]
    assert journal.samples == [("A0", TS_MS, 1.0), ("A1", TS_MS, 2.0), ("A1", TS_MS + 1, 3.0)]
    assert (counters.samples, counters.bad) == (3, 1)


def test_values_of_partial_replies() -> None:
    """As a subscribing driver gives them: only what is named changes, oldest first."""
    reader, journal, counters = make_reader(3)
    reader.take(Reply(TS_MS, [5.0], [2]), counters)
    assert reader.qualities == [Quality.STALE, Quality.STALE, Quality.GOOD]
    assert reader.problem(0) == "not read yet"
    reader.take(Reply(TS_MS + 1, [6.0, math.inf], [0, 2]), counters)
    assert reader.qualities == [Quality.GOOD, Quality.STALE, Quality.BAD]
    assert reader.ts_ms == [TS_MS + 1, None, TS_MS]
    assert journal.samples == [("A2", TS_MS, 5.0), ("A0", TS_MS + 1, 6.0)]
    reader.take(Reply(TS_MS + 2, [], []), counters)
    assert len(journal.samples) == 2


def test_after_a_reconnect_only_what_was_read_anew_is_good() -> None:
    """A partial reply says nothing of the other tags."""
    reader, _, counters = make_reader(2)
    reader.take(Reply(TS_MS, [1.0, 2.0]), counters)
    reader.lose("connection reset")
    reader.take(Reply(TS_MS + 1, [3.0], [0]), counters)
    assert reader.qualities == [Quality.GOOD, Quality.STALE]
    assert reader.values == [3.0, 2.0]


@pytest.mark.parametrize(
    "reply", [Reply(TS_MS, [1.0]), Reply(TS_MS, [1.0] * 3), Reply(TS_MS, [1.0], [])]
)
def test_a_reply_that_does_not_fit_changes_nothing(reply: Reply) -> None:
    """It is an error of the driver, and no value may land under another tag's name."""
    reader, journal, counters = make_reader(2)
    with pytest.raises(ValueError, match="values for"):
        reader.take(reply, counters)
    assert reader.qualities == [Quality.STALE] * 2
    assert len(reader.values) == 2
    assert not journal.samples


async def test_samples_reach_a_real_journal(tmp_path: Path, plc: type[Plc]) -> None:
    """Series ids and values as the journal wants them."""
    journal = Journal(tmp_path / "journal.db", bytes_max=4_000_000, ballast_bytes=0)
    await journal.open(["sink"])
    try:
        reader = BlockReader(make_block("A", 3), journal)
        reader.take(Reply(TS_MS, [1.0, math.nan, 3.0]), ConnectionCounters())
        await journal.flush()
        (batch,) = await journal.read("sink", samples_max=100)
        assert [batch.series[n].tag for n in batch.series_ids] == ["A0", "A2"]
        assert (list(batch.values), list(batch.runs)) == ([1.0, 3.0], [(TS_MS, 2)])
    finally:
        await journal.close()


# -- spreading ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 10, 100])
def test_first_scans_are_spread_over_the_period(count: int) -> None:
    """No gap between neighbours is more than a few times the even one, none is nil."""
    places = sorted(map(phase_of, range(count)))
    assert all(0 <= place < 1 for place in places)
    gaps = [b - a for a, b in zip(places, [*places[1:], places[0] + 1], strict=True)]
    assert max(gaps) <= 2 / count
    assert min(gaps) >= 0.3 / count


def test_a_phase_shifts_the_grid_within_the_shortest_period(plc: type[Plc]) -> None:
    """Two connections with the same periods ask at different times."""
    starts = []
    for phase in (0.0, 0.5):
        poller = ConnectionPoller(
            make_connection((200, "A"), (1000, "B")),
            cast("type[Driver]", plc),
            cast("Journal", Taken()),
            phase=phase,
            now_ms=lambda: TS_MS,
            monotonic=lambda: 100.0,
        )
        schedule: Any = poller.schedule
        assert isinstance(schedule, Schedule)
        starts.append({scan.due for scan in poller.schedule._scans})
    assert starts == [{100.0}, {100.1}]
