"""Where a look comes from: the agent's HTTP, or the newest samples of a history."""

from __future__ import annotations

import asyncio
import http.client
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson

from dashboard.data.base import History
from dashboard.live.plant import EMPTY, Look, layout_of_status, look_of_newest, look_of_values
from edge_agent.clock import DAY_MS, epoch_ms
from edge_agent.errors import TransientError

TIMEOUT_S = 5.0
"""The agent answers from memory; on a busy Pi with 25,000 tags within a second."""
NEWEST_DAYS = 30
"""A tag without a sample for so long is not shown: it has left the map."""


class Feed(Protocol):
    """Looks at the plant. ``interval_s`` is how often that makes sense."""

    interval_s: float

    async def look(self) -> Look:
        """One look; raises ``TransientError`` while nobody answers."""


class Client:
    """HTTP of a program on this machine or next to it, over one connection that is kept.

    The standard library's client in a thread: another one would be a tenth of this process's
    memory for one request a second.
    """

    def __init__(self, program: str, url: str, hint: str) -> None:
        """``program`` is who should answer at ``url``, ``hint`` what to do if nobody does."""
        self.program = program
        self.url = url.rstrip("/")
        self._hint = hint
        self._parts = urlsplit(self.url)
        self._connection: http.client.HTTPConnection | None = None
        self._busy = asyncio.Lock()

    async def get(self, path: str) -> dict[str, Any]:
        """A JSON answer. Raises ``TransientError``."""
        async with self._busy:
            return await asyncio.to_thread(self._get, path)

    def _get(self, path: str) -> dict[str, Any]:
        connection = self._connection or self._connected()
        try:
            connection.request("GET", f"{self._parts.path}{path}")
            response = connection.getresponse()
            body = response.read()
            answer: dict[str, Any] = orjson.loads(body)
        except (OSError, UnicodeError, http.client.HTTPException, orjson.JSONDecodeError) as error:
            self._disconnect()
            raise TransientError(
                f"no {self.program} answers at {self.url}: {str(error) or type(error).__name__}",
                hint=self._hint,
            ) from error
        if response.status != HTTPStatus.OK:
            raise TransientError(str(answer.get("error") or f"{path} answers {response.status}"))
        return answer

    def _connected(self) -> http.client.HTTPConnection:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(self._parts.hostname or "", self._parts.port, timeout=TIMEOUT_S)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def close(self) -> None:
        """End the connection."""
        async with self._busy:
            self._disconnect()


class AgentFeed:
    """The values that the agent has in memory: new each second, no database involved."""

    interval_s = 1.0

    def __init__(self, client: Client) -> None:
        self._client = client
        self._layout = EMPTY

    async def look(self) -> Look:
        """Values each time; the layout only when the agent has another one."""
        try:
            return await self._look()
        except (KeyError, TypeError, IndexError) as error:
            raise TransientError(
                f"what answers at {self._client.url} is no agent of this version:"
                f" {type(error).__name__} {error}",
                hint="upgrade edge-agent and edge-dashboard together, then restart both",
            ) from error

    async def _look(self) -> Look:
        live = await self._client.get("/values")
        if live["layout"] != self._layout.name:
            status = await self._client.get("/status")
            if status["agent"]["layout"] != live["layout"]:  # it changed between the two
                raise TransientError("the agent takes over another address map")
            self._layout = layout_of_status(status)
        return look_of_values(self._layout, live)


class HistoryFeed:
    """What a history has received: for a remote, where no agent is in reach."""

    interval_s = 5.0

    def __init__(self, history: History) -> None:
        self._history = history

    async def look(self) -> Look:
        """The newest sample of every tag that had one lately."""
        now_ms = epoch_ms()
        newest = await self._history.newest(now_ms - NEWEST_DAYS * DAY_MS)
        return await asyncio.to_thread(look_of_newest, newest, now_ms)
