"""What a driver is.

A driver makes one attempt and says how it went; when to try, how long to wait and what to do
after a failure belong to the poller. It never sees the journal or a sink.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_agent.model import AddressSyntax
from edge_agent.planner import Block

WallClock = Callable[[], int]
"""Milliseconds since 1970 UTC."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Raw values of one block at one time.

    ``values[i]`` belongs to ``block.tags[i]``, or to ``block.tags[positions[i]]`` where positions
    are given; NaN marks a value that could not be decoded. ``ts_ms`` is the time at which the
    reply arrived, or the source's own time stamp where the protocol has one.
    """

    ts_ms: int
    values: Sequence[float]
    positions: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Frames:
    """One exchange as it was on the wire, for who wants to know why a value was bad."""

    request: bytes
    reply: bytes
    """Empty where none came."""


class Driver(AddressSyntax, Protocol):
    """One connection's driver. Its calls come one at a time, from one task.

    ``timeout_s`` is how long the caller waits for ``read`` before it cancels it. A driver may give
    up sooner, with a ``TimeoutError`` that says what it waited for.
    ``connect`` keeps to it by itself.

    Some members are optional: ``locate`` and ``timing``, as `AddressSyntax` says;
    ``close_after_scan`` (bool): the device wants the connection to be closed while nothing is due;
    ``frames`` (`Frames` or None): the last `read`'s exchange, also of one that failed; ``hint``
    (str): what `conn` should say instead, as the connection has shown, or "" where it suits;
    ``forget(block)``, a coroutine, for who keeps something of each block that it reads, as a
    subscription: this one will not be read again on this connection. Raises ``TransientError``.
    """

    timeout_s: float

    def __init__(self, conn: str, *, now_ms: WallClock) -> None: ...

    async def connect(self) -> None:
        """Make one attempt to connect. Raises ``TransientError``."""

    async def read(self, block: Block) -> Sequence[Reply]:
        """Make one attempt to read one block.

        A request and reply protocol gives one reply; a subscribing one gives what has arrived
        since the last call, oldest first, and never waits for more. Cancelling it (the poller's
        timeout) leaves the driver usable. Raises ``DeviceError`` when only this block is bad and
        ``TransientError`` when the connection is of no more use.
        """

    async def close(self) -> None:
        """Release the connection. Never raises; may be called in any state, also twice."""
