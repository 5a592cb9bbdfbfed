"""Registers and bits to raw values, and back. Pure.

A decoder is compiled once per block and then turns each reply's bytes into raw values, in the
order of ``block.tags``, with one precompiled struct in the typical case.

Byte orders, on the wire's bytes (A is the most significant of four; eight follow the same scheme):

=====  =================================  ============================================
order  wire, 32 bit / 64 bit              read as
=====  =================================  ============================================
ABCD   ``ABCD`` / ``ABCDEFGH``            big-endian
DCBA   ``DCBA`` / ``HGFEDCBA``            little-endian
BADC   ``BADC`` / ``BADCFEHG``            big-endian after swapping each register's bytes
CDAB   ``CDAB`` / ``GHEFCDAB``            little-endian after swapping each register's bytes
=====  =================================  ============================================

For 16-bit types ABCD and CDAB mean AB, BADC and DCBA mean BA. An 8-bit type is the low byte of an
AB register and the high byte of a BA register.

Raw values become float64 later on: 64-bit integers beyond 2**53 then lose exactness.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from math import isfinite, nan
from operator import itemgetter
from struct import Struct, error, pack
from typing import Final, NamedTuple

from edge_agent.model import Address, ByteOrder, ValueType
from edge_agent.planner import Block

REGISTER_BYTES: Final = 2

_CODES: Final[Mapping[ValueType, str]] = {
    ValueType.BOOL: "H",
    ValueType.INT8: "b",
    ValueType.UINT8: "B",
    ValueType.INT16: "h",
    ValueType.UINT16: "H",
    ValueType.INT32: "i",
    ValueType.UINT32: "I",
    ValueType.INT64: "q",
    ValueType.UINT64: "Q",
    ValueType.FLOAT16: "e",
    ValueType.FLOAT32: "f",
    ValueType.FLOAT64: "d",
    ValueType.BCD16: "H",
    ValueType.BCD32: "I",
}
"""The struct code of each type; BOOL and BCD are converted afterwards."""

_FLOATS: Final = frozenset({ValueType.FLOAT16, ValueType.FLOAT32, ValueType.FLOAT64})
_BCD_DIGITS: Final[Mapping[ValueType, int]] = {ValueType.BCD16: 4, ValueType.BCD32: 8}
_LITTLE: Final = frozenset({ByteOrder.DCBA, ByteOrder.CDAB})
_SWAPPED: Final = frozenset({ByteOrder.BADC, ByteOrder.CDAB})

WIDTHS: Final[Mapping[ValueType, int]] = {
    value_type: max(1, Struct(f">{code}").size // REGISTER_BYTES)
    for value_type, code in _CODES.items()
}
"""How many registers a value of each type takes."""

Convert = Callable[[float], float]


class BitBlockDecoder:
    """Decodes a block of coils or discrete inputs: eight to a byte, the first in bit 0."""

    def __init__(self, block: Block) -> None:
        self.size_bytes = (block.count + 7) // 8
        self._places = [divmod(address.offset - block.start, 8) for address in block.addresses]

    def decode(self, data: bytes) -> Sequence[float]:
        """One 0 or 1 per tag; ``data`` is ``size_bytes`` long."""
        return [data[index] >> bit & 1 for index, bit in self._places]


class BlockDecoder:
    """Decodes a block of registers.

    Fields that do not overlap and share a byte order make one *pass*: a struct with pad bytes over
    the whole block. Tags of one byte order that do not overlap, which is nearly every block, are
    one pass whose tuple is the result. Further passes read what is left; a field that several tags
    share, such as the register of sixteen status bits, is read once.
    """

    def __init__(self, block: Block) -> None:
        self.size_bytes = block.count * REGISTER_BYTES
        fields = [
            _Field.of(address, block.start, tag.type, tag.byte_order)
            for tag, address in zip(block.tags, block.addresses, strict=True)
        ]
        passes = _lay_out(set(fields))
        plain: list[Struct] = []
        swapped: list[Struct] = []
        for members in passes:
            target = swapped if members[0].swapped else plain
            target.append(_compile(members, self.size_bytes))
        self._plain = tuple(plain)
        self._swapped = tuple(swapped)
        self._only = plain[0] if len(plain) == 1 and not swapped else None

        # The passes over the plain buffer are unpacked first, whatever order they were laid out in.
        read = [
            field
            for swap in (False, True)
            for members in passes
            if members[0].swapped is swap
            for field in members
        ]
        place = {field: index for index, field in enumerate(read)}
        order = [place[field] for field in fields]
        self._pick = None if order == list(range(len(read))) else _picker(order)
        self._has_floats = any(tag.type in _FLOATS for tag in block.tags)
        self._conversions: tuple[tuple[int, Convert], ...] = tuple(
            (index, convert)
            for index, (tag, address) in enumerate(zip(block.tags, block.addresses, strict=True))
            if (convert := _conversion(tag.type, address.bit)) is not None
        )

    def decode(self, data: bytes) -> Sequence[float]:
        """One raw value per tag, in their order; NaN where the bytes are no valid finite value.

        ``data`` is ``size_bytes`` long; any other length raises ``struct.error``.
        """
        values: Sequence[float] = (
            self._only.unpack(data) if self._only is not None else self._unpack_all(data)
        )
        # An infinity or NaN shows in the sum. A sum of finite values that overflows only costs
        # the closer look.
        if self._has_floats and not isfinite(sum(values)):
            values = [value if isfinite(value) else nan for value in values]
        if self._pick is not None:
            values = self._pick(values)
        if self._conversions:
            converted = list(values)
            for index, convert in self._conversions:
                converted[index] = convert(converted[index])
            return converted
        return values

    def _unpack_all(self, data: bytes) -> Sequence[float]:
        parts: list[tuple[float, ...]] = [layout.unpack(data) for layout in self._plain]
        if self._swapped:
            words = array("H", data)
            words.byteswap()
            parts += [layout.unpack(words) for layout in self._swapped]
        return parts[0] if len(parts) == 1 else tuple(chain.from_iterable(parts))


class _Field(NamedTuple):
    """Bytes ``start`` to ``end - 1`` of the block's reply, read with one struct code."""

    start: int
    end: int
    code: str
    swapped: bool
    little: bool

    @classmethod
    def of(
        cls, address: Address, block_start: int, value_type: ValueType, order: ByteOrder
    ) -> _Field:
        start = (address.offset - block_start) * REGISTER_BYTES
        code = _CODES[value_type]
        little = order in _LITTLE
        size = Struct(f">{code}").size
        if size == 1 and not little:
            start += 1
        return cls(start, start + size, code, order in _SWAPPED, little)


