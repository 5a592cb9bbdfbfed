"""The delivery runner: a real journal on one side, a sink that fails on demand on the other."""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_agent.errors import ConfigError, JournalError, RejectedRow, RejectedRows, TransientError
from edge_agent.journal import Journal, Policy
from edge_agent.journal.file import JournalFile
from edge_agent.model import Batch, Series
from edge_agent.pipeline import delivery
from edge_agent.pipeline.delivery import DeliveryRunner
from edge_agent.sinks.base import JournalIdentity, Pace, RefusalKeeper
from edge_agent.sinks.memory import MemorySink
from tests.journals import abandon
from tests.waiting import until

WAIT_S = 5.0
PRESS = Series("A1", "L1", "PUMP01", "PRESS", "bar")
TEMP = Series("A1", "L1", "PUMP01", "TEMP", "°C")
START_MS = 1_755_432_000_000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that no test waits for."""
    monkeypatch.setattr(delivery, "BACKOFF_FIRST_S", 0.002)
    monkeypatch.setattr(delivery, "BACKOFF_MAX_S", 0.01)
    monkeypatch.setattr(delivery, "IDLE_WAIT_S", 0.02)


class Clock:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


class Rig:
    """A journal, and runners that are ended with the test."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self.journal = journal
        self.clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._next_ts_ms = START_MS

    def runner(
        self, sink: MemorySink, pace: Pace | None = None, keeper: RefusalKeeper | None = None
    ) -> DeliveryRunner:
        made = DeliveryRunner(
            sink,
            self.journal,
            agent_id="agent",
            pace=pace or Pace(),
            now_ms=self.clock,
            keeper=keeper,
        )
        self._tasks.append(asyncio.create_task(made.run()))
        return made

    def commit(self) -> None:
        """Commit from now on, as the agent does: what the runner acknowledges too."""
        self._tasks.append(asyncio.create_task(self.journal.run()))

    async def take(
        self, values: Sequence[float], series: Series | Sequence[Series] = PRESS
    ) -> list[tuple[Series, int, float]]:
        """One journal entry of these values at the next millisecond."""
        every = [series] * len(values) if isinstance(series, Series) else series
        ids = array("I", [self.journal.intern(one) for one in every])
        self._next_ts_ms += 1
        self.journal.append(self._next_ts_ms, ids.tobytes(), values)
        await self.journal.flush()
        return [(one, self._next_ts_ms, v) for one, v in zip(every, values, strict=True)]

    def books(self, sink: str = "memory") -> tuple[int, int, int, int]:
        """Delivered, quarantined, lost and pending samples."""
        totals = self.journal.totals()[sink]
        pending = self.journal.taken - totals.accounted
        return totals.delivered, totals.quarantined, totals.lost, pending

    async def kill(self) -> None:
        """End as after kill -9: what the journal has not committed is gone."""
        await self._cancel()
        abandon(self.journal)

    async def end(self) -> None:
        await self._cancel()
        await self.journal.close()

    async def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in self._tasks:
            assert task.cancelled(), "the runner ended by itself"


async def opened_at(folder: Path, sinks: Sequence[str] = ("memory",)) -> Rig:
    clock = Clock()
    journal = Journal(folder / "journal.db", bytes_max=4_000_000, ballast_bytes=0, now_ms=clock)
    await journal.open(sinks)
    return Rig(journal, clock)


@asynccontextmanager
async def rig_at(folder: Path, sinks: Sequence[str] = ("memory",)) -> AsyncIterator[Rig]:
    rig = await opened_at(folder, sinks)
    try:
        yield rig
    finally:
        await rig.end()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_at(tmp_path) as made:
        yield made


