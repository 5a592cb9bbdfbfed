"""Why something fails, in Korean, for whoever shows it to people who read Korean.

`error_in_korean` takes what a driver, a sink, upkeep or a database said; `catalogue.py` of the
folder above says how it is found. The texts, by where they come from:

`system.py`     the system, and libraries that speak of a protocol.
`drivers.py`    PLCs: Modbus, S7, OPC UA, MQTT; what a tag's value is not.
`sinks.py`      where samples go: MQTT, InfluxDB, the store; ingest, and the journal's book of it.
`databases.py`  PostgreSQL: why it can't be used, what it says of itself, and replication.

tests/unit/test_korean_errors.py holds them complete, as tests/unit/test_korean.py does for the
problems of a map. No particle of Korean stands behind a value, of which nobody knows the sound.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from edge_agent.text.bilingual import Bilingual
from edge_agent.text.catalogue import Entry, Pieces
from edge_agent.text.korean.databases import DATABASES
from edge_agent.text.korean.drivers import DRIVERS
from edge_agent.text.korean.sinks import SINKS
from edge_agent.text.korean.system import SYSTEM

ERRORS: Final[tuple[Entry, ...]] = (*SYSTEM, *DRIVERS, *SINKS, *DATABASES)
"""All of them."""


def error_in_korean(error: str) -> str | None:
    """An error with what is known of it in Korean; None where nothing is."""
    return _pieces().korean(error)


def in_both(error: str) -> Bilingual:
    """An error as it is, and as far as it is known in Korean."""
    return Bilingual(error, error_in_korean(error) or error)


@cache
def _pieces() -> Pieces:
    """Compiled for the first error: an agent without any does without."""
    return Pieces(ERRORS)
