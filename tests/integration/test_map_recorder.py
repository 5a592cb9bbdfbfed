"""Versions of the address map on their way into a real database."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from edge_agent.address_map import COLUMNS_VERSION
from edge_agent.address_map.writer import to_csv
from edge_agent.model import Tag
from edge_agent.pipeline.map_recorder import MapRecorder
from edge_agent.postgres.database import Upkeep
from edge_agent.reload.map_versions import MapVersions, Version
from tests.integration.plc_database import Database
from tests.integration.test_agent import make_tag
from tests.servers import free_port

PUMP, TANK = make_tag("PRESS", 1, hi=9.5), make_tag("수위", 2, device="탱크07", unit="")
FOUND = (
    "SELECT v.author, v.agent_id, v.sha256, array_agg(m.device || '/' || m.tag ORDER BY row_number)"
    " FROM admin.address_map_version AS v JOIN admin.address_map AS m USING (version)"
    " GROUP BY version ORDER BY version"
)


def add(versions: MapVersions, author: str, *tags: Tag) -> bytes:
    """One more version."""
    data = to_csv(tags)
    newest = versions.newest
    number = 1 if newest is None else newest.version + 1
    digest = hashlib.sha256(data).hexdigest()
    versions.add(Version(number, digest, 0, author, "file", len(tags), COLUMNS_VERSION), data)
    return data


def recorder(versions: MapVersions, folder: Path, dsn: str) -> MapRecorder:
    upkeep = Upkeep(agent_id="edge-1", dsn=dsn)
    return MapRecorder(versions, upkeep.record_map, folder)


async def test_every_version_arrives_once_and_in_order(db: Database, tmp_path: Path) -> None:
    """With its author and rows; also those of before the start, and none twice after it."""
    versions = MapVersions(tmp_path)
    first = add(versions, "kim", PUMP)
    add(versions, "lee", PUMP, TANK)
    await recorder(versions, tmp_path, db.dsn()).round()
    add(versions, "park", PUMP)
    for _ in range(2):  # as after a restart
        again = MapVersions(tmp_path)
        again.load()
        made = recorder(again, tmp_path, db.dsn())
        await made.round()
        await made.round()
    found = [tuple(row) for row in await db.query(FOUND)]
    assert [row[0] for row in found] == ["kim", "lee", "park"]
    assert [row[3] for row in found] == [
        ["PUMP01/PRESS"], ["PUMP01/PRESS", "탱크07/수위"], ["PUMP01/PRESS"],
    ]  # fmt: skip
    assert found[0][1:3] == ("edge-1", hashlib.sha256(first).hexdigest())
    [(columns,)] = await db.query("SELECT columns FROM admin.address_map LIMIT 1")
    assert json.loads(columns)["hi"] == "9.5"


async def test_a_database_that_is_away_gets_them_later(
    db: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and nothing is left out."""
    versions = MapVersions(tmp_path)
    add(versions, "kim", PUMP)
    away = recorder(versions, tmp_path, f"postgresql://agent@127.0.0.1:{free_port()}/none")
    with caplog.at_level(logging.INFO):
        for number in range(3):
            add(versions, "lee", replace(PUMP, hi=float(number)))
            await away.round()
    assert len(caplog.records) == 1
    assert "not in the database yet" in caplog.text
    await recorder(versions, tmp_path, db.dsn()).round()
    assert len(await db.query(FOUND)) == 4


async def test_a_damaged_version_is_left_out(
    db: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others arrive all the same."""
    versions = MapVersions(tmp_path)
    for author in ("kim", "lee", "park"):
        add(versions, author, replace(PUMP, description=author))
    (tmp_path / "maps" / "000002.map").write_bytes(b"damaged")
    with caplog.at_level(logging.INFO):
        await recorder(versions, tmp_path, db.dsn()).round()
    assert [row[0] for row in await db.query(FOUND)] == ["kim", "park"]
    assert "version 2" in caplog.text
