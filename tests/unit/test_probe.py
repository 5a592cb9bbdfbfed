"""Which setting is plausible, what a scan asks, and which bytes of a file change."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_agent.address_map import COLUMNS
from edge_agent.address_map.check import check
from edge_agent.address_map.table import read
from edge_agent.codec import WIDTHS, encode
from edge_agent.errors import ConfigError
from edge_agent.model import ByteOrder, Tag, ValueType
from edge_agent.probe.cells import can_be_written, rewrite
from edge_agent.probe.interpretations import (
    Setting,
    Verdict,
    interpretations,
    judge,
    setting_of,
    settings_for,
)
from edge_agent.probe.scan import ERRORS_MAX, SILENCES_MAX, Span, UnitScan
from tests.tags import plain_tag

T, O = ValueType, ByteOrder  # noqa: E741


def tag(
    value_type: ValueType = T.FLOAT32,
    order: ByteOrder = O.ABCD,
    lo: float | None = 0.0,
    hi: float | None = 100.0,
    scale: float = 1.0,
    offset: float = 0.0,
) -> Tag:
    return plain_tag(
        type=value_type, scale=scale, offset=offset, unit="", hi=hi, lo=lo, byte_order=order
    )


def verdict(mapped: Tag, registers: Sequence[int], *, may_widen: bool = True) -> Verdict:
    return judge(mapped, interpretations(mapped, registers), may_widen=may_widen)


# -- interpretations --------------------------------------------------------------------------

ONE_OF_ALL = [s for s in settings_for(tag(T.BOOL), 4) if s.type is not T.BOOL]


@pytest.mark.parametrize("setting", ONE_OF_ALL, ids=str)
def test_a_value_is_read_back_under_its_own_setting(setting: Setting) -> None:
    """What a PLC stores under any type and byte order is among the interpretations, scaled."""
    mapped = tag(scale=0.5, offset=10)
    registers = encode(setting.type, setting.byte_order, 42)
    registers += [0] * (4 - len(registers))
    found = {
        interpretation.setting: interpretation
        for interpretation in interpretations(mapped, registers)
    }
    assert found[setting].value == 42 * 0.5 + 10
    assert found[setting].inside


@pytest.mark.parametrize("order", [O.CDAB, O.BADC, O.DCBA])
@pytest.mark.parametrize(("value_type", "value"), [(T.FLOAT32, 21.4), (T.INT32, 77), (T.UINT64, 9)])
def test_a_wrong_byte_order_is_found(value_type: ValueType, order: ByteOrder, value: float) -> None:
    """The map says ABCD, the device stores another order: the verdict is clear."""
    mapped = tag(value_type, lo=5)
    found = verdict(mapped, encode(value_type, order, value))
    assert (found.best, found.clear) == (Setting(value_type, order), True)


@given(
    st.sampled_from(ONE_OF_ALL),
    st.lists(st.integers(0, 0xFFFF), min_size=4, max_size=4),
    st.sampled_from([(None, None), (0.0, 100.0), (None, 50.0), (-40.0, None)]),
)
def test_a_plausible_setting_is_never_replaced(
    setting: Setting, registers: list[int], limits: tuple[float | None, float | None]
) -> None:
    """Whatever the device answers: a value inside lo..hi keeps its setting, and no error comes."""
    lo, hi = limits
    mapped = tag(setting.type, setting.byte_order, lo, hi)
    for count in range(WIDTHS[setting.type], 5):
        found = interpretations(mapped, registers[:count])
        own = next(interpretation for interpretation in found if interpretation.setting == setting)
        result = judge(mapped, found)
        assert result.why
        if own.inside:
            assert not result.clear
        if own.grade == 2:
            assert result.best == setting
        if result.clear:
            best = next(
                interpretation for interpretation in found if interpretation.setting == result.best
            )
            assert best.grade > own.grade


def test_an_alarm_is_no_reason_to_change_a_type() -> None:
    """105 with a limit of 100 is what it is, even if another order would read 50."""
    found = verdict(tag(T.UINT16, hi=30_000), [0x8000])  # 32768; BA reads 128
    assert not found.clear
    assert "may be an alarm" in found.why


def test_two_settings_that_fit_are_left_to_the_reader() -> None:
    """Both are named, and nothing is clear."""
    # 0x41200000 is 10.0 as ABCD; as the map's CDAB it is absurd; as BADC it must fit as well.
    mapped = tag(T.INT16, lo=None, hi=None)
    assert not verdict(mapped, [0x0102]).clear
    both = tag(T.INT32, O.ABCD, lo=1, hi=1_000_000_000)
    found = verdict(both, [0x8001, 0x0102])  # CDAB and DCBA are inside, ABCD is negative
    assert not found.clear
    assert "equally plausible" in found.why
    assert "CDAB" in found.why
    assert "DCBA" in found.why


LIMITS = [(0.0, 100.0), (5.0, 60.0), (-40.0, 80.0), (0.0, 1500.0)]


@pytest.mark.parametrize("value_type", [T.FLOAT32, T.INT32, T.INT16])
@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_most_wrong_orders_are_found_and_right_settings_stay(
    limits: tuple[float, float], value_type: ValueType
) -> None:
    """Five hundred values: what is clear is true, also of a device far outside its limits."""
    chance = random.Random(5)
    lo, hi = limits
    orders = [O.ABCD, O.BADC] if value_type is T.INT16 else list(O)

    def registers(low: float, high: float, order: ByteOrder) -> list[int]:
        value = chance.uniform(low, high)
        return encode(value_type, order, value)

    found = wrong = spoilt = 0
    for _ in range(250):
        true, mapped = chance.sample(orders, 2)
        result = verdict(tag(value_type, mapped, lo, hi), registers(lo, hi, true))
        found += result.clear and result.best == Setting(value_type, true)
        wrong += result.clear and result.best != Setting(value_type, true)
        span = hi - lo
        far = registers(lo - 2 * span, hi + 2 * span, true)
        spoilt += verdict(tag(value_type, true, lo, hi), far).clear
    assert found >= 175
    assert wrong <= 1
    assert spoilt <= 5


def test_zeros_say_nothing() -> None:
    """A device that is switched off reads 0 under every setting; the map's stays."""
    for lo in (0.0, 5.0, None):
        mapped = tag(T.INT32, O.DCBA, lo=lo)
        assert verdict(mapped, [0, 0]) == Verdict(
            Setting(T.INT32, O.DCBA), clear=False, why=verdict(mapped, [0, 0]).why
        )


