"""`edge-agent db`: apply the schema to a database, or say how it stands.

`db init` needs the rights of the database's owner; the daemon itself needs only `ingest`.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses

from edge_agent.cli.options import add_json
from edge_agent.command_line import print_json
from edge_agent.errors import ConfigError
from edge_agent.postgres import database
from edge_agent.postgres.sql_files import FLAVOURS
from edge_agent.settings import PostgresSettings, Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "action",
        choices=("init", "status"),
        metavar="init|status",
        help="apply what is missing or has changed, or say how it stands",
    )
    parser.add_argument("--dsn", help="database to work on (default: postgres.dsn)")
    parser.add_argument(
        "--flavour",
        choices=("auto", *FLAVOURS),
        help="schema with or without TimescaleDB (default: postgres.flavour)",
    )
    add_json(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Apply or report; `db status` exits with 1 if something is wrong."""
    configured = settings.postgres.dsn
    dsn = options.dsn or (configured.get_secret_value() if configured else None)
    if dsn is None:
        raise ConfigError(
            "no database given",
            hint="--dsn postgresql://owner@host/database, or set postgres.dsn",
        )
    flavour = options.flavour or settings.postgres.flavour
    command = _init if options.action == "init" else _status
    return command(dsn, flavour, settings.postgres, as_json=options.json)


def _init(dsn: str, flavour: str, settings: PostgresSettings, *, as_json: bool) -> int:
    report = asyncio.run(database.init(dsn, flavour=flavour, settings=settings))
    if as_json:
        print_json(report)
        return 0
    print(f"flavour    {report.flavour} ({report.reason})")
    for name in report.applied:
        print(f"applied    {name}")
    for name in report.unchanged:
        print(f"unchanged  {name}")
    return 0


def _status(dsn: str, flavour: str, settings: PostgresSettings, *, as_json: bool) -> int:
    state = asyncio.run(database.status(dsn, flavour=flavour, settings=settings))
    if as_json:
        fields = dataclasses.asdict(state) | {"problems": state.problems}
        print_json(fields)
        return 1 if state.problems else 0
    print(f"PostgreSQL {state.server_version}, flavour {state.flavour}")
    for file in state.files:
        print(f"{file.state:10} {file.name}")
    if state.partitions is not None:
        days = f", {state.oldest_day} to {state.newest_day}" if state.partitions else ""
        print(f"partitions: {state.partitions}{days}")
        print(f"rows in plc_raw: about {state.rows_estimate:,}")
        if state.dirty_minutes is not None:
            print(f"minutes that wait for their rollup: {state.dirty_minutes}")
        print("settings: " + ", ".join(f"{key} {value}" for key, value in state.settings.items()))
    for problem in state.problems:
        print(f"problem: {problem}")
    return 1 if state.problems else 0
