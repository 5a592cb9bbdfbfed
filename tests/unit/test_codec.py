"""Registers and bits to raw values, and back."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import inf, isfinite, isnan, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.codec import WIDTHS, BitBlockDecoder, BlockDecoder, encode
from edge_agent.model import Address, ByteOrder, Tag, ValueType
from edge_agent.planner import Block
from tests.tags import plain_tag

A, D, B, C = ByteOrder.ABCD, ByteOrder.DCBA, ByteOrder.BADC, ByteOrder.CDAB
T = ValueType

RANGES = {
    T.BOOL: (0, 1),
    T.INT8: (-(2**7), 2**7 - 1),
    T.UINT8: (0, 2**8 - 1),
    T.INT16: (-(2**15), 2**15 - 1),
    T.UINT16: (0, 2**16 - 1),
    T.INT32: (-(2**31), 2**31 - 1),
    T.UINT32: (0, 2**32 - 1),
    T.INT64: (-(2**63), 2**63 - 1),
    T.UINT64: (0, 2**64 - 1),
    T.BCD16: (0, 9_999),
    T.BCD32: (0, 99_999_999),
}
FLOAT_BITS = {T.FLOAT16: 16, T.FLOAT32: 32, T.FLOAT64: 64}


def tag(value_type: ValueType, byte_order: ByteOrder = A, name: str = "t") -> Tag:
    return plain_tag(name, type=value_type, byte_order=byte_order)


def block(*members: tuple[Tag, Address], start: int = 0, count: int | None = None) -> Block:
    end = max(address.offset + address.width for _, address in members)
    return Block(
        unit_id=1,
        area="holding",
        start=start,
        count=end - start if count is None else count,
        tags=tuple(member for member, _ in members),
        addresses=tuple(address for _, address in members),
    )


def wire(registers: Sequence[int]) -> bytes:
    """Registers as Modbus sends them: most significant byte first."""
    return b"".join(register.to_bytes(2, "big") for register in registers)


def decode_one(
    value_type: ValueType, order: ByteOrder, data: bytes, bit: int | None = None
) -> float:
    address = Address("holding", 0, WIDTHS[value_type], bit)
    [value] = BlockDecoder(block((tag(value_type, order), address))).decode(data)
    return value


def same(left: Sequence[float], right: Sequence[float]) -> bool:
    return len(left) == len(right) and all(
        one == other or (isnan(one) and isnan(other))
        for one, other in zip(left, right, strict=True)
    )


@pytest.mark.parametrize(
    ("value_type", "order", "data", "value"),
    [
        # 0x01020304 = 16909060; the order's letters say which byte comes first on the wire.
        (T.UINT32, A, "01 02 03 04", 16909060),
        (T.UINT32, D, "04 03 02 01", 16909060),
        (T.UINT32, B, "02 01 04 03", 16909060),
        (T.UINT32, C, "03 04 01 02", 16909060),
        (T.UINT64, A, "01 02 03 04 05 06 07 08", 0x0102030405060708),
        (T.UINT64, D, "08 07 06 05 04 03 02 01", 0x0102030405060708),
        (T.UINT64, B, "02 01 04 03 06 05 08 07", 0x0102030405060708),
        (T.UINT64, C, "07 08 05 06 03 04 01 02", 0x0102030405060708),
        (T.UINT16, A, "01 02", 258),
        (T.UINT16, B, "02 01", 258),
        (T.UINT16, C, "01 02", 258),
        (T.UINT16, D, "02 01", 258),
        (T.INT16, A, "ff fe", -2),
        (T.INT32, C, "ff fe ff ff", -2),
        (T.INT64, A, "ff ff ff ff ff ff ff fe", -2),
        # IEEE 754: 12.5 is 0x41480000, and 0x4a40 in half precision.
        (T.FLOAT32, A, "41 48 00 00", 12.5),
        (T.FLOAT32, D, "00 00 48 41", 12.5),
        (T.FLOAT32, B, "48 41 00 00", 12.5),
        (T.FLOAT32, C, "00 00 41 48", 12.5),
        (T.FLOAT64, C, "00 00 00 00 00 00 40 29", 12.5),
        (T.FLOAT16, A, "4a 40", 12.5),
        (T.FLOAT16, B, "40 4a", 12.5),
        # An 8-bit value is the low byte of an AB register, the high byte of a BA register.
        (T.UINT8, A, "01 02", 2),
        (T.UINT8, C, "01 02", 2),
        (T.UINT8, B, "01 02", 1),
        (T.UINT8, D, "01 02", 1),
        (T.INT8, A, "00 ff", -1),
        (T.INT8, B, "ff 00", -1),
        (T.BCD16, A, "12 34", 1234),
        (T.BCD16, B, "34 12", 1234),
        (T.BCD32, A, "12 34 56 78", 12345678),
        (T.BCD32, C, "56 78 12 34", 12345678),
        (T.BOOL, A, "00 00", 0),
        (T.BOOL, A, "01 00", 1),
    ],
)  # fmt: skip
def test_known_bytes(value_type: ValueType, order: ByteOrder, data: str, value: float) -> None:
    """Each type and byte order reads the bytes that its definition says, and writes them back."""
    assert decode_one(value_type, order, bytes.fromhex(data)) == value
    if value_type not in {T.BOOL, T.UINT8}:
        assert wire(encode(value_type, order, value)) == bytes.fromhex(data)


@pytest.mark.parametrize("order", ByteOrder)
@pytest.mark.parametrize("value_type", ValueType)
@given(data=st.data())
def test_round_trip(value_type: ValueType, order: ByteOrder, data: st.DataObject) -> None:
    """What encode writes, the decoder reads: every type, every byte order, every value."""
    if value_type in FLOAT_BITS:
        width = FLOAT_BITS[value_type]
        strategy = st.floats(allow_nan=False, allow_infinity=False, width=width)  # type: ignore[arg-type]
        value: float = data.draw(strategy)
    else:
        value = data.draw(st.integers(*RANGES[value_type]))
    registers = encode(value_type, order, value)
    assert len(registers) == WIDTHS[value_type]
    assert decode_one(value_type, order, wire(registers)) == value


@pytest.mark.parametrize("value_type", RANGES.keys() - {T.BOOL})
def test_encode_refuses_what_does_not_fit(value_type: ValueType) -> None:
    """A value beyond the type's range is an error, never a wrapped number."""
    lowest, highest = RANGES[value_type]
    for value in (lowest - 1, highest + 1, nan, inf):
        with pytest.raises(ValueError, match=f"does not fit {value_type}"):
            encode(value_type, A, value)


