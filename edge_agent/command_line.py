"""What every command line of ours does alike: exit codes, JSON, numbers, how an error is told."""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Callable

import orjson

from edge_agent.errors import ConfigError, EdgeAgentError

DONE, FAILED, WRONG_INPUT = 0, 1, 2


def prepare_output() -> None:
    """A terminal that can't show a character must not end a command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def print_json(document: object) -> None:
    """Write one document to standard output, on a line of its own, for `--json`."""
    print(orjson.dumps(document).decode())


def whole(smallest: int, largest: int, allowed: str = "") -> Callable[[str], int]:
    """A parser of whole numbers between two bounds; ``allowed`` says what these are."""
    allowed = allowed or f"{smallest} to {largest}"

    def parse(text: str) -> int:
        if re.fullmatch("[0-9]{1,9}", text) and smallest <= int(text) <= largest:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text!r}; allowed: {allowed}")

    return parse


def exit_code(program: str, work: Callable[[], int]) -> int:
    """Do the work, which returns the exit code; an error is told on standard error, with its hint.

    ``ConfigError`` gives WRONG_INPUT; other errors of ours, what a disk or a file's rights refuse,
    and Ctrl-C, give FAILED.
    """
    try:
        code = work()
        sys.stdout.flush()
    except EdgeAgentError as error:
        print(f"{program}: {error}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return WRONG_INPUT if isinstance(error, ConfigError) else FAILED
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does: nothing is wrong.
        _discard_output()
        return DONE
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        print(f"{program}: {place}{error.strerror or error}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # it was the output: nothing more can be written
            _discard_output()
        return FAILED
    return code


def _discard_output() -> None:
    """Let the interpreter's last flush go nowhere, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
