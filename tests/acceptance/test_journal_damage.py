"""A journal file that is truncated, has flipped bytes, or is overwritten while it is in use.

The embedded store takes part in all of it but is never away, so it knows what was taken: the other
sinks may lack what the damage destroyed, and exactly that must stand in the ledger.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeRig, many_tags
from tests.acceptance.rig import Evidence, Rig
from tests.servers import wait_until

BACKLOG_SAMPLES = 5_000
LARGE_BACKLOG_SAMPLES = 500_000
PAGE_BYTES = 4096
FLIPS = 12
PAGES_OVERWRITTEN = 6
AWAY = ("mqtt", "postgres", "influx")


def truncate(path: Path) -> None:
    """Cut a third off, in the middle of a page."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size * 2 // 3 - PAGE_BYTES // 3)


def flip_bytes(path: Path) -> None:
    """Flip some bits anywhere, the file's first page included."""
    places = random.Random(7)
    data = bytearray(path.read_bytes())
    for at in (300, *(places.randrange(len(data)) for _ in range(FLIPS))):
        data[at] ^= 1 << places.randrange(8)
    path.write_bytes(data)


def overwrite_pages(path: Path) -> None:
    """Put noise in the place of some pages in the file's second half."""
    noise = random.Random(11)
    pages = path.stat().st_size // PAGE_BYTES
    with path.open("r+b") as file:
        for page in noise.sample(range(pages // 2, pages), min(PAGES_OVERWRITTEN, pages // 2)):
            file.seek(page * PAGE_BYTES)
            file.write(noise.randbytes(PAGE_BYTES))


def servers_down(rig: Rig) -> None:
    """Everything away but the embedded store."""
    rig.broker.stop()
    rig.cluster.server.stop()
    rig.influx.stop()


def servers_up(rig: Rig) -> None:
    """Everything back."""
    rig.cluster.server.start()
    rig.influx.start()
    rig.broker.start()


def check(rig: Rig, evidence: Evidence) -> None:
    """What was recovered is delivered, once, and what was not stands in the ledger."""
    evidence.check_books()
    evidence.check_values()
    truth = evidence.sets["store"]
    assert max(evidence.found["postgres"].values()) == 1
    for sink in AWAY:
        held, row = evidence.sets[sink], evidence.sinks[sink]
        assert held <= truth, f"{sink} has {len(held - truth)} that nobody took"
        assert row["pending"] == 0
        assert row["base"] == 0
        # A server may have taken samples and gone before it said so, and then these were damaged.
        unconfirmed = len(held) - row["delivered"]
        assert 0 <= unconfirmed <= rig.rate, (sink, row, unconfirmed)
        assert row["lost"] == len(truth - held) + unconfirmed, (sink, row)
    aside = list(rig.agent.data_dir.glob("journal.db.damaged-*"))
    assert aside, "the damaged file is not kept"
    assert "journal recovered" in rig.agent.log()


@pytest.mark.parametrize("damage", [truncate, flip_bytes], ids=lambda damage: damage.__name__)
def test_damaged_while_stopped(hasty_rig: Rig, damage: Callable[[Path], None]) -> None:
    """Damaged with a backlog for every sink: the agent starts by itself and recovers what it can.

    The damaged file stays beside the new one, what could be read is delivered once, and the rest
    is in the ledger of every sink that waited for it.
    """
    rig = hasty_rig
    rig.agent.start()
    rig.settle()
    servers_down(rig)
    try:
        rig.wait_taken(BACKLOG_SAMPLES)
        rig.stop_orderly()
        damage(rig.agent.data_dir / "journal.db")
    finally:
        servers_up(rig)
    rig.agent.start()
    rig.settle()
    rig.stop_orderly()
    evidence = rig.evidence()
    check(rig, evidence)
    assert any(evidence.sinks[sink]["lost"] for sink in AWAY), "the damage destroyed nothing"


@pytest.mark.long
def test_damaged_while_it_runs(make_rig: MakeRig) -> None:
    """Pages overwritten under the running agent: it goes on with a new file and loses no scan.

    The backlog is larger than what SQLite keeps in memory, so that the damage is met on the disk.
    """
    rig = make_rig(many_tags())
    rig.agent.start()
    rig.settle()
    servers_down(rig)
    try:
        rig.wait_taken(LARGE_BACKLOG_SAMPLES)
        overwrite_pages(rig.agent.data_dir / "journal.db")
    finally:
        servers_up(rig)
    wait_until(lambda: "journal recovered" in rig.agent.log(), "the recovery", 30)
    rig.settle()
    rig.stop_orderly()
    check(rig, rig.evidence())
