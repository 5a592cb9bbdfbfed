"""The poller: one task per connection, which reads its scan classes on time.

The poller owns everything that has to do with time: ticks, timeouts, reconnecting and back-off.
The driver only ever makes one attempt (protocols/base.py).

* Requests on one connection follow each other; connections do not wait for each other.
* A block that fails makes its own tags bad and nothing else. A connection that fails is closed,
  its tags turn stale, and it is tried again for ever with bounded back-off.
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
PAUSE_S = 0.1
"""How often a paused poller asks whether the journal takes samples again."""


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
        self.error: str | None = "not read yet"
        """Why the last request failed; None if it did not."""
        self.stale = True
        self._journal = journal
        self._normalize = Normalizer(block.tags)
        self._ids = array("I", [journal.intern(tag.series) for tag in block.tags])
        self._ids_bytes = self._ids.tobytes()

    def take(self, reply: Reply, counters: ConnectionCounters) -> None:
        """Normalize a reply, remember its values, and hand the good ones to the journal."""
        result = self._normalize(reply.ts_ms, reply.values, reply.positions)
        self.error, self.stale = None, False
        if reply.positions is None and not result.bad:
            self.values = list(result.readings)
            self.ts_ms = [reply.ts_ms] * len(self.values)
        else:
            self._remember(reply, result.readings)
        if result.positions is None:
            ids = self._ids_bytes
        else:
            ids = array("I", [self._ids[place] for place in result.positions]).tobytes()
        if ids:
            self._journal.append(reply.ts_ms, ids, result.values)
        counters.samples += len(result.values)
        counters.bad += len(result.bad)
        counters.suppressed += len(result.readings) - len(result.values) - len(result.bad)

    def _remember(self, reply: Reply, readings: Sequence[float]) -> None:
        places = range(len(readings)) if reply.positions is None else reply.positions
        for place, value in zip(places, readings, strict=True):
            self.values[place] = value
            if not math.isnan(value):
                self.ts_ms[place] = reply.ts_ms

    def fail(self, error: str, counters: ConnectionCounters) -> None:
        """The block could not be read: its tags are bad."""
        self.error, self.stale = error, False
        self.values = [math.nan] * len(self.values)
        counters.bad += len(self.values)

    def quality(self, place: int) -> Quality:
        """What can be said of one tag's newest value."""
        if self.stale:
            return Quality.STALE
        return Quality.BAD if math.isnan(self.values[place]) else Quality.GOOD


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

    @property
    def name(self) -> str:
        """The connection as logs and task names show it."""
        return self.connection.conn

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
        self.connected, self.error = True, None
        if self._down_since is not None:
            down_s = self._monotonic() - self._down_since
            log.info("%s: connected again after %.1f s", self.name, down_s)
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
                reader.stale, reader.error = True, text

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
            self._timeouts = 0
            for reply in replies:
                reader.take(reply, counters)
            self._backoff.reset()
        except DeviceError as error:
            self._timeouts = 0
            self._block_failed(reader, "device", str(error))
        except TimeoutError:
            self._timeouts += 1
            text = f"no answer within {self._driver.timeout_s:g} s"
            self._block_failed(reader, "timeout", text)
            if self._timeouts >= TIMEOUTS_MAX:
                raise TransientError(f"{TIMEOUTS_MAX} requests without an answer") from None
        finally:
            now = self._monotonic()
            counters.request_time.observe(now - started)
            self.schedule.finish(step, now)
            if step.last:
                counters.scans += 1

    def _block_failed(self, reader: BlockReader, kind: str, text: str) -> None:
        self.counters.errors[kind] += 1
        level = logging.WARNING if reader.error is None or reader.stale else logging.DEBUG
        block = reader.block
        log.log(
            level,
            "%s: unit %d %s %d..%d: %d tags bad: %s",
            self.name,
            block.unit_id,
            block.area,
            block.start,
            block.start + block.count - 1,
            len(block.tags),
            text,
        )
        reader.fail(text, self.counters)

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

    async def _sleep(self, delay_s: float) -> None:
        """Sleep, but not past `stop`."""
        if self._stopping.is_set():
            return
        try:
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        except TimeoutError:
            pass


def phases(connections: int) -> list[float]:
    """Places within a period, as far from each other as any number of connections allows.

    Multiples of the golden ratio, modulo 1: the next one always falls into the widest gap.
    """
    return [index * 0.6180339887498949 % 1 for index in range(connections)]
