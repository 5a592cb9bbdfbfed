"""What the `conn` and `address` cells of an MQTT tag mean, and what a payload says."""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.model import Address, ValueType
from edge_agent.protocols.mqtt_syntax import (
    AHEAD_MS_MAX,
    BEHIND_MS_MAX,
    MqttConn,
    Source,
    decode,
    number,
    own_time_ms,
    parse_address,
    parse_conn,
    parse_source,
    picker,
    time_ms,
)

NOW_MS = 1_755_432_000_000
MESSAGE = {
    "ts": "2025-08-17T12:00:00.000Z", "site": "A1", "line": "L1", "device": "PUMP01",
    "tag": "PRESS", "value": 12.3, "unit": "bar",
}  # fmt: skip


@pytest.mark.parametrize(
    ("conn", "parsed"),
    [
        ("mqtt://broker", MqttConn("broker", 1883)),
        ("mqtt://10.0.0.5:1884/", MqttConn("10.0.0.5", 1884)),
        ("mqtts://[fd00::5]", MqttConn("fd00::5", 8883, tls=True)),
        (
            "mqtt://b?user=edge&password_file=/etc/edge-agent/pw&client_id=line%201",
            MqttConn("b", 1883, False, "edge", "/etc/edge-agent/pw", "line 1"),
        ),
        (
            "mqtts://b?ca=/ca.pem&cert=/c.pem&key=/c.key&timeout_ms=100&keepalive_s=3600",
            MqttConn(
                "b", 8883, True, ca="/ca.pem", cert="/c.pem", key="/c.key", timeout_ms=100,
                keepalive_s=3600,
            ),
        ),
    ],
)  # fmt: skip
def test_conn(conn: str, parsed: MqttConn) -> None:
    """The scheme says whether there is TLS and gives the port; options follow the ``?``."""
    assert parse_conn(conn) == parsed


@pytest.mark.parametrize(
    ("conn", "message"),
    [
        ("", "expected mqtt://HOST:PORT"),
        ("broker:1883", "expected mqtt://HOST:PORT"),
        ("tcp://broker", "'tcp://broker' is not a broker's address"),
        ("mqtt://", "is not a broker's address"),
        ("mqtt://b:0", "port 0"),
        ("mqtt://b:99999", "expected mqtt://HOST:PORT"),
        ("mqtt://b/path", "only options may follow the port"),
        ("mqtt://b#x", "only options may follow the port"),
        ("mqtt://me:secret@b", "user=...&password_file=..."),
        ("mqtt://b?password=secret", "a password does not stand in a map: write password_file="),
        ("mqtt://b?speed=1", "unknown option 'speed'; allowed: user, password_file"),
        ("mqtt://b?user=a&user=b", "option user is given twice"),
        ("mqtt://b?user=", "option user: allowed: printable text"),
        ("mqtt://b?user=a%00", "option user: allowed: printable text"),
        ("mqtt://b?timeout_ms=99", "timeout_ms=99; allowed: 100 to 60000"),
        ("mqtt://b?timeout_ms=1e3", "timeout_ms=1e3; allowed: 100 to 60000"),
        ("mqtt://b?keepalive_s=1", "keepalive_s=1; allowed: 5 to 3600"),
        ("mqtt://b?ca=/ca.pem", "write mqtts://"),
        ("mqtts://b?cert=/c.pem", "cert and key go together"),
        ("mqtt://b?password_file=/pw", "password_file needs user="),
    ],
)
def test_a_wrong_conn_says_what_is_allowed(conn: str, message: str) -> None:
    """And never repeats a password."""
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        parse_conn(conn)
    assert "secret" not in str(error.value)


