"""Simulated signals: pure, within what the type holds, and wrong values stand out."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_agent.model import ByteOrder, Tag, ValueType
from edge_agent.simulator.memory import encode
from edge_agent.simulator.signals import (
    EXCURSION_ODDS,
    STEP_MS,
    WINDOW_STEPS,
    SignalBank,
    matches,
    raw_at,
    sample_at,
    value_at,
)
from tests.tags import plain_tag

NOON = 1_755_432_000_000
WINDOW_MS = WINDOW_STEPS * STEP_MS

LIMITS = {
    ValueType.BOOL: (0, 1),
    ValueType.INT8: (-128, 127),
    ValueType.UINT8: (0, 255),
    ValueType.INT16: (-32_768, 32_767),
    ValueType.UINT16: (0, 65_535),
    ValueType.INT32: (-(2**31), 2**31 - 1),
    ValueType.UINT32: (0, 2**32 - 1),
    ValueType.INT64: (-(2**63), 2**63 - 1),
    ValueType.UINT64: (0, 2**64 - 1),
    ValueType.FLOAT16: (-65_504, 65_504),
    ValueType.FLOAT32: (-3.4e38, 3.4e38),
    ValueType.FLOAT64: (-math.inf, math.inf),
    ValueType.BCD16: (0, 9_999),
    ValueType.BCD32: (0, 99_999_999),
}
FLOATS = {ValueType.FLOAT16: "<e", ValueType.FLOAT32: "<f", ValueType.FLOAT64: "<d"}


def make_tag(
    value_type: ValueType = ValueType.FLOAT32, name: str = "PRESS", **fields: object
) -> Tag:
    return plain_tag(name, type=value_type, **{"address": "40001", "period_ms": 500} | fields)


@st.composite
def tags(draw: st.DrawFn) -> Tag:
    finite = st.floats(-1e12, 1e12)
    scale = draw(st.floats(1e-6, 1e6)) * draw(st.sampled_from([1, -1]))
    lo, hi = draw(st.none() | finite), draw(st.none() | finite)
    assume(lo is None or hi is None or lo < hi)
    return make_tag(
        draw(st.sampled_from(ValueType)),
        draw(st.text(min_size=1, max_size=8)),
        scale=scale,
        offset=draw(finite),
        lo=lo,
        hi=hi,
        byte_order=draw(st.sampled_from(ByteOrder)),
    )


times = st.integers(-(10**9), 4 * 10**12)


@given(tags(), times)
def test_the_same_tag_and_time_give_the_same_values(tag: Tag, ts_ms: int) -> None:
    """No clock, no state: neither other times nor other tags asked in between change a value."""
    before = (value_at(tag, ts_ms), raw_at(tag, ts_ms), sample_at(tag, ts_ms))
    raw_at(tag, ts_ms + 10 * WINDOW_MS)
    other = replace(tag, tag="other")
    together = SignalBank([other, tag])
    column = together.raws(ts_ms // STEP_MS)
    assert (value_at(tag, ts_ms), raw_at(tag, ts_ms), sample_at(tag, ts_ms)) == before
    index = together.tags.index(tag)
    assert column[index] == SignalBank([tag]).raws(ts_ms // STEP_MS)[0]


@given(tags(), times)
def test_a_raw_value_is_one_that_the_type_can_hold(tag: Tag, ts_ms: int) -> None:
    """Integers are whole and within range, floats survive a round trip through their bytes."""
    raw = raw_at(tag, ts_ms)
    low, high = LIMITS[tag.type]
    assert low <= raw <= high
    if tag.type in FLOATS:
        code = FLOATS[tag.type]
        assert struct.unpack(code, struct.pack(code, raw))[0] == raw
    else:
        assert isinstance(raw, int)


def decode(wire: bytes, value_type: ValueType, byte_order: ByteOrder) -> float:
    """A plain reading of the byte orders: put the bytes back, then read them as hexadecimal."""
    words = [wire[at : at + 2] for at in range(0, len(wire), 2)]
    if byte_order in (ByteOrder.CDAB, ByteOrder.DCBA):
        words.reverse()
    if byte_order in (ByteOrder.BADC, ByteOrder.DCBA):
        words = [word[::-1] for word in words]
    data = b"".join(words)
    if value_type in (ValueType.BCD16, ValueType.BCD32):
        return int(data.hex())
    if value_type in FLOATS:
        return float(struct.unpack(FLOATS[value_type], data[::-1])[0])
    if value_type in (ValueType.INT8, ValueType.UINT8):
        assert data[0] == 0
        data = data[1:]
    return int.from_bytes(data, "big", signed=value_type.startswith("INT"))


@given(tags(), times)
def test_the_sample_is_what_decoding_the_registers_gives(tag: Tag, ts_ms: int) -> None:
    """sample = decode(memory) x scale + offset, for every type in every byte order."""
    raw = raw_at(tag, ts_ms)
    assert decode(encode(raw, tag.type, tag.byte_order), tag.type, tag.byte_order) == raw
    assert sample_at(tag, ts_ms) == raw * tag.scale + tag.offset


@pytest.mark.parametrize(
    ("byte_order", "wire"),
    [
        (ByteOrder.ABCD, "0102030405060708"),
        (ByteOrder.DCBA, "0807060504030201"),
        (ByteOrder.BADC, "0201040306050807"),
        (ByteOrder.CDAB, "0708050603040102"),
    ],
)
def test_byte_orders_are_those_of_the_map(byte_order: ByteOrder, wire: str) -> None:
    """All bytes reversed, bytes swapped in each register, registers reversed."""
    assert encode(0x0102030405060708, ValueType.UINT64, byte_order).hex() == wire
    assert encode(0x01020304, ValueType.UINT32, byte_order).hex() == {
        ByteOrder.ABCD: "01020304",
        ByteOrder.DCBA: "04030201",
        ByteOrder.BADC: "02010403",
        ByteOrder.CDAB: "03040102",
    }[byte_order]  # fmt: skip


def test_small_types_fill_one_register() -> None:
    """An 8-bit value is the low byte, the high one with bytes swapped; BCD is decimal digits."""
    assert encode(-2, ValueType.INT8, ByteOrder.ABCD).hex() == "00fe"
    assert encode(200, ValueType.UINT8, ByteOrder.BADC).hex() == "c800"
    assert encode(1234, ValueType.BCD16, ByteOrder.ABCD).hex() == "1234"
    assert encode(12345678, ValueType.BCD32, ByteOrder.CDAB).hex() == "56781234"
    assert encode(1.0, ValueType.FLOAT16, ByteOrder.BADC).hex() == "003c"


@given(tags(), times, st.integers(0, STEP_MS - 1))
def test_a_value_stands_still_within_a_step(tag: Tag, ts_ms: int, later_ms: int) -> None:
    """Constant in [k x STEP_MS, (k + 1) x STEP_MS)."""
    start_ms = ts_ms // STEP_MS * STEP_MS
    assert sample_at(tag, start_ms) == sample_at(tag, start_ms + later_ms)


@given(tags(), times)
def test_neighbouring_steps_differ(tag: Tag, ts_ms: int) -> None:
    """By at least 1.5 % of the band or one count, unless the band has fewer than 3 counts."""
    assume(tag.type is not ValueType.BOOL)
    window_ms = ts_ms // WINDOW_MS * WINDOW_MS
    raws = [raw_at(tag, window_ms + step * STEP_MS) for step in range(WINDOW_STEPS)]
    largest = max(map(abs, raws))
    count = {
        ValueType.FLOAT16: max(largest * 2.0**-10, 2.0**-24),
        ValueType.FLOAT32: max(largest * 2.0**-23, 2.0**-149),
        ValueType.FLOAT64: max(largest * 2.0**-52, 2.0**-1074),
    }.get(tag.type, max(1.0, math.ulp(largest)))
    assume(max(raws) - min(raws) >= 4 * count)
    assert all(one != other for one, other in pairwise(raws))


def test_neighbouring_steps_differ_noticeably() -> None:
    """A pressure of 0 to 100 bar moves by 1.5 bar or more from step to step."""
    tag = make_tag(lo=0.0, hi=100.0)
    values = [sample_at(tag, NOON + step * STEP_MS) for step in range(50 * WINDOW_STEPS)]
    assert min(abs(one - other) for one, other in pairwise(values)) >= 1.5


def test_a_raw_value_is_the_plant_value_inverted_and_rounded() -> None:
    """INT16 with scale 0.1 and offset -40: memory holds (value + 40) / 0.1, to the nearest."""
    tag = make_tag(ValueType.INT16, scale=0.1, offset=-40.0, lo=-20.0, hi=120.0)
    for step in range(100):
        ts_ms = NOON + step * STEP_MS
        exact = (value_at(tag, ts_ms) + 40.0) / 0.1
        assert raw_at(tag, ts_ms) == pytest.approx(exact, abs=0.5 + 1e-6)


@pytest.mark.parametrize("scale", [0.1, -0.1])
@pytest.mark.parametrize("value_type", [ValueType.INT16, ValueType.FLOAT32, ValueType.INT32])
def test_signals_stay_between_the_limits_most_of_the_time(
    value_type: ValueType, scale: float
) -> None:
    """Over some hours it covers the band, and now and then raises a high and a low alarm."""
    tag = make_tag(value_type, scale=scale, offset=5.0, lo=10.0, hi=90.0)
    count = EXCURSION_ODDS * 20
    samples = [sample_at(tag, NOON + window * WINDOW_MS + 7_300) for window in range(count)]
    above = sum(sample > 90 for sample in samples)
    below = sum(sample < 10 for sample in samples)
    assert 5 <= above <= 50
    assert 5 <= below <= 50
    assert min(samples) > 10 - 0.25 * 80
    assert max(samples) < 90 + 0.25 * 80
    inside = [sample for sample in samples if 10 <= sample <= 90]
    assert min(inside) < 15
    assert max(inside) > 85


@pytest.mark.parametrize("scale", [0.1, -0.1])
def test_one_limit_is_enough(scale: float) -> None:
    """With `hi` alone the values stay below it but for the alarms; with `lo` alone, above."""
    count = EXCURSION_ODDS * 20
    moments = [NOON + window * WINDOW_MS for window in range(count)]
    below = make_tag(ValueType.INT16, scale=scale, hi=-7.0)
    assert 5 <= sum(sample_at(below, ts_ms) > -7 for ts_ms in moments) <= 50
    above = make_tag(ValueType.INT16, scale=scale, lo=7.0)
    assert 5 <= sum(sample_at(above, ts_ms) < 7 for ts_ms in moments) <= 50


def test_no_excursion_beyond_what_the_type_can_hold() -> None:
    """A UINT16 of 0 to 65,535 has no room for an alarm; it stays at home instead of wrapping."""
    tag = make_tag(ValueType.UINT16, lo=0.0, hi=65_535.0)
    raws = [raw_at(tag, NOON + window * WINDOW_MS) for window in range(1_000)]
    assert min(raws) >= 0
    assert max(raws) <= 65_535


def test_limits_that_the_type_cannot_reach_are_cut_to_its_range() -> None:
    """A UINT8 with limits of 0 and 1,000 uses all of 0 to 255."""
    tag = make_tag(ValueType.UINT8, lo=0.0, hi=1_000.0)
    raws = [raw_at(tag, NOON + step * 10 * STEP_MS) for step in range(2_000)]
    assert min(raws) < 20
    assert max(raws) > 235


@pytest.mark.parametrize("value_type", [ValueType.UINT32, ValueType.UINT64])
def test_unsigned_wide_integers_without_a_limit_count(value_type: ValueType) -> None:
    """A counter rises by the same 1 to 16 in each step."""
    tag = make_tag(value_type)
    raws = [raw_at(tag, NOON + step * STEP_MS) for step in range(1_000)]
    rises = {after - before for before, after in pairwise(raws)}
    assert len(rises) == 1
    assert 1 <= rises.pop() <= 16


def test_a_limit_turns_a_counter_into_a_measurement() -> None:
    """UINT32 with `hi` stays near its band."""
    tag = make_tag(ValueType.UINT32, hi=500.0)
    assert max(raw_at(tag, NOON + step * STEP_MS) for step in range(5_000)) < 650


def test_bool_switches_every_few_seconds() -> None:
    """Both states occur; each lasts for 1 to 11 seconds."""
    tag = make_tag(ValueType.BOOL)
    raws = [raw_at(tag, NOON + step * STEP_MS) for step in range(2_000)]
    assert set(raws) == {0, 1}
    changes = [step for step, (one, other) in enumerate(pairwise(raws)) if one != other]
    held_ms = {(after - before) * STEP_MS for before, after in pairwise(changes)}
    assert len(held_ms) == 1
    assert 1_000 <= held_ms.pop() <= 11_000


def test_only_the_name_makes_the_signal() -> None:
    """Moving a tag to another connection, unit or address changes nothing; a new name does."""
    tag = make_tag(lo=0.0, hi=10.0)
    moved = replace(tag, conn="tcp://127.0.0.1:5020", unit_id=9, address="30007", period_ms=200)
    assert sample_at(moved, NOON) == sample_at(tag, NOON)
    assert sample_at(replace(tag, device="PUMP02"), NOON) != sample_at(tag, NOON)


def test_another_process_computes_the_same() -> None:
    """Nothing depends on the interpreter's hash seed."""
    code = "from tests.unit.test_signals import *; print(fingerprint())"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == fingerprint()


