"""Which of the two database flavours a database gets: with TimescaleDB or without any extension."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from edge_agent.errors import ConfigError
from edge_agent.postgres.sql_files import FLAVOURS

TIMESCALE_VERSION_MIN = (2, 20)
"""Aggregates of aggregates, and unique keys on compressed chunks, had settled by then; nothing
older was ever tried."""


def check_flavour(wanted: str) -> None:
    """Raise ``ConfigError`` for a word that is neither a flavour nor *auto*."""
    if wanted not in ("auto", *FLAVOURS):
        raise ConfigError(
            f"flavour {wanted!r}: no such database schema",
            hint=f"one of: auto, {', '.join(FLAVOURS)}",
        )


def choose_flavour(
    wanted: str, applied: Collection[str], facts: Mapping[str, Any]
) -> tuple[str, str]:
    """The flavour to use, and why.

    ``applied`` names the files of `sql/` that the database has; ``facts`` is the answer to the
    query `timescale_facts`. Raises ``ConfigError`` if what is wanted can't be had.
    """
    has = next((f for f in FLAVOURS if any(name.startswith(f"{f}/") for name in applied)), None)
    if has is not None:
        if wanted not in ("auto", has):
            raise ConfigError(
                f"postgres: the database has the {has} flavour, not {wanted}, and keeps it",
                hint=f"ask for {has} or auto; for the {wanted} flavour make a new database",
            )
        return has, "the database has it"
    if wanted == "postgres":
        return wanted, "asked for"
    trouble = _timescale_trouble(facts)
    if trouble is None:
        return "timescale", "asked for" if wanted == "timescale" else "the server has TimescaleDB"
    problem, hint = trouble
    if wanted == "timescale":
        raise ConfigError(
            f"postgres: the timescale flavour can't be used here: {problem}",
            hint=f"{hint}; or ask for the postgres flavour, which needs no extension",
        )
    return "postgres", problem


def _timescale_trouble(facts: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why the database can't have TimescaleDB, and what to do; None if it can."""
    version: str | None = facts["installed"] or facts["available"]
    if version is None:
        package = f"timescaledb-2-postgresql-{facts['version_num'] // 10_000}"
        return "TimescaleDB is not installed on the server", f"install the package {package} there"
    if not facts["preloaded"]:
        return (
            "TimescaleDB is installed on the server but not preloaded",
            "add timescaledb to shared_preload_libraries and restart the server",
        )
    if tuple(int(part) for part in version.split(".")[:2]) < TIMESCALE_VERSION_MIN:
        least = ".".join(map(str, TIMESCALE_VERSION_MIN))
        return f"TimescaleDB {version} is too old", f"update it to {least} or newer"
    if facts["license"] != "timescale":
        return (
            f"timescaledb.license is {facts['license']}, so there are no continuous aggregates",
            "install its community edition and set timescaledb.license = timescale",
        )
    if facts["schema"] not in (None, "public"):
        return (
            f"TimescaleDB lives in the schema {facts['schema']}, not in public",
            "make a new database and leave CREATE EXTENSION to `edge-agent db init`",
        )
    return None
