"""One edge's subscription at the remote, and its slot and its login at the edge.

The subscription is made disabled and without a slot of its own: PostgreSQL tries the connection
then, so that a wrong address leaves no slot behind. The slot is made next, and only with it there
the subscription is enabled, which starts the copy of the outbox. Whatever is cut short is
therefore recognised: a subscription whose copy has not begun may still be given its slot; any
other that has none has missed rows, which `edge-remote resync` brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from edge_agent.errors import TransientError
from edge_agent.postgres.sql_files import queries
from remote.ends import End
from remote.login import masked
from remote.steps import Step
from remote.waiting import until

PUBLICATION = "plc_pub"
RUN_AS_OWNER_VERSION = 160_000
"""The first server that has this option, and needs it."""
SLOT_RELEASE_TIMEOUT_S = 20.0
"""A sender ends within a second of its receiver, or when it notices that it is gone."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def subscription_name(name: str) -> str:
    """Of the subscription and of its slot."""
    return f"plc_{name}"


def login_name(name: str) -> str:
    """Of the role at the edge that the subscription logs in as."""
    return f"plc_rep_{name}"


@dataclass(frozen=True, slots=True)
class Subscription:
    """What the remote's catalogs say. ``copy_states``: see pg_subscription_rel.srsubstate."""

    oid: int
    enabled: bool
    slot_name: str | None
    publications: tuple[str, ...]
    address: str = field(repr=False)
    copy_states: tuple[str, ...]
    worker_pid: int | None

    @property
    def never_ran(self) -> bool:
        """Whether its first copy has not begun."""
        return not self.enabled and set(self.copy_states) <= {"i"}

    @property
    def copied(self) -> bool:
        """Whether its first copy is through."""
        return set(self.copy_states) == {"r"}


@dataclass(frozen=True, slots=True)
class Slot:
    """What the edge says about a slot; see pg_replication_slots."""

    name: str
    active_pid: int | None
    wal_status: str | None
    safe_wal_bytes: int | None
    lag_bytes: int | None

    @property
    def lost(self) -> bool:
        """Whether WAL that it needs is gone: nothing more will come through it."""
        return self.wal_status == "lost"


async def find_subscription(remote: End, name: str) -> Subscription | None:
    """The subscription of the edge of this name."""
    row = await remote.fetchrow("subscription_state", subscription_name(name))
    return None if row is None else Subscription(**row)


async def find_slot(edge: End, name: str) -> Slot | None:
    """The slot of this name, if it belongs to the edge's database."""
    row = await edge.fetchrow("slot_state", subscription_name(name))
    return None if row is None else Slot(**row)


def create_steps(edge: End, remote: End, name: str, address: str) -> list[Step]:
    """Subscribe, from nothing: copies the outbox, then goes on with what comes.

    ``address`` holds the password; see `login.subscription_address`.
    """
    subscription = subscription_name(name)
    return [
        Step(
            where=remote,
            what=f"Create the subscription {subscription} to {masked(address)}",
            sql=_create_sql(subscription, remote.facts.version_num),
            secret=address,
            explain=lambda error: _unreachable(error, address),
        ),
        *start_steps(edge, remote, name, with_slot=True),
    ]


def _create_sql(subscription: str, version_num: int) -> str:
    """The statement, which reads the address from current_setting('plc_remote.secret').

    A commit that is confirmed to the edge must be on the remote's disk (and on its synchronous
    standby), or a failover loses rows that the slot has let go. From 16 on a worker would switch
    to the table's owner, and forget after each row what the landing trigger remembers for its
    transaction.
    """
    options = ", run_as_owner = true" if version_num >= RUN_AS_OWNER_VERSION else ""
    return f"""DO $$
BEGIN
    EXECUTE format(
        'CREATE SUBSCRIPTION {subscription} CONNECTION %L PUBLICATION {PUBLICATION}'
        ' WITH (enabled = false, create_slot = false, slot_name = {subscription},'
        ' copy_data = true, synchronous_commit = on{options})',
        current_setting('plc_remote.secret')
    );
END
$$"""


