"""How a tag and a device are: fine, close to a limit, out of limits, or silent; and since when.

Pure: a `Look` goes in, `Judgement`s come out. A limit itself is still fine; what is beyond it is
out of limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from dashboard.live.plant import BAD, GOOD, Device, LiveTag, Look

NEAR_PART = 0.05
"""A value closer to a limit than this part of hi..lo (or of the limit, where it is the only one) is
a warning: late enough not to cry wolf, early enough to act."""
NEAR_MS = 30_000
"""Only who stays close to a limit for so long is a warning; what touches it in passing is none."""
SILENT_PERIODS = 3
"""A tag without a new value for so many of its periods is silent; one missed scan is not."""
SILENT_MIN_MS = 5_000
"""No tag is called silent sooner: a commit or a busy PLC may take a few seconds."""
SILENT_DEFAULT_MS = 120_000
"""For tags whose period is not known: histories of one-minute values are up to two minutes old."""


class State(StrEnum):
    """How something is, from worst to best where a device has several."""

    ALARM = "alarm"
    STALE = "stale"
    WARNING = "warning"
    OK = "ok"


class Reason(StrEnum):
    """Why a tag is not fine."""

    ABOVE_HI = "above_hi"
    BELOW_LO = "below_lo"
    NEAR_HI = "near_hi"
    NEAR_LO = "near_lo"
    SILENT = "silent"
    BAD = "bad"


_STATES = {
    Reason.ABOVE_HI: State.ALARM,
    Reason.BELOW_LO: State.ALARM,
    Reason.NEAR_HI: State.WARNING,
    Reason.NEAR_LO: State.WARNING,
    Reason.SILENT: State.STALE,
    Reason.BAD: State.STALE,
}


NEAR = frozenset({Reason.NEAR_HI, Reason.NEAR_LO})


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a tag is not fine, and since when (ms UTC)."""

    reason: Reason
    since_ms: int

    @property
    def state(self) -> State:
        """How bad it is."""
        return _STATES[self.reason]


def reason_of(tag: LiveTag, value: float | None, age_ms: int | None, quality: str) -> Reason | None:
    """Why a tag is not fine; None if it is. ``age_ms`` is None if it was never read."""
    if quality == GOOD and value is not None and age_ms is not None:
        period_ms = tag.period_ms
        silent_ms = (
            SILENT_DEFAULT_MS
            if period_ms is None
            else max(SILENT_PERIODS * period_ms, SILENT_MIN_MS)
        )
        return Reason.SILENT if age_ms > silent_ms else _limit_reason(tag, value)
    return Reason.BAD if quality == BAD else Reason.SILENT


def _limit_reason(tag: LiveTag, value: float) -> Reason | None:
    hi, lo = tag.hi, tag.lo
    if hi is not None and value > hi:
        return Reason.ABOVE_HI
    if lo is not None and value < lo:
        return Reason.BELOW_LO
    span = hi - lo if hi is not None and lo is not None else None
    if hi is not None and value > hi - NEAR_PART * (abs(hi) if span is None else span):
        return Reason.NEAR_HI
    if lo is not None and value < lo + NEAR_PART * (abs(lo) if span is None else span):
        return Reason.NEAR_LO
    return None


class Judge:
    """Remembers since when each tag has been in its trouble; one layout only."""

    def __init__(self, tags: Sequence[LiveTag]) -> None:
        self._tags = tags
        self._near_ms: dict[int, int] = {}
        """Since when a tag has been close to a limit, by position."""
        self.troubles: dict[int, Trouble] = {}
        """By position; tags that are fine are not in it."""

    def judge(self, look: Look) -> set[int]:
        """Take a look into account; returns the positions whose trouble is another one now."""
        changed = set()
        columns = zip(self._tags, look.values, look.ts_ms, look.qualities, strict=True)
        for position, (tag, value, ts_ms, quality) in enumerate(columns):
            age_ms = None if ts_ms is None else look.now_ms - ts_ms
            reason = reason_of(tag, value, age_ms, quality)
            known = self.troubles.get(position)
            if reason in NEAR:
                near_ms = self._near_ms.setdefault(position, look.now_ms)
                if look.now_ms - near_ms < NEAR_MS:
                    reason = None
            else:
                self._near_ms.pop(position, None)
            if (known.reason if known else None) == reason:
                continue
            changed.add(position)
            if reason is None:
                del self.troubles[position]
            else:
                since_ms = self._near_ms.get(position, look.now_ms if ts_ms is None else ts_ms)
                self.troubles[position] = Trouble(reason, since_ms)
        return changed

    def date_back(self, position: int, since_ms: int) -> None:
        """Its trouble began earlier than we saw: a history knows."""
        known = self.troubles.get(position)
        if known is not None and since_ms < known.since_ms:
            self.troubles[position] = Trouble(known.reason, since_ms)

    def device(self, device: Device) -> tuple[State, int | None]:
        """A device's state, and since when (None while it is fine).

        It is silent only if all of its tags are: while one answers, the rest is a warning.
        """
        own = [self.troubles.get(position) for position in device.positions]
        troubles = [trouble for trouble in own if trouble is not None]
        if not troubles:
            return State.OK, None
        alarms = [trouble for trouble in troubles if trouble.state is State.ALARM]
        if alarms:
            return State.ALARM, min(trouble.since_ms for trouble in alarms)
        since_ms = min(trouble.since_ms for trouble in troubles)
        if all(trouble is not None and trouble.state is State.STALE for trouble in own):
            return State.STALE, since_ms
        return State.WARNING, since_ms
