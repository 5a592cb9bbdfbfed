"""What does not come right by itself, and the commands that set it right."""

from __future__ import annotations

import pytest

from tests.acceptance.replication_rig import End, Rig

WAL_KEEP_MB = 64
ROLLUP_TIMEOUT_S = 120.0
"""Late minutes are rolled up by the upkeep, which comes by three times a minute here."""


HISTORIES = [
    pytest.param(20_000, 40, id="short"),
    pytest.param(1_000_000, 240, id="long", marks=pytest.mark.long),
]
"""Rows of history, and the minutes that they lie in."""


@pytest.mark.parametrize(("rows", "minutes"), HISTORIES)
def test_slot_lost_then_resync(replication: Rig, rows: int, minutes: int) -> None:
    """A remote away for so long that the edge gave its slot up: status says so, resync cures it.

    Rows came before, meanwhile and after; at the end status has no complaint left.
    """
    rig = replication
    rig.edge_remote("setup")
    rig.edge.execute(f"ALTER SYSTEM SET max_slot_wal_keep_size = '{WAL_KEEP_MB}MB'")
    rig.edge.execute("SELECT pg_reload_conf()")
    try:
        with rig.writing() as writer:
            rig.wait_flowing()
            rig.sides.remote.stop()
            try:
                rig.write_history(rows, minutes)
                rig.wait(lambda: _lose_slot(rig) == "lost", "the slot is lost", 60)
            finally:
                rig.sides.remote.start()
            problems = rig.status(exit_code=1)["problems"]
            assert any("resync" in problem for problem in problems), problems
            rig.edge_remote("resync")
            with rig.serving():
                rig.wait_flowing()
                rig.wait(lambda: rig.problems() == [], "no problem left", ROLLUP_TIMEOUT_S)
            said = writer.stop()
        assert rig.check_equal() == said["rows"] + rows
    finally:
        rig.edge.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
        rig.edge.execute("SELECT pg_reload_conf()")


def _lose_slot(rig: Rig) -> str:
    """Spend WAL past the budget; the slot's state."""
    for _ in range(WAL_KEEP_MB // 16 + 1):
        rig.edge.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000))")
        rig.edge.execute("SELECT pg_switch_wal()")
    rig.edge.execute("CHECKPOINT")
    return str(
        rig.edge.value(
            "SELECT wal_status FROM pg_replication_slots WHERE database = current_database()"
        )
    )


@pytest.mark.parametrize(("rows", "minutes"), HISTORIES)
def test_rows_deleted_at_the_remote_then_reconcile(
    replication: Rig, rows: int, minutes: int
) -> None:
    """Rows that somebody deleted at the remote come back, while new ones keep coming."""
    rig = replication
    rig.edge_remote("setup")
    rig.write_history(rows, minutes)
    with rig.writing() as writer:
        rig.wait_flowing()
        rig.wait(lambda: _history(rig.remote) == rows, "the history", 60)
        rig.remote.execute(
            "DELETE FROM plc_raw WHERE site = 'H1' AND (value < 1e4 OR device = 'PUMP7')"
        )
        assert _history(rig.remote) < 0.96 * rows
        rig.edge_remote("reconcile", "--hours", str(minutes // 60 + 1))
        assert _history(rig.remote) == rows
        rig.wait_flowing()
        writer.stop()
    rig.check_equal()


def _history(end: End) -> int:
    return int(end.value("SELECT count(*) FROM plc_raw WHERE site = 'H1'"))


def test_reconcile_of_equal_sides_changes_nothing(replication: Rig) -> None:
    """It says so, and every row is the one that was there before."""
    rig = replication
    rig.edge_remote("setup")
    rig.write_history(20_000, minutes=60)
    rig.check_equal()
    before = rig.remote.value("SELECT sum(xmin::text::numeric) FROM plc_raw")
    rig.edge_remote("reconcile", "--hours", "2")
    assert rig.remote.value("SELECT sum(xmin::text::numeric) FROM plc_raw") == before
    rig.check_equal()
