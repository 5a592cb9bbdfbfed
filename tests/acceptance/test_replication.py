"""Rows on their way from the edge's plc_raw to the remote's, with nothing going wrong."""

from __future__ import annotations

import time

import pytest

from tests.acceptance.replication_rig import RATE, Ages, Rig, days_sql

LAG_P99_S = 2.0
LOOKS_SHARE_MIN = 0.9
"""Fewer looks than this of what the time allows, and the percentile would not mean what it says."""


@pytest.mark.parametrize("rows", [50_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_rows_arrive_and_stay_fresh(replication: Rig, rows: int) -> None:
    """At 5,000 rows/s all rows arrive, and 99 of 100 looks see one that is less than 2 s old.

    The sides are equal, by count and checksum, at a moment while rows keep coming, and again at
    the end, when nothing is on its way.
    """
    rig = replication
    rig.edge_remote("setup")
    with rig.serving(), rig.writing() as writer:
        rig.wait_flowing()
        with Ages(rig.remote.dsn) as ages:
            time.sleep(rows / RATE)
        moment = rig.edge.value("SELECT max(ts)::text FROM plc_raw")
        rig.wait(
            lambda: bool(rig.remote.value(f"SELECT max(ts) >= '{moment}' FROM plc_raw")),
            f"the rows of {moment}",
            timeout_s=20,
        )
        rig.check_equal_now(until=moment)
        assert rig.status()["problems"] == []
        said = writer.stop()
    assert rig.check_equal() == said["rows"] >= rows
    p99_s = ages.percentile(0.99)
    assert len(ages.seconds) > LOOKS_SHARE_MIN * rows / RATE * 10
    assert p99_s < LAG_P99_S, f"median {ages.percentile(0.5):.2f} s, p99 {p99_s:.2f} s"


@pytest.mark.long
def test_a_million_rows_of_history_while_rows_keep_coming(replication: Rig) -> None:
    """What was there before the remote is backfilled under load; both sides end up equal."""
    rig = replication
    rig.write_history(1_000_000, minutes=600)
    with rig.writing() as writer:
        rig.edge_remote("setup")
        rig.wait_flowing()
        first, last = rig.edge.query("SELECT min(ts)::text, now()::text FROM plc_raw")[0]
        rig.edge_remote("backfill", "--from", first, "--to", last)
        said = writer.stop()
    assert rig.check_equal() == said["rows"] + 1_000_000


@pytest.mark.long
def test_a_bulk_load_at_the_edge_arrives(replication: Rig) -> None:
    """Many late rows at once, by INSERT and not from the agent, replicate like others."""
    rig = replication
    rig.edge_remote("setup")
    with rig.writing() as writer:
        rig.wait_flowing()
        rig.write_history(100_000, minutes=180)
        said = writer.stop()
    assert rig.check_equal() == said["rows"] + 100_000


def test_a_row_that_the_remote_has_already(replication: Rig) -> None:
    """A duplicate, inserted by hand before it arrives, stops nothing; the edge's value wins later.

    The subscription goes on past both: the row that is the same, and the one whose value differs
    and which `reconcile` sets right.
    """
    rig = replication
    rig.edge_remote("setup")
    insert = (
        "INSERT INTO plc_raw (ts, site, line, device, tag, value, unit) SELECT date_trunc("
        "'minute', now()) - interval '5 minutes', 'D1', 'L1', 'PUMP', 'T' || n, {}, 'bar' "
        "FROM generate_series(1, 2) AS n"
    )
    for end in (rig.remote, rig.edge):
        end.execute(days_sql(10))
    rig.remote.execute(insert.format("CASE n WHEN 1 THEN 1 ELSE 666 END"))
    rig.edge.execute(insert.format("n"))
    with rig.writing() as writer:
        rig.wait_flowing()
        writer.stop()
    rig.wait(
        lambda: rig.remote.rows() == rig.edge.rows(), "as many rows as the edge has", timeout_s=30
    )
    differing = rig.remote.query("SELECT tag FROM plc_raw WHERE value = 666")
    assert [row[0] for row in differing] == ["T2"]
    rig.edge_remote("reconcile", "--hours", "2")
    rig.check_equal()


def test_setup_twice(replication: Rig) -> None:
    """The second time it finds nothing to do, and the rows go on."""
    rig = replication
    rig.edge_remote("setup")
    with rig.writing() as writer:
        rig.wait_flowing()
        worker = rig.subscription_worker()
        rig.edge_remote("setup")
        assert rig.subscription_worker() == worker
        assert len(rig.slots()) == 1
        rig.wait_flowing()
        writer.stop()
    rig.check_equal()


@pytest.mark.long
def test_teardown_and_setup_again(replication: Rig) -> None:
    """After teardown nothing replicates and nothing is left; set up again, the gap is filled."""
    rig = replication
    rig.edge_remote("setup")
    with rig.writing() as writer:
        rig.wait_flowing()
        rig.edge_remote("teardown")
        assert rig.slots() == []
        assert rig.edge.query("SELECT FROM pg_publication") == []
        assert (
            rig.edge.query("SELECT FROM pg_roles WHERE rolname = $1", f"plc_rep_{rig.name}") == []
        )
        for end in (rig.edge, rig.remote):
            assert end.value("SELECT to_regclass('public.plc_outbox')") is None
        writer.stop()
    rig.write_history(10_000, minutes=30)
    assert rig.edge.rows() > rig.remote.rows() > 0
    rig.edge_remote("setup")
    with rig.writing() as writer:
        rig.wait_flowing()
        first, last = rig.edge.query("SELECT min(ts)::text, now()::text FROM plc_raw")[0]
        rig.edge_remote("backfill", "--from", first, "--to", last)
        writer.stop()
    rig.check_equal()
