"""A process that commits samples until it is killed, and says what each commit returned for.

    python -m tests.journal_writer PATH

Every line on standard output is the number of samples that are taken now; the value of the n-th
sample is n. Sink `a` follows, sink `b` reads nothing.
"""

from __future__ import annotations

import asyncio
import sys
from array import array
from pathlib import Path

from edge_agent.journal import Journal
from tests.journals import FIRST_TS_MS, SERIES

SAMPLES_PER_COMMIT = 250


async def write(path: Path) -> None:
    """Commit without end."""
    journal = Journal(path, bytes_max=100_000_000, ballast_bytes=0)
    await journal.open(["a", "b"])
    series = SERIES[: len(SERIES) // 4 * 4]
    ids = array("I", [journal.intern(names) for names in series]).tobytes()
    while True:
        first = journal.taken + 1
        print(journal.taken, flush=True)
        for start in range(first, first + SAMPLES_PER_COMMIT, len(series)):
            values = [float(value) for value in range(start, start + len(series))]
            journal.append(FIRST_TS_MS + start, ids, values)
        batches = await journal.read("a", samples_max=400)
        if batches:
            journal.acknowledge("a", batches)
        await journal.flush()


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
