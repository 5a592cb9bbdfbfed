"""Replies that are late, torn, cut or repeated: what every driver on a stream does about them.

A `Dialogue` has the driver, a proxy in front of a real server, and two blocks whose replies look
alike but for their values. Each check is a test for every driver that has one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from edge_agent.errors import TransientError
from edge_agent.planner import Block
from edge_agent.protocols.base import Reply
from tests.chaos import Proxy, Step, cut_after, halves, late, mute, once, passing
from tests.waiting import until

PATIENCE_S = 0.05
"""When a read is given up that must not succeed."""
READ_S_MAX = 5.0
"""When a read is given up that must: generous, for a busy machine."""
FAIL_S_MAX = 0.5


class Reader(Protocol):
    """What is asked of a driver here."""

    async def connect(self) -> None: ...

    async def read(self, block: Block, /) -> Sequence[Reply]: ...


async def read(driver: Reader, wanted: Block, *, within_s: float = READ_S_MAX) -> list[float]:
    """The values of a block's only reply."""
    async with asyncio.timeout(within_s):
        [reply] = await driver.read(wanted)
    return list(reply.values)


async def give_up(driver: Reader, wanted: Block) -> None:
    """A read that gets no reply in time, as the poller cancels it."""
    with pytest.raises(TimeoutError):
        await read(driver, wanted, within_s=PATIENCE_S)


@dataclass(frozen=True)
class Dialogue:
    """A driver that is connected, what its server says to two blocks, and who is in between."""

    driver: Reader
    proxy: Proxy
    first: tuple[Block, Sequence[float]]
    second: tuple[Block, Sequence[float]]
    out_of_step: tuple[type[Exception], ...] = (TransientError,)
    """How a read may end when half of the reply before it never came."""

    async def read_first(self) -> list[float]:
        return await read(self.driver, self.first[0])

    async def give_up(self) -> None:
        """Read the first block, of which nothing comes in time."""
        await give_up(self.driver, self.first[0])

    async def the_second_is_its_own(self, *, within_s: float = READ_S_MAX) -> None:
        block, values = self.second
        assert await read(self.driver, block, within_s=within_s) == values

    async def works(self) -> None:
        """Both blocks have their values."""
        block, values = self.first
        assert await read(self.driver, block) == values
        await self.the_second_is_its_own()

    async def works_after_reconnect(self) -> None:
        """This connection is of no more use, the next one is."""
        self.proxy.spoil = passing
        with pytest.raises(TransientError):
            await self.read_first()
        await self.driver.connect()
        await self.works()


Check = Callable[[Dialogue], Coroutine[Any, Any, None]]
TornCheck = Callable[[Dialogue, int], Coroutine[Any, Any, None]]


async def check_silence(talk: Dialogue) -> None:
    """A device that accepts and says nothing costs its timeout; then the connection works on."""
    talk.proxy.spoil = mute
    for _ in range(3):
        await talk.give_up()
    talk.proxy.spoil = passing
    await talk.works()


async def check_late_reply_is_not_the_next_ones(talk: Dialogue) -> None:
    """The reply to a read that was given up never becomes the values of a later one."""
    release = asyncio.Event()
    talk.proxy.spoil = once(late(release))
    await talk.give_up()
    release.set()
    await talk.the_second_is_its_own()
    await talk.works()


async def check_many_late_replies_at_once(talk: Dialogue) -> None:
    """A device that wakes up and answers everything in one burst is in step again."""
    held: list[bytes] = []

    def hold(chunk: bytes) -> Sequence[Step]:
        held.append(chunk)
        return [] if len(held) < 20 else [b"".join(held)]

    talk.proxy.spoil = hold
    for count in range(1, 20):
        task = asyncio.create_task(talk.driver.read(talk.first[0]))
        await until(lambda count=count: len(held) >= count, within_s=READ_S_MAX)  # type: ignore[misc]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await talk.the_second_is_its_own()
    talk.proxy.spoil = passing
    await talk.works()


async def check_reset(talk: Dialogue) -> None:
    """A connection that is reset says so."""
    talk.proxy.spoil = mute
    waiting = asyncio.create_task(talk.read_first())
    await asyncio.sleep(0.02)
    talk.proxy.cut()
    with pytest.raises(TransientError, match=f"127.0.0.1:{talk.proxy.port}: "):
        await waiting
    await talk.works_after_reconnect()


async def check_repeated_reply(talk: Dialogue) -> None:
    """A gateway that says everything twice is read once."""
    talk.proxy.spoil = lambda chunk: [chunk + chunk]
    for _ in range(3):
        await talk.works()


async def check_two_halves(talk: Dialogue, at: int) -> None:
    """Where a reply is torn apart makes no difference."""
    talk.proxy.spoil = halves(at, 0.005)
    await talk.works()


async def check_second_half_comes_late(talk: Dialogue, at: int) -> None:
    """Half a reply stays half of its own reply, and the next one is read from where it begins."""
    release = asyncio.Event()
    talk.proxy.spoil = once(halves(at, release))
    await talk.give_up()
    asyncio.get_running_loop().call_later(0.01, release.set)  # the next request is out by then
    await talk.the_second_is_its_own()
    await talk.works()


async def check_second_half_never_comes(talk: Dialogue, at: int) -> None:
    """Bytes of two replies are never mixed into values: the connection ends or goes on, in step."""
    talk.proxy.spoil = once(lambda chunk: [chunk[:at]])
    await talk.give_up()
    for _ in range(5):
        try:
            with suppress(TimeoutError):
                await talk.the_second_is_its_own(within_s=PATIENCE_S)
        except talk.out_of_step:
            await talk.driver.connect()
    await talk.works()


async def check_cut_in_the_middle(talk: Dialogue, at: int) -> None:
    """A connection that ends fails the waiting read at once, however much had come."""
    talk.proxy.spoil = cut_after(at)
    started = time.monotonic()
    with pytest.raises(TransientError, match="closed by the device"):
        await talk.read_first()
    assert time.monotonic() - started < FAIL_S_MAX
    await talk.works_after_reconnect()


CHECKS: Sequence[Check] = (
    check_silence,
    check_late_reply_is_not_the_next_ones,
    check_many_late_replies_at_once,
    check_reset,
    check_repeated_reply,
)


def torn(places: Mapping[TornCheck, list[int]]) -> list[tuple[TornCheck, int]]:
    """Each check at each of its places: bytes of a reply that come before it is torn there."""
    return [(check, at) for check, ats in places.items() for at in ats]


def name_of(item: object) -> str:
    """A check's name as a test's id; a place's number."""
    return getattr(item, "__name__", str(item)).removeprefix("check_")
