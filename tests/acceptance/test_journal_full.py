"""A journal, or a disk, that is full.

The embedded store is never away, so it knows what was taken: what another sink lacks must stand in
the ledger, tag by tag.
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import MakeRig, many_tags
from tests.acceptance.rig import Evidence, Rig
from tests.acceptance.test_journal_damage import AWAY, servers_down, servers_up
from tests.servers import wait_until

BYTES_MAX = 1_000_000
THIN_BYTES_MAX = 2_000_000
"""In the smallest journal the ledger takes so much of the room that thinning ends in dropping."""
TAGS = 640
"""As many as the smallest journal can name one by one in its ledger, for three sinks."""
UNCONFIRMED_MAX = 10 * TAGS
"""Two seconds of samples may have reached a server that went before it said so."""
CLAIMED_MAX = 10 * TAGS
"""Two seconds of samples: entries grow when the machine is too busy to commit in time."""
FILL_TIMEOUT_S = 60.0
FULL_S = 2.0
DISK_BYTES = 40_000_000
BALLAST_BYTES = 8_000_000
DISK_FULL_S = 3.0


def run_until_full(make_rig: MakeRig, policy: str, bytes_max: int = BYTES_MAX) -> Rig:
    """A small journal that fills while the servers are away; they return, and reading goes on."""
    rig = make_rig(many_tags(TAGS), journal=f'bytes_max = {bytes_max}\npolicy = "{policy}"')
    rig.agent.start()
    rig.settle()
    servers_down(rig)
    try:

        def applied() -> bool:
            status = rig.agent.status()
            assert status is not None, "the agent does not answer"
            return bool(status["journal"]["full"] or rig.sink("postgres")["lost"])

        wait_until(applied, f"a full journal under {policy}", FILL_TIMEOUT_S)
        rig.run_for(FULL_S)
        assert (rig.agent.data_dir / "journal.db").stat().st_size <= bytes_max
    finally:
        servers_up(rig)
    rig.settle()
    rig.wait_taken(TAGS)
    rig.stop_orderly()
    return rig


def check_ledger(evidence: Evidence, reason: str) -> None:
    """The ledger of each sink that was away names exactly what it lacks, tag by tag."""
    evidence.check_books()
    evidence.check_rows(UNCONFIRMED_MAX)
    evidence.check_values()
    truth = evidence.sets["store"]
    assert len(truth) == evidence.taken
    for sink in AWAY:
        held, row = evidence.sets[sink], evidence.sinks[sink]
        lacking = truth - held
        assert lacking, f"{sink} lost nothing: the journal was not full"
        assert held <= truth
        surplus = Counter(evidence.losses(sink, reason))
        surplus.subtract(Counter(sample[:3] for sample in lacking))
        assert min(surplus.values()) >= 0, f"{sink} lacks more than its ledger says"
        assert surplus.total() == len(held) - row["delivered"]
        within = evidence.loss_spans(sink)
        for sample in lacking:
            first_ms, last_ms = within[sample[:3]]
            assert first_ms <= sample[3] <= last_ms


@pytest.mark.long
def test_full_drop_oldest(make_rig: MakeRig) -> None:
    """The oldest samples go, every one of them into the ledger; the newest are delivered."""
    rig = run_until_full(make_rig, "drop_oldest")
    evidence = rig.evidence()
    check_ledger(evidence, "journal full: oldest dropped")
    held = evidence.sets["postgres"]
    lacking = evidence.sets["store"] - held
    first_lost, last_lost = (pick(sample[3] for sample in lacking) for pick in (min, max))
    # A sink keeps the entries that are in its hands at that moment, or that it is looking at.
    between = [sample for sample in held if first_lost < sample[3] < last_lost]
    assert len(between) <= CLAIMED_MAX, f"{len(between)} of the oldest were kept"


@pytest.mark.long
def test_full_thin(make_rig: MakeRig) -> None:
    """Every second sample of the oldest goes, again and again: a trend stays for the whole time."""
    rig = run_until_full(make_rig, "thin", THIN_BYTES_MAX)
    evidence = rig.evidence()
    check_ledger(evidence, "journal full: thinned")
    gaps = evidence.gaps_ms("postgres")
    assert max(gaps.values()) < 5_000, "an interval without any sample"


def test_full_stop(make_rig: MakeRig) -> None:
    """The PLCs are not read while the journal is full: nothing that was taken is lost."""
    rig = run_until_full(make_rig, "stop")
    assert "reading paused" in rig.agent.log()
    evidence = rig.evidence()
    evidence.check_all()
    assert min(evidence.gaps_ms("store").values()) > FULL_S * 1000 / 2, "reading went on"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own for the agent's data."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take every free byte of a file system."""
    filler = folder / f"filler-{len(list(folder.glob('filler-*')))}"
    with filler.open("wb", buffering=0) as file:
        room = os.statvfs(folder)
        try:
            os.posix_fallocate(file.fileno(), 0, max(room.f_bavail * room.f_frsize, 1))
            while True:
                file.seek(0, os.SEEK_END)
                file.write(b"\0" * 4096)
        except OSError:
            pass
    return filler


def test_disk_full(make_rig: MakeRig, small_disk: Path) -> None:
    """The disk fills up under the journal, first to its reserve and then to the last byte.

    The agent goes on, says what is wrong, and when there is room again delivers everything: while
    nothing can be written samples wait in memory, and what can't be delivered is in the ledger.
    """
    rig = make_rig(data_dir=small_disk / "data")
    rig.agent.start()
    rig.settle()
    ballast = small_disk / "data" / "journal.ballast"
    assert ballast.stat().st_size == BALLAST_BYTES
    fillers = [fill(small_disk)]
    wait_until(lambda: not ballast.exists(), "the reserve to be used", FILL_TIMEOUT_S)
    fillers.append(fill(small_disk))
    rig.run_for(DISK_FULL_S)
    status = rig.agent.status()
    assert status is not None
    assert status["well"] is False
    assert "disk" in status["verdict"]
    for filler in fillers:
        filler.unlink()
    wait_until(ballast.exists, "the reserve to come back", FILL_TIMEOUT_S)
    rig.settle()
    rig.stop_orderly()
    evidence = rig.evidence()
    evidence.check_all()
    assert max(evidence.gaps_ms("postgres").values()) < 3_000, "reading paused"
