"""A plant's worth of rows into an edge database, by the agent's own sink, until SIGTERM.

    python -m tests.acceptance.replication_writer DSN [--rate 5000] [--rows N]

One scan of rate / 5 tags each 0.2 s, taken at the same millisecond; the upkeep runs beside it as
it does in the agent. What can't be delivered waits, and is delivered when the database is back. At
the end it prints {"rows": ..., "waited_max_s": ...}: rows delivered, and the longest that a scan
waited for its delivery.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import time
import uuid
from array import array
from collections import deque
from contextlib import suppress

import uvloop

from edge_agent.errors import TransientError
from edge_agent.model import Batch, Series
from edge_agent.postgres import database
from edge_agent.sinks.base import SAMPLES_MAX, JournalIdentity
from edge_agent.sinks.postgres import PostgresSink

SCANS_PER_S = 5
TAGS_PER_DEVICE = 25
RETRY_S = 0.3
COMMAND_TIMEOUT_S = 10.0
UPKEEP_INTERVAL_S = 20.0
"""Three times as often as the agent: a test lasts seconds."""
VALUE_COLUMNS = 50
"""Different columns of values, made in advance so that making them costs nothing."""


def series(tags: int, site: str = "A1") -> dict[int, Series]:
    """So many tags, 25 a device."""
    return {
        number: Series(
            site,
            f"L{number % 4}",
            f"PUMP{(number - 1) // TAGS_PER_DEVICE:03}",
            f"T{number:05}",
            "bar",
        )
        for number in range(1, tags + 1)
    }


class Writer:
    """Makes scans on time and delivers them as fast as the database takes them."""

    def __init__(self, dsn: str, rate: int, rows_max: int | None) -> None:
        self._dsn = dsn
        self._series = series(rate // SCANS_PER_S)
        self._ids = array("I", self._series)
        self._columns = [
            array("d", [random.uniform(-100, 100) for _ in self._ids]) for _ in range(VALUE_COLUMNS)
        ]
        self._rows_max = rows_max
        self._waiting: deque[Batch] = deque()
        self._news = asyncio.Event()
        self._stopped = asyncio.Event()
        self._journal = JournalIdentity("writer", uuid.uuid4().hex)
        self.rows = 0
        self.waited_max_s = 0.0

    def stop(self) -> None:
        """Make no more scans; what waits is still delivered."""
        self._stopped.set()
        self._news.set()

    async def run(self) -> None:
        """Until `stop`, or until all rows are written."""
        upkeep = asyncio.create_task(self._keep_up())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._scan())
                group.create_task(self._deliver())
        finally:
            upkeep.cancel()
            with suppress(asyncio.CancelledError):
                await upkeep

    async def _scan(self) -> None:
        due, sequence, made = time.monotonic(), 0, 0
        while not self._stopped.is_set():
            sequence += 1
            self._waiting.append(
                Batch(
                    sequence=sequence,
                    runs=[(time.time_ns() // 1_000_000, len(self._ids))],
                    series_ids=self._ids,
                    values=self._columns[sequence % VALUE_COLUMNS],
                    series=self._series,
                )
            )
            self._news.set()
            made += len(self._ids)
            if self._rows_max is not None and made >= self._rows_max:
                self.stop()
            # Never two scans within a millisecond, however late this one was.
            due = max(due + 1 / SCANS_PER_S, time.monotonic() + 0.002)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), due - time.monotonic())

    async def _deliver(self) -> None:
        sink = PostgresSink(agent_id="writer", dsn=self._dsn, command_timeout_s=COMMAND_TIMEOUT_S)
        opened = False
        while self._waiting or not self._stopped.is_set():
            if not self._waiting:
                self._news.clear()
                await self._news.wait()
                continue
            batches = self._next()
            try:
                if not opened:
                    await sink.open(self._journal)
                    opened = True
                await sink.deliver(batches)
            except TransientError as error:
                print(error, file=sys.stderr)
                opened = False
                await sink.close()
                await asyncio.sleep(RETRY_S)
                continue
            for batch in batches:
                self.rows += len(batch)
                waited_s = time.time() - batch.runs[0][0] / 1000
                self.waited_max_s = max(self.waited_max_s, waited_s)
                self._waiting.popleft()
        await sink.close()

    def _next(self) -> list[Batch]:
        count = max(1, SAMPLES_MAX // len(self._ids))
        return [self._waiting[at] for at in range(min(count, len(self._waiting)))]

    async def _keep_up(self) -> None:
        upkeep = database.Upkeep(agent_id="writer", dsn=self._dsn)
        while True:
            with suppress(TransientError):
                await upkeep.run()
            await asyncio.sleep(UPKEEP_INTERVAL_S)


async def _run(dsn: str, rate: int, rows_max: int | None) -> None:
    writer = Writer(dsn, rate, rows_max)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, writer.stop)
    print("ready", flush=True)
    await writer.run()
    print(json.dumps({"rows": writer.rows, "waited_max_s": round(writer.waited_max_s, 3)}))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dsn")
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--rows", type=int)
    options = parser.parse_args()
    uvloop.run(_run(options.dsn, options.rate, options.rows))


if __name__ == "__main__":
    main()
