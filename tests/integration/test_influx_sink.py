"""The InfluxDB sink against InfluxDB's own parser and storage."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import RejectedRows, TransientError
from edge_agent.model import Batch, Series
from edge_agent.sinks.base import JournalIdentity, Sink
from edge_agent.sinks.influx import InfluxSink
from tests.influx_server import Influx

JOURNAL = JournalIdentity("agent-1", "journal-1")
NOON_MS = 1_755_432_000_000
MONTH_MS = 30 * 86_400_000  # InfluxDB keeps each week in a shard of its own, with its own types
LONG_AGO_MS = NOON_MS - MONTH_MS

measurements = (f"m{number}" for number in count())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    with Influx(tmp_path_factory.mktemp("influx")) as running:
        yield running


@pytest.fixture
def measurement() -> str:
    """A measurement that no other test has written to."""
    return next(measurements)


def sink_for(server: Influx, measurement: str = "plc", timeout_s: float = 10.0) -> InfluxSink:
    return InfluxSink(
        url=server.url,
        token=server.token,
        org=server.org,
        bucket=server.bucket,
        measurement=measurement,
        timeout_s=timeout_s,
    )


@asynccontextmanager
async def opened(sink: InfluxSink) -> AsyncIterator[InfluxSink]:
    await sink.open(JOURNAL)
    try:
        yield sink
    finally:
        await sink.close()


def series_of(tag: str) -> Series:
    return Series("A1", "L1", "PUMP01", tag, "bar")


SERIES = {series_id: series_of(f"T{series_id:03}") for series_id in range(1, 101)}


def batch_of(samples: Sequence[tuple[int, int, float]], sequence: int = 1) -> Batch:
    """A batch of (time, series id, value), each sample a run of its own."""
    return Batch(
        sequence=sequence,
        runs=[(ts_ms, 1) for ts_ms, _, _ in samples],
        series_ids=array("I", [series_id for _, series_id, _ in samples]),
        values=array("d", [value for _, _, value in samples]),
        series=SERIES,
    )


def scans(tags: int, scan_count: int, sequence: int = 1, start_ms: int = NOON_MS) -> Batch:
    """A batch of whole scans, 200 ms apart, whose values all differ."""
    return Batch(
        sequence=sequence,
        runs=[(start_ms + 200 * scan, tags) for scan in range(scan_count)],
        series_ids=array("I", list(range(1, tags + 1)) * scan_count),
        values=array("d", [sequence * 1e6 + number / 7 for number in range(tags * scan_count)]),
        series=SERIES,
    )


def samples_of(batch: Batch) -> dict[tuple[int, str], float]:
    """The samples by (time, tag)."""
    times = [ts_ms for ts_ms, run in batch.runs for _ in range(run)]
    tags = [batch.series[series_id].tag for series_id in batch.series_ids]
    return dict(zip(zip(times, tags, strict=True), batch.values, strict=True))


def stored(server: Influx, measurement: str) -> dict[tuple[int, str], float]:
    """What InfluxDB has, by (time, tag)."""
    rows = server.query(f'SELECT value FROM "{measurement}" GROUP BY "tag"')
    return {(row["time"], row["tag"]): row["value"] for row in rows}


def stored_count(server: Influx, measurement: str) -> int:
    return int(server.query(f'SELECT count(value) FROM "{measurement}"')[0]["count"])


async def test_every_sample_is_stored_with_its_value_time_and_labels(
    server: Influx, measurement: str
) -> None:
    """All batches of a delivery arrive, bit for bit, under site, line, device, tag and unit."""
    batches = [
        scans(60, 100, sequence=1),
        scans(60, 50, sequence=2, start_ms=NOON_MS + 100_000),
        scans(60, 0, sequence=3),
    ]
    async with opened(sink_for(server, measurement)) as sink:
        assert await sink.deliver(batches) == 0
    expected = {key: value for batch in batches for key, value in samples_of(batch).items()}
    assert len(expected) == 9_000
    assert stored(server, measurement) == expected
    (series,) = server.execute(f'SELECT * FROM "{measurement}" WHERE "tag" = \'T001\' LIMIT 1')
    assert set(series["columns"]) == {"time", "value", "site", "line", "device", "tag", "unit"}


async def test_extreme_values_survive(server: Influx, measurement: str) -> None:
    """The shortest and the longest notation of a float64 reads back as the same float64."""
    values = [0.1 + 0.2, 1e16, 123456789012345678.0, -2.5e-7, 5e-324, 1.7976931348623157e308, 3.0]
    batch = batch_of([(NOON_MS + i, 1, value) for i, value in enumerate(values)])
    async with opened(sink_for(server, measurement)) as sink:
        await sink.deliver([batch])
    assert stored(server, measurement) == samples_of(batch)


async def test_the_same_batches_again_change_nothing(server: Influx, measurement: str) -> None:
    """A delivery that comes twice, also over a new connection, leaves every sample once."""
    batches = [scans(50, 20, sequence=1), scans(50, 20, sequence=2, start_ms=NOON_MS + 10_000)]
    for _ in range(2):
        async with opened(sink_for(server, measurement)) as sink:
            await sink.deliver(batches)
            await sink.deliver(batches)
    assert stored_count(server, measurement) == 2_000


async def test_the_last_of_two_samples_at_one_time_wins(server: Influx, measurement: str) -> None:
    """Order within a tag is kept: what was read later overwrites."""
    batches = [
        batch_of([(NOON_MS, 1, 1.0), (NOON_MS, 1, 2.0)], sequence=1),
        batch_of([(NOON_MS, 2, 3.0), (NOON_MS, 2, 4.0)], sequence=2),
    ]
    async with opened(sink_for(server, measurement)) as sink:
        await sink.deliver(batches)
    assert stored(server, measurement) == {(NOON_MS, "T001"): 2.0, (NOON_MS, "T002"): 4.0}


async def test_only_the_bad_lines_are_rejected(server: Influx, measurement: str) -> None:
    """Samples that meet a field of another type are named one by one; all others are stored."""
    server.write_lines(f"{measurement},tag=OTHER value=1i {LONG_AGO_MS}")
    good = scans(50, 40, sequence=7)
    samples = [(NOON_MS + 50_000 + i, i % 100 + 1, float(i)) for i in range(500)]
    samples[123] = (LONG_AGO_MS + 1, 5, 123.0)
    samples[377] = (LONG_AGO_MS + 2, 9, 377.0)
    mixed = batch_of(samples, sequence=8)
    async with opened(sink_for(server, measurement)) as sink:
        with pytest.raises(RejectedRows) as caught:
            await sink.deliver([good, mixed])
    assert [(row.sequence, row.index) for row in caught.value.rows] == [(8, 123), (8, 377)]
    assert all("field type conflict" in row.reason for row in caught.value.rows)
    refused = {
        (LONG_AGO_MS, "OTHER"): 1,
        (LONG_AGO_MS + 1, "T005"): 0,
        (LONG_AGO_MS + 2, "T009"): 0,
    }
    expected = samples_of(good) | samples_of(mixed)
    assert {key: value for key, value in expected.items() if key not in refused} == {
        key: value for key, value in stored(server, measurement).items() if key not in refused
    }


async def test_a_delivery_that_is_refused_as_a_whole_costs_one_request(
    server: Influx, measurement: str
) -> None:
    """Where the server says that it stored nothing at all, nobody looks for good lines."""
    server.write_lines(f"{measurement},tag=OTHER value=1i {NOON_MS}")
    async with opened(sink_for(server, measurement)) as sink:
        before = server.writes()
        with pytest.raises(RejectedRows) as caught:
            await sink.deliver([scans(100, 30)])
        assert server.writes() - before == 1
    assert len(caught.value.rows) == 3_000


async def test_a_bad_series_is_found_with_few_requests(tmp_path: Path) -> None:
    """A series that is refused for good is cut out of 5,000 lines in tens of requests."""
    batch = scans(100, 50)
    with Influx(tmp_path, values_per_tag_max=98) as server:
        async with opened(sink_for(server)) as sink:
            await sink.deliver([scans(98, 1)])  # the server takes no new tag from here on
            before = server.writes()
            with pytest.raises(RejectedRows) as caught:
                await sink.deliver([batch])
            assert server.writes() - before < 40
        bad = {row.index for row in caught.value.rows}
        samples = list(samples_of(batch).items())
        assert {key[1] for index in bad for key in [samples[index][0]]} == {"T099", "T100"}
        assert len(bad) == 100
        assert stored(server, "plc") == dict(
            sample for index, sample in enumerate(samples) if index not in bad
        )


async def test_the_search_for_bad_lines_is_bounded(
    server: Influx, measurement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that are bad one by one don't cost a request each; what isn't told apart is kept."""
    monkeypatch.setattr("edge_agent.sinks.influx.ISOLATION_REQUESTS_MAX", 50)
    server.write_lines(f"{measurement},tag=OTHER value=1i {LONG_AGO_MS}")
    bad = {i for i in range(600) if i // 100 % 2}  # every other sample of each series
    samples = [((LONG_AGO_MS if i in bad else NOON_MS) + i, i % 100 + 1, 0.5) for i in range(600)]
    async with opened(sink_for(server, measurement)) as sink:
        before = server.writes()
        with pytest.raises(RejectedRows) as caught:
            await sink.deliver([batch_of(samples)])
        assert server.writes() - before < 70
    assert bad < {row.index for row in caught.value.rows}
    assert any("not told apart" in row.reason for row in caught.value.rows)
    assert stored(server, measurement).keys() >= {
        (NOON_MS + i, f"T{i % 100 + 1:03}") for i in range(600) if i not in bad
    }


async def test_a_refusal_that_is_not_about_lines_quarantines_nothing(server: Influx) -> None:
    """A 400 for every request, with words that name no line, is retried, not held against rows."""
    async with opened(sink_for(server)) as sink:
        server.refuse(400, "go away", times=1_000)
        try:
            with pytest.raises(TransientError, match="go away") as caught:
                await sink.deliver([scans(20, 1)])
        finally:
            server.refuse(0, "", times=0)
        assert "org" in caught.value.hint


async def test_a_request_too_large_is_split(tmp_path: Path) -> None:
    """413 makes requests smaller until they fit, now and for the next delivery."""
    batches = [scans(100, 20, sequence=1), scans(100, 20, sequence=2, start_ms=NOON_MS + 10_000)]
    with Influx(tmp_path, body_bytes_max=20_000) as server:
        async with opened(sink_for(server)) as sink:
            for batch in batches:
                before = server.writes()
                await sink.deliver([batch])
        assert server.writes() - before <= 16  # none of them in vain
        expected = samples_of(batches[0]) | samples_of(batches[1])
        assert stored(server, "plc") == expected


async def test_long_names_stay_below_the_body_limit(server: Influx, measurement: str) -> None:
    """5,000 lines with names of 400 bytes go out as several requests."""
    series = Series("부산" * 40, "L1", "펌프" * 26, "압력", "bar")
    batch = Batch(1, [(NOON_MS + i, 1) for i in range(5_000)], array("I", [1] * 5_000),
                  array("d", range(5_000)), {1: series})  # fmt: skip
    async with opened(sink_for(server, measurement)) as sink:
        before = server.writes()
        await sink.deliver([batch])
        assert server.writes() - before > 1
    assert stored_count(server, measurement) == 5_000


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (429, {"Retry-After": "17"}, "429: slow down .Retry-After: 17."),
        (503, {"Retry-After": "5"}, "503: slow down .Retry-After: 5."),
        (500, {}, "500: slow down"),
        (301, {"Location": "/elsewhere"}, "301: slow down"),
        (200, {}, "204 expected"),
    ],
)
async def test_other_answers_are_transient(
    server: Influx, measurement: str, status: int, headers: dict[str, str], words: str
) -> None:
    """A limiter, a failing server, a redirect, a stranger's 200: try again later, in its words."""
    async with opened(sink_for(server, measurement)) as sink:
        server.refuse(status, "slow down", headers)
        with pytest.raises(TransientError, match=words):
            await sink.deliver([scans(3, 1)])
        await sink.deliver([scans(3, 1)])
    assert stored_count(server, measurement) == 3


