"""Items of node-red-contrib-buffer-parser behind a Modbus node, as addresses of the map. Pure.

The parser counts bytes of the reply, which has the high byte of each register first: byte 0 is the
high byte of the first register. ``swap16`` exchanges the two bytes of every register before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge_agent.codec import REGISTER_BYTES, WIDTHS
from edge_agent.importers.base import number, text, whole
from edge_agent.importers.nodered_requests import Request
from edge_agent.model import ByteOrder, ValueType

PARSER: Final = "buffer-parser"
_DATA: Final = frozenset({"", "payload", "payload.buffer", "responseBuffer.buffer"})
"""Where the reply's bytes are, behind one output or the other of a reading node."""

_TYPES: Final[Mapping[str, ValueType]] = {
    "int8": ValueType.INT8,
    "uint8": ValueType.UINT8,
    "int16": ValueType.INT16,
    "uint16": ValueType.UINT16,
    "int32": ValueType.INT32,
    "uint32": ValueType.UINT32,
    "bigint64": ValueType.INT64,
    "biguint64": ValueType.UINT64,
    "int": ValueType.INT16,
    "uint": ValueType.UINT16,
    "float": ValueType.FLOAT32,
    "double": ValueType.FLOAT64,
    "bcd": ValueType.BCD16,
    "bool": ValueType.BOOL,
}
_ORDERS: Final = {
    (False, False): ByteOrder.ABCD,
    (True, False): ByteOrder.DCBA,
    (False, True): ByteOrder.BADC,
    (True, True): ByteOrder.CDAB,
}
"""By little-endian and swapped."""
_DIVISION: Final = re.compile(r"/\s*([0-9.]+)")
REGISTER_BITS: Final = 16


class Unreadable(ValueError):  # noqa: N818  (it says what the item is)
    """An item that is no value of the map; the text says why."""


@dataclass(frozen=True, slots=True)
class Value:
    """One value of an item."""

    name: str
    address: str
    type: ValueType
    byte_order: ByteOrder
    scale: float


def parsed_items(
    parser: Mapping[str, object], item: Mapping[str, object], request: Request
) -> list[Value]:
    """The values of an item, one for each of its length. Raises ``Unreadable``."""
    swapped = _swapped(parser)
    name = text(item.get("name"))
    word = text(item.get("type")).lower()
    plain = re.sub(r"(?<=\d|[a-z])(le|be)$", "", word)
    kind = _TYPES.get(plain)
    if kind is None:
        raise Unreadable(f"type {word!r}; the agent carries numbers and BOOL")
    if text(item.get("mask")):
        raise Unreadable("a mask; read its bits by address, as in hr:0.3")
    scale = _scale(text(item.get("scale")))
    offset, length = whole(item.get("offset")) or 0, whole(item.get("length")) or 1
    bit = whole(item.get("offsetbit")) or 0
    little = word.endswith("le")
    values = []
    for at in range(min(length, request.quantity * REGISTER_BITS)):
        label = f"{name}_{at}" if length > 1 else name
        if kind is ValueType.BOOL:
            values.append(_bit(label, request, offset * 8 + bit + at, swapped))
        else:
            values.append(_value(label, request, kind, offset, at, (little, swapped), scale))
    return values


def _swapped(parser: Mapping[str, object]) -> bool:
    if text(parser.get("data")) not in _DATA:
        raise Unreadable(f"it parses msg.{text(parser.get('data'))}, not the reply")
    swaps = [text(parser.get(f"swap{at}")) for at in (1, 2, 3)]
    swaps = [swap for swap in swaps if swap]
    if swaps not in ([], ["swap16"]):
        raise Unreadable(f"byte swap {', '.join(swaps)}; carried over is swap16")
    return bool(swaps)


def _scale(given: str) -> float:
    if not given:
        return 1.0
    scale = number(given)
    if scale is None and (division := _DIVISION.fullmatch(given)):
        divisor = number(division[1])
        scale = 1 / divisor if divisor else None
    if not scale:
        raise Unreadable(f"scale {given!r}; carried over are a factor and a division")
    return scale


def _value(
    name: str,
    request: Request,
    kind: ValueType,
    offset: int,
    at: int,
    order: tuple[bool, bool],
    scale: float,
) -> Value:
    single = kind in {ValueType.INT8, ValueType.UINT8}
    start = offset + at * (1 if single else WIDTHS[kind] * REGISTER_BYTES)
    register, odd = divmod(start, REGISTER_BYTES)
    if not 0 <= register <= request.quantity - WIDTHS[kind]:
        raise Unreadable(f"byte {start} is outside the reply of {request.quantity} registers")
    if odd and not single:
        raise Unreadable(f"byte {start} is the middle of a register")
    if single:  # the high byte of a register is the low one of a swapped register
        high = (odd == 0) != order[1]
        byte_order = ByteOrder.BADC if high else ByteOrder.ABCD
    else:
        byte_order = _ORDERS[order]
    return Value(name, f"{request.area}:{request.address + register}", kind, byte_order, scale)


def _bit(name: str, request: Request, position: int, swapped: bool) -> Value:
    register, inside = divmod(position, REGISTER_BITS)
    if not 0 <= register < request.quantity:
        raise Unreadable(f"bit {position} is outside the reply of {request.quantity} registers")
    bit = inside if swapped else (inside + 8) % REGISTER_BITS  # byte 0 is the high one
    address = f"{request.area}:{request.address + register}.{bit}"
    return Value(name, address, ValueType.BOOL, ByteOrder.ABCD, 1.0)
