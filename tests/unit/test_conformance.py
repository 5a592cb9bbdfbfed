"""The checks over every driver go red: a driver for each promise that it breaks."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import pytest

from edge_agent.errors import DeviceError, TransientError
from edge_agent.model import Address, LineTiming, ValueType
from edge_agent.planner import Block
from edge_agent.protocols import conformance
from edge_agent.protocols.base import Driver, Frames, Reply
from edge_agent.protocols.conformance import NOW_MS, Check, Rig, ServerCheck
from edge_agent.protocols.simulated import SimulatedDriver, signal

READABLE = [("9", ValueType.FLOAT32), ("3", ValueType.INT16), ("7", ValueType.BOOL)]


def rig(driver: type[Driver] = SimulatedDriver) -> Rig:
    return Rig(
        driver=driver,
        conn="sim://plant",
        readable=[(cell, kind, signal(1, int(cell), kind, NOW_MS)) for cell, kind in READABLE],
        unreadable=("60000", ValueType.INT16),
        bad_conns=["", "simulated", "tcp://h"],
        bad_addresses=["", "x", "-1", "65536", "1.5"],
        settle_s=0.0,
    )


@pytest.mark.parametrize("check", conformance.CHECKS, ids=conformance.name_of)
async def test_a_driver_that_keeps_the_contract_passes(check: Check) -> None:
    """The simulated one does."""
    await check(rig())


class Backwards(SimulatedDriver):
    """Values in another order than the block's tags."""

    async def read(self, block: Block) -> tuple[Reply]:
        [reply] = await super().read(block)
        return (Reply(reply.ts_ms, reply.values[::-1]),)


class OwnClock(SimulatedDriver):
    """Another clock than the one that it was given."""

    async def read(self, block: Block) -> tuple[Reply]:
        [reply] = await super().read(block)
        return (Reply(reply.ts_ms + 1, reply.values),)


class TooFew(SimulatedDriver):
    """A value is missing."""

    async def read(self, block: Block) -> tuple[Reply]:
        [reply] = await super().read(block)
        return (Reply(reply.ts_ms, reply.values[1:]),)


class NeedsNoConnection(SimulatedDriver):
    """Reads without a connection."""

    async def read(self, block: Block) -> tuple[Reply]:
        self._connected = True
        return await super().read(block)


class ClosesOnce(SimulatedDriver):
    """A close that wants a connection."""

    async def close(self) -> None:
        if not self._connected:
            raise TransientError("not connected")
        await super().close()


class InventsZero(SimulatedDriver):
    """0 where there is no value."""

    async def read(self, block: Block) -> tuple[Reply]:
        try:
            return await super().read(block)
        except DeviceError:
            return (Reply(NOW_MS, [0.0] * len(block.tags)),)


class SwallowsCancel(SimulatedDriver):
    """An error of its own in place of the cancellation."""

    async def read(self, block: Block) -> tuple[Reply]:
        try:
            for _ in range(3):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise TransientError("cancelled") from None
        return await super().read(block)


class LateReplies(SimulatedDriver):
    """The reply to a read that was given up becomes the next one's."""

    def __init__(self, conn: str, *, now_ms: Any) -> None:
        super().__init__(conn, now_ms=now_ms)
        self._replies: deque[tuple[Reply]] = deque()

    async def read(self, block: Block) -> tuple[Reply]:
        [reply] = await super().read(block)
        cell = block.start + len(self._replies)
        self._replies.append((Reply(reply.ts_ms, [value + cell for value in reply.values]),))
        await asyncio.sleep(0)
        [reply] = self._replies.popleft()
        return (Reply(reply.ts_ms, [value - block.start for value in reply.values]),)


class Shared(SimulatedDriver):
    """One connection for all its instances."""

    everybody: list[bool] = []  # noqa: RUF012  (that is the mistake)

    async def connect(self) -> None:
        self.everybody[:] = [True]
        self._connected = True

    async def read(self, block: Block) -> tuple[Reply]:
        self._connected = bool(self.everybody)
        return await super().read(block)

    async def close(self) -> None:
        self.everybody.clear()
        self._connected = False


