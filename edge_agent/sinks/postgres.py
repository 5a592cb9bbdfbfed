"""Exactly one row in plc_raw per sample, by binary COPY.

How it is exactly once. The rows and the cursor (agent, journal, sequence of the last batch) are
written in one transaction. Whatever happens to it, a later attempt starts by reading the cursor
and skips the batches that it covers, so it does not matter whether an unanswered COMMIT took
place. The transaction begins by moving the cursor *from the value this sink knows*: that locks the
row, so a forgotten transaction of a lost connection, or a second agent on the same journal, makes
this one wait and then fail, never write twice.

Three ways in, each a whole transaction of its own:

1. COPY into plc_raw.
2. If a row is there already (another writer, a clock stepped back), COPY into a temporary table
   and insert from it what is missing. The first row of a (site, device, tag, ts) stays.
3. If the table refuses rows for good, the same statement halves its way to them
   (sql/060_delivery.sql); the others are inserted and these are reported.

A text with a NUL character, and a time that only a wrong clock can have, are refused before
anything is sent.

What was refused is not in plc_raw, so a batch that comes again, skipped by the cursor, would pass
for delivered whole. Therefore the cursor's row also keeps which rows were refused and why, written
in the same transaction, and a batch that comes again is answered as it was the first time. One
hand-over is not enough: an acknowledgement is in the journal only with the journal's next commit,
and in a catch-up, or while the disk refuses, any number of hand-overs comes before it. So they are
kept until `settled` says that the journal has them in its books, as a rule some 0.2 s. Should
``REFUSED_MAX`` of them wait for it, deliveries pause.
Only a batch that the journal has thinned meanwhile is not answered from there, since its positions
are others: it is inserted once more, by the second way in, which skips what is there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import asyncpg

from edge_agent.errors import RejectedRow, RejectedRows, TransientError
from edge_agent.model import Batch
from edge_agent.postgres.connection import (
    COMMAND_TIMEOUT_S,
    Dsn,
    check_server,
    connect,
    disconnect,
    transaction,
    translated_errors,
)
from edge_agent.postgres.sql_files import queries
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.copy_rows import (
    COLUMNS,
    HEADER,
    TRAILER,
    Portion,
    RowRenderer,
    UnstorableTextError,
    days_of,
    screen,
    whole,
)
from edge_agent.sinks.refusals import Refusal, decode, encode, refusals_of

PARTITIONS_PER_CALL_MAX = 64
"""Making a day's partition takes some 10 ms; a call stays far below the command timeout."""
REASON_CHARS_MAX = 300
"""A server may quote a whole row in its message; the reason is kept beside each refused row."""
REFUSED_MAX = 10_000
"""Refused rows that wait for the journal: 3 MB if each has a long reason of its own."""


@dataclass(slots=True)
class _Session:
    """One connection and what is known through it."""

    connection: Any
    journal: JournalIdentity
    cursor: int
    refused: list[Refusal]  # as the cursor's row has them, less what the journal has
    days: set[int] = field(default_factory=set)  # those whose partition exists
    renderer: RowRenderer = field(default_factory=RowRenderer)