def test_without_limits_only_an_absurd_value_gives_way() -> None:
    """And only to another byte order of the same type."""
    mapped = tag(lo=None, hi=None)
    found = verdict(mapped, encode(T.FLOAT32, O.CDAB, 20.5))
    assert (found.best, found.clear) == (Setting(T.FLOAT32, O.CDAB), True)
    assert not verdict(mapped, encode(T.FLOAT32, O.ABCD, 20.5)).clear
    other = verdict(mapped, [0, 500])  # as a float absurd in each order, as an integer 500
    assert not other.clear


def test_absurdly_small_is_not_inside() -> None:
    """1e-30 lies between 0 and 100 and is what a wrong byte order reads."""
    mapped = tag()
    small = encode(T.FLOAT32, O.ABCD, 1e-30)
    own = next(r for r in interpretations(mapped, small) if r.setting == setting_of(mapped))
    assert own.inside is False
    assert own.fault == "absurdly small"


def test_the_next_register_belongs_to_its_own_row() -> None:
    """A value of two registers is not seen where the map has another row on the second."""
    mapped = tag(T.UINT16, lo=5)
    registers = encode(T.FLOAT32, O.ABCD, 50.5)
    assert verdict(mapped, registers).best == Setting(T.FLOAT32, O.ABCD)
    narrow = verdict(mapped, registers, may_widen=False)
    assert WIDTHS[narrow.best.type] == 1
    assert not narrow.clear


