"""What `conn` and `address` of an OPC UA tag may say."""

from __future__ import annotations

from uuid import UUID

import pytest

from edge_agent.model import Address, ValueType
from edge_agent.protocols import opcua_syntax as syntax
from edge_agent.protocols.opcua_syntax import NodeRef, OpcuaConn

GUID = "09087e75-8e5e-499b-954f-f2a9603db28a"


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("ns=2;s=Pump.Pressure", NodeRef(2, "Pump.Pressure")),
        ("s=Pump", NodeRef(0, "Pump")),
        ("i=2258", NodeRef(0, 2258)),
        ("ns=65535;i=4294967295", NodeRef(65_535, 4_294_967_295)),
        (f"ns=3;g={GUID}", NodeRef(3, UUID(GUID))),
        ("ns=1;b=AAEC/w==", NodeRef(1, b"\x00\x01\x02\xff")),
        ("nsu=http://vendor.com/plc;s=a", NodeRef("http://vendor.com/plc", "a")),
        ("nsu=urn:a%3Bb;i=1", NodeRef("urn:a;b", 1)),
        ('ns=3;s="DB 1"."펌프".x;y=1', NodeRef(3, '"DB 1"."펌프".x;y=1')),
    ],
)
def test_node_ids_as_the_specification_writes_them(text: str, node: NodeRef) -> None:
    """Index or URI, and the four kinds of identifier; a string may hold anything."""
    assert syntax.parse_node(text) == node
    assert syntax.parse_address(text, ValueType.FLOAT64) == Address("node", 0)


@pytest.mark.parametrize(
    "text",
    ["ns=2;s=Pump.Pressure", "i=2258", f"ns=3;g={GUID}", "ns=1;b=AAEC/w==", "nsu=http://v/p;s=a"],
)
def test_a_node_id_is_written_as_it_was_read(text: str) -> None:
    """So that what `browse` writes is read back."""
    assert str(syntax.parse_node(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "40001", "i=", "i=-1", "i=4294967296", "i=1.5", "ns=65536;i=1", "ns=;i=1",
        "ns=x;i=1", "nsu=;i=1", "g=1", "b=?", "b=A", "S=Pump", "ns=2;Pump", "s=" + "x" * 4097,
    ],
)  # fmt: skip
def test_what_is_no_node_id_is_a_value_error(text: str) -> None:
    """With a text for the map's report."""
    with pytest.raises(ValueError, match=r"\w+"):
        syntax.parse_address(text, ValueType.INT16)


def test_a_node_holds_no_bcd() -> None:
    """The server decodes: the map can only say what it gives."""
    with pytest.raises(ValueError, match="not BCD16; write the type that the server shows"):
        syntax.parse_address("i=1", ValueType.BCD16)


def test_a_conn_with_nothing_but_a_host() -> None:
    """Everything else has a default."""
    conn = syntax.parse_conn("opc.tcp://plc")
    assert conn == OpcuaConn("plc", 4840)
    assert (conn.mode, conn.security, conn.timeout_ms) == ("subscribe", "None", 4_000)
    assert str(conn) == "opc.tcp://plc:4840"


def test_a_conn_with_everything() -> None:
    """Options in any order; as a string it is the server's address alone."""
    conn = syntax.parse_conn(
        "opc.tcp://[fd00::5]:4841/a/b?mode=poll&security=Basic256Sha256&security_mode=Sign"
        "&certificate=/a+b.pem&key=k.pem&server_certificate=s.der&user=me&password_file=pw"
        "&timeout_ms=500&sampling_ms=0&queue_size=10"
    )
    assert str(conn) == "opc.tcp://[fd00::5]:4841/a/b"
    assert (conn.mode, conn.security_mode, conn.certificate) == ("poll", "Sign", "/a+b.pem")
    assert (conn.user, conn.password_file, conn.sampling_ms) == ("me", "pw", 0)


def test_encryption_is_what_security_means() -> None:
    """Who asks for security and says no more gets the stronger mode."""
    conn = syntax.parse_conn("opc.tcp://h?security=Basic256Sha256&certificate=c&key=k")
    assert conn.security_mode == "SignAndEncrypt"


@pytest.mark.parametrize(
    ("conn", "text"),
    [
        ("", "not an OPC UA connection"),
        ("tcp://h:502", "not an OPC UA connection"),
        ("opc.tcp://", "not an OPC UA connection"),
        ("opc.tcp://h:99999", "expected opc.tcp"),
        ("opc.tcp://h:0", "port 0; allowed: 1 to 65535"),
        ("opc.tcp://h h", "not an OPC UA connection"),
        ("opc.tcp://h#x", "write %23"),
        ("opc.tcp://h?speed=1", "unknown option 'speed'"),
        ("opc.tcp://h?mode=poll&mode=poll", "given twice"),
        ("opc.tcp://h?mode=push", "mode=push; allowed: subscribe, poll"),
        ("opc.tcp://h?timeout_ms=1", "allowed: 100 to 60000"),
        ("opc.tcp://h?queue_size=0", "allowed: 1 to 10000"),
        ("opc.tcp://h?security=Basic128", "allowed: None, Basic256Sha256"),
        ("opc.tcp://h?security=Basic256Sha256", "add certificate=FILE and key=FILE"),
        ("opc.tcp://h?certificate=c", "add security=Basic256Sha256"),
        ("opc.tcp://h?user=me", "user needs a password"),
        ("opc.tcp://h?user=me&password_file=a&password_env=B", "give one of"),
        ("opc.tcp://h?password_file=a", "add user=NAME"),
        ("opc.tcp://h?user_certificate=a", "go together"),
        ("opc.tcp://h?user=", "user is empty"),
    ],
)
def test_what_is_no_conn_is_a_value_error(conn: str, text: str) -> None:
    """It says what is allowed."""
    with pytest.raises(ValueError, match=text):
        syntax.parse_conn(conn)


@pytest.mark.parametrize(
    "conn",
    ["opc.tcp://me:sesam@h", "opc.tcp://h?user=me&password=sesam", "opc.tcp://h?password=sesam"],
)
def test_a_password_in_the_map_is_refused_and_not_repeated(conn: str) -> None:
    """The map is shown to everyone: it names where the password is."""
    with pytest.raises(ValueError, match="password_file=FILE") as caught:
        syntax.parse_conn(conn)
    assert "sesam" not in str(caught.value)


def test_all_nodes_of_a_scan_class_are_one_block() -> None:
    """Nodes do not lie beside each other, so each has the same place."""
    limits = syntax.limits("opc.tcp://h", "node")
    assert (limits.span_max, limits.gap_max) == (1, 0)
