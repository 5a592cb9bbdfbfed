"""What stands between the clients of a simulated OPC UA server and asyncua's server.

asyncua's server listens on a port of loopback that nobody is told of. The relay listens where the
map says, passes bytes on in both directions, and is where faults of the transport happen: it sees
whole messages, and knows nothing of what they mean but their kind. A listener of our own also makes
a restart exact: asyncua closes its listener last, while clients that come back get in.

A message that is swallowed would leave a hole in the sequence numbers, which a client takes for a
broken connection (Part 6, 6.7.2.4). So those behind it are counted down; without security nothing
else in a message depends on them.

Source: OPC UA Part 6, 6.7.2 (chunks and their headers) and 7.1.2 (messages of the transport).
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from typing import Final

from edge_agent.errors import TransientError
from edge_agent.simulator.base import LOOPBACK
from edge_agent.simulator.faults import Kind, ListenerFaults
from edge_agent.text.reasons import reason_of

BACKLOG_CONNECTIONS: Final = 128
"""Clients that may arrive in one turn of the event loop."""

PIECE_BYTES: Final = 65_536
"""Passed on at once."""

_HEADER_BYTES = 8  # type, kind of chunk, size
_MORE = ord("C")
_OPEN, _MESSAGE = b"OPN", b"MSG"
_SYMMETRIC_BYTES = 16  # header, channel id, token id; then the sequence number
_ASYMMETRIC_BYTES = 12  # header, channel id; then three strings of bytes, then the sequence number
_TYPE = slice(24, 28)  # the node id of the service, behind sequence number and request id
_WORD = struct.Struct("<I")
_LENGTH = struct.Struct("<i")


class Relay:
    """A listening socket in front of a server.

    ``port`` is the real one after the start. Bytes, and replies ``spoiled`` by kind of fault, are
    counted from then on, over all restarts.
    """

    def __init__(self, host: str, port: int, faults: ListenerFaults | None = None) -> None:
        self.host = host
        self.port = port
        self.faults = faults
        self.bytes_received = 0
        self.bytes_sent = 0
        self.spoiled: Counter[str] = Counter()
        self._inner_port = 0
        self._replies: Counter[bytes] = Counter()
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def listening(self) -> bool:
        """Whether a client would find somebody."""
        return self._server is not None

    async def start(self, inner_port: int) -> None:
        """Listen. Raises ``TransientError`` if the address is taken or not this machine's."""
        self._inner_port = inner_port
        try:
            self._server = await asyncio.start_server(
                self._connected,
                self.host,
                self.port,
                backlog=BACKLOG_CONNECTIONS,
            )
        except OSError as error:
            raise TransientError(
                f"cannot listen on {self.host}:{self.port} for OPC UA: {reason_of(error)}",
                hint="simulate on this machine's own ports: --host 127.0.0.1 --port 5020",
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut all clients off; may be called in any state, also twice."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        tasks = list(self._clients)  # some, if an earlier stop was cancelled
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if server is not None:
            await server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # accepted in the turn of the loop in which it was closed
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer), name=f"simulator[{self.port}].opc")
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, until either end closes."""
        inner: asyncio.StreamWriter | None = None
        flush = False
        try:
            answers, inner = await asyncio.open_connection(LOOPBACK, self._inner_port)
            directions = [
                asyncio.create_task(self._pass_requests(reader, inner)),
                asyncio.create_task(self._pass_replies(answers, writer)),
            ]
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
                flush = directions[1].done()
            finally:
                for direction in directions:
                    direction.cancel()
                await asyncio.gather(*directions, return_exceptions=True)
        except OSError:
            pass  # the server is about to stop
        finally:
            if inner is not None:
                inner.transport.abort()
            if flush:
                writer.close()
            else:
                writer.transport.abort()

    async def _pass_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while piece := await reader.read(PIECE_BYTES):
            self.bytes_received += len(piece)
            writer.write(piece)
            await writer.drain()

    async def _pass_replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.faults is None:
            while piece := await reader.read(PIECE_BYTES):
                await self._send(writer, piece)
            return
        swallowed = 0
        while True:
            chunks = await _message(reader)
            effect = self._effect(self.faults, chunks[0])
            if effect is not None:
                delay_ms, outcome = effect
                await asyncio.sleep(delay_ms / 1000)
                if outcome is Kind.CLOSE:
                    return
                if outcome is not None:
                    swallowed += len(chunks)
                    continue
            await self._send(writer, b"".join(_counted_down(chunk, swallowed) for chunk in chunks))

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.bytes_sent += len(data)
        writer.write(data)
        await writer.drain()

    def _effect(self, faults: ListenerFaults, chunk: bytes) -> tuple[float, Kind | None] | None:
        """By how much a reply is late, and what else happens to it; None if nothing."""
        kind = chunk[:3] + (chunk[_TYPE] if chunk.startswith(_MESSAGE) else b"")
        self._replies[kind] += 1
        effect = faults.effect(kind, self._replies[kind])
        if effect is None:
            return None
        self.spoiled.update(effect.kinds)
        return effect.delay_ms, None if effect.outcome is None else effect.outcome.kind


async def _message(reader: asyncio.StreamReader) -> list[bytes]:
    """The chunks of one message. Raises ``IncompleteReadError`` at the end of the stream."""
    chunks: list[bytes] = []
    while not chunks or chunks[-1][3] == _MORE:
        header = await reader.readexactly(_HEADER_BYTES)
        (size,) = _WORD.unpack_from(header, 4)
        chunks.append(header + await reader.readexactly(size - _HEADER_BYTES))
    return chunks


def _counted_down(chunk: bytes, swallowed: int) -> bytes:
    """A chunk under the sequence number that it would have had without those swallowed."""
    if not swallowed:
        return chunk
    if chunk.startswith(_MESSAGE):
        place = _SYMMETRIC_BYTES
    elif chunk.startswith(_OPEN):
        place = _ASYMMETRIC_BYTES
        for _ in range(3):  # policy, certificate, thumbprint
            (length,) = _LENGTH.unpack_from(chunk, place)
            place += _LENGTH.size + max(length, 0)
    else:
        return chunk
    (number,) = _WORD.unpack_from(chunk, place)
    counted = _WORD.pack((number - swallowed) & 0xFFFF_FFFF)
    return chunk[:place] + counted + chunk[place + _WORD.size :]
