"""What simulated PLCs measure: a pure function of tag and time.

Nothing here has a clock or a state that shows: a test that has a sample and its time can compute
what the sample had to be, in another process, weeks later.

Time runs in steps of `STEP_MS`; within a step a value stands still. An analog tag is a slow sine
with its second harmonic plus noise, between `lo` and `hi`; now and then it is beyond one of them
for `WINDOW_STEPS`, so that alarms occur. UINT32 and UINT64 without `hi` are counters, BOOL
switches every few seconds. Everything that tells one tag from another comes from a hash of
`Tag.key`: conn, address and period change nothing.

The noise is a Weyl sequence, `step x 0.618...` modulo 1: it never settles, and any two of eleven
neighbouring steps are at least 5.5 % of its range apart. That makes late, stale and swapped
values visible, which truly random noise does not promise.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from edge_agent.model import Tag, ValueType

STEP_MS = 50
"""A quarter of the shortest period a map may ask for: every scan meets new values."""

WINDOW_STEPS = 400
"""20 s: how long an excursion beyond a limit lasts; long enough for a person to see it."""

EXCURSION_ODDS = 64
"""One window in this many lies above `hi`, one in this many below `lo`."""

NOISE_SHARE = 0.05
"""Range of the noise as a share of the band lo..hi."""

NOISE_COUNTS_MIN = 8
"""The noise spans at least so many raw counts: of 8, neighbouring steps are 3 apart."""

BANKS_MAX = 65_536
"""Tags whose coefficients are kept between single evaluations; about 1 kB each."""

_WAVE_STEPS = 16_384  # one sine at stride 1 takes 13.7 minutes, at stride 8 under two
_STRIDES = 8
_EXCURSION_WAVE = 0.02  # amplitude during an excursion, as a share of the band
_NOISE_STEPS = 65_536
_GOLDEN = 40_503  # _NOISE_STEPS x 0.618..., odd: visits every level before it repeats one
_TOGGLE_STEPS = (20, 220)  # BOOL holds its state for 1 to 11 s
_INTEGER_BAND = (-200.0, 1_000.0)  # where the map gives no limits
_FLOAT_BAND = (0.0, 100.0)

_RANGES: dict[ValueType, tuple[float, float]] = {
    ValueType.BOOL: (0, 1),
    ValueType.INT8: (-(2**7), 2**7 - 1),
    ValueType.UINT8: (0, 2**8 - 1),
    ValueType.INT16: (-(2**15), 2**15 - 1),
    ValueType.UINT16: (0, 2**16 - 1),
    ValueType.INT32: (-(2**31), 2**31 - 1),
    ValueType.UINT32: (0, 2**32 - 1),
    # The largest float64 below the type's own limit: raw values pass through float64.
    ValueType.INT64: (-(2**63), 2**63 - 1024),
    ValueType.UINT64: (0, 2**64 - 2048),
    ValueType.FLOAT16: (-65_504.0, 65_504.0),
    ValueType.FLOAT32: (-3e38, 3e38),
    ValueType.FLOAT64: (-1e300, 1e300),  # so that no span overflows
    ValueType.BCD16: (0, 9_999),
    ValueType.BCD32: (0, 99_999_999),
}

# struct code, bits of precision, smallest value above zero
_FLOATS: dict[ValueType, tuple[str, int, float]] = {
    ValueType.FLOAT16: (">e", 10, 2.0**-24),
    ValueType.FLOAT32: (">f", 23, 2.0**-149),
    ValueType.FLOAT64: (">d", 52, 2.0**-1074),
}

# 2**48 rather than 2**64: float64, which samples are, holds it exactly.
_COUNTERS = {ValueType.UINT32: 2**32, ValueType.UINT64: 2**48}

_Coefficients = tuple[float, float, float, int, int, int]
"""base, amplitude, noise per level, stride, phase, noise phase."""

_Window = tuple[int, list[_Coefficients], list[_Coefficients]]
"""A window's number and its coefficients: floats, integers."""


def _wave() -> list[float]:
    """One turn, from -1 to 1."""
    turns = [2 * math.pi * step / _WAVE_STEPS for step in range(_WAVE_STEPS)]
    shape = [math.sin(turn) + 0.3 * math.sin(2 * turn + 1) for turn in turns]
    middle, peak = (max(shape) + min(shape)) / 2, (max(shape) - min(shape)) / 2
    # Rounded, so that libraries which differ in a sine's last bit still agree on every value.
    return [round((level - middle) / peak, 6) for level in shape]


_WAVE = _wave()


