"""500 devices on 50 connections, some of them dead: what those beside them notice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from edge_agent import address_map
from edge_agent.model import Tag
from edge_agent.simulator import rebind
from edge_agent.store.reader import StoreReader
from tests.plant import Agent, Simulator, make_tags
from tests.servers import wait_until

CONNECTIONS, UNITS, TAGS_PER_UNIT = 50, 10, 2
PERIOD_MS = 1000
DIE_S = 15
"""Seconds after its start at which the simulator lets half of the dead ones die."""
WATCHED_S = 45
LATE_MS_MAX = 50
GAP_MS_MAX = 2 * PERIOD_MS - 100
"""Between two samples, if no scan is left out and both are a bit off."""


def plant() -> list[Tag]:
    """Ten units on each connection, as behind a gateway."""
    tags = make_tags(
        CONNECTIONS * UNITS * TAGS_PER_UNIT, PERIOD_MS, per_connection=UNITS * TAGS_PER_UNIT
    )
    return rebind(
        [
            replace(
                tag,
                unit_id=index // TAGS_PER_UNIT % UNITS + 1,
                device=f"DEVICE{index // TAGS_PER_UNIT:03d}",
                precision=None,
            )
            for index, tag in enumerate(tags)
        ]
    )


def dead(conn: str, unit_id: int, from_s: int) -> str:
    """A unit that says nothing from then on."""
    return f'[[fault]]\nkind = "dead"\nconn = "{conn}"\nunit = {unit_id}\nfrom_s = {from_s}\n'


def late_ms(times: Mapping[str, Sequence[int]]) -> list[int]:
    """By how much each sample missed its second: the samples of a device stand on a grid."""
    found = []
    for device in times.values():
        phases = sorted(ts % PERIOD_MS for ts in device)
        usual = phases[len(phases) // 2]
        found += [abs((ts - usual + PERIOD_MS // 2) % PERIOD_MS - PERIOD_MS // 2) for ts in device]
    return sorted(found)


@pytest.mark.long
def test_ten_of_five_hundred_devices_are_dead(tmp_path: Path) -> None:
    """Those beside them on the same lines, and all others, are read each second and on time.

    Ten lines have a dead unit each: five were never heard, five die while they are read. The first
    timeout, which is as long as the period, may cost those on its own line one scan; no other is
    left out, and 99 of 100 are less than 50 ms off.
    """
    tags = plant()
    conns = list(dict.fromkeys(tag.conn for tag in tags))
    faults = "".join(dead(conn, 4, 0) for conn in conns[:5])
    faults += "".join(dead(conn, 7, DIE_S) for conn in conns[5:10])
    gone = {tag.device for tag in tags if tag.conn in conns[:5] and tag.unit_id == 4}
    gone |= {tag.device for tag in tags if tag.conn in conns[5:10] and tag.unit_id == 7}
    assert len(gone) == 10
    map_path = tmp_path / "address_map.csv"
    address_map.write(map_path, tags)
    agent = Agent(tmp_path / "agent", map_path)
    agent.configure(["[store]\nenabled = true"])
    with Simulator(tmp_path / "plc", tags, faults=faults), agent:
        wait_until(lambda: taken(agent) > WATCHED_S * len(tags) * 0.95, "samples", 3 * WATCHED_S)
        agent.stop()
    times: dict[str, list[int]] = defaultdict(list)
    reader = StoreReader(agent.data_dir / "store.db")
    for series in reader.series():
        times[series.device] += reader.raw(series, 0, 1 << 42)[0]
    well = {device: sorted(set(ts)) for device, ts in times.items() if device not in gone}
    assert len(well) == CONNECTIONS * UNITS - len(gone)
    beside = {tag.device for tag in tags if tag.conn in conns[:10]}
    missed = {
        device: sum(b - a > GAP_MS_MAX for a, b in pairwise(ts)) - (device in beside)
        for device, ts in well.items()
    }
    late = late_ms(well)
    p99 = late[len(late) * 99 // 100]
    print(f"{len(late)} scans, late p99 {p99} ms, at most {late[-1]} ms")
    assert p99 < LATE_MS_MAX
    assert not {device: scans for device, scans in missed.items() if scans > 0}


def taken(agent: Agent) -> int:
    """Samples taken so far."""
    status = agent.status()
    return 0 if status is None else int(status["journal"]["taken"])
