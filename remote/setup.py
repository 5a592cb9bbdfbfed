"""`edge-remote setup`: make rows flow from an edge to the remote.

First everything is looked at, and if anything is wrong nothing is made. Then what is missing is
made, in this order: the remote's schema and landing table; the edge's login, outbox and
publication; subscription, slot, and the start of both. Run again, it finds nothing to do; cut
short, it goes on where it was.

Rows from before are not touched: `edge-remote backfill` brings them.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from dataclasses import dataclass, field

from edge_agent.errors import ConfigError
from edge_agent.postgres import database
from edge_agent.postgres.sql_files import FLAVOURS, SchemaFile, files_of, queries
from edge_agent.settings import Settings
from remote import checks
from remote.ends import End, both, refuse
from remote.login import (
    new_password,
    password_in,
    scram_verifier,
    subscription_address,
    verifies,
)
from remote.steps import Narrator, Step
from remote.subscription import (
    Slot,
    Subscription,
    create_steps,
    find_slot,
    find_subscription,
    login_name,
    move_steps,
    start_steps,
    wait_copied,
)
from remote.waiting import until

COPY_WAIT_S = 30.0
"""Long enough for the copy of an outbox that was just made; a longer copy goes on by itself."""
OUTBOX_HOURS_DEFAULT = 48
"""What sql/edge/110_outbox.sql begins with."""
RELOAD_TIMEOUT_S = 5.0
"""A server reads its settings again within a moment."""
SENDER_TIMEOUT_S = 30
"""A sender whose network is cut in the middle of a transfer waits for the kernel, a quarter of an
hour by default, and a checkpoint that wants to give up the slot's WAL waits for the sender."""
MIB = 1 << 20
"""The unit of max_slot_wal_keep_size."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--flavour",
        choices=("auto", *FLAVOURS),
        help="of a remote without schema (default: postgres.flavour)",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Set up, or say what would be done."""
    return asyncio.run(_run(options, settings))


