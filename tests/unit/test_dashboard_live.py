"""The dashboard's live part: what a look is judged to be, the bars, and what browsers are sent."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.data.base import Buckets, Minutes, Newest
from dashboard.live.bars import BARS, Bars
from dashboard.live.hub import TICKS_KEPT, Hub
from dashboard.live.judge import (
    NEAR_MS,
    SILENT_DEFAULT_MS,
    SILENT_MIN_MS,
    Judge,
    Reason,
    State,
    reason_of,
)
from dashboard.live.plant import (
    Device,
    Layout,
    LiveTag,
    Look,
    layout_of_status,
    look_of_newest,
    main_of,
)
from edge_agent.clock import MINUTE_MS
from edge_agent.errors import TransientError
from edge_agent.model import Series, TagKey

NOW_MS = 1_795_900_020_000
assert NOW_MS % MINUTE_MS == 0


def tag(name: str = "PRESS", **fields: Any) -> LiveTag:
    """A tag of PUMP01 that is polled each second."""
    given_fields = {"unit": "bar", "period_ms": 1000, **fields}
    return LiveTag(key=TagKey("A1", "PUMP01", name), **given_fields)


def layout(*tags: LiveTag, name: str = "one") -> Layout:
    """One device with these tags."""
    positions = tuple(range(len(tags)))
    return Layout(name, (Device("A1", "L1", "PUMP01", positions, main_of(positions, tags)),), tags)


def look(
    plan: Layout, *values: float | None, ts_ms: int = NOW_MS, now_ms: int = NOW_MS, q: str = ""
) -> Look:
    """A look at `plan`; all good unless said."""
    return Look(
        layout=plan,
        now_ms=now_ms,
        values=values,
        ts_ms=[ts_ms] * len(values),
        qualities=q or "g" * len(values),
    )


# -- judging ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (10.0, None),
        (12.0, Reason.NEAR_HI),  # a limit itself is still inside
        (12.0001, Reason.ABOVE_HI),
        (11.51, Reason.NEAR_HI),
        (11.49, None),
        (2.0, Reason.NEAR_LO),
        (1.9999, Reason.BELOW_LO),
        (2.51, None),
    ],
)
def test_limits(value: float, reason: Reason | None) -> None:
    """Beyond a limit is an alarm, within a twentieth of the span before it close, else fine."""
    assert reason_of(tag(hi=12.0, lo=2.0), value, 0, "g") == reason


@pytest.mark.parametrize(
    ("fields", "value", "reason"),
    [
        ({}, 1e9, None),
        ({"hi": 10.0}, 10.1, Reason.ABOVE_HI),
        ({"hi": 10.0}, 9.6, Reason.NEAR_HI),
        ({"hi": 10.0}, -1e9, None),
        ({"lo": 10.0}, 9.9, Reason.BELOW_LO),
        ({"lo": 10.0}, 10.4, Reason.NEAR_LO),
        ({"lo": 0.0}, 0.0, None),
        ({"hi": -5.0}, -4.9, Reason.ABOVE_HI),
    ],
)
def test_a_single_limit(fields: dict[str, Any], value: float, reason: Reason | None) -> None:
    """A tag may have one limit or none; closeness then counts from the limit itself."""
    assert reason_of(tag(**fields), value, 0, "g") == reason


@pytest.mark.parametrize(
    ("value", "age_ms", "quality", "period_ms", "reason"),
    [
        (1.0, 0, "b", 1000, Reason.BAD),
        (None, 0, "b", 1000, Reason.BAD),
        (1.0, 0, "s", 1000, Reason.SILENT),
        (1.0, None, "g", 1000, Reason.SILENT),
        (1.0, SILENT_MIN_MS, "g", 1000, None),
        (1.0, SILENT_MIN_MS + 1, "g", 1000, Reason.SILENT),
        (1.0, 30_000, "g", 10_000, None),
        (1.0, 30_001, "g", 10_000, Reason.SILENT),
        (1.0, SILENT_DEFAULT_MS, "g", None, None),
        (1.0, SILENT_DEFAULT_MS + 1, "g", None, Reason.SILENT),
    ],
)
def test_silence(
    value: float | None, age_ms: int | None, quality: str, period_ms: int, reason: Reason | None
) -> None:
    """Who has not been heard for three periods is silent, whatever was said last."""
    assert reason_of(tag(period_ms=period_ms), value, age_ms, quality) == reason


def test_passing_close_to_a_limit_is_no_warning() -> None:
    """Only who stays there is; since when counts from the beginning."""
    plan = layout(tag(hi=10.0, lo=0.0))
    judge = Judge(plan.tags)
    assert not judge.judge(look(plan, 9.8))
    assert not judge.judge(look(plan, 5.0, now_ms=NOW_MS + 1000, ts_ms=NOW_MS + 1000))
    judge.judge(look(plan, 9.8, now_ms=NOW_MS + 2000, ts_ms=NOW_MS + 2000))
    late_ms = NOW_MS + 2000 + NEAR_MS
    assert judge.judge(look(plan, 9.9, now_ms=late_ms, ts_ms=late_ms)) == {0}
    assert judge.troubles[0].reason is Reason.NEAR_HI
    assert judge.troubles[0].since_ms == NOW_MS + 2000


def test_an_alarm_is_dated_by_its_first_sample_and_ends() -> None:
    """It keeps its beginning while it lasts, and is gone when the value is back."""
    plan = layout(tag(hi=10.0))
    judge = Judge(plan.tags)
    assert judge.judge(look(plan, 11.0, ts_ms=NOW_MS - 400)) == {0}
    assert not judge.judge(look(plan, 12.0, ts_ms=NOW_MS + 600, now_ms=NOW_MS + 1000))
    assert judge.troubles[0].since_ms == NOW_MS - 400
    judge.date_back(0, NOW_MS - 90_000)
    judge.date_back(0, NOW_MS)  # never forward
    assert judge.troubles[0].since_ms == NOW_MS - 90_000
    assert judge.judge(look(plan, 5.0)) == {0}
    assert not judge.troubles


@pytest.mark.parametrize(
    ("values", "qualities", "state"),
    [
        ((5.0, 5.0), "gg", State.OK),
        ((11.0, 5.0), "gg", State.ALARM),
        ((11.0, None), "gb", State.ALARM),
        ((5.0, None), "gb", State.WARNING),
        ((None, None), "bb", State.STALE),
        ((None, 5.0), "bs", State.STALE),
    ],
)
def test_a_device(values: tuple[float | None, ...], qualities: str, state: State) -> None:
    """One alarm makes it an alarm; it is silent only as a whole."""
    plan = layout(tag("PRESS", hi=10.0), tag("TEMP", hi=10.0))
    judge = Judge(plan.tags)
    judge.judge(look(plan, *values, q=qualities))
    assert judge.device(plan.devices[0])[0] is state


@given(
    value=st.floats(allow_nan=False),
    lo=st.none() | st.floats(-1e6, 1e6),
    span=st.none() | st.floats(1e-6, 1e6),
)
def test_alarm_means_beyond_a_limit(value: float, lo: float | None, span: float | None) -> None:
    """Whatever limits there are: an alarm if and only if the value is beyond one of them."""
    hi = None if span is None else (lo or 0.0) + span
    reason = reason_of(tag(hi=hi, lo=lo), value, 0, "g")
    beyond = (hi is not None and value > hi) or (lo is not None and value < lo)
    assert (reason in (Reason.ABOVE_HI, Reason.BELOW_LO)) == beyond


# -- layouts ------------------------------------------------------------------------------------


def test_the_main_tag_is_the_one_that_can_be_judged() -> None:
    """Both limits, then one, then the first of all."""
    tags = (tag("A"), tag("B", hi=1.0), tag("C", hi=1.0, lo=0.0), tag("D", hi=1.0, lo=0.0))
    assert main_of((0, 1, 2, 3), tags) == 2
    assert main_of((0, 1), tags) == 1
    assert main_of((0,), tags) == 0


def test_a_layout_from_the_agents_status() -> None:
    """Tags lie at the positions that the agent gave them, not in the order they are listed in."""
    fields = {"unit": "", "description": "", "hi": None, "lo": None, "digits": 1}
    status = {
        "agent": {"layout": "abc"},
        "devices": [
            {
                "site": "A1",
                "line": "L1",
                "device": "P1",
                "tags": [{"tag": "X", "position": 1, "period_ms": 500, **fields}],
            },
            {
                "site": "A1",
                "line": "L2",
                "device": "P2",
                "tags": [{"tag": "Y", "position": 0, "period_ms": 200, **fields}],
            },
        ],
    }
    found = layout_of_status(status)
    assert [one.key.tag for one in found.tags] == ["Y", "X"]
    assert found.devices[0].positions == (1,)


def test_a_look_from_the_newest_samples_of_a_history() -> None:
    """Devices are put together from their tags; the same tags make the same layout."""
    newest = [
        Newest(Series("A1", "L1", "P1", "X", "bar"), NOW_MS - 5000, 1.5),
        Newest(Series("A1", "L1", "P1", "Y", ""), NOW_MS - 7000, 2.5),
    ]
    first = look_of_newest(newest, NOW_MS)
    second = look_of_newest([one._replace(value=9.0) for one in newest], NOW_MS)
    assert first.layout.name == second.layout.name
    assert first.layout.devices[0].positions == (0, 1)
    assert first.values == [1.5, 2.5]
    other = look_of_newest(newest[:1], NOW_MS)
    assert other.layout.name != first.layout.name


# -- bars ---------------------------------------------------------------------------------------


def test_bars_are_the_historys_minutes_and_what_was_seen_since() -> None:
    """The running minute is an average of what was seen; a closed one is the history's."""
    plan = layout(tag())
    bars = Bars(plan)
    assert bars.columns(NOW_MS) == [None]
    bars.see(look(plan, 2.0, ts_ms=NOW_MS))
    bars.see(look(plan, 4.0, ts_ms=NOW_MS + 1000))
    bars.see(look(plan, None, ts_ms=NOW_MS + 2000))
    minutes = Minutes(array("q", [NOW_MS - MINUTE_MS]), array("d", [7.123456]))
    bars.take({plan.tags[0].key: minutes}, NOW_MS)
    (column,) = bars.columns(NOW_MS)
    assert column is not None
    assert len(column) == BARS
    assert column[-2:] == [7.123, 3.0]
    assert column[:-2] == [None] * (BARS - 2)


