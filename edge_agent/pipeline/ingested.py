"""Which series came in by MQTT, and a sink that does not publish them again.

The broker has their messages: `Unpublished`, around the MQTT sink, counts them as delivered already
and hands on the others, so that the journal's books balance as ever.

Which series they are must survive a restart, since the journal may hold some for a sink that was
away. The journal's own tables stay as they are: the book is a small file beside it, and a series
stands in it, durably, before its first sample is in the journal. A series that the running map
polls is not one of them, whatever the book says.

Who publishes a tag may change, both ways and more than once, while samples wait for the broker:

* It was ours, and another publisher takes it over: the book has the journal entry from which on it
  is the other's. Entries before it are published. A journal that is salvaged keeps the numbers of
  its entries, so that this holds there too. A journal that was begun anew has none of ours, and low
  numbers: so at each start the book is told which journal it is, and where it goes on
  (`Ingested.continue_in`). Only what waits in memory, not committed yet, while a running journal is
  salvaged, or opened again, is numbered anew: of a series that was taken over just then all of it
  is the other's.
* It was another's, and becomes a row of the map: the book says, durably before the first sample
  that is polled, that it is ours. That holds after the row has left the map too, until a message of
  another publisher comes: only that makes it the other's again. What had come in before and still
  waits is published once more. That is little, since it came from the very broker that it waits
  for, whereas our own may wait for hours: where the two can't be told apart, a message too many is
  better than one that is missing.
"""

from __future__ import annotations

import logging
import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

import orjson

from edge_agent.errors import RejectedRow, RejectedRows, TransientError
from edge_agent.files import append_durably
from edge_agent.model import Batch, Series, TagKey
from edge_agent.sinks.base import JournalIdentity, Sink

log = logging.getLogger(__name__)

INGESTED_FILE: Final = "ingested.jsonl"
_NAMES: Final = len(Series._fields)
_OURS: Final = "ours"


class Since(NamedTuple):
    """From which entry of which journal on a series is another publisher's."""

    journal_id: str = ""
    sequence: int = 0
    """0: it has never been ours."""


NEVER_OURS: Final[Mapping[Series, Since]] = MappingProxyType({})


