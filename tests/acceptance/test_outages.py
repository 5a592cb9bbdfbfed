"""A broker or a database that goes away and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.acceptance.conftest import MakeRig
from tests.acceptance.proxy import Cut, CuttingProxy
from tests.acceptance.rig import Evidence, Rig
from tests.servers import wait_until

WARM_UP_S = 1.0
GAP_MS_MAX = 3_000
"""Scans go on whatever a sink does; this is for a busy machine, not for a pause of the pollers."""


def check_scans_went_on(evidence: Evidence) -> None:
    """No tag was left unread for longer than its own period and a busy machine explain."""
    late = {key: gap for key, gap in evidence.gaps_ms().items() if gap > GAP_MS_MAX}
    assert not late, f"{len(late)} tags were not read, first {next(iter(late.items()))}"


def test_broker_stopped(rig: Rig, outage_s: float) -> None:
    """While the broker is away the other sinks go on; it gets everything when it is back."""
    rig.agent.start()
    rig.settle()
    rig.broker.stop()
    rig.run_for(outage_s)
    away = rig.sink("mqtt")
    assert away["error"]
    assert away["pending"] > rig.rate * outage_s / 2
    for name in ("postgres", "influx", "store"):
        assert rig.sink(name)["lag_s"] < 3
        assert rig.sink(name)["error"] is None
    rig.broker.start()
    rig.settle()
    rig.stop_orderly()
    evidence = rig.evidence()
    evidence.check_all()
    check_scans_went_on(evidence)


def test_broker_killed(rig: Rig) -> None:
    """kill -9 of the broker: the agent delivers again whatever the broker had not confirmed.

    What the broker had confirmed and then lost from its own memory is its loss, not the agent's:
    only samples of the last moments before a kill may be missing at the subscriber.
    """
    rig.agent.start()
    rig.settle()
    rig.persist_session()
    kills_ms = []
    for _ in range(3):
        rig.wait_taken(500)
        kills_ms.append(rig.now_ms())
        rig.broker.kill()
        rig.run_for(WARM_UP_S)
        rig.broker.start()
        rig.settle()
    rig.stop_orderly()
    evidence = rig.evidence()
    lacking = evidence.sets["postgres"] - evidence.sets["mqtt"]
    for sample in lacking:
        assert any(kill - 2_000 < sample[3] <= kill for kill in kills_ms), sample
    evidence.sets["mqtt"].update(lacking)
    evidence.check_all()


def test_database_stopped(rig: Rig, outage_s: float) -> None:
    """While the database is away the other sinks go on; it gets every row when it is back."""
    rig.agent.start()
    rig.settle()
    rig.cluster.server.stop()
    try:
        rig.run_for(outage_s)
        away = rig.sink("postgres")
        assert away["error"]
        assert away["pending"] > rig.rate * outage_s / 2
        for name in ("mqtt", "influx", "store"):
            assert rig.sink(name)["lag_s"] < 3
            assert rig.sink(name)["error"] is None
    finally:
        rig.cluster.server.start()
    rig.settle()
    rig.stop_orderly()
    evidence = rig.evidence()
    evidence.check_all()
    check_scans_went_on(evidence)


def test_everything_down_and_the_agent_restarted(hasty_rig: Rig, outage_s: float) -> None:
    """Broker, database and InfluxDB away, the agent restarted in order and by kill -9 meanwhile."""
    rig = hasty_rig
    rig.agent.start()
    rig.settle()
    rig.broker.stop()
    rig.cluster.server.stop()
    rig.influx.stop()
    try:
        rig.run_for(outage_s / 3)
        rig.stop_orderly()
        rig.agent.start()
        rig.run_for(outage_s / 3)
        rig.agent.kill()
        rig.agent.start()
        rig.run_for(outage_s / 3)
    finally:
        rig.cluster.server.start()
        rig.influx.start()
    rig.broker.start()
    rig.settle()
    rig.stop_orderly()
    rig.evidence().check_all()


def test_started_before_all_servers(rig: Rig) -> None:
    """The agent starts with every server down, takes samples, and delivers when they come up."""
    rig.broker.stop()
    rig.cluster.server.stop()
    rig.influx.stop()
    try:
        rig.agent.start()
        rig.wait_taken(1_000)
    finally:
        rig.cluster.server.start()
        rig.influx.start()
    rig.broker.start()
    rig.settle()
    rig.stop_orderly()
    rig.evidence().check_all()


@pytest.fixture
def proxied(make_rig: MakeRig) -> Iterator[tuple[Rig, CuttingProxy]]:
    """A plant whose agent reaches the database through a proxy."""
    proxies: list[CuttingProxy] = []

    def through(port: int) -> int:
        proxies.append(CuttingProxy(port))
        return proxies[0].port

    rig = make_rig(database_port=through)
    with proxies[0] as proxy:
        yield rig, proxy


def test_database_connection_cut(proxied: tuple[Rig, CuttingProxy]) -> None:
    """The connection breaks in the middle of a COPY, and right before and after a COMMIT.

    After a COMMIT that got no answer the agent can't know whether the rows are there: its cursor in
    the same transaction tells, so none comes twice and none is left out.
    """
    rig, proxy = proxied
    rig.agent.start()
    rig.settle()
    places: list[Cut | int] = [5_000, Cut.BEFORE_COMMIT, 30_000, Cut.AFTER_COMMIT] * 2
    for number, place in enumerate(places, start=1):
        proxy.arm(place)
        wait_until(partial(proxy.has_cut, number), f"cut {number} at {place}")
        rig.settle()
    rig.stop_orderly()
    rig.evidence().check_all()
