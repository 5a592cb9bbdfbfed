"""`edge-remote setup` and `teardown` on two real servers: rows flow, whatever is there already."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from remote import ends
from tests.integration.remote_pair import (
    FLAVOUR_PAIRS,
    PAIRS,
    Clusters,
    FastClockPostgres,
    Pair,
    Side,
    call,
    clusters,
    drop_slots,
    insert_sql,
    pair,
    words_of,
)
from tests.servers import Postgres

__all__ = ["clusters", "pair"]

LEFT = """
SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()
UNION ALL SELECT 'publication ' || pubname FROM pg_publication
UNION ALL SELECT 'subscription ' || subname FROM pg_subscription
    JOIN pg_database AS d ON d.oid = subdbid AND datname = current_database()
UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger WHERE tgname IN ('plc_publish', 'plc_land')
UNION ALL SELECT 'table ' || relname FROM pg_class WHERE relname LIKE 'plc_outbox%'
UNION ALL SELECT 'function ' || proname FROM pg_proc
    WHERE proname ~ '^plc_(land|publish|outbox)'
UNION ALL SELECT 'file ' || name FROM schema_version WHERE name ~ '^(edge|remote)/'
UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE 'plc_rep_' || $1
"""
COLUMNS = ("ts", "site", "line", "device", "tag", "value", "unit")


def late_rows(days: float, count: int = 40) -> list[tuple[Any, ...]]:
    """Rows for COPY, some time ago, a second apart."""
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=days)
    return [
        (start + timedelta(seconds=n), "A1", "L1", "FAN", f"T{n % 3}", n / 7, "bar")
        for n in range(count)
    ]


async def copy(side: Side, rows: list[tuple[Any, ...]]) -> None:
    """Into plc_raw by COPY, having its days' partitions made like the sink."""
    async with side.connected() as connection:
        days = sorted({int(row[0].timestamp() // 86400) for row in rows})
        await connection.fetchval("SELECT plc_make_partitions($1::bigint[])", days)
        await connection.copy_records_to_table("plc_raw", records=rows, columns=COLUMNS)


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
async def test_rows_of_every_writer_arrive_and_are_rolled_up(pair: Pair) -> None:
    """By INSERT and by COPY, late ones too, old days too: plc_raw, plc_1m and plc_1h are equal."""
    await pair.setup()
    await pair.write(300, minutes_ago=10)
    await copy(pair.edge, late_rows(0))
    await pair.wait_equal()
    for side in (pair.edge, pair.remote):
        await side.roll_up()
    await copy(pair.edge, late_rows(0.2))
    await copy(pair.edge, late_rows(9))
    await pair.edge.execute(insert_sql(40, minutes_ago=200, site="B1"))
    assert await pair.wait_equal() == 300 + 40 + 40 + 40 + 40
    for side in (pair.edge, pair.remote):
        await side.roll_up()
    edge, remote = await pair.edge.rolled_up(), await pair.remote.rolled_up()
    assert edge == remote
    assert [sum(row[-1] for row in view) for view in remote] == [460, 460]


async def test_the_remote_gets_the_schema_and_twice_does_nothing(pair: Pair) -> None:
    """The second time there is nothing to do, and setup says so and leaves the worker alone."""
    first = await pair.setup("--json")
    assert "db init" in words_of(first.said["steps"])
    worker = "SELECT pid FROM pg_stat_subscription WHERE subname = $1 AND relid IS NULL"
    pid = await pair.remote.value(worker, f"plc_{pair.name}")
    second = await pair.setup("--json")
    assert second.said["steps"] == []
    assert "nothing to do" in second.said["notes"][0]
    assert await pair.remote.value(worker, f"plc_{pair.name}") == pid


@pytest.mark.parametrize("pair", FLAVOUR_PAIRS, indirect=True)
async def test_teardown_leaves_only_rows_and_setup_works_again(pair: Pair) -> None:
    """No slot, publication, trigger, outbox or login; afterwards rows flow anew."""
    await pair.setup()
    await pair.write(50)
    await pair.wait_equal()
    done = await pair.run("teardown")
    assert done.code == 0, done
    for side in (pair.edge, pair.remote):
        assert await side.query(LEFT, pair.name) == []
        assert (await side.checksum())[0] == 50
    assert "nothing to do" in (await pair.run("teardown")).output
    await pair.write(7, site="GAP")
    await pair.setup()
    await pair.write(50, site="B1")
    await pair.wait(lambda: has(pair.remote, "B1", 50), "rows of B1")
    assert await has(pair.remote, "GAP", 0)


async def has(side: Side, site: str, rows: int) -> bool:
    """Whether a site has so many rows."""
    return bool(await side.value("SELECT count(*) = $2 FROM plc_raw WHERE site = $1", site, rows))


async def test_an_end_that_is_gone_for_good(pair: Pair) -> None:
    """`teardown` names `--only`, which clears the end that is left."""
    await pair.setup()
    pair.settings["remote_dsn"] = "postgresql://postgres@127.0.0.1:1/gone"
    refused = await pair.run("teardown")
    assert refused.code == 1
    assert "teardown --only edge" in refused.errors
    assert (await pair.run("teardown", "--only", "edge")).code == 0
    assert await pair.edge.query(LEFT, pair.name) == []
    del pair.settings["remote_dsn"]
    pair.settings["edge_dsn"] = "postgresql://postgres@127.0.0.1:1/gone"
    assert (await pair.run("teardown", "--only", "remote")).code == 0
    assert await pair.remote.query(LEFT, pair.name) == []


async def test_two_edges_share_a_remote(pair: Pair, clusters: Clusters, tmp_path: Path) -> None:
    """Each has a subscription and a slot; ending one leaves the other alone."""
    second = await clusters.another_edge(pair, tmp_path)
    try:
        await pair.setup()
        await second.setup()
        await pair.write(30, site="A1")
        await second.write(40, site="A2")
        await pair.wait(lambda: has(pair.remote, "A1", 30), "rows of the first")
        await pair.wait(lambda: has(pair.remote, "A2", 40), "rows of the second")
        assert (await pair.run("teardown")).code == 0
        assert await pair.edge.query(LEFT, pair.name) == []
        await second.write(40, site="A3")
        await pair.wait(lambda: has(pair.remote, "A3", 40), "rows of the one that is left")
        assert (await second.run("teardown")).code == 0
        assert await pair.remote.query(LEFT, second.name) == []
    finally:
        await drop_slots(second.edge)


@pytest.mark.parametrize("pair", FLAVOUR_PAIRS, indirect=True)
async def test_a_row_that_the_remote_has_already_stops_nothing(pair: Pair) -> None:
    """The row that was there stays, and the ones after it come."""
    await pair.setup()
    rows = late_rows(0, count=20)
    await copy(pair.remote, [(*rows[3][:5], 999.0, "bar")])
    await copy(pair.edge, rows)
    await pair.wait(lambda: has(pair.remote, "A1", 20), "all rows")
    values = await pair.remote.query("SELECT value FROM plc_raw ORDER BY ts")
    assert [row[0] for row in values] == [n / 7 if n != 3 else 999.0 for n in range(20)]


@pytest.mark.parametrize("pair", PAIRS, indirect=True)
async def test_a_row_that_the_remote_can_not_take_stops_nothing(pair: Pair) -> None:
    """Rows of a wrong clock are set aside with the reason, and the others come."""
    await pair.setup()
    for ts in ("2001-02-03", "2040-01-01", "infinity", "-infinity"):
        await pair.edge.execute(
            f"INSERT INTO plc_outbox VALUES ('{ts}', 'A1', 'L1', 'D', 'T', 1, 'bar')"
        )
    await pair.write(10)
    await pair.wait_equal()
    refused = await pair.remote.query("SELECT ts::text, reason FROM plc_refused ORDER BY ts")
    assert [row["ts"][:4] for row in refused] == ["-inf", "2001", "2040", "infi"]
    assert "refuses its day" in refused[1]["reason"]
    status = (await pair.run("status", "--json")).said
    assert status["refused_rows"] == 4, status
    assert any("plc_refused" in problem for problem in status["problems"])


async def test_a_dry_run_says_everything_and_changes_nothing(pair: Pair) -> None:
    """The same steps as the real run afterwards, with their SQL; neither end has moved."""
    before = [await catalog(side) for side in (pair.edge, pair.remote)]
    dry = (await pair.setup("--dry-run", "--json")).said
    assert [await catalog(side) for side in (pair.edge, pair.remote)] == before
    text = await pair.setup("--dry-run")
    assert "CREATE SUBSCRIPTION" in text.output
    assert "pg_create_logical_replication_slot" in text.output
    real = (await pair.setup("--json")).said
    assert [step["what"] for step in dry["steps"]] == [step["what"] for step in real["steps"]]
    before = [await catalog(side) for side in (pair.edge, pair.remote)]
    assert "DROP SUBSCRIPTION" in (await pair.run("teardown", "--dry-run")).output
    assert [await catalog(side) for side in (pair.edge, pair.remote)] == before


async def catalog(side: Side) -> list[Any]:
    """Every object, role and slot of a server."""
    return await side.query(
        "SELECT oid::text FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " UNION ALL SELECT rolname || coalesce(rolpassword, '') FROM pg_authid"
        " UNION ALL SELECT slot_name FROM pg_replication_slots"
        " UNION ALL SELECT subname || subenabled FROM pg_subscription"
        " UNION ALL SELECT pubname FROM pg_publication ORDER BY 1"
    )


# -- the login ------------------------------------------------------------------------------------


async def test_the_password_is_seen_nowhere(pair: Pair) -> None:
    """Not in output, logs or pg_stat_activity, though both servers log every statement."""
    for side in (pair.edge, pair.remote):
        for setting in ("log_statement = 'all'", "log_min_duration_statement = 0"):
            await side.execute(f"ALTER DATABASE {side.name} SET {setting}")
    password = "vOry-s3cret/pa%ss"
    pair.settings["rep_password"] = password
    outputs = [
        await pair.run("setup", "--dry-run"),
        await pair.run("setup"),
        await pair.run("setup", "--json"),
        await pair.run("status"),
    ]
    pair.settings["subscription_dsn"] = "postgresql://127.0.0.1:1/nowhere"
    outputs.append(await pair.run("setup", "--dry-run", "--json"))
    del pair.settings["subscription_dsn"]
    verifier = await pair.edge.value(
        "SELECT rolpassword FROM pg_authid WHERE rolname = $1", f"plc_rep_{pair.name}"
    )
    assert verifier.startswith("SCRAM-SHA-256$4096:")
    seen = "".join(done.output + done.errors for done in outputs)
    for side in (pair.edge, pair.remote):
        queries = await side.query("SELECT query FROM pg_stat_activity")
        seen += side.log() + "".join(str(row[0]) for row in queries)
    for secret in (password, "vOry", verifier, "pa%25ss"):
        assert secret not in seen


async def test_the_login_needs_its_password(pair: Pair) -> None:
    """A made-up password is long, works by SCRAM, and no other does."""
    await pair.setup()
    address = await pair.remote.value(
        "SELECT subconninfo FROM pg_subscription WHERE subname = $1", f"plc_{pair.name}"
    )
    connection = await asyncpg.connect(address.partition("?")[0])
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.fetch("SELECT FROM plc_raw")
    await connection.fetch("SELECT FROM plc_outbox")
    await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(address.partition("?")[0].replace("@", "x@"))


async def test_what_keeps_rows_in_a_failover_and_slots_in_a_cut_network(pair: Pair) -> None:
    """The worker confirms what is on disk; the sender notices a dead network; both are mended."""
    await pair.setup()
    login = f"plc_rep_{pair.name}"
    assert await pair.remote.value(
        "SELECT subsynccommit FROM pg_subscription WHERE subname = $1", f"plc_{pair.name}"
    ) == "on"  # fmt: skip
    timeout = "SELECT rolconfig FROM pg_roles WHERE rolname = $1"
    assert await pair.edge.value(timeout, login) == ["tcp_user_timeout=30s"]
    await pair.edge.execute(f"ALTER ROLE {login} RESET ALL")
    (step,) = (await pair.setup("--json")).said["steps"]
    assert step["what"].startswith("Alter the login")
    assert await pair.edge.value(timeout, login) == ["tcp_user_timeout=30s"]


async def test_a_new_password_is_put_in_force(pair: Pair) -> None:
    """A changed setting reaches login and subscription, and rows go on."""
    await pair.setup()
    pair.settings["rep_password"] = "another-password"
    steps = (await pair.setup("--json")).said["steps"]
    assert [step["what"].split()[0] for step in steps] == ["Alter", "Have"]
    await pair.write(20)
    await pair.wait_equal()


async def test_an_unreachable_edge_leaves_no_slot_and_setup_goes_on(pair: Pair) -> None:
    """The remote's server must reach the edge; set right, the next run ends what was begun."""
    pair.settings["subscription_dsn"] = f"postgresql://127.0.0.1:1/{pair.edge.name}"
    failed = await pair.run("setup")
    assert failed.code == 1
    assert "remote.subscription_dsn" in failed.errors
    assert "could not connect to the publisher" in failed.errors
    assert (
        await pair.edge.query(
            "SELECT FROM pg_replication_slots WHERE database = current_database()"
        )
        == []
    )
    del pair.settings["subscription_dsn"]
    await pair.setup()
    await pair.write(20)
    await pair.wait_equal()


async def test_a_subscription_that_was_not_started_is(pair: Pair) -> None:
    """Cut short between subscription and slot: the next run makes the slot and starts it."""
    await pair.setup()
    name = f"plc_{pair.name}"
    address = await pair.remote.value(
        "SELECT subconninfo FROM pg_subscription WHERE subname = $1", name
    )
    for sql in ("DISABLE", "SET (slot_name = NONE)"):
        await pair.remote.execute(f"ALTER SUBSCRIPTION {name} {sql}")
    await pair.remote.execute(f"DROP SUBSCRIPTION {name}")
    await drop_slots(pair.edge)
    await pair.remote.execute(
        f"CREATE SUBSCRIPTION {name} CONNECTION '{address}' PUBLICATION plc_pub"
        f" WITH (enabled = false, create_slot = false, slot_name = {name})"
    )
    await pair.write(20)
    steps = (await pair.setup("--json")).said["steps"]
    assert [step["what"].split()[0] for step in steps] == ["Create", "Enable"]
    await pair.wait_equal()


async def test_a_slot_that_is_gone_is_not_replaced_in_silence(pair: Pair) -> None:
    """Rows have been missed then: setup refuses and names resync."""
    await pair.setup()
    await pair.remote.execute(f"ALTER SUBSCRIPTION plc_{pair.name} DISABLE")
    await drop_slots(pair.edge)
    refused = await pair.run("setup")
    assert refused.code == 2
    assert "edge-remote resync" in refused.errors


# -- traps and bad input --------------------------------------------------------------------------


@pytest.mark.parametrize("pair", FLAVOUR_PAIRS, indirect=True)
@pytest.mark.parametrize(
    "what", ["TABLE public.plc_raw", "ALL TABLES", "TABLES IN SCHEMA public", "a part"]
)
async def test_publishing_plc_raw_is_refused(pair: Pair, what: str) -> None:
    """The reason and what to drop are said, and nothing is made."""
    if what == "a part":
        await pair.write(1)
        part = await pair.edge.value(
            "SELECT inhrelid::regclass::text FROM pg_inherits"
            " WHERE inhparent = 'plc_raw'::regclass LIMIT 1"
        )
        what = f"TABLE {part}"
    await pair.edge.execute(f"CREATE PUBLICATION trap FOR {what}")
    refused = await pair.run("setup")
    assert refused.code == 2
    assert 'DROP PUBLICATION "trap"' in refused.errors
    assert "chunks" in refused.errors or "twice" in refused.errors
    assert await pair.edge.value("SELECT to_regclass('plc_outbox')") is None
    assert await pair.remote.value("SELECT to_regclass('plc_raw')") is None


@pytest.mark.parametrize("pair", FLAVOUR_PAIRS, indirect=True)
async def test_subscribing_into_plc_raw_is_refused(pair: Pair) -> None:
    """The reason is said; so it is by status, where the subscription is made later."""
    await pair.setup()
    await pair.edge.execute("CREATE PUBLICATION trap FOR TABLE plc_raw")
    await pair.remote.execute(
        f"CREATE SUBSCRIPTION trap_{pair.name} CONNECTION '{pair.edge.dsn}' PUBLICATION trap"
        " WITH (enabled = false, create_slot = false, slot_name = NONE)"
    )
    await pair.edge.execute("DROP PUBLICATION trap")
    for command, code in (("setup", 2), ("status", 1)):
        refused = await pair.run(command, "--json")
        assert refused.code == code
        said = refused.errors + refused.output
        assert f"trap_{pair.name}" in said
        assert "plc_1m" in said or "no query reads" in said


@pytest.fixture(scope="module")
def plain_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    """A server as it comes: wal_level replica, no extension, no schema."""
    with Postgres(tmp_path_factory.mktemp("plain"), ["fsync=off"]) as server:
        yield Side(server, "postgres")


async def test_a_server_without_logical_wal_is_refused(pair: Pair, plain_cluster: Side) -> None:
    """wal_level is named with the command, together with all else that is wrong."""
    pair.settings["edge_dsn"] = plain_cluster.dsn
    refused = await pair.run("setup")
    assert refused.code == 2
    assert "ALTER SYSTEM SET wal_level = 'logical'" in refused.errors
    assert "edge-agent db init" in refused.errors
    assert "2 problems" in refused.errors


async def test_a_missing_extension_is_refused(pair: Pair, plain_cluster: Side) -> None:
    """A remote that shall have TimescaleDB and can't is refused before anything is made."""
    pair.settings["remote_dsn"] = plain_cluster.dsn
    refused = await pair.run("setup", "--flavour", "timescale")
    assert refused.code == 2
    assert "TimescaleDB" in refused.errors
    assert "hint:" in refused.errors
    assert await pair.edge.value("SELECT to_regclass('plc_outbox')") is None


@pytest.mark.parametrize("side", ["edge", "remote"])
async def test_an_old_server_is_refused(
    pair: Pair, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ends are asked for their version; here one that does not exist yet is demanded."""
    monkeypatch.setattr(ends, "SERVER_VERSION_MIN", 99)
    refused = await pair.run("setup")
    assert refused.code == 2
    assert f"{side} postgresql://" in refused.errors
    assert "too old: it must be 99 or newer" in refused.errors


@pytest.mark.parametrize("end", ["edge", "remote"])
async def test_a_login_without_rights_is_refused(pair: Pair, end: str) -> None:
    """Who is not a superuser is told why it takes one, and how to become one."""
    side = getattr(pair, end)
    await side.execute(f"DROP ROLE IF EXISTS weak_{pair.name}; CREATE ROLE weak_{pair.name} LOGIN")
    pair.settings[f"{end}_dsn"] = side.dsn.replace("postgres@", f"weak_{pair.name}@")
    refused = await pair.run("setup")
    await side.execute(f"DROP ROLE weak_{pair.name}")
    assert refused.code == 2
    assert f"weak_{pair.name} is not a superuser" in refused.errors


@pytest.mark.parametrize("end", ["edge", "remote"])
@pytest.mark.parametrize(
    ("dsn", "code", "words"),
    [
        ("mysql://host/db", 2, "postgresql://"),
        ("postgresql://postgres@127.0.0.1:1/plc", 1, "is PostgreSQL running"),
        ("postgresql://postgres@127.0.0.1:PORT/nowhere", 1, "create the database"),
        ("postgresql://nobody@127.0.0.1:PORT/postgres", 1, "nobody"),
    ],
)
async def test_a_wrong_dsn(pair: Pair, end: str, dsn: str, code: int, words: str) -> None:
    """Which end it is, and what to do."""
    side: Side = getattr(pair, end)
    pair.settings[f"{end}_dsn"] = dsn.replace("PORT", str(side.server.port))
    refused = await pair.run("setup")
    assert refused.code == code
    assert words in refused.errors
    assert end in refused.errors


async def test_one_server_for_both_is_refused(pair: Pair) -> None:
    """A subscription to its own server would hang."""
    pair.settings["remote_dsn"] = pair.edge.server.dsn()
    refused = await pair.run("setup")
    assert refused.code == 2
    assert "same server" in refused.errors


def test_no_database_given() -> None:
    """The setting and the option are named."""
    refused = call("setup")
    assert refused.code == 2
    assert "--edge-dsn" in refused.errors


async def test_edge_and_remote_exchanged(pair: Pair) -> None:
    """An outbox is not a landing table, nor the other way round."""
    await pair.setup()
    pair.settings |= {"edge_dsn": pair.remote.dsn, "remote_dsn": pair.edge.dsn, "name": "x"}
    refused = await pair.run("setup")
    assert refused.code == 2
    assert "plc_outbox is a landing table" in refused.errors
    assert "plc_outbox is an outbox" in refused.errors


@pytest.fixture(scope="module")
def fast_clock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Side]:
    """A remote whose clock is 30 s ahead."""
    with FastClockPostgres(tmp_path_factory.mktemp("fast"), ["fsync=off"]) as server:
        yield Side(server, "postgres")


async def test_clocks_that_differ_are_refused(pair: Pair, fast_clock: Side) -> None:
    """Which clock is ahead, by how much, and what to run."""
    pair.settings["remote_dsn"] = fast_clock.dsn
    refused = await pair.run("setup")
    assert refused.code == 2
    assert "the clock of the remote is 30." in refused.errors or "29.9" in refused.errors
    assert "NTP" in refused.errors
    assert await fast_clock.value("SELECT to_regclass('plc_raw')") is None
