"""`edge-agent journal` on a journal whose agent was stopped; words, streams and their limits."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import pty
import sqlite3
import subprocess
import sys
from array import array
from contextlib import closing
from keyword import iskeyword
from pathlib import Path

import pytest

from edge_agent import __version__
from edge_agent.cli import main
from edge_agent.cli.main import COMMANDS
from edge_agent.journal import Journal, Quarantined
from edge_agent.journal import file as journal_file
from edge_agent.journal.file import SEQUENCES_PER_OPENING, JournalFile
from edge_agent.model import Series

PRESS = Series("A1", "L1", "PUMP01", "PRESS", "bar")
TEMP = Series("A1", "L1", "펌프01", "온도, innen", "°C")
TS_MS = 1_755_432_000_000
DEMO_MAP = Path(__file__).parents[2] / "examples/demo/address_map.csv"
EDGE_AGENT = str(Path(sys.executable).with_name("edge-agent"))


async def fill(path: Path) -> None:
    """Four samples: the store has all, the broker has one, refused one, and waits for two."""
    journal = Journal(path, bytes_max=4_000_000)
    await journal.open(["mqtt", "store"])
    for number in range(2):
        ids = array("I", [journal.intern(PRESS), journal.intern(TEMP)])
        journal.append(TS_MS + number, ids.tobytes(), [1.5 + number, 20.25 + number])
        await journal.flush()
    batches = await journal.read("store", samples_max=100)
    journal.acknowledge("store", batches)
    (first,) = await journal.read("mqtt", samples_max=2)
    refused = Quarantined(first.series_ids[1], TS_MS, 20.25, 'not authorized, says "ACL"')
    journal.acknowledge("mqtt", [first], rejected=[refused])
    await journal.close()


async def append_three(path: Path) -> None:
    """Three more entries, of another opening."""
    journal = Journal(path, bytes_max=4_000_000)
    await journal.open(["mqtt", "store"])
    ids = array("I", [journal.intern(PRESS)])
    for number in range(3):
        journal.append(TS_MS + 10 + number, ids.tobytes(), [3.5])
        await journal.flush()
    await journal.close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A folder as an agent leaves it."""
    folder = tmp_path / "data"
    folder.mkdir()
    asyncio.run(fill(folder / "journal.db"))
    return folder


class Result:
    """What one command said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def rows(self) -> list[list[str]]:
        """Standard output as CSV."""
        return list(csv.reader(io.StringIO(self.out)))


def _run(capsys: pytest.CaptureFixture[str], *words: str) -> Result:
    code = main(words)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return Result(code, out, err)


def counts(capsys: pytest.CaptureFixture[str], data_dir: Path) -> dict[str, tuple[int, ...]]:
    """Per sink: delivered, pending, quarantined, lost."""
    found = _run(capsys, "journal", "status", "--json", "--data-dir", str(data_dir))
    names = ("delivered", "pending", "quarantined", "lost")
    return {s["sink"]: tuple(s[n] for n in names) for s in json.loads(found.out)["sinks"]}


def test_status_shows_the_books(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    """As text and as JSON; they add up to what was taken."""
    assert counts(capsys, data_dir) == {"mqtt": (1, 2, 1, 0), "store": (4, 0, 0, 0)}
    found = _run(capsys, "journal", "status", "--data-dir", str(data_dir))
    assert found.code == 0
    assert "4 samples taken of 2 series" in found.out
    assert "mqtt       delivered 1, waiting 2, quarantined 1, lost 0" in found.out


def test_the_folder_may_be_named_anywhere(
    capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    """Before the command, after it, or after its action."""
    at = ["--data-dir", str(data_dir)]
    for words in (
        [*at, "journal", "status"],
        ["journal", *at, "status"],
        ["journal", "status", *at],
    ):
        assert _run(capsys, *words).code == 0


def test_a_sound_journal_is_said_to_be_sound(
    capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    """Exit code 0."""
    found = _run(capsys, "journal", "check", "--data-dir", str(data_dir))
    assert (found.code, found.err) == (0, "")
    assert "sound; 4 samples are accounted for" in found.out


def test_a_file_that_is_no_journal_is_no_traceback(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whatever lies there: a message, and an exit code that is not 0."""
    (tmp_path / "journal.db").write_bytes(b"not a database " * 1000)
    for action in (["status"], ["check"], ["export"], ["replay", "--sink", "mqtt"]):
        found = _run(capsys, "journal", *action, "--data-dir", str(tmp_path))
        assert found.code == 1
        assert found.out + found.err


