"""One look a second, made into bytes once, handed to every browser.

A browser gets a *snapshot* (everything) and then a *tick* a second: what has changed since. Both
are rendered at most once, however many browsers there are. A browser that has missed a tick, by
being slow or by having slept, gets a snapshot again: there is no queue per browser that could
grow, and no state of it to keep.

When nobody answers, ticks go on. They say for how long, so that what is shown is never taken for
new; the last values stay.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import orjson

from dashboard.data.base import History
from dashboard.korean import in_korean
from dashboard.live.bars import BARS, Bars
from dashboard.live.feed import Feed, HistoryFeed
from dashboard.live.judge import Judge, Reason, State, Trouble
from dashboard.live.plant import EMPTY, Layout, LiveTag, Look
from edge_agent.clock import HOUR_MS, MINUTE_MS, epoch_ms
from edge_agent.errors import TransientError

log = logging.getLogger(__name__)

TICKS_KEPT = 5
"""A browser that is further behind gets a snapshot: cheaper than that many ticks."""
BARS_INTERVAL_S = 30.0
"""A closed minute shows within this time after the history has it."""
SINCE_HOURS = 24
"""How far back the beginning of an alarm is looked for."""
RETRY_S = 2.0
"""Between looks while nobody answers: who returns is seen within this time."""


class Hub:
    """Looks, judges and renders; made for one source. `run` it as a task."""

    def __init__(
        self,
        feed: Feed,
        history: History,
        sources: Sequence[str],
        *,
        now_ms: Callable[[], int] = epoch_ms,
    ) -> None:
        self._feed = feed
        self._history = history
        self._sources = sources
        self._now_ms = now_ms
        self._look = Look(EMPTY, 0, (), (), "")
        self._judge = Judge(())
        self._bars = Bars(EMPTY)
        self._states: list[tuple[State, int | None]] = []
        self._seen_ms: int | None = None
        """When somebody answered last, by our own clock."""
        self._error: str | None = None
        self._history_error: str | None = None
        self._sequence = 0
        self._ticks: deque[tuple[int, bytes]] = deque(maxlen=TICKS_KEPT)
        self._snapshot: tuple[int, bytes] | None = None
        self._advanced = asyncio.Condition()
        self._first = asyncio.Event()
        self._running = True

    # -- looking --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look for ever; when it is cancelled, every `messages` ends."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._run_bars(), name="dashboard.bars")
                while True:
                    await self._step(group)
                    pause_s = RETRY_S if self._error else self._feed.interval_s
                    await asyncio.sleep(pause_s)
        finally:
            async with self._advanced:
                self._running = False
                self._advanced.notify_all()
            self._first.set()

    async def _step(self, group: asyncio.TaskGroup) -> None:
        """One look, and what follows from it."""
        try:
            look = await self._feed.look()
        except TransientError as error:
            if self._error is None:
                log.warning("live values: %s", error)
            self._error = str(error)
            await self._publish(None if await self._show_history_instead() else {})
            return
        if self._error is not None:
            log.info("live values: back")
        self._error = None
        self._seen_ms = self._now_ms()
        if look.layout.name != self._look.layout.name:
            self._adopt(look)
            await self._publish(None)
            group.create_task(self._date_back_all(), name="dashboard.since")
            group.create_task(self._read_bars(), name="dashboard.bars_once")
            return
        before = self._look
        self._look = look
        self._bars.see(look)
        judged = self._judge.judge(look)
        tick = {"changes": _changes(before, look), **self._changed_states()}
        if judged:
            tick["troubles"] = self._troubles()
        await self._publish(tick)

    def _adopt(self, look: Look) -> None:
        """Another layout: positions mean something else from here on."""
        self._look = look
        self._judge = Judge(look.layout.tags)
        self._judge.judge(look)
        self._bars = Bars(look.layout)
        self._bars.see(look)
        self._states = [self._judge.device(device) for device in look.layout.devices]

    async def _show_history_instead(self) -> bool:
        """Without any look yet, the newest samples of the history are better than an empty page.

        Returns whether they were taken.
        """
        if self._look.layout is not EMPTY or isinstance(self._feed, HistoryFeed):
            return False
        try:
            look = await HistoryFeed(self._history).look()
        except TransientError as error:
            self._history_error = str(error)
            return False
        if not look.layout.devices:
            return False
        self._adopt(look)
        self._seen_ms = max(ts_ms for ts_ms in look.ts_ms if ts_ms is not None)
        return True

    # -- history --------------------------------------------------------------------------------

    async def _run_bars(self) -> None:
        while True:
            await asyncio.sleep(BARS_INTERVAL_S)
            await self._read_bars()

    async def _read_bars(self) -> None:
        """Closed minutes of the last hour."""
        bars = self._bars
        now_ms = self._now_ms()
        start_ms = (now_ms // MINUTE_MS - BARS) * MINUTE_MS
        try:
            minutes = await self._history.minutes(start_ms, now_ms, bars.tags)
        except TransientError as error:
            if self._history_error is None:
                log.warning("history: %s", error)
            self._history_error = str(error)
            return
        if self._history_error is not None:
            log.info("history: back")
        self._history_error = None
        bars.take(minutes, now_ms)
        if bars is self._bars:
            await self._publish({"bars": self._bars_body()})

    async def _date_back_all(self) -> None:
        """Alarms that were there before we looked began earlier; the history says when."""
        layout, judge = self._look.layout, self._judge
        for position, trouble in list(judge.troubles.items()):
            if trouble.state is not State.ALARM:
                continue
            try:
                since_ms = await self._began_ms(layout.tags[position], trouble)
            except TransientError:
                return  # the bars tell that the history is away
            judge.date_back(position, since_ms)
        if layout is self._look.layout:
            await self._publish({"troubles": self._troubles()} | self._changed_states())

    async def _began_ms(self, tag: LiveTag, trouble: Trouble) -> int:
        """Since when a tag has been out of limits without a break, to the minute."""
        end_ms = trouble.since_ms
        start_ms = (end_ms - SINCE_HOURS * HOUR_MS) // MINUTE_MS * MINUTE_MS
        site, device, name = tag.key
        found = await self._history.buckets(site, device, [name], start_ms, end_ms, MINUTE_MS)
        began_ms = end_ms
        if name in found:
            own = found[name]
            columns = zip(own.times_ms, own.lowest, own.highest, strict=True)
            for time_ms, lowest, highest in reversed(list(columns)):
                if not _is_out(tag, trouble.reason, lowest, highest):
                    break
                began_ms = time_ms
        return began_ms

    # -- rendering ------------------------------------------------------------------------------

    async def _publish(self, tick: Mapping[str, Any] | None) -> None:
        """Make the next tick; None when only a snapshot will do."""
        async with self._advanced:
            self._sequence += 1
            if tick is None:
                self._ticks.clear()
            else:
                body = orjson.dumps({**self._head(), **tick})
                self._ticks.append((self._sequence, body))
            self._advanced.notify_all()
        self._first.set()

    def _head(self) -> dict[str, Any]:
        """What every message has. ``age_s`` is that of the newest answer."""
        now_ms = self._now_ms()
        age_s = None if self._seen_ms is None else (now_ms - self._seen_ms) / 1000
        return {
            "sequence": self._sequence,
            "now_ms": now_ms,
            "agent": {
                "up": self._error is None,
                "age_s": age_s,
                "error": self._error,
                "error_ko": in_korean(self._error),
                "well": self._look.well,
                "verdict": self._look.verdict,
                "verdict_ko": self._look.verdict_ko,
            },
            "history_error": self._history_error,
            "history_error_ko": in_korean(self._history_error),
        }

    async def snapshot(self) -> bytes:
        """Everything, as JSON; waits for the first look."""
        await self._first.wait()
        if self._snapshot is None or self._snapshot[0] != self._sequence:
            self._snapshot = (self._sequence, orjson.dumps(self._everything()))
        return self._snapshot[1]

    def _everything(self) -> dict[str, Any]:
        look = self._look
        return self._head() | {
            "layout": look.layout.name,
            "sources": self._sources,
            **_layout_body(look.layout),
            "values": look.values,
            "ts_ms": look.ts_ms,
            "qualities": look.qualities,
            "states": [[state.value, since_ms] for state, since_ms in self._states],
            "troubles": self._troubles(),
            "bars": self._bars_body(),
        }

    def _bars_body(self) -> dict[str, Any]:
        end_ms = self._now_ms()
        return {"end_ms": end_ms // MINUTE_MS * MINUTE_MS, "devices": self._bars.columns(end_ms)}

    def _troubles(self) -> list[list[Any]]:
        """Position, reason, since when."""
        return [
            [position, trouble.reason.value, trouble.since_ms]
            for position, trouble in self._judge.troubles.items()
        ]

    def _changed_states(self) -> dict[str, Any]:
        fresh = [self._judge.device(device) for device in self._look.layout.devices]
        changed = [
            [number, state.value, since_ms]
            for number, (state, since_ms) in enumerate(fresh)
            if (state, since_ms) != self._states[number]
        ]
        self._states = fresh
        return {"states": changed} if changed else {}

    # -- handing out ----------------------------------------------------------------------------

    async def messages(self, since: str = "") -> AsyncIterator[tuple[str, bytes]]:
        """`("snapshot", json)` first, then `("tick", json)` while the hub runs; for one browser.

        A browser that has a snapshot already says which by ``since``, `{layout}.{sequence}`; it
        gets what came after it, or another snapshot where that is not known any more.
        """
        await self._first.wait()
        layout, _, number = since.rpartition(".")
        is_ours = layout == self._look.layout.name and number.isascii() and number.isdigit()
        sent = int(number) if is_ours else -1
        while True:
            async with self._advanced:
                await self._advanced.wait_for(lambda: self._sequence != sent or not self._running)  # noqa: B023
            if not self._running:
                return
            ticks = [tick for tick in self._ticks if tick[0] > sent]
            if ticks and ticks[0][0] == sent + 1:
                for sequence, body in ticks:
                    sent = sequence
                    yield "tick", body
            else:
                body = await self.snapshot()
                sent = self._sequence
                yield "snapshot", body


def _is_out(tag: LiveTag, reason: Reason, lowest: float, highest: float) -> bool:
    """Whether a whole minute was beyond the limit that the tag is beyond now."""
    if reason is Reason.ABOVE_HI:
        return tag.hi is not None and lowest > tag.hi
    return tag.lo is not None and highest < tag.lo


def _changes(before: Look, after: Look) -> list[list[Any]]:
    """Position, value, time and quality of every tag that has another one of them."""
    columns = zip(
        before.values, after.values, before.ts_ms, after.ts_ms, before.qualities, after.qualities,
        strict=True,
    )  # fmt: skip
    return [
        [position, value, ts_ms, quality]
        for position, (old, value, old_ts_ms, ts_ms, old_quality, quality) in enumerate(columns)
        if ts_ms != old_ts_ms or quality != old_quality or value != old
    ]


def _layout_body(layout: Layout) -> dict[str, Any]:
    return {
        "devices": [
            {
                "site": device.site,
                "line": device.line,
                "device": device.device,
                "main": device.main,
                "title": device.title or device.device,
                "gauge": device.gauge,
                "tags": device.positions,
            }
            for device in layout.devices
        ],
        "tags": [
            {
                "tag": tag.key.tag,
                "unit": tag.unit,
                "description": tag.description,
                "hi": tag.hi,
                "lo": tag.lo,
                "digits": tag.digits,
                "period_ms": tag.period_ms,
            }
            for tag in layout.tags
        ],
    }
