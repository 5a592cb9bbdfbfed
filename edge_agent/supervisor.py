"""The one place where an error that nobody expected ends: the task is started again.

A task that should run for ever is worth more than the defect in it: it is logged as `critical`,
counted, and begun anew after a pause.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

log = logging.getLogger(__name__)

RESTART_PAUSE_S = 1.0
"""A task that fails at once must not spin."""


async def supervise(
    name: str,
    run: Callable[[], Coroutine[object, object, None]],
    failed: Callable[[], None] = lambda: None,
) -> None:
    """Run until it returns or is cancelled, through errors that nobody expected.

    ``failed`` is called at each of them.
    """
    while True:
        try:
            return await run()
        except Exception as error:
            failed()
            log.critical("task %s failed and is started again", name, exc_info=error)
        await asyncio.sleep(RESTART_PAUSE_S)
