"""When to scan, and how long to wait before the next attempt. Pure: time comes in as a number.

Times are seconds of a monotonic clock, so a jump of the wall clock neither stops nor doubles a
scan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import random

EARLY_S = 0.0005
"""A tick this close is due now: event loops do not sleep for less than a millisecond."""


@dataclass(slots=True)
class _Scan:
    """One scan class: its fixed grid ``due + n * period`` and the scan that is on its way."""

    period_s: float
    blocks: int
    due: float
    next_block: int = 0
    overruns: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One block to read now. ``late_s`` is set on a scan's first block, ``last`` on its last."""

    scan_class: int
    block: int
    late_s: float | None
    last: bool


class Schedule:
    """The scans of one connection, one block at a time.

    Ticks stand on a fixed grid. Of several scans that are due the one whose next tick comes first
    goes on, so that a slow scan class does not hold up a fast one for longer than one block.
    A scan that is still running when its next tick comes has overrun that tick: it is counted and
    left out, never queued up.
    """

    def __init__(self, classes: Sequence[tuple[float, int]], start: float) -> None:
        """``classes`` are (period in seconds, number of blocks); the grid begins at ``start``."""
        self._scans = [_Scan(period_s, blocks, start) for period_s, blocks in classes]

    @property
    def overruns(self) -> int:
        """Ticks left out because the scan before them was still running."""
        return sum(scan.overruns for scan in self._scans)

    def next_step(self, now: float, *, running_only: bool = False) -> Step | None:
        """The block to read now, if any; `finish` must be called before the next one.

        ``running_only`` starts no further scan: for an orderly end.
        """
        best = None
        for index, scan in enumerate(self._scans):
            if scan.due <= now + EARLY_S and (scan.next_block or not running_only):
                deadline = scan.due + scan.period_s
                if best is None or deadline < best[0]:
                    best = (deadline, index)
        if best is None:
            return None
        scan = self._scans[best[1]]
        late_s = max(now - scan.due, 0.0) if scan.next_block == 0 else None
        return Step(best[1], scan.next_block, late_s, scan.next_block == scan.blocks - 1)

    def finish(self, step: Step, now: float) -> None:
        """The step's block was read, or could not be."""
        scan = self._scans[step.scan_class]
        if not step.last:
            scan.next_block += 1
            return
        scan.next_block = 0
        missed = max(math.floor((now - EARLY_S - scan.due) / scan.period_s), 0)
        scan.overruns += missed
        scan.due += (missed + 1) * scan.period_s

    def wait_s(self, now: float) -> float:
        """Seconds until the next tick; at least a millisecond, so that no loop spins."""
        return max(min(scan.due for scan in self._scans) - now, 0.001)

    def resume(self, now: float) -> None:
        """After a pause: every class is due once, now, and then on its old grid again."""
        for scan in self._scans:
            scan.next_block = 0
            ticks = math.floor((now - scan.due) / scan.period_s)
            if ticks > 0:
                scan.due += ticks * scan.period_s


class Backoff:
    """Growing pauses between attempts: doubled each time up to a bound, with jitter.

    The jitter (half to the full pause) keeps many connections from knocking together.
    """

    def __init__(
        self, first_s: float, max_s: float, *, randomness: Callable[[], float] = random
    ) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._random = randomness
        self._pause_s = first_s

    def next_s(self) -> float:
        """The pause before the next attempt."""
        pause_s = self._pause_s * (0.5 + self._random() / 2)
        self._pause_s = min(self._pause_s * 2, self._max_s)
        return pause_s

    def reset(self) -> None:
        """An attempt succeeded."""
        self._pause_s = self._first_s
