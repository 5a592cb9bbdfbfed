"""`edge-remote serve`: the remote's upkeep, and how replication stands, for machines.

A remote has no agent, so this does there what the agent does at the edge: each minute it rolls
up, makes partitions ahead and drops what is old. `/metrics` tells the newest look at both ends
(Prometheus), `/status` tells it as JSON, `/healthz` whether this process still works. An end that
is away is reported and waited for.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import orjson
from aiohttp import web

from edge_agent.errors import ConfigError, TransientError
from edge_agent.notify import Notifier
from edge_agent.postgres.database import Upkeep
from edge_agent.settings import Settings
from edge_agent.web import json_response, metrics_response, served
from remote.ends import address
from remote.exposition import exposition
from remote.state import ReplicationStatus, look

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 15.0
"""Prometheus asks as often as a rule."""
UPKEEP_INTERVAL_S = 60.0
"""plc_1m grows by the minute."""
ROUND_TIMEOUT_S = 300.0
"""A round of upkeep ends within three minutes, a look within one; longer than this it hangs."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--http",
        metavar="HOST:PORT",
        help='remote.http: where it answers about itself; "" for nowhere',
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT."""
    if options.dry_run:
        raise ConfigError("serve has no --dry-run", hint="`edge-remote status` only looks")
    return asyncio.run(Service(settings).run())


@dataclass(slots=True)
class Chore:
    """Something done again and again. ``moved_s`` is when it last began or ended, monotonic."""

    name: str
    interval_s: float
    work: Callable[[], Awaitable[None]]
    moved_s: float
    failures: int = 0
    failing_since_s: float | None = field(default=None)


class Service:
    """The two chores and the HTTP server. Raises ``ConfigError`` for a wrong dsn."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._ended = asyncio.Event()
        self._notifier = Notifier(os.environ)
        address(settings, "edge")
        self._upkeep = Upkeep(
            agent_id=f"edge-remote {settings.remote.name}",
            dsn=address(settings, "remote").reveal(),
        )
        self.status: ReplicationStatus | None = None
        self.upkeep_minutes_left: int | None = None
        now = monotonic()
        self.chores = (
            Chore("look", LOOK_INTERVAL_S, self._look, now),
            Chore("upkeep", UPKEEP_INTERVAL_S, self._do_upkeep, now),
        )

    async def run(self) -> int:
        """Until a signal comes; returns the exit code."""
        loop = asyncio.get_running_loop()
        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, self._ended.set)
        async with self._serving(), asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._repeat(chore), name=f"remote.{chore.name}")
                for chore in self.chores
            ]
            tasks.append(group.create_task(self._watchdog(), name="remote.watchdog"))
            self._notifier.ready()
            await self._ended.wait()
            self._notifier.stopping()
            for task in tasks:
                task.cancel()
        return 0

    def stalled(self) -> list[str]:
        """Chores that hang."""
        now = self._monotonic()
        return [
            chore.name
            for chore in self.chores
            if now - chore.moved_s > ROUND_TIMEOUT_S + chore.interval_s
        ]

    async def _repeat(self, chore: Chore) -> None:
        while True:
            started = chore.moved_s = self._monotonic()
            try:
                async with asyncio.timeout(ROUND_TIMEOUT_S):
                    await chore.work()
            except (TransientError, TimeoutError) as error:
                self._failed(chore, str(error) or f"not done within {ROUND_TIMEOUT_S:g} s")
            else:
                self._succeeded(chore)
            chore.moved_s = self._monotonic()
            await asyncio.sleep(max(0.0, started + chore.interval_s - chore.moved_s))

    def _failed(self, chore: Chore, text: str) -> None:
        chore.failures += 1
        level = logging.DEBUG
        if chore.failing_since_s is None:
            chore.failing_since_s, level = self._monotonic(), logging.WARNING
        log.log(level, "%s failed: %s", chore.name, text)

    def _succeeded(self, chore: Chore) -> None:
        if chore.failing_since_s is not None:
            log.info(
                "%s works again after %.0f s", chore.name, self._monotonic() - chore.failing_since_s
            )
            chore.failing_since_s = None

    async def _look(self) -> None:
        before = set(self.status.problems) if self.status else set()
        self.status = await look(self._settings)
        problems = set(self.status.problems)
        if problems and not before:
            for problem in self.status.problems:
                log.warning("%s", problem)
        elif before and not problems:
            log.info("all problems are gone")
        self._notifier.status(
            f"{len(problems)} problems" if problems else f"lag {self.status.lag_s or 0:.1f} s"
        )

    async def _do_upkeep(self) -> None:
        self.upkeep_minutes_left = (await self._upkeep.run()).minutes_left

    async def _watchdog(self) -> None:
        interval_s = self._notifier.watchdog_interval_s
        while interval_s is not None:
            if not self.stalled():
                self._notifier.watchdog()
            await asyncio.sleep(interval_s)

    def _serving(self) -> AbstractAsyncContextManager[None]:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", self._metrics)
        return served(app, self._settings.remote.http_address, "remote.http")

    async def _healthz(self, _: web.Request) -> web.Response:
        """200 while both chores move."""
        stalled = self.stalled()
        return json_response({"healthy": not stalled, "stalled": stalled}, 503 if stalled else 200)

    async def _status(self, _: web.Request) -> web.Response:
        """The newest look, as `edge-remote status --json` prints one; 503 before the first."""
        if self.status is None:
            return json_response({"error": "both ends were not looked at yet"}, 503)
        body = orjson.dumps(self.status, option=orjson.OPT_UTC_Z)
        return web.Response(body=body, content_type="application/json")

    async def _metrics(self, _: web.Request) -> web.Response:
        failures = {chore.name: chore.failures for chore in self.chores}
        return metrics_response(exposition(self.status, failures, self.upkeep_minutes_left))
