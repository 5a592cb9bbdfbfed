"""What a foreign seven-key message says (`sinks/message.py`), checked as strictly as a map row."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

from edge_agent.address_map import cells
from edge_agent.model import Series
from edge_agent.pipeline.ingested import Ingested
from edge_agent.protocols import mqtt_syntax

SERIES_MAX: Final = 20_000
"""The journal's table of series only grows, and a publisher may invent names without end."""


class Sample(NamedTuple):
    """A message that was understood."""

    series: Series
    ts_ms: int
    value: float


class TooManySeriesError(Exception):
    """There are ``SERIES_MAX`` series already."""


class Decoder:
    """Knows the series that it has met, so that each is checked once.

    The ``book`` knows what the running map polls, and has the series taken in before.
    """

    def __init__(self, book: Ingested, now_ms: Callable[[], int]) -> None:
        self._book = book
        self._now_ms = now_ms
        self._known: dict[tuple[object, ...], Series] = {}

    def sample(self, payload: bytes) -> Sample | None:
        """A message's sample, None for a tag that the running map polls.

        Raises ``ValueError`` with what is wrong with it, or ``TooManySeriesError``.
        """
        document = mqtt_syntax.decode(payload)
        if not isinstance(document, dict) or document.keys() != mqtt_syntax.SEVEN_KEYS:
            raise ValueError("not the seven keys ts, site, line, device, tag, value, unit")
        value = document["value"]
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError("value is not a number")
        series = self._series_of(tuple(document[name] for name in Series._fields))
        if self._book.is_polled(series.key):
            return None
        return Sample(series, mqtt_syntax.time_ms(document["ts"], self._now_ms()), float(value))

    def _series_of(self, names: tuple[object, ...]) -> Series:
        """The series that a message's names mean. Raises ``ValueError``."""
        if not all(isinstance(name, str) for name in names):
            raise ValueError("site, line, device, tag and unit are not all text")
        known = self._known.get(names)
        if known is None:
            series = _checked(*map(str, names))
            if series not in self._book.series and len(self._book) >= SERIES_MAX:
                raise TooManySeriesError
            if len(self._known) >= 2 * SERIES_MAX:  # spellings that mean the same, without end
                self._known.clear()
            known = self._known[names] = series
        return known


def _checked(site: str, line: str, device: str, tag: str, unit: str) -> Series:
    """A series whose names the address map would allow. Raises ``ValueError``."""
    for column, text in (("site", site), ("device", device), ("tag", tag), ("line", line)):
        if not text.strip():
            raise ValueError(f"{column} is empty")
    try:
        return Series(
            cells.name(site), cells.label(line), cells.name(device), cells.name(tag),
            cells.label(unit),
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"a name that no map may have: {error}") from error
