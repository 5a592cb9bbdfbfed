"""What a sink is.

A sink is asked to deliver some batches once and either returns or raises. Timing, retry,
back-off, batching, cursors, counters and logs belong to the delivery runner. It never sees the
journal or a driver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_agent.model import Batch

SAMPLES_MAX = 20_000
"""One hand-over: large enough for the throughput of a catch-up, small enough to repeat cheaply."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much a sink is handed at once, and how long samples may gather before."""

    samples_max: int = SAMPLES_MAX
    flush_interval_s: float = 0.0


@dataclass(frozen=True, slots=True)
class JournalIdentity:
    """Whose sequence numbers a batch carries.

    ``journal_id`` is random per journal file, so that a fresh file never meets an old cursor.
    """

    agent_id: str
    journal_id: str


class Sink(Protocol):
    """One destination. Its calls come one at a time, from one task.

    Contract, held by tests/integration/test_sinks.py for every sink:

    * ``deliver`` returns only when the destination has taken every sample for good.
    * The same batches may come again, after a failure or a restart; what that does to the
      destination is the sink's stated guarantee.
    * Batches come in sequence order; within one destination and tag their order is kept.
    """

    name: str

    async def open(self, journal: JournalIdentity) -> None:
        """Make one attempt to connect. Raises ``TransientError``, with a hint where one helps."""

    async def deliver(self, batches: Sequence[Batch]) -> int:
        """Make one attempt to deliver; returns how many samples the destination already had.

        Raises ``TransientError`` (nothing may be assumed delivered; the runner closes, waits,
        opens and hands the same batches again) or ``RejectedRows`` (all but these are delivered).
        Cancelling it is safe in the same sense as a ``TransientError``.
        """

    async def close(self) -> None:
        """Release the connection. Never raises; may be called in any state, also twice."""


class RefusalKeeper(Protocol):
    """A sink that keeps what was refused at its destination, to say so of a batch that comes again.

    For destinations that skip such a batch; all others refuse it once more.
    """

    def settled(self, sequence: int) -> None:
        """Batches up to here never come again: what became of them is durable in the journal."""


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """How a device is: ``quality`` is that of its worst tag, good, bad or stale."""

    site: str
    line: str
    device: str
    quality: str
    since_ms: int
    """Since when it has this quality; ms since 1970 UTC."""
    tags: int
    tags_good: int
    problem: str | None
    """What is the matter with its worst tag; None while all are good."""


class DeviceTeller(Protocol):
    """A sink that can say how devices are, beside their samples."""

    @property
    def session(self) -> int:
        """Grows with each `open`: what was told before may be forgotten. 0 before the first."""

    async def tell(
        self, reports: Sequence[DeviceReport], gone: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Make one attempt to say so. Called from another task than ``deliver``.

        ``gone`` are (site, device) of which nothing is to be said any more.

        Raises ``TransientError``.
        """