def test_a_conn_as_text_has_no_secret() -> None:
    """It is the place that errors and logs name."""
    conn = parse_conn("mqtts://[fd00::5]:9?user=edge&password_file=/etc/pw")
    assert str(conn) == "mqtts://[fd00::5]:9"


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("factory/pump1/pressure", Source("factory/pump1/pressure")),
        ("a", Source("a")),
        ("/a//b/", Source("/a//b/")),
        ("$SYS/broker/clients/connected", Source("$SYS/broker/clients/connected")),
        ("공장/펌프 1/압력?x=1&y.z:0", Source("공장/펌프 1/압력?x=1&y.z:0")),
        ("factory/pump1#data.pressure", Source("factory/pump1", ("data", "pressure"))),
        ("a#readings.0.v", Source("a", ("readings", "0", "v"))),
        ("a#x#y", Source("a", ("x#y",))),
        ("a#/data/pres.bar", Source("a", ("data", "pres.bar"))),
        ("a#/a~1b/m~0n/~01", Source("a", ("a/b", "m~n", "~1"))),
    ],
)
def test_address(address: str, source: Source) -> None:
    """A topic to the letter; after # a path, with dots or as RFC 6901 has it."""
    assert parse_source(address) == source
    assert parse_address(address, ValueType.INT16) == Address("topics", 0)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "has no topic; expected a topic, for example factory/pump1/pressure"),
        ("#data", "has no topic"),
        ("#", "wildcard"),
        ("factory/#", "wildcard, which stands for many topics; a tag is one value"),
        ("factory/pump1#", "wildcard"),
        ("factory/+/pressure", "wildcard"),
        ("factory/a+b#x", "wildcard"),
        ("$share/group/a", "shared subscription"),
        ("a\0", "U+0000 is not allowed in a topic"),
        ("a\ufffe", "U+FFFE"),
        ("a/" * 199 + "a/b", "201 levels; allowed: 65535 bytes, 200 levels"),
        ("a" * 65_536, "a topic of 65536 bytes"),
        ("a#data..x", "#data..x has an empty name"),
        ("a#.x", "has an empty name"),
        ("a#/m~n", "has ~ at"),
    ],
)
def test_a_wrong_address_says_what_is_allowed(address: str, message: str) -> None:
    """Wildcards above all: a tag is one value."""
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_address(address, ValueType.INT16)


@given(st.text())
def test_any_address_is_a_topic_or_a_value_error(address: str) -> None:
    """No topic has a wildcard, so that one subscription is one topic."""
    try:
        source = parse_source(address)
    except ValueError:
        return
    assert source.topic
    assert not set(source.topic) & set("+#")


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        (b"12.5", 12.5),
        (b"-3", -3),
        (b" 1e3 ", 1000),
        (b"+7", 7),
        (b".5", 0.5),
        (b"5.", 5),
        (b"007", 7),
        (b"true", 1),
        (b"false", 0),
        (b'"21.5"', 21.5),
        (json.dumps(MESSAGE).encode(), 12.3),
        (json.dumps(MESSAGE | {"value": True}).encode(), 1),
    ],
)
def test_a_payload_that_is_a_value(payload: bytes, value: float) -> None:
    """A number as JSON or as devices write it, true, false, or a seven-key message."""
    assert number(picker(())(decode(payload))) == value


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "the payload is empty"),
        (b"offline", "neither a number nor JSON"),
        (b"1,5", "neither a number nor JSON"),
        (b"0x10", "neither a number nor JSON"),
        (b"nan", "neither a number nor JSON"),
        (b"inf", "neither a number nor JSON"),
        (b"1_000", "neither a number nor JSON"),
        (b"\xef\xbc\x91", "neither a number nor JSON"),
        (b"null", "found null"),
        (b"[1]", "found a list"),
        (b'{"value": 1}', "found an object"),
        (b'"1,5"', "found text"),
        (b'"nan"', "found text"),
        (json.dumps(MESSAGE | {"value": None}).encode(), "found null"),
        (json.dumps(MESSAGE | {"extra": 1}).encode(), "found an object"),
    ],
)
def test_a_payload_that_is_no_value(payload: bytes, message: str) -> None:
    """It says what was expected and what was found."""
    with pytest.raises(ValueError, match=message):
        number(picker(())(decode(payload)))


@given(st.binary())
def test_any_payload_is_a_number_or_a_value_error(payload: bytes) -> None:
    """Nothing else is raised, and what is taken is what the text says."""
    try:
        value = number(picker(())(decode(payload)))
    except ValueError:
        return
    assert isfinite(value) or b"e" in payload.lower() or len(payload) > 300


