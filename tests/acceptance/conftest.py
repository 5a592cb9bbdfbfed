"""Servers that all acceptance tests share, and a rig for each test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_agent.model import Tag, ValueType
from edge_agent.simulator import rebind
from tests.acceptance import namespaces, replication_rig
from tests.acceptance.rig import HASTY_TIMEOUT_S, Rig, Servers
from tests.influx_server import Influx
from tests.integration.plc_database import FLAVOURS, Cluster
from tests.plant import make_tags

MakeRig = Callable[..., Rig]

SHORT_OUTAGE_S = 3.0
FULL_OUTAGE_S = 20.0


@pytest.fixture(params=[SHORT_OUTAGE_S, pytest.param(FULL_OUTAGE_S, marks=pytest.mark.long)])
def outage_s(request: pytest.FixtureRequest) -> float:
    """How long a server is away: short in `make test`, in full in `make acceptance`."""
    return float(request.param)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """PostgreSQL and InfluxDB.

    Not in pytest's folder: every start of pytest makes that one private to its user again, and
    PostgreSQL, which runs as another one, has to be able to start again.
    """
    with tempfile.TemporaryDirectory(prefix="edge-agent-servers-") as name:
        cluster = Cluster(Path(name) / "postgres")
        try:
            with Influx(Path(name) / "influx") as influx:
                yield Servers(cluster, influx)
        finally:
            cluster.server.stop()


def plant_tags() -> list[Tag]:
    """400 tags, 1,300 samples/s, four PLCs; some are BOOL, some have Korean names."""
    return rebind(
        [_varied(index, tag) for index, tag in enumerate(make_tags(400, per_connection=100))]
    )


def _varied(index: int, tag: Tag) -> Tag:
    tag = replace(tag, period_ms=(200, 200, 500, 1000)[index % 4])
    if index % 20 != 6:
        return tag
    switch = replace(tag, type=ValueType.BOOL, address=f"co:{index}", tag=f"상태 {index}")
    return replace(switch, precision=None, hi=None, lo=None, unit="")


def many_tags(count: int = 2000) -> list[Tag]:
    """Tags at 200 ms: five samples a second of each."""
    return rebind(make_tags(count, 200, per_connection=500))


@pytest.fixture
def make_rig(tmp_path: Path, servers: Servers) -> Iterator[MakeRig]:
    """Builds rigs that are taken down at the end of the test."""
    with ExitStack() as stack:

        def make(tags: list[Tag] | None = None, **options: Any) -> Rig:
            folder = tmp_path / "rig"
            folder.mkdir()
            return stack.enter_context(Rig(folder, servers, tags or plant_tags(), **options))

        yield make


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    """The usual plant."""
    return make_rig()


@pytest.fixture
def hasty_rig(make_rig: MakeRig) -> Rig:
    """The usual plant; a stop does not wait long for a server that is away."""
    return make_rig(shutdown_timeout_s=HASTY_TIMEOUT_S)


# -- replication: an edge and a remote, in both flavours ------------------------------------------


@pytest.fixture(scope="session", params=FLAVOURS)
def sides(request: pytest.FixtureRequest) -> Iterator[replication_rig.Sides]:
    """Both servers of a flavour, with default settings but for what replication needs."""
    with (
        tempfile.TemporaryDirectory(prefix="edge-agent-sides-") as name,
        replication_rig.servers(Path(name), request.param) as found,
    ):
        yield found


@pytest.fixture
def replication(sides: replication_rig.Sides, tmp_path: Path) -> Iterator[replication_rig.Rig]:
    """An edge with the schema, a remote that is empty, and `edge-remote`."""
    with replication_rig.Rig(sides, tmp_path) as rig:
        yield rig


@pytest.fixture
def far_replication(sides: replication_rig.Sides, tmp_path: Path) -> Iterator[replication_rig.Rig]:
    """The same, with the edge in a network namespace of its own."""
    with ExitStack() as stack:
        space = stack.enter_context(namespaces.namespace())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-agent-far-")))
        far = stack.enter_context(replication_rig.far_edge(folder, sides, space))
        yield stack.enter_context(replication_rig.Rig(far, tmp_path, space))
