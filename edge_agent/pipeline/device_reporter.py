"""Whether each device is read, said beside its samples.

A sample that does not come says nothing by itself: the value may be steady, the tag may report on
change only, the PLC may be gone. So a device's quality is a message of its own, given to a sink
that can tell it: at first, whenever it changes, and again after each new session and every five
minutes, since a broker may have forgotten it; and once more when the device has left the map,
though that be while the agent was down (told_devices.py). It has no journal: what counts is what is
true now.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from edge_agent.errors import TransientError
from edge_agent.pipeline.poller import ConnectionPoller
from edge_agent.pipeline.reader import BlockReader, Quality
from edge_agent.pipeline.told_devices import Device, ToldDevices
from edge_agent.sinks.base import DeviceReport, DeviceTeller

log = logging.getLogger(__name__)

INTERVAL_S: Final = 1.0
ROUNDS_PER_REPETITION: Final = 300
"""Five minutes: so long a device is unknown that moved here and was then taken back elsewhere."""

Places = list[tuple[BlockReader, list[int]]]
"""A device's tags: the blocks that read it, each with the places in it."""


class DeviceReporter:
    """Tells a sink how the devices of some pollers are.

    ``pollers`` are asked for again when they have another ``layout``; a device in ``book`` that
    none of them reads is taken back.
    """

    def __init__(
        self,
        pollers: Callable[[], Iterable[ConnectionPoller]],
        layout: Callable[[], str],
        teller: DeviceTeller,
        book: ToldDevices,
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self._pollers = pollers
        self._layout = layout
        self._layout_known = ""
        self._teller = teller
        self._book = book
        self._now_ms = now_ms
        self._places: Mapping[Device, Places] = {}
        self._reports: dict[Device, DeviceReport] = {}
        self._told: dict[Device, DeviceReport] = {}
        self._session = 0
        self._rounds = 0

    async def run(self) -> None:
        """Go on for ever. Ends only by cancellation."""
        while True:
            await self.round()
            await asyncio.sleep(INTERVAL_S)

    async def round(self) -> None:
        """Look at all devices once, and tell what is new."""
        if self._teller.session == 0:
            return
        self._rounds += 1
        is_due = self._rounds % ROUNDS_PER_REPETITION == 0
        if self._teller.session != self._session or is_due:
            self._session = self._teller.session
            self._told = {}
        if self._layout() != self._layout_known:
            self._layout_known = self._layout()
            self._places = _places(self._pollers())
            self._reports = {key: self._reports[key] for key in self._reports.keys() & self._places}
        for key, places in self._places.items():
            self._look(key, places)
        news = [report for key, report in self._reports.items() if self._told.get(key) != report]
        gone = self._book.without(self._places.keys())
        if not news and not gone:
            return
        self._book.add(self._reports.keys())
        session = self._session
        try:
            await self._teller.tell(news, gone)
        except TransientError as error:  # the delivery says the same, and opens it again
            log.debug("the state of %d devices could not be told: %s", len(news), error)
            return
        if self._teller.session == session:
            self._told |= {(report.site, report.device): report for report in news}
            for key in gone:
                self._told.pop(key, None)
            self._book.remove(gone)

    def _look(self, key: Device, places: Places) -> None:
        found = report_of(places, self._now_ms())
        before = self._reports.get(key)
        if before is not None and replace(before, since_ms=found.since_ms) == found:
            return
        if before is not None and before.quality == found.quality:
            found = replace(found, since_ms=before.since_ms)
        self._reports[key] = found


def report_of(places: Places, now_ms: int) -> DeviceReport:
    """How a device is now; ``since_ms`` is now."""
    qualities = [reader.qualities[at] for reader, own in places for at in own]
    worst = next(one for one in (Quality.STALE, Quality.BAD, Quality.GOOD) if one in qualities)
    problem = None
    if worst is not Quality.GOOD:
        problem = next(
            reader.problem(at)
            for reader, own in places
            for at in own
            if reader.qualities[at] is worst
        )
    reader, own = places[0]
    tag = reader.block.tags[own[0]]
    return DeviceReport(
        site=tag.site,
        line=tag.line,
        device=tag.device,
        quality=worst.value,
        since_ms=now_ms,
        tags=len(qualities),
        tags_good=qualities.count(Quality.GOOD),
        problem=problem,
    )


def _places(pollers: Iterable[ConnectionPoller]) -> Mapping[Device, Places]:
    found: dict[Device, Places] = {}
    for poller in pollers:
        for readers in poller.readers:
            for reader in readers:
                own: dict[Device, list[int]] = {}
                for at, tag in enumerate(reader.block.tags):
                    own.setdefault((tag.site, tag.device), []).append(at)
                for key, places in own.items():
                    found.setdefault(key, []).append((reader, places))
    return found
