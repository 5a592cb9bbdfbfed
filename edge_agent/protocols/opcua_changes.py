"""From what an OPC UA server says of a block's nodes to replies. No I/O.

A server says two things. *This is a node's value*: with a status and with the time at which its
source had it. And, by any later answer that does not mention the node: *it is still so*. The poller
needs both, since a tag without samples is a silent tag to everyone behind it, and a map's
`period_ms` promises a sample a period. So:

* A value that arrives becomes a sample under its source's time stamp; the server's where there is
  none, or the time of arrival. A time before ``TIME_MS_MIN`` (a clock that was never set, or the
  zero of 1601) or more than ``AHEAD_MS_MAX`` in the future is no time stamp.
* A good value that did not change is repeated, once a read, under the time at which the server sent
  the newest answer that would have had the change in it: its clock, like the others, and a
  statement that it really made. No answer, no repetition: nothing is made up while a line is mute.
  `deadband` and `heartbeat_ms` thin these out as they do for any other protocol.
* Good and Uncertain give the value (Part 8, 6.4: uncertain is a usable value of a lower quality).
  Bad gives NaN, and so does what is no number.

Complaints are said once per tag and reason, with the tags of one reason in one line.
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from edge_agent.planner import Block
from edge_agent.protocols.base import Reply, WallClock
from edge_agent.protocols.opcua_wire import Change

log = logging.getLogger("edge_agent.protocols.opcua")

TIME_MS_MIN: Final = 946_684_800_000
"""2000-01-01: no PLC that speaks OPC UA has an older value; clocks that were never set do."""
AHEAD_MS_MAX: Final = 86_400_000
"""A day: more than any time zone mistake, less than what would hurt a database's partitions."""
TAGS_SHOWN_MAX: Final = 4
"""Of one complaint; a dead PLC behind a server makes all of its tags bad at once."""

# Part 4, 7.39.1: info type and overflow are bits 10 and 7.
_OVERFLOW: Final = 0x0480


