"""How far a long command is: a bar on a terminal, a line now and then elsewhere.

On standard error, so that standard output holds the result alone. The bar is gone at the end, for
the command says by itself what it has done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_INTERVAL_S: Final = 10.0
"""Often enough to see that it lives, seldom enough for a log."""


class Show(Protocol):
    """Is told how much of the whole is done, and what there is to say about it.

    ``done`` is 0 to 1, or None where nobody knows how large the whole is.
    """

    def __call__(self, done: float | None, text: str) -> None: ...


def counting(show: Show, total: int, noun: str) -> Callable[[int], None]:
    """What is to be told how many of ``total`` are done, and shows it: `12 of 300 rows`."""
    return lambda done: show(done / max(total, 1), f"{done:,} of {total:,} {noun}")


@contextmanager
def progress(
    title: str, console: Console | None = None, monotonic: Callable[[], float] = time.monotonic
) -> Iterator[Show]:
    """Show progress until the end of the block. ``title`` is what is being done: `backfill`."""
    console = console or Console(file=sys.stderr)
    if console.is_terminal:
        with _bar(title, console) as show:
            yield show
        return
    last_s = monotonic()

    def line(done: float | None, text: str) -> None:
        nonlocal last_s
        if monotonic() - last_s >= LINE_INTERVAL_S:
            last_s = monotonic()
            share = "" if done is None else f"{done:4.0%}  "
            print(f"{title}: {share}{text}", file=console.file, flush=True)

    yield line


@contextmanager
def _bar(title: str, console: Console) -> Iterator[Show]:
    columns = (
        TextColumn(title, markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    # What a command prints meanwhile belongs to its own output, not to the bar's terminal.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(title, total=None, text="")

        def show(done: float | None, text: str) -> None:
            bar.update(task, total=None if done is None else 1.0, completed=done, text=text)

        yield show
