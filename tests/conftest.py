"""What every test may rely on."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from edge_agent.logs import QUIET


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
