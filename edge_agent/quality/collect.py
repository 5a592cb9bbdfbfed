"""The figures of many tags out of one source, in reads of bounded size.

Tags of a device are read a few at a time, window by window; each window is folded before the next
one is asked for. Which windows these are makes no difference to a figure.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple, Protocol, TypeAlias

from edge_agent.clock import DAY_MS, HOUR_MS, MINUTE_MS
from edge_agent.errors import TransientError
from edge_agent.model import TagKey
from edge_agent.quality.figures import Expectation, Figures, Fold, Minutes

SAMPLES_PER_READ: Final = 100_000
"""As many as are expected of a read: 10 MB while the store merges them. A tag that comes faster
than the map says, or that no map describes, may bring more, but never more than an hour of it."""
TAGS_PER_READ: Final = 100
"""One seek per tag and minute in the store, one per tag in a database."""
PERIOD_UNKNOWN_MS: Final = 1_000
"""Of a tag that no map describes, for the size of a read only: most tags are read once a second or
less often."""

Columns: TypeAlias = "tuple[array[int], array[float]]"
"""Times (int64, ms since 1970 UTC) and values (float64) in step with each other, by time."""
Progress = Callable[[int, int], None]
"""Is told how many reads of how many are done."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A tag whose data is to be judged."""

    key: TagKey
    expectation: Expectation
    unit: str = ""


class Kept(NamedTuple):
    """Since when a source has samples, and since when it has anything at all, minutes included.

    0 where nothing is missing at the beginning of the range that was asked for.
    """

    samples_from_ms: int
    begins_ms: int


class Source(Protocol):
    """Where samples are read. Every call raises ``TransientError`` while it is away.

    Times are milliseconds since 1970 UTC; ranges include their start and exclude their end. Where a
    tag's line or unit changed, its series are taken together. A tag without any is left out.
    """

    name: str
    """`store`, `edge` or `remote`."""

    async def close(self) -> None:
        """Give back what was opened; never raises."""

    async def tags(self, start_ms: int, end_ms: int) -> set[TagKey]:
        """Every tag that has samples in the hours that the range touches."""

    async def kept(self, start_ms: int) -> Kept:
        """What a range that begins then can be judged by."""

    async def samples(
        self, site: str, device: str, tags: Collection[str], start_ms: int, end_ms: int
    ) -> Mapping[str, Columns]:
        """Every sample in the range."""

    async def minutes(
        self, site: str, device: str, tags: Collection[str], start_ms: int, end_ms: int
    ) -> Mapping[str, Minutes]:
        """Every minute that starts in the range and has samples."""


@dataclass(frozen=True, slots=True)
class Collected:
    """The figures of every subject, in the order of the subjects.

    ``start_ms`` is later than asked for where the source begins later: what it never had can't be
    judged. Before ``samples_from_ms`` figures are made of minutes.
    """

    start_ms: int
    end_ms: int
    samples_from_ms: int
    figures: Sequence[Figures]

    @property
    def has_minutes(self) -> bool:
        """Whether some of the samples have expired."""
        return self.samples_from_ms > self.start_ms


@dataclass(frozen=True, slots=True)
class _Read:
    """One question to the source: a window of some of a device's tags."""

    places: Sequence[int]
    start_ms: int
    end_ms: int
    by_minutes: bool


async def collect(
    source: Source,
    subjects: Sequence[Subject],
    start_ms: int,
    end_ms: int,
    *,
    progress: Progress = lambda _done, _total: None,
    time_limit_s: float = float("inf"),
    monotonic: Callable[[], float] = time.monotonic,
) -> Collected:
    """Read and fold.

    Raises ``TransientError`` if the source is away, has nothing of the range, or if time is up.
    """
    deadline = monotonic() + time_limit_s
    kept = await source.kept(start_ms)
    if kept.begins_ms > start_ms:
        start_ms = _up(kept.begins_ms, MINUTE_MS)
    samples_from_ms = start_ms
    if kept.samples_from_ms > start_ms:
        start_ms = _up(start_ms, MINUTE_MS)
        samples_from_ms = min(max(_up(kept.samples_from_ms, MINUTE_MS), start_ms), end_ms)
    if start_ms >= end_ms:
        raise TransientError(
            f"{source.name}: the range ends before the data begins",
            hint="ask for a later --until, or wait until there is more than a minute of data",
        )
    figures: list[Figures | None] = [None] * len(subjects)
    groups = list(_groups(subjects))
    windows = [list(_reads(subjects, one, start_ms, samples_from_ms, end_ms)) for one in groups]
    done, total = 0, sum(map(len, windows))
    for group, reads in zip(groups, windows, strict=True):
        folds = {
            subjects[place].key.tag: Fold(subjects[place].expectation, start_ms, end_ms)
            for place in group
        }
        for read in reads:
            await _fold(source, subjects[read.places[0]].key, folds, read)
            done += 1
            progress(done, total)
            if monotonic() > deadline and done < total:
                raise TransientError(
                    f"{source.name}: {done:,} of {total:,} reads done when the time limit of"
                    f" {time_limit_s:g} s was over",
                    hint="ask for a shorter range (--since), for one device (--device), or raise"
                    " --time-limit",
                )
        for place in group:
            figures[place] = folds[subjects[place].key.tag].figures()
    return Collected(start_ms, end_ms, samples_from_ms, [one for one in figures if one is not None])


async def _fold(source: Source, key: TagKey, folds: Mapping[str, Fold], read: _Read) -> None:
    where = (key.site, key.device, list(folds), read.start_ms, read.end_ms)
    if read.by_minutes:
        for tag, minutes in (await source.minutes(*where)).items():
            folds[tag].add_minutes(minutes)
    else:
        for tag, columns in (await source.samples(*where)).items():
            folds[tag].add(*columns)


def _groups(subjects: Sequence[Subject]) -> Iterator[list[int]]:
    """Places of the tags that are read together: of one device, so many that an hour of them is
    about one read."""
    by_device = sorted(range(len(subjects)), key=lambda place: subjects[place].key[:2])
    for _, places in groupby(by_device, lambda place: subjects[place].key[:2]):
        group: list[int] = []
        size = 0
        for place in places:
            more = _per_hour(subjects[place])
            if group and (size + more > SAMPLES_PER_READ or len(group) == TAGS_PER_READ):
                yield group
                group, size = [], 0
            group.append(place)
            size += more
        yield group


def _reads(
    subjects: Sequence[Subject],
    group: Sequence[int],
    start_ms: int,
    samples_from_ms: int,
    end_ms: int,
) -> Iterator[_Read]:
    """The windows of a group: days of minutes, then whole hours of samples."""
    for first_ms in range(start_ms, samples_from_ms, DAY_MS):
        yield _Read(group, first_ms, min(first_ms + DAY_MS, samples_from_ms), by_minutes=True)
    hours = max(SAMPLES_PER_READ // sum(_per_hour(subjects[place]) for place in group), 1)
    window_ms = min(hours * HOUR_MS, DAY_MS)
    for first_ms in range(samples_from_ms, end_ms, window_ms):
        yield _Read(group, first_ms, min(first_ms + window_ms, end_ms), by_minutes=False)


def _per_hour(subject: Subject) -> int:
    return max(HOUR_MS // (subject.expectation.period_ms or PERIOD_UNKNOWN_MS), 1)


def _up(time_ms: int, step_ms: int) -> int:
    return -(-time_ms // step_ms) * step_ms
