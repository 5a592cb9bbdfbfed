"""When scans happen: a fixed grid, overruns that are counted, and pauses that grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.schedule import EARLY_S, WAIT_MIN_S, Backoff, Schedule, Step

START = 1_000.0
SLACK_S = 1e-6
"""What adding periods up in floating point may cost in these tests."""


@dataclass(slots=True)
class Run:
    """What a poller with nothing else to do makes of a schedule, on a clock of its own."""

    steps: list[tuple[float, Step]] = field(default_factory=list)
    """Every block with the time at which its request was sent."""
    now: float = START

    def until(
        self, schedule: Schedule, end: float, read_s: Callable[[Step], float]
    ) -> list[tuple[float, Step]]:
        while self.now < end:
            step = schedule.next_step(self.now)
            if step is None:
                self.now += schedule.wait_s(self.now)
                continue
            self.steps.append((self.now, step))
            self.now += read_s(step)
            schedule.finish(step, self.now)
        return self.steps

    def starts(self, scan_class: int) -> list[float]:
        """Times at which the scans of one class began."""
        return [at for at, step in self.steps if step.scan_class == scan_class and step.block == 0]


periods = st.sampled_from([0.2, 0.25, 0.3, 0.5, 1.0, 2.0, 7.0])
blocks = st.integers(1, 6)
classes = st.lists(st.tuples(periods, blocks), min_size=1, max_size=4)
durations = st.lists(st.floats(0, 0.9), min_size=1, max_size=8)


def in_turn(values: Sequence[float]) -> Callable[[Step], float]:
    """Reads that take these durations, again and again."""
    state = {"at": -1}

    def read_s(_: Step) -> float:
        state["at"] += 1
        return values[state["at"] % len(values)]

    return read_s


@given(classes, durations)
def test_every_tick_is_scanned_or_counted_as_overrun(
    plan: list[tuple[float, int]], read_s: list[float]
) -> None:
    """Whatever reads take, ticks passed = scans begun + overruns, and no tick is scanned twice."""
    schedule, run = Schedule(plan, START), Run()
    run.until(schedule, START + 30, in_turn(read_s))
    begun = 0
    for index, (period_s, _) in enumerate(plan):
        ticks = [round((at + EARLY_S - START) // period_s) for at in run.starts(index)]
        assert ticks == sorted(set(ticks)), "two scans for one tick"
        begun += len(ticks)
    # The last scan of a class may still run, or wait for its turn: its ticks are not settled yet.
    settled = sum(round((scan.due - START) / scan.period_s) for scan in schedule._scans)
    running = sum(scan.blocks_done > 0 for scan in schedule._scans)
    assert begun + schedule.overruns == settled + running


@given(periods, blocks, st.floats(0, 0.99))
def test_ticks_stand_on_a_grid_that_does_not_drift(
    period_s: float, count: int, load: float
) -> None:
    """A scan that fits into its period starts at start + n * period, however long it takes."""
    schedule, run = Schedule([(period_s, count)], START), Run()
    run.until(schedule, START + 100 * period_s, lambda _: load * (period_s - 2 * EARLY_S) / count)
    starts = run.starts(0)
    assert len(starts) >= 100
    for number, at in enumerate(starts):
        # Early by what counts as now, late by the shortest sleep.
        assert -EARLY_S - SLACK_S <= at - (START + number * period_s) <= WAIT_MIN_S + SLACK_S
    assert schedule.overruns == 0


@given(st.integers(2, 40), st.floats(0.001, 0.15), blocks)
def test_a_fast_class_waits_for_one_block_of_a_slow_one_at_most(
    slow_blocks: int, block_s: float, fast_blocks: int
) -> None:
    """Also when the slow scan overruns its period again and again."""
    fast_s = fast_blocks * block_s + 0.2
    schedule, run = Schedule([(fast_s, fast_blocks), (2 * fast_s, slow_blocks)], START), Run()
    run.until(schedule, START + 20, lambda _: block_s)
    for at, step in run.steps:
        if step.scan_class == 0 and step.late_s is not None:
            assert step.late_s <= block_s + WAIT_MIN_S + SLACK_S, at


@given(st.floats(0.0, 3.0), st.integers(1, 3))
def test_a_fast_class_that_takes_too_long_does_not_starve_a_slow_one(
    block_s: float, fast_blocks: int
) -> None:
    """A tick overrun leaves a pause, and the slow class has it."""
    schedule, run = Schedule([(0.2, fast_blocks), (1.0, 3)], START), Run()
    run.until(schedule, START + 60 + 20 * fast_blocks * block_s, lambda _: block_s)
    assert {step.block for _, step in run.steps if step.scan_class == 1} == {0, 1, 2}


@pytest.mark.parametrize("took_s", [0.1996, 0.2, 0.2004, 0.4, 1.0, 3.0])
def test_a_scan_as_long_as_its_period_leaves_a_gap(took_s: float) -> None:
    """A scan that ends within a moment of its next tick has overrun it; it is never due at once."""
    schedule = Schedule([(0.2, 1)], START)
    step = schedule.next_step(START)
    assert step is not None
    schedule.finish(step, START + took_s)
    assert schedule.next_step(START + took_s) is None
    assert schedule.overruns == math.floor((took_s + EARLY_S) / 0.2)


def test_an_overrun_is_counted_and_not_queued_up() -> None:
    """A scan of 2.5 periods leaves out two ticks; the next scan starts on the third."""
    schedule = Schedule([(1.0, 1)], START)
    step = schedule.next_step(START)
    assert step is not None
    schedule.finish(step, START + 2.5)
    assert schedule.overruns == 2
    assert schedule.next_step(START + 2.9) is None
    later = schedule.next_step(START + 3.0)
    assert later == Step(0, 0, 0.0, last=True)


def test_only_the_first_block_of_a_scan_knows_how_late_it_is() -> None:
    """late_s is the scan's, so it is counted once."""
    schedule = Schedule([(1.0, 2)], START)
    first = schedule.next_step(START + 0.25)
    assert first == Step(0, 0, 0.25, last=False)
    schedule.finish(first, START + 0.3)
    assert schedule.next_step(START + 0.3) == Step(0, 1, None, last=True)


