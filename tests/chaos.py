"""A TCP proxy that spoils what passes through it, on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from typing import Final, Self

from tests.servers import free_port

CHUNK_BYTES_MAX: Final = 65_536


class End(Enum):
    """Ends the connection."""

    CUT = "cut"


CUT: Final = End.CUT

Pause = float | asyncio.Event
"""So many seconds, or until somebody sets it."""

Step = bytes | Pause | End
"""What to do instead of passing on: send these bytes, pause, cut."""

Spoil = Callable[[bytes], Sequence[Step]]
"""What becomes of a chunk that the server sent. With one request at a time a chunk is a reply."""


def passing(chunk: bytes) -> Sequence[Step]:
    """No fault."""
    return [chunk]


def mute(chunk: bytes) -> Sequence[Step]:
    """The server seems to say nothing."""
    return []


def late(pause: Pause) -> Spoil:
    """Whole replies, after a pause. What follows waits behind them."""
    return lambda chunk: [pause, chunk]


def halves(at: int, pause: Pause) -> Spoil:
    """The first ``at`` bytes, a pause, the rest."""
    return lambda chunk: [chunk[:at], pause, chunk[at:]]


def cut_after(count: int) -> Spoil:
    """The first ``count`` bytes of a reply, then the connection is gone."""
    return lambda chunk: [chunk[:count], CUT]


def replacing(start: int, new: bytes) -> Spoil:
    """Bytes overwritten from ``start`` on."""
    return lambda chunk: [chunk[:start] + new + chunk[start + len(new) :]]


def saying(data: bytes) -> Spoil:
    """Something else instead of the reply."""
    return lambda chunk: [data]


def once(spoil: Spoil) -> Spoil:
    """Spoil the first chunk, pass the others."""
    left = [spoil]
    return lambda chunk: left.pop()(chunk) if left else passing(chunk)


class Proxy:
    """Forwards every loopback connection to ``upstream_port``; ``spoil`` may change at any time."""

    def __init__(self, upstream_port: int) -> None:
        self.port = free_port()
        self.spoil: Spoil = passing
        self.connections = 0
        self._upstream_port = upstream_port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self) -> None:
        """Listen, again too."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)

    async def refuse(self) -> None:
        """Refuse new connections and cut those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        await asyncio.sleep(0)

    def cut(self) -> None:
        """Reset every open connection now."""
        for writer in self._open:
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            with suppress(OSError):
                up_reader, up_writer = await asyncio.open_connection(
                    "127.0.0.1", self._upstream_port
                )
                self._open.add(up_writer)
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._pump(reader, up_writer, passing))
                        group.create_task(self._pump(up_reader, writer, self._spoil))
                finally:
                    self._open.discard(up_writer)
                    up_writer.transport.abort()
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    def _spoil(self, chunk: bytes) -> Sequence[Step]:
        return self.spoil(chunk)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, spoil: Spoil
    ) -> None:
        """Pass chunks on until one side ends; then end the other."""
        with suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES_MAX):
                for step in spoil(chunk):
                    if isinstance(step, float):
                        await asyncio.sleep(step)
                    elif isinstance(step, asyncio.Event):
                        await step.wait()
                    elif isinstance(step, bytes):
                        writer.write(step)
                        await writer.drain()
                    else:
                        writer.transport.close()
                        return
        writer.transport.close()