def _lay_out(fields: Iterable[_Field]) -> list[list[_Field]]:
    """Share the fields out to passes; in a pass they have one order and do not overlap."""
    passes: list[list[_Field]] = []
    for field in sorted(fields):
        for members in passes:
            last = members[-1]
            if last.end <= field.start and last[-2:] == field[-2:]:
                members.append(field)
                break
        else:
            passes.append([field])
    return passes


def _compile(members: Sequence[_Field], size_bytes: int) -> Struct:
    """One struct over the whole reply; pad bytes where no member lies."""
    layout = ["<" if members[0].little else ">"]
    position = 0
    for field in members:
        layout.append("x" * (field.start - position) + field.code)
        position = field.end
    return Struct("".join(layout) + "x" * (size_bytes - position))


def _picker(order: Sequence[int]) -> Callable[[Sequence[float]], Sequence[float]]:
    if len(order) == 1:  # itemgetter of one index gives no tuple
        only = order[0]
        return lambda values: (values[only],)
    return itemgetter(*order)


def _conversion(value_type: ValueType, bit: int | None) -> Convert | None:
    """What turns the field that was read into the raw value; None if it is the raw value."""
    if bit is not None:
        return lambda value: int(value) >> bit & 1
    if value_type is ValueType.BOOL:
        return lambda value: 1 if value else 0
    if value_type in _BCD_DIGITS:
        return _from_bcd
    return None


def _from_bcd(value: float) -> float:
    """Four bits to a digit; NaN if one of them is above 9."""
    digits = f"{int(value):x}"
    return int(digits) if digits.isdecimal() else nan


def encode(value_type: ValueType, byte_order: ByteOrder, value: float) -> list[int]:
    """The registers that hold ``value``, as a PLC would: the inverse of decoding.

    Integers are rounded to the nearest, BOOL is 0 or 1, the unused byte of an 8-bit type is 0.
    Raises ``ValueError`` for a value outside the type's range.
    """
    try:
        data = pack(f">{_CODES[value_type]}", _storable(value_type, value))
    except (error, OverflowError, ValueError) as cause:
        raise ValueError(f"{value!r} does not fit {value_type}: {cause}") from cause
    data = data.rjust(REGISTER_BYTES, b"\0")
    if byte_order in _LITTLE:
        data = data[::-1]
    words = [data[index : index + REGISTER_BYTES] for index in range(0, len(data), REGISTER_BYTES)]
    endian: Final = "little" if byte_order in _SWAPPED else "big"
    return [int.from_bytes(word, endian) for word in words]


def _storable(value_type: ValueType, value: float) -> float:
    """The value as the number that struct packs."""
    if value_type in _FLOATS:
        return value
    if value_type is ValueType.BOOL:
        return 1 if value else 0
    whole = round(value)
    if value_type in _BCD_DIGITS:
        digits = _BCD_DIGITS[value_type]
        if not 0 <= whole < 10**digits:
            raise ValueError(f"BCD holds 0 to {10**digits - 1}")
        return int(str(whole), 16)
    return whole
