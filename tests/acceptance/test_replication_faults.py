"""Servers and networks that go away and come back: at the end both sides are equal.

Nobody helps: no command is run after the fault, the subscription recovers by itself.
"""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.acceptance.replication_rig import RATE, Rig

LOSS_SHARE = 0.2
LOSSY_S = 30.0
CUT_S = 30.0


@pytest.fixture(params=[3.0, pytest.param(60.0, marks=pytest.mark.long)])
def away_s(request: pytest.FixtureRequest) -> float:
    """How long a server is away: short in `make test`, in full in `make acceptance`."""
    return float(request.param)


def test_remote_stopped(replication: Rig, away_s: float) -> None:
    """The edge keeps what an absent remote lacks, and it arrives when the remote is back."""
    rig = replication
    rig.edge_remote("setup")
    with rig.writing() as writer:
        rig.wait_flowing()
        rig.sides.remote.stop()
        try:
            time.sleep(away_s)
        finally:
            rig.sides.remote.start()
        rig.wait_flowing()
        writer.stop()
    rig.check_equal()


@pytest.mark.long
def test_remote_killed(replication: Rig) -> None:
    """The remote's server process is killed: what it had confirmed it still has after recovery."""
    rig = replication
    rig.edge_remote("setup")
    with rig.writing() as writer:
        rig.wait_flowing()
        rig.sides.remote.stop(signal.SIGQUIT)
        rig.sides.remote.start()
        rig.wait_flowing()
        writer.stop()
    rig.check_equal()


def test_edge_restarted(replication: Rig, away_s: float) -> None:
    """The edge's database restarts: the writer and the subscription find it again."""
    rig = replication
    rig.edge_remote("setup")
    with rig.writing() as writer:
        rig.wait_flowing()
        rig.sides.edge.stop()
        try:
            time.sleep(away_s)
        finally:
            rig.sides.edge.start()
        rig.wait_flowing()
        said = writer.stop()
    assert said["waited_max_s"] > away_s * 0.9, "the writer did not notice"
    assert rig.check_equal() == said["rows"]


def test_subscription_worker_killed(replication: Rig) -> None:
    """kill -9 of the subscriber's worker takes the remote's whole server down; it comes back."""
    rig = replication
    rig.edge_remote("setup")
    with rig.writing() as writer:
        rig.wait_flowing()
        worker = rig.subscription_worker()
        os.kill(worker, signal.SIGKILL)
        rig.wait(lambda: rig.has_another_worker_than(worker), "another worker runs", 60)
        rig.wait_flowing()
        writer.stop()
    rig.check_equal()


@pytest.mark.long
def test_network_cut(far_replication: Rig) -> None:
    """The link is down for 30 s: neither side is told, and the connection must find out."""
    rig = far_replication
    assert rig.space is not None
    rig.edge_remote("setup")
    with rig.writing() as writer:
        rig.wait_flowing()
        before = rig.remote.rows()
        with rig.space.cut():
            time.sleep(CUT_S)
            arrived = rig.remote.rows() - before
        rig.wait_flowing()
        said = writer.stop()
    assert arrived < 2 * RATE, "the link was not down"
    assert said["waited_max_s"] < CUT_S / 2, "the cut reached the writer"
    assert rig.check_equal() == said["rows"]


@pytest.mark.long
def test_packets_lost(far_replication: Rig) -> None:
    """A fifth of all packets is lost, both ways, for 30 s."""
    rig = far_replication
    assert rig.space is not None
    rig.edge_remote("setup")
    with rig.writing() as writer:
        rig.wait_flowing()
        with rig.space.lossy(LOSS_SHARE):
            time.sleep(LOSSY_S)
            lost = rig.space.lost()
        rig.wait_flowing()
        said = writer.stop()
    assert lost > 20, "nothing was lost"
    assert rig.check_equal() == said["rows"]
