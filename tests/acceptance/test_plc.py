"""PLCs that die, come back, or say nothing."""

from __future__ import annotations

from edge_agent.model import Tag
from tests.acceptance.conftest import MakeRig, plant_tags
from tests.servers import wait_until

AWAY_S = 2.5
MUTE_S = 4.5
"""Longer than three requests without an answer take: the connection is given up."""
LONGEST_PERIOD_S = 1.2
RETURN_MS_MAX = 7_000
"""The poller's longest pause is 5 s; then a connection and a first scan."""
UNTOUCHED_MS_MAX = 2_500
ON_THE_WIRE_MS = 200
"""A reply sent just before its PLC went may be read a little later."""


def shares_of(tags: list[Tag]) -> list[list[Tag]]:
    """The first connection's tags, the second's, and those of all others."""
    conns = list(dict.fromkeys(tag.conn for tag in tags))
    return [[tag for tag in tags if min(conns.index(tag.conn), 2) == share] for share in range(3)]


def test_plcs_killed_and_mute(make_rig: MakeRig) -> None:
    """One PLC dies and comes back, another falls silent for a while, the third notices nothing.

    No value is made up while a PLC is away, every tag is read again soon after, and whatever was
    taken is delivered everywhere.
    """
    tags = plant_tags()
    rig = make_rig(tags, plcs=shares_of(tags))
    killed, mute, well = rig.plcs
    rig.agent.start()
    rig.settle()
    mute.pause()
    silent_ms = rig.now_ms()
    killed.kill()
    dead_ms = rig.now_ms()
    rig.run_for(AWAY_S)
    assert not rig.connected(killed)
    assert rig.connected(well)
    back_ms = rig.now_ms()  # it may be read before start() has seen that it listens
    killed.start()
    rig.run_for(MUTE_S - AWAY_S)
    spoke_ms = rig.now_ms()
    mute.resume()
    wait_until(lambda: rig.connected(killed) and rig.connected(mute), "the PLCs' return")
    rig.run_for(LONGEST_PERIOD_S)
    rig.settle()
    rig.stop_orderly()
    evidence = rig.evidence()
    evidence.check_all()
    times, gaps = evidence.times_ms(), evidence.gaps_ms()
    for plc, gone_ms, here_ms in ((killed, dead_ms, back_ms), (mute, silent_ms, spoke_ms)):
        for tag in plc.tags:
            invented = [ts for ts in times[tag.key] if gone_ms + ON_THE_WIRE_MS < ts < here_ms]
            assert not invented, (tag.key, invented, gone_ms, here_ms)
            assert any(here_ms <= ts < here_ms + RETURN_MS_MAX for ts in times[tag.key]), tag.key
    for tag in well.tags:
        assert gaps[tag.key] < UNTOUCHED_MS_MAX, f"{tag.key}: a neighbour's fault was felt"