class AnyConn(SimulatedDriver):
    """Takes what it should refuse."""

    @staticmethod
    def parse_conn(conn: str) -> str:
        return conn


class OtherErrors(SimulatedDriver):
    """An IndexError for an empty cell, which nobody catches."""

    @staticmethod
    def parse_address(address: str, value_type: ValueType) -> Address:
        if address[0] == "x":
            raise ValueError("no cell")
        return SimulatedDriver.parse_address(address, value_type)


class SaysNothing(SimulatedDriver):
    """A refusal without a word."""

    @staticmethod
    def parse_address(address: str, value_type: ValueType) -> Address:
        try:
            return SimulatedDriver.parse_address(address, value_type)
        except ValueError:
            raise ValueError from None


class LocatesAnything(SimulatedDriver):
    """Its addresses depend on the connection, and there it takes what it should refuse."""

    @staticmethod
    def locate(conn: str, address: str, value_type: ValueType) -> Address:
        try:
            return SimulatedDriver.parse_address(address, value_type)
        except ValueError:
            return Address("cells", 0)


class LocatesOutside(SimulatedDriver):
    """An offset below the area's first cell, on this connection."""

    @staticmethod
    def locate(conn: str, address: str, value_type: ValueType) -> Address:
        where = SimulatedDriver.parse_address(address, value_type)
        return Address(where.area, where.offset - len(conn))


class TakesNoTime(SimulatedDriver):
    """Its replies would be there before they are sent."""

    @staticmethod
    def timing(conn: str) -> LineTiming:
        return LineTiming("cell", 16, 8, 8, pause_s=-1.0)


class OtherFrames(SimulatedDriver):
    """Tells frames of other sizes than it sends."""

    frames = Frames(b"12345", b"1234567")

    @staticmethod
    def timing(conn: str) -> LineTiming:
        return LineTiming("cell", 16, 5, 8)


class OtherErrorsOnAConnection(SimulatedDriver):
    """A KeyError for a word that is no number."""

    @staticmethod
    def locate(conn: str, address: str, value_type: ValueType) -> Address:
        if not address.isascii():
            raise KeyError(address)
        return SimulatedDriver.parse_address(address, value_type)


class Forever(SimulatedDriver):
    """Would keep a connection waiting for ever."""

    def __init__(self, conn: str, *, now_ms: Any) -> None:
        super().__init__(conn, now_ms=now_ms)
        self.timeout_s = math.inf


class ConnectsOnce(SimulatedDriver):
    """Wants to be closed before it is connected again."""

    async def connect(self) -> None:
        if self._connected:
            raise TransientError("connected already")
        await super().connect()


@pytest.mark.parametrize(
    ("driver", "check", "complaint"),
    [
        (Backwards, "values_stand_in_the_order_of_the_blocks_tags", "it must be"),
        (OwnClock, "one_tag_alone", "ts_ms is"),
        (TooFew, "one_tag_alone", "0 values for the 1 tags asked"),
        (NeedsNoConnection, "read_needs_a_connection", "must be a TransientError, and succeeded"),
        (InventsZero, "unreadable_address_costs_its_own_block_only", "can't be read, and is 0.0"),
        (SwallowsCancel, "cancel_and_go_on", "must end with CancelledError"),
        (LateReplies, "cancel_and_go_on", "it must be"),
        (AnyConn, "bad_cells_are_value_errors", "must be a ValueError, and was taken"),
        (OtherErrors, "bad_cells_are_value_errors", "IndexError"),
        (OtherErrors, "garbage_in_cells", "IndexError"),
        (SaysNothing, "garbage_in_cells", "the ValueError says nothing"),
        (LocatesAnything, "bad_cells_are_value_errors", "must be a ValueError, and was taken"),
        (LocatesOutside, "good_cells_are_taken", "does not fit"),
        (TakesNoTime, "good_cells_are_taken", "no request can take this"),
        (OtherFrames, "one_tag_alone", "frames of (5, 7) bytes, timing says (5, 10)"),
        (OtherErrorsOnAConnection, "garbage_in_cells", "on sim://plant as BOOL: KeyError"),
        (Forever, "timeout_is_a_sensible_time", "timeout_s is inf"),
    ],
)
async def test_a_broken_promise_is_found(driver: type[Driver], check: str, complaint: str) -> None:
    """The check of that name says what was broken."""
    with pytest.raises(AssertionError) as found:
        await named(check)(rig(driver))
    assert complaint in str(found.value)


