"""A row's value under every type and byte order, and which of them is plausible. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Final, NamedTuple

from edge_agent.address_map.cells import TYPES_OF_ONE_REGISTER
from edge_agent.codec import REGISTER_BYTES, WIDTHS, BlockDecoder
from edge_agent.model import Address, ByteOrder, Tag, ValueType
from edge_agent.normalize import digits_of
from edge_agent.planner import Block

ABSURDLY_SMALL: Final = 1e-9
"""No plant measures a billionth of its unit; only exactly 0 may be below."""
SMALL_PART: Final = 1e-6
"""Below this part of the larger limit a value is noise around 0, or a wrong byte order."""
ABSURDLY_LARGE: Final = 1e12
"""Energy counters in watt hours stay below 1e11."""
ALARM_SPANS: Final = 1.0
"""A value outside lo..hi by up to this many times hi - lo may be an alarm."""
ALARM_SPANS_FLOAT: Final = 10.0
"""The same for floats: few of the wrong ones lie that near, as their exponents are far apart."""
SMALL_INTEGER: Final = 4_096
"""The exponent of any float that is not absurd, read as part of an integer, is larger."""
WHOLE_SHOWN_MAX: Final = 1e10
CHANCE_MAX: Final = 0.05
"""Another type's value inside lo..hi proves something only if few of its values lie there."""


class Setting(NamedTuple):
    """What `--write` may change of a row."""

    type: ValueType
    byte_order: ByteOrder

    def __str__(self) -> str:
        return f"{self.type} {shown_order(self)}"


@dataclass(frozen=True, slots=True)
class Interpretation:
    """A value in engineering units; None where the registers hold no number of this type.

    ``inside`` is None for a tag without limits. ``fault`` says what speaks against the value.
    ``raw`` is what it was before scaling; NaN if it was no number.
    """

    setting: Setting
    value: float | None
    inside: bool | None
    fault: str
    raw: float

    @property
    def grade(self) -> int:
        """2 inside lo..hi, 1 possible, 0 impossible; see the module's text."""
        if self.value is None or self.fault.startswith("absurdly"):
            return 0
        return 2 if self.inside and not self.fault else 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """``best`` is the most plausible setting; ``clear`` says whether it may replace the map's."""

    best: Setting
    clear: bool
    why: str


ORDERS: Final = (ByteOrder.ABCD, ByteOrder.CDAB, ByteOrder.BADC, ByteOrder.DCBA)
SHORT_ORDERS: Final = (ByteOrder.ABCD, ByteOrder.BADC)
"""Those that differ within one register."""
_CANONICAL: Final = {ByteOrder.CDAB: ByteOrder.ABCD, ByteOrder.DCBA: ByteOrder.BADC}
SHORT_NAMES: Final = {ByteOrder.ABCD: "AB", ByteOrder.BADC: "BA"}
_COMMON: Final = (
    ValueType.UINT16,
    ValueType.INT16,
    ValueType.UINT32,
    ValueType.INT32,
    ValueType.FLOAT32,
    ValueType.UINT64,
    ValueType.INT64,
    ValueType.FLOAT64,
)
_RARE: Final = (
    ValueType.BCD16,
    ValueType.BCD32,
    ValueType.FLOAT16,
    ValueType.UINT8,
    ValueType.INT8,
)
_TWINS: Final = frozenset(frozenset({f"INT{bits}", f"UINT{bits}"}) for bits in (8, 16, 32, 64))


def setting_of(tag: Tag) -> Setting:
    """A row's own setting, its byte order as one of those that differ for its type."""
    if tag.type in TYPES_OF_ONE_REGISTER:
        return Setting(tag.type, _CANONICAL.get(tag.byte_order, tag.byte_order))
    return Setting(tag.type, tag.byte_order)


def shown_order(setting: Setting) -> str:
    """A byte order as one writes it for this type."""
    if setting.type in TYPES_OF_ONE_REGISTER:
        return SHORT_NAMES[setting.byte_order]
    return str(setting.byte_order)


def settings_for(tag: Tag, registers: int) -> list[Setting]:
    """Every setting that fits into so many registers; BOOL only for a tag that is one."""
    types = (*_COMMON, *_RARE, *((ValueType.BOOL,) if tag.type is ValueType.BOOL else ()))
    return [
        Setting(value_type, order)
        for value_type in types
        if WIDTHS[value_type] <= registers
        for order in (SHORT_ORDERS if value_type in TYPES_OF_ONE_REGISTER else ORDERS)
    ]


