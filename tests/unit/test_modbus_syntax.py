"""What the `conn` and `address` cells of a Modbus tag mean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import address_map, protocols
from edge_agent.model import Address, Limits, ValueType
from edge_agent.protocols.modbus import ModbusDriver
from edge_agent.protocols.modbus_syntax import (
    ModbusConn,
    Transport,
    parse_address,
    parse_conn,
)

T = ValueType


@pytest.mark.parametrize(
    ("address", "value_type", "where"),
    [
        ("40001", T.INT16, Address("holding", 0)),
        ("49999", T.INT16, Address("holding", 9998)),
        ("400001", T.FLOAT32, Address("holding", 0, 2)),
        ("465536", T.UINT16, Address("holding", 65535)),
        ("465535", T.FLOAT32, Address("holding", 65534, 2)),
        ("30001", T.FLOAT64, Address("input", 0, 4)),
        ("10001", T.BOOL, Address("discrete", 0)),
        ("00001", T.BOOL, Address("coil", 0)),
        ("065536", T.BOOL, Address("coil", 65535)),
        ("hr:0", T.INT8, Address("holding", 0)),
        ("HR:0", T.BCD32, Address("holding", 0, 2)),
        ("ir:65535", T.UINT8, Address("input", 65535)),
        ("di:7", T.BOOL, Address("discrete", 7)),
        ("co:65535", T.BOOL, Address("coil", 65535)),
        ("40001", T.BOOL, Address("holding", 0)),
        ("40001.0", T.BOOL, Address("holding", 0, 1, 0)),
        ("40001.15", T.BOOL, Address("holding", 0, 1, 15)),
        ("ir:9.10", T.BOOL, Address("input", 9, 1, 10)),
    ],
)
def test_address(address: str, value_type: ValueType, where: Address) -> None:
    """Modicon numbers count from 1, explicit ones from 0; the type gives the width."""
    assert parse_address(address, value_type) == where


@pytest.mark.parametrize(
    ("address", "value_type", "message"),
    [
        ("", T.INT16, "not a Modbus address; allowed: 40001"),
        ("1", T.BOOL, "00001 (coil)"),
        ("0001", T.BOOL, "co:0"),
        ("20001", T.INT16, "not a Modbus address"),
        ("4000001", T.INT16, "not a Modbus address"),
        ("40001.", T.BOOL, "not a Modbus address"),
        ("40001.100", T.BOOL, "not a Modbus address"),
        ("40001,3", T.BOOL, "not a Modbus address"),
        ("hr:-1", T.INT16, "not a Modbus address"),
        ("hr: 1", T.INT16, "not a Modbus address"),
        ("xx:1", T.INT16, "not a Modbus address"),
        ("４０００１", T.INT16, "not a Modbus address"),
        ("40000", T.INT16, "out of range; allowed: 40001 to 49999, 400001 to 465536; where 40000"),
        ("300000", T.INT16, "30001 to 39999, 300001 to 365536; where 30000 is the first, `conn`"),
        ("10000", T.BOOL, "allowed: 10001 to 19999, 100001 to 165536; where 10000"),
        ("00000.1", T.BOOL, "allowed: 00001 to 09999, 000001 to 065536; where 00000"),
        ("465537", T.INT16, "out of range; allowed: 40001 to 49999, 400001 to 465536"),
        ("hr:65536", T.INT16, "out of range; allowed: 0 to 65535"),
        ("465536", T.FLOAT32, "FLOAT32 takes 2 registers and the area ends"),
        ("hr:65533", T.INT64, "INT64 takes 4 registers"),
        ("40001.16", T.BOOL, "bit 16; allowed: 0 to 15"),
        ("40001.3", T.INT16, "one bit is a BOOL, not INT16"),
        ("00001", T.INT16, "a coil holds a BOOL, not INT16"),
        ("10001", T.FLOAT32, "a discrete holds a BOOL, not FLOAT32"),
        ("00001.0", T.BOOL, "a coil is one bit already; leave out .0"),
    ],
)
def test_bad_address(address: str, value_type: ValueType, message: str) -> None:
    """An error names the cell's text and says what is allowed."""
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        parse_address(address, value_type)
    assert str(caught.value).startswith(repr(address))
    asks_for_the_option = "?zero_based=true" in str(caught.value)
    assert asks_for_the_option is (re.match(r"[0134]00000?(\.|$)", address) is not None)


ZERO_BASED = [f"{transport}?zero_based=true" for transport in (
    "tcp://h", "tcp+tls://h", "rtu+tcp://h:1", "rtu:///dev/ttyUSB0",
)]  # fmt: skip
ONE_BASED = ["tcp://h", "tcp://h?zero_based=false"]


