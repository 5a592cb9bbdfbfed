"""How long to wait for who did not answer, and how long to leave it alone. Pure.

On one line requests follow each other, so that what fails costs those beside it time. Three rules
keep that small, and the return quick:

* What is in doubt is asked last, when all others of its scan have been read. Then it costs time
  only if another one has become due before it is given up.
* What fails again is asked less often: not left out after the first failure, then for 1, 3, 7 ...
  of its periods, until all that it costs others is a twentieth of the line's time (``SHARE``).
  What costs them nothing, or a round trip, is asked each second period for ever; a timeout of 1 s
  for which others wait makes pauses of up to 20 s.
* Who has answered within milliseconds need not be given a whole second to be found silent. While
  it is in doubt it has twice as long as its answers usually take at most (`AnswerTime`), or those
  of its neighbours if it was never heard. Now and then (``FULL_EACH``) it has all of its time, in
  case that it is slow, or has become so.

Short waits are wrong for one kind of line: a gateway that goes on waiting for the silent unit and
keeps the next request until then. It shows in that next request, which then takes a good part of
the timeout, each time; `Doubts.overtaken` notices it, and from then on everybody on this line has
all of its time.

Source: RFC 6298, section 2, for what an answer usually takes at most.
"""

from __future__ import annotations

from typing import Final

SHARE: Final = 20
"""What fails may cost one part in so many of the line's time."""
PAUSE_MAX_S: Final = 30.0
"""A block that goes on failing is tried at least this often."""
UNIT_PAUSE_MAX_S: Final = 10.0
"""And a unit that does not answer; it has more tags to lose."""
DOUBT_FACTOR: Final = 2.0
DOUBT_MIN_S: Final = 0.02
"""A hiccup of a scheduler is no silence."""
FULL_EACH: Final = 32
OVERTAKEN_MAX: Final = 3
"""Fewer are chance: the machine was busy, or the device."""


class Pauses:
    """Of one block or unit: whether it may be asked."""

    def __init__(self, period_s: float, max_s: float) -> None:
        self.failures = 0
        """In a row."""
        self._period_s = period_s
        self._max_s = max_s
        self._not_before = float("-inf")

    def is_due(self, now: float) -> bool:
        """Whether it may be asked."""
        return now >= self._not_before

    def failed(self, now: float, cost_s: float, *, known: bool = True) -> None:
        """It failed, for which others waited ``cost_s``.

        One that is not ``known`` to work pauses at once.
        """
        self.failures += 1
        periods = 2 ** min(self.failures - known, 32) - 1
        pause_s = min(periods * self._period_s, max(self._period_s, SHARE * cost_s), self._max_s)
        # Half a period more, so that the tick after the pause is never missed by a hair.
        self._not_before = now + pause_s + self._period_s / 2

    def end(self) -> None:
        """It may be asked; its failures still count."""
        self._not_before = float("-inf")

    def answered(self) -> None:
        """It works."""
        self.failures = 0
        self._not_before = float("-inf")


class AnswerTime:
    """How long answers take: mean and deviation, of about the last eight."""

    def __init__(self) -> None:
        self._mean_s = 0.0
        self._deviation_s = 0.0

    @property
    def most_s(self) -> float:
        """What they usually take at most; 0 before the first one."""
        return self._mean_s + 4 * self._deviation_s

    def took(self, took_s: float) -> None:
        """Count one answer."""
        if not self._mean_s:
            self._mean_s, self._deviation_s = took_s, took_s / 2
            return
        self._deviation_s += (abs(self._mean_s - took_s) - self._deviation_s) / 4
        self._mean_s += (took_s - self._mean_s) / 8


class Doubts:
    """Of one line: whether those in doubt may be given less time than they are entitled to."""

    def __init__(self) -> None:
        self._hurried = False
        self._overtaken = 0
        """So often in a row."""

    @property
    def may_hurry(self) -> bool:
        """Whether it does no harm."""
        return self._overtaken < OVERTAKEN_MAX

    def wait_s(self, timeout_s: float, usual: AnswerTime, failures: int) -> float:
        """How long to wait for an answer of someone that failed so often in a row."""
        if not self.may_hurry or not usual.most_s or failures % FULL_EACH == FULL_EACH - 1:
            return timeout_s
        return min(timeout_s, max(DOUBT_MIN_S, DOUBT_FACTOR * usual.most_s))

    def hurried(self) -> None:
        """Someone was given up before its time."""
        self._hurried = True

    def overtaken(self, took_s: float, timeout_s: float) -> bool:
        """Whether this exchange, of someone else, shows for good that the line still waited."""
        if not self._hurried or not self.may_hurry:
            return False
        self._hurried = False
        self._overtaken = self._overtaken + 1 if took_s > timeout_s / 4 else 0
        return not self.may_hurry