class Changes:
    """What is known of a block's nodes; positions are those of ``block.tags``."""

    def __init__(self, block: Block, where: str, now_ms: WallClock) -> None:
        self._tags = block.tags
        self._where = where
        self._now_ms = now_ms
        size = len(block.tags)
        self._values = [math.nan] * size
        """Newest value, NaN where bad or never heard of."""
        self._polled: list[tuple[int | None, float] | None] = [None] * size
        """Newest value as a poll saw it, with the time stamp that it had there."""
        self._complaints: dict[int, str] = {}
        self._said: set[tuple[int, str]] = set()
        self._overflowed: set[int] = set()

    def replies(self, arrived: Iterable[Change], confirmed_ms: int | None = None) -> list[Reply]:
        """Replies for what arrived, in the order of arrival, oldest first.

        ``confirmed_ms`` is when the server sent an answer after which it had nothing more to say,
        if one has come since the last call: what is not in ``arrived`` is repeated under that time.
        """
        now_ms = self._now_ms()
        latest_ms = now_ms + AHEAD_MS_MAX
        values = self._values
        samples: list[tuple[int, int, float]] = []
        newest: dict[int, int] = {}
        complaints: dict[int, str] = {}
        sorted_by_time = True
        for position, value, status, complaint, source_ms, server_ms in arrived:
            if source_ms is not None and TIME_MS_MIN <= source_ms <= latest_ms:
                ts_ms = source_ms
            elif server_ms is not None and TIME_MS_MIN <= server_ms <= latest_ms:
                ts_ms = server_ms
            else:
                ts_ms = now_ms
            if ts_ms < newest.get(position, 0):
                sorted_by_time = False  # its clock stepped back; what came last is still the newest
            newest[position] = ts_ms
            complaints[position] = complaint
            values[position] = value
            if status & _OVERFLOW == _OVERFLOW:
                self._overflowed.add(position)
            samples.append((ts_ms, position, value))
        self._say(complaints)
        if confirmed_ms is not None:
            ts_ms = confirmed_ms if TIME_MS_MIN <= confirmed_ms <= latest_ms else now_ms
            samples += [
                (ts_ms, position, value)
                for position, value in enumerate(values)
                if position not in newest and not math.isnan(value)
            ]
        if sorted_by_time:
            samples.sort(key=_time_of)
        return _grouped(samples, len(self._tags))

    def polled(self, changes: Sequence[Change], confirmed_ms: int) -> list[Reply]:
        """Replies for one answer to a poll, which has all nodes."""
        arrived = []
        polled = self._polled
        for change in changes:
            position, value, _, _, source_ms, server_ms = change
            stamp_ms = server_ms if source_ms is None else source_ms
            seen = polled[position]
            # NaN differs from itself: what is bad is said each time.
            if seen is None or stamp_ms is None or value != seen[1] or stamp_ms != seen[0]:
                arrived.append(change)
                polled[position] = (stamp_ms, value)
        return self.replies(arrived, confirmed_ms)

    def forget(self) -> None:
        """The next poll is told whole, since the poller has taken the tags for bad meanwhile."""
        self._polled = [None] * len(self._tags)

    def lost(self, count: int) -> None:
        """So many changes had to be dropped."""
        log.warning(
            "%s: %d changes lost: they were not read in time, or came too fast", self._where, count
        )

    def _say(self, complaints: Mapping[int, str]) -> None:
        """Log what has become bad, once, and what has become good again."""
        fresh: dict[str, list[int]] = defaultdict(list)
        well = []
        for position, complaint in complaints.items():
            known = self._complaints.get(position, "")
            if complaint == known:
                continue
            if complaint:
                self._complaints[position] = complaint
                fresh[complaint].append(position)
            else:
                del self._complaints[position]
                well.append(position)
        for complaint, positions in fresh.items():
            new = [p for p in positions if (p, complaint) not in self._said]
            self._said |= {(position, complaint) for position in new}
            level = logging.WARNING if new else logging.DEBUG
            log.log(level, "%s: %s: %s", self._where, self._named(new or positions), complaint)
        if well:
            log.info("%s: %s: good again", self._where, self._named(well))
        overflowed = [p for p in sorted(self._overflowed) if (p, "overflow") not in self._said]
        if overflowed:
            self._said |= {(position, "overflow") for position in overflowed}
            log.warning(
                "%s: %s: the server's queue was full and changes were lost; a larger queue_size"
                " or a longer sampling_ms in `conn` helps, as far as the server allows it",
                self._where,
                self._named(overflowed),
            )

    def _named(self, positions: Sequence[int]) -> str:
        names = [
            f"{self._tags[position].device}/{self._tags[position].tag}"
            f" ({self._tags[position].address})"
            for position in positions[:TAGS_SHOWN_MAX]
        ]
        more = len(positions) - len(names)
        counted = "1 tag" if len(positions) == 1 else f"{len(positions)} tags"
        return f"{counted}: {', '.join(names)}" + (f" and {more} more" if more else "")


def _time_of(sample: tuple[int, int, float]) -> int:
    return sample[0]


def _grouped(samples: Iterable[tuple[int, int, float]], size: int) -> list[Reply]:
    """One reply for all that follow each other with the same time; a tag stands in it once."""
    groups: list[tuple[int, dict[int, float]]] = []
    for ts_ms, position, value in samples:
        if not groups or groups[-1][0] != ts_ms or position in groups[-1][1]:
            groups.append((ts_ms, {}))
        groups[-1][1][position] = value
    replies = []
    for ts_ms, group in groups:
        positions = sorted(group)
        values = [group[position] for position in positions]
        replies.append(Reply(ts_ms, values, _unless_all(positions, size)))
    return replies


def _unless_all(positions: Sequence[int], size: int) -> Sequence[int] | None:
    return None if len(positions) == size else positions