def value_at(tag: Tag, ts_ms: int) -> float:
    """What the simulated plant's quantity is, in engineering units, before the PLC stores it."""
    bank = _bank(tag)
    return bank.levels(ts_ms // STEP_MS)[0] * tag.scale + tag.offset


def raw_at(tag: Tag, ts_ms: int) -> float:
    """What the PLC's memory holds: scale and offset inverted, rounded to what the type can hold.

    A whole number for all types but FLOAT16/32/64; for BCD the decimal number, not its nibbles.
    Always within the type's range.
    """
    return _stored(tag, _bank(tag).raws(ts_ms // STEP_MS)[0])


def sample_at(tag: Tag, ts_ms: int) -> float:
    """What the agent must report for a reply composed at ``ts_ms``: raw x scale + offset."""
    return raw_at(tag, ts_ms) * tag.scale + tag.offset


def matches(
    tag: Tag, ts_ms: int, value: float, *, late_ms: int = 500, tolerance: float = 1e-9
) -> bool:
    """Whether ``value`` was this tag's sample at some step in [ts_ms - late_ms, ts_ms].

    A sample's time is that of the reply's arrival, so the PLC composed it a little earlier;
    ``late_ms`` is how much. ``tolerance`` is relative; a tag's `precision` widens it to half of
    the last digit. Both clocks must be the same.

    How much a True proves, with the default eleven steps:

    * Any wrong value from the band lo..hi passes with a chance of at most 11 / n, where n is how
      many different values the band has in the PLC's memory: 1 in a million for FLOAT32, 1 in
      2,700 for INT16 with 30,000 counts, 1 in 9 for a percentage in an INT8.
    * Eleven steps lie in a strip of about 5 % of the band (at least `NOISE_COUNTS_MIN` counts);
      a value outside of it never passes.
    * Neighbouring steps always differ, by at least 1.5 % of the band or one count, unless the
      band has fewer than 3 counts.
    * A value just older than the window lies in the same strip, so that n is the number of
      values in the strip: 1 in 6,000 passes for FLOAT32, 1 in 136 for INT16 with 30,000 counts,
      most for a percentage in an INT8. Of values up to a minute old (20,000 tried): none, 1 in
      1,800 and 1 in 8.
    * A counter's wrong value passes with a chance of 11 in 2**32.
    * An inverted BOOL passes if it switched within the window: between 1 in 20 and 1 in 2.
    """
    slack = 0.0 if tag.precision is None else 0.5 * 10.0**-tag.precision
    newest, oldest = ts_ms // STEP_MS, (ts_ms - late_ms) // STEP_MS
    for step in range(newest, oldest - 1, -1):
        expected = sample_at(tag, step * STEP_MS)
        size = max(abs(expected), abs(tag.offset))
        if abs(value - expected) <= tolerance * size + slack:
            return True
    return False


class SignalBank:
    """The signals of some tags, evaluated together: one column of raw values per step.

    ``tags`` is the order of the values, which is not the order given: floats first, then whole
    numbers, counters and BOOL. Costs 0.2 to 0.4 microseconds per tag and step.
    """

    def __init__(self, tags: Iterable[Tag]) -> None:
        floats, integers, counters, toggles = [], [], [], []
        for tag in tags:
            if tag.type is ValueType.BOOL:
                toggles.append(tag)
            elif tag.type in _FLOATS:
                floats.append(tag)
            elif tag.type in _COUNTERS and tag.hi is None:
                counters.append(tag)
            else:
                integers.append(tag)
        self.tags: tuple[Tag, ...] = (*floats, *integers, *counters, *toggles)
        self._floats = [_Analog.of(tag) for tag in floats]
        self._integers = [_Analog.of(tag) for tag in integers]
        self._counters = [_counter(tag) for tag in counters]
        self._toggles = [_toggle(tag) for tag in toggles]
        self._held: _Window | None = None

    def raws(self, step: int) -> list[float]:
        """Raw values at a step; floats not yet rounded to their type's precision."""
        _, floats, integers = self._coefficients(step // WINDOW_STEPS)
        values = _levels(floats, step)
        values += map(round, _levels(integers, step))
        return values + self._states(step)

    def levels(self, step: int) -> list[float]:
        """Raw values at a step before rounding."""
        _, floats, integers = self._coefficients(step // WINDOW_STEPS)
        return _levels(floats, step) + _levels(integers, step) + self._states(step)

    def _states(self, step: int) -> list[float]:
        values: list[float] = [(step * rate + start) % size for rate, start, size in self._counters]
        values += [(step + phase) // hold & 1 for phase, hold in self._toggles]
        return values

    def _coefficients(self, window: int) -> _Window:
        held = self._held
        if held is None or held[0] != window:
            held = self._held = (
                window,
                [signal.coefficients(window) for signal in self._floats],
                [signal.coefficients(window) for signal in self._integers],
            )
        return held


def _levels(coefficients: Sequence[_Coefficients], step: int) -> list[float]:
    """The one formula of all analog signals. Small integers keep it fast, hence the masks."""
    wave, turn, noise = _WAVE, step % _WAVE_STEPS, step * _GOLDEN % _NOISE_STEPS
    return [
        base
        + amplitude * wave[(turn * stride + phase) & 0x3FFF]
        + noise_level * ((noise + noise_phase) & 0xFFFF)
        for base, amplitude, noise_level, stride, phase, noise_phase in coefficients
    ]


@lru_cache(maxsize=BANKS_MAX)
def _bank(tag: Tag) -> SignalBank:
    return SignalBank((tag,))


def _stored(tag: Tag, raw: float) -> float:
    layout = _FLOATS.get(tag.type)
    if layout is None:
        return raw
    code = layout[0]
    return float(struct.unpack(code, struct.pack(code, raw))[0])


@dataclass(frozen=True, slots=True)
class _Analog:
    """A signal's constants, all in raw units.

    It moves between ``bottom`` and ``top``. Above lies room for an excursion only if ``top`` is
    a limit of the map's and the type can hold more; likewise below.
    """

    bottom: float
    top: float
    above: bool
    below: bool
    resolution: float
    seed: int

    @classmethod
    def of(cls, tag: Tag) -> _Analog:
        low, high = _RANGES[tag.type]
        limits = _raw_limits(tag)
        bottom, top = (min(max(x, low), high) for x in _with_defaults(*limits, tag.type))
        resolution = _resolution(tag.type, max(abs(bottom), abs(top)))
        if top - bottom < resolution:
            bottom = max(low, min(bottom, high - resolution))
            top = bottom + resolution
        reach = _reach(top - bottom, resolution)
        return cls(
            bottom=bottom,
            top=top,
            above=limits[1] is not None and top + reach <= high,
            below=limits[0] is not None and bottom - reach >= low,
            resolution=resolution,
            seed=_seed(tag),
        )

    def coefficients(self, window: int) -> _Coefficients:
        """Constants of the formula for one window."""
        span = self.top - self.bottom
        noise = _noise(span, self.resolution)
        centre, amplitude = (self.bottom + self.top) / 2, (span - noise) / 2
        chance = _hash(self.seed ^ window) % EXCURSION_ODDS
        if (chance == 0 and self.above) or (chance == 1 and self.below):
            amplitude = _EXCURSION_WAVE * span
            distance = span / 2 + _clearance(span, self.resolution) + amplitude + noise / 2
            centre += distance if chance == 0 else -distance
        return (
            centre - noise / 2,
            amplitude,
            noise / _NOISE_STEPS,
            1 + self.seed % _STRIDES,
            (self.seed >> 8) % _WAVE_STEPS,
            (self.seed >> 32) % _NOISE_STEPS,
        )


def _noise(span: float, resolution: float) -> float:
    return max(NOISE_SHARE * span, min(NOISE_COUNTS_MIN * resolution, span))


def _clearance(span: float, resolution: float) -> float:
    """How far beyond its limit an excursion stays: at least one count."""
    return max(0.02 * span, resolution)


def _reach(span: float, resolution: float) -> float:
    """How far beyond its limit an excursion goes."""
    return _clearance(span, resolution) + 2 * _EXCURSION_WAVE * span + _noise(span, resolution)


def _raw_limits(tag: Tag) -> tuple[float | None, float | None]:
    """The map's limits as raw values, lower one first; a negative scale swaps them."""
    if tag.scale == 0:
        return None, None
    limits = [None if x is None else (x - tag.offset) / tag.scale for x in (tag.lo, tag.hi)]
    return (limits[0], limits[1]) if tag.scale > 0 else (limits[1], limits[0])


def _with_defaults(
    bottom: float | None, top: float | None, value_type: ValueType
) -> tuple[float, float]:
    default_bottom, default_top = _FLOAT_BAND if value_type in _FLOATS else _INTEGER_BAND
    span = default_top - default_bottom
    if top is None:
        if bottom is None:
            return default_bottom, default_top
        return bottom, bottom + max(abs(bottom), span)
    if bottom is None:
        return (0.0 if top > 0 else top - max(abs(top), span)), top
    return min(bottom, top), max(bottom, top)


def _resolution(value_type: ValueType, magnitude: float) -> float:
    """Distance of neighbouring raw values of about this magnitude."""
    layout = _FLOATS.get(value_type)
    if layout is None:
        return max(1.0, math.ulp(magnitude))
    _, precision_bits, smallest = layout
    return max(magnitude * 2.0**-precision_bits, smallest)


def _counter(tag: Tag) -> tuple[int, int, int]:
    """Counts per step, start and modulus; it wraps, as real ones do."""
    seed, size = _seed(tag), _COUNTERS[tag.type]
    return 1 + seed % 16, seed % size, size


def _toggle(tag: Tag) -> tuple[int, int]:
    """Phase and steps between two changes."""
    seed, (shortest, longest) = _seed(tag), _TOGGLE_STEPS
    return seed % 4_096, shortest + (seed >> 16) % (longest - shortest)


def _seed(tag: Tag) -> int:
    name = "\x1f".join(tag.key)
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")


def _hash(number: int) -> int:
    """The finalizer of splitmix64: every input bit moves every output bit."""
    mask = 0xFFFF_FFFF_FFFF_FFFF
    number &= mask
    number = (number ^ number >> 30) * 0xBF58_476D_1CE4_E5B9 & mask
    number = (number ^ number >> 27) * 0x94D0_49BB_1331_11EB & mask
    return number ^ number >> 31
