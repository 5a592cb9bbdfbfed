"""From raw values to engineering values: scaling, rounding, deadbands, and what is not a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.model import Tag, ValueType
from edge_agent.normalize import HEARTBEAT_MS, Normalized, Normalizer, digits_of
from tests.tags import plain_tag

NAN, INF = math.nan, math.inf
TS_MS = 1_755_432_000_000


def make_tag(
    value_type: ValueType = ValueType.FLOAT64,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
    precision: int | None = None,
    deadband: float = 0.0,
    heartbeat_ms: int | None = None,
) -> Tag:
    return plain_tag(
        type=value_type,
        scale=scale,
        offset=offset,
        precision=precision,
        deadband=deadband,
        heartbeat_ms=heartbeat_ms,
    )


def stored(result: Normalized, tags: int) -> dict[int, float]:
    """What is stored, by place."""
    places = range(tags) if result.positions is None else result.positions
    return dict(zip(places, result.values, strict=True))


# -- scaling and rounding -----------------------------------------------------------------------


def test_an_integer_has_no_more_digits_than_its_scale() -> None:
    """3 x 0.1 is 0.3."""
    result = Normalizer([make_tag(ValueType.INT16, scale=0.1)])(TS_MS, [3.0])
    assert list(result.values) == [0.3]


@given(
    st.integers(-32768, 32767),
    st.decimals(-1000, 1000, places=4).filter(bool),
    st.decimals(-1000, 1000, places=3),
)
def test_scaled_integers_are_what_decimal_arithmetic_says(
    raw: int, scale: Decimal, offset: Decimal
) -> None:
    """raw x scale + offset, exact to the digits that the map gives, and shown without a tail."""
    tag = make_tag(ValueType.INT16, scale=float(scale), offset=float(offset))
    result = Normalizer([tag])(TS_MS, [float(raw)])
    assert result.values[0] == float(raw * scale + offset)


@pytest.mark.parametrize(
    ("value_type", "scale", "offset", "precision", "digits"),
    [
        (ValueType.INT16, 0.1, 0.0, None, 1),
        (ValueType.INT16, 0.1, 0.25, None, 2),
        (ValueType.INT16, 1e-3, 0.0, None, 3),
        (ValueType.INT16, 1e-6, 0.0, None, 6),
        (ValueType.INT16, 2.5e-7, 0.0, None, 8),
        (ValueType.INT16, 10.0, -40.0, None, None),
        (ValueType.INT16, 1e20, 0.0, None, None),
        (ValueType.INT16, 1 / 3, 0.0, None, None),
        (ValueType.INT16, 1e-13, 0.0, None, None),
        (ValueType.INT16, 0.1, 0.0, 0, 0),
        (ValueType.FLOAT32, 0.1, 0.0, None, None),
        (ValueType.FLOAT32, 1.0, 0.0, 3, 3),
        (ValueType.BOOL, 1.0, 0.0, None, None),
    ],
)
def test_digits_come_from_precision_or_from_scale_and_offset(
    value_type: ValueType, scale: float, offset: float, precision: int | None, digits: int | None
) -> None:
    """`precision` wins; a float without it, and a scale without an end, are left as they are."""
    tag = make_tag(value_type, scale=scale, offset=offset, precision=precision)
    assert digits_of(tag) == digits


def test_values_that_need_nothing_are_handed_on_as_they_came() -> None:
    """Without scale, precision or deadband the hot path copies nothing."""
    raw = [1.5, -0.0, 1e300]
    assert Normalizer([make_tag()] * 3)(TS_MS, raw).values is raw


# -- what is not finite -------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [NAN, INF, -INF])
def test_what_is_not_finite_is_bad_and_its_neighbours_are_not(wrong: float) -> None:
    """Only that place is bad; it is not stored, and reads as NaN."""
    result = Normalizer([make_tag()] * 3)(TS_MS, [1.0, wrong, 3.0])
    assert stored(result, 3) == {0: 1.0, 2: 3.0}
    assert list(result.bad) == [1]
    assert math.isnan(result.all_values[1])


def test_infinities_that_cancel_out_are_found() -> None:
    """inf + -inf is no number either."""
    result = Normalizer([make_tag()] * 3)(TS_MS, [INF, -INF, 3.0])
    assert list(result.bad) == [0, 1]


def test_scaling_that_overflows_makes_the_value_bad() -> None:
    """1e300 x 1e300 is not stored as infinity."""
    result = Normalizer([make_tag(scale=1e300), make_tag()])(TS_MS, [1e300, 2.0])
    assert stored(result, 2) == {1: 2.0}
    assert list(result.bad) == [0]


def test_values_whose_sum_overflows_are_all_good() -> None:
    """Finite values stay, however large they are together."""
    raw = [1.7e308, 1.7e308, 1.0]
    result = Normalizer([make_tag()] * 3)(TS_MS, raw)
    assert stored(result, 3) == dict(enumerate(raw))
    assert not result.bad
    assert result.positions is None


# -- deadband and heartbeat ---------------------------------------------------------------------


def passed(tag: Tag, samples: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The samples that a tag's deadband lets through."""
    normalize = Normalizer([tag])
    return [(ts_ms, v) for ts_ms, v in samples if normalize(ts_ms, [v]).values]


