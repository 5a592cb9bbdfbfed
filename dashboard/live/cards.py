"""Cards as people want them: `dashboard.yaml`, laid over what a look found.

The file decides the order of cards, each card's title, its main tag and the ends of its gauge.
Devices that it does not name come last, in map order, so that a new one shows at once and no alarm
can be hidden. The file is read again when it changes; while it can't be used, the last one that
could is.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from dashboard.live.feed import Feed
from dashboard.live.plant import Device, Layout, Look
from edge_agent.errors import ConfigError
from edge_agent.yaml_text import load_yaml, read_text

log = logging.getLogger(__name__)

TITLE_CHARS_MAX: Final = 200
"""More than a card has room for; a name of the map has at most 128."""


@dataclass(frozen=True, slots=True)
class Card:
    """What the file says of one device; None and "" leave it as it would be without the file."""

    title: str = ""
    main: str | None = None
    lo: float | None = None
    hi: float | None = None


@dataclass(frozen=True, slots=True)
class Cards:
    """The file's cards by site/device, in its order. Files with one ``name`` are the same."""

    name: str
    cards: Mapping[str, Card]


NONE: Final = Cards("", {})
"""Without a file."""


def parse_cards(text: str, where: str) -> Cards:
    """The cards that a text describes. Raises ``ConfigError``; ``where`` names the file in it."""
    document = load_yaml(text, where)
    found = document.get("cards") if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise ConfigError(f"{where} has no mapping `cards`; edge-agent generate makes one")
    cards = {str(key): _card(card) for key, card in found.items()}
    return Cards(sha256(text.encode()).hexdigest()[:16], cards)


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
        self._problem: str | None = None
        self._arranged: tuple[Layout, Cards, Layout] | None = None

    async def look(self) -> Look:
        """One look. Raises ``TransientError`` as the feed does."""
        look = await self._feed.look()
        await self._follow()
        if self._arranged is None or (
            self._arranged[0] is not look.layout or self._arranged[1] is not self._cards
        ):
            self._arranged = (look.layout, self._cards, arrange(look.layout, self._cards))
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
            self._tell(str(error))
        except OSError as error:
            self._stamp = None
            self._tell(f"{self._path} can't be read: {error.strerror}")
        else:
            self._tell(None)

    def _read(self) -> Cards:
        return parse_cards(read_text(self._path), str(self._path))

    def _tell(self, problem: str | None) -> None:
        """A warning for each problem, once."""
        if problem is not None and problem != self._problem:
            log.warning("cards: %s", problem)
        elif problem is None and self._problem is not None:
            log.info("cards: back")
        self._problem = problem


def _key(device: Device) -> str:
    return f"{device.site}/{device.device}"


def _card(found: Any) -> Card:
    """One card, as far as it can be understood."""
    if not isinstance(found, dict):
        return Card()
    title, main, gauge = found.get("title"), found.get("main"), found.get("gauge")
    if not isinstance(gauge, dict):
        gauge = {}
    return Card(
        title=str(title)[:TITLE_CHARS_MAX] if title is not None else "",
        main=str(main) if main is not None else None,
        lo=_number(gauge.get("lo")),
        hi=_number(gauge.get("hi")),
    )


def _number(found: Any) -> float | None:
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return float(found)


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
    return replace(device, main=main, title=title, gauge=gauge)
