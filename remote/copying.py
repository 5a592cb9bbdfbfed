"""Rows from one server into a table on the other, by COPY, with bounded memory.

    edge: COPY (SELECT ...) TO STDOUT ──> a few chunks in memory ──> remote: COPY ... FROM STDIN

Both run at once in the binary format, and nothing is decoded on the way. Each side waits for the
other: where the remote is slower, the edge's server is not read from until there is room. If one
side fails, the other is stopped, and the remote's transaction does not commit: half a COPY never
looks like a whole one.

The staging table lives in the caller's transaction. What is done with the rows, and the note of
how far they have got, commit together or not at all.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from edge_agent.errors import EdgeAgentError, TransientError
from edge_agent.postgres.sql_files import queries
from remote.ends import End

CHUNKS_WAITING_MAX = 16
"""A chunk is what the network hands over at once, at most 256 kB: some 4 MB in all."""
STALL_TIMEOUT_S = 120.0
"""No chunk for so long means that a server or the network is gone. A cold Raspberry Pi that looks
for an hour's first row among compressed chunks needs some seconds."""
ROWS_PER_SECOND_MIN = 100
"""Slower than that, the pause after one chunk (some 4,000 rows) would look like a stall."""
COPY_TIMEOUT_S = 86_400.0
"""For a whole COPY; it only replaces the connection's own limit, which is meant for statements. A
COPY that is throttled may last long, and one that hangs is ended by STALL_TIMEOUT_S."""
BURST_S = 0.25
"""After a pause nothing that was missed is made up for, beyond this."""

COLUMNS = ("ts", "site", "line", "device", "tag", "value", "unit")

_SIGNATURE_BYTES = 19
"""PGCOPY\\n\\377\\r\\n\\0, flags, and the length of an extension that nobody uses."""
_FIELDS = struct.Struct("!h")
_LENGTH = struct.Struct("!i")


class RowCounter:
    """Counts the rows of a binary COPY stream, however it is cut into chunks.

    The format: PostgreSQL's manual, COPY, "Binary Format".
    """

    def __init__(self) -> None:
        self._rest = b""
        self._skip = _SIGNATURE_BYTES  # bytes that are passed over unread
        self._fields = 0  # fields of the current row still to come

    def feed(self, chunk: bytes) -> int:
        """Rows that end within this chunk."""
        data = self._rest + chunk if self._rest else chunk
        at, end, rows = self._skip, len(data), 0
        while True:
            if at > end or (need := 4 if self._fields else 2) > end - at:
                break
            if need == 2:
                self._fields = max(_FIELDS.unpack_from(data, at)[0], 0)  # -1 is the trailer
                at += 2
                continue
            at += 4 + max(_LENGTH.unpack_from(data, at)[0], 0)  # -1 is NULL
            self._fields -= 1
            rows += not self._fields
        self._rest, self._skip = data[at:], max(at - end, 0)
        return rows


@dataclass(slots=True)
class Throttle:
    """At most so many rows a second; the clock is a parameter, in seconds."""

    rows_per_second: int
    monotonic: Callable[[], float] = time.monotonic
    _due_s: float = field(default=0.0, init=False)

    def wait_s(self, rows: int) -> float:
        """How long to wait now that these rows have passed."""
        now_s = self.monotonic()
        self._due_s = max(self._due_s, now_s - BURST_S) + rows / self.rows_per_second
        return max(self._due_s - now_s, 0.0)


async def stage(
    edge: End,
    remote: End,
    query: str,
    *arguments: object,
    throttle: Throttle | None = None,
) -> int:
    """Fill the remote's pg_temp.plc_repair with the edge's rows of a query; returns their number.

    Belongs into a transaction of the remote's connection, at whose end the table disappears.
    ``query`` gives COLUMNS in their order. Raises ``TransientError``.
    """
    with remote.errors("make the staging table"):
        await remote.connection.execute(queries()["repair_stage"])
    return await copy(edge, remote, "pg_temp", "plc_repair", query, *arguments, throttle=throttle)


async def copy(
    edge: End,
    remote: End,
    schema: str,
    table: str,
    query: str,
    *arguments: object,
    throttle: Throttle | None = None,
) -> int:
    """The same into any table that has these columns."""
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_WAITING_MAX)
    counter = RowCounter()
    async with _watched() as moved, together() as group:

        async def fill(chunk: bytes) -> None:
            moved()
            if throttle is not None:
                await asyncio.sleep(throttle.wait_s(counter.feed(chunk)))
            await waiting.put(chunk)

        async def read() -> None:
            with edge.errors("read rows"):
                await edge.connection.copy_from_query(
                    query, *arguments, output=fill, format="binary", timeout=COPY_TIMEOUT_S
                )
            await waiting.put(None)

        async def drain() -> AsyncIterator[bytes]:
            while (chunk := await waiting.get()) is not None:
                moved()
                yield chunk

        async def write() -> int:
            with remote.errors("write rows"):
                status = await remote.connection.copy_to_table(
                    table,
                    schema_name=schema,
                    columns=COLUMNS,
                    source=drain(),
                    format="binary",
                    timeout=COPY_TIMEOUT_S,
                )
            return rows_of(status)

        group.create_task(read(), name="repair.read")
        written = group.create_task(write(), name="repair.write")
    return written.result()


def rows_of(status: str) -> int:
    """The number at the end of `COPY 5`, `INSERT 0 5` or `UPDATE 5`."""
    return int(status.rpartition(" ")[2])


@asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """Tasks that end together: if one fails the others are stopped, and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as failed:
        errors = [each for each in failed.exceptions if isinstance(each, EdgeAgentError)]
        raise (errors or failed.exceptions)[0] from failed


@asynccontextmanager
async def _watched() -> AsyncIterator[Callable[[], None]]:
    """Gives a function to be called whenever something moves; ends what stands still."""
    now_s = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(STALL_TIMEOUT_S) as watchdog:
            yield lambda: watchdog.reschedule(now_s() + STALL_TIMEOUT_S)
    except TimeoutError as silence:
        raise TransientError(
            f"copying: not one row has moved for {STALL_TIMEOUT_S:g} s",
            hint="is one of the two servers overloaded, or the network cut? Run it again: it goes"
            " on where it was",
        ) from silence