def test_a_tick_that_is_not_due_gives_nothing() -> None:
    """Before the grid begins there is nothing to read."""
    assert Schedule([(1.0, 1)], START).next_step(START - 1) is None


@given(periods, st.floats(0, 1000), st.integers(0, 3))
def test_after_a_pause_a_class_is_due_once_and_then_on_its_old_grid(
    period_s: float, pause_s: float, done: int
) -> None:
    """However long the pause: one scan now, the next one on the grid, and no overrun."""
    schedule, now = Schedule([(period_s, 4)], START), START
    for _ in range(done):
        step = schedule.next_step(now)
        assert step is not None
        schedule.finish(step, now)
    now += pause_s
    schedule.resume(now)
    for _ in range(4):
        step = schedule.next_step(now)
        assert step is not None
        schedule.finish(step, now)
    assert schedule.overruns == (1 if schedule.overruns else 0), "at most the tick that just came"
    wait_s = schedule.wait_s(now)
    assert wait_s <= period_s + EARLY_S
    ticks = (now + wait_s - START) / period_s
    assert abs(ticks - round(ticks)) < 2 * WAIT_MIN_S / period_s


def test_a_phase_outlives_the_first_resume() -> None:
    """A grid that begins later is not pulled forward by connecting."""
    schedule = Schedule([(1.0, 1)], START + 0.6)
    schedule.resume(START)
    assert schedule.next_step(START) is None
    assert schedule.wait_s(START) == pytest.approx(0.6)


def test_a_broken_connection_costs_a_block_one_more_attempt() -> None:
    """A device that drops an idle connection is asked again; the sample is not left out."""
    schedule = Schedule([(300.0, 1)], START)
    step = schedule.next_step(START)
    assert step is not None
    schedule.interrupt(step, START)
    schedule.resume(START + 1)
    again = schedule.next_step(START + 1)
    assert again is not None
    assert again.block == 0
    schedule.finish(again, START + 1)
    assert schedule.next_step(START + 2) is None


