"""`edge-remote teardown`: end the replication of one edge and leave nothing behind.

Gone are subscription and slot, the edge's login, and, with the last remote of an edge, outbox,
trigger and publication; with the last edge of a remote, the landing table. plc_raw, plc_1m and
plc_1h stay as they are on both sides, and so do plc_refused and plc_backfill at the remote.

An end that is gone for good can't be asked: `--only edge` and `--only remote` clear the other.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack

from edge_agent.errors import TransientError
from edge_agent.settings import Settings
from remote.ends import End, Label, connected, refuse, same_server, unfit
from remote.steps import Narrator, Step
from remote.subscription import (
    Subscription,
    drop_slot_steps,
    find_slot,
    find_subscription,
    login_name,
    others,
    unsubscribe_steps,
)

_OUTBOX_SQL = """DROP PUBLICATION IF EXISTS plc_pub;
DROP TRIGGER IF EXISTS plc_publish ON public.plc_raw;
DROP FUNCTION IF EXISTS public.plc_publish_row(), public.plc_publish_rows();
DROP FUNCTION IF EXISTS public.plc_outbox_upkeep();
DROP TABLE IF EXISTS public.plc_outbox, public.plc_outbox_settings;
DELETE FROM public.schema_version WHERE name LIKE 'edge/%'"""

_LANDING_SQL = """DROP TABLE IF EXISTS public.plc_outbox;
DROP FUNCTION IF EXISTS public.plc_land(), public.plc_land_minute(timestamptz);
DELETE FROM public.schema_version WHERE name LIKE 'remote/%'"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--only", choices=("edge", "remote"), help="clear this end; the other is gone for good"
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Tear down, or say what would be done."""
    return asyncio.run(_run(options, settings))


async def _run(options: argparse.Namespace, settings: Settings) -> int:
    narrator = Narrator(as_json=options.json, dry_run=options.dry_run)
    name = settings.remote.name
    async with AsyncExitStack() as stack:
        edge, remote = await _open(stack, options.only, settings)
        subscription = await find_subscription(remote, name) if remote else None
        steps = []
        if remote:
            steps += await remote_steps(remote, name, subscription)
        if edge:
            steps += await edge_steps(edge, name, subscription)
        if await narrator.carry_out(steps) == 0:
            narrator.note(f"nothing to do: nothing of {name} is there")
    narrator.finish()
    return 0


async def _open(
    stack: AsyncExitStack, only: Label | None, settings: Settings
) -> tuple[End | None, End | None]:
    """The ends that are asked for."""
    edge = remote = None
    try:
        if only != "remote":
            edge = await stack.enter_async_context(connected(settings, "edge"))
        if only != "edge":
            remote = await stack.enter_async_context(connected(settings, "remote"))
    except TransientError as error:
        if only is not None:
            raise
        reached = "remote" if edge is None else "edge"
        raise TransientError(
            str(error), hint=f"if it is gone for good: edge-remote teardown --only {reached}"
        ) from error
    refuse([problem for end in (edge, remote) if end for problem in unfit(end)])
    if edge and remote:
        refuse(same_server(edge, remote))
    return edge, remote


async def remote_steps(remote: End, name: str, subscription: Subscription | None) -> list[Step]:
    """Clear the remote of one edge."""
    steps = [] if subscription is None else unsubscribe_steps(remote, name)
    has = await remote.fetchrow("remote_objects")
    names = [row[0] for row in await remote.fetch("remote_names")]
    if has["outbox_is_plain"] and not others(names, name):
        steps.append(
            Step(
                where=remote,
                what="Drop the landing table; what landed stays in plc_raw",
                sql=_LANDING_SQL,
            )
        )
    return steps


async def edge_steps(edge: End, name: str, subscription: Subscription | None) -> list[Step]:
    """Clear the edge of one remote."""
    steps = []
    if await find_slot(edge, name) is not None:
        steps += drop_slot_steps(edge, name, subscription)
    has = await edge.fetchrow("edge_objects")
    names = [row[0] for row in await edge.fetch("edge_names")]
    if (has["outbox_is_partitioned"] or has["has_some_publication"]) and not others(names, name):
        steps.append(
            Step(
                where=edge,
                what="Drop publication, trigger and outbox; plc_raw stays",
                sql=_OUTBOX_SQL,
            )
        )
    login = login_name(name)
    if await edge.fetchrow("edge_login", login) is not None:
        steps.append(Step(where=edge, what=f"Drop the login {login}", sql=f"DROP ROLE {login}"))
    return steps
