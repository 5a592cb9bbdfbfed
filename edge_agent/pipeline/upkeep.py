"""The upkeep runner: a destination's chore, again and again, and what it found out.

As with delivery, the destination makes one attempt and the runner owns time and repetition. What
a round can't do is done by the next one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from edge_agent.errors import TransientError
from edge_agent.postgres.health import Examined, HealthCheck

log = logging.getLogger(__name__)


class UpkeepRunner:
    """Calls ``upkeep`` every ``interval_s`` seconds, first at once."""

    def __init__(
        self,
        name: str,
        upkeep: Callable[[], Awaitable[object]],
        *,
        interval_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.error: str | None = None
        """Why the last round failed; None while all is well."""
        self.health: tuple[HealthCheck, ...] = ()
        """What the database said of itself, `health_age_s` ago."""
        self._upkeep = upkeep
        self._interval_s = interval_s
        self._monotonic = monotonic
        self._examined_at: float | None = None
        self._failing_since = 0.0

    @property
    def health_age_s(self) -> float | None:
        """Seconds since `health` was read; None if that never happened."""
        return None if self._examined_at is None else self._monotonic() - self._examined_at

    @property
    def failing_s(self) -> float:
        """For how many seconds rounds have been failing; 0 while they work."""
        return 0.0 if self.error is None else self._monotonic() - self._failing_since

    async def run(self) -> None:
        """Go on for ever. Ends only by cancellation."""
        while True:
            await self.round()
            await asyncio.sleep(self._interval_s)

    async def round(self) -> None:
        """Call the upkeep once and keep what comes of it."""
        try:
            report = await self._upkeep()
        except (OSError, TransientError) as error:
            self._failed(error)
        else:
            self._worked(report)

    def _worked(self, report: object) -> None:
        if isinstance(report, Examined):
            self.health, self._examined_at = report.health, self._monotonic()
        if self.error is not None:
            log.info("%s: upkeep works again after %.0f s", self.name, self.failing_s)
            self.error = None

    def _failed(self, error: Exception) -> None:
        text = str(error) or "no answer in time"
        hint = getattr(error, "hint", "")
        level = logging.WARNING if self.error is None else logging.DEBUG
        if self.error is None:
            self._failing_since = self._monotonic()
        self.error = f"{text}; {hint}" if hint else text
        log.log(level, "%s: upkeep failed, will try again: %s", self.name, self.error)
