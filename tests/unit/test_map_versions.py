"""The versions of the address map on the disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edge_agent.errors import ConfigError, TransientError
from edge_agent.reload import map_versions
from edge_agent.reload.map_versions import MapVersions, Version


def add(versions: MapVersions, number: int) -> bytes:
    data = f"map {number}".encode()
    digest = hashlib.sha256(data).hexdigest()
    versions.add(Version(number, digest, 1000 + number, "김", "file", 3, 1, added=number), data)
    return data


def loaded(folder: Path) -> MapVersions:
    versions = MapVersions(folder)
    versions.load()
    return versions


def test_versions_outlive_the_agent(tmp_path: Path) -> None:
    """To the byte, and with all that is said of them."""
    versions = MapVersions(tmp_path)
    files = {number: add(versions, number) for number in (1, 2, 3)}
    again = loaded(tmp_path)
    assert again.all == versions.all
    assert {number: again.data(number) for number in files} == files
    assert again.newest == versions.get(3)


def test_none_yet(tmp_path: Path) -> None:
    """No folder, no version; what is asked for says so."""
    versions = loaded(tmp_path)
    assert versions.newest is None
    with pytest.raises(ConfigError, match="no version 1 of the map; there are none"):
        versions.get(1)


def test_a_list_that_could_not_be_read_is_not_begun_anew(tmp_path: Path) -> None:
    """Else its first version would be overwritten by the next one."""
    add(MapVersions(tmp_path), 1)
    index = tmp_path / "maps" / "versions.jsonl"
    index.rename(index.with_suffix(".kept"))
    index.mkdir()
    versions = MapVersions(tmp_path)
    with pytest.raises(TransientError, match="can't be read"):
        versions.load()
    for number in (1, 2):
        with pytest.raises(TransientError, match="may be there already"):
            add(versions, number)
    index.rmdir()
    index.with_suffix(".kept").rename(index)
    versions.load()
    with pytest.raises(TransientError, match="may be there already"):
        add(versions, 1)
    add(versions, 2)
    assert [one.version for one in loaded(tmp_path).all] == [1, 2]
    assert loaded(tmp_path).data(1) == b"map 1"


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path, cut: int) -> None:
    """As a power cut leaves it; the next version is whole."""
    versions = MapVersions(tmp_path)
    add(versions, 1)
    add(versions, 2)
    index = tmp_path / "maps" / "versions.jsonl"
    index.write_bytes(index.read_bytes()[:-cut])
    again = loaded(tmp_path)
    assert [one.version for one in again.all] == ([1] if cut > 1 else [1, 2])
    add(again, 3)
    assert [one.version for one in loaded(tmp_path).all][-1] == 3


@pytest.mark.parametrize(
    "line", [b"[]", b"3", b'{"version": 1}', b"\xff", b'{"version": "1"}', b"null"]
)
def test_a_line_that_is_something_else_is_left_out(tmp_path: Path, line: bytes) -> None:
    """Whoever wrote it."""
    add(MapVersions(tmp_path), 1)
    with (tmp_path / "maps" / "versions.jsonl").open("ab") as file:
        file.write(line + b"\n")
    assert [one.version for one in loaded(tmp_path).all] == [1]


def test_a_file_that_was_changed_is_not_handed_out(tmp_path: Path) -> None:
    """Its hash says so; one that is gone is named."""
    versions = MapVersions(tmp_path)
    add(versions, 1)
    path = tmp_path / "maps" / "000001.map"
    path.write_bytes(b"other")
    with pytest.raises(ConfigError, match="was changed or is damaged"):
        versions.data(1)
    path.unlink()
    with pytest.raises(ConfigError, match="No such file"):
        versions.data(1)


def test_the_oldest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its file; the numbers go on."""
    monkeypatch.setattr(map_versions, "VERSIONS_MAX", 3)
    versions = MapVersions(tmp_path)
    for number in range(1, 6):
        add(versions, number)
    assert [one.version for one in loaded(tmp_path).all] == [3, 4, 5]
    left = sorted(path.name for path in (tmp_path / "maps").glob("*.map"))
    assert left == ["000003.map", "000004.map", "000005.map"]
    with pytest.raises(ConfigError, match="there are 3 to 5"):
        versions.get(1)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """It is an error of its own, and no version."""
    (tmp_path / "maps").write_text("a file in the way")
    versions = MapVersions(tmp_path)
    with pytest.raises(TransientError, match="can't be written"):
        add(versions, 1)
    assert versions.newest is None
