"""What commands write for people: columns, tables on narrow terminals, and names they take."""

from __future__ import annotations

import argparse
import importlib
import io
import re
import socket
import ssl
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from dashboard import cli as dashboard_command_line
from edge_agent.cli import demo, plan, probe_show, tables
from edge_agent.cli import status as status_command
from edge_agent.cli.plan_against import ROWS_SHOWN_MAX, _show_load, _show_touched
from edge_agent.command_line import print_json
from edge_agent.errors import ConfigError
from edge_agent.output_file import check_output
from edge_agent.text.counts import counted
from edge_agent.text.reasons import reason_of
from edge_agent.text.selection import UnknownNameError, selected
from remote import cli as remote_command_line
from tests.terminal import plain, set_width

command_line = importlib.import_module("edge_agent.cli.main")  # the package has its function

DEMO_MAP = Path(__file__).parents[2] / "examples/demo/address_map.csv"
CONN = "opc.tcp://press-07.halle3.werk.example:4840/machine/line?policy=none"
KEYS = [
    ("A1", "PUMP01", "FLOW"),
    ("A1", "펌프", "온도"),
    ("A2", "PUMP01", "FLOW"),
    ("PUMP01", "FLOW", "X"),
]


def leaves(parser: argparse.ArgumentParser, name: str) -> Iterator[tuple[str, set[str]]]:
    """Every command without further ones, with its options."""
    deeper = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    for action in deeper:
        for word, child in action.choices.items():
            yield from leaves(child, f"{name} {word}")
    if not deeper:
        yield name, {word for action in parser._actions for word in action.option_strings}


LEAVES = dict(leaves(command_line._parser(list(command_line.COMMANDS)), "edge-agent"))


@pytest.mark.parametrize("command", sorted(LEAVES))
def test_common_options_may_stand_behind_every_command(command: str) -> None:
    """Behind its action too, as in `map history --data-dir X`."""
    assert LEAVES[command] >= {"--config", "--data-dir", "--http"}


def words_without_help(parser: argparse.ArgumentParser, name: str) -> Iterator[str]:
    """Every command and every word of one that `--help` does not explain."""
    if not parser.description:
        yield name
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, child in action.choices.items():
                yield from words_without_help(child, f"{name} {word}")
        elif not action.help:
            yield f"{name} {action.metavar or action.dest}"


PROGRAMS = {
    "edge-agent": command_line._parser(list(command_line.COMMANDS)),
    "edge-remote": remote_command_line.parser(list(remote_command_line.COMMANDS)),
    "edge-dashboard": dashboard_command_line.parser(),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_explains_every_word(program: str) -> None:
    """Of commands, their actions, what they take and their options."""
    assert not list(words_without_help(PROGRAMS[program], program))


def options_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Of a command and of all below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from options_of(child)
        else:
            yield action


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_has_one_form(program: str) -> None:
    """Defaults, folders and --json are told in the same words by all three programs."""
    for action in options_of(PROGRAMS[program]):
        assert action.help is not None
        assert "default: " not in action.help.replace("(default: ", "")
        assert action.metavar != "DIR"
        if "--json" in action.option_strings:
            assert action.help == "as one line of JSON, for programs"


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("stauts", "did you mean status?"),
        ("my map.CSV", "to run a map: edge-agent --map 'my map.CSV'"),
        ("reload --map new.csv", "edge-agent plan --map FILE --against running"),
        ("map history new.xlsx", "edge-agent plan --map FILE --against running"),
        ("check new.csv", "edge-agent check --map new.csv"),
        ("map show newest", "'newest'; allowed: the number of a version"),
        ("map rollback -1", "'-1'; allowed: the number of a version"),
    ],
)
def test_a_wrong_word_is_told_what_may_have_been_meant(
    words: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2."""
    given = [words] if words.startswith("my ") else words.split()
    with pytest.raises(SystemExit) as caught:
        command_line.main(given)
    assert caught.value.code == 2
    assert advice in capsys.readouterr().err


@pytest.mark.parametrize("words", ["check --map a --map b", "--map a --map b"])
def test_a_second_map_is_no_better_than_the_first(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody can tell which one was meant."""
    with pytest.raises(SystemExit) as caught:
        command_line.main(words.split())
    assert caught.value.code == 2
    assert "--map is given twice" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["reload now", "status --bogus", "check --bogus"])