@pytest.mark.parametrize(
    ("setting", "value", "hint"),
    [
        ("token", "s3cret-and-wrong", "token"),
        ("org", "nobody", "org"),
        ("bucket", "none", "bucket"),
    ],
)
async def test_wrong_credentials_are_found_on_opening(
    server: Influx, setting: str, value: str, hint: str
) -> None:
    """The hint names the setting; the token is in no message."""
    options = {"token": server.token, "org": server.org, "bucket": server.bucket} | {setting: value}
    with pytest.raises(TransientError) as caught:
        await InfluxSink(
            url=server.url, token=options["token"], org=options["org"], bucket=options["bucket"]
        ).open(JOURNAL)
    assert hint in caught.value.hint
    assert "s3cret" not in f"{caught.value!r} {caught.value.hint}"


async def test_a_server_that_is_down_is_transient_and_keeps_what_it_took(tmp_path: Path) -> None:
    """Opening and delivering fail at once while it is down; kill -9 loses nothing acknowledged."""
    batch = scans(100, 10)
    server = Influx(tmp_path).start()
    try:
        async with opened(sink_for(server)) as sink:
            await sink.deliver([batch])
            server.kill()
            with pytest.raises(TransientError, match=server.url):
                await sink.deliver([batch])
        with pytest.raises(TransientError, match=server.url):
            await sink_for(server).open(JOURNAL)
        server.start()
        assert stored(server, "plc") == samples_of(batch)
    finally:
        server.stop()


