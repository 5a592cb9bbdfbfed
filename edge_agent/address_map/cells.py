"""What one cell may hold, and how its text becomes a value.

Every function here takes a cell's text and raises ``ValueError`` with what is wrong and, where
that can be known, what to write instead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache

from edge_agent.model import ByteOrder, ValueType

NUMBERS_CACHED_MAX = 4096
"""Scales and limits repeat from row to row; kept once, they cost a large map no memory."""

NAME_CHARS_MAX = 128
"""Three names of 128 characters, 4 bytes each, keep a topic far below MQTT's 65,535 bytes."""

TEXT_CHARS_MAX = 1024
"""Longer than any connection, address or description that a person writes."""

UNIT_ID_MAX = 255
PERIOD_MS_MIN = 200
PERIOD_MS_MAX = 86_400_000
"""One day: a value that is read less often is a document, not a signal."""
PRECISION_DIGITS_MAX = 12
"""A float64 holds 15 digits; 12 after the point leave three before it."""

ENABLED = {
    **dict.fromkeys(("true", "1", "yes", "y", "예"), True),
    **dict.fromkeys(("false", "0", "no", "n", "아니오", "아니요"), False),
}

TYPES_OF_ONE_REGISTER = frozenset(
    {
        ValueType.BOOL,
        ValueType.INT8,
        ValueType.UINT8,
        ValueType.INT16,
        ValueType.UINT16,
        ValueType.FLOAT16,
        ValueType.BCD16,
    }
)
"""The types whose two bytes may be ordered AB or BA."""

_SHORT_ORDERS = {"AB": ByteOrder.ABCD, "BA": ByteOrder.BADC}

# What IEC 61131-3 and the usual PLC tools call our types.
_TYPE_ALIASES = {
    **dict.fromkeys(("BIT", "BOOLEAN"), ValueType.BOOL),
    "SINT": ValueType.INT8,
    **dict.fromkeys(("USINT", "BYTE"), ValueType.UINT8),
    **dict.fromkeys(("INT", "SHORT"), ValueType.INT16),
    **dict.fromkeys(("UINT", "WORD"), ValueType.UINT16),
    **dict.fromkeys(("DINT", "LONG"), ValueType.INT32),
    **dict.fromkeys(("UDINT", "DWORD"), ValueType.UINT32),
    "LINT": ValueType.INT64,
    **dict.fromkeys(("ULINT", "LWORD"), ValueType.UINT64),
    **dict.fromkeys(("REAL", "FLOAT"), ValueType.FLOAT32),
    **dict.fromkeys(("LREAL", "DOUBLE"), ValueType.FLOAT64),
    "BCD": ValueType.BCD16,
}

_NAME = f"text of at most {NAME_CHARS_MAX} characters without / + #"
_ANY_NUMBER = "a number with a decimal point"
_LIMIT = f"{_ANY_NUMBER}, or empty for no limit"
ALLOWED: Mapping[str, str] = {
    "site": _NAME,
    "line": f"text of at most {NAME_CHARS_MAX} characters",
    "device": _NAME,
    "tag": _NAME,
    "protocol": "the name of a protocol, for example modbus",
    "conn": f"a connection of at most {TEXT_CHARS_MAX} characters, for example tcp://10.0.0.5:502",
    "unit_id": f"a whole number from 0 to {UNIT_ID_MAX}, or empty for 1",
    "address": f"an address of at most {TEXT_CHARS_MAX} characters, for example 40001",
    "type": ", ".join(ValueType),
    "scale": f"{_ANY_NUMBER}, not 0, or empty for 1",
    "offset": f"{_ANY_NUMBER}, or empty for 0",
    "period_ms": f"a whole number of milliseconds from {PERIOD_MS_MIN} to {PERIOD_MS_MAX}",
    "unit": f"text of at most {NAME_CHARS_MAX} characters, or empty",
    "hi": _LIMIT,
    "lo": _LIMIT,
    "byte_order": f"{', '.join(ByteOrder)}; for 16-bit types AB and BA too; or empty for ABCD",
    "deadband": f"{_ANY_NUMBER} from 0, or empty for 0",
    "precision": f"a whole number of digits from 0 to {PRECISION_DIGITS_MAX}, or empty",
    "heartbeat_ms": f"a whole number of milliseconds from period_ms to {PERIOD_MS_MAX}, or empty",
    "enabled": f"{', '.join(ENABLED)}, or empty for true",
    "description": f"text of at most {TEXT_CHARS_MAX} characters, or empty",
}

# Lone surrogates can't be encoded, so no sink could take them.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

# Besides control characters: wildcards and the level separator of MQTT; characters that nobody
# sees (zero width, direction marks, line separators, soft hyphen), since two names that look the
# same must be the same; the non-characters, for which Mosquitto closes the connection; and the
# replacement character, which says that a conversion has lost the real one.
_NONCHARACTERS = "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
_NOT_IN_NAMES = re.compile(
    f"[/+#\\x00-\\x1f\\x7f-\\x9f\\xad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f"
    f"\\ud800-\\udfff\\ufdd0-\\ufdef\\ufeff\\ufffd{_NONCHARACTERS}]"
)

_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_POINT_GROUPS = re.compile(r"[+-]?[0-9]{1,3}(\.[0-9]{3})+,[0-9]+")  # 1.234,5
_COMMA_GROUPS = re.compile(r"[+-]?[1-9][0-9]{0,2}((,[0-9]{3})+\.[0-9]+|(,[0-9]{3}){2,})")  # 1,234.5
_ONE_GROUP = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")  # 1,200: grouped, or a decimal comma
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")  # 0,1
_WITH_UNIT = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?)\s*[^\W\d]{1,4}")  # 500ms