def test_old_bars_are_forgotten() -> None:
    """After an hour nothing of a value is left, in the picture or in memory."""
    plan = layout(tag())
    bars = Bars(plan)
    bars.see(look(plan, 2.0, ts_ms=NOW_MS))
    later_ms = NOW_MS + BARS * MINUTE_MS
    bars.take({}, later_ms)
    assert bars.columns(later_ms) == [None]
    assert bars._minutes == {0: {}}


# -- the hub ------------------------------------------------------------------------------------


class ScriptedFeed:
    """Answers what it was given last; a feed is an interface of ours, and this one is one."""

    interval_s = 0.0

    def __init__(self, first: Look | TransientError) -> None:
        self.next = first
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def look(self) -> Look:
        self.asked.set()
        await self.answer.wait()
        self.answer.clear()
        if isinstance(self.next, TransientError):
            raise self.next
        return self.next


class KeptHistory:
    """A history of what it is given."""

    name = "store"

    def __init__(self) -> None:
        self.found: Mapping[TagKey, Minutes] = {}
        self.kept_buckets: Mapping[str, Buckets] = {}
        self.kept_newest: list[Newest] = []
        self.error: TransientError | None = None

    async def minutes(
        self, start_ms: int, end_ms: int, tags: Collection[TagKey] | None = None
    ) -> Mapping[TagKey, Minutes]:
        if self.error:
            raise self.error
        return {key: found for key, found in self.found.items() if tags is None or key in tags}

    async def newest(self, since_ms: int) -> list[Newest]:
        if self.error:
            raise self.error
        return self.kept_newest

    async def buckets(
        self, site: str, device: str, tags: Sequence[str], start_ms: int, end_ms: int, step_ms: int
    ) -> Mapping[str, Buckets]:
        if self.error:
            raise self.error
        return self.kept_buckets

    async def close(self) -> None:
        return None