def fingerprint() -> str:
    """Every type over an hour and a half, excursions included."""
    tags = [make_tag(value_type, "압력", lo=0.0, hi=50.0) for value_type in ValueType]
    moments = range(NOON, NOON + 256 * WINDOW_MS, WINDOW_MS)
    return str([sample_at(tag, ts_ms) for tag in tags for ts_ms in moments])


@given(tags(), times, st.integers(0, 500))
def test_a_late_sample_matches(tag: Tag, ts_ms: int, late_ms: int) -> None:
    """The reply may have been composed at any time in the last 500 ms."""
    assert matches(tag, ts_ms, sample_at(tag, ts_ms - late_ms))


@given(tags(), times)
def test_no_value_matches_that_is_none(tag: Tag, ts_ms: int) -> None:
    """NaN and infinities never pass."""
    assert not any(matches(tag, ts_ms, value) for value in (math.nan, math.inf, -math.inf))


def test_a_rounded_sample_matches() -> None:
    """A tag's `precision` widens the comparison to half of its last digit, and no further."""
    tag = make_tag(lo=0.0, hi=10.0, precision=1)
    sample = sample_at(tag, NOON)
    assert matches(tag, NOON, round(sample, 1), late_ms=0)
    assert not matches(tag, NOON, round(sample, 1) + 0.1, late_ms=0)
    assert not matches(replace(tag, precision=None), NOON, round(sample, 1), late_ms=0)