def test_encode_rounds_integers_and_refuses_a_float32_overflow() -> None:
    """A signal of 2.6 is 3 in an integer register."""
    assert encode(T.INT16, A, 2.6) == [3]
    with pytest.raises(ValueError, match="does not fit FLOAT32"):
        encode(T.FLOAT32, A, 1e39)


@pytest.mark.parametrize("order", ByteOrder)
def test_bits_of_a_register(order: ByteOrder) -> None:
    """Bit 0 is the least significant of the register as its byte order reads it."""
    data = wire(encode(T.UINT16, order, 0b1000_0000_0000_0110))
    bits = [decode_one(T.BOOL, order, data, bit) for bit in range(16)]
    assert bits == [0, 1, 1] + [0] * 12 + [1]


@pytest.mark.parametrize("bits", [0x000A, 0xA000, 0xFFFF])
def test_bcd_digits_above_nine_are_nan(bits: int) -> None:
    """Registers that are no decimal number mark the tag bad; 0x1a is not 20."""
    assert isnan(decode_one(T.BCD16, A, wire([bits])))
    assert isnan(decode_one(T.BCD32, A, wire([0, bits])))


@pytest.mark.parametrize("value_type", FLOAT_BITS)
@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_non_finite_floats_are_nan_and_neighbours_stay(value_type: ValueType, bad: float) -> None:
    """NaN and both infinities become NaN, alone."""
    width = WIDTHS[value_type]
    members = [(tag(value_type), Address("holding", i * width, width)) for i in range(3)]
    data = wire([r for value in (1.5, bad, -2.5) for r in encode(value_type, A, value)])
    assert same(BlockDecoder(block(*members)).decode(data), [1.5, nan, -2.5])


def test_infinities_that_cancel_are_both_found() -> None:
    """+inf and -inf in one block do not hide each other."""
    members = [(tag(T.FLOAT32), Address("holding", i * 2, 2)) for i in range(2)]
    data = wire([*encode(T.FLOAT32, A, inf), *encode(T.FLOAT32, A, -inf)])
    assert same(BlockDecoder(block(*members)).decode(data), [nan, nan])


