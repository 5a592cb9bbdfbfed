"""The parts behind the pages: histories, the agent, one hub for each source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from dashboard.data.base import History
from dashboard.data.store import StoreHistory
from dashboard.korean import with_korean_throughout
from dashboard.live.feed import AgentFeed, Client, Feed, HistoryFeed
from dashboard.live.hub import Hub
from dashboard.maps import Maps
from edge_agent.errors import ConfigError, TransientError
from edge_agent.settings import Settings
from edge_agent.supervisor import supervise

SYSTEM_KEPT_S = 1.0
"""All browsers that look at the system page within this time get the same answer."""


class Services:
    """Made from settings; `run` keeps the hubs going. Raises ``ConfigError`` for wrong settings."""

    def __init__(self, settings: Settings) -> None:
        self.default = settings.dashboard.source
        self.histories = _histories(settings)
        self.agent = Client(
            "agent",
            settings.dashboard.agent_address(settings.agent),
            "systemctl status edge-agent; dashboard.agent_url says where to ask",
        )
        self.remote = _remote_client(settings)
        self.maps = Maps(settings.agent.data_dir)
        self._cards_file = settings.dashboard.cards_file
        self._hubs: dict[str, Hub] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._system: dict[str, asyncio.Task[dict[str, Any]]] = {}

    def history(self, source: str) -> History:
        """A source by name. Raises ``ConfigError`` for one that is not set."""
        found = self.histories.get(source)
        if found is None:
            raise ConfigError(f"source {source}: allowed: {', '.join(self.histories)}")
        return found

    def hub(self, source: str) -> Hub:
        """The live values of a source; its hub is started when it is first asked for."""
        history = self.history(source)
        if source not in self._hubs:
            assert self._tasks is not None, "run() was not entered"
            feed: Feed
            feed = HistoryFeed(history) if source == "remote" else AgentFeed(self.agent)
            if self._cards_file is not None:
                # A YAML parser only where there is such a file.
                from dashboard.live.cards import ArrangedFeed

                feed = ArrangedFeed(feed, self._cards_file)
            hub = self._hubs[source] = Hub(feed, history, list(self.histories))
            name = f"dashboard.hub.{source}"
            self._tasks.create_task(supervise(name, hub.run), name=name)
        return self._hubs[source]

    async def run(self, started: Callable[[], None]) -> None:
        """Look at the default source for ever; cancelled at the end."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self.hub(self.default)
                started()
        finally:
            for client in (self.agent, self.remote):
                if client is not None:
                    await client.close()
            for history in self.histories.values():
                await history.close()

    async def system(self, source: str) -> dict[str, Any]:
        """What agent, replication and a source say of themselves; what is away says why."""
        history = self.history(source)
        task = self._system.get(source)
        if task is None or (task.done() and _age_s(task) > SYSTEM_KEPT_S):
            task = asyncio.create_task(self._look_at_system(history), name="dashboard.system")
            self._system[source] = task
        return await asyncio.shield(task)

    async def _look_at_system(self, history: History) -> dict[str, Any]:
        agent, losses, replication, health = await asyncio.gather(
            _told(self.agent.get("/status?devices=0")),
            _told(self.agent.get("/losses")),
            _told(self.remote.get("/status")) if self.remote else _nothing(),
            _told(_health(history)),
        )
        told = {"agent": agent, "losses": losses, "replication": replication, "health": health}
        return {
            "at_s": asyncio.get_running_loop().time(),
            "source": history.name,
            **{name: with_korean_throughout(answer) for name, answer in told.items()},
        }


def _histories(settings: Settings) -> dict[str, History]:
    """Every source that is set, the default one first."""
    dashboard = settings.dashboard
    found: dict[str, History] = {}
    for name, dsn in (("edge", dashboard.edge_dsn), ("remote", dashboard.remote_dsn)):
        if dsn is not None:
            # A database driver only where there is a database.
            from dashboard.data.postgres import PostgresHistory

            found[name] = PostgresHistory(name, dsn.get_secret_value())
    if settings.store_enabled or dashboard.source == "store":
        found["store"] = StoreHistory(settings.agent.store_path)
    if dashboard.source not in found:
        raise ConfigError(
            f"dashboard.source is {dashboard.source}, but dashboard.{dashboard.source}_dsn"
            " is not set"
        )
    return {dashboard.source: found.pop(dashboard.source), **found}


def _remote_client(settings: Settings) -> Client | None:
    """`edge-remote serve`, where replication is set up."""
    address = settings.remote.http_address
    if settings.remote.edge_dsn is None or address is None:
        return None
    host, port = address
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    return Client("edge-remote", url, "systemctl status edge-remote; remote.http says where to ask")


async def _health(history: History) -> dict[str, Any]:
    return {"checks": [check._asdict() for check in await history.health()]}


async def _told(answer: Any) -> Mapping[str, Any]:
    """An answer, or why there is none."""
    try:
        told: Mapping[str, Any] = await answer
    except TransientError as error:
        return {"error": str(error), "hint": error.hint}
    return told


async def _nothing() -> None:
    return None


def _age_s(task: asyncio.Task[dict[str, Any]]) -> float:
    """How old an answer is; one that failed or was cancelled is as old as can be."""
    if task.cancelled() or task.exception() is not None:
        return float("inf")
    return asyncio.get_running_loop().time() - float(task.result()["at_s"])
