"""Topic and message of a sample on MQTT. Pure.

A message has seven keys in this order and no space:
``{"ts":"2025-08-17T12:00:00.000Z","site":"A1","line":"L1","device":"PUMP01","tag":"PRESS",
"value":12.3,"unit":"bar"}``, UTF-8, on the topic ``plc/{site}/{device}/{tag}``. ``ts`` is UTC with
milliseconds, ``value`` always a JSON number.

Beside the payload a message has the MQTT 5 user property `ORIGIN`, the agent's id, if the agent
takes messages in as well: by it, it knows its own when they come back (`pipeline/ingest.py`).

Whatever stays the same from sample to sample of a series is rendered once, a time once per run,
and the numbers of a batch in one call: 0.3 us per message, against 1.2 for a dict per sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

import orjson

from edge_agent.model import Batch, Series
from edge_agent.sinks.per_series import PerSeries

MESSAGES_MAX = 1_000
"""Messages rendered in one go; keeps the event loop free for others (about 3 ms on a Pi)."""

TOPIC_BYTES_MAX = 65_535
"""Longest string of MQTT (5.0, 1.5.4)."""

ORIGIN = "edge-agent"
"""Name of the user property that says which agent has published a message."""

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  (naive: UTC by definition, and no offset in the text)
_NOT_IN_A_NAME = frozenset("/+#")


class Messages(NamedTuple):
    """Some messages as columns of equal length. An empty topic: the series can't have one."""

    topics: list[bytes]
    payloads: list[bytes]


def topic_of(series: Series) -> bytes:
    """The series' topic in UTF-8; empty where its names make no valid topic.

    The address map lets no such name in. A journal might hold one all the same, and a broker ends
    the connection over it, so that one bad name would stop every other tag for ever.
    """
    return _topic("plc", series.site, series.device, series.tag)


def status_topic_of(site: str, device: str) -> bytes:
    """A device's status topic, beside the samples and not among them; empty as above."""
    return _topic("plc-status", site, device)


def _topic(root: str, *names: str) -> bytes:
    if not all(map(_is_level, names)):
        return b""
    topic = "/".join((root, *names)).encode()
    return topic if len(topic) <= TOPIC_BYTES_MAX else b""


def _is_level(name: str) -> bool:
    return bool(name) and not any(
        character in _NOT_IN_A_NAME or _is_refused_by_brokers(ord(character)) for character in name
    )


def _is_refused_by_brokers(code: int) -> bool:
    """What MQTT 5.0 (1.5.4) forbids or lets a receiver refuse; Mosquitto refuses all of it."""
    control = code <= 0x1F or 0x7F <= code <= 0x9F
    surrogate = 0xD800 <= code <= 0xDFFF
    noncharacter = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
    return control or surrogate or noncharacter


def time_text(ts_ms: int) -> bytes:
    """``2025-08-17T12:00:00.000Z`` for milliseconds since 1970 UTC."""
    moment = _EPOCH + timedelta(milliseconds=ts_ms)
    return moment.isoformat(timespec="milliseconds").encode() + b"Z"


class MessageRenderer:
    """Renders batches whose series ids come from one journal: it remembers what it rendered."""

    def __init__(self) -> None:
        self._topics = PerSeries(topic_of)
        self._devices = PerSeries(_device_part)
        self._tags = PerSeries(_tag_part)
        self._tails = PerSeries(_tail)

    def render(self, batch: Batch, start: int = 0) -> Iterator[Messages]:
        """The messages of ``batch``'s samples from ``start`` on, in order, in portions."""
        heads: list[bytes] = []
        for ts_ms, count in batch.runs:
            heads += [b'{"ts":"' + time_text(ts_ms)] * count
        for first in range(start, len(batch), MESSAGES_MAX):
            portion = slice(first, first + MESSAGES_MAX)
            ids = batch.series_ids[portion]
            series = batch.series
            numbers = orjson.dumps(batch.values[portion].tolist())[1:-1].split(b",")
            parts = zip(
                heads[portion],
                self._devices.lookup(ids, series),
                self._tags.lookup(ids, series),
                numbers,
                self._tails.lookup(ids, series),
                strict=True,
            )
            yield Messages(self._topics.lookup(ids, series), list(map(b"".join, parts)))


# A message's constant parts. Many series share the first and the last, which are kept once.


def _device_part(series: Series) -> bytes:
    site, line, device = map(orjson.dumps, series[:3])
    return b'","site":%b,"line":%b,"device":%b,"tag":' % (site, line, device)


def _tag_part(series: Series) -> bytes:
    return b'%b,"value":' % orjson.dumps(series.tag)


def _tail(series: Series) -> bytes:
    return b',"unit":%b}' % orjson.dumps(series.unit)
