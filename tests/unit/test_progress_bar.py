"""How far a long command is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from edge_agent.progress_bar import LINE_INTERVAL_S, counting, progress


def terminal() -> tuple[io.StringIO, Console]:
    """One that keeps what it was sent."""
    output = io.StringIO()
    return output, Console(file=output, force_terminal=True, width=120)


def test_a_line_now_and_then_where_there_is_no_terminal() -> None:
    """Not more than one in LINE_INTERVAL_S."""
    output, now_s = io.StringIO(), 0.0
    with progress("backfill", Console(file=output), lambda: now_s) as show:
        for done in range(100):
            now_s += LINE_INTERVAL_S / 20
            show(done / 100, f"{done} rows")
    lines = output.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[0] == "backfill:  19%  19 rows"


def test_a_line_without_a_share_where_nobody_knows_the_whole() -> None:
    """As while a server is walked: there is no 0 % that never moves."""
    output, now_s = io.StringIO(), 0.0
    with progress("browse", Console(file=output), lambda: now_s) as show:
        now_s = LINE_INTERVAL_S
        show(None, "7 nodes visited")
    assert output.getvalue() == "browse: 7 nodes visited\n"


def test_a_bar_on_a_terminal() -> None:
    """With the share that is done."""
    output, console = terminal()
    with progress("backfill", console) as show:
        show(0.5, "12 rows")
    assert "50%" in output.getvalue()
    assert "12 rows" in output.getvalue()


def test_a_bar_without_a_share() -> None:
    """It moves, and says what there is to say; brackets are no markup."""
    output, console = terminal()
    with progress("browse", console) as show:
        show(None, "[7] nodes [red]")
    assert "%" not in output.getvalue()
    assert "[7] nodes [red]" in output.getvalue()


def test_a_bar_leaves_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """`journal export > samples.csv` has its rows in the file, not on the terminal of the bar."""
    output, console = terminal()
    with progress("export", console) as show:
        show(0.5, "")
        print("sequence,value")
    assert capsys.readouterr().out == "sequence,value\n"
    assert "sequence,value" not in output.getvalue()


def test_counted_things_have_their_share() -> None:
    """Of none at all too."""
    told: list[tuple[float | None, str]] = []

    def show(done: float | None, text: str) -> None:
        told.append((done, text))

    counting(show, 1_200, "rows")(300)
    counting(show, 0, "rows")(0)
    assert told == [(0.25, "300 of 1,200 rows"), (0.0, "0 of 0 rows")]
