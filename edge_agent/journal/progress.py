"""Whether the journal's thread gets on while it opens or recovers a file, and how far it is.

An opening walks through the whole file, a recovery copies it: minutes on a memory card. The thread
says so here, in `advance` and `reach`; the loop reads `text`, and the time that `beat` notes, for
systemd and its watchdog. No lock is needed: the thread replaces each by one plain assignment, and
in whatever order the loop sees them, it sees what was true a moment ago.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

TOLD_INTERVAL_S = 60.0
"""How often the log says how far a recovery is: who looks at it at night must see that it moves."""


class Progress:
    """Signs of life of one journal; between `begin` and `end` they count."""

    def __init__(
        self, beat: Callable[[], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.text = ""
        """What is being done, and how far it is; empty while nothing is that takes its time."""
        self._beat = beat
        self._monotonic = monotonic
        self._told_at = 0.0

    def begin(self, text: str) -> None:
        """Something that may take minutes begins."""
        self.text = text
        self._told_at = self._monotonic()
        self._beat()

    def end(self) -> None:
        """It is over: whoever works with the file from now on shows its own signs of life."""
        self.text = ""

    def advance(self) -> None:
        """It has got on. Between `end` and `begin` nothing: a read must not hide a stuck commit."""
        if self.text:
            self._beat()

    def reach(self, share: float) -> None:
        """A recovery has done this share of its work, 0 to 1."""
        self._beat()
        self.text = f"recovering the journal: {int(100 * share)} %"
        now = self._monotonic()
        if now - self._told_at >= TOLD_INTERVAL_S:
            self._told_at = now
            log.info("%s", self.text)