def interpretations(tag: Tag, registers: Sequence[int]) -> list[Interpretation]:
    """The value of a tag under every setting. ``registers`` begin at the tag's address."""
    settings = settings_for(tag, len(registers))
    tags = tuple(replace(tag, type=s.type, byte_order=s.byte_order) for s in settings)
    addresses = tuple(Address("holding", 0, WIDTHS[s.type]) for s in settings)
    decoder = BlockDecoder(Block(tag.unit_id, "holding", 0, len(registers), tags, addresses))
    data = b"".join(register.to_bytes(REGISTER_BYTES, "big") for register in registers)
    return [
        _interpretation(one, setting, raw)
        for one, setting, raw in zip(tags, settings, decoder.decode(data), strict=True)
    ]


def _interpretation(tag: Tag, setting: Setting, raw: float) -> Interpretation:
    value = scaled(tag, raw)
    if value is None:
        return Interpretation(setting, None, None, "not a number", raw)
    amount = abs(raw * tag.scale)  # an offset would hide how small it is
    fault, inside = "", is_inside(tag, value)
    if 0 < amount < ABSURDLY_SMALL:
        fault = "absurdly small"
    elif amount > ABSURDLY_LARGE:
        fault = "absurdly large"
    elif inside is False:
        fault = f"outside {limits(tag)}"
    if inside and fault:
        inside = False
    if not fault.startswith("absurdly") and 0 < amount < SMALL_PART * _largest(tag):
        fault = f"tiny beside {limits(tag)}"
    return Interpretation(setting, value, inside, fault, raw)


def scaled(tag: Tag, raw: float) -> float | None:
    """A raw value in engineering units, as the agent would store it; None if it is not finite."""
    value = raw * tag.scale + tag.offset
    if not isfinite(value):
        return None
    digits = digits_of(tag)
    return value if digits is None else round(value, digits)


def is_inside(tag: Tag, value: float) -> bool | None:
    """Whether a value lies inside lo..hi; None for a tag without limits."""
    if tag.lo is None and tag.hi is None:
        return None
    return (tag.lo is None or value >= tag.lo) and (tag.hi is None or value <= tag.hi)


def _largest(tag: Tag) -> float:
    """The limit further from 0; 0 for a tag without limits."""
    return max(abs(tag.lo or 0.0), abs(tag.hi or 0.0))


def limits(tag: Tag) -> str:
    """lo..hi, as messages name it."""
    low = "" if tag.lo is None else f"{tag.lo:g}"
    high = "" if tag.hi is None else f"{tag.hi:g}"
    return f"{low}..{high}"


def distance(tag: Tag, setting: Setting) -> int:
    """How far a setting is from the map's: 0 the same, 1 another byte order of the same type."""
    own = setting_of(tag)
    if setting.type == own.type:
        return int(setting.byte_order != own.byte_order)
    if frozenset({str(setting.type), str(own.type)}) in _TWINS:
        return 2 + (setting.byte_order != own.byte_order)
    if setting.type in _RARE:
        return 6
    return 4 if WIDTHS[setting.type] == WIDTHS[own.type] else 5


def judge(tag: Tag, found: Sequence[Interpretation], *, may_widen: bool = True) -> Verdict:
    """Which of a tag's interpretations is most plausible, and whether that is clear.

    ``may_widen`` is False where the registers after the tag's own are known to be another tag's.
    """
    if not may_widen:
        own_width = WIDTHS[tag.type]
        found = [
            interpretation
            for interpretation in found
            if WIDTHS[interpretation.setting.type] <= own_width
        ]
    own = next(
        interpretation for interpretation in found if interpretation.setting == setting_of(tag)
    )
    best = min(found, key=lambda interpretation: _rank(tag, interpretation))
    if best.grade <= own.grade:
        return Verdict(own.setting, clear=False, why=_why_kept(tag, own))
    rivals = [
        interpretation
        for interpretation in found
        if _rank(tag, interpretation)[:3] == _rank(tag, best)[:3]
        and interpretation.value != best.value
    ]
    against = f"{own.setting}, the map's, reads {shown_value(own.value)}, {own.fault}"
    for_it = (
        f"{shown_value(best.value)} is {f'inside {limits(tag)}' if best.inside else 'possible'}"
    )
    if rivals:
        others = " and ".join(f"{r.setting} ({shown_value(r.value)})" for r in rivals)
        why = f"{best.setting} ({shown_value(best.value)}) and {others} are equally plausible"
        return Verdict(best.setting, clear=False, why=f"{why}; {against}")
    doubt = _doubt(tag, own, best)
    if doubt:
        return Verdict(best.setting, clear=False, why=f"{for_it}, but {doubt}; {against}")
    return Verdict(best.setting, clear=True, why=f"{for_it}; {against}")