@pytest.mark.parametrize(
    ("path", "document", "value"),
    [
        (("data", "p"), {"data": {"p": 1}}, 1),
        (("r", "1"), {"r": [4, 5]}, 5),
        (("1",), {"1": 6}, 6),
        (("value",), MESSAGE, 12.3),
        (("", "a"), {"": {"a": 7}}, 7),
    ],
)
def test_a_path_finds_its_part(path: tuple[str, ...], document: Any, value: float) -> None:
    """Names of objects, places of lists."""
    assert picker(path)(document) == value


@pytest.mark.parametrize(
    ("path", "document", "missing"),
    [
        (("data", "p"), {"data": {"q": 1}}, "data.p"),
        (("data", "p"), {"data": 3}, "data.p"),
        (("data", "p"), [1], "data"),
        (("r", "2"), {"r": [4, 5]}, "r.2"),
        (("r", "-1"), {"r": [4, 5]}, "r.-1"),
        (("r", "9" * 5_000), {"r": [4, 5]}, r"r\.999"),
    ],
)
def test_a_path_that_leads_nowhere(path: tuple[str, ...], document: Any, missing: str) -> None:
    """The first part that is missing is named."""
    with pytest.raises(ValueError, match=missing):
        picker(path)(document)


@pytest.mark.parametrize("found", [2, -1, 0.5, "2"])
def test_a_bool_is_nothing_but_zero_and_one(found: object) -> None:
    """A number that is neither does not become true."""
    with pytest.raises(ValueError, match="for a BOOL, found"):
        number(found, is_bool=True)


@pytest.mark.parametrize("found", [0, 1, 1.0, True, False, "1"])
def test_a_bool_as_devices_write_it(found: Any) -> None:
    """In figures or in words."""
    assert number(found, is_bool=True) == float(found)


@pytest.mark.parametrize(
    ("text", "after_ms"),
    [
        ("2025-08-17T12:00:00.000Z", 0),
        ("2025-08-17T12:00:00.1239Z", 123),
        ("2025-08-17T12:00:00Z", 0),
        ("2025-08-17T21:00:00.250+09:00", 250),
        ("2025-08-17 11:59:59.999+00:00", -1),
    ],
)
def test_a_time_with_an_offset(text: str, after_ms: int) -> None:
    """ISO 8601, to the millisecond."""
    assert time_ms(text, NOW_MS) == NOW_MS + after_ms
    assert own_time_ms(MESSAGE | {"ts": text}, NOW_MS) == NOW_MS + after_ms


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2025-08-17T12:00:00", "no time zone"),
        ("yesterday", "not a time"),
        (1_755_432_000, "not a time"),
        (None, "not a time"),
        ("2025-08-17T13:00:00.001Z", "ahead of this machine's clock"),
        ("2024-08-16T11:59:59.999Z", "or a year behind it"),
        ("1970-01-01T00:00:00Z", "or a year behind it"),
        ("9999-12-31T23:59:59Z", "ahead"),
    ],
)
def test_a_time_that_cannot_be_true(text: Any, message: str) -> None:
    """A clock that is wrong gives no samples."""
    with pytest.raises(ValueError, match=message):
        own_time_ms(MESSAGE | {"ts": text}, NOW_MS)


def test_the_bounds_of_a_time() -> None:
    """An hour ahead and a year behind are still taken."""
    for bound in (AHEAD_MS_MAX, -BEHIND_MS_MAX):
        text = {AHEAD_MS_MAX: "2025-08-17T13:00:00Z"}.get(bound, "2024-08-16T12:00:00Z")
        assert time_ms(text, NOW_MS) == NOW_MS + bound


@pytest.mark.parametrize("document", [12.3, None, [], {"ts": 1}, {**MESSAGE, "more": 1}])
def test_only_a_seven_key_message_has_a_time_of_its_own(document: object) -> None:
    """Whatever else has a `ts` may mean anything by it."""
    assert own_time_ms(document, NOW_MS) is None
