"""How long to wait for who did not answer, and how long to leave it alone."""

from __future__ import annotations

import pytest

from edge_agent.pipeline.patience import (
    DOUBT_MIN_S,
    FULL_EACH,
    PAUSE_MAX_S,
    SHARE,
    AnswerTime,
    Doubts,
    Pauses,
)

TIMEOUT_S = 1.0


def answers(*all_s: float) -> AnswerTime:
    made = AnswerTime()
    for took_s in all_s:
        made.took(took_s)
    return made


def ticks(pauses: Pauses, took_s: float, attempts: int = 9, *, known: bool = True) -> list[int]:
    """After how many ticks of a second it is asked again, each time that it fails."""
    now, found = 0, []
    for _ in range(attempts):
        pauses.failed(now + took_s, took_s, known=known)
        tick = now + 1
        while not pauses.is_due(tick):
            tick += 1
        found.append(tick - now)
        now = tick
    return found


@pytest.mark.parametrize(
    ("took_s", "expected"),
    [
        (0.0, [1, 2, 2, 2, 2, 2, 2, 2, 2]),  # nobody waits for it
        (0.002, [1, 2, 2, 2, 2, 2, 2, 2, 2]),  # an exception: each second period
        (0.25, [1, 2, 4, 6, 6, 6, 6, 6, 6]),  # 20 times 0.25 s
        (0.4, [1, 2, 4, 8, 9, 9, 9, 9, 9]),
        (5.0, [6, 7, 9, 13, 21, 36, 36, 36, 36]),  # never more than 30 s after its end
    ],
)
def test_who_goes_on_failing_is_asked_less_and_less(took_s: float, expected: list[int]) -> None:
    """Not left out after the first failure; then 1, 3, 7 periods, up to what its time is worth."""
    assert ticks(Pauses(1.0, PAUSE_MAX_S), took_s) == expected


def test_what_fails_costs_a_small_part_of_the_lines_time() -> None:
    """In the long run one part in SHARE, whatever a failure takes."""
    for took_s in (0.05, 0.2, 1.0):
        found = ticks(Pauses(1.0, PAUSE_MAX_S), took_s, attempts=40)
        assert took_s / found[-1] <= 1 / SHARE, took_s


def test_who_never_worked_pauses_at_once() -> None:
    """The other blocks of a unit that was dead from the start must not each wait in vain."""
    pauses = Pauses(1.0, 10.0)
    pauses.failed(0.0, TIMEOUT_S, known=False)
    assert not pauses.is_due(1.0)
    assert pauses.is_due(2.0)


def test_an_answer_ends_everything_and_a_reconnect_the_pause_only() -> None:
    """After a reconnect it is asked at once, but is in doubt until it answers."""
    pauses = Pauses(1.0, 10.0)
    for now in (0.0, 2.0, 6.0):
        pauses.failed(now, TIMEOUT_S)
    pauses.end()
    assert pauses.is_due(6.0)
    assert pauses.failures == 3
    pauses.failed(6.0, TIMEOUT_S)
    assert not pauses.is_due(12.0)
    pauses.answered()
    assert pauses.is_due(6.0)
    assert pauses.failures == 0


def test_who_answered_fast_is_not_waited_for_long() -> None:
    """Twice what is usual, at least 20 ms, at most the timeout; now and then all of it."""
    doubts = Doubts()
    assert doubts.wait_s(TIMEOUT_S, answers(0.001, 0.002), 1) == DOUBT_MIN_S
    assert doubts.wait_s(TIMEOUT_S, answers(*[0.1] * 50), 1) == pytest.approx(0.2, rel=0.01)
    assert doubts.wait_s(TIMEOUT_S, answers(*[0.1, 0.2] * 50), 1) == pytest.approx(0.7, rel=0.1)
    assert doubts.wait_s(TIMEOUT_S, answers(0.3), 1) == TIMEOUT_S
    assert doubts.wait_s(TIMEOUT_S, answers(), 1) == TIMEOUT_S
    waits = [doubts.wait_s(TIMEOUT_S, answers(0.001), n) for n in range(1, 2 * FULL_EACH)]
    assert waits.count(TIMEOUT_S) == 2 - (waits[-1] != TIMEOUT_S)
    assert waits.count(DOUBT_MIN_S) == len(waits) - waits.count(TIMEOUT_S)


def test_a_hiccup_is_forgotten_soon() -> None:
    """One slow answer must not take the short waits away for long."""
    assert answers(*[0.001] * 20, 0.5).most_s > 0.5
    assert answers(*[0.001] * 20, 0.5, *[0.001] * 30).most_s < 0.02


def test_a_line_that_goes_on_waiting_is_noticed() -> None:
    """Who is asked next waits too, three times in a row: nobody is hurried any more."""
    doubts, quick = Doubts(), answers(0.002)
    for took_s in (0.9, 0.9, 0.9, 0.9):
        assert not doubts.overtaken(took_s, TIMEOUT_S)  # nobody was hurried
    for took_s in (0.9, 0.9, 0.003, 0.9, 0.9):
        doubts.hurried()
        assert not doubts.overtaken(took_s, TIMEOUT_S)  # chance
    assert doubts.wait_s(TIMEOUT_S, quick, 1) == DOUBT_MIN_S
    doubts.hurried()
    assert doubts.overtaken(0.9, TIMEOUT_S)
    assert doubts.wait_s(TIMEOUT_S, quick, 1) == TIMEOUT_S
    doubts.hurried()
    assert not doubts.overtaken(0.9, TIMEOUT_S)  # said once
