"""What must be right before anything is made; each problem with what to do about it.

`setup` refuses on any of them. `status` asks again for those that can go wrong later.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_agent.postgres.database import DatabaseStatus
from remote.ends import End, clock_problem, clock_skew_s
from remote.subscription import Slot, Subscription, subscription_name

WAL_LEVEL_HINT = (
    "`ALTER SYSTEM SET wal_level = 'logical'` on this server, then restart it (restart, not reload)"
)


async def edge_problems(edge: End, slot: Slot | None) -> list[str]:
    """What keeps this database from being an edge."""
    found = []
    if edge.facts.wal_level != "logical":
        found.append(
            f"{edge}: wal_level is {edge.facts.wal_level}, replication needs logical: "
            f"{WAL_LEVEL_HINT}"
        )
    limits = await edge.fetchrow("edge_limits")
    # One slot for the subscription, one for the time of its first copy.
    if slot is None and limits["slots_max"] < limits["slots"] + 2:
        found.append(
            f"{edge}: {limits['slots']} of max_replication_slots = {limits['slots_max']} are used, "
            "two more are needed: raise it and restart the server"
        )
    if limits["senders_max"] < 2:
        found.append(
            f"{edge}: max_wal_senders is {limits['senders_max']}, 2 are needed: raise it and "
            "restart the server"
        )
    objects = await edge.fetchrow("edge_objects")
    if objects["outbox_is_partitioned"] is False:
        found.append(
            f"{edge}: plc_outbox is a landing table: this database is a remote of others and "
            "can't be an edge too; set remote.edge_dsn to the edge's database"
        )
    return found + await publication_traps(edge)


async def publication_traps(edge: End) -> list[str]:
    """Publications of plc_raw itself: why they can't work, or not beside ours."""
    if edge.flavour == "timescale":
        reason = (
            "the rows of a hypertable lie in chunks that no remote has, so its subscription stops "
            'with "relation ... does not exist"'
        )
    else:
        reason = (
            "rows would go out twice, by plc_raw and by plc_outbox, and retention's and the "
            "partitions' changes with them"
        )
    return [
        f"{edge}: publication {row['name']} carries {row['carries']}: {reason}; "
        f'`DROP PUBLICATION "{row["name"]}"`, edge-remote publishes plc_outbox instead'
        for row in await edge.fetch("trap_publications")
    ]


async def remote_problems(remote: End, subscription: Subscription | None) -> list[str]:
    """What keeps this database from being a remote."""
    found = []
    limits = await remote.fetchrow("remote_limits")
    needed = limits["subscriptions"] + (subscription is None)
    if limits["origins_max"] < needed + 1 or limits["workers_max"] < needed + 1:
        found.append(
            f"{remote}: max_replication_slots = {limits['origins_max']} and "
            f"max_logical_replication_workers = {limits['workers_max']}: both must be "
            f"{needed + 1} at least for {needed} edges; raise them and restart the server"
        )
    objects = await remote.fetchrow("remote_objects")
    if objects["outbox_is_plain"] is False:
        found.append(
            f"{remote}: plc_outbox is an outbox: this database is an edge and can't be a remote "
            "too; set remote.remote_dsn to the remote's database"
        )
    return found + await subscription_traps(remote)


async def subscription_traps(remote: End) -> list[str]:
    """Subscriptions that write into plc_raw itself: why that loses rows."""
    reason = (
        "its rows go into the hypertable's root, which no query reads, and are lost without an "
        "error"
        if remote.flavour == "timescale"
        else "its rows would never reach plc_1m and plc_1h, and a duplicate would stop it"
    )
    return [
        f"{remote}: subscription {row['name']} writes into {row['feeds']}: {reason}; "
        f'`DROP SUBSCRIPTION "{row["name"]}"`, edge-remote lands rows by way of plc_outbox'
        for row in await remote.fetch("trap_subscriptions")
    ]


async def pair_problems(
    edge: End, remote: End, name: str, subscription: Subscription | None, slot: Slot | None
) -> list[str]:
    """What is wrong between the two."""
    found = []
    if (skew := clock_problem(await clock_skew_s(edge, remote))) is not None:
        found.append(skew)
    own = subscription_name(name)
    if subscription is None and slot is not None:
        found.append(
            f"{edge} has the slot {own}, which no subscription of {remote} uses: does another "
            "remote use it? Then choose another remote.name; if not, run `edge-remote teardown`"
        )
    if subscription is not None and slot is None and not subscription.never_ran:
        found.append(
            f"{remote} has the subscription {own}, but {edge} has no slot for it, so rows have "
            "been missed: run `edge-remote resync`"
        )
    if slot is not None and slot.lost:
        found.append(lost_slot_problem(slot))
    return found


def lost_slot_problem(slot: Slot) -> str:
    """What to say about a slot that fell behind too far."""
    return (
        f"the slot {slot.name} is lost: the remote was away for longer than the edge keeps WAL "
        "(max_slot_wal_keep_size); run `edge-remote resync`"
    )


def schema_problems(edge: End, state: DatabaseStatus) -> list[str]:
    """Whether the edge's own schema is there, as this version has it."""
    wrong = [file.name for file in state.files if file.state != "applied"]
    if not wrong:
        return []
    what = f"the schema is not applied, or not as this version has it ({_some(wrong)})"
    return [f"{edge}: {what}: run `edge-agent db init --dsn OWNER_DSN` on it"]


def _some(names: Sequence[str]) -> str:
    first = ", ".join(Path(name).name for name in names[:3])
    return first if len(names) <= 3 else f"{first} and {len(names) - 3} more"