class Browser:
    """One reader of a hub, with what it would show."""

    def __init__(self, hub: Hub) -> None:
        self._messages = hub.messages()
        self.shown: dict[str, Any] = {}
        self.kinds: list[str] = []

    async def receive(self) -> dict[str, Any]:
        kind, body = await asyncio.wait_for(anext(self._messages), 5)
        message: dict[str, Any] = orjson.loads(body)
        self.kinds.append(kind)
        if kind == "snapshot":
            self.shown = message
        else:
            for position, value, ts_ms, _ in message.get("changes", ()):
                self.shown["values"][position] = value
                self.shown["ts_ms"][position] = ts_ms
            for number, state, since_ms in message.get("states", ()):
                self.shown["states"][number] = [state, since_ms]
            if "troubles" in message:
                self.shown["troubles"] = message["troubles"]
        return message


@asynccontextmanager
async def running(feed: ScriptedFeed, history: KeptHistory | None = None) -> AsyncIterator[Hub]:
    """A hub at work."""
    now = [NOW_MS]
    hub = Hub(feed, history or KeptHistory(), ["store"], now_ms=lambda: now[0])  # type: ignore[arg-type]
    task = asyncio.create_task(hub.run())
    try:
        yield hub
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def step(feed: ScriptedFeed, answer: Look | TransientError) -> None:
    """Let the hub look once."""
    await asyncio.wait_for(feed.asked.wait(), 5)
    feed.next = answer
    feed.asked.clear()
    feed.answer.set()
    await asyncio.wait_for(feed.asked.wait(), 5)


