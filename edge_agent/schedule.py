"""When to scan, and how long to wait before the next attempt. Pure: time comes in as a number.

Times are seconds of a monotonic clock, so a jump of the wall clock neither stops nor doubles a
scan.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import random

EARLY_S = 0.0005
"""A tick this close is due now: event loops do not sleep for less than a millisecond."""
WAIT_MIN_S = 0.001


@dataclass(slots=True)
class _Scan:
    """One scan class: its fixed grid ``due + n * period`` and the scan that is on its way."""

    period_s: float
    blocks: int
    due: float
    order: list[int] = field(init=False)
    """The blocks, in the order of this scan."""
    blocks_done: int = 0
    postponed: int = 0
    """So many blocks at the end of `order` have had their turn and gave it up."""
    broken_block: int | None = None
    overruns: int = 0

    def __post_init__(self) -> None:
        self.order = list(range(self.blocks))


@dataclass(frozen=True, slots=True)
class Step:
    """One block to read now. ``late_s`` is set on a scan's first block, ``last`` on its last."""

    scan_class: int
    block: int
    late_s: float | None
    last: bool


class Schedule:
    """The scans of one connection, one block at a time.

    Ticks stand on a fixed grid. Of several scans that are due the one with the shortest period
    goes on, so that a slow scan class never holds up a fast one for longer than one block.
    A scan that has not ended when its next tick comes has overrun that tick: it is counted and
    left out, never queued up. The pause that this leaves keeps slower classes alive on a
    connection that has more to do than it can.
    """

    def __init__(self, classes: Sequence[tuple[float, int]], start: float) -> None:
        """``classes`` are (period in seconds, number of blocks); the grid begins at ``start``."""
        self._scans = [_Scan(period_s, blocks, start) for period_s, blocks in classes]
        self._order = sorted(range(len(classes)), key=lambda index: classes[index][0])
        self._overruns_before = 0

    @property
    def overruns(self) -> int:
        """Ticks left out because the scan before them was still running."""
        return self._overruns_before + sum(scan.overruns for scan in self._scans)

    def next_step(self, now: float, *, running_only: bool = False) -> Step | None:
        """The block to read now, if any; `finish` must be called before the next one.

        ``running_only`` starts no further scan: for an orderly end.
        """
        for index in self._order:
            scan = self._scans[index]
            if scan.due <= now + EARLY_S and (scan.blocks_done or not running_only):
                return Step(
                    scan_class=index,
                    block=scan.order[scan.blocks_done],
                    late_s=None if scan.blocks_done else max(now - scan.due, 0.0),
                    last=scan.blocks_done == scan.blocks - 1,
                )
        return None

    def finish(self, step: Step, now: float) -> None:
        """The step's block was read, or could not be."""
        scan = self._scans[step.scan_class]
        scan.broken_block = None
        if not step.last:
            scan.blocks_done += 1
            return
        scan.order.sort()
        scan.blocks_done = scan.postponed = 0
        # A tick that would be due at once counts as overrun: others would never get a turn.
        missed = max(math.floor((now + EARLY_S - scan.due) / scan.period_s), 0)
        scan.overruns += missed
        scan.due += (missed + 1) * scan.period_s

    def postpone(self, step: Step) -> bool:
        """Put the step's block behind the others of its scan, once; whether there are others."""
        scan = self._scans[step.scan_class]
        if scan.blocks_done + scan.postponed + 1 >= scan.blocks:
            return False
        scan.order.append(scan.order.pop(scan.blocks_done))
        scan.postponed += 1
        return True

    def holds_up(self, step: Step, now: float) -> bool:
        """Whether anything else has been waiting for the end of this step."""
        return not step.last or any(
            scan.due + scan.period_s * (index == step.scan_class) <= now + EARLY_S
            for index, scan in enumerate(self._scans)
        )

    def interrupt(self, step: Step, now: float) -> None:
        """The connection broke at this step; `resume` comes next.

        The block has one more attempt: a device that drops an idle connection would otherwise
        cost a sample each time. If it breaks the connection again, the scan goes on behind it.
        """
        scan = self._scans[step.scan_class]
        if scan.broken_block == step.block:
            self.finish(step, now)
        else:
            scan.broken_block = step.block

    def adopt(
        self, before: Schedule, places: Mapping[tuple[int, int], Sequence[tuple[int, int]]]
    ) -> None:
        """Go on where another plan of the same connection stood; call it before the first step.

        A class whose period both have keeps its grid, and what it has read of its running scan.
        ``places`` are (class, block): where the tags of each block here stood ``before``. A block
        has been read if all of those were; one that stood nowhere is new.
        """
        self._overruns_before = before.overruns
        for index, scan in enumerate(self._scans):
            old_index = before._index_of(scan.period_s)
            if old_index is None:
                continue
            old = before._scans[old_index]
            scan.due = old.due
            done = {(old_index, block) for block in old.order[: old.blocks_done]}
            had = [block for block in range(scan.blocks) if _all_in(places, (index, block), done)]
            if len(had) == scan.blocks and done:  # what was left of the scan is no more
                scan.due += scan.period_s
            else:
                scan.order = had + [block for block in range(scan.blocks) if block not in had]
                scan.blocks_done = len(had)

    def _index_of(self, period_s: float) -> int | None:
        found = (index for index, scan in enumerate(self._scans) if scan.period_s == period_s)
        return next(found, None)

    def wait_s(self, now: float) -> float:
        """Seconds until the next tick; at least a millisecond, so that no loop spins."""
        return max(min(scan.due for scan in self._scans) - now, WAIT_MIN_S)

    def resume(self, now: float) -> None:
        """After a pause: what came due meanwhile is due once, now, and then on its old grid again.

        A scan that the pause interrupted begins anew, but with the block at which it stopped: a
        block that breaks the connection each time must not cost those behind it.
        """
        for scan in self._scans:
            done = scan.blocks_done
            scan.order = scan.order[done:] + scan.order[:done]
            scan.blocks_done = scan.postponed = 0
            scan.due += max(math.floor((now - scan.due) / scan.period_s), 0) * scan.period_s


def _all_in(
    places: Mapping[tuple[int, int], Sequence[tuple[int, int]]],
    at: tuple[int, int],
    done: set[tuple[int, int]],
) -> bool:
    stood = places.get(at, ())
    return bool(stood) and done.issuperset(stood)


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
