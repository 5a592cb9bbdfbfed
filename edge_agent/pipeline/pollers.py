"""All connections of the running map, and how they become those of another one.

A connection that both maps have is never closed: it goes on as it is, or its poller is handed the
new plan (`ConnectionPoller.replan`). Another `conn` is another connection; those that are gone end
before new ones begin, since a PLC may take one client only.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine, Sequence
from itertools import count
from typing import Final

from edge_agent.errors import TransientError
from edge_agent.pipeline.poller import ConnectionPoller, phase_of
from edge_agent.planner import Connection
from edge_agent.reload.difference import PlanDifference, plan_difference

log = logging.getLogger(__name__)

SCANS_FINISH_TIMEOUT_S: Final = 5.0
"""For scans that are running at the end; a mute device must not use up the sinks' time."""
ENDED_TIMEOUT_S: Final = 1.0
"""The same where only a map changes: new tags are waited for."""
REPLAN_TIMEOUT_S: Final = 2.0
"""A plan comes true between two requests, or two attempts to connect. One that takes longer does so
all the same, later."""

Start = Callable[[str, Callable[[], Coroutine[object, object, None]]], asyncio.Task[None]]
"""Start a supervised task by its name."""


class Pollers:
    """The pollers in map order. ``make`` makes one for a connection and its phase."""

    def __init__(self, make: Callable[[Connection, float], ConnectionPoller], start: Start) -> None:
        self.all: list[ConnectionPoller] = []
        self._make = make
        self._start = start
        self._tasks: dict[ConnectionPoller, asyncio.Task[None]] = {}
        self._numbers = count()
        self._ending = False
        self._name = ""

    @property
    def layout(self) -> str:
        """Names the order of tags among the pollers; another order has another name."""
        return f"{self._name}{sum(poller.replans for poller in self.all)}"

    def begin(self, connections: Sequence[Connection]) -> None:
        """Start one for each."""
        self.all = [self._begun(connection) for connection in connections]
        self._name = uuid.uuid4().hex

    async def change(self, connections: Sequence[Connection]) -> PlanDifference:
        """Read these from now on; returns what became of each. New ones are read at once.

        Raises ``TransientError`` if the agent is ending.
        """
        self._check_goes_on()
        found = plan_difference([poller.planned for poller in self.all], connections)
        by_conn = {_key(poller.connection): poller for poller in self.all}
        ended = [by_conn[_key(connection)] for connection in found.ended]
        replans = [by_conn[_key(after)].replan(after) for _, after in found.changed]
        await self._ended(ended, ENDED_TIMEOUT_S)
        if self._ending:  # meanwhile: nobody would stop what begins now
            return found
        for connection in found.begun:
            by_conn[_key(connection)] = self._begun(connection)
        self.all = [by_conn[_key(connection)] for connection in connections]
        self._name = uuid.uuid4().hex
        await self._come_true(replans)
        return found

    def _check_goes_on(self) -> None:
        if self._ending:
            raise TransientError("the agent is ending: it takes no other map")

    async def end(self, others: Sequence[asyncio.Task[None]] = ()) -> None:
        """Finish running scans, then end, and wait for ``others`` that end with them."""
        self._ending = True
        await self._ended(list(self._tasks), SCANS_FINISH_TIMEOUT_S, others)

    def _begun(self, connection: Connection) -> ConnectionPoller:
        poller = self._make(connection, phase_of(next(self._numbers)))
        self._tasks[poller] = self._start(f"edge[{poller.name}].poll", poller.run)
        return poller

    async def _ended(
        self,
        pollers: Sequence[ConnectionPoller],
        timeout_s: float,
        others: Sequence[asyncio.Task[None]] = (),
    ) -> None:
        for poller in pollers:
            poller.stop()
        tasks = [*(self._tasks.pop(poller) for poller in pollers), *others]
        if not tasks:
            return
        try:
            await asyncio.wait(tasks, timeout=timeout_s)
        finally:  # also if this is cancelled: nobody else knows them any more
            for task in tasks:
                task.cancel()

    async def _come_true(self, replans: Sequence[asyncio.Event]) -> None:
        try:
            async with asyncio.timeout(REPLAN_TIMEOUT_S):
                for done in replans:
                    await done.wait()
        except TimeoutError:
            waiting = sum(not done.is_set() for done in replans)
            log.info("%d connections change over when their running request or pause ends", waiting)


def _key(connection: Connection) -> tuple[str, str]:
    return connection.protocol, connection.conn
