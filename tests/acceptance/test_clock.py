"""A wall clock that jumps. libfaketime sets the agent's; everybody else keeps the right time."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from edge_agent.simulator.signals import matches
from tests.acceptance.conftest import MakeRig, plant_tags
from tests.acceptance.recorder import Sample
from tests.acceptance.rig import LATE_MS, Rig

HOUR_S = 3600
OFFSETS_S = (0, HOUR_S, 0, -HOUR_S, -8, 0)
"""An hour forth and back, an hour back and forth, and eight seconds back into known times."""
PHASE_S = 3.0
TAGS_STEP = 5
"""A fifth of the plant's tags: libfaketime makes each look at the clock expensive."""
SLACK_MS = 2_000
"""The agent's clock follows within a second; a reply may be read a little later."""
GAP_MS_MAX = 6_000
"""Less than the smallest jump back, which would stop a poller that goes by the wall clock."""

LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")


@dataclass(frozen=True)
class Phase:
    """From when to when, in true milliseconds, the agent's clock was how wrong."""

    start_ms: int
    end_ms: int
    offset_ms: int

    def covers(self, agent_ms: int) -> bool:
        """Whether the agent could read this time during the phase."""
        true_ms = agent_ms - self.offset_ms
        return self.start_ms - SLACK_MS <= true_ms <= self.end_ms + SLACK_MS


def library() -> Path:
    """Where libfaketime is."""
    for pattern in LIBRARIES:
        for found in Path("/").glob(pattern.removeprefix("/")):
            return found
    pytest.skip("libfaketime is not installed; `make test` installs it")


@pytest.mark.long
def test_wall_clock_set_back_and_forth(make_rig: MakeRig, tmp_path: Path) -> None:
    """Scans neither stop nor double when the clock jumps, and every sample is delivered.

    A time that comes twice gives two samples of one tag the same key. Then the first row stays in
    PostgreSQL and the other is counted as a duplicate; both are on MQTT.
    """
    clock = tmp_path / "clock"
    clock.write_text("+0")
    rig: Rig = make_rig(
        plant_tags()[::TAGS_STEP],
        environ={
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            # The file is read once a second: reading it at each look at the clock takes seconds.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        },
    )
    rig.agent.start()
    rig.settle()
    phases = []
    for offset_s in OFFSETS_S:
        start_ms = rig.now_ms()
        # In place of the old file at once: the agent never reads half a number.
        fresh = clock.with_suffix(".new")
        fresh.write_text(f"{offset_s:+d}")
        fresh.replace(clock)
        time.sleep(PHASE_S)
        phases.append(Phase(start_ms, rig.now_ms(), offset_s * 1000))
    phases[0] = Phase(0, phases[0].end_ms, 0)
    phases[-1] = Phase(phases[-1].start_ms, 1 << 62, 0)
    rig.settle()
    rig.stop_orderly()
    evidence = rig.evidence()
    evidence.check_books()
    messages = evidence.sets["mqtt"]

    keys = {sample[:4] for sample in messages}
    collisions = evidence.taken - len(keys)
    assert len(evidence.sets["postgres"]) == len(keys)
    assert evidence.sinks["postgres"]["duplicates"] == collisions
    for sink in ("postgres", "influx", "store"):
        assert evidence.sets[sink] <= messages
        assert {sample[:4] for sample in evidence.sets[sink]} == keys
    for sink, row in evidence.sinks.items():
        assert row["delivered"] == evidence.taken, sink

    def was_true(sample: Sample) -> bool:
        tag = evidence.tags[sample[:3]]
        return any(
            phase.covers(sample[3])
            and matches(tag, sample[3] - phase.offset_ms, sample[4], late_ms=LATE_MS)
            for phase in phases
        )

    wrong = [sample for sample in messages if not was_true(sample)]
    assert not wrong, f"{len(wrong)} values the PLC never had, first {wrong[:3]}"
    check_scans(rig, phases)


def check_scans(rig: Rig, phases: list[Phase]) -> None:
    """In true time no tag was left out for long, none read more often than its period says.

    Messages of a tag arrive in the order of its scans, so the phases can be followed along.
    """
    offsets = [phase.offset_ms for phase in phases]
    at: Counter[tuple[str, str, str]] = Counter()
    true_ms: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for key, ts_ms in rig.recorder.arrivals():
        while not (phases[at[key]].covers(ts_ms) and after(true_ms[key], ts_ms - offsets[at[key]])):
            at[key] += 1
            assert at[key] < len(phases), f"{key} at {ts_ms} belongs to no phase"
        true_ms[key].append(ts_ms - offsets[at[key]])
    for tag in rig.tags:
        times = true_ms[tag.key]
        gap_ms, since_ms = max((b - a, a) for a, b in pairwise(times))
        assert gap_ms < GAP_MS_MAX, f"{tag.key} was not read for {gap_ms} ms from {since_ms} on"
        expected = (times[-1] - times[0]) / tag.period_ms + 1
        assert len(times) <= expected + 1, f"{tag.key} was read too often"


def after(times: list[int], true_ms: int) -> bool:
    """Whether a sample can follow those."""
    return not times or true_ms > times[-1]