async def test_a_mute_server_is_given_up_after_the_timeout(tmp_path: Path) -> None:
    """A server that takes the connection and never answers costs `timeout_s`, no more."""
    with Influx(tmp_path) as server:
        async with opened(sink_for(server, timeout_s=1.0)) as sink:
            with server.paused():
                started = time.monotonic()
                with pytest.raises(TransientError, match="within 1 s"):
                    await sink.deliver([scans(10, 1)])
                with pytest.raises(TransientError, match="within 1 s"):
                    await sink_for(server, timeout_s=1.0).open(JOURNAL)
                assert time.monotonic() - started < 10
            await sink.deliver([scans(10, 1)])
        assert stored(server, "plc") == samples_of(scans(10, 1))


async def test_a_cancelled_delivery_leaves_the_sink_usable(
    server: Influx, measurement: str
) -> None:
    """Cancelling passes through; the same batches again complete the job."""
    batch = scans(100, 200)
    async with opened(sink_for(server, measurement)) as sink:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await sink.deliver([batch])
        await sink.deliver([batch])
    assert stored(server, measurement) == samples_of(batch)


async def test_another_journal_may_number_its_series_otherwise(
    server: Influx, measurement: str
) -> None:
    """Series ids are not remembered from one opening to the next."""
    sink = sink_for(server, measurement)
    for tag in ("OLD", "NEW"):
        async with opened(sink):
            batch = Batch(
                1, [(NOON_MS, 1)], array("I", [1]), array("d", [1.0]), {1: series_of(tag)}
            )
            await sink.deliver([batch])
    assert {tag for _, tag in stored(server, measurement)} == {"OLD", "NEW"}