class Ingested:
    """The book of series that came in by MQTT: what the MQTT sink must not publish.

    What the running map polls, ``polled`` at first and then as `polls` and `polls_only` say, is
    never in it. The file has one JSON list a line, and of a series the last line counts. A line
    that a crash cut short is left out: no sample of it was in the journal yet.

        ["A1","L9","FAN01","SPEED","rpm"]             has never been ours
        ["A1","L9","FAN01","SPEED","rpm","ours"]      is ours by now
        ["A1","L9","FAN01","SPEED","rpm","6f0c",17]   another's from entry 17 of journal 6f0c on

    `add` and `note_polled` may run in threads, also at once; all else belongs to the event loop.
    """

    def __init__(self, path: Path, polled: Iterable[TagKey] = ()) -> None:
        self._path = path
        self._polled = frozenset(polled)
        self._since: dict[Series, Since | None] = {}
        """None: ours by now. Changed by who holds ``_writing``."""
        self._writing = threading.Lock()
        self._unwritten = b""
        """Lines of series that are ours by now, which the disk refused."""
        self._doubted: dict[Series, Since | None] = {}
        """What `add` could not write; some of it may be in the file all the same."""
        self.changes = object()
        """Another one as soon as it may say something else; to be kept before it is asked."""

    def __len__(self) -> int:
        return len(self._since)

    def __contains__(self, series: object) -> bool:
        return isinstance(series, Series) and self.since(series) is not None

    @property
    def series(self) -> AbstractSet[Series]:
        """All that were ever written down, polled ones included."""
        return self._since.keys()

    def since(self, series: Series) -> Since | None:
        """From when on a series is another publisher's; None if it is not."""
        return None if self.is_polled(series.key) else self._since.get(series)

    def is_polled(self, key: tuple[str, ...]) -> bool:
        """Whether the running map has a tag."""
        return key in self._polled

    def polls(self, keys: Iterable[TagKey]) -> None:
        """The map polls these too from now on, which `note_polled` is to write down.

        To be called before the first sample of a new tag.
        """
        self._polled |= frozenset(keys)
        self.changes = object()

    def polls_only(self, keys: Iterable[TagKey]) -> None:
        """Of what it polled, the map polls these only. To be called after the last other sample."""
        self._polled &= frozenset(keys)
        self.changes = object()

    def load(self) -> None:
        """Read the file, if there is one. Raises ``TransientError``."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise TransientError(f"{self._path}: cannot be read: {error.strerror}") from error
        self._since.update(filter(None, map(_parsed, data.splitlines())))

    def add(self, new: Sequence[Series], since: Mapping[Series, Since] = NEVER_OURS) -> None:
        """Write series down; they are on the disk when this returns.

        ``since`` has those that were ours before. What the map has begun to poll meanwhile is
        written down as ours. Raises ``TransientError``.
        """
        if not new:
            return
        with self._writing:
            found = {
                series: None if self.is_polled(series.key) else since.get(series, Since())
                for series in new
            }
            self._doubted.update(found)
            self._write(_lines(found))
            self._hold(found)

    def note_polled(self) -> None:
        """Write down what the map polls by now: it is ours, also when it has left the map.

        To be called before the first sample of a new tag. Never raises: what the disk refuses is
        written with the next change, and holds as long as the agent runs.
        """
        with self._writing:
            ours = [
                series
                for series, since in (self._since | self._doubted).items()
                if since is not None and self.is_polled(series.key)
            ]
            if not ours and not self._unwritten:
                return
            self._note(dict.fromkeys(ours))

    def continue_in(self, journal_id: str, next_sequence: int) -> None:
        """Say of series that once were ours from which entry of this journal on they are not.

        To be called once the journal is open, before it takes anything. Never raises, as
        `note_polled`.
        """
        with self._writing:
            moved: dict[Series, Since | None] = {
                series: Since(journal_id, min(since.sequence, next_sequence))
                for series, since in self._since.items()
                if since is not None and since.sequence and since.journal_id != journal_id
            }
            if moved:
                self._note(moved)

    def _note(self, found: Mapping[Series, Since | None]) -> None:
        """Hold what is so already, and write it down as soon as the disk takes it."""
        self._hold(found)
        self._unwritten += _lines(found)
        try:
            self._write(b"")
        except TransientError as error:
            log.warning("whose ingested series are now is not kept: %s", error)

    def _hold(self, found: Mapping[Series, Since | None]) -> None:
        self._since.update(found)
        for series in found.keys() & self._doubted.keys():
            del self._doubted[series]
        self.changes = object()

    def _write(self, lines: bytes) -> None:
        """Bring lines to the disk, after those that it refused before."""
        lines = self._unwritten + lines
        try:
            append_durably(self._path, lines)
        except OSError as error:
            raise TransientError(f"{self._path}: cannot be written: {error.strerror}") from error
        self._unwritten = b""


def _lines(found: Mapping[Series, Since | None]) -> bytes:
    """What the book says of series, as `_parsed` reads it."""
    return b"".join(
        orjson.dumps([*series, *_said(since)]) + b"\n" for series, since in found.items()
    )


def _said(since: Since | None) -> tuple[object, ...]:
    if since is None:
        return (_OURS,)
    return since if since.sequence else ()


def _parsed(line: bytes) -> tuple[Series, Since | None] | None:
    """What a line of the book says; None if it says nothing."""
    try:
        texts = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(texts, list) or len(texts) < _NAMES:
        return None
    series = Series(*map(str, texts[:_NAMES]))
    match texts[_NAMES:]:
        case [str(journal_id), int(sequence)]:
            return series, Since(journal_id, sequence)
        case [text] if text == _OURS:
            return series, None
        case _:
            return series, Since()


class Unpublished:
    """A sink that is not handed what came from its destination.

    Ingested samples count as delivered before (``duplicates``); all else is the sink's own.
    """

    def __init__(self, sink: Sink, ingested: Ingested) -> None:
        self.name = sink.name
        self._sink = sink
        self._ingested = ingested
        self._hidden: dict[int, int] = {}
        """Series by id, and the entry from which on each is hidden."""
        self._shown: set[int] = set()
        self._changes = ingested.changes
        """The book's when it was looked at."""

    async def open(self, journal: JournalIdentity) -> None:
        """As the sink's own. Ids mean something within one journal only."""
        self._look_again()
        await self._sink.open(journal)

    async def deliver(self, batches: Sequence[Batch]) -> int:
        """As the sink's own, without the ingested samples."""
        parts = [self._part(batch) for batch in batches]
        left_out = sum(map(len, batches)) - sum(len(part.batch) for part in parts)
        places = {part.batch.sequence: part.places for part in parts}
        published = [part.batch for part in parts if len(part.batch)]
        if not published:
            return left_out
        try:
            had = await self._sink.deliver(published)
        except RejectedRows as refusal:
            rows = [_placed(row, places[row.sequence]) for row in refusal.rows]
            raise RejectedRows(rows, duplicates=refusal.duplicates + left_out) from refusal
        return had + left_out

    async def close(self) -> None:
        """As the sink's own."""
        await self._sink.close()

    def _part(self, batch: Batch) -> _Part:
        """What of a batch is to be published."""
        if not self._ingested:
            return _Part(batch, None)
        if self._ingested.changes is not self._changes:
            self._look_again()
        ids = set(batch.series_ids)
        for series_id in ids - self._hidden.keys() - self._shown:
            self._look_at(series_id, batch.series[series_id])
        hidden = {id_ for id_ in ids & self._hidden.keys() if self._hidden[id_] <= batch.sequence}
        if not hidden:
            return _Part(batch, None)
        places = [place for place, id_ in enumerate(batch.series_ids) if id_ not in hidden]
        return _Part(_picked(batch, places), places)

    def _look_again(self) -> None:
        """Another map polls other tags, or others publish other series, or ids are new."""
        self._hidden.clear()
        self._shown.clear()
        self._changes = self._ingested.changes

    def _look_at(self, series_id: int, series: Series) -> None:
        since = self._ingested.since(series)
        if since is None:
            self._shown.add(series_id)
        else:
            self._hidden[series_id] = since.sequence


class _Part(NamedTuple):
    """Some samples of a batch, and where they stand in it; None if it is the whole batch."""

    batch: Batch
    places: Sequence[int] | None


def _placed(row: RejectedRow, places: Sequence[int] | None) -> RejectedRow:
    return row if places is None else replace(row, index=places[row.index])


def _picked(batch: Batch, places: Sequence[int]) -> Batch:
    """The samples at these places, which rise, with their times."""
    runs: list[tuple[int, int]] = []
    end = first = 0
    for ts_ms, count in batch.runs:
        end += count
        last = bisect_left(places, end, first)
        if last > first:
            runs.append((ts_ms, last - first))
        first = last
    return replace(
        batch,
        runs=runs,
        series_ids=array("I", [batch.series_ids[place] for place in places]),
        values=array("d", [batch.values[place] for place in places]),
    )
