"""Which cells of a unit answer: what to ask next, and what is known by now. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

SILENCES_MAX: Final = 8
"""Requests in a row that a unit may leave unanswered."""
ERRORS_MAX: Final = 8
"""Errors other than refusals by which one of several units is given up if it answers nothing else:
as many as it takes to get from a block of 125 registers down to a single one."""


class Span(NamedTuple):
    """Cells ``start`` to ``start + cells - 1`` of an area, which is named as in `hr:0`."""

    prefix: str
    start: int
    cells: int

    def __str__(self) -> str:
        last = self.start + self.cells - 1
        return f"{self.prefix}:{self.start}" + (f"-{last}" if self.cells > 1 else "")


@dataclass(slots=True)
class UnitScan:
    """What is known of the cells of one unit. ``given_up`` says why the rest was not asked.

    ``alone`` says that no other unit waits for this one to be done with.
    """

    unit_id: int
    alone: bool
    whole: deque[Span]
    halves: deque[Span] = field(default_factory=deque)
    answers: dict[tuple[str, int], int] = field(default_factory=dict)
    refusals: dict[tuple[str, int], str] = field(default_factory=dict)
    given_up: str = ""
    spoke: bool = False
    _silences: int = 0
    _errors: int = 0

    @classmethod
    def over(
        cls, unit_id: int, spans: Iterable[Span], span_max: Callable[[str], int], *, alone: bool
    ) -> UnitScan:
        """A scan that has asked nothing; ``span_max`` is what one request may read of an area."""
        whole: deque[Span] = deque()
        for prefix, start, cells in spans:
            step = span_max(prefix)
            for at in range(start, start + cells, step):
                whole.append(Span(prefix, at, min(step, start + cells - at)))
        return cls(unit_id, alone, whole)

    def next(self) -> Span | None:
        """What to ask now; None when all is known or the unit is given up."""
        if self.given_up:
            return None
        if self.whole:
            return self.whole.popleft()
        return self.halves.popleft() if self.halves else None

    def answered(self, span: Span, values: Sequence[int]) -> None:
        """The cells' raw values."""
        self._heard()
        for place, value in enumerate(values):
            self.answers[span.prefix, span.start + place] = value

    def refused(self, span: Span, reason: str) -> None:
        """The unit is there and does not have all of these cells."""
        self._heard()
        self._divide(span, reason)

    def failed(self, span: Span, reason: str) -> None:
        """An error that says nothing of single cells."""
        self._silences = 0
        self._errors += 1
        if not self.alone and not self.spoke and self._errors >= ERRORS_MAX:
            self.give_up(span, reason)
        else:
            self._divide(span, reason)

    def silent(self, span: Span, reason: str) -> None:
        """Nothing came back in time."""
        self._silences += 1
        if self._silences >= (SILENCES_MAX if self.alone or self.spoke else 1):
            self.give_up(span, reason)
        else:
            self._divide(span, reason)

    def give_up(self, span: Span | None, reason: str) -> None:
        """Ask nothing more; ``span`` was asked in vain, or not at all."""
        if span is not None:
            self.halves.appendleft(span)
        if (self.whole or self.halves) and not self.given_up:
            self.given_up = reason

    @property
    def known(self) -> int:
        """How many cells have answered or were refused one by one."""
        return len(self.answers) + len(self.refusals)

    @property
    def found(self) -> list[tuple[Span, list[int]]]:
        """Ranges that answer, with their raw values, in order."""
        return [
            (span, [self.answers[span.prefix, span.start + place] for place in range(span.cells)])
            for span in _joined(self.answers)
        ]

    @property
    def missing(self) -> list[Span]:
        """Ranges that were refused cell by cell."""
        return _joined(self.refusals)

    @property
    def left(self) -> list[Span]:
        """Ranges of which nothing is known."""
        return _joined(
            (span.prefix, span.start + place)
            for span in (*self.whole, *self.halves)
            for place in range(span.cells)
        )

    def _heard(self) -> None:
        self.spoke = True
        self._silences = 0

    def _divide(self, span: Span, reason: str) -> None:
        prefix, start, cells = span
        if cells == 1:
            self.refusals[prefix, start] = reason
            return
        half = cells // 2
        left, right = Span(prefix, start, half), Span(prefix, start + half, cells - half)
        if self.whole:  # its turn comes once all blocks were asked
            self.halves.extend((left, right))
        else:
            self.halves.extendleft((right, left))


def _joined(cells: Iterable[tuple[str, int]]) -> list[Span]:
    """Single cells as ranges without holes."""
    spans: list[Span] = []
    for prefix, at in sorted(set(cells)):
        last = spans[-1] if spans else None
        if last and last.prefix == prefix and last.start + last.cells == at:
            spans[-1] = Span(prefix, last.start, last.cells + 1)
        else:
            spans.append(Span(prefix, at, 1))
    return spans
