"""The poller: one task per connection, which reads its scan classes on time.

The poller owns everything that has to do with time: ticks, timeouts, reconnecting and back-off.
The driver only ever makes one attempt (protocols/base.py).

* Requests on one connection follow each other; connections do not wait for each other.
* A block that fails makes its own tags bad and nothing else, and makes longer and longer pauses;
  one address that the device has not got costs its own tag (parts.py).
* A unit that does not answer, beside others on the same line, is left alone for longer and longer
  and waited for less and less (patience.py): each pause ends with one request, and its first answer
  ends them all.
* A connection that fails is closed, its tags turn stale, and it is tried again for ever with
  bounded back-off; reading goes on after the block that broke it. A connection counts as up once
  it has answered a request.
* Values go to the journal as they come, a block at a time. While the journal takes no more, the
  poller does not read: what is not read is not lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from edge_agent.errors import (
    DeviceError,
    EdgeAgentError,
    RefusedError,
    SilentUnitError,
    TransientError,
    contained,
)
from edge_agent.journal import Journal
from edge_agent.metrics import ConnectionCounters
from edge_agent.pipeline.gap_book import GapBook
from edge_agent.pipeline.parts import Search
from edge_agent.pipeline.patience import UNIT_PAUSE_MAX_S, AnswerTime, Doubts, Pauses
from edge_agent.pipeline.reader import BlockReader, place_of, placed
from edge_agent.pipeline.replan import Replanned, replanned
from edge_agent.planner import Block, Connection
from edge_agent.protocols.base import Driver, Frames, Reply
from edge_agent.schedule import Backoff, Schedule, Step
from edge_agent.text.counts import counted
from edge_agent.waiting import happens

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
BACKOFF_FIRST_S = 0.5
BACKOFF_RETURN_S = 1.0
BACKOFF_MAX_S = 5.0
"""Between two attempts lies a period, so that who returns is read again within two; but never less
than a second, which loads nobody, and never more than this."""
TIMEOUTS_MAX = 3
"""So many requests in a row without any answer, of all units: the connection is dead."""
SILENT_MAX_S = 10.0
"""So long without any answer it is dead too, if its units were not all asked."""
BEAT_S = 1.0
"""No sleep is longer, so that a poller that waits for the next hour still shows that it lives."""
STEADY_S = 10.0
"""A connection that holds so long has recovered; one that flaps is reported once, not each time."""
NAMED_MAX = 5
"""Tags that a line of the log names."""
PAUSE_S = 0.1
"""How often a paused poller asks whether the journal takes samples again."""


class ConnectionPoller:
    """Reads everything behind one connection."""

    def __init__(
        self,
        connection: Connection,
        driver: type[Driver],
        journal: Journal,
        *,
        phase: float,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
        gap_book: GapBook | None = None,
    ) -> None:
        """``phase`` (0 to 1) is this connection's place within each period."""
        self.connection = connection
        self.replans = 0
        """How often `replan` has come true: other readers, another order of tags."""
        self.counters = ConnectionCounters()
        self.connected = False
        self.error: str | None = "not connected yet"
        """Why the connection is down; None while it is up."""
        self.beat_at = monotonic()
        """Monotonic time at which this poller last showed that it is alive, for the watchdog."""
        self._gap_book = gap_book or GapBook()
        self._journal = journal
        self.readers = [
            [self._reader(block) for block in scan_class.blocks]
            for scan_class in connection.scan_classes
        ]
        self._units = _units(connection)
        self._doubts = Doubts()
        self._answer_time = AnswerTime()
        self._now_ms = now_ms
        self._driver = driver(connection.conn, now_ms=now_ms)
        self._closes_after_scan = bool(getattr(self._driver, "close_after_scan", False))
        self._is_open = False
        self._monotonic = monotonic
        self.schedule = _schedule(connection, monotonic() + phase * _shortest_s(connection))
        self._backoff = _backoff(connection)
        self._timeouts = 0
        self._answered_at = 0.0
        self._stopping = asyncio.Event()
        self._wanted: tuple[Connection, asyncio.Event] | None = None
        self._down_since: float | None = None
        self._up_since = 0.0

    @property
    def name(self) -> str:
        """The connection as logs and task names show it."""
        return self.connection.conn

    @property
    def planned(self) -> Connection:
        """What is read, or will be when `replan` has come true."""
        return self.connection if self._wanted is None else self._wanted[0]

    @property
    def timeout_s(self) -> float:
        """How long a single request may take: so long it shows no sign of life."""
        return self._driver.timeout_s

    def stop(self) -> None:
        """Finish the running scans, then end."""
        self._stopping.set()

    def replan(self, connection: Connection) -> asyncio.Event:
        """Read this from now on, over the same connection; set when it has come true.

        What both plans have goes on without missing a scan (replan.py). It comes true between two
        requests, or at once while the connection is down.
        """
        done = asyncio.Event() if self._wanted is None else self._wanted[1]
        self._wanted = (connection, done)
        return done

    async def run(self) -> None:
        """Poll until `stop`. Never raises because of a device."""
        while not self._stopping.is_set():
            self.beat_at = self._monotonic()
            self._replanned()
            try:
                await self._connect()
                await self._scan()
            except (EdgeAgentError, TimeoutError) as error:
                self._disconnected(error)
            finally:
                await self._close()
            await self._sleep(self._backoff.next_s())

    async def _connect(self) -> None:
        with contained("connect"):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._driver.connect()
        self._is_open = True
        self._timeouts = 0
        self._answered_at = self._monotonic()
        for unit in self._units.values():
            unit.end()
        self.counters.connects += 1

    def _answered(self) -> None:
        """The connection works: only an answer shows it, since a mute device accepts it too."""
        self._timeouts = 0
        now = self._answered_at = self._monotonic()
        if not self.connected:
            self.connected, self.error, self._up_since = True, None, now
            self._backoff.reset()
        if self._down_since is not None and now - self._up_since >= STEADY_S:
            log.info("%s: answers again after %.1f s", self.name, self._up_since - self._down_since)
            self._down_since = None

    async def _close(self) -> None:
        self.connected = False
        await self._hang_up()

    async def _hang_up(self) -> None:
        self._is_open = False
        try:
            with contained("close"):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._driver.close()
        except (EdgeAgentError, TimeoutError) as error:
            log.debug("%s: did not close properly: %s", self.name, error)

    def _disconnected(self, error: Exception) -> None:
        text = str(error) or "no answer in time"
        if self._down_since is None:
            self._down_since = self._monotonic()
            log.warning("%s: connection failed, will try again: %s", self.name, text)
        else:
            log.debug("%s: still down: %s", self.name, text)
        self.counters.disconnects += self.connected
        self.counters.errors["connection"] += 1
        self.error = text
        for readers in self.readers:
            for reader in readers:
                reader.lose(text)

    async def _scan(self) -> None:
        """Read block after block as they come due, until `stop` or the connection fails."""
        self.schedule.resume(self._monotonic())
        while True:
            if not self._journal.accepting:
                await self._pause()
            if self._wanted is not None:
                await self._change_over(self._replanned())
            now = self._monotonic()
            self.beat_at = now
            step = self.schedule.next_step(now, running_only=self._stopping.is_set())
            if step is None:
                if self._stopping.is_set():
                    return
                if self._closes_after_scan and self._is_open:
                    await self._hang_up()
                await self._sleep(min(self.schedule.wait_s(now), BEAT_S))
                continue
            if self._in_doubt(step) and self.schedule.postpone(step):
                continue
            if not self._is_open:
                await self._connect()
            if step.late_s is not None:
                self.counters.late.observe(step.late_s)
            await self._read(step)

    def _replanned(self) -> Replanned | None:
        """Let a plan that is wanted come true; what that means for the readers."""
        if self._wanted is None:
            return None
        (connection, done), self._wanted = self._wanted, None
        made = replanned(self.readers, connection, self._reader)
        schedule = _schedule(connection, self._monotonic())
        schedule.adopt(self.schedule, made.stood)
        self.connection, self.readers, self.schedule = connection, made.readers, schedule
        units = _units(connection)
        self._units = {unit: self._units.get(unit, fresh) for unit, fresh in units.items()}
        self._backoff = _backoff(connection)
        self.replans += 1
        done.set()
        return made

    async def _change_over(self, made: Replanned | None) -> None:
        """For a driver that keeps something of each block: begin with the new ones, end the old.

        In this order, so that nothing falls between the two: a subscription's last changes are
        fetched when the next one is there.
        """
        forget = getattr(self._driver, "forget", None)
        if forget is None or made is None or not self._is_open:
            return
        for reader in (*made.fresh, *made.left):
            try:
                for reply in await self._ask(reader, reader.block):
                    with contained("read"):
                        reader.take(reply, self.counters)
            except (DeviceError, TimeoutError) as error:
                reader.fail(str(error), self.counters)
        for reader in made.left:
            with contained("forget"):
                async with asyncio.timeout(self.timeout_s):
                    await forget(reader.block)

    def _reader(self, block: Block) -> BlockReader:
        return BlockReader(block, self._journal, self._gap_book.of(self.name, block))

    def _in_doubt(self, step: Step) -> bool:
        """Whether it may well take a timeout: then it comes after the others."""
        reader = self.readers[step.scan_class][step.block]
        unit = self._units.get(reader.block.unit_id)
        return reader.pauses.failures > 0 or (unit is not None and unit.failures > 0)

    async def _read(self, step: Step) -> None:
        """Read one block; a failure that is the block's own ends here."""
        reader = self.readers[step.scan_class][step.block]
        started = self._monotonic()
        unit = self._units.get(reader.block.unit_id)
        if unit is not None and not unit.is_due(started) and not self._all_silent():
            reader.fail(f"unit {reader.block.unit_id} does not answer", self.counters)
        elif reader.pauses.is_due(started):
            try:
                await self._read_parts(reader, reader.search(started))
            except DeviceError as error:
                self._answered()
                silent = isinstance(error, SilentUnitError)
                self._block_failed(step, "device", str(error), started, silent=silent)
            except TimeoutError as error:
                self._timeouts += 1
                self._block_failed(step, "timeout", str(error), started, silent=True)
            except EdgeAgentError:
                self.schedule.interrupt(step, self._monotonic())
                raise
            else:
                self._block_read(reader)
        self._look_back(reader)
        self.schedule.finish(step, self._monotonic())
        self.counters.scans += step.last
        if self._timeouts >= TIMEOUTS_MAX and self._is_dead():
            raise TransientError(f"{self._timeouts} requests in a row without an answer")

    def _is_dead(self) -> bool:
        """Whether it is the connection that is silent, and not some of its units."""
        return self._all_silent() or self._monotonic() - self._answered_at >= SILENT_MAX_S

    def _all_silent(self) -> bool:
        """Whether no unit answers: then none is in another one's way."""
        return all(unit.failures for unit in self._units.values())

    async def _read_parts(self, reader: BlockReader, search: Search) -> None:
        """One scan of a block: a single request, unless the device refuses some of its cells."""
        while (part := search.next()) is not None:
            try:
                for reply in await self._ask(reader, part.block):
                    with contained("read"):
                        reader.take(placed(reply, part, reader.block), self.counters)
                search.took(part)
            except RefusedError as error:
                self.counters.errors["device"] += 1
                reader.refuse(part, str(error))
                search.refused(part)
            self._answered()
            if self._units:
                self._units[part.block.unit_id].answered()
        if reader.learn(search, self.counters):
            self._gap_book.learn(self.name, reader.block, reader.gaps)
            self._say_gaps(reader)

    async def _ask(self, reader: BlockReader, block: Block) -> Sequence[Reply]:
        """One request, with all that is kept of it."""
        self.counters.requests += 1
        wait_s = self._wait_s(reader)
        started = self._monotonic()
        problem: str | None = None
        hurried = False
        try:
            with contained("read"):
                async with asyncio.timeout(wait_s):
                    replies = await self._driver.read(block)
        except EdgeAgentError as error:
            problem = str(error)
            raise
        except TimeoutError as error:
            problem = str(error) or f"no answer within {wait_s:g} s"
            hurried = wait_s < self._driver.timeout_s
            raise TimeoutError(problem) from error
        finally:
            took_s = self._monotonic() - started
            self.counters.request_time.observe(took_s)
            if hurried:
                self._doubts.hurried()
            elif self._doubts.overtaken(took_s, self._driver.timeout_s):
                log.info("%s: waits for a silent unit before it answers others", self.name)
            frames: Frames | None = getattr(self._driver, "frames", None)
            if frames is not None:
                reader.recorder.exchanged(self._now_ms(), frames, problem)
        reader.answer_time.took(took_s)
        self._answer_time.took(took_s)
        return replies

    def _wait_s(self, reader: BlockReader) -> float:
        """How long to wait for a block: not for long, if it is its own fault that it failed."""
        timeout_s = self._driver.timeout_s
        unit = self._units.get(reader.block.unit_id)
        failures = unit.failures if unit is not None else 0
        if not failures and self._timeouts == 0:
            failures = reader.pauses.failures
        if not failures:
            return timeout_s
        heard = reader.answer_time.most_s > 0
        usual = reader.answer_time if heard else self._answer_time  # else as its neighbours
        return self._doubts.wait_s(timeout_s, usual, failures)

    def _look_back(self, reader: BlockReader) -> None:
        """Set aside what was on the wire when tags turned from good to bad."""
        if not reader.turned_bad:
            return
        bad = sorted(reader.turned_bad)
        reader.turned_bad.clear()
        names = [reader.block.tags[place].tag for place in bad]
        incident = reader.recorder.went_bad(self._now_ms(), names)
        if incident is not None:
            last = incident.exchanges[-1]
            log.info(
                "%s: %s: %s went bad: sent %s, received %s",
                *(self.name, place_of(reader.block), counted(len(bad), "tag")),
                *(last.frames.request.hex(" "), last.frames.reply.hex(" ") or "nothing"),
            )

    def _say_gaps(self, reader: BlockReader) -> None:
        place, holes = place_of(reader.block), sorted(reader.gaps.holes)
        if not holes:
            log.info("%s: %s: all tags can be read", self.name, place)
            return
        named = ", ".join(reader.block.tags[hole].tag for hole in holes[:NAMED_MAX])
        more = f" and {len(holes) - NAMED_MAX} more" if len(holes) > NAMED_MAX else ""
        log.warning(
            "%s: %s: the device refuses %s%s; the others are read without: %s",
            *(self.name, place, named, more, reader.refusals[holes[0]]),
        )

    def _block_read(self, reader: BlockReader) -> None:
        if reader.failing_since is not None:
            down_s = self._monotonic() - reader.failing_since
            reader.failing_since = None
            place = place_of(reader.block)
            log.info("%s: %s: read again after %.1f s", self.name, place, down_s)

    def _block_failed(
        self, step: Step, kind: str, text: str, started: float, *, silent: bool
    ) -> None:
        reader = self.readers[step.scan_class][step.block]
        self.counters.errors[kind] += 1
        level = logging.DEBUG
        if reader.failing_since is None:
            reader.failing_since = self._monotonic()
            level = logging.WARNING
        tags = counted(len(reader.block.tags), "tag")
        log.log(level, "%s: %s: %s bad: %s", self.name, place_of(reader.block), tags, text)
        reader.fail(text, self.counters)
        now = self._monotonic()
        cost_s = now - started if self.schedule.holds_up(step, now) else 0.0
        unit = self._units.get(reader.block.unit_id)
        if silent and unit is not None:
            unit.failed(now, cost_s, known=bool(reader.answer_time.most_s))
            if unit.failures > 1:
                return  # it is the unit rather than this block
        if kind != "timeout" or self._timeouts == 1:  # else it is rather the connection
            reader.pauses.failed(now, cost_s)

    async def _pause(self) -> None:
        """Do not read while the journal takes no more; the ticks in between are left out."""
        paused_at = self._monotonic()
        log.warning("%s: reading paused, the journal takes no more samples", self.name)
        while not self._journal.accepting and not self._stopping.is_set():
            await self._sleep(PAUSE_S)
            self.beat_at = self._monotonic()
        now = self._monotonic()
        self.counters.paused_s += now - paused_at
        self.schedule.resume(now)
        log.info("%s: reading goes on after %.1f s", self.name, now - paused_at)

    async def _sleep(self, delay_s: float) -> None:
        """Sleep, but not past `stop`."""
        await happens(self._stopping, delay_s)


