"""Topic and message of a sample, and the window that sends them: pure parts of the MQTT sink."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Sequence

import mqtt5
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.model import Batch, Series
from edge_agent.sinks.message import (
    MESSAGES_MAX,
    TOPIC_BYTES_MAX,
    MessageRenderer,
    Messages,
    time_text,
    topic_of,
)
from edge_agent.sinks.mqtt_window import (
    PACKET_IDS_MAX,
    PublishWindow,
    encoded_property,
    reason_in_words,
)

PRESS = Series("A1", "L1", "PUMP01", "PRESS", "bar")
NOON_MS = 1_755_432_000_000  # 2025-08-17T12:00:00Z

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)


def batch_of(
    samples: Sequence[tuple[Series, float]], ts_ms: int = NOON_MS, sequence: int = 1
) -> Batch:
    """A batch of one run."""
    series = dict(enumerate(dict.fromkeys(series for series, _ in samples), start=1))
    ids = {known: series_id for series_id, known in series.items()}
    return Batch(
        sequence=sequence,
        runs=[(ts_ms, len(samples))],
        series_ids=array("I", [ids[known] for known, _ in samples]),
        values=array("d", [value for _, value in samples]),
        series=series,
    )


def rendered(batch: Batch, start: int = 0) -> list[tuple[bytes, bytes]]:
    """All messages of a batch as pairs."""
    return [
        pair
        for messages in MessageRenderer().render(batch, start)
        for pair in zip(messages.topics, messages.payloads, strict=True)
    ]


def test_message_is_the_documented_one() -> None:
    """The design's example, byte for byte."""
    assert rendered(batch_of([(PRESS, 12.3)])) == [
        (
            b"plc/A1/PUMP01/PRESS",
            (
                b'{"ts":"2025-08-17T12:00:00.000Z","site":"A1","line":"L1","device":"PUMP01",'
                b'"tag":"PRESS","value":12.3,"unit":"bar"}'
            ),
        )
    ]


@given(
    names=st.tuples(texts, texts, texts, texts, texts),
    values=st.lists(numbers, min_size=1, max_size=5),
    ts_ms=st.integers(0, 253_402_300_799_999),
)
def test_any_sample_comes_back_from_its_message(
    names: tuple[str, str, str, str, str], values: list[float], ts_ms: int
) -> None:
    """Seven keys in order, the very same texts and number, whatever they are; no space outside."""
    series = Series(*names)
    for value, (_, payload) in zip(
        values, rendered(batch_of([(series, value) for value in values], ts_ms)), strict=True
    ):
        message = json.loads(payload)
        assert list(message) == ["ts", "site", "line", "device", "tag", "value", "unit"]
        assert message == {
            "ts": time_text(ts_ms).decode(),
            **series._asdict(),
            "value": value,
        }
        assert math.copysign(1, message["value"]) == math.copysign(1, value)
        assert isinstance(message["value"], int | float)
        compact = json.dumps({**message, "value": 0}, separators=(",", ":"), ensure_ascii=False)
        before, after = compact.split('"value":0')
        assert payload.startswith(f'{before}"value":'.encode())
        assert payload.endswith(after.encode())


@pytest.mark.parametrize(
    ("ts_ms", "text"),
    [
        (0, b"1970-01-01T00:00:00.000Z"),
        (-1, b"1969-12-31T23:59:59.999Z"),
        (1_755_432_000_007, b"2025-08-17T12:00:00.007Z"),
    ],
)
def test_time_is_utc_with_milliseconds(ts_ms: int, text: bytes) -> None:
    """Always three digits, never rounded."""
    assert time_text(ts_ms) == text


