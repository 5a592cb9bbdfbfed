"""`edge-agent quality` over every source: the same rows give the same report.

The embedded store is written by its sink, the databases by theirs; asked is with no more rights
than `viewer`.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from edge_agent import address_map
from edge_agent.cli.main import main
from edge_agent.cli.quality import SETTLE_MS, parse_range
from edge_agent.clock import MINUTE_MS
from edge_agent.errors import ConfigError, TransientError
from edge_agent.model import Tag, TagKey, ValueType
from edge_agent.quality.collect import Columns, Kept, Source, Subject, collect
from edge_agent.quality.figures import Expectation, Minutes
from edge_agent.quality.postgres_source import PostgresSource
from edge_agent.quality.report import Report, as_dict, iso, make_report
from edge_agent.quality.store_source import StoreSource
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.postgres import PostgresSink
from edge_agent.sinks.store import StoreSink
from tests.batches import BatchMaker, Sample
from tests.integration.plc_database import Cluster, CuttingProxy, Database, now_ms
from tests.tags import plain_tag

HOUR_MS = 60 * MINUTE_MS
JOURNAL = JournalIdentity("agent", "journal-1")
RANGE_MS = 3 * HOUR_MS


def tag(name: str, period_ms: int, **changes: Any) -> Tag:
    """A row of the map."""
    row: dict[str, Any] = {
        "protocol": "simulated",
        "conn": "sim://plant",
        "address": str(1000 + 10 * (ord(name[0]) % 1000)),
        "type": ValueType.FLOAT64,
        "lo": 0.0,
        "hi": 10.0,
    }
    return plain_tag(name, period_ms=period_ms, **row | changes)


PLAN = (
    tag("PRESS", 10_000),
    tag("온도", 60_000, unit="°C"),
    tag("FLOW", 30_000),
    tag("STUCK", 30_000),
    tag("WILD", 30_000),
    tag("LEVEL", 1_000, deadband=0.5, heartbeat_ms=300_000),
    tag("NEVER", 10_000),
    tag("RPM", 30_000, device="FAN <02> & Söhne", unit=""),
)
"""What the map says; the rows are `plant`'s."""


