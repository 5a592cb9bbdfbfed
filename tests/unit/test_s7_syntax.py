"""What the `conn` and `address` cells of an S7 tag mean."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.model import Address, Limits, ValueType
from edge_agent.protocols.s7_syntax import S7Conn, parse_address, parse_conn, width_bytes

T = ValueType


@pytest.mark.parametrize(
    ("address", "value_type", "where"),
    [
        ("DB1.DBX0.3", T.BOOL, Address("DB1", 0, 1, 3)),
        ("DB1.DBB0", T.UINT8, Address("DB1", 0)),
        ("DB1.DBB5", T.INT8, Address("DB1", 5)),
        ("DB12.DBW2", T.INT16, Address("DB12", 2, 2)),
        ("DB12.DBW3", T.FLOAT16, Address("DB12", 3, 2)),
        ("DB65535.DBD4", T.FLOAT32, Address("DB65535", 4, 4)),
        ("DB001.DBD0004", T.UINT32, Address("DB1", 4, 4)),
        ("DB1.DBD65532", T.BCD32, Address("DB1", 65532, 4)),
        ("db1.dbw10", T.BCD16, Address("DB1", 10, 2)),
        ("%DB1.DBW10", T.UINT16, Address("DB1", 10, 2)),
        ("DB1.0", T.INT16, Address("DB1", 0, 2)),
        ("DB1.4", T.FLOAT64, Address("DB1", 4, 8)),
        ("DB1.65528", T.INT64, Address("DB1", 65528, 8)),
        ("DB1.4.3", T.BOOL, Address("DB1", 4, 1, 3)),
        ("M10.0", T.BOOL, Address("M", 10, 1, 0)),
        ("MX10.7", T.BOOL, Address("M", 10, 1, 7)),
        ("MB10", T.UINT8, Address("M", 10)),
        ("MW10", T.INT16, Address("M", 10, 2)),
        ("MD10", T.INT32, Address("M", 10, 4)),
        ("M10", T.UINT64, Address("M", 10, 8)),
        ("I0.0", T.BOOL, Address("I", 0, 1, 0)),
        ("E0.0", T.BOOL, Address("I", 0, 1, 0)),
        ("IW0", T.UINT16, Address("I", 0, 2)),
        ("EW64", T.INT16, Address("I", 64, 2)),
        ("Q0.1", T.BOOL, Address("Q", 0, 1, 1)),
        ("A0.1", T.BOOL, Address("Q", 0, 1, 1)),
        ("QW0", T.UINT16, Address("Q", 0, 2)),
        ("AB65535", T.UINT8, Address("Q", 65535)),
    ],
)
def test_address(address: str, value_type: ValueType, where: Address) -> None:
    """The field's own notations; cells are bytes, a data block is an area of its own."""
    assert parse_address(address, value_type) == where


@pytest.mark.parametrize(
    ("address", "value_type", "message"),
    [
        ("", T.INT16, "not an S7 address; allowed: DB1.DBX0.3"),
        ("40001", T.INT16, "not an S7 address"),
        ("DB1", T.INT16, "not an S7 address"),
        ("DB1.", T.INT16, "not an S7 address"),
        ("DB.DBW0", T.INT16, "not an S7 address"),
        ("DB1.DBW", T.INT16, "not an S7 address"),
        ("DB1.DBR0", T.FLOAT32, "not an S7 address"),
        ("DB1.W0", T.INT16, "not an S7 address"),
        ("DB1 .DBW0", T.INT16, "not an S7 address"),
        ("DB1.DBX0.", T.BOOL, "not an S7 address"),
        ("DB1.DBX0.3.1", T.BOOL, "not an S7 address"),
        ("DB1,REAL4", T.FLOAT32, "not an S7 address"),
        ("DB-1.DBW0", T.INT16, "not an S7 address"),
        ("MW-1", T.INT16, "not an S7 address"),
        ("MW１", T.INT16, "not an S7 address"),
        ("PIW256", T.INT16, "not an S7 address"),
        ("T5", T.INT16, "not an S7 address"),
        ("DB100000.DBW0", T.INT16, "not an S7 address"),
        ("DB0.DBW0", T.INT16, "no such data block; allowed: DB1 to DB65535"),
        ("DB65536.0", T.INT16, "no such data block; allowed: DB1 to DB65535"),
        ("DB1.DBW4", T.FLOAT32, "W is 2 bytes and FLOAT32 takes 4; write D"),
        ("DB1.DBD4", T.INT16, "D is 4 bytes and INT16 takes 2; write W"),
        ("MW1", T.UINT8, "W is 2 bytes and UINT8 takes 1; write B"),
        ("DB1.DBD8", T.FLOAT64, "D is 4 bytes and FLOAT64 takes 8; write the byte alone"),
        ("DB1.DBB8", T.INT16, "B is 1 byte and INT16 takes 2; write W"),
        ("DB1.DBX0.8", T.BOOL, "bit 8; allowed: 0 to 7"),
        ("M0.10", T.BOOL, "bit 10; allowed: 0 to 7"),
        ("M0.3", T.INT16, "one bit is a BOOL, not INT16"),
        ("DB1.DBX0.3", T.UINT8, "one bit is a BOOL, not UINT8"),
        ("DB1.DBW0.3", T.BOOL, "W is no bit; write DB1.DBX0.3"),
        ("DB1.DBX4", T.BOOL, "which bit? write .0 to .7"),
        ("DB1.DBX4", T.INT16, "which bit?"),
        ("DB1.4", T.BOOL, "which bit?"),
        ("MB4", T.BOOL, "which bit?"),
        ("I0", T.BOOL, "which bit?"),
        ("DB1.DBB65536", T.UINT8, "UINT8 takes 1 byte and the area ends; allowed: 0 to 65535"),
        ("DB1.DBW65535", T.INT16, "INT16 takes 2 bytes and the area ends; allowed: 0 to 65534"),
        ("M65536.0", T.BOOL, "the area ends"),
    ],
)
def test_bad_address(address: str, value_type: ValueType, message: str) -> None:
    """An error names the cell's text and says what is allowed."""
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parse_address(address, value_type)
    assert str(caught.value).startswith(repr(address))


