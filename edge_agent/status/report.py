"""What a running agent says of itself: the figures of its machinery, and the verdict on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_agent import __version__
from edge_agent.journal import Journal
from edge_agent.pipeline.delivery import DeliveryRunner
from edge_agent.pipeline.pollers import Pollers
from edge_agent.pipeline.upkeep import UpkeepRunner
from edge_agent.reload.reloader import Reloader
from edge_agent.status.exposition import exposition
from edge_agent.status.figures import (
    AgentStatus,
    DeviceStatus,
    LiveValues,
    Loss,
    columns_of,
    connection_status,
    devices_of,
    ingest_status,
    journal_status,
    loss,
    map_status,
    sink_status,
    upkeep_status,
)
from edge_agent.status.frames import BlockFrames, frames_of
from edge_agent.status.verdict import notices_of, problems_of, verdict

if TYPE_CHECKING:
    from edge_agent.pipeline.ingest import Ingest

LOSSES_SHOWN_MAX = 100
"""Rows of the loss ledger that `/losses` tells; `edge-agent journal export ledger` has all."""


@dataclass(slots=True)
class Machinery:
    """What moves samples in an agent, and keeps it in shape. It is empty until the agent runs."""

    agent_id: str
    reloader: Reloader
    journal: Journal
    polls: Pollers
    runners: Sequence[DeliveryRunner] = ()
    """One for each sink."""
    upkeeps: Sequence[UpkeepRunner] = ()
    """One for each sink that needs upkeep."""
    ingest: Ingest | None = None
    """None where it is off."""
    restarts: int = 0
    """Tasks that ended with an error nobody expected, and were started again."""


class Report:
    """Tells of an agent's machinery; ``now_ms`` and ``monotonic`` are the agent's clocks."""

    def __init__(
        self,
        machinery: Machinery,
        *,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self._machinery = machinery
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._started_at = monotonic()

    async def status(self, *, devices: bool = True) -> AgentStatus:
        """Everything there is to say, as plain data; ``devices`` take most of the room."""
        now_ms = self._now_ms()
        of, pollers = self._machinery, self._machinery.polls.all
        connections = [connection_status(poller) for poller in pollers]
        journal = journal_status(of.journal, await of.journal.bytes_used())
        states = [sink_status(runner, of.journal, now_ms) for runner in of.runners]
        upkeep = [upkeep_status(runner) for runner in of.upkeeps]
        ingest = None if of.ingest is None else ingest_status(of.ingest)
        running_map = map_status(of.reloader)
        problems = list(problems_of(states, upkeep, ingest, running_map, now_ms))
        notices = list(notices_of(ingest))
        well, text = verdict(connections, journal, states, problems, notices, now_ms)
        address_map = of.reloader.running
        return AgentStatus(
            agent={
                "id": of.agent_id,
                "version": __version__,
                "now_ms": now_ms,
                "uptime_s": self._monotonic() - self._started_at,
                "layout": of.polls.layout,
                "map": str(address_map.path),
                "map_sha256": address_map.sha256,
                "tags": len(address_map.tags),
                "disabled_tags": address_map.disabled,
                "restarts": of.restarts,
            },
            verdict=text.english,
            verdict_ko=text.korean,
            well=well,
            devices=list(self.devices()) if devices else [],
            connections=connections,
            ingest=ingest,
            map=running_map,
            journal=journal,
            sinks=states,
            upkeep=upkeep,
            problems=[problem.english for problem in problems],
            problems_ko=[problem.korean for problem in problems],
            notices=[notice.english for notice in notices],
            notices_ko=[notice.korean for notice in notices],
        )

    def devices(self) -> Iterator[DeviceStatus]:
        """Every device with the newest value of its tags, made one at a time."""
        return devices_of(self._machinery.polls.all)

    async def live(self) -> LiveValues:
        """The newest values of all tags, and whether all is well."""
        status = await self.status(devices=False)
        polls = self._machinery.polls
        values, ts_ms, qualities = columns_of(polls.all)
        return LiveValues(
            layout=polls.layout,
            now_ms=self._now_ms(),
            well=status["well"],
            verdict=status["verdict"],
            verdict_ko=status["verdict_ko"],
            values=values,
            ts_ms=ts_ms,
            qualities=qualities,
        )

    async def losses(self) -> list[Loss]:
        """The losses noted last.

        Raises ``JournalError`` if the ledger can't be read, ``TransientError`` if not now.
        """
        newest = await self._machinery.journal.newest_losses(LOSSES_SHOWN_MAX)
        return [loss(*found) for found in newest]

    def frames(self, word: str) -> list[BlockFrames]:
        """The traffic of what a word names; empty if the running map has no such thing."""
        return frames_of(self._machinery.polls.all, word)

    async def metrics(self) -> bytes:
        """The text that Prometheus scrapes."""
        status = await self.status(devices=False)
        return exposition(status, self._machinery.polls.all, self._machinery.runners)