class Handed(MemorySink):
    """Remembers every hand-over by its sequences, and does what a test says in each.

    The first sequence counts as 1.
    """

    def __init__(
        self, act: Callable[[Sequence[Batch]], Coroutine[object, object, None]] | None = None
    ) -> None:
        super().__init__()
        self.handed: list[list[int]] = []
        self.opened: list[JournalIdentity] = []
        self._first = 0
        self._act = act

    async def open(self, journal: JournalIdentity) -> None:
        self.opened.append(journal)
        await super().open(journal)

    async def deliver(self, batches: Sequence[Batch]) -> int:
        self._first = self._first or batches[0].sequence
        self.handed.append([batch.sequence - self._first + 1 for batch in batches])
        if self._act is not None:
            await self._act(batches)
        return await super().deliver(batches)


async def test_everything_arrives_in_order(rig: Rig) -> None:
    """What was there before the start, and what comes later."""
    taken = await rig.take([1.0, 2.0], [PRESS, TEMP])
    sink = MemorySink()
    runner = rig.runner(sink)
    for number in range(5):
        taken += await rig.take([float(number)])
    await until(lambda: len(sink.samples) == len(taken))
    assert sink.samples == taken
    assert rig.books() == (7, 0, 0, 0)
    assert await runner.drained(WAIT_S)
    assert runner.counters.lag.count == 7
    assert runner.error is None


async def test_a_failure_repeats_the_same_batches(rig: Rig) -> None:
    """Nothing is skipped: after a failure the same sequences come again, on a fresh connection."""
    failures = 3

    async def fail(_: Sequence[Batch]) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise TransientError("gone")

    sink = Handed(fail)
    for number in range(3):
        await rig.take([float(number)])
    runner = rig.runner(sink)
    await until(lambda: len(sink.samples) == 3)
    assert sink.handed == [[1, 2, 3]] * 4
    assert len(sink.opened) == 4
    assert runner.counters.failures == {"deliver": 3}


async def test_a_lost_acknowledgement_is_not_a_lost_sample(rig: Rig) -> None:
    """The sink has it, the runner does not know: it comes again, and the books balance."""
    sink = MemorySink()
    sink.loses_acknowledgement = True
    runner = rig.runner(sink)
    taken = await rig.take([1.0])
    await until(lambda: runner.counters.failures["deliver"] > 1)
    sink.loses_acknowledgement = False
    await until(lambda: rig.books() == (1, 0, 0, 0))
    assert sink.samples == taken


async def test_refused_samples_go_to_quarantine_and_the_rest_flows(
    rig: Rig, tmp_path: Path
) -> None:
    """With series, time, value and the sink's reason; the others of the same batch arrive."""
    sink = MemorySink()
    sink.rejects[TEMP] = "not authorized"
    taken = await rig.take([1.0, 2.0], [PRESS, TEMP])
    taken += await rig.take([3.0, 4.0], [TEMP, PRESS])
    rig.runner(sink)
    await until(lambda: rig.books() == (2, 2, 0, 0))
    assert sink.samples == [taken[0], taken[3]]
    await rig.journal.flush()
    file = JournalFile(tmp_path / "journal.db", bytes_max=4_000_000, read_only=True)
    found = [(file.series[r.series_id], r.ts_ms, r.value, r.reason) for _, r in file.quarantine()]
    file.close()
    assert found == [(*taken[1], "not authorized"), (*taken[2], "not authorized")]