@pytest.mark.parametrize(
    ("driver", "check"),
    [
        (ClosesOnce, "close_in_any_state"),
        (ConnectsOnce, "connect_again_after_close"),
        (Shared, "two_drivers_do_not_meet"),
    ],
)
async def test_an_error_of_the_drivers_own_is_shown(driver: type[Driver], check: str) -> None:
    """Where nothing may be raised, the driver's own error says more than the check could."""
    with pytest.raises(TransientError):
        await named(check)(rig(driver))


def named(name: str) -> Check:
    [check] = [check for check in conformance.CHECKS if conformance.name_of(check) == name]
    return check


# -- a device that can be away ------------------------------------------------------------------


class Wire:
    """A device in this process: it may be paused and dead, and answers what waits when resumed."""

    def __init__(self) -> None:
        self.alive = True
        self.life = 0
        self.answering = asyncio.Event()
        self.answering.set()

    def pause(self) -> None:
        self.answering.clear()

    def resume(self) -> None:
        self.answering.set()

    def kill(self) -> None:
        self.alive = False
        self.answering.set()

    def start(self) -> None:
        self.alive = True
        self.life += 1


class OverWire(SimulatedDriver):
    """The simulated driver, behind a wire."""

    wire: Wire
    life = 0

    async def connect(self) -> None:
        self.alive()
        self.life = self.wire.life
        await super().connect()

    async def read(self, block: Block) -> tuple[Reply]:
        if self._connected:
            await self.answer()
            if self.life != self.wire.life:
                raise TransientError("gone")
            self.alive()
        return await super().read(block)

    async def answer(self) -> None:
        await self.wire.answering.wait()

    def alive(self) -> None:
        if not self.wire.alive:
            raise TransientError("gone")


class Blocks(OverWire):
    """Holds everybody up while its own device is silent."""

    async def answer(self) -> None:
        if not self.wire.answering.is_set():
            time.sleep(conformance.STILL_S_MAX + 0.05)
        await super().answer()


class Slow(OverWire):
    """Sees a dead connection late."""

    async def answer(self) -> None:
        await super().answer()
        if not self.wire.alive:
            await asyncio.sleep(conformance.FAIL_S_MAX + 0.05)


class Remembers(OverWire):
    """Goes on with the last values of a device that is away."""

    last: tuple[Reply] | None = None

    async def read(self, block: Block) -> tuple[Reply]:
        if not self.wire.alive and self._connected and self.last is not None:
            return self.last
        self.last = await super().read(block)
        return self.last


@pytest.mark.parametrize("check", conformance.SERVER_CHECKS, ids=conformance.name_of)
async def test_a_driver_that_notices_passes(
    check: ServerCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paused, killed, started again."""
    wire = Wire()
    monkeypatch.setattr(OverWire, "wire", wire, raising=False)
    await check(rig(OverWire), wire)


@pytest.mark.parametrize(
    ("driver", "complaints"),
    [
        (Blocks, ["the event loop stood still for", "", ""]),
        (Slow, ["noticed after", "noticed after", ""]),
        (Remembers, ["must be a TransientError", "must be a TransientError", ""]),
    ],
)
async def test_a_driver_that_does_not_notice_is_found(
    driver: type[Driver], complaints: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that blocks, one that is slow, one that makes values up."""
    for check, complaint in zip(conformance.SERVER_CHECKS, complaints, strict=True):
        if complaint:
            wire = Wire()
            monkeypatch.setattr(OverWire, "wire", wire, raising=False)
            with pytest.raises(AssertionError, match=complaint):
                await check(rig(driver), wire)