@pytest.mark.parametrize(
    ("address", "value_type", "where"),
    [
        ("40000", T.INT16, Address("holding", 0)),
        ("40001", T.INT16, Address("holding", 1)),
        ("49999", T.INT16, Address("holding", 9999)),
        ("400000", T.FLOAT32, Address("holding", 0, 2)),
        ("465535", T.UINT16, Address("holding", 65535)),
        ("30000", T.FLOAT64, Address("input", 0, 4)),
        ("10000", T.BOOL, Address("discrete", 0)),
        ("00000", T.BOOL, Address("coil", 0)),
        ("065535", T.BOOL, Address("coil", 65535)),
        ("40000.15", T.BOOL, Address("holding", 0, 1, 15)),
    ],
)
@pytest.mark.parametrize("conn", ZERO_BASED)
def test_zero_based_address(conn: str, address: str, value_type: ValueType, where: Address) -> None:
    """With zero_based Modicon numbers count from 0, on every transport."""
    assert ModbusDriver.locate(conn, address, value_type) == where


@pytest.mark.parametrize("conn", [*ZERO_BASED, *ONE_BASED])
def test_explicit_addresses_count_from_0_on_any_connection(conn: str) -> None:
    """zero_based is about Modicon numbers only."""
    assert ModbusDriver.locate(conn, "hr:0", T.INT16) == Address("holding", 0)
    assert ModbusDriver.locate(conn, "co:65535", T.BOOL) == Address("coil", 65535)
    with pytest.raises(ValueError, match="out of range; allowed: 0 to 65535 in each area"):
        ModbusDriver.locate(conn, "hr:65536", T.INT16)


@pytest.mark.parametrize("conn", ONE_BASED)
def test_numbers_count_from_1_unless_said_otherwise(conn: str) -> None:
    """A connection without the option locates as `parse_address` does."""
    assert ModbusDriver.locate(conn, "40001", T.INT16) == parse_address("40001", T.INT16)
    with pytest.raises(ValueError, match="needs \\?zero_based=true"):
        ModbusDriver.locate(conn, "40000", T.INT16)


@pytest.mark.parametrize(
    ("address", "value_type", "message"),
    [
        ("465536", T.INT16, "out of range; allowed: 40000 to 49999, 400000 to 465535"),
        ("365536", T.INT16, "out of range; allowed: 30000 to 39999, 300000 to 365535"),
        ("465535", T.FLOAT32, "FLOAT32 takes 2 registers and the area ends"),
        ("1", T.INT16, "allowed: 40000 or 400000 (holding register), 30000 (input register)"),
        ("1", T.INT16, "10000 (discrete input), 00000 (coil), counted from 0; or hr:0, ir:0, di:0"),
        ("00000", T.INT16, "a coil holds a BOOL, not INT16"),
    ],
)  # fmt: skip
def test_bad_zero_based_address(address: str, value_type: ValueType, message: str) -> None:
    """What is allowed is said as this connection counts."""
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        ModbusDriver.locate("tcp://h?zero_based=true", address, value_type)
    assert "zero_based" not in str(caught.value)


@pytest.mark.parametrize(
    ("conn", "parsed"),
    [
        ("tcp://10.0.0.5", ModbusConn("10.0.0.5", 502)),
        ("tcp://plc-3.plant.local:1502/", ModbusConn("plc-3.plant.local", 1502)),
        ("tcp://[fd00::5]:502", ModbusConn("fd00::5", 502)),
        (
            "tcp://h:1?timeout_ms=250&gap_max=0&registers_max=32&bits_max=64",
            ModbusConn("h", 1, timeout_ms=250, gap_max=0, registers_max=32, bits_max=64),
        ),
        (
            "tcp://h?pause_ms=10&pause_after_connect_ms=60000&single_request=true&retries=3",
            ModbusConn(
                "h",
                502,
                pause_ms=10,
                pause_after_connect_ms=60_000,
                single_request=True,
                retries=3,
            ),
        ),
        ("tcp://h?close_after_scan=true", ModbusConn("h", 502, close_after_scan=True)),
        ("tcp://h?zero_based=true", ModbusConn("h", 502, zero_based=True)),
        ("tcp+tls://plc", ModbusConn("plc", 802, transport=Transport.TLS)),
        (
            "tcp+tls://[::1]:1?ca=/a.pem&cert=/b%20c.pem&key=/d.key&verify=ca",
            ModbusConn(
                "::1",
                1,
                transport=Transport.TLS,
                ca="/a.pem",
                cert="/b c.pem",
                key="/d.key",
                verify="ca",
            ),
        ),
        ("rtu+tcp://h:4001", ModbusConn("h", 4001, gap_max=10, transport=Transport.RTU_TCP)),
        (
            "rtu:///dev/ttyUSB0",
            ModbusConn("", 0, gap_max=10, transport=Transport.RTU, path="/dev/ttyUSB0"),
        ),
        (
            "rtu:///dev/serial/by-id/a%20b?baudrate=9600&parity=N&stopbits=2&bytesize=8&retries=1",
            ModbusConn(
                "",
                0,
                gap_max=10,
                transport=Transport.RTU,
                path="/dev/serial/by-id/a b",
                baudrate=9600,
                parity="N",
                stopbits=2,
                retries=1,
            ),
        ),
    ],
)
def test_conn(conn: str, parsed: ModbusConn) -> None:
    """Port and options have defaults."""
    assert parse_conn(conn) == parsed