def _rank(tag: Tag, interpretation: Interpretation) -> tuple[int, int, bool, int]:
    """The smallest is the most plausible; the last part only chooses between equal values."""
    expects_whole = "INT" in tag.type or "BCD" in tag.type
    signed = tag.lo is not None and tag.lo < 0
    types = (*_COMMON, *_RARE, ValueType.BOOL)
    place = types.index(interpretation.setting.type) * 2
    if signed and interpretation.setting.type.startswith("UINT"):
        place += 3  # behind its twin, which follows it
    return (
        -interpretation.grade,
        distance(tag, interpretation.setting),
        expects_whole and not float(interpretation.raw).is_integer(),
        place,
    )


def _why_kept(tag: Tag, own: Interpretation) -> str:
    if own.grade == 2:
        return f"{shown_value(own.value)} is inside {limits(tag)}"
    if own.grade == 1 and not own.fault:
        return f"{shown_value(own.value)} is possible, and the map gives no lo and hi to compare"
    return f"{shown_value(own.value)} is {own.fault}, and no other setting reads better"


def _doubt(tag: Tag, own: Interpretation, best: Interpretation) -> str:
    """Why a better interpretation is not clearly better; empty if it is."""
    if best.inside is None:
        if distance(tag, best.setting) > 1:
            return "without lo and hi in the map another type is a guess"
        return ""
    if not best.inside:
        return f"it is outside {limits(tag)} too"
    if own.inside:
        return "the map's own value may be noise around 0"
    if (
        own.grade == 1
        and own.value is not None
        and not own.fault.startswith("tiny")
        and _may_be_alarm(tag, own.value)
    ):
        return "the map's own value is so near the limits that it may be an alarm"
    return _coincidence(tag, own, best) if distance(tag, best.setting) > 1 else ""


def _coincidence(tag: Tag, own: Interpretation, best: Interpretation) -> str:
    """Why another type may read a value inside lo..hi by chance; empty if it hardly can."""
    if "INT" in tag.type and WIDTHS[tag.type] > 1 and abs(own.raw) < SMALL_INTEGER:
        return "so small an integer is seldom anything else"
    if best.setting.type in _RARE:
        return f"{best.setting.type} is rare, and short values fit by chance"
    if best.raw in {0, -1}:
        return "that is what the unused half of a longer value reads"
    like_map = setting_of(replace(tag, type=best.setting.type)).byte_order
    if WIDTHS[best.setting.type] < WIDTHS[tag.type] and best.setting.byte_order != like_map:
        return "a part of a longer value, with its bytes swapped, fits by chance"
    if _share_inside(tag, best.setting) > CHANCE_MAX:
        return f"so are too many of all {best.setting.type} values"
    return ""


def _share_inside(tag: Tag, setting: Setting) -> float:
    """How many of an integer type's values lie inside lo..hi, as a part of 1; 0 for floats."""
    if "INT" not in setting.type and "BCD" not in setting.type:
        return 0.0
    if tag.lo is None or tag.hi is None:
        return 1.0
    bits = int(setting.type.lstrip("UINTBCD"))
    return (tag.hi - tag.lo) / abs(tag.scale) / 2.0**bits


def _may_be_alarm(tag: Tag, value: float) -> bool:
    """Whether a value outside lo..hi is near them."""
    low, high = tag.lo, tag.hi
    if low is not None and high is not None:
        span = high - low
    else:
        span = abs(low if low is not None else high or 0.0)
    over = max(value - high if high is not None else 0.0, low - value if low is not None else 0.0)
    return over <= span * (ALARM_SPANS_FLOAT if "FLOAT" in tag.type else ALARM_SPANS)


def shown_value(value: float | None) -> str:
    """Seven digits, all that a FLOAT32 has; every digit of a 32-bit integer."""
    if value is None:
        return "not a number"
    if value.is_integer() and abs(value) < WHOLE_SHOWN_MAX:
        return f"{value:.0f}"
    return f"{value:.7g}"