def test_large_finite_values_whose_sum_overflows_stay() -> None:
    """1.7e308 twice is fine, although their sum is not."""
    members = [(tag(T.FLOAT64), Address("holding", i * 4, 4)) for i in range(2)]
    data = wire(encode(T.FLOAT64, A, 1.7e308) * 2)
    assert list(BlockDecoder(block(*members)).decode(data)) == [1.7e308, 1.7e308]


def test_gaps_duplicates_and_shared_registers() -> None:
    """Cells between tags are skipped; one register may serve many tags, in any order."""
    members = [
        (tag(T.UINT16), Address("holding", 103)),
        (tag(T.BOOL), Address("holding", 100, 1, 3)),
        (tag(T.UINT16), Address("holding", 103)),
        (tag(T.BOOL), Address("holding", 100, 1, 0)),
        (tag(T.UINT32), Address("holding", 102, 2)),
        (tag(T.UINT16, B), Address("holding", 103)),
        (tag(T.BOOL), Address("holding", 100)),
    ]
    decoder = BlockDecoder(block(*members, start=100, count=5))
    assert list(decoder.decode(wire([8, 0xDEAD, 1, 2, 0xDEAD]))) == [2, 1, 2, 0, 65538, 512, 1]


def test_reply_of_another_length_is_refused() -> None:
    """A decoder never reads short or leaves bytes over."""
    decoder = BlockDecoder(block((tag(T.UINT16), Address("holding", 0)), count=2))
    for size in (0, 2, 3, 5, 6):
        with pytest.raises(struct.error):
            decoder.decode(bytes(size))


def test_coils() -> None:
    """Bits are packed eight to a byte, the lowest first; the block may start anywhere."""
    members = [(tag(T.BOOL), Address("coil", offset)) for offset in (7, 8, 15, 16, 7)]
    decoder = BitBlockDecoder(block(*members, start=7))
    assert decoder.size_bytes == 2
    assert list(decoder.decode(bytes([0b0000_0011, 0b0000_0010]))) == [1, 1, 0, 1, 1]


def reference(member: Tag, address: Address, start: int, data: bytes) -> float:
    """One value read the slow and obvious way."""
    width = WIDTHS[member.type]
    first = (address.offset - start) * 2
    cells = [data[i : i + 2] for i in range(first, first + 2 * width, 2)]
    if member.byte_order in {B, D}:
        cells = [cell[::-1] for cell in cells]
    if member.byte_order in {C, D}:
        cells.reverse()
    value = b"".join(cells)
    if address.bit is not None:
        return (int.from_bytes(value, "big") >> address.bit) % 2
    if member.type is T.BOOL:
        return float(any(value))
    if member.type in {T.BCD16, T.BCD32}:
        return int(value.hex()) if value.hex().isdigit() else nan
    if member.type in FLOAT_BITS:
        code = {16: ">e", 32: ">f", 64: ">d"}[FLOAT_BITS[member.type]]
        number: float = struct.unpack(code, value)[0]
        return number if isfinite(number) else nan
    if member.type in {T.INT8, T.UINT8}:
        value = value[1:]
    return int.from_bytes(value, "big", signed=member.type.startswith("INT"))


@st.composite
def members(draw: st.DrawFn) -> tuple[Tag, Address]:
    value_type = draw(st.sampled_from(ValueType))
    bit = draw(st.none() | st.integers(0, 15)) if value_type is T.BOOL else None
    # A narrow range, so that tags overlap, repeat and share registers.
    address = Address("holding", draw(st.integers(50, 70)), WIDTHS[value_type], bit)
    return tag(value_type, draw(st.sampled_from(ByteOrder))), address


@given(st.lists(members(), min_size=1, max_size=20), st.data())
def test_any_block_decodes_as_its_tags_would_alone(
    chosen: list[tuple[Tag, Address]], given: st.DataObject
) -> None:
    """Mixed types and orders, overlaps, duplicates, any order of tags: the values are the same."""
    whole = block(*chosen, start=50)
    data = given.draw(st.binary(min_size=whole.count * 2, max_size=whole.count * 2))
    expected = [reference(member, address, 50, data) for member, address in chosen]
    assert same(BlockDecoder(whole).decode(data), expected)
