"""Whether the journal's thread gets on while it opens or recovers a file, and how far it is.

An opening walks through the whole file, a recovery copies it: minutes on a memory card. The thread
says so here, in `advance` and `reach`; the loop reads `text`, and the time that `beat` notes, for
systemd and its watchdog. No lock is needed: the thread replaces each by one plain assignment, and
in whatever order the loop sees them, it sees what was true a moment ago.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge_agent.errors import TransientError

log = logging.getLogger(__name__)

TOLD_INTERVAL_S = 60.0
"""How often the log says how far a recovery is: who looks at it at night must see that it moves."""
Reach = Callable[[float], None]
"""Told the share of the work that is done, 0 to 1."""


class Reached:
    """Passes on how far it is, and can say it again: a sign of life without anything new."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._share = 0.0

    def __call__(self, share: float) -> None:
        """So far."""
        self._share = share
        self._reach(share)

    def again(self) -> None:
        """No further than that."""
        self._reach(self._share)


class Progress:
    """Signs of life of one journal; while something is `doing` they count."""

    def __init__(
        self, beat: Callable[[], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.text = ""
        """What is being done, and how far it is; empty while nothing is that takes its time."""
        self.given_up = False
        """Set by the loop, to have an opening end at its next sign of life; see `startup.py`."""
        self._beat = beat
        self._monotonic = monotonic
        self._told_at = 0.0

    @contextmanager
    def doing(self, text: str) -> Iterator[None]:
        """Something that may take minutes, or a part of it that has a name of its own.

        Once it is over, whoever works with the file shows signs of life by itself.
        """
        before, self.text = self.text, text
        self._told_at = self._monotonic()
        self._beat()
        try:
            yield
        finally:
            self.text = before

    def advance(self) -> bool:
        """It has got on. Outside `doing` nothing: a read must not hide a stuck commit.

        SQLite calls it, and ends what it does if the answer is true: when it is given up.
        """
        if self.text:
            self._beat()
        return self.given_up

    def reach(self, share: float) -> None:
        """A recovery has done this share of its work, 0 to 1.

        Raises ``TransientError`` if it is given up.
        """
        if self.given_up:
            raise TransientError("the recovery of the journal is given up")
        self._beat()
        self.text = f"recovering the journal: {int(100 * share)} %"
        now = self._monotonic()
        if now - self._told_at >= TOLD_INTERVAL_S:
            self._told_at = now
            log.info("%s", self.text)