def test_a_block_that_breaks_the_connection_each_time_does_not_cost_those_behind_it() -> None:
    """After the second failure the scan goes on with the next block, and comes round again."""
    schedule, now, read = Schedule([(1.0, 3)], START), START, []
    for _ in range(12):
        step = schedule.next_step(now)
        if step is None:
            now += schedule.wait_s(now)
            continue
        read.append(step.block)
        if step.block == 1:
            schedule.interrupt(step, now)
            schedule.resume(now)
        else:
            schedule.finish(step, now)
    assert read[:8] == [0, 1, 1, 2, 0, 1, 1, 2]


def test_a_scan_after_an_interruption_reads_every_block() -> None:
    """It begins in the middle and goes once around."""
    schedule = Schedule([(1.0, 3)], START)
    first = schedule.next_step(START)
    assert first is not None
    schedule.finish(first, START)
    schedule.resume(START + 0.1)
    read = []
    while (step := schedule.next_step(START + 0.1)) is not None:
        read.append((step.block, step.last))
        schedule.finish(step, START + 0.1)
    assert read == [(1, False), (2, False), (0, True)]


@pytest.mark.parametrize(
    ("doubted", "order"),
    [({0}, "1230"), ({1, 2}, "0312"), ({3}, "0123"), ({0, 1, 2, 3}, "3012"), (set(), "0123")],
)
def test_a_postponed_block_comes_behind_the_others_once(doubted: set[int], order: str) -> None:
    """Each block is read once in a scan all the same, and the next scan begins in plan order."""
    schedule, read, late = Schedule([(1.0, 4)], START), "", 0
    for scan in range(2):
        now = START + scan
        while (step := schedule.next_step(now)) is not None:
            if step.block in doubted and scan == 0 and schedule.postpone(step):
                continue
            read += str(step.block)
            late += step.late_s is not None
            schedule.finish(step, now)
    assert read == order + "0123"
    assert late == 2
    assert schedule.overruns == 0


def test_an_interrupted_scan_keeps_its_order() -> None:
    """What was postponed is still behind the others when the scan begins anew in the middle."""
    schedule, read = Schedule([(1.0, 3)], START), []
    first = schedule.next_step(START)
    assert first is not None
    assert schedule.postpone(first)
    second = schedule.next_step(START)
    assert second is not None
    schedule.finish(second, START)
    schedule.resume(START + 0.1)
    while (step := schedule.next_step(START + 0.1)) is not None:
        read.append(step.block)
        schedule.finish(step, START + 0.1)
    assert read == [2, 0, 1]


def test_what_holds_others_up() -> None:
    """A step with blocks behind it, or one that lasts into any tick; else it costs nobody time."""
    schedule = Schedule([(1.0, 2), (0.2, 1)], START)
    fast = schedule.next_step(START)
    assert fast == Step(1, 0, 0.0, last=True)
    assert schedule.holds_up(fast, START + 0.1), "the slow class is due"
    schedule.finish(fast, START + 0.1)
    first = schedule.next_step(START + 0.1)
    assert first is not None
    assert schedule.holds_up(first, START + 0.11), "the second block"
    schedule.finish(first, START + 0.11)
    last = schedule.next_step(START + 0.11)
    assert last is not None
    assert not schedule.holds_up(last, START + 0.19)
    assert schedule.holds_up(last, START + 0.2), "the fast class is due again"
    alone = Schedule([(1.0, 1)], START)
    only = alone.next_step(START)
    assert only is not None
    assert not alone.holds_up(only, START + 0.9)
    assert alone.holds_up(only, START + 1.0), "its own next tick"