async def _run(options: argparse.Namespace, settings: Settings) -> int:
    narrator = Narrator(as_json=options.json, dry_run=options.dry_run)
    name = settings.remote.name
    async with both(settings) as (edge, remote):
        plan = await look(edge, remote, settings, options.flavour)
        steps = plan.steps()
        count = await narrator.carry_out(steps)
        if count == 0:
            narrator.note(f"nothing to do: {edge} replicates to {remote} as {name}")
        elif not options.dry_run:
            copied = await wait_copied(remote, name, COPY_WAIT_S)
            narrator.note(
                f"set up: rows of {edge} reach {remote} from now on. "
                "Older ones: `edge-remote backfill`"
                if copied
                else "set up; the copy of the outbox goes on: `edge-remote status` says how it is"
            )
    narrator.finish()
    return 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What was found at both ends, and with it what there is to do."""

    edge: End
    remote: End
    settings: Settings
    flavour: str
    """What the remote's schema shall be, if it has none."""
    remote_schema_missing: tuple[str, ...]
    edge_files: tuple[SchemaFile, ...]
    """Files of sql/edge that are not applied, or whose objects are not there."""
    remote_files: tuple[SchemaFile, ...]
    outbox_hours: int | None
    wal_keep_mb: int
    login_complete: bool | None
    verifier: str | None = field(repr=False)
    subscription: Subscription | None
    slot: Slot | None

    def steps(self) -> list[Step]:
        """Everything that is missing, in order; empty if all is there."""
        given = self.settings.remote.rep_password
        kept = password_in(self.subscription.address) if self.subscription else None
        password = given.get_secret_value() if given else kept or new_password()
        login = login_name(self.settings.remote.name)
        address = subscription_address(self.settings.remote, login, password)
        return [
            *self._schema_steps(),
            *_file_steps(self.remote, self.remote_files),
            *self._login_steps(login, password),
            *_file_steps(self.edge, self.edge_files),
            *self._outbox_steps(),
            *self._subscription_steps(address),
        ]

    def _schema_steps(self) -> list[Step]:
        if not self.remote_schema_missing:
            return []
        dsn = self.remote.dsn.reveal()
        return [
            Step(
                where=self.remote,
                what=f"Apply the schema, flavour {self.flavour} (`edge-agent db init`)",
                sql="\n".join(f"\\i sql/{name}" for name in self.remote_schema_missing),
                act=lambda: database.init(
                    dsn, flavour=self.flavour, settings=self.settings.postgres
                ),
            )
        ]

    def _login_steps(self, login: str, password: str) -> list[Step]:
        if self.login_complete and verifies(self.verifier, password):
            return []
        verb = "CREATE" if self.login_complete is None else "ALTER"
        grant = " GRANT rep TO {0};" if self.login_complete is False else ""
        member = " IN ROLE rep" if self.login_complete is None else ""
        return [
            Step(
                where=self.edge,
                what=f"{verb.capitalize()} the login {login}, which may replicate and read the "
                "outbox",
                sql=f"""DO $$
BEGIN
    EXECUTE format(
        '{verb} ROLE {login} LOGIN REPLICATION{member} PASSWORD %L',
        current_setting('plc_remote.secret')
    );{grant.format(login)}
    ALTER ROLE {login} SET tcp_user_timeout = '{SENDER_TIMEOUT_S}s';
END
$$""",
                secret=scram_verifier(password),
            )
        ]

    def _outbox_steps(self) -> list[Step]:
        wanted, steps = self.settings.remote, []
        if (self.outbox_hours or OUTBOX_HOURS_DEFAULT) != wanted.outbox_hours:
            steps.append(Step(
                where=self.edge,
                what=f"Keep rows in the outbox for {wanted.outbox_hours} hours",
                sql=queries()["outbox_hours_write"],
                    arguments=(wanted.outbox_hours,),
            ))  # fmt: skip
        if self.wal_keep_mb == -1:
            megabytes = -(-wanted.wal_keep_bytes // MIB)
            steps.append(Step(
                where=self.edge,
                what=f"Keep at most {megabytes} MB of WAL for an absent remote: without a limit "
                "it would fill the edge's disk",
                sql=f"ALTER SYSTEM SET max_slot_wal_keep_size = '{megabytes}MB';\n"
                "SELECT pg_reload_conf()",
                act=lambda: _limit_wal(self.edge, megabytes),
            ))  # fmt: skip
        return steps

    def _subscription_steps(self, address: str) -> list[Step]:
        name = self.settings.remote.name
        if self.subscription is None:
            return create_steps(self.edge, self.remote, name, address)
        steps = []
        if self.subscription.address != address:
            steps += move_steps(self.remote, name, address)
        if not self.subscription.enabled:
            steps += start_steps(self.edge, self.remote, name, with_slot=self.slot is None)
        return steps


async def look(edge: End, remote: End, settings: Settings, flavour: str | None = None) -> Plan:
    """Look at everything, and refuse with ``ConfigError`` that lists all that is wrong."""
    name = settings.remote.name
    subscription = await find_subscription(remote, name)
    slot = await find_slot(edge, name)
    wanted = flavour or (settings.postgres.flavour if remote.flavour is None else "auto")
    at_edge = await database.status(edge.dsn.reveal())
    at_remote = await database.status(remote.dsn.reveal(), flavour=wanted)
    refuse([
        *checks.schema_problems(edge, at_edge),
        *await checks.edge_problems(edge, slot),
        *await checks.remote_problems(remote, subscription),
        *await checks.pair_problems(edge, remote, name, subscription, slot),
    ])  # fmt: skip
    edge_has = await edge.fetchrow("edge_objects")
    remote_has = await remote.fetchrow("remote_objects")
    outbox_complete = edge_has["has_trigger"] and edge_has["has_publication"]
    login = await edge.fetchrow("edge_login", login_name(name))
    return Plan(
        edge=edge,
        remote=remote,
        settings=settings,
        flavour=at_remote.flavour,
        remote_schema_missing=tuple(f.name for f in at_remote.files if f.state != "applied"),
        edge_files=await _missing(edge, "edge", complete=outbox_complete),
        remote_files=await _missing(remote, "remote", complete=remote_has["has_trigger"]),
        outbox_hours=await edge.fetchval("outbox_hours") if edge_has["has_settings"] else None,
        wal_keep_mb=(await edge.fetchrow("edge_limits"))["wal_keep_mb"],
        login_complete=login and login["is_complete"],
        verifier=login and login["verifier"],
        subscription=subscription,
        slot=slot,
    )


async def _missing(end: End, folder_name: str, *, complete: bool) -> tuple[SchemaFile, ...]:
    """The files of this folder of sql/ that are to be applied."""
    files = files_of(folder_name)
    if not complete:
        return files
    with end.errors("look which files it has"):
        applied = await database.recorded_files(end.connection)
    return tuple(file for file in files if applied.get(file.name) != file.sha256)


def _file_steps(end: End, files: tuple[SchemaFile, ...]) -> list[Step]:
    return [
        Step(
            where=end,
            what=_purpose(file),
            sql=f"\\i sql/{file.name}",
            act=lambda file=file: _apply(end, file),  # type: ignore[misc]
        )
        for file in files
    ]


def _purpose(file: SchemaFile) -> str:
    """What a file is for, by the first words of its comment."""
    comment = " ".join(line.removeprefix("-- ") for line in file.text.splitlines()[:3])
    words = re.split(r"[:.](?: |$)", comment)[0]
    return f"Apply sql/{file.name}: {words[:1].lower()}{words[1:]}"


async def _apply(end: End, file: SchemaFile) -> None:
    async with end.transaction(file.name):
        await database.apply_file(end.connection, file)


async def _limit_wal(edge: End, megabytes: int) -> None:
    """Set the limit and wait until it counts. Raises ``ConfigError`` if something overrides it."""
    await edge.execute(f"ALTER SYSTEM SET max_slot_wal_keep_size = '{megabytes}MB'")
    await edge.execute("SELECT pg_reload_conf()")

    async def counts() -> bool:
        return bool((await edge.fetchrow("edge_limits"))["wal_keep_mb"] == megabytes)

    if not await until(counts, RELOAD_TIMEOUT_S):
        raise ConfigError(
            f"{edge}: max_slot_wal_keep_size stays without limit, whatever ALTER SYSTEM says",
            hint="it is set on the server's command line or in a file that wins: set it there",
        )