def test_a_type_that_fits_by_chance_is_not_clear() -> None:
    """Half of all 16-bit values lie inside such limits: one that does proves nothing."""
    mapped = tag(T.FLOAT32, lo=1, hi=30_000)
    found = verdict(mapped, [0x00F0, 0xFFFF])  # the first register reads 240, or 61440
    assert found.best.type is T.UINT16
    assert not found.clear
    assert "too many" in found.why


# -- scan --------------------------------------------------------------------------------------


def scan_all(scan: UnitScan, there: set[int]) -> int:
    """Answer as a device that has these cells; returns the number of requests."""
    requests = 0
    while (span := scan.next()) is not None:
        requests += 1
        asked = range(span.start, span.start + span.cells)
        if set(asked) <= there:
            scan.answered(span, [cell * 2 for cell in asked])
        else:
            scan.refused(span, "exception 2")
    return requests


@given(st.sets(st.integers(0, 150)), st.integers(1, 125))
def test_a_scan_finds_exactly_what_is_there(there: set[int], span_max: int) -> None:
    """Every cell ends up found or missing, with its own value, in at most two requests a cell."""
    scan = UnitScan.over(1, [Span("hr", 0, 151)], lambda _: span_max, alone=True)
    requests = scan_all(scan, there)
    found = {span.start + at: v for span, values in scan.found for at, v in enumerate(values)}
    assert found == {cell: cell * 2 for cell in there}
    missing = {span.start + at for span in scan.missing for at in range(span.cells)}
    assert missing == set(range(151)) - there
    assert scan.left == []
    assert requests <= 2 * 151


def test_all_is_asked_once_before_holes_are_looked_into() -> None:
    """A bound on requests then leaves no block unseen."""
    scan = UnitScan.over(1, [Span("hr", 0, 30)], lambda _: 10, alone=True)
    asked = []
    for _ in range(5):
        span = scan.next()
        assert span is not None
        asked.append(str(span))
        scan.refused(span, "no")
    assert asked == ["hr:0-9", "hr:10-19", "hr:20-29", "hr:20-24", "hr:20-21"]
    scan.give_up(None, "enough")
    assert scan.next() is None
    assert [str(span) for span in scan.left] == ["hr:0-29"]


def test_a_silent_unit_costs_one_request_and_a_lone_one_a_few() -> None:
    """Of 247 units most are not there; the only one may dislike an address."""
    one_of_many = UnitScan.over(7, [Span("hr", 0, 200)], lambda _: 10, alone=False)
    span = one_of_many.next()
    assert span is not None
    one_of_many.silent(span, "no answer")
    assert one_of_many.next() is None
    assert [str(s) for s in one_of_many.left] == ["hr:0-199"]
    alone = UnitScan.over(7, [Span("hr", 0, 200)], lambda _: 10, alone=True)
    requests = 0
    while (span := alone.next()) is not None:
        requests += 1
        alone.silent(span, "no answer")
    assert requests == SILENCES_MAX


def test_a_unit_of_nothing_but_errors_is_given_up_among_others() -> None:
    """A gateway may answer for a unit that is not there with any code."""
    scan = UnitScan.over(7, [Span("hr", 0, 200)], lambda _: 100, alone=False)
    requests = 0
    while (span := scan.next()) is not None:
        requests += 1
        scan.failed(span, "exception 4")
    assert requests == ERRORS_MAX
    assert scan.given_up == "exception 4"


# -- cells of a file ---------------------------------------------------------------------------

TEXTS = st.text(st.sampled_from("aB ,;\"'\n\r\t°가한"), max_size=8)
SETTINGS = st.sampled_from(
    [s for s in settings_for(tag(T.BOOL), 4) if WIDTHS[s.type] <= 2 and s.type is not T.BOOL]
)


