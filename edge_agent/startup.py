"""Opening the journal under systemd: as long as it advances, the start is not taken for a hang.

systemd ends a start that takes longer than TimeoutStartSec (60 s in systemd/edge-agent.service).
Walking through a journal of gigabytes on a slow disk, or recovering a damaged one, may take longer;
ended in the middle, it would begin anew, and never get to its end.

A stop is not kept waiting for it: no more time is asked for, and the opening is given up at its
next sign of life. A damaged file is then as it was, and the next start begins anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from edge_agent.errors import TransientError
from edge_agent.journal import Journal
from edge_agent.notify import Notifier
from edge_agent.waiting import happens

log = logging.getLogger(__name__)

EXTENSION_S = 60.0
"""How much longer a start may take after each sign of life: one step on the slowest card."""
LOOK_INTERVAL_S = 5.0
"""Far below the unit's TimeoutStartSec and the extension: one lost message does no harm."""


async def open_journal(
    journal: Journal,
    sinks: Iterable[str],
    notifier: Notifier,
    stopping: asyncio.Event,
    *,
    look_interval_s: float = LOOK_INTERVAL_S,
) -> bool:
    """`Journal.open`, while systemd hears how far it is; False if it was given up for a stop.

    Raises what that raises.
    """
    telling = asyncio.create_task(
        _tell(journal, notifier, stopping, look_interval_s), name="journal.open.tell"
    )
    try:
        await journal.open(sinks)
    except TransientError as error:
        if not journal.progress.given_up:
            raise
        log.info("stopped before the journal was open: %s", error)
        return False
    finally:
        telling.cancel()
    journal.progress.given_up = False  # It came too late.
    return True


async def _tell(
    journal: Journal, notifier: Notifier, stopping: asyncio.Event, look_interval_s: float
) -> None:
    """Ask for more time each time that the opening has advanced; if it hangs, systemd ends it.

    From a stop on systemd's limit is that of the stop, which would be prolonged as well.
    """
    seen_at = 0.0
    while not await happens(stopping, look_interval_s):
        if journal.beat_at > seen_at:
            seen_at = journal.beat_at
            notifier.extend_start(EXTENSION_S, journal.progress.text)
    notifier.stopping(journal.progress.text)
    journal.progress.given_up = True