@pytest.mark.parametrize("value_type", list(T))
def test_every_type_can_stand_in_a_data_block(value_type: ValueType) -> None:
    """The short form takes them all; one bit is the BOOL's."""
    address = "DB1.4.3" if value_type is T.BOOL else "DB1.4"
    assert parse_address(address, value_type).width == width_bytes(value_type)


@given(st.text(max_size=20), st.sampled_from(list(T)))
def test_any_address_is_taken_or_refused_in_order(text: str, value_type: ValueType) -> None:
    """What is taken lies inside its area; everything else is a ValueError."""
    try:
        where = parse_address(text, value_type)
    except ValueError:
        return
    assert 0 <= where.offset <= 65_536 - where.width


PLAUSIBLE = r"%?(DB[0-9]{1,5}\.(DB[XBWD])?|[MIEQA][XBWD]?)[0-9]{1,5}(\.[0-9]{1,2})?"


@given(st.from_regex(PLAUSIBLE, fullmatch=True), st.sampled_from(list(T)))
def test_what_looks_like_an_address_is_one_or_says_why(text: str, value_type: ValueType) -> None:
    """No error of another kind hides behind the pattern."""
    try:
        where = parse_address(text, value_type)
    except ValueError as error:
        complaint = str(error)
    else:
        complaint = ""
    if complaint:
        assert "not an S7 address" not in complaint or not text.isascii()
        return
    assert where.width == width_bytes(value_type)
    assert (where.bit is None) is (value_type is not T.BOOL)


@pytest.mark.parametrize(
    ("conn", "parsed"),
    [
        ("s7://10.0.0.1", S7Conn("10.0.0.1", 102)),
        ("S7://plc-3.plant.local:1102/", S7Conn("plc-3.plant.local", 1102)),
        ("s7://[fd00::5]:102", S7Conn("fd00::5", 102)),
        (
            "s7://h:1?rack=1&slot=2&timeout_ms=250&pdu=240&gap_max=0",
            S7Conn("h", 1, rack=1, slot=2, timeout_ms=250, pdu=240, gap_max=0),
        ),
    ],
)
def test_conn(conn: str, parsed: S7Conn) -> None:
    """Port and options have defaults."""
    assert parse_conn(conn) == parsed


def test_conn_names_the_place_without_its_options() -> None:
    """Errors show host and port."""
    assert str(parse_conn("s7://h?slot=2")) == "s7://h:102"
    assert str(parse_conn("s7://[::1]:7")) == "s7://[::1]:7"


def test_limits_are_the_data_that_a_pdu_holds() -> None:
    """The headers of a reply with one item take 18 bytes of it."""
    assert parse_conn("s7://h").limits() == Limits(462, 100)
    assert parse_conn("s7://h?pdu=240&gap_max=0").limits() == Limits(222, 0)
    assert parse_conn("s7://h?pdu=960").limits() == Limits(942, 100)


@pytest.mark.parametrize(
    ("conn", "message"),
    [
        ("", "expected s7://HOST:PORT"),
        ("10.0.0.1:102", "expected s7://HOST:PORT"),
        ("tcp://10.0.0.1:102", "expected s7://HOST:PORT"),
        ("s7://", "expected s7://HOST:PORT"),
        ("s7://:102", "expected s7://HOST:PORT"),
        ("s7://a b", "expected s7://HOST:PORT"),
        ("s7://[::1:102", "expected s7://HOST:PORT"),
        ("s7://h:port", "expected s7://HOST:PORT"),
        ("s7://h..x", "expected s7://HOST:PORT"),
        ("s7://h:0", "allowed: 1 to 65535"),
        ("s7://h/0/1", "more than host, port and options"),
        ("s7://user@h", "more than host, port and options"),
        ("s7://h?speed=1", "unknown option 'speed'; allowed: rack, slot, timeout_ms, pdu, gap_max"),
        ("s7://h?slot=1&slot=2", "option slot is given twice"),
        ("s7://h?slot=", "slot=; allowed: 0 to 31"),
        ("s7://h?slot=32", "slot=32; allowed: 0 to 31"),
        ("s7://h?rack=8", "rack=8; allowed: 0 to 7"),
        ("s7://h?pdu=239", "pdu=239; allowed: 240 to 960"),
        ("s7://h?pdu=4８0", "allowed: 240 to 960"),
        ("s7://h?timeout_ms=1e3", "timeout_ms=1e3; allowed: 10 to 60000"),
    ],
)
def test_bad_conn(conn: str, message: str) -> None:
    """An error says what is allowed."""
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_conn(conn)