WHOLE_CHARS_MAX = 20
"""No column counts beyond 64 bits, and Python refuses to convert thousands of digits."""


def name(cell: str) -> str:
    """A site, device or tag: part of a topic and of a primary key."""
    found_name = unicodedata.normalize("NFC", cell)
    plain = _NOT_IN_NAMES.sub("-", found_name).strip().lstrip("$").strip()[:NAME_CHARS_MAX]
    advice = f"; write {plain}" if plain.strip("-") else ""
    if found := _NOT_IN_NAMES.search(found_name):
        raise ValueError(f"{_character(found[0])} is not allowed in a name{advice}")
    if found_name != found_name.strip():
        raise ValueError(f"a name has no space before or after it{advice}")
    if found_name.startswith("$"):
        raise ValueError(f"a name does not begin with $, which MQTT keeps to itself{advice}")
    return _at_most(NAME_CHARS_MAX, found_name)


def label(cell: str) -> str:
    """A line or a unit: anything that can be shown."""
    return _at_most(NAME_CHARS_MAX, _plain(unicodedata.normalize("NFC", cell)))


def text(cell: str) -> str:
    """A cell whose syntax belongs to somebody else, byte for byte but for spaces around it."""
    return _at_most(TEXT_CHARS_MAX, _plain(cell))


def description(cell: str) -> str:
    """Free text on one line: Alt+Enter in Excel is meant well, but no card has room for it."""
    return text(re.sub(r"\s+", " ", unicodedata.normalize("NFC", cell)))


def _plain(cell: str) -> str:
    if found := _CONTROL.search(cell.strip()):
        raise ValueError(f"{_character(found[0])} is not allowed here; delete it")
    return cell.strip()


def _at_most(chars_max: int, cell: str) -> str:
    if len(cell) > chars_max:
        raise ValueError(f"{len(cell)} characters long; allowed are {chars_max}")
    return cell


def _character(character: str) -> str:
    if character in "/+#":
        return repr(character)
    if character == "\ufffd":
        return "U+FFFD, which stands for a character lost in a conversion,"
    kind = "control character" if _CONTROL.match(character) else "invisible character"
    return f"the {kind} U+{ord(character):04X}"


@lru_cache(NUMBERS_CACHED_MAX)
def number(cell: str) -> float:
    """A decimal number; one beyond float64 becomes infinite, which the row refuses."""
    if _NUMBER.fullmatch(cell.strip()):
        return float(cell)
    raise ValueError(f"not a number with a decimal point{_likely(cell, _NUMBER)}")


def whole(cell: str) -> int:
    """A whole number; ``1.0``, as some programs write it, is one."""
    plain = cell.strip()
    if _WHOLE.fullmatch(plain) and len(plain) <= WHOLE_CHARS_MAX:
        return int(plain.partition(".")[0])
    raise ValueError(f"not a whole number{_likely(cell, _WHOLE)}")


def _likely(cell: str, wanted: re.Pattern[str]) -> str:
    """The number that was most likely meant, as advice; both where a comma may mean two things."""
    plain = unicodedata.normalize("NFKC", cell).strip().replace("−", "-")
    if _POINT_GROUPS.fullmatch(plain):
        plain = plain.replace(".", "").replace(",", ".")
    elif _COMMA_GROUPS.fullmatch(plain):
        plain = plain.replace(",", "")
    elif _ONE_GROUP.fullmatch(plain):
        grouped, decimal = plain.replace(",", ""), f"{float(plain.replace(',', '.')):g}"
        if wanted is _WHOLE:
            return f"; write {grouped}"
        return f"; write {grouped}, or {decimal} if the comma is a decimal sign"
    elif _DECIMAL_COMMA.fullmatch(plain):
        plain = plain.replace(",", ".")
    elif with_unit := _WITH_UNIT.fullmatch(plain):
        plain = with_unit[1]
    return f"; write {plain}" if plain != cell.strip() and wanted.fullmatch(plain) else ""


def value_type(cell: str) -> ValueType:
    """A type, in capitals or not."""
    plain = cell.strip().upper()
    if plain in ValueType.__members__:
        return ValueType[plain]
    alias = _TYPE_ALIASES.get(plain)
    near = [alias] if alias else get_close_matches(plain[:NAME_CHARS_MAX], ValueType, 1)
    advice = f"; write {near[0]}" if near else ""
    raise ValueError(f"not a type{advice}; allowed: {ALLOWED['type']}")


def byte_order(cell: str, of_type: ValueType | None) -> ByteOrder:
    """A byte order; ``of_type`` is the row's type, or ``None`` if that is wrong itself."""
    plain = cell.strip().upper()
    if plain in ByteOrder.__members__:
        return ByteOrder[plain]
    if plain in _SHORT_ORDERS and (of_type is None or of_type in TYPES_OF_ONE_REGISTER):
        return _SHORT_ORDERS[plain]
    if plain in _SHORT_ORDERS:
        orders = ", ".join(ByteOrder)
        raise ValueError(f"{of_type} has more than two bytes; write one of {orders}")
    raise ValueError(f"allowed: {ALLOWED['byte_order']}")


def enabled(cell: str) -> bool:
    """Whether a row counts."""
    plain = unicodedata.normalize("NFC", cell).strip().lower()
    if plain not in ENABLED:
        raise ValueError(f"allowed: {ALLOWED['enabled']}")
    return ENABLED[plain]