def test_a_deadband_keeps_small_moves_back_until_they_add_up() -> None:
    """It compares with the last value reported, so that a slow drift is not lost."""
    samples = [(n * 1000, 10 + n / 4) for n in range(10)]
    assert passed(make_tag(deadband=0.5), samples) == [
        (0, 10.0),
        (3000, 10.75),
        (6000, 11.5),
        (9000, 12.25),
    ]


def test_a_steady_value_shows_that_it_lives() -> None:
    """After heartbeat_ms it is reported again; with a deadband alone once a minute."""
    samples = [(n * 1000, 5.0) for n in range(121)]
    assert [ts for ts, _ in passed(make_tag(heartbeat_ms=30_000), samples)] == [
        0, 30_000, 60_000, 90_000, 120_000
    ]  # fmt: skip
    assert [ts for ts, _ in passed(make_tag(deadband=1.0), samples)] == [
        0, HEARTBEAT_MS, 2 * HEARTBEAT_MS
    ]  # fmt: skip


def test_a_clock_that_steps_back_does_not_silence_a_tag() -> None:
    """The first sample after the step is reported, and the heartbeat counts from there."""
    samples = [(100_000, 5.0), (40_000, 5.0), (41_000, 5.0), (70_000, 5.0)]
    assert passed(make_tag(heartbeat_ms=30_000), samples) == [
        (100_000, 5.0),
        (40_000, 5.0),
        (70_000, 5.0),
    ]


def test_a_bad_value_does_not_enter_the_deadband() -> None:
    """What counts is the last value reported."""
    normalize = Normalizer([make_tag(deadband=1.0)])
    assert list(normalize(0, [5.0]).values) == [5.0]
    assert list(normalize(1, [NAN]).bad) == [0]
    result = normalize(2, [5.5])
    assert not result.values
    assert list(result.all_values) == [5.5]


def test_deadbands_compare_what_is_stored() -> None:
    """Rounded first: two values that read alike are alike."""
    tag = make_tag(precision=1, heartbeat_ms=60_000)
    assert passed(tag, [(0, 1.04), (1, 0.96), (2, 1.06)]) == [(0, 1.04), (2, 1.06)]


# -- partial replies ----------------------------------------------------------------------------


def test_a_partial_reply_is_scaled_by_its_own_tags() -> None:
    """Values belong to the positions given, in their order."""
    tags = [make_tag(scale=scale, offset=scale) for scale in (1.0, 10.0, 100.0)]
    result = Normalizer(tags)(TS_MS, [1.0, 2.0], [2, 0])
    assert result.positions is not None
    assert list(result.positions) == [2, 0]
    assert list(result.values) == [200.0, 3.0]


