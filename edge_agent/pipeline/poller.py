"""The poller: one task per connection, which reads its scan classes on time.

The poller owns everything that has to do with time: ticks, timeouts, reconnecting and back-off.
The driver only ever makes one attempt (protocols/base.py).

* Requests on one connection follow each other; connections do not wait for each other.
* A block that fails makes its own tags bad and nothing else. A connection that fails is closed,
  its tags turn stale, and it is tried again for ever with bounded back-off; reading goes on after
  the block that broke it. A connection counts as up once it has answered a request.
* Values go to the journal as they come, a block at a time. While the journal takes no more, the
  poller does not read: what is not read is not lost.
"""

from __future__ import annotations

import asyncio
import logging
import math
from array import array
from collections.abc import Callable, Sequence
from enum import StrEnum

from edge_agent.errors import DeviceError, EdgeAgentError, TransientError, contained
from edge_agent.journal import Journal
from edge_agent.metrics import ConnectionCounters
from edge_agent.normalize import Normalizer
from edge_agent.planner import Block, Connection
from edge_agent.protocols.base import Driver, Reply
from edge_agent.schedule import Backoff, Schedule, Step

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 2.0
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 5.0
"""A PLC that returns is read again within this time; one attempt in 5 s loads nobody."""
TIMEOUTS_MAX = 3
"""So many requests in a row without any answer: the connection is dead, not one of its units."""
BEAT_S = 1.0
"""No sleep is longer, so that a poller that waits for the next hour still shows that it lives."""
STEADY_S = 10.0
"""A connection that holds so long has recovered; one that flaps is reported once, not each time."""
PAUSE_S = 0.1
"""How often a paused poller asks whether the journal takes samples again."""

NOT_READ = "not read yet"


class Quality(StrEnum):
    """What can be said of a tag's newest value."""

    GOOD = "good"
    BAD = "bad"
    """Its last request failed, or the value was not a number."""
    STALE = "stale"
    """Its connection is down, or it has never been read."""


