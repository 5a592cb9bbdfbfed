"""The running address map: how another one takes its place, and what became of those before.

The file is the truth: whoever edits it, uploads another one or goes back to an older version
changes the file, and what is in the file is applied. Three ways lead here: the file is watched; a
signal or a command asks for a look at once; the control interface (control.py) writes the file
first.

**A file is taken when nobody is at it.** Editors write in place, by renaming, or in several steps;
a copy over a slow link grows for a while. So a change counts only when the file has stayed the same
for ``SETTLE_S``. If less is in it than the running map has (rows are gone, or the last line has no
end), it may be a copy that stands still: it has to stay the same for ``SETTLE_LONG_S``. Who asks
by a signal or a command says that the file is done.

**Nobody's edit is overwritten.** The control interface writes over a file that has been looked at
and not over one that somebody has just changed; if it was refused, that one is kept beside it.

**A file that is wrong changes nothing.** What was running goes on; the problems are in the log
once, in the status, in the metrics and on the dashboard, until the file is right.

**An applied map is a version** (map_versions.py), written before the reload is said to be done.
What the agent starts with is one too, if it is not the newest.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from pwd import getpwuid
from typing import Final

from edge_agent import address_map, protocols
from edge_agent.address_map import COLUMNS_VERSION, AddressMap, MapError, Problem
from edge_agent.errors import ConfigError, TransientError
from edge_agent.files import replace_file
from edge_agent.planner import Connection, plan
from edge_agent.reload.difference import Difference, difference
from edge_agent.reload.map_versions import MapVersions, Version
from edge_agent.waiting import happens

log = logging.getLogger(__name__)

LOOK_INTERVAL_S: Final = 0.25
SETTLE_S: Final = 0.75
"""An editor's steps follow each other faster."""
SETTLE_LONG_S: Final = 2.5
"""A copy that is slower than this between two writes is taken for a finished file."""


class ConflictError(ConfigError):
    """Another map has been applied since its author has looked, or is about to be."""


Apply = Callable[[AddressMap, Sequence[Connection]], Awaitable[None]]
"""Make another map the running one."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why the file is not what runs. ``problems`` are empty where the whole file is meant."""

    text: str
    problems: Sequence[Problem]
    since_ms: int


@dataclass(frozen=True, slots=True)
class Applied:
    """What a reload came to. ``version`` is None where it could not be kept."""

    difference: Difference
    version: Version | None
    is_written: bool = False
    """Whether the file has another content than before."""


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What tells one state of a file from another without opening it."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


_UNSEEN: Final = _Stamp(0, 0, 0, 0)


