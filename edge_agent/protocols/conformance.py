"""What every driver does, as checks that anybody can run on theirs.

A `Rig` says what a driver's own device has: addresses that can be read with the values that stand
there, one that can't, and cells that are wrong. Each check takes a rig, and raises
``AssertionError`` with a sentence when the driver breaks the contract of base.py:

* `CHECKS` need a device that answers;
* `SERVER_CHECKS` also need to stop, kill and start it (`Device`): a device is away more often than
  its library's author thought.

They need no test framework. With pytest::

    @pytest.mark.parametrize("check", conformance.CHECKS, ids=conformance.name_of)
    async def test_the_contract(check: conformance.Check, rig: conformance.Rig) -> None:
        await check(rig)

The agent runs on uvloop, whose transports differ from asyncio's in what they raise and when: run
them on both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf, isnan
from typing import Any, Final, Protocol

from edge_agent.bus_load import frame_bytes
from edge_agent.errors import DeviceError, TransientError
from edge_agent.model import Tag, ValueType, locate, timing_of
from edge_agent.planner import Block, plan
from edge_agent.protocols.base import Driver, Reply

NOW_MS: Final = 1_755_432_000_123
"""The wall clock that a driver under test is given."""
READ_S_MAX: Final = 5.0
"""When a read or connect is given up that must succeed: generous, for a busy machine."""
FAIL_S_MAX: Final = 0.5
"""How soon a dead connection must be noticed."""
TIMEOUT_S_MAX: Final = 60.0
"""No device is so slow that a scan may wait longer for it."""
PATIENCE_S: Final = 0.02
"""When a read is given up that a stopped device can't answer."""
STILL_S_MAX: Final = 0.3
"""How long the event loop may stand still: it is every other connection's too."""
CANCELS: Final = 8
"""Reads that are cancelled, each one turn of the event loop later than the one before."""
POLL_S: Final = 0.01
"""How often a subscribing driver is asked for what has arrived."""
SHOWN_CHARACTERS: Final = 20
"""Of a text that was not refused in order."""
GARBAGE: Final = (
    "", " ", "\0", "?", "://", "//", ":", "-1", "1e9", "９", "값", "x" * 10_000, "9" * 400,
    "tcp://[", "http://h:99999", "a://b?c=d&c=e", "%ff", "1.2.3.4.5",
)  # fmt: skip
"""Texts that stand in somebody's spreadsheet. What is refused must be refused in order."""


class Device(Protocol):
    """The device behind a rig, as far as it can be made to fail. A process, most often."""

    def pause(self) -> None:
        """Answer nothing any more; the kernel still takes connections and requests.

        Returns once it has stopped: of a process that gets SIGSTOP, all threads.
        """

    def resume(self) -> None:
        """Answer again, what has been asked meanwhile too."""

    def kill(self) -> None:
        """End without a word. It may be paused."""

    def start(self) -> object:
        """Begin again at the same place, with the same values, and wait until it answers."""


@dataclass(frozen=True)
class Rig:
    """What the checks need to know of a driver and of the device that it is tried on.

    Values must not change while the checks run. ``settle_s`` is how long the device needs after a
    request that was cancelled; ``subscribes`` says that `read` gives what has arrived, not a whole
    reply.
    """

    driver: type[Driver]
    conn: str
    readable: Sequence[tuple[str, ValueType, float]]
    """Addresses and types with the raw values that stand there; of one area at least two."""
    unreadable: tuple[str, ValueType]
    """A valid address that this device does not have."""
    bad_conns: Sequence[str]
    bad_addresses: Sequence[str]
    """Wrong with the type of the first readable address."""
    settle_s: float = 0.03
    subscribes: bool = False
    name: str = ""
    """The protocol's, for the tags; most drivers do not look at it."""

    def tag(self, name: str, address: str, value_type: ValueType) -> Tag:
        """A tag of this rig."""
        return Tag(
            site="S",
            line="L",
            device="D",
            tag=name,
            protocol=self.name,
            conn=self.conn,
            unit_id=1,
            address=address,
            type=value_type,
            scale=1.0,
            offset=0.0,
            period_ms=1000,
            unit="",
        )

    def blocks(self, tags: Sequence[Tag]) -> tuple[Block, ...]:
        """The tags as the planner shares them out."""
        [connection] = plan(tags, lambda _: self.driver)
        return connection.scan_classes[0].blocks

    def all_blocks(self) -> tuple[Block, ...]:
        """Everything readable; tag ``t3`` is the fourth of `readable`."""
        return self.blocks(
            [
                self.tag(f"t{place}", address, value_type)
                for place, (address, value_type, _) in enumerate(self.readable)
            ]
        )

    def new_driver(self) -> Driver:
        """A driver that is not connected."""
        return self.driver(self.conn, now_ms=lambda: NOW_MS)


