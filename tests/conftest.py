"""What every test may rely on."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

import pytest

from edge_agent.logs import QUIET


def pytest_configure() -> None:
    """The same for everybody, whatever the terminal is.

    Ctrl-C reaches what the tests start, also where a shell runs all of it in the background.
    """
    os.environ["TERM"] = "xterm-256color"
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        os.environ.pop(name, None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _logging_comes_back() -> Iterator[None]:
    """A command that runs in this process sets up logging; the next test has it as before."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in QUIET}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
