"""The agent: every part wired together in one TaskGroup, started and ended in order.

Start: journal (nothing can be taken without it), sinks, pollers, HTTP.
Another map: pollers change over, everything behind the journal goes on (reload/).
End: pollers finish their running scans, the journal commits, sinks deliver what is left for at
most `shutdown_timeout_s`, the journal closes. Killed at any point of this: see the journal.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_agent import __version__, protocols, sinks
from edge_agent.address_map import AddressMap
from edge_agent.control import ControlServer
from edge_agent.journal import Journal, Policy
from edge_agent.journal.file import epoch_ms
from edge_agent.notify import Notifier
from edge_agent.pipeline.delivery import DeliveryRunner
from edge_agent.pipeline.device_reporter import DeviceReporter
from edge_agent.pipeline.gap_book import GAPS_FILE, GapBook
from edge_agent.pipeline.ingested import INGESTED_FILE, Ingested, Unpublished
from edge_agent.pipeline.map_recorder import MapRecorder
from edge_agent.pipeline.poller import ConnectionPoller
from edge_agent.pipeline.pollers import Pollers
from edge_agent.pipeline.told_devices import DEVICES_FILE, ToldDevices
from edge_agent.pipeline.upkeep import UpkeepRunner
from edge_agent.planner import Connection, plan
from edge_agent.reload.map_versions import MapVersions
from edge_agent.reload.reloader import Reloader
from edge_agent.settings import Settings
from edge_agent.startup import open_journal
from edge_agent.status.figures import (
    AgentStatus,
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
from edge_agent.status.http_server import HttpServer
from edge_agent.status.verdict import notices_of, problems_of, verdict
from edge_agent.supervisor import supervise
from edge_agent.text.counts import counted

if TYPE_CHECKING:
    from edge_agent.pipeline.ingest import Ingest

log = logging.getLogger(__name__)

JOURNAL_FILE = "journal.db"
LOSSES_SHOWN_MAX = 100
"""Rows of the loss ledger that `/losses` tells; `edge-agent journal export ledger` has all."""
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
        self.reloader = Reloader(
            address_map,
            MapVersions(settings.agent.data_dir),
            self._apply,
            now_ms=now_ms,
            monotonic=monotonic,
        )
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
        self.runners: list[DeliveryRunner] = []
        self.chores: list[UpkeepRunner] = []
        self.reporters: list[DeviceReporter] = []
        self.ingest: Ingest | None = None
        self.restarts = 0
        """Tasks that ended with an error nobody expected, and were started again."""
        self.last_status: AgentStatus | None = None
        """The status at the end of `run`, when every acknowledgement is written."""
        self._notifier = Notifier(os.environ)
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._started_at = monotonic()
        self._stopping = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._gap_book = GapBook(settings.agent.data_dir / GAPS_FILE)
        self._polls = Pollers(self._make_poller, self._start)

    @property
    def address_map(self) -> AddressMap:
        """The running one."""
        return self.reloader.running

    @property
    def pollers(self) -> Sequence[ConnectionPoller]:
        """In the running map's order."""
        return self._polls.all

    @property
    def layout(self) -> str:
        """Names the order of tags among `pollers`; another order has another name."""
        return self._polls.layout

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
            loop.add_signal_handler(signal.SIGHUP, self.reloader.look)
        names = [target.sink.name for target in self.destinations]
        if not await open_journal(self.journal, names, self._notifier, self._stopping):
            return
        try:
            self.ingested.load()
            self.ingested.note_polled()
            self.reloader.start()
            await self._run_tasks()
            await self.journal.flush()
            self.last_status = await self.status(devices=False)
        finally:
            await self.journal.close()

    async def _run_tasks(self) -> None:
        self._make_parts()
        async with self._group:
            committer = self._start("journal", self.journal.run)
            deliveries = [
                self._start(f"{runner.sink.name}.deliver", runner.run) for runner in self.runners
            ]
            self._polls.begin(plan(self.address_map.tags, protocols.load))
            chores = [self._start(f"{chore.name}.upkeep", chore.run) for chore in self.chores]
            chores += [self._start("devices.tell", reporter.run) for reporter in self.reporters]
            chores += [
                self._start("map.record", recorder.run) for recorder in self._map_recorders()
            ]
            takers = [self._start(ingest.name, ingest.run) for ingest in self._ingests()]
            chores.append(self._start("watchdog", self._watch))
            watch = self._start("map.watch", self.reloader.run)
            # Last, so that nobody is told of an agent that is not whole, or asks it for a map.
            http = HttpServer(self, self.settings.agent.http_address)
            async with http, ControlServer(self.reloader, self.settings):
                self._notifier.ready(self._extent)
                log.info(
                    "running: %s to %s",
                    self._extent,
                    ", ".join(runner.sink.name for runner in self.runners) or "no sink",
                )
                await self._stopping.wait()
                await self._end(watch, takers)
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
        self.ingest = self._make_ingest()
        self.reporters = [
            DeviceReporter(
                lambda: self.pollers,
                lambda: self.layout,
                target.teller,
                ToldDevices(self.settings.agent.data_dir / DEVICES_FILE),
                now_ms=self._now_ms,
            )
            for target in self.destinations
            if target.teller is not None
        ]

    def _map_recorders(self) -> list[MapRecorder]:
        versions, data_dir = self.reloader.versions, self.settings.agent.data_dir
        return [
            MapRecorder(versions, target.record_map, data_dir, lambda: self.address_map)
            for target in self.destinations
            if target.record_map is not None
        ]

    def _make_poller(self, connection: Connection, phase: float) -> ConnectionPoller:
        return ConnectionPoller(
            connection,
            protocols.load(connection.protocol),
            self.journal,
            phase=phase,
            now_ms=self._now_ms,
            monotonic=self._monotonic,
            gap_book=self._gap_book,
        )

    async def _apply(self, address_map: AddressMap, connections: Sequence[Connection]) -> None:
        """Make another map the running one."""
        keys = {tag.key for tag in address_map.tags}
        self.polled |= keys  # before the first sample of a new tag, until the last of an old one
        await asyncio.to_thread(self.ingested.note_polled)
        self._look_again()
        found = await self._polls.change(connections)
        self.polled &= keys
        self._look_again()
        log.info(
            "connections: %d untouched, %d changed, %d new, %d ended",
            *map(len, (found.kept, found.changed, found.begun, found.ended)),
        )

    def _look_again(self) -> None:
        for target in self.destinations:
            if isinstance(target.sink, Unpublished):
                target.sink.look_again()

    @property
    def _extent(self) -> str:
        tags, conns = len(self.address_map.tags), len(self.pollers)
        return f"{counted(tags, 'tag')} on {counted(conns, 'connection')}"

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

    async def _end(self, watch: asyncio.Task[None], takers: Sequence[asyncio.Task[None]]) -> None:
        """Finish scans, commit, and deliver what is left as long as it may take."""
        self._notifier.stopping()
        self.reloader.end()
        watch.cancel()
        deadline = self._monotonic() + self.settings.agent.shutdown_timeout_s
        log.info("stopping: finishing scans and deliveries")
        for ingest in self._ingests():
            ingest.stop()
        await self._polls.end(takers)
        await self.journal.flush()
        for runner in self.runners:
            runner.drain()
        for runner in self.runners:
            if not await runner.drained(deadline - self._monotonic()):
                log.warning("%s: stops with samples left in the journal", runner.sink.name)

    # -- supervision ----------------------------------------------------------------------------

    def _start(
        self, name: str, run: Callable[[], Coroutine[object, object, None]]
    ) -> asyncio.Task[None]:
        return self._group.create_task(supervise(name, run, self._count_restart), name=name)

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
        running_map = map_status(self.reloader)
        problems = list(problems_of(states, upkeep, ingest, running_map, now_ms))
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
            map=running_map,
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
        """The losses noted last.

        Raises ``JournalError`` if the ledger can't be read, ``TransientError`` if not now.
        """
        return [loss(*found) for found in await self.journal.newest_losses(LOSSES_SHOWN_MAX)]