class Reloader:
    """Keeps the running map and the file the same."""

    def __init__(
        self,
        loaded: AddressMap,
        versions: MapVersions,
        apply: Apply,
        *,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self.running = loaded
        self.versions = versions
        self.refused: Refused | None = None
        """Why the file is not what runs; None if it is."""
        self.results: Counter[str] = Counter(applied=0, refused=0)
        """What came of looks at a file that had changed."""
        self._apply = apply
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._seen: _Stamp | None = _UNSEEN
        self._wanted = asyncio.Event()
        self._is_ending = False

    @property
    def path(self) -> Path:
        """The file."""
        return self.running.path

    def start(self) -> None:
        """Note the map that the agent starts with. Never raises: data comes before books."""
        try:
            self.versions.load()
            stamp, data = _stamp(self.path), self.path.read_bytes()
            if hashlib.sha256(data).hexdigest() != self.running.sha256:
                return  # it was changed since it was read; `run` will see that
            self._seen = stamp
            newest = self.versions.newest
            if newest is None or newest.sha256 != self.running.sha256:
                self._keep(self.running, Difference((), (), ()), _owner(self.path), "start", data)
        except (OSError, TransientError) as error:
            log.warning("the map's version could not be kept: %s", error)

    def end(self) -> None:
        """Take no other map from now on: what ends would begin what nobody stops."""
        self._is_ending = True

    def look(self) -> None:
        """Look at the file now; for a signal."""
        self._wanted.set()

    async def run(self) -> None:
        """Watch the file for ever. Ends only by cancellation."""
        found, since, is_part = self._seen, self._monotonic(), True
        while True:
            await happens(self._wanted, LOOK_INTERVAL_S)
            asked = self._wanted.is_set()
            self._wanted.clear()
            stamp = _stamp(self.path)
            if stamp != found:
                found, since, is_part = stamp, self._monotonic(), True
            quiet_s = self._monotonic() - since
            if stamp != self._seen and stamp is not None and is_part and quiet_s >= SETTLE_S:
                is_part = await asyncio.to_thread(_may_be_a_part, self.path, self.running)
            settled = quiet_s >= SETTLE_LONG_S or not is_part
            if asked or (stamp != self._seen and settled):
                with suppress(ConfigError):  # told by `_refuse`
                    await self.reload(_owner(self.path))

    async def reload(self, author: str, how: str = "file") -> Applied:
        """Apply what is in the file now. Raises ``MapError``; then nothing has changed."""
        async with self._lock:
            self._check_goes_on()
            return await self._reload(author, how)

    async def put(self, data: bytes, author: str, how: str, *, over: str = "") -> Applied:
        """Check a map, write it into the file and apply it.

        ``over`` is the hash of the map that the author has seen running; another one refuses, and
        so does an edit of the file that has not been looked at. The file stays as it is unless the
        map is valid. Raises ``ConfigError`` (as ``MapError`` with the map's own problems),
        ``TransientError`` if the file can't be written.
        """
        async with self._lock:
            self._check_goes_on()
            if over and over != self.running.sha256:
                raise ConflictError(
                    "another map has been applied meanwhile",
                    hint="look at the difference to the running one again",
                )
            await self.check(data)
            try:
                is_written = await asyncio.to_thread(self._write, data)
            except OSError as error:
                raise TransientError(
                    f"{self.path}: can't be written: {error.strerror}",
                    hint="the agent's user needs the right to write the file and its folder",
                ) from error
            return replace(await self._reload(author, how), is_written=is_written)

    def _check_goes_on(self) -> None:
        if self._is_ending:
            raise TransientError(
                "the agent is ending", hint="after its start it runs what is in the file"
            )

    async def check(self, data: bytes) -> AddressMap:
        """A map out of bytes, which are not written anywhere. Raises ``MapError``."""
        return await asyncio.to_thread(address_map.parse, self.path, data, protocols.load)

    def _write(self, data: bytes) -> bool:
        """Write over a file that was looked at, unless it is the same; whether it was not.

        Raises ``ConflictError`` and ``OSError``.
        """
        if self.path.is_file():
            if _stamp(self.path) != self._seen:
                raise ConflictError(
                    f"{self.path} has just been edited, which would be overwritten",
                    hint="it is looked at within three seconds: then look at the difference again",
                )
            if self.path.stat().st_size == len(data) and self.path.read_bytes() == data:
                return False
            if self.refused is not None:
                kept = _set_aside(self.path)
                log.info("%s: what was in it and could not be applied is in %s", self.path, kept)
        replace_file(self.path, data)
        return True

    async def _reload(self, author: str, how: str) -> Applied:
        self._seen = _stamp(self.path)
        try:
            loaded, data, connections = await asyncio.to_thread(_load, self.path)
        except ConfigError as error:
            self._refuse(error)
            raise
        if self.refused is not None:
            log.info("%s: the file is valid again", self.path)
        self.refused = None
        if loaded.sha256 == self.running.sha256:
            return Applied(Difference((), (), ()), self.versions.newest)
        found = difference(self.running.tags, loaded.tags)
        await self._apply(loaded, connections)
        version = await asyncio.to_thread(self._kept, loaded, found, author, how, data)
        self.running = loaded
        self.results["applied"] += 1
        log.info("%s: applied: %s (by %s, %s)", self.path, found.summary, author, how)
        return Applied(found, version)

    def _refuse(self, error: ConfigError) -> None:
        self.results["refused"] += 1
        problems = tuple(error.problems) if isinstance(error, MapError) else ()
        text = _in_short(self.path, problems) if problems else str(error)
        if self.refused is None or self.refused.text != text:
            log.error("%s; the map that runs stays", text)
        since_ms = self._now_ms() if self.refused is None else self.refused.since_ms
        self.refused = Refused(text, problems, since_ms)

    def _kept(
        self, loaded: AddressMap, found: Difference, author: str, how: str, data: bytes
    ) -> Version | None:
        try:
            return self._keep(loaded, found, author, how, data)
        except TransientError as error:
            log.warning("the map's version could not be kept: %s", error)
            return None

    def _keep(
        self, loaded: AddressMap, found: Difference, author: str, how: str, data: bytes
    ) -> Version:
        if not self.versions.is_known:
            self.versions.load()
        newest = self.versions.newest
        version = Version(
            version=1 if newest is None else newest.version + 1,
            sha256=loaded.sha256,
            applied_at_ms=self._now_ms(),
            author=author,
            how=how,
            tags=len(loaded.tags),
            columns_version=COLUMNS_VERSION,
            added=len(found.added),
            changed=len(found.changed),
            removed=len(found.removed),
        )
        self.versions.add(version, data)
        return version


def refused_file(path: Path) -> Path:
    """Where the last map is kept that was in the file, was wrong, and made room for another."""
    return path.with_name(f"{path.name}.refused")


def _set_aside(path: Path) -> Path:
    """Keep a file of any size beside itself, by a second name where that can be."""
    kept, path = refused_file(path), path.resolve()
    try:
        kept.unlink(missing_ok=True)
        kept.hardlink_to(path)
    except OSError:  # another file system, or one without links
        replace_file(kept, path.read_bytes())
    return kept


def _load(path: Path) -> tuple[AddressMap, bytes, Sequence[Connection]]:
    """A map, the file's bytes and the plan. Raises ``ConfigError``."""
    data = address_map.read_bytes(path)
    loaded = address_map.parse(path, data, protocols.load)
    return loaded, data, plan(loaded.tags, protocols.load)


def _in_short(path: Path, problems: Sequence[Problem]) -> str:
    """One line; the others are told where there is room for them."""
    first, more = problems[0], len(problems) - 1
    others = f" (and {more} more: edge-agent check --map {path})" if more else ""
    return f"{path}: {first}{others}"


def _stamp(path: Path) -> _Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _Stamp(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _may_be_a_part(path: Path, running: AddressMap) -> bool:
    """Whether a file may be the beginning of one: less is in it than runs, or it has no end."""
    try:
        data = address_map.read_bytes(path)
        tags = address_map.parse(path, data, None).tags
    except MapError:
        return True
    has_end = data.endswith((b"\n", b"\r")) or data.startswith(b"PK")
    return not has_end or len(tags) < len(running.tags)


def _owner(path: Path) -> str:
    """Who owns the file, as far as the machine knows."""
    try:
        owner = path.stat().st_uid
    except OSError:
        return "unknown"
    try:
        return getpwuid(owner).pw_name
    except KeyError:
        return f"uid {owner}"
