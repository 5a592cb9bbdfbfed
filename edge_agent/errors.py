"""Errors, classed by what the caller must do.

A library's own exceptions never cross a driver's or a sink's border: they are translated there,
with ``from``. ``hint`` is what a person should do next, most often a command to run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


class EdgeAgentError(Exception):
    """Base of every error that this package raises on purpose."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(EdgeAgentError):
    """The input is wrong. Reported whole, with place, value and what is allowed; exit code 2."""


class TransientError(EdgeAgentError):
    """The other side is away or busy. Close, back off, try the same thing again."""


class DeviceError(EdgeAgentError):
    """This block's tags are bad now; the connection is sound and is kept."""


class RefusedError(DeviceError):
    """The device has not got all of these cells; it may have some of them."""


class SilentUnitError(DeviceError):
    """A gateway says that the unit behind it does not answer."""


class JournalError(EdgeAgentError):
    """The journal file can't be used. Set it aside, start a new one, go on, shout."""


class FaultError(EdgeAgentError):
    """An error that nobody classed: a defect in a driver or a sink, contained where it happened."""


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Class whatever a driver or a sink raises against its contract as a ``FaultError``."""
    try:
        yield
    except (EdgeAgentError, TimeoutError):
        raise
    except Exception as error:
        raise FaultError(f"{what}: unexpected {type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """One sample that a destination refused for good.

    ``sequence`` names the batch, ``index`` the sample's position in it.
    """

    sequence: int
    index: int
    reason: str


class RejectedRows(EdgeAgentError):  # noqa: N818  (it names what it carries)
    """These rows were refused for good; every other row handed over was delivered.

    ``duplicates`` counts the delivered rows that the destination already had.
    """

    def __init__(self, rows: Sequence[RejectedRow], *, duplicates: int = 0) -> None:
        first = f": {rows[0].reason}" if rows else ""
        super().__init__(f"{len(rows)} rows rejected{first}")
        self.rows = tuple(rows)
        self.duplicates = duplicates
