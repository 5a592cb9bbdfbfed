"""A salvage that takes its time: it shows that it advances, and may be killed as often as you like.

Its journal is large enough for a salvage of some steps; every sample's value is its number.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from edge_agent import agent as agent_module
from edge_agent.errors import JournalError, TransientError
from edge_agent.journal import Journal, Policy, progress, salvage
from edge_agent.journal.file import JournalFile
from edge_agent.journal.progress import Progress
from edge_agent.notify import Notifier
from edge_agent.startup import EXTENSION_S, open_journal
from tests.integration.test_agent import make_agent, make_tag, running
from tests.journals import (
    FIRST_TS_MS,
    SERIES,
    balance_faults,
    balanced,
    commit,
    journal_at,
    journal_file,
    opened,
    set_aside,
)
from tests.waiting import until

BYTES_MAX = 100_000_000
SAMPLES = 3_200_000
"""40 MB."""
SCANS_PER_ENTRY = 125
KILLS = 3
WRITER = [sys.executable, "-m", "tests.journal_writer"]
ROOT = Path(__file__).parents[2]
WAIT_S = 60


async def _made(path: Path) -> None:
    journal = await opened(path, ("a", "b"), bytes_max=BYTES_MAX)
    ids = array("I", [journal.intern(series) for series in SERIES]).tobytes()
    for first in range(1, SAMPLES, len(SERIES)):
        values = [float(value) for value in range(first, first + len(SERIES))]
        journal.append(FIRST_TS_MS + first, ids, values)
        if first // len(SERIES) % (4 * SCANS_PER_ENTRY) == 0:
            assert await commit(journal)
    assert await commit(journal)
    assert journal.taken == SAMPLES
    await journal.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "journal.db"
    asyncio.run(_made(path))
    return path


@pytest.fixture
def damaged(sound: Path, tmp_path: Path) -> Iterator[Path]:
    """The same with its first page lost: no entry is, but SQLite finds none."""
    path = tmp_path / "data" / "journal.db"
    path.parent.mkdir()
    shutil.copyfile(sound, path)
    with path.open("r+b") as stream:
        stream.write(b"\0" * 4096)
    yield path
    shutil.rmtree(path.parent)


def all_values(file: JournalFile) -> array[float]:
    values = array("d")
    for entry in file.export():
        values += entry.batch.values
    return values


def test_killed_three_times_it_loses_nothing_and_leaves_no_copies(damaged: Path) -> None:
    """kill -9 in the middle of three salvages, then one to its end: every sample once, the books
    right, and of all the attempts one damaged file and one journal."""
    before = damaged.read_bytes()
    fresh = damaged.with_suffix(".new")
    for attempt in range(KILLS):
        process = subprocess.Popen(
            [*WRITER, str(damaged)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT
        )
        try:
            assert process.stderr
            assert b"journal damaged" in process.stderr.readline()  # the last attempt's is gone
            until = time.monotonic() + WAIT_S
            size = (attempt + 1) * len(before) // (KILLS + 2)
            while not fresh.exists() or fresh.stat().st_size < size:
                assert process.poll() is None
                assert time.monotonic() < until
        finally:
            process.kill()
            process.communicate()
        assert set_aside(damaged) == []
        assert damaged.read_bytes() == before
        assert {p.name for p in damaged.parent.iterdir() if p.suffix == ".new"} == {fresh.name}
        assert fresh.stat().st_size < len(before)

    journal = asyncio.run(_opened_and_closed(damaged))
    assert journal.salvages == 1
    (kept,) = set_aside(damaged)
    assert kept.read_bytes() == before
    assert not list(damaged.parent.glob("*.new*"))
    assert len(list(damaged.parent.glob("*.damaged*"))) == 1
    file = journal_file(damaged, bytes_max=BYTES_MAX)
    file.configure(["a", "b"])
    assert all_values(file) == array("d", range(1, SAMPLES + 1))
    assert balance_faults(file) == []
    assert file.check() == []
    assert [(totals.lost, totals.delivered) for totals in file.totals.values()] == [(0, 0)] * 2
    file.close()


async def _opened_and_closed(path: Path) -> Journal:
    journal = await opened(path, ("a", "b"), bytes_max=BYTES_MAX)
    await journal.close()
    return journal


async def test_a_running_journal_that_is_salvaged_is_alive(sound: Path, tmp_path: Path) -> None:
    """Its beat moves with every step although the committer waits; the text says how far it is."""
    path = tmp_path / "journal.db"
    shutil.copyfile(sound, path)
    journal = await opened(path, ("a", "b"), bytes_max=BYTES_MAX)
    committer = asyncio.create_task(journal.run())
    beats: list[float] = []
    texts: list[str] = []
    recovering = asyncio.create_task(
        journal._recover(JournalError("as when damaged"), journal._file)
    )
    while not recovering.done():
        if journal.progress.text.endswith("%") and journal.progress.text not in texts:
            texts.append(journal.progress.text)
            beats.append(journal.beat_at)
        await asyncio.sleep(0)
    await recovering
    assert len(beats) >= 4
    assert beats == sorted(set(beats))
    shares = [
        int(text.removeprefix("recovering the journal: ").removesuffix(" %")) for text in texts
    ]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 50 < shares[-1] <= 100
    assert journal.progress.text == ""
    await balanced(journal)
    committer.cancel()
    await asyncio.wait([committer])
    await journal.close()


class Held:
    """Holds the salvage in its second step until it is let go."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self._steps = 0
        restore = JournalFile.restore_entries

        def held(file: JournalFile, found: list[salvage.Recovered]) -> None:
            self._steps += 1
            if self._steps == 2:
                self.reached.set()
                assert self.go_on.wait(WAIT_S)
            restore(file, found)

        patch.setattr(JournalFile, "restore_entries", held)


