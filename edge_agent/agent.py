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

from edge_agent import protocols, sinks
from edge_agent.address_map import AddressMap
from edge_agent.clock import epoch_ms
from edge_agent.control import ControlServer
from edge_agent.journal import Journal, Policy
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
from edge_agent.status.figures import AgentStatus
from edge_agent.status.http_server import HttpServer
from edge_agent.status.report import Machinery, Report
from edge_agent.supervisor import supervise
from edge_agent.text.counts import counted

if TYPE_CHECKING:
    from edge_agent.pipeline.ingest import Ingest

log = logging.getLogger(__name__)

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
        self.ingested = Ingested(
            settings.agent.data_dir / INGESTED_FILE, (tag.key for tag in address_map.tags)
        )
        self.destinations = [
            replace(target, sink=Unpublished(target.sink, self.ingested))
            if target.has_ingested
            else target
            for target in sinks.configured(settings)
        ]
        self.journal = Journal(
            settings.agent.journal_path,
            bytes_max=settings.journal.bytes_max,
            policy=Policy(settings.journal.policy),
            commit_interval_s=settings.agent.commit_interval_ms / 1000,
            now_ms=now_ms,
        )
        self.machinery = Machinery(
            settings.agent.id,
            self.reloader,
            self.journal,
            Pollers(self._make_poller, self._start),
        )
        self.report = Report(self.machinery, now_ms=now_ms, monotonic=monotonic)
        self.last_status: AgentStatus | None = None
        """The status at the end of `run`, when every acknowledgement is written."""
        self._notifier = Notifier(os.environ)
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._stopping = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._gap_book = GapBook(settings.agent.data_dir / GAPS_FILE)
        self._reporters: list[DeviceReporter] = []
        self._recorders: list[MapRecorder] = []

    @property
    def address_map(self) -> AddressMap:
        """The running one."""
        return self.reloader.running

    @property
    def pollers(self) -> Sequence[ConnectionPoller]:
        """In the running map's order."""
        return self.machinery.polls.all

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
            self.ingested.continue_in(self.journal.journal_id, self.journal.next_sequence)
            self.ingested.note_polled()
            self.reloader.start()
            await self._run_tasks()
            await self.journal.flush()
            self.last_status = await self.report.status(devices=False)
        finally:
            await self.journal.close()

    async def _run_tasks(self) -> None:
        self._assemble()
        machinery = self.machinery
        async with self._group:
            committer = self._start("journal", self.journal.run)
            deliveries = [
                self._start(f"{runner.sink.name}.deliver", runner.run)
                for runner in machinery.runners
            ]
            machinery.polls.begin(plan(self.address_map.tags, protocols.load))
            helpers = [self._start(f"{one.name}.upkeep", one.run) for one in machinery.upkeeps]
            helpers += [self._start("devices.tell", one.run) for one in self._reporters]
            helpers += [self._start("map.record", one.run) for one in self._recorders]
            takers = [self._start(ingest.name, ingest.run) for ingest in self._ingests()]
            helpers.append(self._start("watchdog", self._feed_watchdog))
            map_watch = self._start("map.watch", self.reloader.run)
            # Last, so that nobody is told of an agent that is not whole, or asks it for a map.
            http = HttpServer(self.report, self.stalled, self.settings.agent.http_address)
            control = ControlServer(self.reloader, self.settings)
            async with http.serving(), control.serving():
                self._notifier.ready(self._extent)
                log.info(
                    "running: %s to %s",
                    self._extent,
                    ", ".join(runner.sink.name for runner in machinery.runners) or "no sink",
                )
                await self._stopping.wait()
                await self._end(map_watch, takers)
                for task in (*helpers, *deliveries, committer):
                    task.cancel()

    def _assemble(self) -> None:
        """Make what runs beside the pollers."""
        data_dir = self.settings.agent.data_dir
        self.machinery.runners = [
            DeliveryRunner(
                target.sink,
                self.journal,
                agent_id=self.settings.agent.id,
                pace=target.pace,
                now_ms=self._now_ms,
                keeper=target.keeper,
            )
            for target in self.destinations
        ]
        self.machinery.upkeeps = [
            UpkeepRunner(
                target.sink.name,
                target.upkeep,
                interval_s=target.upkeep_interval_s,
                monotonic=self._monotonic,
            )
            for target in self.destinations
            if target.upkeep is not None
        ]
        self.machinery.ingest = self._make_ingest()
        self._reporters = [
            DeviceReporter(
                lambda: self.pollers,
                lambda: self.machinery.polls.layout,
                target.teller,
                ToldDevices(data_dir / DEVICES_FILE),
                now_ms=self._now_ms,
            )
            for target in self.destinations
            if target.teller is not None
        ]
        versions = self.reloader.versions
        self._recorders = [
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
        self.ingested.polls(keys)
        await asyncio.to_thread(self.ingested.note_polled)
        found = await self.machinery.polls.change(connections)
        self.ingested.polls_only(keys)
        log.info(
            "connections: %d untouched, %d changed, %d new, %d ended",
            *map(len, (found.kept, found.changed, found.begun, found.ended)),
        )

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
            now_ms=self._now_ms,
            monotonic=self._monotonic,
        )

    def _ingests(self) -> list[Ingest]:
        return [] if self.machinery.ingest is None else [self.machinery.ingest]

    async def _end(
        self, map_watch: asyncio.Task[None], takers: Sequence[asyncio.Task[None]]
    ) -> None:
        """Finish scans, commit, and deliver what is left as long as it may take."""
        self._notifier.stopping()
        self.reloader.end()
        map_watch.cancel()
        deadline = self._monotonic() + self.settings.agent.shutdown_timeout_s
        log.info("stopping: finishing scans and deliveries")
        for ingest in self._ingests():
            ingest.stop()
        await self.machinery.polls.end(takers)
        await self.journal.flush()
        for runner in self.machinery.runners:
            runner.drain()
        for runner in self.machinery.runners:
            if not await runner.drained(deadline - self._monotonic()):
                log.warning("%s: stops with samples left in the journal", runner.sink.name)

    # -- supervision ----------------------------------------------------------------------------

    def _start(
        self, name: str, run: Callable[[], Coroutine[object, object, None]]
    ) -> asyncio.Task[None]:
        return self._group.create_task(supervise(name, run, self._count_restart), name=name)

    def _count_restart(self) -> None:
        self.machinery.restarts += 1

    async def _feed_watchdog(self) -> None:
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
