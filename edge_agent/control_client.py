"""How commands and the dashboard reach a running agent's control interface (control.py)."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import orjson

from edge_agent.errors import ConfigError, EdgeAgentError, TransientError

SOCKET: Final = "control.sock"
TIMEOUT_S: Final = 30.0
"""A map of 10,000 rows is checked and applied within two seconds, on a Pi within some."""
PATH_BYTES_MAX: Final = 100
"""A socket's address takes 108 bytes."""


class RefusedMapError(ConfigError):
    """The agent does not take a map; ``problems`` are those of its rows, as plain data.

    Of many problems the agent tells the first ones; ``count`` is that of all.
    """

    def __init__(
        self, message: str, problems: list[dict[str, Any]], *, count: int = 0, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems
        self.count = count or len(problems)


class ControlClient:
    """Asks the agent of a data folder, one request at a time."""

    def __init__(self, data_dir: Path, *, author: str = "") -> None:
        self._path = data_dir / SOCKET
        self._headers = {"X-Author": quote(author)} if author else {}

    def get(self, route: str) -> dict[str, Any]:
        """Plain data. Raises as `_ask`."""
        return _data(self._ask("GET", route))

    def get_bytes(self, route: str) -> bytes:
        """A file. Raises as `_ask`."""
        return self._ask("GET", route)

    def post(
        self,
        route: str,
        body: bytes | bytearray = b"",
        *,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Have something done. Raises as `_ask`."""
        return _data(self._ask("POST", route, body, headers))

    def _ask(
        self,
        method: str,
        route: str,
        body: bytes | bytearray = b"",
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Raises ``TransientError`` if nobody answers, ``ConfigError`` for what is refused."""
        connection = _Connection(self._path)
        try:
            connection.request(method, route, body, self._headers | dict(headers or {}))
            reply = connection.getresponse()
            text = reply.read()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise TransientError(
                f"no agent runs on {self._path.parent}",
                hint="start it, or name its data folder with --data-dir",
            ) from error
        except PermissionError as error:
            raise ConfigError(
                f"{self._path}: {error.strerror}", hint="only the agent's user and group may"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise TransientError(f"the agent did not answer: {reason}") from error
        finally:
            connection.close()
        if reply.status >= 400:
            raise _refusal(reply.status, text)
        return text


def _refusal(status: int, text: bytes) -> EdgeAgentError:
    try:
        found = _data(text)
    except TransientError:
        found = {}
    message = str(found.get("error", f"the agent answered with code {status}"))
    hint = str(found.get("hint", ""))
    if status >= 500:
        return TransientError(message, hint=hint)
    problems, count = found.get("problems", []), int(found.get("count", 0))
    return RefusedMapError(message, problems, count=count, hint=hint)


def _data(text: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise TransientError("the agent's answer is not JSON") from error
    if not isinstance(found, dict):
        raise TransientError("the agent's answer is not an object")
    return found


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """A socket's path as the kernel takes it, however long it is."""
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class _Connection(http.client.HTTPConnection):
    """HTTP through a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        with reachable(self._path) as path:
            self.sock.connect(path)
