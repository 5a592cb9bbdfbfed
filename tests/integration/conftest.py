"""Event loops for tests that must hold on both, asyncio's own and the agent's, uvloop; and quiet.

A module asks for the loops with ``pytestmark = pytest.mark.asyncio(loop_factories=[...])``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, LoopFactory]:
    """Every loop to a test that names its loops, asyncio's to the others."""
    marker = item.get_closest_marker("asyncio")
    if marker is not None and "loop_factories" in marker.kwargs:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def no_traceback(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Nothing may escape from a protocol's callbacks, and nothing may fill the log."""
    escaped: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: escaped.append(context))
    yield
    assert escaped == []
    # `caplog.records` has those of the phase that runs, which here is the teardown.
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    assert [r for r in records if r.levelno >= logging.INFO and r.name != "asyncio"] == []
