"""`edge-remote resync`: recover a slot that was lost, without losing a row.

A slot is lost when the remote was away for longer than max_slot_wal_keep_size lasts: the WAL that
the subscription would need is gone, and it can never go on from where it was. What it needs:

1. Find how far back the two differ (the gap), and note that at the remote, before anything is
   dropped: a resync that is killed is known, and the next one goes on.
2. Give the subscription a new slot. The subscription itself is kept, and so is the password in it.
   From here on everything that the edge commits is on its way.
3. Copy the outbox, hour of arrival by hour: whatever came in these hours, late rows of any age
   included.
4. What is older than the outbox comes from plc_raw: backfill the gap up to the outbox's oldest
   hour, then reconcile from the gap on. That finds whatever is still missing.

Not found are rows that arrived after the slot was lost and before the outbox's oldest hour, *and*
whose time lies before the gap: rows that were late by hours in an outage of days.
`edge-remote reconcile --hours N` finds those.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from edge_agent.errors import ConfigError, TransientError
from edge_agent.postgres.sql_files import queries
from edge_agent.settings import Settings
from remote import history
from remote.backfill import add_throttle, throttle_of
from remote.copying import Throttle
from remote.ends import End, both
from remote.gap import Filling, common_until
from remote.hours import shown
from remote.reconcile import document, print_outcome
from remote.steps import Narrator, Step
from remote.subscription import Slot, Subscription, find_slot, find_subscription, subscription_name
from remote.waiting import until

WORKERS_TIMEOUT_S = 75.0
"""A sender that has lost its receiver notices after wal_sender_timeout, 60 s by default."""
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Link:
    """A subscription, its slot, and why they can't go on; ``trouble`` is empty if they can.

    ``gap_from`` is what a resync that was killed has noted, ``outbox_until`` how far it was.
    """

    name: str
    oid: int
    trouble: str
    gap_from: datetime | None = None
    outbox_until: datetime = NEVER

    @property
    def begun(self) -> bool:
        """Whether a resync was cut short."""
        return self.gap_from is not None

    @property
    def subscription(self) -> str:
        """Name of the subscription and of its slot."""
        return subscription_name(self.name)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--force", action="store_true", help="even if the slot is sound; harmless, but long"
    )
    add_throttle(parser)


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Recover the slot if it is lost; with `--dry-run` say what would be done."""
    return asyncio.run(_run(options, settings, throttle_of(options)))


async def _run(options: argparse.Namespace, settings: Settings, throttle: Throttle | None) -> int:
    narrator = Narrator(as_json=options.json, dry_run=options.dry_run)
    async with both(settings) as (edge, remote):
        await history.require_setup(edge, remote)
        link = await look(edge, remote, settings.remote.name)
        if not (link.trouble or link.begun or options.force):
            narrator.note(
                f"nothing to do: {link.subscription} has its slot; differences are found by"
                " `edge-remote reconcile`, and --force does all of it anyway"
            )
            narrator.finish()
            return 0
        await history.lock(remote, f"resync of {link.name}")
        narrator.note(link.trouble or f"slot {link.subscription} is sound")
        if link.begun:
            narrator.note("the last resync was cut short: going on")
        gap_from = link.gap_from or await common_until(edge, remote, link.name)
        gap_from = max(gap_from, (await remote.fetchrow("repair_keeps"))["kept_from"])
        narrator.note(f"the two are taken to differ from {shown(gap_from)} on")
        narrator.add(gap_from=gap_from)
        # A new slot in place of a sound one would lose what is on its way.
        if link.trouble or not link.begun:
            await narrator.carry_out(slot_steps(edge, remote, link, gap_from))
        filling = Filling(
            edge,
            remote,
            link.name,
            gap_from,
            NEVER if link.trouble else link.outbox_until,
            throttle,
            settings.remote.outbox_hours,
        )
        await narrator.carry_out(filling.steps())
    outcome = filling.outcome
    if outcome is not None and not options.json:
        print_outcome(outcome)
    narrator.add(comparison=document(outcome) if outcome else None)
    narrator.finish()
    return 1 if outcome is not None and outcome.left else 0