@given(classes, durations, st.floats(0, 10))
def test_running_only_ends_what_runs_and_starts_nothing(
    plan: list[tuple[float, int]], read_s: list[float], at_s: float
) -> None:
    """An orderly end takes at most the blocks of the scans that are under way."""
    schedule, run = Schedule(plan, START), Run()
    run.until(schedule, START + at_s, in_turn(read_s))
    left = sum(scan.blocks - scan.blocks_done for scan in schedule._scans if scan.blocks_done)
    for _ in range(left):
        step = schedule.next_step(run.now, running_only=True)
        assert step is not None
        assert step.late_s is None, "a scan was started"
        schedule.finish(step, run.now)
    assert schedule.next_step(run.now, running_only=True) is None


@given(classes, st.floats(0, 100))
def test_a_wait_is_never_shorter_than_a_millisecond(
    plan: list[tuple[float, int]], late_s: float
) -> None:
    """No loop spins, however late it is."""
    assert Schedule(plan, START).wait_s(START + late_s) == WAIT_MIN_S


@given(st.floats(0, 1, exclude_max=True))
def test_pauses_double_up_to_a_bound_with_jitter(jitter: float) -> None:
    """Each pause is the half to the full of 1, 2, 4, 5, 5 ... seconds; success begins anew."""
    backoff = Backoff(1.0, 5.0, randomness=lambda: jitter)
    for full_s in (1, 2, 4, 5, 5, 5):
        assert backoff.next_s() == pytest.approx(full_s * (0.5 + jitter / 2))
    backoff.reset()
    assert 0.5 <= backoff.next_s() <= 1.0


def test_pauses_differ_between_connections() -> None:
    """Many that lost their device at once do not knock at once."""
    assert len({Backoff(1.0, 5.0).next_s() for _ in range(20)}) == 20


# -- another plan of the same connection ---------------------------------------------------------


def test_a_class_keeps_its_grid_under_another_plan() -> None:
    """Whatever is added beside it; a new period begins at once, on a grid of its own."""
    before = Schedule([(1.0, 1)], START + 0.25)
    after = Schedule([(0.5, 1), (1.0, 2)], START + 0.1)
    after.adopt(before, {(1, 0): [(0, 0)]})
    assert after.next_step(START + 0.1) == Step(0, 0, 0.0, last=True)
    after.finish(Step(0, 0, 0.0, last=True), START + 0.1)
    assert after.wait_s(START + 0.1) == pytest.approx(0.15)
    step = after.next_step(START + 0.25)
    assert step is not None
    assert (step.scan_class, step.late_s) == (1, 0.0)


def test_what_a_running_scan_has_read_is_not_read_again() -> None:
    """Block 1 was read and 0 was not; of block 2 one tag was, and it has a new one."""
    before = Schedule([(1.0, 4)], START)
    for _ in range(2):
        step = before.next_step(START)
        assert step is not None
        before.finish(step, START)
    after = Schedule([(1.0, 3)], START)
    after.adopt(before, {(0, 0): [(0, 2)], (0, 1): [(0, 0), (0, 1)]})
    read = []
    while (step := after.next_step(START)) is not None:
        read.append((step.block, step.late_s, step.last))
        after.finish(step, START)
    assert read == [(0, None, False), (2, None, True)]
    assert after.wait_s(START) == pytest.approx(1.0)


def test_a_running_scan_of_which_nothing_is_left_is_over() -> None:
    """The blocks that were still to be read are gone: the next scan is that of the next tick."""
    before = Schedule([(1.0, 2)], START)
    step = before.next_step(START)
    assert step is not None
    before.finish(step, START)
    after = Schedule([(1.0, 1)], START)
    after.adopt(before, {(0, 0): [(0, 0)]})
    assert after.next_step(START + 0.5) is None
    assert after.next_step(START + 1) == Step(0, 0, 0.0, last=True)


def test_overruns_are_counted_on() -> None:
    """Also those of a period that no longer is."""
    before = Schedule([(1.0, 1)], START)
    step = before.next_step(START)
    assert step is not None
    before.finish(step, START + 2.5)
    after = Schedule([(7.0, 1)], START + 3)
    after.adopt(before, {})
    assert after.overruns == 2