@pytest.mark.parametrize(
    ("raw", "positions"), [([1.0], None), ([1.0] * 3, None), ([1.0], [0, 1]), ([1.0, 2.0], [0])]
)
def test_a_reply_of_the_wrong_length_is_an_error(
    raw: list[float], positions: list[int] | None
) -> None:
    """Never the wrong value under a tag's name."""
    for tag in (make_tag(), make_tag(scale=2.0)):
        with pytest.raises(ValueError, match="values for"):
            Normalizer([tag, tag])(TS_MS, raw, positions)


# -- against a slow and obvious reference -------------------------------------------------------


@dataclass
class Reference:
    """The rules of the module's docstring, one tag and one value at a time."""

    tags: Sequence[Tag]
    reported: dict[int, tuple[int, float]] = field(default_factory=dict)

    def __call__(self, ts_ms: int, raw: Sequence[float], positions: Sequence[int]) -> Normalized:
        places, values, bad, all_values = [], [], [], []
        for place, raw_value in zip(positions, raw, strict=True):
            tag = self.tags[place]
            value = raw_value * tag.scale + tag.offset
            if not math.isfinite(value):
                bad.append(place)
                all_values.append(NAN)
                continue
            digits = digits_of(tag)
            if digits is not None:
                value = round(value, digits)
            all_values.append(value)
            if self._is_due(tag, place, ts_ms, value):
                self.reported[place] = (ts_ms, value)
                places.append(place)
                values.append(value)
        return Normalized(places, values, bad, all_values)

    def _is_due(self, tag: Tag, place: int, ts_ms: int, value: float) -> bool:
        if (tag.deadband == 0 and tag.heartbeat_ms is None) or place not in self.reported:
            return True
        then_ms, then = self.reported[place]
        age_ms = ts_ms - then_ms
        return (
            abs(value - then) > tag.deadband
            or age_ms < 0
            or age_ms >= (tag.heartbeat_ms or HEARTBEAT_MS)
        )


tags = st.builds(
    make_tag,
    st.sampled_from([ValueType.INT16, ValueType.FLOAT64]),
    scale=st.sampled_from([1.0, 0.1, -2.0, 1e308]),
    offset=st.sampled_from([0.0, 0.5, -40.0]),
    precision=st.sampled_from([None, 0, 2]),
    deadband=st.sampled_from([0.0, 0.0, 0.5]),
    heartbeat_ms=st.sampled_from([None, None, 1000]),
)
raw_values = st.one_of(
    st.floats(-3, 3), st.integers(-9, 9).map(float), st.sampled_from([NAN, INF, -INF, 1.7e308])
)


@given(st.data(), st.lists(tags, min_size=1, max_size=6))
def test_it_does_what_the_reference_does(data: st.DataObject, some: list[Tag]) -> None:
    """Any tags, any replies, whole and partial, with a clock that goes both ways."""
    normalize, reference = Normalizer(some), Reference(some)
    everything = list(range(len(some)))
    for _ in range(data.draw(st.integers(1, 12))):
        ts_ms = data.draw(st.integers(0, 3000))
        positions = data.draw(
            st.none() | st.lists(st.sampled_from(everything), unique=True, max_size=len(some))
        )
        places = everything if positions is None else positions
        raw = data.draw(st.lists(raw_values, min_size=len(places), max_size=len(places)))
        found, wanted = normalize(ts_ms, raw, positions), reference(ts_ms, raw, places)
        found_places = everything if found.positions is None else list(found.positions)
        assert (found_places, list(found.values)) == (wanted.positions, wanted.values)
        assert list(found.bad) == wanted.bad
        for value, expected in zip(found.all_values, wanted.all_values, strict=True):
            assert value == expected or (math.isnan(value) and math.isnan(expected))
