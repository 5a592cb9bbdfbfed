"""The schema on a real server, in both flavours: db init and status, and who may do what."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import asyncpg
import pytest

from edge_agent.errors import ConfigError, TransientError
from edge_agent.postgres import database, sql_files
from tests.integration.plc_database import Cluster, Database


@pytest.fixture
def sql_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `sql/` that the package uses instead, to be changed by the test."""
    copy = tmp_path / "sql"
    shutil.copytree(sql_files.folder(), copy)
    monkeypatch.setattr(sql_files, "folder", lambda: copy)
    return copy


async def empty_database(cluster: Cluster, name: str) -> str:
    """The superuser's address of a new database without the schema."""
    async with cluster.connected(cluster.server.dsn()) as connection:
        await connection.execute(f"CREATE DATABASE {name}")
    return cluster.server.dsn(database=name)


def dump(cluster: Cluster, dsn: str) -> str:
    """The whole schema as pg_dump tells it, without its random session keys."""
    command = [str(cluster.server.binaries / "pg_dump"), "--schema-only", dsn]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "\n".join(
        line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))
    )


# --- db init and db status ---------------------------------------------------------------------


async def test_init_twice_changes_nothing(cluster: Cluster) -> None:
    """The second run applies no file; even a forced one leaves the same schema."""
    dsn = await empty_database(cluster, "twice")
    first = await database.init(dsn)
    names = tuple(file.name for file in sql_files.schema_files(cluster.flavour))
    assert (first.applied, first.unchanged) == (names, ())
    before = dump(cluster, dsn)
    second = await database.init(dsn)
    assert (second.applied, second.unchanged) == ((), names)
    assert (await database.init(dsn, again=True)).applied == names
    assert dump(cluster, dsn) == before


async def test_two_inits_at_once(cluster: Cluster) -> None:
    """One applies the files, the other finds them applied."""
    dsn = await empty_database(cluster, "at_once")
    reports = await asyncio.gather(database.init(dsn), database.init(dsn))
    assert sorted(len(report.applied) for report in reports) == [
        0,
        len(reports[0].applied + reports[0].unchanged),
    ]


async def test_init_applies_what_changed(db: Database, sql_copy: Path) -> None:
    """A file with new content is told by status, and applied again by init, alone."""
    name = f"{db.cluster.flavour}/050_retention.sql"
    changed = sql_copy / name
    changed.write_text(changed.read_text() + "-- new\n")
    before = await database.status(db.owner_dsn)
    assert [f.name for f in before.files if f.state == "changed"] == [name]
    assert "db init" in before.problems[0]
    report = await database.init(db.owner_dsn)
    assert report.applied == (name,)
    assert not [f for f in (await database.status(db.owner_dsn)).files if f.state != "applied"]


async def test_a_failing_file_leaves_nothing_behind(cluster: Cluster, sql_copy: Path) -> None:
    """Init is one transaction: an error in the last file undoes the first, and is named."""
    dsn = await empty_database(cluster, "broken")
    (sql_copy / "090_broken.sql").write_text("CREATE TABLE nonsense (;\n")
    with pytest.raises(TransientError, match=r"090_broken\.sql: syntax error"):
        await database.init(dsn)
    status = await database.status(dsn)
    assert {file.state for file in status.files} == {"missing"}
    assert "plc_raw" not in dump(cluster, dsn)


async def test_init_needs_rights_and_a_known_flavour(db: Database) -> None:
    """The daemon's own dsn is not enough, and says so; a flavour must have a folder."""
    with pytest.raises(TransientError, match="permission denied") as caught:
        await database.init(db.dsn())
    assert "OWNER_DSN" in caught.value.hint
    with pytest.raises(ConfigError, match="oracle") as wrong:
        await database.init(db.owner_dsn, flavour="oracle")
    assert "postgres" in wrong.value.hint


async def test_init_as_a_database_owner_who_is_no_superuser(cluster: Cluster) -> None:
    """CREATEROLE and the database are enough; the tables belong to the role nobody logs in as.

    TimescaleDB's extension is one that the owner of a database may create.
    """
    async with cluster.connected(cluster.server.dsn()) as connection:
        await connection.execute("CREATE ROLE builder LOGIN CREATEROLE")
        await connection.execute("CREATE DATABASE built OWNER builder")
    dsn = cluster.server.dsn("builder", "built")
    await database.init(dsn)
    async with cluster.connected(dsn) as connection:
        owners = await connection.fetch(
            "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('public', 'admin')"
        )
        flavour = await connection.fetchval("SELECT flavour FROM plc_settings")
    assert [row[0] for row in owners] == ["plc_owner"]
    assert flavour == cluster.flavour


async def test_status_of_a_fresh_database(db: Database) -> None:
    """After `db init` nothing is wrong, in the eyes of `db status` and of the database itself."""
    status = await database.status(db.owner_dsn)
    assert status.flavour == db.cluster.flavour
    assert {file.state for file in status.files} == {"applied"}
    assert not [check for check in status.health if check.problem]
    assert status.health
    assert not status.problems


# --- address maps --------------------------------------------------------------------------------

MAP = [
    {"site": "A1", "line": "L1", "device": "PUMP01", "tag": "PRESS", "hi": "10"},
    {"site": "A1", "line": "L1", "device": "PUMP01", "tag": "온도", "unit": "°C"},
]
RECORD = "SELECT admin.record_map($1, 'kim', $2, $3)"


async def test_a_map_is_recorded_once_and_whole(db: Database) -> None:
    """Each map has a version with all its columns; the one that an agent has already adds none."""
    text = json.dumps(MAP)
    versions = []
    for sha256, agent_id in (
        ("a" * 64, "edge-1"), ("a" * 64, "edge-1"), ("b" * 64, "edge-1"),
        ("b" * 64, "edge-2"), ("a" * 64, "edge-1"),
    ):  # fmt: skip
        versions.append((await db.query(RECORD, sha256, agent_id, text, user="agent"))[0][0])
    first, again, *others = versions
    assert again == first
    assert len({first, *others}) == 4, "another map, another agent, and a map that comes back"
    assert others == sorted(others)
    rows = await db.query(
        "SELECT line, tag, columns FROM admin.address_map WHERE version = $1 ORDER BY row_number",
        first,
        user="reader",
    )
    assert [json.loads(row["columns"]) for row in rows] == MAP
    assert [row["tag"] for row in rows] == ["PRESS", "온도"]
    (version,) = await db.query(
        "SELECT sha256, author, agent_id, row_count FROM admin.address_map_version"
        " WHERE version = $1",
        first,
        user="reader",
    )
    assert tuple(version) == ("a" * 64, "kim", "edge-1", 2)


@pytest.mark.parametrize(
    ("sha256", "rows"),
    [
        ("short", MAP),
        ("c" * 64, [{"site": "A1", "line": "", "device": "D"}]),
        ("c" * 64, MAP[:1] * 2),
        ("c" * 64, {"site": "A1"}),
    ],
)
async def test_what_is_no_map_is_not_recorded(db: Database, sha256: str, rows: object) -> None:
    """A checksum that is none, a row without a key, a tag that comes twice, no list at all."""
    with pytest.raises(asyncpg.PostgresError):
        await db.query(RECORD, sha256, "edge-1", json.dumps(rows), user="agent")
    assert not await db.query("SELECT FROM admin.address_map_version")