async def look(edge: End, remote: End, name: str) -> Link:
    """How subscription and slot stand. Raises ``ConfigError`` if there is no such pair."""
    subscription = await find_subscription(remote, name)
    if subscription is None:
        raise ConfigError(
            f"{remote}: there is no subscription {subscription_name(name)} in this database",
            hint="is --name right? Else run `edge-remote setup`, then `edge-remote resync --force`",
        )
    if not await edge.fetchval("resync_published"):
        raise ConfigError(
            f"{edge}: the outbox or its publication plc_pub is missing",
            hint="run `edge-remote setup`, then `edge-remote resync --force`",
        )
    begun = await remote.fetchrow("resync_begun", name)
    trouble = _trouble(edge, remote, name, subscription, await find_slot(edge, name))
    if begun is None:
        return Link(name, subscription.oid, trouble)
    if not trouble and not subscription.enabled:
        trouble = f"{remote}: subscription {subscription_name(name)} is stopped"
    return Link(name, subscription.oid, trouble, begun["gap_from"], begun["outbox_until"])


def _trouble(
    edge: End, remote: End, name: str, subscription: Subscription, slot: Slot | None
) -> str:
    """Why nothing can come through the slot any more, or nothing."""
    own = subscription_name(name)
    if slot is None:
        return f"{edge}: there is no slot {own}"
    if slot.lost:
        return (
            f"{edge}: slot {own} is lost: more WAL was written while nobody received than"
            " max_slot_wal_keep_size keeps"
        )
    if subscription.slot_name != own:
        return f"{remote}: subscription {own} is not connected to its slot"
    return ""


def slot_steps(edge: End, remote: End, link: Link, gap_from: datetime) -> list[Step]:
    """What gives the subscription a new slot; each step may be done again."""
    name = link.subscription
    position: list[str] = []

    async def drop_slot() -> None:
        await _wait_for_workers(remote, name)
        await edge.fetch("resync_drop_slot", name)

    async def create_slot() -> None:
        position.append(await edge.fetchval("resync_create_slot", name))

    async def set_origin() -> None:
        await remote.fetch("resync_set_origin", link.oid, position[-1])

    return [
        Step(
            where=remote,
            what="Note where the gap begins",
            sql=queries()["resync_begin"],
            arguments=(link.name, gap_from),
        ),
        Step(
            where=remote,
            what=f"Stop the subscription {name}",
            sql=f"ALTER SUBSCRIPTION {name} DISABLE",
        ),
        Step(
            where=remote,
            what="Take its slot from it",
            sql=f"ALTER SUBSCRIPTION {name} SET (slot_name = NONE)",
        ),
        Step(
            where=edge,
            what=f"Drop the slot {name}, if it is there",
            sql=queries()["resync_drop_slot"],
            act=drop_slot,
        ),
        Step(
            where=edge,
            what=f"Make a new slot {name}",
            sql=queries()["resync_create_slot"],
            act=create_slot,
        ),
        Step(
            where=remote,
            what="Let the subscription begin where the new slot does",
            sql=queries()["resync_set_origin"],
            act=set_origin,
        ),
        Step(
            where=remote,
            what="Give it the new slot",
            sql=f"ALTER SUBSCRIPTION {name} SET (slot_name = {name})",
        ),
        Step(
            where=remote,
            what=f"Start the subscription {name}",
            sql=f"ALTER SUBSCRIPTION {name} ENABLE",
        ),
    ]


async def _wait_for_workers(remote: End, subscription: str) -> None:
    """Until nobody uses slot and origin any more. Raises ``TransientError``."""

    async def none_left() -> bool:
        return not await remote.fetchval("resync_workers", subscription)

    if not await until(none_left, WORKERS_TIMEOUT_S):
        raise TransientError(
            f"{remote}: the worker of {subscription} has not ended within {WORKERS_TIMEOUT_S:g} s",
            hint="see pg_stat_subscription there; run `edge-remote resync` again when it has",
        )
