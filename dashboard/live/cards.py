"""Cards as people want them: `dashboard.yaml`, laid over what a look found.

The file decides the order of cards, each card's title, its main tag and the ends of its gauge.
Devices that it does not name come last, in map order, so that a new one shows at once and no alarm
can be hidden. The file is read again when it changes; while it can't be used, the last one that
could is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

from dashboard.live.feed import Feed
from dashboard.live.plant import Device, Layout, Look
from edge_agent.cards_file import (
    TITLE_CHARS_MAX,
    Card,
    CardsError,
    CardsProblem,
    read_cards,
    unknown_names,
)
from edge_agent.errors import ConfigError
from edge_agent.text.counts import counted
from edge_agent.text.yaml_text import load_with_lines, read_text

log = logging.getLogger(__name__)

PROBLEMS_TOLD_MAX: Final = 10
"""Lines in the log about one file; `edge-agent generate` tells them all."""


@dataclass(frozen=True, slots=True)
class Cards:
    """The file's cards by site/device, in its order. Files with one ``name`` are the same.

    ``problems`` are what is wrong in the file, and left aside.
    """

    name: str
    cards: Mapping[str, Card]
    problems: tuple[CardsProblem, ...] = ()


NONE: Final = Cards("", {})
"""Without a file."""


def parse_cards(text: str, where: str) -> Cards:
    """The cards that a text describes, as far as they can be understood.

    Raises ``ConfigError`` where none can; ``where`` names the file in it.
    """
    document = load_with_lines(text, where)
    found = read_cards(document)
    if not isinstance(document, Mapping) or not isinstance(document.get("cards"), Mapping):
        raise CardsError(where, found.problems)
    return Cards(sha256(text.encode()).hexdigest()[:16], found.cards, found.problems)


def arrange(layout: Layout, cards: Cards) -> Layout:
    """The same devices and tags in the cards' order, with their titles, main tags and gauges."""
    if not cards.name:
        return layout
    place = {key: number for number, key in enumerate(cards.cards)}
    devices = sorted(layout.devices, key=lambda one: place.get(_key(one), len(place)))
    return replace(
        layout,
        name=f"{layout.name}-{cards.name}",
        devices=tuple(_with_card(one, cards.cards.get(_key(one)), layout) for one in devices),
    )


class ArrangedFeed:
    """A feed whose looks are arranged by a file."""

    def __init__(self, feed: Feed, path: Path) -> None:
        self.interval_s = feed.interval_s
        self._feed = feed
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._cards = NONE
        self._refused: str | None = None
        self._told: Sequence[str] = ()
        self._arranged: tuple[Layout, Cards, Layout] | None = None
        self._wrong: Sequence[str] = ()

    async def look(self) -> Look:
        """One look. Raises ``TransientError`` as the feed does."""
        look = await self._feed.look()
        await self._follow()
        if self._arranged is None or (
            self._arranged[0] is not look.layout or self._arranged[1] is not self._cards
        ):
            self._arranged = (look.layout, self._cards, arrange(look.layout, self._cards))
            self._wrong = _wrong(look.layout, self._cards, self._path)
        self._tell()
        return replace(look, layout=self._arranged[2])

    async def _follow(self) -> None:
        """Read the file if it is another one than before."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._cards = await asyncio.to_thread(self._read)
        except ConfigError as error:
            self._refused = str(error)
        except OSError as error:
            self._stamp = None
            self._refused = f"{self._path} can't be read: {error.strerror}"
        else:
            self._refused = None

    def _read(self) -> Cards:
        return parse_cards(read_text(self._path), str(self._path))

    def _tell(self) -> None:
        """A warning for each problem, once."""
        problems = self._wrong if self._refused is None else [self._refused]
        for problem in problems:
            if problem not in self._told:
                log.warning("cards: %s", problem)
        if self._told and not problems:
            log.info("cards: back")
        self._told = problems


def _key(device: Device) -> str:
    return f"{device.site}/{device.device}"


def _wrong(layout: Layout, cards: Cards, path: Path) -> list[str]:
    """What is wrong in the file, and main tags that devices of the layout have not got."""
    tags = {_key(one): {layout.tags[p].key.tag for p in one.positions} for one in layout.devices}
    known = {key: card for key, card in cards.cards.items() if key in tags}
    found = [*cards.problems, *unknown_names(known, tags)]
    lines = [f"{path}, {problem}" for problem in found[:PROBLEMS_TOLD_MAX]]
    if len(found) > PROBLEMS_TOLD_MAX:
        more = counted(len(found) - PROBLEMS_TOLD_MAX, "more problem")
        lines.append(f"{path}: {more}")
    return lines


def _with_card(device: Device, card: Card | None, layout: Layout) -> Device:
    """The device as its card wants it; a main tag that it has not got is left aside."""
    if card is None:
        return device
    tags = layout.tags
    main = next((p for p in device.positions if tags[p].key.tag == card.main), device.main)
    limits = (tags[main].lo, tags[main].hi)
    gauge = None
    # Ends that are the limits themselves are nobody's choice: the page leaves room around them.
    if card.lo is not None and card.hi is not None and card.lo < card.hi:
        gauge = None if (card.lo, card.hi) == limits else (card.lo, card.hi)
    title = "" if card.title == device.device else card.title
    if len(title) > TITLE_CHARS_MAX:
        title = f"{title[: TITLE_CHARS_MAX - 1]}…"
    return replace(device, main=main, title=title, gauge=gauge)