def start_steps(edge: End, remote: End, name: str, *, with_slot: bool) -> list[Step]:
    """Let a subscription run that never ran; ``with_slot`` makes its slot first."""
    subscription = subscription_name(name)
    steps = [
        Step(
            where=remote,
            what="Enable the subscription: it copies the outbox, then follows it",
            sql=f"ALTER SUBSCRIPTION {subscription} ENABLE",
        )
    ]
    if with_slot:
        steps.insert(0, Step(
            where=edge,
            what=f"Create the slot {subscription}: from now on WAL is kept for the remote",
            sql=f"SELECT pg_create_logical_replication_slot('{subscription}', 'pgoutput')",
            transaction=False,
        ))  # fmt: skip
    return steps


def move_steps(remote: End, name: str, address: str) -> list[Step]:
    """Have a subscription connect to another address."""
    return [
        Step(
            where=remote,
            what=f"Have the subscription connect to {masked(address)}",
            sql=f"""DO $$
BEGIN
    EXECUTE format(
        'ALTER SUBSCRIPTION {subscription_name(name)} CONNECTION %L',
        current_setting('plc_remote.secret')
    );
END
$$""",
            secret=address,
        )
    ]


def unsubscribe_steps(remote: End, name: str) -> list[Step]:
    """Drop the subscription without asking the edge, whatever state it is in."""
    subscription = subscription_name(name)
    return [
        Step(
            where=remote,
            what=f"Drop the subscription {subscription}",
            sql=f"ALTER SUBSCRIPTION {subscription} DISABLE;\n"
            f"ALTER SUBSCRIPTION {subscription} SET (slot_name = NONE);\n"
            f"DROP SUBSCRIPTION {subscription}",
        )
    ]


def drop_slot_steps(edge: End, name: str, subscription: Subscription | None) -> list[Step]:
    """Drop the slot, and what a copy under way left beside it (pg_<oid>_sync_...)."""
    slot = subscription_name(name)
    copies = f"pg_{subscription.oid}_sync_%" if subscription else ""
    return [
        Step(
            where=edge,
            what=f"Drop the slot {slot}: no more WAL is kept for it",
            sql=queries()["slots_drop"],
            arguments=(slot, copies),
            act=lambda: _drop_slots(edge, slot, copies),
        )
    ]


async def _drop_slots(edge: End, slot: str, copies: str) -> None:
    """Wait until nobody uses the slots, help it along, and drop them."""

    async def unused() -> bool:
        return not await edge.fetch("slots_in_use", slot, copies)

    if not await until(unused, SLOT_RELEASE_TIMEOUT_S):
        raise TransientError(
            f"{edge}: the slot {slot} is still in use",
            hint="another remote uses it? give each its own remote.name; else run this again",
        )
    await edge.fetch("slots_drop", slot, copies)


async def wait_copied(remote: End, name: str, timeout_s: float) -> bool:
    """Wait until the first copy is through; False if that takes longer than ``timeout_s``."""

    async def copied() -> bool:
        subscription = await find_subscription(remote, name)
        return subscription is not None and subscription.enabled and subscription.copied

    return await until(copied, timeout_s)


def _unreachable(error: TransientError, address: str) -> TransientError:
    """What a person should do about a subscription that can't connect."""
    if "could not connect to the publisher" not in str(error):
        return error
    host = urlsplit(address).hostname or ""
    text = str(error)
    if host in _LOOPBACK:
        hint = (
            f"it is the remote's server that must reach the edge, and {host} is itself there: set "
            "remote.subscription_dsn"
        )
    elif "authentication failed" in text or "pg_hba.conf" in text:
        hint = (
            "let it in: in pg_hba.conf of the edge's server, `hostssl DATABASE +rep "
            "REMOTE_ADDRESS scram-sha-256`, then `SELECT pg_reload_conf()`"
        )
    else:
        hint = (
            "the remote's server must reach the edge: check listen_addresses, firewall and VPN, "
            "or set remote.subscription_dsn to the address that works from there"
        )
    return TransientError(text, hint=hint)


def others(names: Sequence[str], name: str) -> list[str]:
    """Of these subscriptions or slots, those of other edges or remotes."""
    return [each for each in names if each != subscription_name(name)]