def test_wrong_values_rarely_match() -> None:
    """What the docstring of `matches` promises, counted: 11 in n for a value from the band."""
    for value_type, scale, counts in (
        (ValueType.FLOAT32, 1.0, 10**7),
        (ValueType.INT16, 100 / 30_000, 30_000),
        (ValueType.INT16, 1.0, 100),
    ):
        tag = make_tag(value_type, scale=scale, lo=0.0, hi=100.0)
        tried = 3_000
        passed = sum(
            matches(tag, NOON + at * 9_970, round(at * 137.035 % 100 / scale) * scale)
            for at in range(tried)
        )
        assert passed <= tried * 11 / counts * 1.5 + 3


def test_stale_and_swapped_values_rarely_match() -> None:
    """A value that is older than the window, or another tag's, does not pass for this one's."""
    tag = make_tag(ValueType.INT16, scale=0.01, lo=0.0, hi=100.0)
    other = replace(tag, device="PUMP02")
    moments = [NOON + at * 997 for at in range(1_000)]
    stale = sum(matches(tag, ts_ms, sample_at(tag, ts_ms - 600)) for ts_ms in moments)
    swapped = sum(matches(tag, ts_ms, sample_at(other, ts_ms)) for ts_ms in moments)
    assert stale <= 30
    assert swapped <= 30


def test_an_inverted_bool_matches_only_near_a_change() -> None:
    """At most half of the time, for the fastest tag there can be."""
    tag = make_tag(ValueType.BOOL)
    moments = [NOON + at * 997 for at in range(2_000)]
    assert sum(matches(tag, ts_ms, 1 - sample_at(tag, ts_ms)) for ts_ms in moments) <= 1_100