def _shortest_s(connection: Connection) -> float:
    return min(scan_class.period_ms for scan_class in connection.scan_classes) / 1000


def _schedule(connection: Connection, start: float) -> Schedule:
    return Schedule(
        [(each.period_ms / 1000, len(each.blocks)) for each in connection.scan_classes], start=start
    )


def _backoff(connection: Connection) -> Backoff:
    bound_s = min(max(_shortest_s(connection), BACKOFF_RETURN_S), BACKOFF_MAX_S)
    return Backoff(BACKOFF_FIRST_S, bound_s)


def _units(connection: Connection) -> dict[int, Pauses]:
    """The pauses of each unit of a line; none if it has the line for itself."""
    periods: dict[int, int] = {}
    for scan_class in reversed(connection.scan_classes):  # the shortest period comes last
        periods.update((block.unit_id, scan_class.period_ms) for block in scan_class.blocks)
    if len(periods) == 1:
        return {}
    return {
        unit_id: Pauses(period_ms / 1000, UNIT_PAUSE_MAX_S)
        for unit_id, period_ms in periods.items()
    }


def phase_of(number: int) -> float:
    """The place of the n-th connection within a period, as far from the others as can be.

    Multiples of the golden ratio, modulo 1: the next one always falls into the widest gap.
    """
    return number * 0.6180339887498949 % 1
