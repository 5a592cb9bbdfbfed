"""A file of another system and the map that comes of it: tests/testcases/import_*/.

Each folder holds `source.*`, `address_map.csv` (what is written) and `report.txt` (a finding a
line), and `options.txt` if the command had options.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from edge_agent import cli, protocols
from edge_agent.address_map import load
from edge_agent.importers import KINDS, Defaults, convert

FOLDERS = sorted((Path(__file__).parents[1] / "testcases").glob("import_*"))


def source_of(folder: Path) -> Path:
    """The other system's file."""
    (path,) = folder.glob("source.*")
    return path


def options_of(folder: Path) -> list[str]:
    """The words that stood behind the file's name."""
    path = folder / "options.txt"
    return shlex.split(path.read_text(encoding="utf-8")) if path.exists() else []


def kind_in(folder: Path) -> str:
    """The kind that a folder's name says."""
    return folder.name.split("_")[1]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_import(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command writes the map and the report that stand beside the file."""
    out = tmp_path / "address_map.csv"
    words = ["import", str(source_of(folder)), "--out", str(out), "--json", *options_of(folder)]
    assert cli.main(words) == 0
    report = json.loads(capsys.readouterr().out)
    found = [
        f"{finding['place'] or 'line ' + str(finding['line'])}: {finding['what']}:"
        f" {finding['outcome']}: {finding['reason']}"
        for finding in report["findings"]
    ]
    assert found == (folder / "report.txt").read_text(encoding="utf-8").splitlines()
    assert out.read_text(encoding="utf-8") == (folder / "address_map.csv").read_text("utf-8")
    assert report["kind"] == kind_in(folder)
    assert report["rows"] == len(load(out, protocols.load).tags)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_written_map_is_what_was_made(folder: Path) -> None:
    """Loading the expected map, with every protocol's own check, gives the importer's tags."""
    defaults = defaults_of(options_of(folder))
    imported = convert(source_of(folder).read_bytes(), defaults, protocols.load)
    assert imported.tags
    assert load(folder / "address_map.csv", protocols.load).tags == imported.tags


def defaults_of(words: list[str]) -> Defaults:
    """The options that stand in the folders, as the importers take them."""
    pairs = list(zip(words[::2], words[1::2], strict=True))
    given = dict(pairs)
    conns = [conn.partition("=") for option, conn in pairs if option == "--conn"]
    named = {name: conn for name, _, conn in conns if "://" not in name}
    plain = [name + equals + conn for name, equals, conn in conns if "://" in name]
    unit_id, period_ms = given.get("--unit-id"), given.get("--period-ms")
    return Defaults(
        given.get("--site", ""),
        given.get("--line", ""),
        given.get("--device", ""),
        "source",
        plain[0] if plain else "",
        named,
        None if unit_id is None else int(unit_id),
        None if period_ms is None else int(period_ms),
    )


def test_there_are_cases_of_each_kind() -> None:
    """Two files of each system at least."""
    kinds = [kind_in(folder) for folder in FOLDERS]
    assert set(kinds) == set(KINDS)
    assert all(kinds.count(kind) >= 2 for kind in KINDS)
