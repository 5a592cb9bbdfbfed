"""What the integration tests share: event loops, quiet, and PostgreSQL in both flavours.

**Event loops** are for tests that must hold on both, asyncio's own and the agent's, uvloop: a
module asks for them with ``pytestmark = pytest.mark.asyncio(loop_factories=[...])``.

**A cluster** belongs to one module: no test of another one can depend on what is in it. **A
database** belongs to one test.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.certificates import make_certificates
from tests.chaos import Proxy
from tests.integration.plc_database import FLAVOURS, Cluster, Database
from tests.servers import Server

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


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    """In front of the module's `server`."""
    async with Proxy(server.port) as running:
        yield running


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `make_certificates`."""
    folder = tmp_path_factory.mktemp("certificates")
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module", params=FLAVOURS)
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A server of each flavour."""
    with Cluster(tmp_path_factory.mktemp(request.param), request.param) as running:
        yield running


@pytest.fixture(scope="module", params=["store", *FLAVOURS])
def history_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster | None]:
    """For what is promised for every source of history: the same, and None for the store."""
    if request.param == "store":
        yield None
        return
    with Cluster(tmp_path_factory.mktemp(request.param), request.param) as running:
        yield running


@pytest.fixture
async def db(cluster: Cluster) -> Database:
    """A database with the schema applied, and nothing in it."""
    return Database(cluster, await cluster.fresh())