Check = Callable[[Rig], Coroutine[Any, Any, None]]
ServerCheck = Callable[[Rig, Device], Coroutine[Any, Any, None]]

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
"""asyncio's or uvloop's ``new_event_loop``."""


def name_of(check: Check | ServerCheck) -> str:
    """A check's name, for a list of tests."""
    return str(getattr(check, "__name__", check)).removeprefix("check_")


def _require(holds: bool, sentence: str) -> None:
    """Raise ``AssertionError``, also where ``assert`` is switched off."""
    if not holds:
        raise AssertionError(sentence)


@dataclass
class _Line:
    """A driver that is connected, and what has been read over it."""

    rig: Rig
    driver: Driver
    known: dict[str, float] = field(default_factory=dict)

    async def read(self, block: Block) -> list[float]:
        """A block's values, in the order of its tags."""
        async with asyncio.timeout(READ_S_MAX):
            if not self.rig.subscribes:
                return self._whole(block, await self.driver.read(block))
            while True:
                for reply in await self.driver.read(block):
                    self._keep(block, reply)
                if all(tag.tag in self.known for tag in block.tags):
                    return [self.known[tag.tag] for tag in block.tags]
                await asyncio.sleep(POLL_S)

    def _whole(self, block: Block, replies: Sequence[Reply]) -> list[float]:
        _require(len(replies) == 1, f"one read, one reply: there are {len(replies)}")
        [reply] = replies
        wanted = len(block.tags)
        _require(reply.positions is None, "a whole reply needs no positions")
        _require(
            len(reply.values) == wanted, f"{len(reply.values)} values for the {wanted} tags asked"
        )
        _require(
            reply.ts_ms == NOW_MS,
            f"ts_ms is {reply.ts_ms}; the clock that the driver was given says {NOW_MS}",
        )
        return list(reply.values)

    def _keep(self, block: Block, reply: Reply) -> None:
        positions = range(len(block.tags)) if reply.positions is None else reply.positions
        for place, value in zip(positions, reply.values, strict=True):
            self.known[block.tags[place].tag] = value

    async def read_all(self) -> None:
        """Everything that the rig has, with the values that must stand there."""
        for block in self.rig.all_blocks():
            values = await self.read(block)
            for tag, value in zip(block.tags, values, strict=True):
                address, value_type, expected = self.rig.readable[int(tag.tag[1:])]
                _require(
                    value == expected,
                    f"{address} as {value_type} is {value!r}, it must be {expected!r}",
                )


@asynccontextmanager
async def _connected(rig: Rig) -> AsyncIterator[_Line]:
    driver = rig.new_driver()
    await _connect(driver)
    try:
        yield _Line(rig, driver)
    finally:
        await driver.close()


async def _connect(driver: Driver) -> None:
    async with asyncio.timeout(READ_S_MAX):
        await driver.connect()


async def _fails(what: str, attempt: Awaitable[object]) -> None:
    """An attempt must fail with a TransientError that says something, and soon."""
    started = time.monotonic()
    try:
        async with asyncio.timeout(READ_S_MAX):
            await attempt
    except TransientError as error:
        _require(bool(str(error).strip()), f"{what}: the TransientError says nothing")
    else:
        raise AssertionError(f"{what}: this must be a TransientError, and succeeded")
    took_s = time.monotonic() - started
    _require(took_s < FAIL_S_MAX, f"{what}: noticed after {took_s:.2f} s, must be {FAIL_S_MAX:g} s")


# With a device that answers.


async def check_values_stand_in_the_order_of_the_blocks_tags(rig: Rig) -> None:
    """Every reply has one value per tag, in the block's order, and the time of its arrival."""
    async with _connected(rig) as line:
        await line.read_all()
        await line.read_all()


async def check_one_tag_alone(rig: Rig) -> None:
    """A block of one tag is a sequence of one value; its frames have the sizes of `timing`."""
    timing = timing_of(rig.driver, rig.conn)
    for place, (address, value_type, expected) in enumerate(rig.readable):
        [block] = rig.blocks([rig.tag(f"t{place}", address, value_type)])
        async with _connected(rig) as line:
            [value] = await line.read(block)
            frames = getattr(line.driver, "frames", None)
        _require(value == expected, f"{address} alone is {value!r}, it must be {expected!r}")
        if timing is not None and frames is not None:
            sizes, told = (len(frames.request), len(frames.reply)), frame_bytes(block, timing)
            _require(sizes == told, f"{address}: frames of {sizes} bytes, timing says {told}")