async def test_a_browser_gets_a_snapshot_and_then_what_changes() -> None:
    """Two tags, one of which moves: the tick has one change, and no more."""
    plan = layout(tag("PRESS", hi=10.0), tag("TEMP"))
    feed = ScriptedFeed(look(plan, 5.0, 20.0))
    async with running(feed) as hub:
        await step(feed, look(plan, 5.0, 20.0))
        browser = Browser(hub)
        await browser.receive()
        assert browser.shown["values"] == [5.0, 20.0]
        assert browser.shown["states"] == [["ok", None]]
        await step(feed, look(plan, 11.0, 20.0))
        while browser.shown["values"] != [11.0, 20.0]:
            message = await browser.receive()
        assert message["changes"] == [[0, 11.0, NOW_MS, "g"]]
        assert browser.shown["states"] == [["alarm", NOW_MS]]
        assert browser.shown["troubles"] == [[0, "above_hi", NOW_MS]]
        assert browser.kinds[0] == "snapshot"
        assert set(browser.kinds[1:]) == {"tick"}


async def test_a_changed_map_makes_a_snapshot() -> None:
    """Other positions mean other tags, so every browser starts anew."""
    one, two = layout(tag("PRESS")), layout(tag("TEMP"), name="two")
    feed = ScriptedFeed(look(one, 5.0))
    async with running(feed) as hub:
        await step(feed, look(one, 5.0))
        browser = Browser(hub)
        await browser.receive()
        await step(feed, look(two, 7.0))
        while browser.shown["layout"] != "two":
            await browser.receive()
        assert browser.shown["tags"][0]["tag"] == "TEMP"
        assert browser.kinds.count("snapshot") == 2


async def test_a_slow_browser_gets_a_snapshot_and_ends_up_right() -> None:
    """What it missed is not kept for it for ever."""
    plan = layout(tag())
    feed = ScriptedFeed(look(plan, 0.0))
    async with running(feed) as hub:
        await step(feed, look(plan, 0.0))
        browser = Browser(hub)
        await browser.receive()
        last = float(3 * TICKS_KEPT)
        for number in range(1, 3 * TICKS_KEPT + 1):
            await step(feed, look(plan, float(number)))
        await browser.receive()
        assert browser.kinds == ["snapshot", "snapshot"]
        assert browser.shown["values"] == [last]


@pytest.mark.parametrize(
    ("since", "kind"),
    [
        ("one.{sequence}", "tick"),
        ("two.{sequence}", "snapshot"),
        ("one.999", "snapshot"),
        ("one.-1", "snapshot"),
        ("one.x", "snapshot"),
        ("one", "snapshot"),
    ],
)
async def test_a_browser_that_has_a_snapshot_goes_on_from_there(since: str, kind: str) -> None:
    """It gets the next tick, if what it has is of this layout and recent; else a snapshot."""
    plan = layout(tag())
    feed = ScriptedFeed(look(plan, 1.0))
    async with running(feed) as hub:
        await step(feed, look(plan, 1.0))
        has = orjson.loads(await hub.snapshot())
        await step(feed, look(plan, 2.0))
        messages = hub.messages(since.format(sequence=has["sequence"]))
        found, body = await asyncio.wait_for(anext(messages), 5)
        assert found == kind
        message = orjson.loads(body)
        if kind == "tick":
            assert message["sequence"] == has["sequence"] + 1


