"""What the database says of itself: the rows of plc_health() (sql/085_health.sql)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from edge_agent.postgres.sql_files import queries


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One figure. ``value`` has the unit that ends the name of the ``check``.

    ``object`` is what was looked at: a table, a slot, a job. ``problem`` is None while all is well,
    else a sentence that says what to do.
    """

    check: str
    object: str
    value: float
    problem: str | None


@runtime_checkable
class Examined(Protocol):
    """A report of upkeep that brings what the database says of itself."""

    @property
    def health(self) -> tuple[HealthCheck, ...]:
        """Every check, in the order in which the database gave them."""


async def read_health(connection: Any) -> tuple[HealthCheck, ...]:
    """Every check; `ingest` and `viewer` may ask. The library's errors, and nothing is changed."""
    return tuple(HealthCheck(*row) for row in await connection.fetch(queries()["health"]))