def plant(end_ms: int) -> list[Sample]:
    """Four hours of samples, one scan after the other, up to a whole minute.

    PRESS has a gap of half an hour and jitter; 온도 is as it should be; FLOW changes its line and
    unit on the way; STUCK stands still for the last hour; WILD lies beyond its limits each third
    time; LEVEL comes by its heartbeat; RPM ends an hour before the others.
    """
    found: list[Sample] = []

    def sample(one: Tag, ts_ms: int, value: float, **changes: Any) -> None:
        found.append((replace(one, **changes).series, ts_ms, value))

    press, temp, flow, stuck, wild, level, _, rpm = PLAN
    for ts_ms in range(end_ms - 4 * HOUR_MS, end_ms, 10_000):
        age_ms, place = end_ms - ts_ms, ts_ms // 10_000
        if not HOUR_MS < age_ms <= 1.5 * HOUR_MS:
            sample(press, ts_ms + place * 7919 % 97, (place % 97) / 16)
        if place % 6 == 0:
            sample(temp, ts_ms, 3 + place % 13 / 4)
        if place % 3 == 0:
            old = {"line": "L2", "unit": "l/min"} if age_ms > 2 * HOUR_MS else {}
            sample(flow, ts_ms, place % 7 / 2, **old)
            sample(stuck, ts_ms, 9.0 if age_ms <= HOUR_MS else place % 11 / 2)
            sample(wild, ts_ms, 11.0 if place % 9 == 0 else 5.0)
            if age_ms > HOUR_MS:
                sample(rpm, ts_ms, 1.0 + place % 2)
        if place % 30 == 0:
            sample(level, ts_ms + 500, place // 90 % 3)
    return found


@dataclass
class Rig:
    """One source, its rows' writer, and what only a test does with it."""

    source: Source
    end_ms: int
    path: Path | None = None
    database: Database | None = None

    async def write(self, samples: Sequence[Sample]) -> None:
        """Bring samples in as the agent does, and let aggregates follow."""
        make = BatchMaker()
        minutes = groupby(samples, key=lambda sample: sample[1] // MINUTE_MS)
        batches = [make(minute) for _, minute in minutes]
        if self.database is None:
            assert self.path is not None
            now = now_ms()
            sink = StoreSink(self.path, now_ms=lambda: now, elapsed_ms=lambda: 0)
            await sink.open(JOURNAL)
            await sink.deliver(batches)
            await sink.maintain()
            await sink.close()
            return
        database_sink = PostgresSink(agent_id="agent", dsn=self.database.dsn())
        await database_sink.open(JOURNAL)
        await database_sink.deliver(batches)
        await database_sink.close()
        await self.database.execute("CALL plc_refresh(now() - interval '8 hours', now())")

    def options(self) -> list[str]:
        """Of the command line, to have this source."""
        if self.database is None:
            assert self.path is not None
            return ["--data-dir", str(self.path.parent), "--source", "store"]
        return ["--source", "edge", "--dsn", self.database.dsn("reader")]


@pytest.fixture
async def empty(history_cluster: Cluster | None, tmp_path: Path) -> AsyncIterator[Rig]:
    """A source without samples; the store's file is not even there."""
    end_ms = now_ms() // MINUTE_MS * MINUTE_MS - 3 * MINUTE_MS
    if history_cluster is None:
        path = tmp_path / "store.db"
        rig = Rig(StoreSource(path), end_ms, path=path)
    else:
        database = Database(history_cluster, await history_cluster.fresh())
        source = PostgresSource("edge", database.dsn("reader"))
        rig = Rig(source, end_ms, database=database)
    yield rig
    await rig.source.close()


@pytest.fixture
async def rig(empty: Rig) -> Rig:
    """A source that has the plant's samples."""
    await empty.write(plant(empty.end_ms))
    return empty


def wanted() -> list[Subject]:
    """What the map says."""
    return [Subject(TagKey(*one.key), Expectation.of(one), one.unit) for one in PLAN]


async def reported(source: Source, end_ms: int, subjects: Sequence[Subject]) -> Report:
    """The report of the last three hours."""
    start_ms = end_ms - RANGE_MS
    collected = await collect(source, subjects, start_ms, end_ms)
    return make_report(source.name, start_ms, collected, subjects, iso, map_sha256="00")


class Remembered:
    """The rows in memory, as a source: what every other one has to report too."""

    name = "memory"

    def __init__(self, samples: Sequence[Sample], kept: Kept) -> None:
        self._kept = kept
        self._rows: dict[TagKey, list[tuple[int, float]]] = defaultdict(list)
        for series, ts_ms, value in samples:
            self._rows[TagKey(series.site, series.device, series.tag)].append((ts_ms, value))

    async def close(self) -> None:
        """Nothing to close."""

    async def tags(self, start_ms: int, end_ms: int) -> set[TagKey]:
        """All of them."""
        return set(self._rows)

    async def kept(self, start_ms: int) -> Kept:
        """As the test says."""
        return self._kept

    def _inside(self, key: TagKey, start_ms: int, end_ms: int) -> list[tuple[int, float]]:
        return [row for row in sorted(self._rows[key]) if start_ms <= row[0] < end_ms]

    async def samples(
        self, site: str, device: str, tags: Collection[str], start_ms: int, end_ms: int
    ) -> Mapping[str, Columns]:
        """By plain search."""
        found = {}
        for name in tags:
            rows = self._inside(TagKey(site, device, name), start_ms, end_ms)
            if rows:
                times, values = zip(*rows, strict=True)
                found[name] = array("q", times), array("d", values)
        return found

    async def minutes(
        self, site: str, device: str, tags: Collection[str], start_ms: int, end_ms: int
    ) -> Mapping[str, Minutes]:
        """By plain grouping."""
        found = {}
        for name in tags:
            rows = self._inside(TagKey(site, device, name), start_ms, end_ms)
            groups = groupby(rows, lambda row: row[0] // MINUTE_MS * MINUTE_MS)
            parts = {start: [value for _, value in some] for start, some in groups}
            if parts:
                found[name] = Minutes(
                    list(parts),
                    list(map(len, parts.values())),
                    list(map(min, parts.values())),
                    list(map(max, parts.values())),
                )
        return found


def plain(report: Report) -> dict[str, Any]:
    """A report's document, but for where it comes from."""
    document = as_dict(report)
    del document["source"]
    return document


def by_tag(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of a document by tag."""
    return {row["tag"]: row for row in document["tags"]}


# -- the same rows, the same report ------------------------------------------------------------


async def test_every_source_reports_the_same(rig: Rig) -> None:
    """Down to the last figure; a tag whose line and unit changed is one tag."""
    memory = Remembered(plant(rig.end_ms), Kept(0, 0))
    document = plain(await reported(rig.source, rig.end_ms, wanted()))
    assert document == plain(await reported(memory, rig.end_ms, wanted()))
    rows = by_tag(document)
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "PRESS": "bad",
        "온도": "good",
        "FLOW": "good",
        "STUCK": "look",
        "WILD": "look",
        "LEVEL": "good",
        "NEVER": "bad",
        "RPM": "bad",
    }
    assert rows["FLOW"]["samples"] == RANGE_MS // 30_000
    assert rows["PRESS"]["coverage"] == 900 / 1080
    assert 0 < rows["PRESS"]["deviation_p99_ms"] < 97
    assert rows["WILD"]["outside_share"] == 1 / 3
    assert rows["STUCK"]["flat_ms"] == HOUR_MS - 30_000
    assert (rows["LEVEL"]["coverage"], rows["LEVEL"]["heartbeat_ms"]) == (1.0, 300_000)
    assert rows["RPM"]["findings"][0]["check"] == "age"


async def test_every_source_reports_the_same_without_a_map(rig: Rig) -> None:
    """Tags are those of the source, periods are estimated."""
    end_ms = rig.end_ms
    known = await rig.source.tags(end_ms - RANGE_MS, end_ms)
    assert known == {TagKey(*one.key) for one in PLAN if one.tag != "NEVER"}
    subjects = [Subject(key, Expectation()) for key in sorted(known)]
    memory = Remembered(plant(end_ms), Kept(0, 0))
    document = plain(await reported(rig.source, end_ms, subjects))
    assert document == plain(await reported(memory, end_ms, subjects))
    rows = by_tag(document)
    assert (rows["FLOW"]["period_ms"], rows["FLOW"]["period_is_estimated"]) == (30_000, True)
    assert document["verdict"] == "look"


async def test_every_source_reports_the_same_by_minutes(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if samples were kept for an hour and a half: the part before is made of minutes."""
    kept = Kept(rig.end_ms - 3 * HOUR_MS // 2 + 1, 0)

    async def answer(_start_ms: int) -> Kept:
        return kept

    monkeypatch.setattr(rig.source, "kept", answer)
    memory = Remembered(plant(rig.end_ms), kept)
    document = plain(await reported(rig.source, rig.end_ms, wanted()))
    assert document == plain(await reported(memory, rig.end_ms, wanted()))
    rows = by_tag(document)
    assert rows["온도"]["minutes"] == 91
    assert (rows["온도"]["coverage"], rows["온도"]["periods"]) == (1.0, 88)
    assert rows["PRESS"]["coverage"] == 900 / 1080
    assert "judged by minutes" in " ".join(document["notes"])


async def test_samples_that_have_really_expired(empty: Rig) -> None:
    """The source says itself from when on it has samples; minutes before tell as much."""
    end_ms = (now_ms() // HOUR_MS - 80) * HOUR_MS  # more than three days ago
    samples = plant(end_ms)
    await empty.write([*samples, *plant(empty.end_ms)])
    if empty.database is not None:
        await empty.database.execute("CALL plc_refresh(now() - interval '100 hours', now())")
        await empty.database.execute(
            "UPDATE plc_settings SET refresh_minute_days = 1, raw_days = 1"
        )
    else:
        assert empty.path is not None
        with closing(sqlite3.connect(empty.path, isolation_level=None)) as db:
            db.execute("DELETE FROM raw WHERE slot < ?", ((end_ms // MINUTE_MS + 60) << 24,))
    memory = Remembered(samples, Kept(1 << 60, 0))
    document = plain(await reported(empty.source, end_ms, wanted()))
    assert document == plain(await reported(memory, end_ms, wanted()))
    assert by_tag(document)["WILD"]["minutes_outside"] == 120
    assert by_tag(document)["WILD"]["outside_share"] is None


async def test_what_was_before_the_first_sample_is_not_judged(empty: Rig) -> None:
    """A source that is an hour old is judged by its hour, less the minute in which it began."""
    end_ms = empty.end_ms
    samples = [one for one in plant(end_ms) if one[1] >= end_ms - HOUR_MS]
    await empty.write(samples)
    document = plain(await reported(empty.source, end_ms, wanted()))
    assert document["since"] == iso(end_ms - HOUR_MS + MINUTE_MS)
    assert by_tag(document)["온도"]["coverage"] == 1.0
    assert "is not judged" in " ".join(document["notes"])
    with pytest.raises(TransientError, match="before the data begins"):
        await collect(empty.source, wanted(), end_ms - 4 * HOUR_MS, end_ms - 2 * HOUR_MS)


async def test_the_newest_samples_count_too(empty: Rig) -> None:
    """What has not been summarised, or folded, yet."""
    at_ms = now_ms()
    series = PLAN[0].series
    await empty.write([(series, at_ms - 5_000 + 1_000 * n, float(n)) for n in range(4)])
    subjects = [Subject(TagKey(*PLAN[0].key), Expectation(1_000))]
    found = await collect(empty.source, subjects, at_ms - 5_000, at_ms - 1_000)
    assert found.figures[0].samples == 4


# -- when it is away ---------------------------------------------------------------------------


async def test_a_store_that_is_not_there(tmp_path: Path) -> None:
    """Says what makes it."""
    with pytest.raises(TransientError) as caught:
        await collect(StoreSource(tmp_path / "store.db"), wanted(), 0, HOUR_MS)
    assert "the agent creates it" in caught.value.hint


async def test_a_role_without_rights_is_told_what_to_do(empty: Rig) -> None:
    """It needs `viewer`; the agent's own may not read."""
    if empty.database is None:
        pytest.skip("of a database only")
    for user in ("stranger", "agent"):
        source = PostgresSource("edge", empty.database.dsn(user))
        with pytest.raises(TransientError) as caught:
            await collect(source, wanted(), empty.end_ms - HOUR_MS, empty.end_ms)
        assert f"GRANT viewer TO {user}" in caught.value.hint
        await source.close()


async def test_it_writes_nothing(rig: Rig) -> None:
    """Not even what its role might."""
    if rig.database is None:
        assert rig.path is not None
        before = rig.path.read_bytes()
        await reported(rig.source, rig.end_ms, wanted())
        assert rig.path.read_bytes() == before
        return
    source = PostgresSource("edge", rig.database.owner_dsn)
    await reported(source, rig.end_ms, wanted())
    connection = await source._opened()
    with pytest.raises(Exception, match="read-only transaction"):
        await connection.execute("DELETE FROM plc_raw")
    await source.close()


async def test_a_wire_that_is_cut(rig: Rig) -> None:
    """In the middle of the rows: an error of ours, with the database in it."""
    if rig.database is None:
        pytest.skip("of a database only")
    port = rig.database.cluster.server.port
    async with CuttingProxy(port) as proxy:
        address = rig.database.dsn("reader").replace(f":{port}/", f":{proxy.port}/")
        source = PostgresSource("remote", address)
        await source.kept(0)
        proxy.arm(received=5_000)
        with pytest.raises(TransientError, match="postgres"):
            await reported(source, rig.end_ms, wanted())
        await source.close()


# -- the command -------------------------------------------------------------------------------


async def command(*words: str) -> int:
    """The command line as a user types it; its exit code."""
    return await asyncio.to_thread(main, ["quality", *words])


async def test_the_command_reports(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """JSON, table and page of the same figures; 1 as long as something is bad."""
    path = tmp_path / "map.csv"
    address_map.write(path, PLAN)
    page = tmp_path / "report.html"
    words = [*rig.options(), "--map", str(path), "--since", "3h", "--until", iso(rig.end_ms)]
    assert await command(*words, "--json", "--html", str(page)) == 1
    document = json.loads(capsys.readouterr().out)
    subjects = wanted()
    memory = await reported(Remembered(plant(rig.end_ms), Kept(0, 0)), rig.end_ms, subjects)
    reference = by_tag(plain(memory))
    for name, row in by_tag(document).items():
        figures = {key for key in row if key not in ("findings", "reason")}  # local time in these
        assert {key: row[key] for key in figures} == {key: reference[name][key] for key in figures}
    text = page.read_text()
    assert "FAN &lt;02&gt; &amp; Söhne" in text
    assert "온도" in text
    assert await command(*words) == 1
    lines = capsys.readouterr().out.splitlines()
    shown = [re.split(r"\s{2,}", line)[:2] for line in lines if re.search(r"\s{2,}", line)]
    assert shown[0] == ["tag", "verdict"]
    assert shown[1] == ["A1/PUMP01/NEVER", "bad"]
    assert len(shown) == 6
    assert lines[-1] == "all: 3 good, 2 to look at, 3 bad"
    assert await command(*words, "--all", "--device", "A1/FAN <02> & Söhne") == 1
    assert "all: 0 good, 0 to look at, 1 bad" in capsys.readouterr().out
    decomposed = unicodedata.normalize("NFD", "A1/PUMP01/온도")
    await command(*words, "--device", decomposed, "--json")
    assert [row["tag"] for row in json.loads(capsys.readouterr().out)["tags"]] == ["온도"]


async def test_a_good_plant_gives_0(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a map nothing is bad here; what is to be looked at fails nobody."""
    words = [*rig.options(), "--since", "3h", "--until", iso(rig.end_ms)]
    assert await command(*words) == 0
    assert "periods are estimated" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--since", "24"], "--since 24: allowed: a span like 30m"),
        (["--since", "2026-11-23T10:00:00"], "a time with its zone"),
        (["--since", "9999d"], "allowed: at most 366 days"),
        (["--since", "99999d"], "that is before 1970; allowed: at most 366 days"),
        (["--since", "0h"], "not before the end of the range"),
        (["--until", "yesterday"], "--until yesterday: allowed"),
        (["--source", "edge"], "--source edge: no database is known"),
        (["--source", "remote"], "set dashboard.remote_dsn"),
        (["--source", "store", "--dsn", "postgresql://h/d"], "the store is a file"),
        (["--source", "edge", "--dsn", "mysql://me:secret@h/d"], "must begin with postgresql://"),
        (["--map-only"], "no address map given"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_wrong_input_is_told(
    words: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What, and what is allowed; 2, and no traceback."""
    assert await command("--data-dir", str(tmp_path), *words) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert "Traceback" not in error
    assert "secret" not in error


async def test_a_device_that_nobody_knows_and_a_file_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are wrong input; a map with a problem is reported as `check` does."""
    end_ms = now_ms() // MINUTE_MS * MINUTE_MS
    store = Rig(StoreSource(tmp_path / "store.db"), end_ms, path=tmp_path / "store.db")
    await store.write(plant(end_ms))
    path = tmp_path / "map.csv"
    address_map.write(path, PLAN)
    words = [*store.options(), "--map", str(path), "--since", "3h"]
    assert await command(*words, "--device", "FAN09") == 2
    assert "--device FAN09: it stands in no row of" in capsys.readouterr().err
    assert await command(*words, "--html", str(tmp_path / "none" / "report.html")) == 2
    assert "can't be written: there is no folder" in capsys.readouterr().err
    before = path.read_bytes()
    assert await command(*words, "--html", str(path)) == 2
    assert "is a file that this command reads" in capsys.readouterr().err
    assert path.read_bytes() == before
    path.write_text(path.read_text().replace(",10000,", ",ten,"))
    assert await command(*words) == 2
    assert "period_ms" in capsys.readouterr().err


def test_a_range_ends_when_samples_have_settled() -> None:
    """Ten seconds ago, unless it is said; spans count back from the end."""
    at_ms = 1_800_000_000_000
    assert parse_range("1h", None, at_ms) == (at_ms - SETTLE_MS - HOUR_MS, at_ms - SETTLE_MS)
    assert parse_range("30m", "2h", at_ms) == (at_ms - 5 * HOUR_MS // 2, at_ms - 2 * HOUR_MS)
    moment = "2026-11-23T10:00:00+09:00"
    assert parse_range("1d", moment, at_ms)[1] == 1_795_395_600_000
    with pytest.raises(ConfigError):
        parse_range("1h", "1970-01-01T00:30:00Z", at_ms)


async def test_the_map_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Findings as text and JSON; no source is asked."""
    path = tmp_path / "map.csv"
    address_map.write(path, [replace(PLAN[0], address="7"), replace(PLAN[1], address="7")])
    words = ["--data-dir", str(tmp_path / "none"), "--map", str(path), "--map-only"]
    assert await command(*words) == 0
    assert "A1/PUMP01/PRESS, A1/PUMP01/온도 read the same value" in capsys.readouterr().out
    assert await command(*words, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["tags"]) == ("look", 2)
    assert [finding["check"] for finding in document["findings"]] == ["address"]
