"""What words of the command line may be, for `argparse`: whole numbers, durations, places."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from edge_agent.text.durations import duration_ms


class Once(argparse.Action):
    """Keeps the value of an option, and refuses a second one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        given: set[str] = vars(namespace).setdefault("given_once", set())
        if self.dest in given:
            parser.error(f"{option_string} is given twice")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


def whole(smallest: int, largest: int) -> Callable[[str], int]:
    """A parser of whole numbers between two bounds."""

    def parse(text: str) -> int:
        if re.fullmatch("[0-9]{1,9}", text) and smallest <= int(text) <= largest:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: {smallest} to {largest}")

    return parse


def place(text: str) -> Path:
    """A file or folder. Without a name it would be the current folder, which nobody meant."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; name a folder, . for the current one")
    return Path(text)


def duration_s(text: str) -> float:
    """A duration above 0, in seconds."""
    try:
        seconds = duration_ms(text) / 1000
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not seconds:
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: more than 0")
    return seconds