async def test_streams_end_with_the_hub() -> None:
    """A server that stops does not wait for its browsers."""
    plan = layout(tag())
    feed = ScriptedFeed(look(plan, 1.0))
    async with running(feed) as hub:
        await step(feed, look(plan, 1.0))

        async def listen() -> list[str]:
            return [kind async for kind, _ in hub.messages()]

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
    assert await asyncio.wait_for(listening, 5) == ["snapshot"]


async def test_one_message_serves_all_browsers() -> None:
    """Two browsers get the very same bytes."""
    plan = layout(tag())
    feed = ScriptedFeed(look(plan, 1.0))
    async with running(feed) as hub:
        await step(feed, look(plan, 1.0))
        first, second = hub.messages(), hub.messages()
        assert (await anext(first))[1] is (await anext(second))[1]
        await step(feed, look(plan, 2.0))
        assert (await anext(first))[1] is (await anext(second))[1]


async def test_an_agent_that_is_away_is_said_and_values_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ticks go on, with the reason; when it is back so are they."""
    monkeypatch.setattr("dashboard.live.hub.RETRY_S", 0.0)
    plan = layout(tag())
    feed = ScriptedFeed(look(plan, 1.0))
    async with running(feed) as hub:
        await step(feed, look(plan, 1.0))
        await step(feed, TransientError("nobody there"))
        browser = Browser(hub)
        message = await browser.receive()
        assert message["agent"]["up"] is False
        assert message["agent"]["error"] == "nobody there"
        assert message["values"] == [1.0]
        await step(feed, look(plan, 3.0))
        while not (message := await browser.receive())["agent"]["up"]:
            pass
        assert message["agent"]["error"] is None


async def test_without_an_agent_the_history_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started while the agent is down, it shows the newest samples, as old as they are."""
    monkeypatch.setattr("dashboard.live.hub.RETRY_S", 0.0)
    history = KeptHistory()
    history.kept_newest = [Newest(Series("A1", "L1", "P1", "X", "bar"), NOW_MS - 90_000, 1.5)]
    feed = ScriptedFeed(TransientError("down"))
    async with running(feed, history) as hub:
        await step(feed, TransientError("down"))
        message = await Browser(hub).receive()
        assert message["values"] == [1.5]
        assert message["agent"]["up"] is False
        assert message["agent"]["age_s"] == 90.0


async def test_an_alarm_is_as_old_as_the_history_says() -> None:
    """Three minutes beyond the limit before the dashboard came, and one within before them."""
    plan = layout(tag(hi=10.0))
    history = KeptHistory()
    starts = [NOW_MS - count * MINUTE_MS for count in (4, 3, 2, 1)]
    history.kept_buckets = {
        "PRESS": Buckets(
            array("q", starts),
            array("d", [9.0, 11.0, 11.0, 11.0]),
            array("d", [8.0, 10.5, 10.5, 10.5]),
            array("d", [9.5, 12.0, 12.0, 12.0]),
            array("q", [1, 1, 1, 1]),
        )
    }
    feed = ScriptedFeed(look(plan, 11.0))
    async with running(feed, history) as hub:
        await step(feed, look(plan, 11.0))
        browser = Browser(hub)
        await browser.receive()
        while browser.shown["troubles"] != [[0, "above_hi", starts[1]]]:
            await browser.receive()
        assert browser.shown["states"] == [["alarm", starts[1]]]


async def test_a_history_that_is_away_is_said() -> None:
    """Live values need none; the page says why bars are missing."""
    plan = layout(tag())
    history = KeptHistory()
    history.error = TransientError("database is away")
    feed = ScriptedFeed(look(plan, 1.0))
    async with running(feed, history) as hub:
        await step(feed, look(plan, 1.0))
        await step(feed, look(plan, 2.0))
        message = await Browser(hub).receive()
        assert message["history_error"] == "database is away"
        assert message["values"] == [2.0]


async def test_values_that_are_not_finite_become_null() -> None:
    """JSON knows no NaN; a browser must be able to read every message."""
    plan = layout(tag())
    feed = ScriptedFeed(look(plan, math.nan, q="b"))
    async with running(feed) as hub:
        await step(feed, look(plan, math.nan, q="b"))
        message = await Browser(hub).receive()
        assert message["values"] == [None]