def test_conn_names_the_place_without_its_options() -> None:
    """Errors show host and port."""
    assert str(parse_conn("tcp://h?gap_max=0")) == "tcp://h:502"
    assert str(parse_conn("tcp://[::1]:7")) == "tcp://[::1]:7"
    assert str(parse_conn("tcp+tls://h?cert=/c.pem&key=/k.pem")) == "tcp+tls://h:802"
    assert str(parse_conn("rtu+tcp://h:4001?retries=1")) == "rtu+tcp://h:4001"
    assert str(parse_conn("rtu:///dev/ttyUSB0?parity=N")) == "rtu:///dev/ttyUSB0"


@pytest.mark.parametrize(
    ("conn", "message"),
    [
        ("", "expected tcp://HOST:PORT"),
        ("10.0.0.5:502", "expected tcp://HOST:PORT"),
        ("tcp://", "expected tcp://HOST:PORT"),
        ("tcp://:502", "expected tcp://HOST:PORT"),
        ("tcp://a b:502", "expected tcp://HOST:PORT"),
        ("tcp://[::1:502", "expected tcp://HOST:PORT"),
        ("tcp://h:port", "expected tcp://HOST:PORT"),
        ("tcp://h:65536", "expected tcp://HOST:PORT"),
        ("tcp://h..x:502", "expected tcp://HOST:PORT"),
        ("tcp://h:0", "allowed: 1 to 65535"),
        ("tcp://h/path", "more than host, port and options"),
        ("tcp://user@h", "more than host, port and options"),
        ("udp://h:502", "expected tcp://HOST:PORT"),
        ("rtu+tcp://h", "has no port; expected rtu+tcp://HOST:PORT"),
        ("rtu+tcp://h:1?parity=N", "unknown option 'parity'; allowed: timeout_ms"),
        ("tcp+tls://", "expected tcp+tls://HOST:PORT"),
        ("tcp://h?ca=/a", "unknown option 'ca'"),
        ("tcp+tls://h?ca=a.pem", "ca=a.pem; allowed: the whole path of a PEM file"),
        ("tcp+tls://h?ca=", "ca=; allowed: the whole path"),
        ("tcp+tls://h?key=/k", "a key without its certificate; add cert=/path"),
        ("tcp+tls://h?verify=false", "verify=false; allowed: full, ca, none"),
        ("rtu://dev/ttyUSB0", "three slashes; expected rtu:///DEVICE"),
        ("rtu:dev/ttyUSB0", "expected rtu:///DEVICE"),
        ("rtu:/dev/ttyUSB0", "expected rtu:///DEVICE"),
        ("rtu:///", "expected rtu:///DEVICE"),
        ("rtu://", "expected rtu:///DEVICE"),
        ("rtu:///dev/tty%00", "expected rtu:///DEVICE"),
        ("rtu:///dev/ttyS0#1", "expected rtu:///DEVICE"),
        ("rtu:///dev/tty S0", "not a Modbus connection"),
        ("rtu:///dev/ttyS0?baudrate=0", "baudrate=0; allowed: 300 to 4000000"),
        ("rtu:///dev/ttyS0?parity=even", "parity=even; allowed: N, E, O"),
        ("rtu:///dev/ttyS0?stopbits=3", "stopbits=3; allowed: 1 to 2"),
        ("rtu:///dev/ttyS0?bytesize=7", "bytesize=7; allowed: 8"),
        ("rtu:///dev/ttyS0?verify=ca", "unknown option 'verify'"),
        ("tcp://h?pause_ms=10001", "allowed: 0 to 10000"),
        ("tcp://h?pause_after_connect_ms=60001", "allowed: 0 to 60000"),
        ("tcp://h?retries=11", "allowed: 0 to 10"),
        ("tcp://h?retries=-1", "allowed: 0 to 10"),
        ("tcp://h?single_request=yes", "single_request=yes; allowed: true, false"),
        ("tcp://h?single_request", "single_request=; allowed: true, false"),
        ("tcp://h?zero_based=1", "zero_based=1; allowed: true, false"),
        ("tcp://h?baudrate=9600", "unknown option 'baudrate'; allowed: timeout_ms, gap_max"),
        ("tcp://h?gap_max=1&gap_max=2", "option gap_max is given twice"),
        ("tcp://h?gap_max", "gap_max=; allowed: 0 to 125"),
        ("tcp://h?gap_max=-1", "gap_max=-1; allowed: 0 to 125"),
        ("tcp://h?registers_max=126", "allowed: 1 to 125"),
        ("tcp://h?bits_max=2001", "allowed: 1 to 2000"),
        ("tcp://h?timeout_ms=1", "allowed: 10 to 60000"),
        ("tcp://h?timeout_ms=1e3", "allowed: 10 to 60000"),
    ],
)
def test_bad_conn(conn: str, message: str) -> None:
    """An error says what is expected."""
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_conn(conn)


