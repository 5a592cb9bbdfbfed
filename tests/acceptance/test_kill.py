"""kill -9 and SIGTERM."""

from __future__ import annotations

import random
import time

from tests.acceptance.conftest import MakeRig, many_tags
from tests.acceptance.rig import Rig

KILLS = 20
LIFE_S = (0.4, 2.0)
LOAD_S = 3.0


def test_killed_at_random_moments(rig: Rig) -> None:
    """kill -9 of the agent at 20 random moments loses no sample taken and writes none twice."""
    moments = random.Random(2)
    for _ in range(KILLS):
        rig.agent.launch()
        time.sleep(moments.uniform(*LIFE_S))
        rig.agent.kill()
    killed = rig.agent.journal()
    at_work = rig.agent.log().count("running: ")
    assert at_work > KILLS / 2, f"only {at_work} of {KILLS} kills met an agent at work"
    rig.agent.start()
    rig.settle()
    rig.stop_orderly()
    evidence = rig.evidence()
    assert evidence.taken > killed["taken"]
    evidence.check_all()


def test_sigterm_under_load(make_rig: MakeRig) -> None:
    """SIGTERM at 10,000 samples/s: exits 0 in time, and nothing waits for any sink."""
    rig = make_rig(many_tags())
    rig.agent.start()
    rig.run_for(LOAD_S)
    rig.stop_orderly()
    evidence = rig.evidence()
    assert evidence.taken > rig.rate * LOAD_S / 2
    evidence.check_all()


def test_sigterm_with_a_sink_away(hasty_rig: Rig) -> None:
    """SIGTERM while the database is away: exits 0 in time; only what is meant for it waits."""
    rig = hasty_rig
    rig.agent.start()
    rig.settle()
    rig.cluster.server.stop()
    try:
        rig.wait_taken(1_000)
        rig.stop_orderly()
    finally:
        rig.cluster.server.start()
    evidence = rig.evidence()
    evidence.check_books()
    evidence.check_rows()
    evidence.check_values()
    everything = evidence.sets["store"]
    assert len(everything) == evidence.taken
    assert evidence.sets["mqtt"] == evidence.sets["influx"] == everything
    held, waiting = evidence.sets["postgres"], evidence.waiting_for("postgres")
    assert len(waiting) == evidence.sinks["postgres"]["pending"] >= 1_000
    assert held.isdisjoint(waiting)
    assert held | waiting == everything
