"""The agent: every part wired together in one TaskGroup, started and ended in order.

Start: journal (nothing can be taken without it), sinks, pollers, HTTP.
End: pollers finish their running scans, the journal commits, sinks deliver what is left for at
most `shutdown_timeout_s`, the journal closes. Killed at any point of this: see the journal.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_agent import __version__, protocols, sinks
from edge_agent.address_map import AddressMap
from edge_agent.http_server import HttpServer
from edge_agent.journal import Journal, Policy
from edge_agent.journal.file import epoch_ms
from edge_agent.notify import Notifier
from edge_agent.pipeline.delivery import DeliveryRunner
from edge_agent.pipeline.device_reporter import DeviceReporter
from edge_agent.pipeline.gap_book import GAPS_FILE, GapBook
from edge_agent.pipeline.ingested import INGESTED_FILE, Ingested, Unpublished
from edge_agent.pipeline.poller import ConnectionPoller, phases
from edge_agent.pipeline.upkeep import UpkeepRunner
from edge_agent.planner import plan
from edge_agent.settings import Settings
from edge_agent.status import (
    AgentStatus,
    LiveValues,
    Loss,
    columns_of,
    connection_status,
    devices_of,
    ingest_status,
    journal_status,
    loss,
    sink_status,
    upkeep_status,
)
from edge_agent.supervisor import supervise
from edge_agent.verdict import notices_of, problems_of, verdict

if TYPE_CHECKING:
    from edge_agent.pipeline.ingest import Ingest

log = logging.getLogger(__name__)

JOURNAL_FILE = "journal.db"
LOSSES_SHOWN_MAX = 100
"""Rows of the loss ledger that `/losses` tells; `edge-agent journal export ledger` has all."""
SCANS_FINISH_TIMEOUT_S = 5.0
"""For scans that are running at the end; a mute device must not use up the sinks' time."""
STALLED_S = 30.0
"""A poller, ingest or committer that has not moved for so long is stuck: the watchdog is not fed.
The first two have a request's own timeout on top of it."""


