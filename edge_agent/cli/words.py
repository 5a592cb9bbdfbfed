"""What words of the command line may be, for `argparse`: cells of a map, durations, places."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from edge_agent.errors import ConfigError
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


def cell(option: str, text: str, check: Callable[[str], str]) -> str:
    """What an option puts into a column of a map. Raises ``ConfigError``."""
    try:
        found = check(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text!r}: {error}") from error
    if not found:
        raise ConfigError(f"{option} is empty; leave it out, or write a name")
    return found


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
