"""How far a long command is: a bar on a terminal, a line now and then elsewhere.

On standard error, so that standard output holds the result alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_INTERVAL_S = 10.0
"""Often enough to see that it lives, seldom enough for a log."""


class Show(Protocol):
    """Is told how much of the whole is done, 0 to 1, and what there is to say about it."""

    def __call__(self, done: float, text: str) -> None: ...


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

    def line(done: float, text: str) -> None:
        nonlocal last_s
        if monotonic() - last_s >= LINE_INTERVAL_S:
            last_s = monotonic()
            print(f"{title}: {done:4.0%}  {text}", file=console.file, flush=True)

    yield line


@contextmanager
def _bar(title: str, console: Console) -> Iterator[Show]:
    columns = (
        TextColumn(title),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=1.0, text="")
        yield lambda done, text: bar.update(task, completed=done, text=text)