class Agent:
    """One address map, one journal, any number of connections and sinks."""

    def __init__(
        self,
        settings: Settings,
        address_map: AddressMap,
        *,
        now_ms: Callable[[], int] = epoch_ms,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.address_map = address_map
        self.polled = {tag.key for tag in address_map.tags}
        self.ingested = Ingested(settings.agent.data_dir / INGESTED_FILE, self.polled)
        self.destinations = [
            replace(target, sink=Unpublished(target.sink, self.ingested))
            if target.has_ingested
            else target
            for target in sinks.configured(settings)
        ]
        self.journal = Journal(
            settings.agent.data_dir / JOURNAL_FILE,
            bytes_max=settings.journal.bytes_max,
            policy=Policy(settings.journal.policy),
            commit_interval_s=settings.agent.commit_interval_ms / 1000,
            now_ms=now_ms,
        )
        self.pollers: list[ConnectionPoller] = []
        self.runners: list[DeliveryRunner] = []
        self.chores: list[UpkeepRunner] = []
        self.reporters: list[DeviceReporter] = []
        self.ingest: Ingest | None = None
        self.layout = ""
        """Names the order of tags among `pollers`; another order has another name."""
        self.restarts = 0
        """Tasks that ended with an error nobody expected, and were started again."""
        self.last_status: AgentStatus | None = None
        """The status at the end of `run`, when every acknowledgement is written."""
        self._notifier = Notifier(os.environ)
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._started_at = monotonic()
        self._stopping = asyncio.Event()

    # -- life -----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask for an orderly end."""
        self._stopping.set()

    async def run(self, *, handle_signals: bool = True) -> None:
        """Run until `stop`, SIGTERM or SIGINT.

        Raises ``ConfigError`` or ``TransientError`` if the journal can't be opened.
        """
        if handle_signals:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
        await self.journal.open([target.sink.name for target in self.destinations])
        try:
            self.ingested.load()
            await self._run_tasks()
            await self.journal.flush()
            self.last_status = await self.status(devices=False)
        finally:
            await self.journal.close()

    async def _run_tasks(self) -> None:
        self._make_parts()
        async with asyncio.TaskGroup() as group, HttpServer(self):
            committer = self._start(group, "journal", self.journal.run)
            deliveries = [
                self._start(group, f"{runner.sink.name}.deliver", runner.run)
                for runner in self.runners
            ]
            polls = [
                self._start(group, f"edge[{poller.name}].poll", poller.run)
                for poller in self.pollers
            ]
            chores = [
                self._start(group, f"{chore.name}.upkeep", chore.run) for chore in self.chores
            ]
            chores += [
                self._start(group, "devices.tell", reporter.run) for reporter in self.reporters
            ]
            takers = [self._start(group, ingest.name, ingest.run) for ingest in self._ingests()]
            chores.append(self._start(group, "watchdog", self._watch))
            self._notifier.ready(f"{len(self.address_map.tags)} tags on {len(polls)} connections")
            log.info(
                "running: %d tags on %d connections to %s",
                len(self.address_map.tags),
                len(polls),
                ", ".join(runner.sink.name for runner in self.runners) or "no sink",
            )
            await self._stopping.wait()
            await self._end([*polls, *takers])
            for task in (*chores, *deliveries, committer):
                task.cancel()

    def _make_parts(self) -> None:
        self.runners = [
            DeliveryRunner(
                target.sink,
                self.journal,
                agent_id=self.settings.agent.id,
                pace=target.pace,
                now_ms=self._now_ms,
            )
            for target in self.destinations
        ]
        self.chores = [
            UpkeepRunner(
                target.sink.name,
                target.upkeep,
                interval_s=target.upkeep_interval_s,
                monotonic=self._monotonic,
            )
            for target in self.destinations
            if target.upkeep is not None
        ]
        connections = plan(self.address_map.tags, protocols.load)
        gap_book = GapBook(self.settings.agent.data_dir / GAPS_FILE)
        self.layout = uuid.uuid4().hex
        self.pollers = [
            ConnectionPoller(
                connection,
                protocols.load(connection.protocol),
                self.journal,
                phase=phase,
                now_ms=self._now_ms,
                monotonic=self._monotonic,
                gap_book=gap_book,
            )
            for connection, phase in zip(connections, phases(len(connections)), strict=True)
        ]
        self.ingest = self._make_ingest()
        self.reporters = [
            DeviceReporter(self.pollers, target.teller, now_ms=self._now_ms)
            for target in self.destinations
            if target.teller is not None
        ]

    def _make_ingest(self) -> Ingest | None:
        """What takes in foreign messages, if the settings ask for it."""
        if self.settings.mqtt.url is None or not self.settings.mqtt.ingest_topics:
            return None
        from edge_agent.pipeline.ingest import from_settings

        return from_settings(
            self.settings.mqtt,
            self.journal,
            self.ingested,
            agent_id=self.settings.agent.id,
            polled=self.polled,
            now_ms=self._now_ms,
            monotonic=self._monotonic,
        )

    def _ingests(self) -> list[Ingest]:
        return [] if self.ingest is None else [self.ingest]

    async def _end(self, polls: Sequence[asyncio.Task[None]]) -> None:
        """Finish scans, commit, and deliver what is left as long as it may take."""
        self._notifier.stopping()
        deadline = self._monotonic() + self.settings.agent.shutdown_timeout_s
        log.info("stopping: finishing scans and deliveries")
        for poller in self.pollers:
            poller.stop()
        for ingest in self._ingests():
            ingest.stop()
        if polls:
            _, late = await asyncio.wait(polls, timeout=SCANS_FINISH_TIMEOUT_S)
            for task in late:
                task.cancel()
        await self.journal.flush()
        for runner in self.runners:
            runner.drain()
        for runner in self.runners:
            if not await runner.drained(deadline - self._monotonic()):
                log.warning("%s: stops with samples left in the journal", runner.sink.name)

    # -- supervision ----------------------------------------------------------------------------

    def _start(
        self,
        group: asyncio.TaskGroup,
        name: str,
        run: Callable[[], Coroutine[object, object, None]],
    ) -> asyncio.Task[None]:
        return group.create_task(supervise(name, run, self._count_restart), name=name)

    def _count_restart(self) -> None:
        self.restarts += 1

    async def _watch(self) -> None:
        """Feed systemd's watchdog, but only while scans and the journal really advance."""
        interval_s = self._notifier.watchdog_interval_s
        if interval_s is None:
            return
        while True:
            stalled = self.stalled()
            if stalled:
                log.error("watchdog not fed: %s", ", ".join(stalled))
            else:
                self._notifier.watchdog()
            await asyncio.sleep(interval_s)

    def stalled(self) -> list[str]:
        """The tasks that should move and do not; empty while all is well."""
        now = self._monotonic()
        sources: list[ConnectionPoller | Ingest] = [*self.pollers, *self._ingests()]
        found = [
            f"{source.name} has not moved for {now - source.beat_at:.0f} s"
            for source in sources
            if not self._stopping.is_set()  # they end before the sinks do
            and now - source.beat_at > STALLED_S + source.timeout_s
        ]
        idle_s = asyncio.get_running_loop().time() - self.journal.beat_at
        if self.journal.beat_at and idle_s > STALLED_S:
            found.append(f"the journal has not moved for {idle_s:.0f} s")
        return found

    # -- books ----------------------------------------------------------------------------------

    async def status(self, *, devices: bool = True) -> AgentStatus:
        """Everything there is to say, as plain data; ``devices`` take most of the room."""
        now_ms = self._now_ms()
        connections = [connection_status(poller) for poller in self.pollers]
        journal = journal_status(self.journal, await self.journal.bytes_used())
        states = [sink_status(runner, self.journal, now_ms) for runner in self.runners]
        upkeep = [upkeep_status(chore) for chore in self.chores]
        ingest = None if self.ingest is None else ingest_status(self.ingest)
        problems = list(problems_of(states, upkeep, ingest, now_ms))
        notices = list(notices_of(ingest))
        well, text = verdict(connections, journal, states, problems, notices, now_ms)
        return AgentStatus(
            agent={
                "id": self.settings.agent.id,
                "version": __version__,
                "now_ms": now_ms,
                "uptime_s": self._monotonic() - self._started_at,
                "layout": self.layout,
                "map": str(self.address_map.path),
                "map_sha256": self.address_map.sha256,
                "tags": len(self.address_map.tags),
                "disabled_tags": self.address_map.disabled,
                "restarts": self.restarts,
            },
            verdict=text,
            well=well,
            devices=list(devices_of(self.pollers)) if devices else [],
            connections=connections,
            ingest=ingest,
            journal=journal,
            sinks=states,
            upkeep=upkeep,
            problems=problems,
            notices=notices,
        )

    async def live(self) -> LiveValues:
        """The newest values of all tags, and whether all is well."""
        status = await self.status(devices=False)
        values, ts_ms, qualities = columns_of(self.pollers)
        return LiveValues(
            layout=self.layout,
            now_ms=self._now_ms(),
            well=status["well"],
            verdict=status["verdict"],
            values=values,
            ts_ms=ts_ms,
            qualities=qualities,
        )

    async def losses(self) -> list[Loss]:
        """The losses noted last. Raises ``JournalError`` if the ledger can't be read."""
        return [loss(*found) for found in await self.journal.newest_losses(LOSSES_SHOWN_MAX)]
