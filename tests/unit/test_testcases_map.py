"""A bug report about an address map becomes a folder: tests/testcases/map_*/.

Each holds `address_map.csv` or `address_map.xlsx`, and either `expected.json` (the tags, without
fields at their defaults) or `error.txt` (one problem a line).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from edge_agent import protocols
from edge_agent.address_map import MapError, load
from edge_agent.model import Tag

FOLDERS = sorted((Path(__file__).parents[1] / "testcases").glob("map_*"))


def plain(tag: Tag) -> dict[str, object]:
    """A tag as data, without the fields that are at their defaults."""
    return {
        field.name: value
        for field in dataclasses.fields(tag)
        if (value := getattr(tag, field.name)) != field.default
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_map(folder: Path) -> None:
    """The file in the folder gives the tags, or the problems, that stand beside it."""
    (path,) = folder.glob("address_map.*")
    expected = folder / "expected.json"
    if expected.exists():
        assert [plain(tag) for tag in load(path, protocols.load).tags] == json.loads(
            expected.read_text(encoding="utf-8")
        )
        return
    with pytest.raises(MapError) as caught:
        load(path, protocols.load)
    found = [str(problem) for problem in caught.value.problems]
    assert found == (folder / "error.txt").read_text(encoding="utf-8").splitlines()


def test_there_are_cases() -> None:
    """The folder is found, and every case says what is expected of it."""
    assert len(FOLDERS) >= 10
    for folder in FOLDERS:
        assert (folder / "expected.json").exists() != (folder / "error.txt").exists(), folder
