"""`init.sql` in psql, and the queries of the Grafana dashboard, on a real PostgreSQL server."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path

import pytest

from edge_agent.generate.files import prepare, write
from edge_agent.generate.grafana import render_dashboard
from edge_agent.postgres import database
from edge_agent.settings import PostgresSettings
from tests.integration.generated import make_subject, nasty_tags
from tests.integration.plc_database import Cluster, Database
from tests.servers import postgres_binaries

TIMEOUT_S = 120
_numbers = itertools.count(1)


@pytest.fixture
async def empty(cluster: Cluster) -> Database:
    """A database without any schema."""
    name = f"empty_{next(_numbers)}"
    async with cluster.connected(cluster.server.dsn()) as connection:
        await connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    return Database(cluster, name)


def psql(dsn: str, path: Path) -> str:
    """Run a file as a person would; everything that is said."""
    program = str(postgres_binaries() / "psql")
    command = [program, "-X", "-v", "ON_ERROR_STOP=1", "-d", dsn, "-f", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("file", ["init.sql", "of the flavour"])
async def test_psql_makes_what_db_init_would(empty: Database, tmp_path: Path, file: str) -> None:
    """The schema stands, `db init` finds nothing to do, the map is recorded; twice the same."""
    flavour = empty.cluster.flavour
    tags = nasty_tags()
    subject = make_subject(tmp_path, tags, {"postgres.raw_days": 33})
    write(prepare(subject, tmp_path / "out"), tmp_path / "out")
    path = tmp_path / "out" / (file if file == "init.sql" else f"init-{flavour}.sql")
    for _ in range(2):
        assert psql(empty.owner_dsn, path) == ""
    settings = PostgresSettings(raw_days=33)
    state = await database.status(empty.owner_dsn, settings=settings)
    assert state.flavour == flavour
    assert {one.state for one in state.files} == {"applied"}
    assert state.settings["raw_days"] == 33
    assert state.differing == {}
    report = await database.init(empty.owner_dsn, settings=settings)
    assert report.applied == ()
    versions = await empty.query(
        "SELECT sha256, agent_id, row_count FROM admin.address_map_version"
    )
    assert [tuple(row) for row in versions] == [(subject.found.sha256, "edge-01", len(tags))]
    rows = await empty.query(
        "SELECT site, line, device, tag, columns FROM admin.address_map ORDER BY row_number"
    )
    assert [tuple(row)[:4] for row in rows] == [t[:4] for t in (tag.series for tag in tags)]
    columns = json.loads(rows[1]["columns"])
    assert (columns["scale"], columns["offset"], columns["unit"]) == ("0.1", "-40", "°C")


async def test_a_later_map_is_one_more_version(empty: Database, tmp_path: Path) -> None:
    """Applied over the one before, to a database that has rows."""
    for count in (5, 6):
        subject = make_subject(tmp_path, nasty_tags()[:count])
        write(prepare(subject, tmp_path / "out"), tmp_path / "out")
        psql(empty.owner_dsn, tmp_path / "out" / "init.sql")
    counted = await empty.query("SELECT row_count FROM admin.address_map_version ORDER BY version")
    assert [row[0] for row in counted] == [5, 6]


async def test_every_panel_shows_its_devices_minutes(cluster: Cluster, tmp_path: Path) -> None:
    """Each query, with Grafana's macro filled in, gives the device's tags and no others."""
    tags = nasty_tags()
    base = Database(cluster, await cluster.fresh())
    async with cluster.connected(base.owner_dsn) as connection:
        for tag in tags:
            await connection.execute("SET ROLE plc_owner")
            await connection.execute(
                "SELECT plc_make_partitions(ARRAY[extract(epoch FROM now())::bigint / 86400])"
            )
            await connection.execute(
                "INSERT INTO plc_raw (ts, site, line, device, tag, value, unit)"
                " VALUES (date_trunc('minute', now()), $1, $2, $3, $4, 21.5, $5)",
                *tag.series,
            )
    await base.execute("CALL plc_refresh(now() - interval '1 hour', now() + interval '1 hour')")
    dashboard = json.loads(render_dashboard(make_subject(tmp_path, tags)).text)
    rows = dashboard["panels"]
    panels = [panel for row in rows for panel in (row, *row.get("panels", ()))]
    shown = set()
    for panel in panels:
        for target in panel.get("targets", ()):
            sql = target["rawSql"]
            assert sql.count("$") == 1, "Grafana would take it for a variable"
            assert "[[" not in sql
            assert "\\n" not in sql
            found = await base.query(
                sql.replace("$__timeFilter(bucket)", "bucket > now() - interval '2 hours'"),
                user="reader",
            )
            shown |= {(panel["title"], row["metric"], row["value"]) for row in found}
    assert shown == {(tag.device, tag.tag, 21.5) for tag in tags}