async def test_refusals_are_said_once_a_minute(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """A tag that is denied is denied with every batch; one warning says so, and where to look."""
    sink = MemorySink()
    sink.rejects[PRESS] = "not authorized"
    rig.runner(sink)
    caplog.set_level(logging.INFO)
    for number in range(1, 4):
        await rig.take([1.0])
        await until(lambda number=number: rig.books()[1] == number)  # type: ignore[misc]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "not authorized" in record.message
    assert "journal export quarantine" in record.message


# -- a sink with a defect -----------------------------------------------------------------------


async def test_a_batch_that_a_sink_can_not_digest_is_given_up_alone(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """After FAULTS_MAX faults on it, handed over alone, it is quarantined; the others arrive."""

    async def choke(batches: Sequence[Batch]) -> None:
        if any(66.0 in batch.values for batch in batches):
            raise KeyError("defect")

    sink = Handed(choke)
    taken = []
    for value in (1.0, 66.0, 3.0, 4.0):
        taken += await rig.take([value])
    rig.commit()
    runner = rig.runner(sink)
    await until(lambda: rig.books() == (3, 1, 0, 0))
    assert sink.samples == [taken[0], taken[2], taken[3]]
    assert sink.handed == [[1, 2, 3, 4], [1], *[[2]] * delivery.FAULTS_MAX, [3], [4]]
    assert runner.counters.failures == {"fault": delivery.FAULTS_MAX + 1}
    assert "gives up batch" in caplog.text
    assert "KeyError" in caplog.text


async def test_a_full_journal_is_drained_past_a_batch_that_is_given_up(tmp_path: Path) -> None:
    """With the policy `stop`, when its samples don't fit into the quarantine; pollers go on."""

    async def choke(batches: Sequence[Batch]) -> None:
        if any(batch.values[0] == 2.0 for batch in batches):
            raise ValueError("bad value")

    clock = Clock()
    journal = Journal(
        tmp_path / "journal.db",
        bytes_max=1_000_000,
        policy=Policy.STOP,
        ballast_bytes=0,
        now_ms=clock,
    )
    await journal.open(["memory"])
    rig = Rig(journal, clock)
    entries = 0
    while not journal.uncommitted:
        entries += 1
        await rig.take([entries + n / 7 for n in range(4000)])
    assert not journal.accepting
    rig.commit()
    rig.runner(Handed(choke))
    await until(lambda: rig.books()[0] == (entries - 1) * 4000)
    await until(lambda: journal.accepting)
    _, quarantined, lost, pending = rig.books()
    assert (quarantined + lost, pending) == (4000, 0)
    await rig.end()


async def test_a_reason_may_hold_anything(rig: Rig) -> None:
    """What is no text for a file, as of a server's bytes, costs a sign and not the commit."""

    async def refuse(batches: Sequence[Batch]) -> None:
        raise RejectedRows([RejectedRow(batches[0].sequence, 0, "a\udc80b\x00")])

    rig.runner(Handed(refuse))
    rig.commit()
    await rig.take([1.0])
    await until(lambda: rig.journal.settled("memory") == rig.journal.last_sequence)
    ((_, kept),) = rig.journal._file.quarantine()
    assert kept.reason == "a?b\x00"


async def test_of_a_long_reason_the_quarantine_has_the_beginning(rig: Rig) -> None:
    """It stands in every row of a batch that is given up."""

    async def choke(_: Sequence[Batch]) -> None:
        raise ValueError("x" * 10_000)

    rig.commit()
    await rig.take([1.0, 2.0])
    rig.runner(Handed(choke))
    await until(lambda: rig.journal.settled("memory") == rig.journal.last_sequence)
    (reason,) = {sample.reason for _, sample in rig.journal._file.quarantine()}
    assert "ValueError: xxx" in reason
    assert len(reason) == delivery.REASON_CHARS_MAX


class Skips(MemorySink):
    """Renders only what is past its cursor, as PostgreSQL and the store: there 66 is a defect."""

    def __init__(self) -> None:
        super().__init__()
        self.cursor = 0

    async def deliver(self, batches: Sequence[Batch]) -> int:
        fresh = [batch for batch in batches if batch.sequence > self.cursor]
        if any(66.0 in batch.values for batch in fresh):
            raise KeyError("defect")
        await super().deliver(fresh)
        self.cursor = batches[-1].sequence
        return sum(map(len, batches)) - sum(map(len, fresh))


async def test_killed_as_a_batch_is_given_up_it_is_quarantined_by_the_next_start(
    tmp_path: Path,
) -> None:
    """Until its quarantine is durable nothing after it is handed over: the destination's cursor
    would pass it, and after a kill it would be skipped there, and count as delivered."""
    sink = Skips()
    rig = await opened_at(tmp_path)  # and nothing commits
    taken = []
    for value in (1.0, 66.0, 3.0):
        taken += await rig.take([value])
    runner = rig.runner(sink)
    await until(lambda: rig.books() == (1, 1, 0, 1) or len(sink.samples) == 2)
    await asyncio.sleep(0.1)
    assert runner.counters.failures["fault"] == delivery.FAULTS_MAX + 1
    assert sink.samples == taken[:1]
    await rig.kill()
    async with rig_at(tmp_path) as again:
        assert again.books() == (0, 0, 0, 3)
        again.commit()
        again.runner(sink)
        await until(lambda: again.books()[3] == 0)
        assert again.books() == (2, 1, 0, 0)
        assert sink.samples == [taken[0], taken[2]]
        ((_, kept),) = again.journal._file.quarantine()
        assert (kept.value, kept.series_id) == (66.0, again.journal.intern(PRESS))


async def test_a_keeper_of_refusals_is_told_what_the_journal_has(rig: Rig) -> None:
    """Before each hand-over, and only what is durable: the rest may have to be answered again."""
    told: list[int] = []

    class Keeper(Handed):
        def settled(self, sequence: int) -> None:
            told.append(sequence)

    sink = Keeper()
    await rig.take([1.0])
    first = rig.journal.last_sequence
    await rig.take([2.0])
    rig.runner(sink, Pace(samples_max=1), keeper=sink)
    await until(lambda: rig.books() == (2, 0, 0, 0))
    await rig.take([3.0])
    await until(lambda: rig.books() == (3, 0, 0, 0))
    assert sink.handed == [[1], [2], [3]]
    assert told == [0, 0, first + 1]


async def test_a_refusal_that_names_no_batch_is_a_fault_too(rig: Rig) -> None:
    """A sink that does not know what it refuses must not stop itself for ever."""

    async def confuse(batches: Sequence[Batch]) -> None:
        if 66.0 in batches[0].values:
            raise RejectedRows([RejectedRow(999, 0, "what?")])

    sink = Handed(confuse)
    rig.commit()
    await rig.take([66.0])
    rig.runner(sink)
    await until(lambda: rig.books() == (0, 1, 0, 0))
    await rig.take([2.0])
    await until(lambda: rig.books() == (1, 1, 0, 0))


async def test_a_fault_on_opening_is_contained(rig: Rig) -> None:
    """The runner goes on trying; nothing is given up for it."""
    taken = await rig.take([1.0])

    class Broken(MemorySink):
        tries = 0

        async def open(self, journal: JournalIdentity) -> None:
            self.tries += 1
            if self.tries <= 7:
                raise ZeroDivisionError
            await super().open(journal)

    sink = Broken()
    runner = rig.runner(sink)
    await until(lambda: sink.samples == taken)
    assert runner.counters.failures == {"fault": 7}
    assert rig.books() == (1, 0, 0, 0)


async def test_a_sink_that_does_not_close_does_not_hold_up_the_runner(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Both when it raises and when it hangs."""
    monkeypatch.setattr(delivery, "CLOSE_TIMEOUT_S", 0.01)

    class Stubborn(MemorySink):
        closes = 0

        async def close(self) -> None:
            self.closes += 1
            if self.closes == 1:
                raise ValueError("no")
            if self.closes == 2:
                await asyncio.Event().wait()

    sink = Stubborn()
    sink.loses_acknowledgement = True
    rig.runner(sink)
    await rig.take([1.0])
    await until(lambda: sink.closes > 2)
    assert caplog.text.count("did not close properly") == 2


# -- a sink that hangs --------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["open", "deliver"])
async def test_a_sink_that_hangs_is_given_another_try(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """The last resort against a limit that a sink forgot."""
    monkeypatch.setattr(delivery, "OPEN_TIMEOUT_S", 0.02)
    monkeypatch.setattr(delivery, "DELIVER_TIMEOUT_S", 0.02)

    class Hangs(MemorySink):
        times = 2

        async def open(self, journal: JournalIdentity) -> None:
            await self.hang("open")
            await super().open(journal)

        async def deliver(self, batches: Sequence[Batch]) -> int:
            await self.hang("deliver")
            return await super().deliver(batches)

        async def hang(self, where: str) -> None:
            if where == stage and self.times:
                self.times -= 1
                await asyncio.Event().wait()

    sink = Hangs()
    taken = await rig.take([1.0])
    runner = rig.runner(sink)
    await until(lambda: runner.error == "no answer in time")
    await until(lambda: sink.samples == taken)
    assert runner.counters.failures == {stage: 2}


# -- what is said -------------------------------------------------------------------------------


async def test_an_outage_is_said_once_and_so_is_its_end(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """WARNING on the first failure, DEBUG on repeats, INFO on recovery with how long it took."""
    caplog.set_level(logging.DEBUG, delivery.__name__)
    sink = MemorySink()
    sink.is_down = True
    runner = rig.runner(sink)
    await until(lambda: runner.counters.failures["open"] >= 3)
    rig.clock.now_ms += 61_000
    sink.is_down = False
    await until(lambda: runner.error is None)
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.WARNING, *[logging.DEBUG] * (len(levels) - 2), logging.INFO]
    assert caplog.records[0].message == ("memory: open failed, will try again: memory sink is down")
    assert "after 61.0 s" in caplog.records[-1].message
    assert runner.error_since_ms is None


async def test_an_error_shows_its_hint_and_since_when(rig: Rig) -> None:
    """What a person should do stands beside what went wrong."""

    class NoTable(MemorySink):
        async def open(self, journal: JournalIdentity) -> None:
            raise TransientError("no table plc_raw", hint="edge-agent db init")

    runner = rig.runner(NoTable())
    await until(lambda: runner.error is not None)
    assert runner.error == "no table plc_raw; edge-agent db init"
    assert runner.error_since_ms == START_MS


async def test_a_wrong_address_is_an_error_like_another(rig: Rig) -> None:
    """A sink that only finds out when it opens that it can't: said, and tried again."""

    class Wrong(MemorySink):
        async def open(self, journal: JournalIdentity) -> None:
            raise ConfigError("that is no database")

    runner = rig.runner(Wrong())
    await until(lambda: runner.counters.failures["open"] >= 2)
    assert runner.error == "that is no database"


async def test_the_oldest_sample_is_known_while_a_sink_is_down(rig: Rig) -> None:
    """Also of a sink that has never been up."""
    await rig.take([1.0])
    await rig.take([2.0])
    sink = MemorySink()
    sink.is_down = True
    runner = rig.runner(sink)
    await until(lambda: runner.counters.failures["open"] >= 1)
    assert runner.oldest_ts_ms == START_MS + 1
    sink.is_down = False
    await until(lambda: runner.oldest_ts_ms is None)


# -- independence, gathering, the end -----------------------------------------------------------


async def test_a_sink_that_is_down_or_slow_does_not_delay_another(tmp_path: Path) -> None:
    """Each has a cursor and a task of its own."""
    async with rig_at(tmp_path, ["down", "slow", "memory"]) as rig:
        down, slow, well = MemorySink(), MemorySink(), MemorySink()
        down.name, slow.name = "down", "slow"
        down.is_down, slow.delay_s = True, 60.0
        for sink in (down, slow, well):
            rig.runner(sink)
        taken = []
        for number in range(10):
            taken += await rig.take([float(number)])
        await until(lambda: well.samples == taken)
        assert (down.samples, slow.samples) == ([], [])
        assert rig.books("down") == (0, 0, 0, 10)


async def test_samples_gather_until_the_flush_is_due(rig: Rig) -> None:
    """A sink that likes large batches gets few of them."""
    sink = Handed()
    runner = rig.runner(sink, Pace(flush_interval_s=0.1))
    await until(lambda: runner.connected)
    taken = []
    for number in range(30):
        taken += await rig.take([float(number)])
    await until(lambda: sink.samples == taken)
    assert len(sink.handed) <= 4


async def test_a_backlog_does_not_wait_for_flushes(rig: Rig) -> None:
    """What waits already is handed over one batch after the other."""
    for number in range(20):
        await rig.take([float(number)])
    sink = Handed()
    rig.runner(sink, Pace(samples_max=5, flush_interval_s=60.0))
    await until(lambda: len(sink.samples) == 20)
    assert sink.handed == [list(range(at, at + 5)) for at in (1, 6, 11, 16)]


async def test_draining_does_not_wait_for_more_to_gather(rig: Rig) -> None:
    """The agent is about to stop: what is there goes out now."""
    sink = MemorySink()
    runner = rig.runner(sink, Pace(flush_interval_s=60.0))
    await until(lambda: runner.connected)
    await rig.take([0.0])
    await until(lambda: len(sink.samples) == 1)
    await rig.take([1.0])
    await asyncio.sleep(0.05)
    assert len(sink.samples) == 1
    runner.drain()
    assert await runner.drained(WAIT_S)
    assert len(sink.samples) == 2


async def test_draining_gives_a_sink_that_backs_off_another_try_at_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that is back must not miss the last samples because of a long pause."""
    monkeypatch.setattr(delivery, "BACKOFF_FIRST_S", 60.0)
    sink = MemorySink()
    sink.is_down = True
    runner = rig.runner(sink)
    taken = await rig.take([1.0])
    await until(lambda: runner.error is not None)
    sink.is_down = False
    runner.drain()
    assert await runner.drained(WAIT_S)
    assert sink.samples == taken


async def test_draining_a_sink_that_is_down_ends_in_time(rig: Rig) -> None:
    """False, and the samples stay in the journal; a deadline that has passed is no error."""
    sink = MemorySink()
    sink.is_down = True
    runner = rig.runner(sink)
    await rig.take([1.0])
    runner.drain()
    assert not await runner.drained(0.03)
    assert not await runner.drained(-1.0)
    assert rig.books() == (0, 0, 0, 1)


async def test_nothing_is_drained_at_once(rig: Rig) -> None:
    """Without samples there is nothing to wait for, even with a sink that is down."""
    sink = MemorySink()
    sink.is_down = True
    runner = rig.runner(sink)
    assert await runner.drained(0.0)


# -- a journal that is replaced -----------------------------------------------------------------


async def replace(journal: Journal) -> None:
    """What happens when the file is found to be damaged: a new one takes its place."""
    await journal._recover(JournalError("a page is malformed"), journal._file)


async def test_a_replaced_journal_is_delivered_under_its_new_name(rig: Rig) -> None:
    """The sink is opened again with the new id; what was pending arrives, the rest goes on."""
    sink = Handed()
    runner = rig.runner(sink)
    await rig.take([1.0])
    await until(lambda: rig.books()[0] == 1)
    old_id = rig.journal.journal_id
    sink.is_down = True
    taken = await rig.take([2.0])
    await replace(rig.journal)
    assert rig.journal.journal_id != old_id
    sink.is_down = False
    taken += await rig.take([3.0])
    await until(lambda: all(sample in sink.samples for sample in taken))
    assert sink.opened[-1] == JournalIdentity("agent", rig.journal.journal_id)
    assert await runner.drained(WAIT_S)


async def test_a_journal_replaced_while_a_sink_opens_is_not_delivered_under_the_old_name(
    rig: Rig,
) -> None:
    """Sequences of the new file under the old file's name would be taken for repetitions."""
    handed: list[tuple[str, int]] = []
    opening, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemorySink):
        async def open(self, journal: JournalIdentity) -> None:
            self.id = journal.journal_id
            opening.set()
            await go_on.wait()
            await super().open(journal)

        async def deliver(self, batches: Sequence[Batch]) -> int:
            handed.append((self.id, len(batches)))
            return await super().deliver(batches)

    sink = Slow()
    await rig.take([1.0])
    rig.runner(sink)
    await opening.wait()
    await replace(rig.journal)
    go_on.set()
    await until(lambda: len(sink.samples) == 1)
    assert {id_ for id_, _ in handed} == {rig.journal.journal_id}