def test_other_wrong_words_are_only_named(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Advice about maps would lead astray."""
    with pytest.raises(SystemExit):
        command_line.main(words.split())
    said = capsys.readouterr().err
    assert f"unrecognized arguments: {words.split()[1]}\n" in said


WITHOUT_JSON = {
    "edge-agent demo": "a live picture",
    "edge-agent journal export": "CSV",
    "edge-agent map show": "a map's file",
    "edge-agent simulate": "a line of JSON in any case",
}
"""What these write to standard output instead."""


def test_every_command_can_answer_a_program() -> None:
    """With --json; those that can't have something of their own to read."""
    assert {name for name, options in LEAVES.items() if "--json" not in options} == set(
        WITHOUT_JSON
    )


def test_a_document_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Of every command, so that a log or `read` takes it as it is."""
    print_json({"ok": True, "problems": [{"line": 2}]})
    assert capsys.readouterr().out == '{"ok":true,"problems":[{"line":2}]}\n'


# -- columns -----------------------------------------------------------------------------------


def test_columns_are_as_wide_as_they_look() -> None:
    """A Korean sign takes two places of a terminal."""
    rows = [("A1/펌프/급수온도", "좋음", "1"), ("A1/PUMP01/FLOW", "bad", "10")]
    lines = list(tables.aligned(("tag", "verdict", "n"), rows, (False, False, True)))
    assert len({cell_len(line) for line in lines}) == 1
    assert cell_len(lines[1].partition("좋음")[0]) == lines[0].index("verdict")


def test_numbers_have_their_nouns() -> None:
    """One of them is no plural."""
    assert [counted(number, "tag") for number in (0, 1, 1200)] == ["0 tags", "1 tag", "1,200 tags"]
    assert counted(2, "reply", "replies") == "2 replies"
    assert plan._fewer(1) == "1 tag has a deadband or a heartbeat and gives fewer"
    assert plan._fewer(2) == "2 tags have a deadband or a heartbeat and give fewer"
    assert probe_show._answers(3, 1, 0) == "unit 3: 1 cell answers, 0 do not"
    assert probe_show._answers(3, 2, 1) == "unit 3: 2 cells answer, 1 does not"


def make_status(**fields: Any) -> dict[str, Any]:
    """As `/status` gives it, of one connection with five tags, the last one bad."""
    good = {"value": 1.5, "unit": "bar", "ts_ms": 900, "quality": "good", "hi": None, "lo": None}
    tags = [good | {"tag": f"T{number}"} for number in range(5)]
    tags.append(good | {"tag": "LEVEL", "value": None, "quality": "bad"})
    sink = {"name": "postgres", "delivered": 1, "pending": 0, "lag_s": 0.0, "lost": 0}
    return {
        "agent": {"now_ms": 1000},
        "well": True,
        "verdict": "All well",
        "problems": [],
        "notices": [],
        "ingest": None,
        "connections": [
            {
                "conn": CONN, "samples": 123_456_789, "errors": {}, "late_p99_s": 0.1,
                "connected": True, "error": None,
            }
        ],
        "journal": {
            "taken": 123_456_789, "uncommitted": 0, "bytes_used": 0, "bytes_max": 2_000_000_000,
            "commit_failures": 0, "full": False, "disk_full": False,
        },
        "sinks": [sink | {"quarantined": 0, "failures": {}, "error": None}],
        "devices": [{"site": "A1", "line": "", "device": "PUMP01", "tags": tags}],
    } | fields  # fmt: skip


def shown(width: int, *, terminal: bool, **fields: Any) -> str:
    """The text of `edge-agent status` in a window of this width."""
    status = make_status(**fields)
    console = Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, highlight=False
    )
    status_command.show(status, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 76])
def test_nothing_is_cut_on_a_narrow_terminal(width: int) -> None:
    """A long connection goes on in the next line of its cell; what a state is stays whole."""
    lines = shown(width, terminal=True).splitlines()
    assert max(map(cell_len, lines)) <= width
    cells = [re.split("[│┃]", line) for line in lines if line.startswith("│")]
    columns = zip(*(row for row in cells if len(row) == 9), strict=True)
    texts = ["".join(cell.strip() for cell in column) for column in columns]
    assert "…" not in "".join(lines)
    assert CONN in texts[1]
    assert "123,456,789" in texts[2]
    for state in ("connected", "delivering"):
        assert any(row[7].strip() == state for row in cells if len(row) == 9)


@pytest.mark.parametrize("width", [60, 76])
def test_a_forecast_is_whole_on_a_narrow_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a table's lines leave no room for its cells, the rows stand as in a pipe."""
    set_width(width, monkeypatch)
    assert command_line.main(["plan", "--map", str(DEMO_MAP)]) == 0
    text = plain(capsys.readouterr().out)
    assert "…" not in text
    for number in ("6,393,600", "40.80", "1,171", "65 ms", "500 ms"):
        assert re.search(rf"[ │]{re.escape(number)}[ │]", text)
    for conn, row in zip(("1502", "1503"), plan_rows(text), strict=True):
        assert row[0] == f"tcp://127.0.0.1:{conn}"
        assert row[-1] == "fits"


def plan_rows(text: str) -> list[list[str]]:
    """The rows of the table of times: of lines, or words in columns; a cell may have two lines."""
    lines = text.partition("of period")[2].partition("wanted, read")[0].splitlines()[1:]
    if not any(line.startswith("│") for line in lines):
        return [line.split() for line in lines]
    rows: list[list[str]] = []
    for line in lines:
        if not line.startswith("│"):
            continue
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        if cells[-1]:
            rows.append(cells)
        else:
            rows[-1] = [one + more for one, more in zip(rows[-1], cells, strict=True)]
    return rows


def test_rows_without_lines_have_their_style() -> None:
    """On a terminal that is too narrow for a table a bad row is red as well."""
    grid = tables.Grid("", ("tag", "n", "why"), frozenset({"n"}), {"why": 20})
    grid.add("FLOW", "1", "flat")
    grid.add("PRESS", "1,234,567", "a reason of many words", style="red")

    def drawn(width: int) -> str:
        console = Console(
            file=io.StringIO(), width=width, force_terminal=True, color_system="standard",
            highlight=False,
        )  # fmt: skip
        grid.show(console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    assert "┃" in drawn(43)
    _, good, bad = drawn(42).splitlines()
    assert re.sub(r"\x1b\[[\d;]*m", "", bad) == "PRESS  1,234,567  a reason of many words"
    assert bad.startswith("\x1b[31m")
    assert "\x1b[31m" not in good


def test_a_state_says_its_connection_once() -> None:
    """The row has it already."""
    down = make_status()["connections"][0] | {"connected": False, "error": f"{CONN}: no answer"}
    text = shown(40, terminal=False, connections=[down])
    assert text.count(CONN) == 1
    assert "no answer" in text


def test_brackets_of_an_address_are_no_markup() -> None:
    """An IPv6 address stays whole, also in a table on a terminal."""
    conn = "tcp://[fe80::1]:502"
    row = make_status()["connections"][0] | {"conn": conn}
    assert conn in shown(120, terminal=True, connections=[row])


def test_a_row_of_a_table_has_its_style() -> None:
    """A bad tag is red from its name to its reason, in a terminal that shows colours."""
    grid = tables.Grid("", ("tag", "why"), frozenset())
    grid.add("FLOW", "flat")
    grid.add("PRESS", "[gone]", style="red")
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system="standard")
    grid.show(console)
    assert isinstance(console.file, io.StringIO)
    first, second = console.file.getvalue().splitlines()[3:5]
    assert "\x1b[31m" not in first
    assert re.search(r"\x1b\[31mPRESS.*\x1b\[31m\[gone\]", second)


def test_rates_are_shown_where_there_are_any() -> None:
    """In the demo; one status alone has none, and no column for them."""
    assert "per s" in tables.stages(make_status(), tables.Rates()).columns
    assert "per s" not in tables.stages(make_status(), None).columns


def test_a_pipe_has_no_width() -> None:
    """Words in columns, a line for each row, whatever `COLUMNS` says."""
    lines = shown(40, terminal=False).splitlines()
    assert lines[1].split() == [
        "stage",
        "samples",
        "waiting",
        "lag",
        "lost",
        "errors",
        "state",
    ]
    assert lines[2].startswith(f"{CONN}  ")
    assert lines[2].endswith("connected")
    assert lines[4].endswith("delivering")
    assert len(lines) == 7


def test_bad_tags_are_shown_first() -> None:
    """Else they would hide behind `+2`."""
    assert "LEVEL bad  T0 1.5 bar" in shown(200, terminal=False)


def test_a_problem_is_told_once() -> None:
    """What stands in the verdict is not repeated below it; the others are."""
    first, second = "the address map in the file is not the one that runs: map.csv: line 3", "slow"
    verdict = f"Data flows, but {first} (and 1 more problem)"
    text = shown(60, terminal=False, verdict=verdict, problems=[first, second], well=False)
    assert text.count(first) == 1
    assert "problem: slow\n" in text


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "places"),
    [
        ("PUMP01", [0, 2]),
        ("A2/PUMP01", [2]),
        ("PUMP01/FLOW", [0, 2, 3]),
        ("A1/PUMP01/FLOW", [0]),
        (unicodedata.normalize("NFD", "펌프/온도"), [1]),
        (unicodedata.normalize("NFD", "A1/펌프/온도"), [1]),
    ],
)
def test_one_way_to_name_devices_and_tags(word: str, places: list[int]) -> None:
    """With or without site and tag, composed in either way; two meanings are both meant."""
    assert selected(KEYS, [word], lambda key: key) == [KEYS[place] for place in places]