def test_limits() -> None:
    """The protocol's own limits by default; a gap of bits is 16 times a gap of registers.

    Where the bytes go over a serial line, fewer are read along.
    """
    for conn, gap_max in (("tcp://h", 50), ("tcp+tls://h", 50), ("rtu+tcp://h:1", 10)):
        parsed = parse_conn(conn)
        assert parsed.limits("holding") == parsed.limits("input") == Limits(125, gap_max)
        assert parsed.limits("coil") == parsed.limits("discrete") == Limits(2000, 16 * gap_max)
    assert parse_conn("rtu:///dev/x").limits("holding") == Limits(125, 10)
    parsed = parse_conn("tcp://h?gap_max=2&registers_max=50&bits_max=16")
    assert parsed.limits("holding") == Limits(50, 2)
    assert parsed.limits("coil") == Limits(16, 32)
    parsed = parse_conn("tcp://h?single_request=true&gap_max=50")
    assert parsed.limits("holding") == Limits(125, -1)
    assert parsed.limits("coil") == Limits(2000, -1)


def test_time_of_a_character() -> None:
    """Start bit, eight bits, parity and stop bits at the line's rate; nothing where no line is."""
    assert parse_conn("rtu:///dev/x?baudrate=1100").character_s == pytest.approx(0.01)
    assert parse_conn("rtu:///dev/x?baudrate=1000&parity=N").character_s == pytest.approx(0.01)
    assert parse_conn("rtu:///dev/x?baudrate=1200&stopbits=2").character_s == pytest.approx(0.01)
    assert parse_conn("rtu+tcp://h:1").character_s == 0


@given(
    st.text(max_size=30)
    | st.from_regex(r"\A(tcp|tcp\+tls|rtu\+tcp)://.{0,20}\Z")
    | st.from_regex(r"\Artu:/{0,3}.{0,20}\Z")
)
def test_any_conn_is_parsed_or_refused(text: str) -> None:
    """No text makes the parser fail in another way than ValueError."""
    try:
        parsed = parse_conn(text)
    except ValueError:
        return
    if parsed.transport is Transport.RTU:
        assert parsed.path.startswith("/")
    else:
        assert parsed.host
        assert 1 <= parsed.port <= 65535


@given(
    st.text(max_size=12) | st.from_regex(r"\A[0-4]?[0-9]{4,6}(\.[0-9]+)?\Z"),
    st.sampled_from(ValueType),
    st.booleans(),
)
def test_any_address_lies_in_its_area_or_is_refused(
    text: str, value_type: ValueType, zero_based: bool
) -> None:
    """Whatever is accepted can be asked of a device."""
    try:
        address = parse_address(text, value_type, zero_based=zero_based)
    except ValueError:
        return
    assert 0 <= address.offset <= 65536 - address.width
    assert address.bit is None or 0 <= address.bit <= 15


def test_a_value_wider_than_a_request_is_a_problem_of_its_row() -> None:
    """With its line and column, so that such a map never runs."""
    head = (
        "site,line,device,tag,protocol,conn,unit_id,address,type,scale,offset,period_ms,unit,hi,lo"
    )
    row = "A1,L1,P1,T,modbus,tcp://10.0.0.5?registers_max=2,1,hr:0,{},1,0,200,bar,,"
    narrow = f"{head}\n{row.format('FLOAT32')}\n".encode()
    assert len(address_map.parse(Path("map.csv"), narrow, protocols.load).tags) == 1
    with pytest.raises(address_map.MapError, match=r"takes 4 cells, but .* allows 2") as caught:
        address_map.parse(Path("map.csv"), narrow.replace(b"FLOAT32", b"FLOAT64"), protocols.load)
    [problem] = caught.value.problems
    assert (problem.line, problem.column) == (2, "address")