class BlockReader:
    """One block's way from reply to journal, and the newest values of its tags."""

    def __init__(self, block: Block, journal: Journal) -> None:
        self.block = block
        self.values: list[float] = [math.nan] * len(block.tags)
        """Newest value per tag, NaN where bad."""
        self.ts_ms: list[int | None] = [None] * len(block.tags)
        """Time of the newest good value per tag."""
        self.qualities: list[Quality] = [Quality.STALE] * len(block.tags)
        self.error: str | None = NOT_READ
        """Why the last request failed; None if it did not."""
        self.failing_since: float | None = None
        """Monotonic time of the first of the failures that this block is in; None if in none."""
        self._journal = journal
        self._normalize = Normalizer(block.tags)
        self._ids = array("I", [journal.intern(tag.series) for tag in block.tags])
        self._ids_bytes = self._ids.tobytes()

    def take(self, reply: Reply, counters: ConnectionCounters) -> None:
        """Normalize a reply, remember its values, and hand the good ones to the journal."""
        result = self._normalize(reply.ts_ms, reply.values, reply.positions)
        self.error = None
        if reply.positions is None and not result.bad:
            self.values = list(result.all_values)
            self.ts_ms = [reply.ts_ms] * len(self.values)
            self.qualities = [Quality.GOOD] * len(self.values)
        else:
            self._remember(reply, result.all_values)
        if result.positions is None:
            ids = self._ids_bytes
        else:
            ids = array("I", [self._ids[place] for place in result.positions]).tobytes()
        if ids:
            self._journal.append(reply.ts_ms, ids, result.values)
        counters.samples += len(result.values)
        counters.bad += len(result.bad)
        counters.suppressed += len(result.all_values) - len(result.values) - len(result.bad)

    def _remember(self, reply: Reply, all_values: Sequence[float]) -> None:
        places = range(len(all_values)) if reply.positions is None else reply.positions
        for place, value in zip(places, all_values, strict=True):
            self.values[place] = value
            if math.isnan(value):
                self.qualities[place] = Quality.BAD
            else:
                self.qualities[place] = Quality.GOOD
                self.ts_ms[place] = reply.ts_ms

    def fail(self, error: str, counters: ConnectionCounters) -> None:
        """The block could not be read: its tags are bad."""
        self.error = error
        self.values = [math.nan] * len(self.values)
        self.qualities = [Quality.BAD] * len(self.values)
        counters.bad += len(self.values)

    def lose(self, error: str) -> None:
        """The connection is down: what was read last is shown, but said to be old."""
        self.error = error
        self.qualities = [Quality.STALE] * len(self.values)

    def problem(self, place: int) -> str | None:
        """Why a tag's newest value is not good; None if it is."""
        match self.qualities[place]:
            case Quality.GOOD:
                return None
            case Quality.BAD:
                return self.error or "not a finite number"
            case Quality.STALE:
                return self.error or NOT_READ


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
    ) -> None:
        """``phase`` (0 to 1) is this connection's place within each period."""
        self.connection = connection
        self.counters = ConnectionCounters()
        self.connected = False
        self.error: str | None = "not connected yet"
        """Why the connection is down; None while it is up."""
        self.beat_at = monotonic()
        """Monotonic time at which this poller last showed that it is alive, for the watchdog."""
        self.readers = [
            [BlockReader(block, journal) for block in scan_class.blocks]
            for scan_class in connection.scan_classes
        ]
        self._driver = driver(connection.conn, now_ms=now_ms)
        self._journal = journal
        self._monotonic = monotonic
        shortest_s = min(c.period_ms for c in connection.scan_classes) / 1000
        self.schedule = Schedule(
            [(c.period_ms / 1000, len(c.blocks)) for c in connection.scan_classes],
            start=monotonic() + phase * shortest_s,
        )
        self._backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)
        self._timeouts = 0
        self._stopping = asyncio.Event()
        self._down_since: float | None = None
        self._up_since = 0.0

    @property
    def name(self) -> str:
        """The connection as logs and task names show it."""
        return self.connection.conn

    @property
    def timeout_s(self) -> float:
        """How long a single request may take: so long it shows no sign of life."""
        return self._driver.timeout_s

    def stop(self) -> None:
        """Finish the running scans, then end."""
        self._stopping.set()

    async def run(self) -> None:
        """Poll until `stop`. Never raises because of a device."""
        while not self._stopping.is_set():
            self.beat_at = self._monotonic()
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
        self._timeouts = 0
        self.counters.connects += 1

    def _answered(self) -> None:
        """The connection works: only an answer shows it, since a mute device accepts it too."""
        self._timeouts = 0
        now = self._monotonic()
        if not self.connected:
            self.connected, self.error, self._up_since = True, None, now
            self._backoff.reset()
        if self._down_since is not None and now - self._up_since >= STEADY_S:
            log.info("%s: answers again after %.1f s", self.name, self._up_since - self._down_since)
            self._down_since = None

    async def _close(self) -> None:
        self.connected = False
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
            now = self._monotonic()
            self.beat_at = now
            step = self.schedule.next_step(now, running_only=self._stopping.is_set())
            if step is None:
                if self._stopping.is_set():
                    return
                await self._sleep(min(self.schedule.wait_s(now), BEAT_S))
                continue
            if step.late_s is not None:
                self.counters.late.observe(step.late_s)
            await self._read(step)

    async def _read(self, step: Step) -> None:
        """Read one block; a failure that is the block's own ends here."""
        reader = self.readers[step.scan_class][step.block]
        counters = self.counters
        counters.requests += 1
        started = self._monotonic()
        try:
            with contained("read"):
                async with asyncio.timeout(self._driver.timeout_s):
                    replies = await self._driver.read(reader.block)
                for reply in replies:
                    reader.take(reply, counters)
            self._answered()
            if reader.failing_since is not None:
                self._block_recovered(reader)
        except DeviceError as error:
            self._answered()
            self._block_failed(reader, "device", str(error))
        except TimeoutError:
            self._timeouts += 1
            text = f"no answer within {self._driver.timeout_s:g} s"
            self._block_failed(reader, "timeout", text)
        except EdgeAgentError:
            self.schedule.interrupt(step, self._monotonic())
            raise
        finally:
            counters.request_time.observe(self._monotonic() - started)
        self.schedule.finish(step, self._monotonic())
        counters.scans += step.last
        if self._timeouts >= TIMEOUTS_MAX:
            raise TransientError(f"{TIMEOUTS_MAX} requests in a row without an answer")

    def _block_failed(self, reader: BlockReader, kind: str, text: str) -> None:
        self.counters.errors[kind] += 1
        level = logging.DEBUG
        if reader.failing_since is None:
            reader.failing_since = self._monotonic()
            level = logging.WARNING
        tags = len(reader.block.tags)
        log.log(level, "%s: %s: %d tags bad: %s", self.name, _place(reader.block), tags, text)
        reader.fail(text, self.counters)

    def _block_recovered(self, reader: BlockReader) -> None:
        assert reader.failing_since is not None
        down_s = self._monotonic() - reader.failing_since
        reader.failing_since = None
        log.info("%s: %s: read again after %.1f s", self.name, _place(reader.block), down_s)

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
        if self._stopping.is_set():
            return
        try:
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        except TimeoutError:
            pass


def _place(block: Block) -> str:
    last = block.start + block.count - 1
    return f"unit {block.unit_id} {block.area} {block.start}..{last}"


def phases(connections: int) -> list[float]:
    """Places within a period, as far from each other as any number of connections allows.

    Multiples of the golden ratio, modulo 1: the next one always falls into the widest gap.
    """
    return [index * 0.6180339887498949 % 1 for index in range(connections)]