class PostgresSink:
    """Delivers to plc_raw with a dsn that needs no more than the role `ingest`.

    ``agent_id`` is shown in pg_stat_activity; ``command_timeout_s`` bounds each command of a
    delivery, four as a rule. Raises ``ConfigError`` for a dsn that can't be one.
    A batch at or below the cursor counts as delivered, but for the rows that were refused;
    ``deliver`` returns the rows that plc_raw had from elsewhere.
    """

    name = "postgres"

    def __init__(
        self, *, agent_id: str, dsn: str, command_timeout_s: float = COMMAND_TIMEOUT_S
    ) -> None:
        self._dsn = Dsn(dsn)
        self._command_timeout_s = command_timeout_s
        self._application_name = f"edge-agent {agent_id}"
        self._session: _Session | None = None

    def __repr__(self) -> str:
        return f"PostgresSink({self._dsn!r})"

    async def open(self, journal: JournalIdentity) -> None:
        """Connect, check the server and read this journal's cursor."""
        await self.close()
        with translated_errors(self._dsn, "connect"):
            connection = await connect(self._dsn, self._application_name, self._command_timeout_s)
        try:
            with translated_errors(self._dsn, "read the cursor"):
                async with transaction(connection):
                    await check_server(connection)
                    key = (journal.agent_id, journal.journal_id)
                    await connection.execute(queries()["cursor_create"], *key)
                    cursor = await connection.fetchrow(queries()["cursor_read"], *key)
        except BaseException:
            connection.terminate()
            raise
        self._session = _Session(connection, journal, cursor["sequence"], decode(cursor["refused"]))

    def settled(self, sequence: int) -> None:
        """Forget what was refused up to here: the journal has it in its books."""
        session = self._session
        if session is not None and session.refused:
            session.refused = [each for each in session.refused if each.sequence > sequence]

    async def deliver(self, batches: Sequence[Batch]) -> int:
        """Write the batches past the cursor, and the cursor, in one transaction."""
        session = self._session
        if session is None:
            raise TransientError(f"postgres {self._dsn}: not open")
        known = {refusal.sequence: refusal for refusal in session.refused}
        fresh = [batch for batch in batches if _is_to_be_written(batch, session.cursor, known)]
        written = {batch.sequence for batch in fresh}
        again = [known[batch.sequence] for batch in batches if batch.sequence in known]
        rejected = [row for each in again if each.sequence not in written for row in each.rows()]
        duplicates = 0
        if fresh:
            _check_room(session.refused, {batch.sequence for batch in batches})
            session.refused = [each for each in session.refused if each.sequence not in written]
            try:
                with translated_errors(self._dsn, "deliver"):
                    late, duplicates = await _deliver(session, fresh)
            except BaseException:
                # Where the cursor stands is unknown now: only open() can tell.
                self._session = None
                session.connection.terminate()
                raise
            rejected = sorted(rejected + late, key=_place)
        if rejected:
            raise RejectedRows(rejected, duplicates=duplicates)
        return duplicates

    async def close(self) -> None:
        """Release the connection."""
        session, self._session = self._session, None
        if session is not None:
            await disconnect(session.connection)


def _is_to_be_written(batch: Batch, cursor: int, known: Mapping[int, Refusal]) -> bool:
    if batch.sequence > cursor:
        return True
    refusal = known.get(batch.sequence)
    return refusal is not None and not refusal.fits(batch)


def _check_room(refused: Sequence[Refusal], handed: Collection[int]) -> None:
    """Raise ``TransientError`` if the journal has to write down what was refused first.

    What is handed over again does not count: once acknowledged, it is what gets written down.
    """
    waiting = sum(len(each) for each in refused if each.sequence not in handed)
    if waiting >= REFUSED_MAX:
        raise TransientError(
            f"postgres: {waiting} refused rows wait to be written down by the journal",
            hint="if it lasts, the journal's disk refuses; see the log",
        )


def _place(row: RejectedRow) -> tuple[int, int]:
    return row.sequence, row.index


async def _deliver(session: _Session, batches: Sequence[Batch]) -> tuple[list[RejectedRow], int]:
    """Try the ways in; returns the refused rows, in order, and the number of duplicates."""
    refused_days = await _make_partitions(session, batches)
    portions, chunks = _render(session.renderer, batches, refused_days)
    reached = max(session.cursor, batches[-1].sequence)
    rejected = [
        RejectedRow(portion.batch.sequence, index, reason[:REASON_CHARS_MAX])
        for portion in portions
        for index, reason in portion.refused.items()
    ]
    refused = session.refused + refusals_of(batches, rejected)
    duplicates = 0
    try:
        async with transaction(session.connection):
            await _advance_cursor(session, reached, refused)
            await _copy(session, "plc_raw", "public", chunks)
    except asyncpg.PostgresError as error:
        if not _is_fault_of_rows(error):
            raise
        async with transaction(session.connection):
            await _advance_cursor(session, reached, refused)
            late, duplicates = await _insert_staged(session, portions, chunks)
            if late:
                rejected = sorted(rejected + late, key=_place)
                refused = session.refused + refusals_of(batches, rejected)
                await _keep_refused(session, refused)
    session.cursor, session.refused = reached, refused
    return rejected, duplicates


