"""The part of SQLite's write-ahead log that the journal reads by itself. Pure.

Source: "Database File Format", section 4, and "WAL-mode File Format", section 2.1 (the index).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
_MAGIC = (0x377F0682, 0x377F0683)
_SALTS = slice(16, 24)
_INDEX_FRAMES = struct.Struct("=I")
_INDEX_FRAMES_AT = 16


def commits(
    data: bytes, page_bytes: int, *, has_holes: bool = False
) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Every commit of a WAL's present generation: its last frame's number, and its pages.

    Frames are told by their salts alone, so that a damaged frame does not hide those after it. With
    holes the frame that ends a commit may be in one: then its other pages are its end, the next
    commit's are taken for its own, and what has a page anew is another commit in any case.
    """
    if len(data) < HEADER_BYTES:
        return
    frame_bytes = FRAME_HEADER_BYTES + page_bytes
    starts = range(HEADER_BYTES, len(data) - frame_bytes + 1, frame_bytes)
    salts = data[_SALTS] if _sound(data) else _first_salts(data, starts)
    pages: dict[int, bytes] = {}
    number = 0
    for number, at in enumerate(starts, start=1):
        page, pages_after_commit = struct.unpack_from(">II", data, at)
        if not page or data[at + 8 : at + 16] != salts:
            continue
        if has_holes and page in pages:
            yield number - 1, pages
            pages = {}
        pages[page] = data[at + FRAME_HEADER_BYTES : at + frame_bytes]
        if pages_after_commit:
            yield number, pages
            pages = {}
    if pages and has_holes:
        yield number, pages


def damaged(data: bytes, page_bytes: int, index: bytes) -> bool:
    """Whether a WAL holds more than SQLite has understood of it, as its index tells.

    SQLite stops at the first frame that does not fit, forgets all after it and says nothing.
    """
    if len(data) < HEADER_BYTES + FRAME_HEADER_BYTES + page_bytes:
        return False
    if not _sound(data):
        return True
    understood: int = _INDEX_FRAMES.unpack_from(index, _INDEX_FRAMES_AT)[0]
    return max((number for number, _ in commits(data, page_bytes)), default=0) > understood


def _first_salts(data: bytes, frames: range) -> bytes:
    """Those of the first frame whose header is readable: the present generation comes first."""
    return next((data[at + 8 : at + 16] for at in frames if any(data[at : at + 4])), b"")


def _sound(data: bytes) -> bool:
    """Whether a WAL's header fits its own checksum."""
    magic: int = struct.unpack_from(">I", data)[0]
    if magic not in _MAGIC:
        return False
    order = ">" if magic & 1 else "<"
    words: tuple[int, ...] = struct.unpack_from(f"{order}6I", data)
    one = two = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        one = (one + even + two) & 0xFFFFFFFF
        two = (two + odd + one) & 0xFFFFFFFF
    return data[24:32] == struct.pack(">II", one, two)
