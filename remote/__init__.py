"""Replication of edge databases to a remote one, by PostgreSQL's own logical replication.

How a row gets there
--------------------
::

    edge                                                     remote
    any writer -> plc_raw -trigger-> plc_outbox ==slot== worker -> plc_outbox -trigger-> plc_raw

At the edge a trigger copies each row that plc_raw takes into plc_outbox, in the writer's own
transaction, and plc_pub publishes plc_outbox alone (sql/edge/). At the remote a subscription's
worker inserts into a plain table of the same name, the landing table, whose trigger hands each row
to plc_raw and keeps none (sql/remote/). Both flavours may stand on either side.

Names: the edge called ``name`` has the subscription and the slot ``plc_<name>``, and the login
``plc_rep_<name>``. Many edges share a remote; an edge may have several remotes, each with a name
of its own.

What is guaranteed
------------------
* Every row that is committed to the edge's plc_raw after `setup` arrives in the remote's plc_raw,
  or stands in its plc_refused with the reason, as long as the slot is not lost.
* A row that is there already stays as it is and stops nothing. Nothing that happens to the edge's
  rows later (retention, deletion, a changed value) happens at the remote.
* A writer at the edge never fails and never waits for want of a remote.
* The edge keeps at most max_slot_wal_keep_size of WAL for a remote that is away.

What is not: that both sides are equal before `backfill`, nor that they stay equal where somebody
writes into the remote; `reconcile` finds and repairs that.

What can fail, and what becomes of it
-------------------------------------
* The network, either server, the worker: the subscription connects again by itself, each 5 s, and
  goes on behind the last transaction that it committed.
* The remote is away for longer than the WAL limit lasts: the slot is *lost*. `status` counts the
  hours until then; `resync` begins again with the outbox and fills the gap before it.
* The remote refuses a row for good, as for a constraint somebody added: the worker fails and tries
  again, for ever. `status` says so; the remote's log names the row.
* The agent does no upkeep: outbox rows pile up in its default partition. `status` says so.

How the package is made: `ends` (the two databases), `checks` (what must be right), `steps` (what
is going to be done, printed or carried out) and `subscription` carry all commands; `state` is the
look that `status` and `serve` share.
"""