async def _make_partitions(session: _Session, batches: Sequence[Batch]) -> set[int]:
    """Have the days' partitions made, as far as they are not known; returns the days refused."""
    missing = sorted(set[int]().union(*map(days_of, batches)) - session.days)
    refused: set[int] = set()
    for start in range(0, len(missing), PARTITIONS_PER_CALL_MAX):
        days = missing[start : start + PARTITIONS_PER_CALL_MAX]
        async with transaction(session.connection):
            refused.update(await session.connection.fetchval(queries()["make_partitions"], days))
        session.days.update(set(days) - refused)
    return refused


def _render(
    renderer: RowRenderer, batches: Sequence[Batch], refused_days: set[int]
) -> tuple[list[Portion], list[bytes]]:
    portions = [screen(batch, refused_days) if refused_days else whole(batch) for batch in batches]
    try:
        return portions, [renderer.render(portion.batch) for portion in portions]
    except UnstorableTextError:
        portions = [screen(batch, refused_days) for batch in batches]
        return portions, [renderer.render(portion.batch) for portion in portions]


async def _advance_cursor(session: _Session, reached: int, refused: Sequence[Refusal]) -> None:
    journal = session.journal
    moved = await session.connection.fetch(
        queries()["cursor_advance"],
        journal.agent_id,
        journal.journal_id,
        session.cursor,
        reached,
        encode(refused),
    )
    if not moved:
        raise TransientError(
            f"postgres: the cursor of agent {journal.agent_id!r} is no longer at "
            f"{session.cursor}: an earlier attempt succeeded, or another agent uses this journal",
            hint="if it repeats, give each agent its own agent_id and data_dir",
        )


async def _keep_refused(session: _Session, refused: Sequence[Refusal]) -> None:
    """Write down what the table itself has refused, within the caller's transaction."""
    journal = session.journal
    await session.connection.execute(
        queries()["cursor_refused"], journal.agent_id, journal.journal_id, encode(refused)
    )


async def _copy(session: _Session, table: str, schema: str | None, chunks: list[bytes]) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield HEADER
        for chunk in chunks:
            yield chunk
        yield TRAILER

    await session.connection.copy_to_table(
        table, schema_name=schema, columns=COLUMNS, format="binary", source=source()
    )


async def _insert_staged(
    session: _Session, portions: Sequence[Portion], chunks: list[bytes]
) -> tuple[list[RejectedRow], int]:
    """Insert what is missing by way of a temporary table, within the caller's transaction."""
    await session.connection.execute(queries()["stage_create"])
    await _copy(session, "plc_staged", "pg_temp", chunks)
    staged = sum(len(portion.batch) for portion in portions)
    result = await session.connection.fetchrow(queries()["stage_insert"], staged)
    refused = list(_locate(portions, result["refused"], result["reasons"]))
    return refused, staged - result["inserted"] - len(refused)


def _locate(
    portions: Sequence[Portion], numbers: Sequence[int], reasons: Sequence[str]
) -> Iterator[RejectedRow]:
    """Find staged rows, numbered from 1, in their batches."""
    starts = list(accumulate((len(portion.batch) for portion in portions), initial=0))
    for number, reason in zip(numbers, reasons, strict=True):
        at = bisect_right(starts, number - 1) - 1
        portion = portions[at]
        index = portion.indices[number - 1 - starts[at]]
        yield RejectedRow(portion.batch.sequence, index, reason[:REASON_CHARS_MAX])


def _is_fault_of_rows(error: asyncpg.PostgresError) -> bool:
    """Whether sending the same rows in the same way again must fail again.

    Classes of SQLSTATE: 22 data, 23 constraint, P0 raised by a trigger; 54000 is a text too long
    for the index. A missing partition comes as a constraint violation without a constraint.
    """
    code = error.sqlstate or ""
    if code == "23514" and not getattr(error, "constraint_name", None):
        return False
    return code[:2] in ("22", "23", "P0") or code == "54000"
