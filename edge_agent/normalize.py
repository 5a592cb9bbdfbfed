"""From raw values to engineering values, a block at a time. Pure.

value = raw x scale + offset, rounded to `precision` digits. Where a map gives no precision, an
integer raw value is rounded to the digits that scale and offset have, since it can have no more:
3 x 0.1 is then 0.3 and not 0.30000000000000004. What is not finite is bad: counted, not stored.

A tag with `deadband` or `heartbeat_ms` reports a value only when it has moved by more than
`deadband` since the last one reported, or when `heartbeat_ms` have passed since then (by the
samples' own time; a clock that stepped back reports at once).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.model import Tag, ValueType

HEARTBEAT_MS = 60_000
"""For a deadband without `heartbeat_ms`: a steady value still shows once a minute that it lives."""
DIGITS_MAX = 12
_FLOATS = (ValueType.FLOAT16, ValueType.FLOAT32, ValueType.FLOAT64)


@dataclass(frozen=True, slots=True)
class Normalized:
    """What a reply says in engineering units.

    ``positions`` are the tags (by their place in the block) whose ``values`` are to be stored;
    None means all tags, in order. ``bad`` are the places whose value is not finite.
    ``all_values`` are the values, bad and suppressed ones included, in the reply's order.
    """

    positions: Sequence[int] | None
    values: Sequence[float]
    bad: Sequence[int]
    all_values: Sequence[float]


class Normalizer:
    """Normalizes the replies of one block; remembers what its deadbands compare with."""

    def __init__(self, tags: Sequence[Tag]) -> None:
        self._scales = [tag.scale for tag in tags]
        self._offsets = [tag.offset for tag in tags]
        self._scaled = any(tag.scale != 1 or tag.offset != 0 for tag in tags)
        self._digits = [digits_of(tag) for tag in tags]
        self._rounded = any(digits is not None for digits in self._digits)
        self._filters: list[_Filter | None] = [
            _Filter(tag.deadband, tag.heartbeat_ms or HEARTBEAT_MS)
            if tag.deadband > 0 or tag.heartbeat_ms is not None
            else None
            for tag in tags
        ]
        self._filtered = any(self._filters)

    def adopt(self, place: int, before: Normalizer, place_before: int) -> None:
        """Go on for one tag where another block's normalizer stood."""
        self._filters[place] = before._filters[place_before]

    def __call__(
        self, ts_ms: int, raw: Sequence[float], positions: Sequence[int] | None = None
    ) -> Normalized:
        """Normalize raw values of all tags, or of those at ``positions``.

        Raises ``ValueError`` if there are not as many values as that.
        """
        expected = len(self._scales) if positions is None else len(positions)
        if len(raw) != expected:
            raise ValueError(f"{len(raw)} values for {expected} tags")
        scales, offsets, digits = self._scales, self._offsets, self._digits
        if positions is not None:
            scales = [scales[place] for place in positions]
            offsets = [offsets[place] for place in positions]
            digits = [digits[place] for place in positions]
        values = raw
        if self._scaled:
            values = [r * s + o for r, s, o in zip(raw, scales, offsets, strict=True)]
        if not math.isfinite(sum(values)) or self._filtered:
            return self._sift(ts_ms, values, digits, positions)
        if self._rounded:
            values = _round(values, digits)
        return Normalized(positions, values, (), values)

    def _sift(
        self,
        ts_ms: int,
        values: Sequence[float],
        digits: Sequence[int | None],
        positions: Sequence[int] | None,
    ) -> Normalized:
        """The careful way: value by value."""
        places = range(len(values)) if positions is None else positions
        finite = [math.isfinite(value) for value in values]
        values = _round(
            [v if ok else math.nan for v, ok in zip(values, finite, strict=True)], digits
        )
        kept: list[int] = []
        kept_values: list[float] = []
        for place, value, ok in zip(places, values, finite, strict=True):
            sieve = self._filters[place]
            if ok and (sieve is None or sieve.passes(ts_ms, value)):
                kept.append(place)
                kept_values.append(value)
        bad = [place for place, ok in zip(places, finite, strict=True) if not ok]
        whole = positions is None and len(kept) == len(values)
        return Normalized(None if whole else kept, kept_values, bad, values)


@dataclass(slots=True)
class _Filter:
    """Deadband and heartbeat of one tag."""

    deadband: float
    heartbeat_ms: int
    value: float = math.nan
    ts_ms: int = 0

    def passes(self, ts_ms: int, value: float) -> bool:
        silent = (
            abs(value - self.value) <= self.deadband and 0 <= ts_ms - self.ts_ms < self.heartbeat_ms
        )
        if not silent:
            self.value, self.ts_ms = value, ts_ms
        return not silent


def digits_of(tag: Tag) -> int | None:
    """Digits after the point that a tag's values are rounded to; None leaves them as they are."""
    if tag.precision is not None:
        return tag.precision
    if tag.type in _FLOATS or (tag.scale.is_integer() and tag.offset.is_integer()):
        return None
    digits = max(_decimals(tag.scale), _decimals(tag.offset))
    return digits if digits <= DIGITS_MAX else None


def _decimals(number: float) -> int:
    """Digits after the point in a number's shortest decimal form."""
    mantissa, _, exponent = repr(float(number)).partition("e")
    fraction = mantissa.partition(".")[2].rstrip("0")
    return max(len(fraction) - int(exponent or 0), 0)


def _round(values: Sequence[float], digits: Sequence[int | None]) -> list[float]:
    return [
        value if places is None else round(value, places)
        for value, places in zip(values, digits, strict=True)
    ]