async def check_read_needs_a_connection(rig: Rig) -> None:
    """Before connect and after close, read is a TransientError: connect, then try again."""
    driver = rig.new_driver()
    block = rig.all_blocks()[0]
    await _fails("read before connect", driver.read(block))
    await _connect(driver)
    await driver.close()
    await _fails("read after close", driver.read(block))


async def check_close_in_any_state(rig: Rig) -> None:
    """Close never raises: before connect, after it, and twice."""
    driver = rig.new_driver()
    await driver.close()
    await _connect(driver)
    await driver.close()
    await driver.close()


async def check_connect_again_after_close(rig: Rig) -> None:
    """A closed driver can be connected again, many times, also without the close."""
    driver = rig.new_driver()
    for _ in range(5):
        await _connect(driver)
        await _Line(rig, driver).read_all()
        await driver.close()
    await _connect(driver)
    await _connect(driver)
    await _Line(rig, driver).read_all()
    await driver.close()


async def check_two_drivers_do_not_meet(rig: Rig) -> None:
    """Nothing is shared between connections: closing one leaves the other."""
    async with _connected(rig) as line:
        async with _connected(rig) as other:
            await other.read_all()
            await line.read_all()
        await line.read_all()


async def check_unreadable_address_costs_its_own_block_only(rig: Rig) -> None:
    """What can't be read is a DeviceError or NaN, and every other block is read as before."""
    [unreadable] = rig.blocks([rig.tag("bad", *rig.unreadable)])
    async with _connected(rig) as line:
        for _ in range(3):
            try:
                [value] = await line.read(unreadable)
            except DeviceError as error:
                _require(bool(str(error).strip()), "the DeviceError says nothing")
            else:
                _require(isnan(value), f"{rig.unreadable[0]} can't be read, and is {value!r}")
            await line.read_all()


async def check_cancel_and_go_on(rig: Rig) -> None:
    """A read that is cancelled at any point leaves the driver usable and in step."""
    blocks = rig.all_blocks()
    async with _connected(rig) as line:
        for turns in range(CANCELS):
            task = asyncio.ensure_future(line.driver.read(blocks[turns % len(blocks)]))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            [ended] = await asyncio.gather(task, return_exceptions=True)
            _require(
                isinstance(ended, asyncio.CancelledError | Sequence),
                f"a cancelled read must end with CancelledError, not {ended!r}",
            )
            await asyncio.sleep(rig.settle_s)
            await line.read_all()


async def check_timeout_is_a_sensible_time(rig: Rig) -> None:
    """The poller's timeout comes from the driver."""
    timeout_s = rig.new_driver().timeout_s
    _require(0 < timeout_s <= TIMEOUT_S_MAX, f"timeout_s is {timeout_s!r}; up to {TIMEOUT_S_MAX:g}")


async def check_good_cells_are_taken(rig: Rig) -> None:
    """`conn` and `address` of the rig are valid, a request may hold any value, and takes time."""
    rig.driver.parse_conn(rig.conn)
    for address, value_type, _ in rig.readable:
        where = locate(rig.driver, rig.conn, address, value_type)
        limits = rig.driver.limits(rig.conn, where.area)
        _require(
            0 < where.width <= limits.span_max and limits.gap_max >= -1 and where.offset >= 0,
            f"{address} as {value_type}: {where} does not fit {limits}",
        )
    timing = timing_of(rig.driver, rig.conn)
    if timing is not None:
        sizes = timing.cell_bits, timing.request_bytes, timing.reply_bytes
        times = timing.character_s, timing.silence_s, timing.pause_s, timing.connect_pause_s
        _require(
            min(sizes) > 0
            and timing.connect_round_trips >= 0
            and all(0 <= time_s < inf for time_s in times)
            and bool(timing.cell.strip()),
            f"no request can take this: {timing}",
        )


async def check_bad_cells_are_value_errors(rig: Rig) -> None:
    """A wrong `conn` or `address` is a ValueError with a text, for the map's report."""
    value_type = rig.readable[0][1]
    driver = rig.driver
    for conn in rig.bad_conns:
        _refused(f"parse_conn({conn!r})", partial(driver.parse_conn, conn))
        _refused(f"the driver of {conn!r}", partial(driver, conn, now_ms=lambda: NOW_MS))
    for address in rig.bad_addresses:
        attempt = partial(locate, driver, rig.conn, address, value_type)
        _refused(f"address {address!r}", attempt)


