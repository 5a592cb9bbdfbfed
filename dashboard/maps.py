"""The address map, as the agent's control interface tells it and takes another one.

The interface is a Unix socket in the agent's data folder: whoever may write that socket may change
the map, so the dashboard needs the agent's user or group. A thread of its own asks, one request
after the other: planning a large map takes seconds, and live values must not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from edge_agent.control_client import ControlClient, RefusedMapError
from edge_agent.errors import ConfigError, TransientError

LISTED_MAX: Final = 200
"""Rows of each kind that a plan names; of more than that nobody reads a list in a browser."""

HINT_AWAY: Final = (
    "systemctl status edge-agent; the dashboard must run on the agent's machine and be told the"
    " same data folder (agent.data_dir, --data-dir)"
)
HINT_FORBIDDEN: Final = (
    "systemctl status edge-dashboard; it must run as the agent's user, or in its group"
)

T = TypeVar("T")


class Maps:
    """Asks the agent of a data folder.

    Every method raises ``TransientError`` if the agent is away or its socket may not be used, and
    ``RefusedMapError`` for what it refuses.
    """

    def __init__(
        self, data_dir: Path, client: Callable[..., ControlClient] = ControlClient
    ) -> None:
        self._data_dir = data_dir.absolute()  # Reflex changes the working folder
        self._client = client
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dashboard.map")
        self.uploading = asyncio.Lock()
        """Held while a map is received and handed on: only one is in memory at a time."""

    async def state(self, known: int | None = None) -> dict[str, Any]:
        """The running map and why the file is not it; its ``versions``, newest first.

        ``versions`` is None if the newest one is ``known``.
        """
        found = await self._ask(lambda client: client.get("/map"))
        versions = found["versions"][::-1]
        is_known = known is not None and bool(versions) and versions[0]["version"] == known
        return {**found, "versions": None if is_known else versions}

    async def file(self, number: int | None = None) -> tuple[str, bytes]:
        """A name for it and the bytes of a version's file, or of the running map's."""

        def read(client: ControlClient) -> tuple[str, bytes]:
            route = "/map/file" if number is None else f"/map/versions/{number}"
            data = client.get_bytes(route)
            return file_name(client.get("/map")["path"], number, data), data

        return await self._ask(read)

    async def plan(self, data: bytes | bytearray) -> dict[str, Any]:
        """What a map would change, in short (`in_short`)."""
        return in_short(await self._ask(lambda client: client.post("/map/plan", data)))

    async def plan_version(self, number: int) -> dict[str, Any]:
        """The same for an older version."""

        def ask(client: ControlClient) -> dict[str, Any]:
            return client.post("/map/plan", client.get_bytes(f"/map/versions/{number}"))

        return in_short(await self._ask(ask))

    async def apply(self, data: bytes | bytearray, over: str, author: str) -> dict[str, Any]:
        """Make a map the running one, if the running one has the hash ``over``."""
        headers = {"If-Match": over}
        return await self._ask(lambda client: client.post("/map", data, headers=headers), author)

    async def go_back(self, number: int, over: str, author: str) -> dict[str, Any]:
        """The same with an older version."""
        headers, route = {"If-Match": over}, f"/map/rollback/{number}"
        return await self._ask(lambda client: client.post(route, headers=headers), author)

    async def _ask(self, ask: Callable[[ControlClient], T], author: str = "") -> T:
        client = self._client(self._data_dir, author=author)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, ask, client)
        except RefusedMapError:
            raise
        except ConfigError as error:  # the socket is there, and not for us
            raise TransientError(str(error), hint=HINT_FORBIDDEN) from error
        except TransientError as error:
            away = str(error).startswith("no agent runs on")
            raise TransientError(str(error), hint=HINT_AWAY if away else error.hint) from error


def in_short(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan of the agent (edge_agent/reload/preview.py) with lists of at most ``LISTED_MAX`` rows.

    Each list becomes ``{"count": ..., "first": [...]}``.
    """
    groups = {name: _listed(plan[name]) for name in ("rows", "connections")}
    lists = ("series_begun", "series_ended")
    return {**plan, **groups, **{name: _first(plan[name]) for name in lists}}


def _listed(lists: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    return {name: _first(rows) for name, rows in lists.items()}


def _first(rows: Sequence[Any]) -> dict[str, Any]:
    return {"count": len(rows), "first": list(rows[:LISTED_MAX])}


def file_name(path: str, number: int | None, data: bytes) -> str:
    """What a browser saves a map as: `address_map.csv`, `address_map-3.xlsx`."""
    suffix = ".xlsx" if data.startswith(b"PK") else ".csv"
    version = "" if number is None else f"-{number}"
    return f"{Path(path).stem}{version}{suffix}"
