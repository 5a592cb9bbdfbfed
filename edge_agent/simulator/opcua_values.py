"""The values of a simulated OPC UA server's nodes: a pure function of tag, step and faults.

Sources: OPC UA Part 4, 7.11 (a value with a bad status is null); Part 6, 5.1.2 (types).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from asyncua import ua

from edge_agent.model import Tag, ValueType
from edge_agent.simulator.faults import Fault, Kind, ListenerFaults
from edge_agent.simulator.signals import STEP_MS, SignalBank

TYPES: Final[Mapping[ValueType, tuple[Any, Callable[[float], float]]]] = {
    ValueType.BOOL: (ua.VariantType.Boolean, bool),
    ValueType.INT8: (ua.VariantType.SByte, int),
    ValueType.UINT8: (ua.VariantType.Byte, int),
    ValueType.INT16: (ua.VariantType.Int16, int),
    ValueType.UINT16: (ua.VariantType.UInt16, int),
    ValueType.INT32: (ua.VariantType.Int32, int),
    ValueType.UINT32: (ua.VariantType.UInt32, int),
    ValueType.INT64: (ua.VariantType.Int64, int),
    ValueType.UINT64: (ua.VariantType.UInt64, int),
    ValueType.FLOAT16: (
        ua.VariantType.Float,
        lambda raw: float(struct.unpack("<e", struct.pack("<e", raw))[0]),
    ),
    ValueType.FLOAT32: (ua.VariantType.Float, float),
    ValueType.FLOAT64: (ua.VariantType.Double, float),
}
"""Type of the variable, and what makes its value from a signal's."""


STATUSES: Final[Mapping[str, int]] = {
    name: code
    for name, code in vars(ua.StatusCodes).items()
    if name.startswith(("Bad", "Uncertain"))
}
"""Every status code that is not good, by its name."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BAD = 0x8000_0000


class _DataValue(ua.DataValue):  # type: ignore[misc]
    """asyncua copies each value for each monitored item, at 27 microseconds; nobody changes one."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class Values:
    """The values of a server's nodes, each made once a step at most; ``tags`` is their order."""

    def __init__(self, tags: Sequence[Tag], faults: ListenerFaults | None, now_ms: int) -> None:
        self._bank = SignalBank(tags)
        self.tags = self._bank.tags
        self.spoiled: Counter[str] = Counter()
        self._faults = faults
        self._statuses = [
            (fault, {place for place, tag in enumerate(self.tags) if fault.chooses(tag.address)})
            for fault in (faults.faults if faults is not None else ())
            if fault.kind is Kind.BAD_STATUS
        ]
        self._first_step = now_ms // STEP_MS
        self._step: int | None = None
        self._raws: list[float] = []
        self._made: list[Any] = []
        self._on: list[tuple[Fault, set[int]]] = []
        self._source_time = self._server_time = _EPOCH

    def at(self, place: int, step: int) -> Any:
        """A node's value at a step, with status and times."""
        if step != self._step:
            self._step = step
            self._raws = self._bank.raws(step)
            self._made = [None] * len(self.tags)
            self._source_time = _EPOCH + timedelta(milliseconds=step * STEP_MS)
            self._server_time = datetime.now(UTC)
            if self._statuses and self._faults is not None:
                at_s = self._faults.now_s()
                self._on = [one for one in self._statuses if one[0].on(at_s)]
        made = self._made[place]
        if made is None:
            made = self._made[place] = self._make(place, step)
        return made

    def _make(self, place: int, step: int) -> Any:
        kind, convert = TYPES[self.tags[place].type]
        status = self._status(place, step)
        return _DataValue(
            ua.Variant() if status & _BAD else ua.Variant(convert(self._raws[place]), kind),
            ua.StatusCode(status),
            SourceTimestamp=self._source_time,
            ServerTimestamp=self._server_time,
        )

    def _status(self, place: int, step: int) -> int:
        for fault, places in self._on:
            if (
                place in places
                and self._faults is not None
                and self._faults.hits(
                    fault, self.tags[place].address.encode(), step - self._first_step
                )
            ):
                self.spoiled[Kind.BAD_STATUS] += 1
                return STATUSES[str(fault.status)]
        return 0
