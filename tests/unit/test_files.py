"""Files that are written whole."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from edge_agent.files import SmallFile, append_durably, replace_file


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_replacing_follows_a_link_and_keeps_the_permissions(tmp_path: Path) -> None:
    """Who shares a file by a link, or has opened it to a group, finds it as it was."""
    path, link = tmp_path / "a.csv", tmp_path / "link.csv"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path.name)
    replace_file(link, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert link.is_symlink()
    assert names(tmp_path) == ["a.csv", "link.csv"]


def test_replacing_with_a_mode(tmp_path: Path) -> None:
    """A secret is for its owner only, whatever the file before it was."""
    path = tmp_path / "users"
    path.write_bytes(b"old")
    path.chmod(0o644)
    replace_file(path, b"new", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_mode_holds_whatever_the_umask_takes_away(tmp_path: Path) -> None:
    """A group that is to read a file can."""
    path = tmp_path / "users"
    before = os.umask(0o077)
    try:
        replace_file(path, b"new", mode=0o640)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    """And nothing is left beside it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "kept").touch()
    with pytest.raises(OSError, match="folder"):
        replace_file(folder, b"new")
    assert names(tmp_path) == ["folder"]
    assert names(folder) == ["kept"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, b"new\n"),
        (b"", b"new\n"),
        (b"one\n", b"one\nnew\n"),
        (b"one\ntw", b"one\ntw\nnew\n"),
    ],
)
def test_a_line_is_added(tmp_path: Path, before: bytes | None, after: bytes) -> None:
    """A line that was cut short swallows nothing."""
    path = tmp_path / "lines"
    if before is not None:
        path.write_bytes(before)
    append_durably(path, b"new\n")
    assert path.read_bytes() == after


def test_a_small_file_that_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It raises nothing, and writes again when it can."""
    folder = tmp_path / "folder"
    file = SmallFile(folder / "small.json", "it is not kept")
    with caplog.at_level(logging.WARNING):
        file.write(b"1")
        file.write(b"2")
    assert [record.getMessage() for record in caplog.records] == [
        f"it is not kept: [Errno 2] {os.strerror(2)}: '{folder / 'small.tmp'}'"
    ]
    folder.mkdir()
    file.write(b"3")
    assert (folder / "small.json").read_bytes() == b"3"
    assert names(folder) == ["small.json"]