async def check_garbage_in_cells(rig: Rig) -> None:
    """Whatever stands in a cell is taken or is a ValueError, for every type; nothing else."""
    for text in GARBAGE:
        shown = repr(text[:SHOWN_CHARACTERS])
        _may_refuse(f"parse_conn({shown})", partial(rig.driver.parse_conn, text))
        for value_type in ValueType:
            attempt = partial(rig.driver.parse_address, text, value_type)
            _may_refuse(f"parse_address({shown}, {value_type})", attempt)
            attempt = partial(locate, rig.driver, rig.conn, text, value_type)
            _may_refuse(f"address {shown} on {rig.conn} as {value_type}", attempt)


def _may_refuse(what: str, attempt: Callable[[], object]) -> bool:
    """Whether it was refused, which only a ValueError with a text may do."""
    try:
        attempt()
    except ValueError as error:
        _require(bool(str(error).strip()), f"{what}: the ValueError says nothing")
        return True
    except Exception as error:
        raise AssertionError(f"{what}: {error!r}, must be a ValueError") from error
    return False


def _refused(what: str, attempt: Callable[[], object]) -> None:
    _require(_may_refuse(what, attempt), f"{what}: this must be a ValueError, and was taken")


# With a device that can be away.


async def check_killed_while_a_read_waits(rig: Rig, device: Device) -> None:
    """A connection that drops fails the waiting read at once, not after its timeout."""
    block = rig.all_blocks()[0]
    async with _connected(rig) as line:
        await line.read_all()
        device.pause()
        task = asyncio.ensure_future(line.driver.read(block))
        started = time.monotonic()
        await asyncio.sleep(PATIENCE_S)
        stood_s = time.monotonic() - started - PATIENCE_S
        _require(stood_s < STILL_S_MAX, f"the event loop stood still for {stood_s:.2f} s")
        _require(not task.done() or rig.subscribes, f"read while the device is silent: {task!r}")
        device.kill()
        if not task.done():
            await _fails("read while the device dies", task)
        await _fails("read after the device died", _until_it_fails(line, block))


async def check_killed_between_reads(rig: Rig, device: Device) -> None:
    """The next read fails at once; so does connect, until the device is back."""
    block = rig.all_blocks()[0]
    async with _connected(rig) as line:
        await line.read_all()
        device.kill()
        await _fails("read after the device died", _until_it_fails(line, block))
        await line.driver.close()
        await _fails("connect while nobody listens", line.driver.connect())
        await _fails("read after a connect that failed", line.driver.read(block))
        device.start()
        await _connect(line.driver)
        await _Line(rig, line.driver).read_all()


async def _until_it_fails(line: _Line, block: Block) -> None:
    """One read; of a subscribing driver, whose reads take what is there, as many as it needs."""
    await line.driver.read(block)
    while line.rig.subscribes:
        await asyncio.sleep(POLL_S)
        await line.driver.read(block)


async def check_silent_device_and_cancelled_reads(rig: Rig, device: Device) -> None:
    """Replies to reads that were given up are not taken for the replies to later ones."""
    async with _connected(rig) as line:
        await line.read_all()
        device.pause()
        try:
            for block in rig.all_blocks():
                await _give_up(line, block)
        finally:
            device.resume()
        await asyncio.sleep(rig.settle_s)
        await line.read_all()


async def _give_up(line: _Line, block: Block) -> None:
    """A read that gets no reply in time, as the poller cancels it."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await line.driver.read(block)
    except TimeoutError:
        return
    _require(line.rig.subscribes, "a read succeeded while the device was stopped")


CHECKS: Final[tuple[Check, ...]] = (
    check_values_stand_in_the_order_of_the_blocks_tags,
    check_one_tag_alone,
    check_read_needs_a_connection,
    check_close_in_any_state,
    check_connect_again_after_close,
    check_two_drivers_do_not_meet,
    check_unreadable_address_costs_its_own_block_only,
    check_cancel_and_go_on,
    check_timeout_is_a_sensible_time,
    check_good_cells_are_taken,
    check_bad_cells_are_value_errors,
    check_garbage_in_cells,
)
SERVER_CHECKS: Final[tuple[ServerCheck, ...]] = (
    check_killed_while_a_read_waits,
    check_killed_between_reads,
    check_silent_device_and_cancelled_reads,
)