def test_a_name_that_is_not_there_has_a_near_one() -> None:
    """Of the same form; an example if none is like it, nothing where there is nothing."""
    for word, near in (
        ("A1/PUMP01/FLO", "A1/PUMP01/FLOW"),
        ("PUMP1", "PUMP01"),
        ("?", "A1/PUMP01"),
    ):
        with pytest.raises(UnknownNameError) as caught:
            selected(KEYS, ["PUMP01", word], lambda key: key)
        assert (caught.value.word, caught.value.near) == (word, near)
    with pytest.raises(UnknownNameError) as caught:
        selected([], ["PUMP01"], lambda key: key)
    assert caught.value.near == ""


def test_the_load_of_one_has_its_noun() -> None:
    """As everything that is counted; the noun is that of what will be."""
    console = Console(file=io.StringIO(), soft_wrap=True)
    load: Any = {
        "tags": 3, "requests_per_s": 1, "rows_per_day": 2, "journal_hours": None, "verdict": None,
    }  # fmt: skip
    _show_load(console, load, load | {"tags": 1})
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == ["3 > 1 tag", "1 request/s", "2 rows/day"]


def test_the_frames_of_nobody_have_a_name_like_it() -> None:
    """Of the running map, in the form in which it was asked."""
    status = make_status()
    assert status_command._near(status, "PUMP1") == "PUMP01"
    assert status_command._near(status, "A1/PUMP01/LEVL") == "A1/PUMP01/LEVEL"
    assert status_command._near(make_status(devices=[]), "PUMP1") == ""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('::1', 1883)"), "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (
            OSError(
                "Multiple exceptions: [Errno 111] Connect call failed ('::1', 1, 0, 0),"
                " [Errno 113] Connect call failed ('127.0.0.1', 1)"
            ),
            "Connection refused; No route to host",
        ),
        (
            OSError("Multiple exceptions: [Errno 101] ('::1', 1), [Errno 101] ('::2', 1)"),
            "Network is unreachable",
        ),
        (OSError("Multiple exceptions: timed out, refused"), "timed out, refused"),
        (ssl.SSLError(1, "[SSL] wrong version number"), "wrong version number"),
        (TimeoutError("timed out"), "timed out"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_reasons_have_no_numbers(error: OSError, reason: str) -> None:
    """Nor addresses, which stand before them; TLS says more than the system's words for it."""
    assert reason in reason_of(error)
    assert "Errno" not in reason_of(error)


def test_the_demo_finds_its_map_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies beside the package; without it the demo wants another one."""
    monkeypatch.chdir(tmp_path)
    assert demo.map_of_demo().is_file()
    monkeypatch.setattr(demo, "PROJECT", tmp_path)
    with pytest.raises(ConfigError, match="in the project's folder") as caught:
        demo.map_of_demo()
    assert "--map" in caught.value.hint


def test_an_output_takes_the_place_of_files_only(tmp_path: Path) -> None:
    """It is replaced, so /dev/null would be a file afterwards."""
    check_output(tmp_path / "new.html")
    with pytest.raises(ConfigError, match="is not a file"):
        check_output(Path("/dev/null"))


@pytest.mark.parametrize("option", ["--out", "--site", "--line", "--period-ms", "--max-nodes"])
def test_browse_takes_no_option_twice(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also if the first one says what is the default."""
    value = {"--site": "SITE", "--line": "LINE", "--period-ms": "1000"}.get(option, "100")
    out = [] if option == "--out" else ["--out", "map.csv"]
    with pytest.raises(SystemExit):
        command_line.main(["browse", "opc.tcp://h", *out, option, value, option, value])
    assert f"{option} is given twice" in capsys.readouterr().err


def test_series_that_end_are_counted() -> None:
    """Beyond forty it says how many more there are."""
    console = Console(file=io.StringIO(), soft_wrap=True)
    ended = [f"A1/OVEN/T{number}" for number in range(ROWS_SHOWN_MAX + 19)]
    nothing: dict[str, Any] = {"kept": [], "changed": [], "begun": [], "ended": []}
    _show_touched(console, {"connections": nothing, "series_ended": ended})  # type: ignore[typeddict-item]
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == ROWS_SHOWN_MAX + 1
    assert lines[-1] == "  and 19 more (--json has all)"