def test_export_writes_csv(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    """Samples, quarantine and ledger, each with its header; text of any kind survives."""
    at = ("--data-dir", str(data_dir))
    header, *samples = _run(capsys, "journal", "export", *at).rows()
    assert header == ["sequence", "sinks", "ts_ms", *Series._fields, "value"]
    # Only what waits for somebody is still there.
    assert [row[2:] for row in samples] == [
        [str(TS_MS + 1), *PRESS, "2.5"],
        [str(TS_MS + 1), *TEMP, "21.25"],
    ]
    assert _run(capsys, "journal", "export", "quarantine", *at).rows() == [
        ["sink", "ts_ms", *Series._fields, "value", "reason"],
        ["mqtt", str(TS_MS), *TEMP, "20.25", 'not authorized, says "ACL"'],
    ]
    assert len(_run(capsys, "journal", "export", "ledger", *at).rows()) == 1


def test_replay_puts_the_quarantine_back(
    capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    """The sample waits for that sink again; nothing changes for the other."""
    found = _run(capsys, "journal", "replay", "--sink", "mqtt", "--data-dir", str(data_dir))
    assert (found.code, found.out) == (0, "1 sample will be delivered to mqtt again\n")
    assert counts(capsys, data_dir) == {"mqtt": (1, 3, 0, 0), "store": (4, 0, 0, 0)}


def test_what_was_done_is_told_to_programs(
    capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    """One document on standard output, with the same exit code."""
    at = ("--json", "--data-dir", str(data_dir))
    checked = json.loads(_run(capsys, "journal", "check", *at).out)
    path = str(data_dir / "journal.db")
    assert checked == {"ok": True, "path": path, "taken": 4, "faults": []}
    for words in (["replay"], ["trim", "--yes"]):
        found = _run(capsys, "journal", *words, "--sink", "mqtt", *at)
        samples = {"replay": 1, "trim": 3}[words[0]]
        assert json.loads(found.out) == {"ok": True, "sink": "mqtt", "samples": samples}
        assert (found.code, found.err) == (0, "")


def test_faults_are_told_line_by_line(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    """Of a journal in which an entry does not match its checksum; as JSON too. Exit code 1."""
    with sqlite3.connect(data_dir / "journal.db") as connection:
        connection.execute("UPDATE entry SET checksum = checksum + 1")
    connection.close()
    at = ("--data-dir", str(data_dir))
    found = _run(capsys, "journal", "check", *at)
    lines = found.out.splitlines()
    assert (found.code, found.err) == (1, "")
    assert lines
    assert all("is damaged" in line for line in lines)
    as_json = _run(capsys, "journal", "check", "--json", *at)
    facts = json.loads(as_json.out)
    assert (as_json.code, facts["ok"], facts["faults"]) == (1, False, lines)


@pytest.mark.parametrize("words", [["check"], ["export"]])
def test_progress_stays_off_standard_output(
    data_dir: Path, tmp_path: Path, words: list[str]
) -> None:
    """A bar on the terminal of standard error, while the result goes whole into a file."""
    terminal, other_end = pty.openpty()
    out = tmp_path / "out"
    with out.open("wb") as stream:
        done = subprocess.run(
            [EDGE_AGENT, "journal", *words, "--data-dir", str(data_dir)],
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
            stdout=stream,
            stderr=other_end,
            timeout=60,
            check=False,
        )
    os.close(other_end)
    shown = os.read(terminal, 65_536).decode()
    os.close(terminal)
    assert done.returncode == 0
    assert f"journal {words[0]}" in shown
    assert "━" in shown
    assert "━" not in out.read_text()
    assert out.read_text().endswith({"check": "accounted for\n", "export": "21.25\n"}[words[0]])


def test_the_share_that_is_done_is_one_of_entries(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grows evenly, although sequences leap by billions from one opening to the next."""
    monkeypatch.setattr(journal_file, "EXPORT_ENTRIES_PER_STEP", 1)
    asyncio.run(append_three(data_dir / "journal.db"))
    exported: list[float] = []
    checked: list[float] = []
    file = JournalFile(data_dir / "journal.db", bytes_max=4_000_000, read_only=True)
    with closing(file):
        sequences = [entry.batch.sequence for entry in file.export(reach=exported.append)]
        assert file.check(checked.append) == []
    assert max(sequences) - min(sequences) >= SEQUENCES_PER_OPENING
    assert exported == [0.25, 0.5, 0.75, 1.0]
    assert checked == [0.0, 0.25, 0.5, 0.75]


def test_trim_asks_first(capsys: pytest.CaptureFixture[str], data_dir: Path) -> None:
    """Without --yes nothing is given up; with it every sample stands in the ledger."""
    words = ("journal", "trim", "--sink", "mqtt", "--data-dir", str(data_dir))
    found = _run(capsys, *words)
    assert found.code == 2
    assert "2 samples" in found.err
    assert "--yes" in found.err
    assert counts(capsys, data_dir)["mqtt"] == (1, 2, 1, 0)
    assert _run(capsys, *words, "--yes").code == 0
    assert counts(capsys, data_dir)["mqtt"] == (1, 0, 1, 2)
    ledger = _run(capsys, "journal", "export", "ledger", "--data-dir", str(data_dir)).rows()[1:]
    assert sum(int(row[8]) for row in ledger) == 2
    assert {row[-1] for row in ledger} == {"trimmed by hand"}


@pytest.mark.parametrize("action", ["replay", "trim"])
def test_a_sink_that_is_not_there(
    capsys: pytest.CaptureFixture[str], data_dir: Path, action: str
) -> None:
    """The message names those that are."""
    found = _run(capsys, "journal", action, "--sink", "influx", "--data-dir", str(data_dir))
    assert found.code == 2
    assert "known: mqtt, store" in found.err


# -- the streams --------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["check", "--map", str(DEMO_MAP)], ["journal", "export"]])
def test_a_reader_that_goes_away_is_no_error(data_dir: Path, words: list[str]) -> None:
    """`| head -0`: exit code 0, and nothing on standard error."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [EDGE_AGENT, "--data-dir", str(data_dir), *words],
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "words",
    [["check", "--map", str(DEMO_MAP)], ["journal", "export"], ["map", "history", "--json"]],
)
def test_a_full_disk_is_told(data_dir: Path, words: list[str]) -> None:
    """Of output into a file: one line that says why, and exit code 1."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [EDGE_AGENT, "--data-dir", str(data_dir), *words],
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"edge-agent: No space left on device\n")


@pytest.mark.parametrize(
    "words", [["journal", "status"], ["journal", "export"], ["quality"], ["map", "history"]]
)
def test_a_folder_that_cannot_be_looked_into_is_told(tmp_path: Path, words: list[str]) -> None:
    """One line with the path; a name that is too long stands for a folder of somebody else."""
    done = subprocess.run(
        [EDGE_AGENT, "--data-dir", str(tmp_path / ("x" * 300)), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert "x" * 300 in done.stderr
    assert "File name too long" in done.stderr


def test_a_terminal_without_korean_is_no_error(data_dir: Path) -> None:
    """What can't be shown is shown by its number."""
    done = subprocess.run(
        [EDGE_AGENT, "--data-dir", str(data_dir), "journal", "export"],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert rb"\uc628\ub3c4, innen" in done.stdout


@pytest.mark.parametrize("command", list(COMMANDS))
def test_a_commands_summary_is_that_of_its_module(command: str) -> None:
    """What `--help` lists without loading a command is what the command says itself."""
    name = f"{command}{'_' * iskeyword(command)}.py"
    source = Path(sys.modules[main.__module__].__file__ or "").with_name(name)
    assert source.read_text().startswith(f'"""`edge-agent {command}`: {COMMANDS[command]}.\n') or (
        source.read_text().startswith(f'"""`edge-agent {command}`: {COMMANDS[command]}."""')
    )


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """For whoever reports a problem."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"edge-agent {__version__}\n"


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["simulate", "--map", str(DEMO_MAP), "--port", "70000"], "0 to 65535"),
        (["simulate", "--map", str(DEMO_MAP), "--port", "-1"], "0 to 65535"),
        (["simulate", "--map", str(DEMO_MAP), "--host", "a..b"], "name that a host can have"),
        (["journal", "export", "everything"], "samples"),
        (["journal"], "ACTION"),
        (["db", "drop"], "init"),
    ],
)
def test_a_wrong_word_is_exit_code_2(
    capsys: pytest.CaptureFixture[str], words: list[str], allowed: str
) -> None:
    """With what is allowed instead."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert allowed in capsys.readouterr().err


def test_the_map_may_stand_before_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Like every option that is not a command's own."""
    found = _run(capsys, "--map", str(DEMO_MAP), "check")
    assert found.code == 0
    assert "valid" in found.out


@pytest.mark.parametrize("command", [[], ["check"], ["simulate"]])
def test_no_map_is_wrong_input(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    """With the option that is missing."""
    found = _run(capsys, *command)
    assert found.code == 2
    assert "--map" in found.err


@pytest.mark.parametrize("address", ["127.0.0.1:1", "a..b:80"])
def test_status_without_an_agent(capsys: pytest.CaptureFixture[str], address: str) -> None:
    """Exit code 1, and where it looked; also where no host can be."""
    found = _run(capsys, "status", "--http", address)
    assert found.code == 1
    assert f"no agent answers on {address}" in found.err


def test_status_with_http_off(capsys: pytest.CaptureFixture[str]) -> None:
    """There is nobody to ask: the setting is named."""
    found = _run(capsys, "status", "--http", "")
    assert found.code == 2
    assert "agent.http" in found.err