def test_samples_of_many_runs_keep_their_times_across_portions() -> None:
    """A batch larger than a portion, begun in its middle, still gives each sample its own time."""
    count = 2 * MESSAGES_MAX + 30
    batch = Batch(
        sequence=1,
        runs=[(NOON_MS + n, 10) for n in range(count // 10)],
        series_ids=array("I", [7] * count),
        values=array("d", range(count)),
        series={7: PRESS},
    )
    start = 995
    messages = [json.loads(payload) for _, payload in rendered(batch, start)]
    assert [message["value"] for message in messages] == list(range(start, count))
    assert [message["ts"] for message in messages] == [
        time_text(NOON_MS + n // 10).decode() for n in range(start, count)
    ]
    assert max(len(part.topics) for part in MessageRenderer().render(batch)) == MESSAGES_MAX


def test_korean_names_make_topics() -> None:
    """Names are UTF-8 in topic and message."""
    series = Series("평택", "1라인", "펌프01", "압력", "℃")
    assert topic_of(series) == "plc/평택/펌프01/압력".encode()


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "a+", "#", "a\x00", "a\nb", "\x85", "\ud800", "\ufdd0", "\uffff", "\U0001ffff"],
)
def test_names_that_a_broker_hangs_up_over_have_no_topic(name: str) -> None:
    """One bad name must not stop all the others."""
    assert topic_of(PRESS._replace(tag=name)) == b""
    assert topic_of(PRESS._replace(site="x" * TOPIC_BYTES_MAX)) == b""


def messages_of(count: int) -> Messages:
    """Numbered messages on one topic."""
    return Messages([b"t"] * count, [b"%d" % n for n in range(count)])


def packets_in(data: bytes) -> list[mqtt5.PublishPacket]:
    """What a broker reads; every packet must be a whole, valid PUBLISH."""
    view, packets = memoryview(data), []
    while view:
        packet, size = mqtt5.read(view)
        assert isinstance(packet, mqtt5.PublishPacket)
        packets.append(packet)
        view = view[size:]
    return packets


@given(
    counts=st.lists(st.integers(0, 60), max_size=5),
    size=st.integers(1, 30),
    refused=st.sets(st.integers(0, 300)),
    withheld=st.sets(st.integers(0, 59)),
    data=st.data(),
)
def test_window_sends_everything_once_within_its_size(
    counts: list[int], size: int, refused: set[int], withheld: set[int], data: st.DataObject
) -> None:
    """Whatever the order of PUBACKs: each message sent once, in order, never too many in flight."""
    portions, numbers = [], []
    for count in counts:
        topics = [b"" if n in withheld else b"t" for n in range(count)]
        portions.append(Messages(topics, [b"%d" % n for n in range(count)]))
        numbers += [n not in withheld for n in range(count)]
    to_send = [number for number, wanted in enumerate(numbers) if wanted]
    window = PublishWindow(portions, size=size)
    in_flight: list[tuple[int, int]] = []
    sent = 0
    while True:
        for packet in packets_in(window.take()):
            assert packet.packet_id is not None
            in_flight.append((packet.packet_id, to_send[sent]))
            sent += 1
        assert len(in_flight) == window.unanswered <= size
        assert len({packet_id for packet_id, _ in in_flight}) == len(in_flight)
        if window.done:
            break
        packet_id, number = in_flight.pop(data.draw(st.integers(0, len(in_flight) - 1)))
        window.answer(packet_id, 135 if number in refused else 16)
        # as far as the first one without an answer, and no further
        first = min((number for _, number in in_flight), default=window.sent)
        assert window.answered == first
    assert sent == len(to_send)
    assert window.answered == len(numbers)
    not_sent = set(range(len(numbers))).difference(to_send)
    assert set(window.refused) == refused.intersection(to_send) | not_sent


def test_packet_ids_come_round() -> None:
    """More messages than packet ids: an id is used again once it is free."""
    count = 3 * PACKET_IDS_MAX
    window = PublishWindow([messages_of(count)], size=20)
    payloads = []
    while not window.done:
        packets = packets_in(window.take())
        payloads += [packet.payload for packet in packets]
        data = b"".join(mqtt5.PubAckPacket(packet.packet_id or 0).write() for packet in packets)
        assert window.acknowledge(data) == len(data)
    assert payloads == [b"%d" % n for n in range(count)]


def test_pubacks_are_read_in_each_of_their_forms() -> None:
    """Four bytes, five with a code; one with properties or cut short is left to the caller."""
    window = PublishWindow([messages_of(6)], size=6)
    window.take()
    data = bytes.fromhex("40020001 4003000210 4003000395 400400041000 4002")
    assert window.acknowledge(data) == 14
    assert window.answered == 3
    assert window.refused == {2: "broker: packet too large (149)"}
    assert window.acknowledge(b"\x40\x03\x00\x04") == 0


@pytest.mark.parametrize("packet_id", [0, 3, 4, PACKET_IDS_MAX + 1, 0xFFFF])
def test_puback_that_nobody_waits_for_is_an_error(packet_id: int) -> None:
    """Never sent, answered before, or not an id at all."""
    window = PublishWindow([messages_of(3)], size=3)
    window.take()
    window.answer(3, 0)
    with pytest.raises(ValueError, match=f"packet id {packet_id}, "):
        window.acknowledge(b"\x40\x02" + packet_id.to_bytes(2, "big"))


def test_what_must_not_be_sent_is_refused_and_the_rest_goes_out() -> None:
    """Over the broker's packet size, or without a topic; also when nothing else is left to send."""
    payloads = [b"x", b"y" * 100, b"z", b"y" * 100]
    window = PublishWindow(
        [Messages([b"a", b"b", b"", b"d"], payloads), Messages([b""], [b"v"])],
        size=2,
        packet_bytes_max=50,
    )
    assert [packet.topic for packet in packets_in(window.take())] == ["a"]
    window.answer(1, 0)
    assert packets_in(window.take()) == []
    assert window.done
    assert sorted(window.refused) == [1, 2, 3, 4]
    assert window.refused[1] == "packet too large: 108 bytes, the broker takes 50"
    assert window.refused[2] == "topic name invalid: site, device or tag"


@pytest.mark.parametrize("size", [0, 1, 100, 122, 123, 200, 16_378, 16_379, 40_000])
def test_every_length_of_packet_is_framed_as_the_codec_reads_it(size: int) -> None:
    """The length field grows from one byte to three."""
    window = PublishWindow([Messages([b"t"], [b"p" * size])], size=1, retain=True)
    (packet,) = packets_in(window.take())
    assert (packet.topic, packet.payload, packet.retain) == ("t", b"p" * size, True)
    assert packet.qos.value == 1


@pytest.mark.parametrize("agent_id", ["e", "edge-01", "현장" * 40])
def test_properties_are_framed_as_the_codec_reads_them(agent_id: str) -> None:
    """Any number of them would be: their length grows from one byte to two."""
    window = PublishWindow(
        [messages_of(3)], size=3, properties=encoded_property("edge-agent", agent_id)
    )
    packets = packets_in(window.take())
    assert [packet.user_properties for packet in packets] == 3 * [[("edge-agent", agent_id)]]
    assert [packet.payload for packet in packets] == [b"0", b"1", b"2"]
    assert [packet.packet_id for packet in packets] == [1, 2, 3]


def test_reasons_are_told_in_words() -> None:
    """The standard's name, the code, and what the broker adds."""
    assert reason_in_words(135) == "not authorized (135)"
    assert reason_in_words(200, "disk full") == "unknown reason (200): disk full"