async def test_a_salvage_that_hangs_is_not_alive(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step, no beat: neither the watchdog is fed nor the start prolonged."""
    held = Held(monkeypatch)
    with manager(tmp_path / "notify") as listener:
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        journal = journal_at(damaged, bytes_max=BYTES_MAX)
        opening = asyncio.create_task(
            open_journal(journal, ("a", "b"), notifier, asyncio.Event(), look_interval_s=0.01)
        )
        assert await asyncio.to_thread(held.reached.wait, WAIT_S)
        await asyncio.sleep(0.1)  # what it said before is heard by then
        heard(listener)
        beat_at = journal.beat_at
        await asyncio.sleep(0.3)
        assert journal.beat_at == beat_at
        assert heard(listener) == []
        held.go_on.set()
        await opening
        assert journal.beat_at > beat_at
    await journal.close()


@contextmanager
def manager(path: Path) -> Iterator[socket.socket]:
    """What hears the service as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.setblocking(False)
        yield listener


def heard(listener: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(listener.recv(4_096).decode())
        except BlockingIOError:
            return messages


async def test_a_start_that_salvages_asks_for_time_and_says_how_far_it_is(
    damaged: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """EXTEND_TIMEOUT_USEC and STATUS while it advances, nothing after; the log tells how much there
    is, and how far it has come."""
    monkeypatch.setattr(progress, "TOLD_INTERVAL_S", 0.0)
    caplog.set_level(logging.INFO)
    messages: list[str] = []
    loop = asyncio.get_running_loop()
    with manager(tmp_path / "notify") as listener:
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        journal = journal_at(damaged, bytes_max=BYTES_MAX)
        # As they come: a socket holds ten, and the rest would be lost.
        loop.add_reader(listener, lambda: messages.extend(heard(listener)))
        await open_journal(journal, ("a", "b"), notifier, asyncio.Event(), look_interval_s=0.001)
        loop.remove_reader(listener)
        messages += heard(listener)
        await asyncio.sleep(0.05)
        assert heard(listener) == []
    extension = f"EXTEND_TIMEOUT_USEC={int(EXTENSION_S * 1e6)}"
    assert len(messages) >= 2
    assert {message.split("\n")[0] for message in messages} == {extension}
    assert any("STATUS=recovering the journal: " in message for message in messages)
    size_mb = damaged.stat().st_size // 1_000_000
    assert f"journal recovery: {size_mb} MB to go through" in caplog.messages
    assert any(text.startswith("recovering the journal: ") for text in caplog.messages)
    await journal.close()


async def test_opening_a_large_sound_journal_is_alive_too(sound: Path, tmp_path: Path) -> None:
    """It walks through all entries, which takes a slow disk its time."""
    path = tmp_path / "journal.db"
    shutil.copyfile(sound, path)
    advances = 0

    def advance() -> None:
        nonlocal advances
        advances += 1

    signs = Progress(advance)
    with signs.doing("opening"):
        file = journal_file(path, bytes_max=BYTES_MAX, progress=signs)
        file.configure(["a", "b"])
    assert advances >= 3
    file.close()


async def test_a_running_journal_that_is_read_again_is_alive_too(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fsync the committer waits while all entries are walked through."""
    path = tmp_path / "journal.db"
    shutil.copyfile(sound, path)
    journal = await opened(path, ("a", "b"), bytes_max=BYTES_MAX)
    seen: list[tuple[str, bool]] = []
    load = JournalFile._load

    def watched(file: JournalFile) -> None:
        before = journal.beat_at
        load(file)
        seen.append((journal.progress.text, journal.beat_at > before))

    monkeypatch.setattr(JournalFile, "_load", watched)
    journal._file._unsure = True
    assert await commit_one(journal)
    assert seen == [("reading the journal again", True)]
    assert journal.progress.text == ""
    await journal.close()


async def commit_one(journal: Journal) -> bool:
    ids = array("I", [journal.intern(SERIES[0])]).tobytes()
    journal.append(FIRST_TS_MS, ids, [1.0])
    return await commit(journal)


def test_a_part_with_a_name_of_its_own_does_not_end_the_whole() -> None:
    """What an opening does besides is told by its own text, and then it is the opening's again."""
    beats = 0

    def beat() -> None:
        nonlocal beats
        beats += 1

    signs = Progress(beat)
    with signs.doing("opening"):
        with signs.doing("reading again"):
            assert signs.text == "reading again"
        assert signs.text == "opening"
        before = beats
        assert not signs.advance()
        assert beats == before + 1
    assert signs.text == ""


def test_a_card_that_reads_badly_is_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each page that it does not read costs retries: a sign of life comes by time then, not by
    pages. The log names the first of them, and says in the end how many they were."""
    monkeypatch.setattr(salvage, "REACH_INTERVAL_S", 0.1)
    path = tmp_path / "journal.db"
    path.write_bytes(b"\0" * 4096 * 50)

    def pread(*_: int) -> bytes:
        time.sleep(0.02)
        raise OSError(errno.EIO, "Input/output error")

    reached: list[float] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        salvage.replace(path, journal_file, ("a",), reached.append)
    assert len(reached) > 5
    assert reached == sorted(reached)
    assert [text for text in caplog.messages if " page" in text] == [
        "journal recovery: page 1: Input/output error",
        "journal recovery: 50 pages are unreadable",
    ]


async def test_a_stop_does_not_wait_for_a_salvage(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd hears STOPPING=1 once and is not asked for more time; the salvage is given up with
    its next step, and the damaged file is what it was."""
    before = damaged.read_bytes()
    held = Held(monkeypatch)
    stopping = asyncio.Event()
    with manager(tmp_path / "notify") as listener:
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        journal = journal_at(damaged, bytes_max=BYTES_MAX)
        opening = asyncio.create_task(
            open_journal(journal, ("a", "b"), notifier, stopping, look_interval_s=0.01)
        )
        assert await asyncio.to_thread(held.reached.wait, WAIT_S)
        heard(listener)
        stopping.set()
        await until(lambda: journal.progress.given_up)
        held.go_on.set()
        assert not await opening
        messages = heard(listener)
    assert [message.split("\n")[0] for message in messages] == ["STOPPING=1"]
    assert damaged.read_bytes() == before
    assert set_aside(damaged) == []
    journal = await _opened_and_closed(damaged)
    assert journal.salvages == 1
    assert journal.taken == SAMPLES


async def test_a_stop_does_not_wait_for_an_opening(sound: Path, tmp_path: Path) -> None:
    """SQLite ends what it does; the next opening finds everything."""
    path = tmp_path / "journal.db"
    shutil.copyfile(sound, path)
    journal = journal_at(path, bytes_max=BYTES_MAX)
    journal.progress.given_up = True
    with pytest.raises(TransientError, match="interrupted"):
        await journal.open(("a", "b"))
    journal = await opened(path, ("a", "b"), bytes_max=BYTES_MAX)
    assert journal.salvages == 0
    await balanced(journal)
    await journal.close()


async def test_a_stop_as_the_opening_ends_harms_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is open then, and what is committed until its orderly end is not given up."""
    journal = journal_at(tmp_path / "journal.db")
    stopping = asyncio.Event()
    open_it = journal.open

    async def late(sinks: Iterable[str]) -> None:
        await open_it(sinks)
        stopping.set()
        await until(lambda: journal.progress.given_up)

    monkeypatch.setattr(journal, "open", late)
    assert await open_journal(journal, ("a",), Notifier({}), stopping, look_interval_s=0.001)
    for _ in range(2_000):
        assert await commit_one(journal)
    await journal.close()


async def test_an_agent_that_is_stopped_in_its_opening_ends_in_order(
    damaged: Path, tmp_path: Path
) -> None:
    """Without an error, and without having replaced anything."""
    agent = make_agent(tmp_path, [make_tag("PRESS")], 0, {"journal.bytes_max": BYTES_MAX})
    agent.stop()
    async with asyncio.timeout(WAIT_S):
        await agent.run(handle_signals=False)
    assert agent.last_status is None
    assert set_aside(damaged) == []


async def test_a_read_does_not_hide_a_stuck_committer(tmp_path: Path) -> None:
    """Between openings and recoveries only the committer's own beat counts."""
    journal = await opened(tmp_path / "journal.db")
    journal.beat_at = 1.0
    journal.progress.advance()
    assert journal.beat_at == 1.0
    await journal.close()


@pytest.mark.parametrize("policy", [Policy.DROP_OLDEST, Policy.THIN])
async def test_what_no_longer_fits_is_left_to_the_policy(damaged: Path, policy: Policy) -> None:
    """A limit that was lowered since does not keep a damaged journal from being recovered."""
    journal = await opened(damaged, ("a", "b"), bytes_max=1_000_000, policy=policy)
    assert journal.salvages == 1
    await balanced(journal)
    file = journal._file
    assert file.path.stat().st_size <= 1_000_000
    assert all_values(file)[-1] == SAMPLES
    assert file.check() == []
    assert {totals.lost for totals in journal.totals().values()} == {SAMPLES - file.pending("a")}
    await journal.close()


async def test_what_no_longer_fits_is_kept_where_nothing_may_be_dropped(damaged: Path) -> None:
    """With the policy stop a recovery goes past a limit that was lowered, as the damaged file did;
    pollers then wait until it has drained."""
    journal = await opened(damaged, ("a", "b"), bytes_max=1_000_000, policy=Policy.STOP)
    assert journal.salvages == 1
    assert journal.full
    assert journal._file.pending("a") == SAMPLES
    assert await commit(journal)
    await balanced(journal)
    await journal.close()


async def test_the_agent_opens_its_journal_so(
    damaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More time is asked for while it recovers, and READY=1 comes after that."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setattr(agent_module, "open_journal", partial(open_journal, look_interval_s=0.001))
    messages: list[str] = []
    loop = asyncio.get_running_loop()
    with manager(tmp_path / "notify") as listener:
        # As they come: a socket holds ten, and the rest would be lost.
        loop.add_reader(listener, lambda: messages.extend(heard(listener)))
        async with running(
            tmp_path, [make_tag("PRESS")], overrides={"journal.bytes_max": BYTES_MAX}
        ) as rig:
            await rig.until(lambda status: status["journal"]["salvages"] == 1)
        loop.remove_reader(listener)
    kinds = [message.partition("=")[0] for message in messages]
    assert kinds[:2] == ["EXTEND_TIMEOUT_USEC"] * 2
    assert kinds.index("READY") == kinds.count("EXTEND_TIMEOUT_USEC")
