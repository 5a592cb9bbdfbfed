"""The delivery runner: from the journal to one sink, whatever happens in between.

Each sink has a runner and a task of its own, so that one that is down, slow or refusing does not
delay another. The runner owns everything that has to do with time and repetition; the sink only
ever makes one attempt (sinks/base.py).

* Batches are read in order, up to ``samples_max`` at a time, and stay claimed in the journal until
  they are acknowledged or given back.
* Whatever a sink raises, the batches are handed to it again after a pause (``TransientError`` and
  unclassed errors) or acknowledged with the refused samples in quarantine (``RejectedRows``).
* An error that nobody classed is a fault in a sink. It must not stop the sink for ever: after
  ``FAULTS_MAX`` of them on the same batch, handed over alone, that batch goes to the quarantine.
  Nothing after it is handed over until that is durable: the destination knows nothing of it, and
  one that skips what its cursor has passed would, after a kill, skip that batch as delivered.
* Killed at any point: what was not acknowledged is delivered again. A new journal file (salvage)
  is noticed by its id; what was being delivered is forgotten, since it is in the new file too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from edge_agent.errors import (
    EdgeAgentError,
    FaultError,
    RejectedRow,
    RejectedRows,
    contained,
)
from edge_agent.journal import Journal, Quarantined
from edge_agent.metrics import SinkCounters
from edge_agent.model import Batch
from edge_agent.schedule import Backoff
from edge_agent.sinks.base import JournalIdentity, Pace, RefusalKeeper, Sink
from edge_agent.waiting import happens

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 15.0
DELIVER_TIMEOUT_S = 60.0
"""Last resort: sinks have tighter limits of their own, and this one sees that none is missing."""
CLOSE_TIMEOUT_S = 5.0
BACKOFF_FIRST_S = 0.25
BACKOFF_MAX_S = 15.0
"""A destination that returns is noticed within this time."""
FAULTS_MAX = 5
IDLE_WAIT_S = 1.0
REASON_CHARS_MAX = 320
"""Of each refused sample, in the quarantine: some text, not a traceback a thousand times."""
REJECTED_WARNING_S = 60.0
"""A tag that is refused is refused with every batch: said once a minute, not each time."""


class DeliveryRunner:
    """Moves one sink's cursor through the journal."""

    def __init__(
        self,
        sink: Sink,
        journal: Journal,
        *,
        agent_id: str,
        pace: Pace,
        now_ms: Callable[[], int],
        keeper: RefusalKeeper | None = None,
    ) -> None:
        """``keeper`` is the same sink, where it keeps what was refused."""
        self.sink = sink
        self._keeper = keeper
        self.counters = SinkCounters()
        self.connected = False
        self.error: str | None = None
        """Why the last attempt failed; None while all is well."""
        self.error_since_ms: int | None = None
        self.oldest_ts_ms: int | None = None
        """Time of the oldest sample that waits or is being delivered; None when there is none."""
        self._journal = journal
        self._agent_id = agent_id
        self._pace = pace
        self._now_ms = now_ms
        self._backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)
        self._faults: tuple[int, int] = (0, 0)  # sequence, times
        self._suspect_until = 0
        """Batches up to this sequence are handed over one by one: a fault came from among them."""
        self._warn_rejected_at = 0.0
        self._draining = asyncio.Event()
        self._idle = asyncio.Event()

    def drain(self) -> None:
        """Deliver without waiting for more to gather: the agent is about to stop."""
        self._draining.set()

    async def drained(self, timeout_s: float) -> bool:
        """Wait until the sink has acknowledged everything that is durable, at most so long."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._waiting_entries:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            pass
        return not self._waiting_entries

    async def run(self) -> None:
        """Deliver for ever. Ends only by cancellation."""
        known_id = ""
        while True:
            # Sequences mean something only together with the file that gave them.
            journal_id = self._journal.journal_id
            if journal_id != known_id:
                known_id, self._faults, self._suspect_until = journal_id, (0, 0), 0
            try:
                await self._look()
                await self._open(JournalIdentity(self._agent_id, journal_id))
                await self._deliver_all(journal_id)
            except (EdgeAgentError, TimeoutError) as error:
                self._failed(error)
            finally:
                await self._close()
            await self._pause(self._backoff.next_s())

    async def _look(self) -> None:
        """See how old the oldest waiting sample is, which is of interest while the sink is down."""
        batches = await self._journal.read(self.sink.name, samples_max=1)
        self._journal.release(self.sink.name)
        self.oldest_ts_ms = batches[0].first_ts_ms if batches else None

    async def _open(self, identity: JournalIdentity) -> None:
        with contained("open"):
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await self.sink.open(identity)
        self.connected = True

    async def _pause(self, delay_s: float) -> None:
        """Wait before the next attempt. `drain` ends the wait: the last attempts are due now."""
        if self._draining.is_set():
            await asyncio.sleep(delay_s)
            return
        if await happens(self._draining, delay_s):
            self._backoff.reset()

    async def _close(self) -> None:
        self.connected = False
        self._journal.release(self.sink.name)
        try:
            with contained("close"):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self.sink.close()
        except (EdgeAgentError, TimeoutError) as error:
            log.warning("%s: did not close properly: %r", self.sink.name, error)

    async def _deliver_all(self, journal_id: str) -> None:
        """Deliver until something fails, or the journal is replaced."""
        flush_at = 0.0
        while self._journal.journal_id == journal_id:
            alone = self._journal.position(self.sink.name) < self._suspect_until
            batches = await self._journal.read(
                self.sink.name, samples_max=1 if alone else self._pace.samples_max
            )
            if batches:
                await self._deliver(batches, journal_id)
                continue
            self.oldest_ts_ms = None
            self._recovered()
            self._idle.set()
            await self._journal.wait(IDLE_WAIT_S)
            flush_at = await self._gather(flush_at)

    async def _gather(self, flush_at: float) -> float:
        """Let samples gather until the flush is due; returns when the next one is."""
        loop = asyncio.get_running_loop()
        await happens(self._draining, flush_at - loop.time())
        return loop.time() + self._pace.flush_interval_s

    @property
    def _waiting_entries(self) -> int:
        return max(self._journal.last_sequence - self._journal.position(self.sink.name), 0)

    async def _deliver(self, batches: Sequence[Batch], journal_id: str) -> None:
        loop = asyncio.get_running_loop()
        self.oldest_ts_ms = batches[0].first_ts_ms
        started = loop.time()
        rejected: list[Quarantined] = []
        given_up = False
        try:
            with contained("deliver"):
                if self._keeper is not None:
                    self._keeper.settled(self._journal.settled(self.sink.name))
                duplicates, rejected = await self._attempt(batches)
        except FaultError as fault:
            duplicates, rejected = 0, self._judge(fault, batches)
            given_up = True
        if self._journal.journal_id != journal_id:
            return
        self._journal.acknowledge(self.sink.name, batches, duplicates=duplicates, rejected=rejected)
        counters = self.counters
        counters.rejected += len(rejected)
        counters.delivery_time.observe(loop.time() - started)
        now_ms = self._now_ms()
        for batch in batches:
            counters.lag.observe(max(now_ms - batch.last_ts_ms, 0) / 1000, len(batch))
        self._faults = (0, 0)
        if given_up:
            await self._until_durable(journal_id)
        self._recovered()

    async def _until_durable(self, journal_id: str) -> None:
        """Wait until the journal has on the disk what was acknowledged, or is replaced."""
        journal, name = self._journal, self.sink.name
        while journal.journal_id == journal_id and journal.settled(name) < journal.position(name):
            journal.commit_soon()
            await journal.wait(IDLE_WAIT_S)

    async def _attempt(self, batches: Sequence[Batch]) -> tuple[int, list[Quarantined]]:
        """Hand over once; how many samples were there already, and which were refused for good."""
        try:
            async with asyncio.timeout(DELIVER_TIMEOUT_S):
                return await self.sink.deliver(batches), []
        except RejectedRows as refusal:
            rejected = _quarantined(batches, refusal.rows)
            self._report_rejected(refusal)
            return refusal.duplicates, rejected

    def _report_rejected(self, refusal: RejectedRows) -> None:
        now = asyncio.get_running_loop().time()
        level = logging.DEBUG
        if now >= self._warn_rejected_at:
            self._warn_rejected_at = now + REJECTED_WARNING_S
            level = logging.WARNING
        log.log(
            level,
            "%s: %s; `edge-agent journal export quarantine` shows all",
            self.sink.name,
            refusal,
        )

    def _judge(self, fault: FaultError, batches: Sequence[Batch]) -> list[Quarantined]:
        """Count a fault; once too often on one batch, give that batch up for good."""
        sequence = batches[0].sequence
        times = self._faults[1] + 1 if self._faults[0] == sequence else 1
        self._faults = (sequence, times)
        self._suspect_until = max(self._suspect_until, batches[-1].sequence)
        log.debug("%s: fault", self.sink.name, exc_info=fault.__cause__)
        if times < FAULTS_MAX or len(batches) > 1:
            raise fault
        self.counters.failures["fault"] += 1
        log.error(
            "%s: gives up batch %d after %d faults: %s", self.sink.name, sequence, times, fault
        )
        rows = [RejectedRow(sequence, index, str(fault)) for index in range(len(batches[0]))]
        return _quarantined(batches, rows)

    def _failed(self, error: Exception) -> None:
        stage = "deliver" if self.connected else "open"
        self.counters.failures["fault" if isinstance(error, FaultError) else stage] += 1
        text = str(error) or "no answer in time"
        hint = getattr(error, "hint", "")
        first = self.error is None
        if first:
            self.error_since_ms = self._now_ms()
        self.error = f"{text}; {hint}" if hint else text
        level = logging.WARNING if first else logging.DEBUG
        log.log(level, "%s: %s failed, will try again: %s", self.sink.name, stage, self.error)

    def _recovered(self) -> None:
        self._backoff.reset()
        if self.error is not None:
            down_s = (self._now_ms() - (self.error_since_ms or 0)) / 1000
            log.info("%s: delivers again after %.1f s", self.sink.name, down_s)
            self.error = self.error_since_ms = None


def _quarantined(batches: Sequence[Batch], rows: Sequence[RejectedRow]) -> list[Quarantined]:
    """The samples that rows name."""
    by_sequence = {batch.sequence: batch for batch in batches}
    found = []
    for row in rows:
        batch = by_sequence[row.sequence]
        found.append(
            Quarantined(
                series_id=batch.series_ids[row.index],
                ts_ms=_time_of(batch, row.index),
                value=batch.values[row.index],
                reason=_kept(row.reason),
            )
        )
    return found


def _kept(reason: str) -> str:
    """Of a sink's reason what a file can hold: bytes of a server that are no text are not."""
    return reason[:REASON_CHARS_MAX].encode("utf-8", "replace").decode()


def _time_of(batch: Batch, index: int) -> int:
    at = 0
    for ts_ms, count in batch.runs:
        at += count
        if index < at:
            return ts_ms
    raise IndexError(index)