@given(
    st.lists(st.tuples(SETTINGS, SETTINGS, st.booleans(), TEXTS), min_size=1, max_size=4),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp949"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.permutations(COLUMNS),
)
def test_only_wanted_cells_change(
    rows: list[tuple[Setting, Setting, bool, str]],
    delimiter: str,
    line_end: str,
    encoding: str,
    quoting: int,
    columns: list[str],
) -> None:
    """Any file, any texts: the same file with other cells, as if it had been written so."""
    lines = []
    for number, (before, after, change, description) in enumerate(rows):
        cells = dict.fromkeys(columns, "")
        cells |= {
            "site": "A1", "line": "L1", "device": "P", "tag": f"t{number}", "protocol": "modbus",
            "conn": "tcp://h", "address": f"hr:{number * 2}", "period_ms": "1000",
            "type": str(before.type), "byte_order": str(before.byte_order),
            "description": description,
        }  # fmt: skip
        lines.append((cells, after if change else None))

    def file_of(changed: bool) -> bytes:
        stream = io.StringIO(newline="")
        writer = csv.writer(stream, delimiter=delimiter, lineterminator=line_end, quoting=quoting)  # type: ignore[arg-type]
        writer.writerow(columns)
        for cells, after in lines:
            written = dict(cells)
            if changed and after is not None:
                written |= new_cells(cells, after)
            writer.writerow([written[column] for column in columns])
        text = stream.getvalue()
        if "utf-16" in encoding:
            return b"\xff\xfe" + text.encode("utf-16-le")
        return text.encode(encoding)

    data = file_of(changed=False)
    # Where "°" is all that is not ASCII, the reader refuses CP949, and some texts are refused too.
    assume(encoding != "cp949" or any("가" in text or "한" in text for *_, text in rows))
    assume(not check(read(data), None).problems)
    wanted = {("A1", "P", f"t{n}"): after for n, (_, after) in enumerate(lines) if after}
    result, changes = rewrite(data, wanted)
    assert result == file_of(changed=True)
    assert bool(changes) == (result != data)


def new_cells(cells: dict[str, str], after: Setting) -> dict[str, str]:
    """The two cells as they have to be: an order that means the same stays as it is written."""
    order = ByteOrder(cells["byte_order"])
    short = {"ABCD": "AB", "BADC": "BA"}
    wide = WIDTHS[after.type] > 1
    same = setting_of(replace(tag(after.type), byte_order=order)) == after
    written = str(after.byte_order) if wide else short[after.byte_order]
    return {"type": str(after.type), "byte_order": cells["byte_order"] if same else written}


HEAD = "site,line,device,tag,protocol,conn,unit_id,address,type,scale,offset,period_ms,unit,hi,lo"


def test_spaces_and_short_orders_are_respected() -> None:
    """AB can't stay on a type of two registers; spaces around a cell can."""
    row = "A1,L1,P,T,modbus,tcp://h,1,hr:0, uint16 ,,,1000,,,"
    data = f"{HEAD},byte_order\n{row}, AB \n".encode()
    result, changes = rewrite(data, {("A1", "P", "T"): Setting(T.FLOAT32, O.ABCD)})
    expected = data.replace(b" uint16 ", b" FLOAT32 ").replace(b" AB ", b" ABCD ")
    assert result == expected
    assert [(c.line, c.column, c.before, c.after) for c in changes] == [
        (2, "type", "uint16", "FLOAT32"),
        (2, "byte_order", "AB", "ABCD"),
    ]


def test_a_workbook_and_a_missing_column_are_refused() -> None:
    """With what to do instead."""
    setting = Setting(T.FLOAT32, O.CDAB)
    with pytest.raises(ConfigError, match="workbook"):
        rewrite(b"PK\x03\x04", {("A1", "P", "T"): setting})
    data = f"{HEAD}\nA1,L1,P,T,modbus,tcp://h,1,hr:0,FLOAT32,,,1000,,,\n".encode()
    [only] = check(read(data), None).tags
    assert "byte_order" in can_be_written(data, only, setting)
    assert can_be_written(data, only, Setting(T.INT32, O.ABCD)) == ""
