"""Opening the journal under systemd: as long as it advances, the start is not taken for a hang.

systemd ends a start that takes longer than TimeoutStartSec (60 s in systemd/edge-agent.service).
Walking through a journal of gigabytes on a slow disk, or recovering a damaged one, may take longer;
ended in the middle, it would begin anew, and never get to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from edge_agent.journal import Journal
from edge_agent.notify import Notifier

EXTENSION_S = 60.0
"""How much longer a start may take after each sign of life: one step on the slowest card."""
LOOK_INTERVAL_S = 5.0
"""Far below the unit's TimeoutStartSec and the extension: one lost message does no harm."""


async def open_journal(
    journal: Journal,
    sinks: Iterable[str],
    notifier: Notifier,
    *,
    look_interval_s: float = LOOK_INTERVAL_S,
) -> None:
    """`Journal.open`, while systemd hears how far it is. Raises what that raises."""
    telling = asyncio.create_task(
        _tell(journal, notifier, look_interval_s), name="journal.open.tell"
    )
    try:
        await journal.open(sinks)
    finally:
        telling.cancel()


async def _tell(journal: Journal, notifier: Notifier, look_interval_s: float) -> None:
    """Ask for more time each time that the opening has advanced; if it hangs, systemd ends it."""
    seen_at = 0.0
    while True:
        await asyncio.sleep(look_interval_s)
        if journal.beat_at > seen_at:
            seen_at = journal.beat_at
            notifier.extend_start(EXTENSION_S, journal.progress.text)