def readable(label: str) -> str:
    """What InfluxDB has for a label: pictures of control characters, no backslash at the end."""
    pictured = "".join(
        chr(0x2400 + ord(c)) if c < " " else "\u2421" if c == "\x7f" else c for c in label
    )
    return f"{pictured[:-1]}\uff3c" if pictured.endswith("\\") else pictured


labels = st.text(
    st.sampled_from(", =\\\"'#\n\r\t\0\x7f펌프\u2028a\U0001f600"), max_size=6
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.builds(Series, labels, labels, labels, labels, labels), min_size=1, max_size=40))
def test_any_name_survives_the_parser(server: Influx, names: list[Series]) -> None:
    """Every label reads back as it was written, empty ones as absent, next to any neighbour."""
    measurement = next(measurements) + ", =\\x"
    expected = {tuple(map(readable, series)): series for series in names}
    series_by_id = dict(enumerate(expected.values(), 1))
    batch = Batch(1, [(NOON_MS, len(series_by_id))], array("I", series_by_id),
                  array("d", series_by_id), series_by_id)  # fmt: skip

    async def deliver() -> None:
        async with opened(sink_for(server, measurement)) as sink:
            await sink.deliver([batch])

    asyncio.run(deliver())
    quoted = measurement.replace("\\", "\\\\")
    rows = server.query(f'SELECT value FROM "{quoted}" GROUP BY *')
    found = {tuple(row.get(name, "") for name in Series._fields): int(row["value"]) for row in rows}
    assert found == {key: number for number, key in enumerate(expected, 1)}


def test_the_token_is_not_in_the_repr() -> None:
    """A sink may be logged."""
    sink: Sink = InfluxSink(url="http://h:8086/", token="s3cret", org="o", bucket="b")
    assert repr(sink) == "InfluxSink(url='http://h:8086', org='o', bucket='b')"
