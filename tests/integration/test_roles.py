"""Who may do what: every login role over every object, told by the catalogs and tried for real.

The lists below are the contract. An object that is not on them fails the test until somebody has
said who may use it.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest

from edge_agent.postgres import database, sql_files
from tests.integration.plc_database import WITHOUT_TIMESCALE, Cluster, Database
from tests.servers import TIMESCALE_WORKERS, Postgres

Rights = dict[str, dict[str, str]]
"""By object: what each role may, the privileges joined by a blank; nobody else may anything."""

ROLES = ["agent", "reader", "subscriber", "stranger", "public"]
"""Members of ingest, viewer, rep and nothing; and what everybody may."""

INGEST, VIEWER, REP = "agent", "reader", "subscriber"
READS, CALLS, WRITES = {VIEWER: "SELECT"}, {INGEST: "EXECUTE"}, {INGEST: "INSERT"}
EVERYBODY_USES = dict.fromkeys(ROLES, "USAGE")

COMMON: Rights = {
    "table public.plc_raw": WRITES | READS,
    "table public.plc_1m": READS,
    "table public.plc_1h": READS,
    "table public.plc_settings": READS,
    "table public.plc_cursor": {INGEST: "INSERT SELECT UPDATE"},
    "table public.plc_horizon": {},
    "table public.schema_version": {},
    "function public.plc_health": {INGEST: "EXECUTE", VIEWER: "EXECUTE"},
    "function public.plc_insert_staged": CALLS,
    "function public.plc_make_partitions": CALLS,
    "function public.plc_minutes_ready": {VIEWER: "EXECUTE"},
    "function public.plc_retention": CALLS,
    "function public.plc_rollup": CALLS,
    "function public.plc_mean": {VIEWER: "EXECUTE"},
    "function public.plc_apply_settings": {},
    "function public.plc_health_flavour": {},
    "function public.plc_health_outbox": {},
    "function public.plc_health_server": {},
    "function public.plc_health_slots": {},
    "function public.plc_refresh": {},
    "function public.plc_refuses_day": {},
    "function public.plc_status": {},
    "table admin.address_map": READS,
    "table admin.address_map_version": READS,
    "sequence admin.address_map_version_version_seq": {},
    "function admin.record_map": CALLS,
    "schema admin": {INGEST: "USAGE", VIEWER: "USAGE"},
    "schema public": EVERYBODY_USES,
    "database": dict.fromkeys(ROLES, "CONNECT") | {INGEST: "CONNECT TEMPORARY"},
}
FLAVOUR: dict[str, Rights] = {
    "postgres": {
        "table public.plc_raw_#": {},
        "table public.plc_dirty": {},
        "function public.plc_mark_dirty": {},
        "function public.plc_refresh_hour": {},
        "function public.plc_roll_hour": {},
        "function public.plc_summarize": {},
        "function public.plc_roll_minute": {},
    },
    # TimescaleDB gives what was given on a hypertable on its chunks too.
    "timescale": {
        "table _timescaledb_internal._hyper_#_#_chunk": WRITES | READS,
        "table _timescaledb_internal.compress_hyper_#_#_chunk": WRITES | READS,
        "table _timescaledb_internal._compressed_hypertable_#": WRITES | READS,
        "table _timescaledb_internal._materialized_hypertable_#": READS,
        "table _timescaledb_internal._direct_view_#": READS,
        "table _timescaledb_internal._partial_view_#": READS,
        "function public.plc_drop_chunks": {},
        "function public.plc_expire": {},
        "function public.plc_health_chunks": {},
        "function public.plc_health_jobs": {},
        "function public.plc_health_rollup": {},
        "function public.plc_refresh_late": {},
        "function public.plc_set_compression": {},
        "function public.plc_set_refresh": {},
        "schema _timescaledb_cache": EVERYBODY_USES,
        "schema _timescaledb_catalog": EVERYBODY_USES,
        "schema _timescaledb_config": EVERYBODY_USES,
        "schema _timescaledb_functions": EVERYBODY_USES,
        "schema _timescaledb_internal": EVERYBODY_USES,
        "schema timescaledb_experimental": EVERYBODY_USES,
        "schema timescaledb_information": EVERYBODY_USES,
    },
}
PLACE: dict[str, Rights] = {
    "alone": {},
    "edge": {
        "table public.plc_outbox": {REP: "SELECT"},
        "table public.plc_outbox_#": {},
        "table public.plc_outbox_default": {},
        "table public.plc_outbox_settings": {},
        "function public.plc_outbox_upkeep": CALLS,
        "function public.plc_publish_row": {},
        "function public.plc_publish_rows": {},
    },
    "remote": {
        "table public.plc_outbox": {},
        "table public.plc_backfill": {},
        "table public.plc_refused": READS,
        "table public.plc_resync": {},
        "function public.plc_land": {},
        "function public.plc_land_minute": {},
    },
}

WALK = """
WITH object AS (
    SELECT 'pg_class'::regclass AS catalog, oid, relname AS name, relnamespace AS schema,
           relowner AS owner, CASE relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind
    FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    UNION ALL
    SELECT 'pg_proc'::regclass, oid, proname, pronamespace, proowner, 'function' FROM pg_proc
    UNION ALL
    SELECT 'pg_namespace'::regclass, oid, nspname, oid, NULL, 'schema' FROM pg_namespace
    UNION ALL
    SELECT 'pg_database'::regclass, oid, datname, NULL, NULL, 'database' FROM pg_database
    WHERE datname = current_database()
)
SELECT kind || CASE kind WHEN 'database' THEN '' WHEN 'schema' THEN ' ' || nspname
                         ELSE format(' %s.%s', nspname, name) END AS object,
       rolname AS owner, role, privilege
FROM object LEFT JOIN pg_namespace ON pg_namespace.oid = schema
LEFT JOIN pg_roles ON pg_roles.oid = owner
CROSS JOIN unnest($1::text[]) AS role
LEFT JOIN LATERAL (
    SELECT privilege FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS privilege
    WHERE kind = 'table' AND has_any_column_privilege(role, object.oid, privilege)
    UNION ALL
    SELECT privilege FROM unnest(ARRAY['DELETE', 'TRUNCATE', 'TRIGGER']) AS privilege
    WHERE kind = 'table' AND has_table_privilege(role, object.oid, privilege)
    UNION ALL
    SELECT privilege FROM unnest(ARRAY['USAGE', 'SELECT', 'UPDATE']) AS privilege
    WHERE kind = 'sequence' AND has_sequence_privilege(role, object.oid, privilege)
    UNION ALL
    SELECT 'EXECUTE' WHERE kind = 'function' AND has_function_privilege(role, object.oid, 'EXECUTE')
    UNION ALL
    SELECT privilege FROM unnest(ARRAY['USAGE', 'CREATE']) AS privilege
    WHERE kind = 'schema' AND has_schema_privilege(role, object.oid, privilege)
    UNION ALL
    SELECT privilege FROM unnest(ARRAY['CREATE', 'CONNECT', 'TEMPORARY']) AS privilege
    WHERE kind = 'database' AND has_database_privilege(role, object.oid, privilege)
) AS may ON true
-- What the server and an extension bring along is theirs to guard, but for their schemas.
WHERE coalesce(nspname, '') NOT IN ('pg_catalog', 'information_schema')
    AND coalesce(nspname, '') !~ '^pg_(toast|temp|toast_temp)'
    AND (kind = 'schema' OR NOT EXISTS (
        SELECT FROM pg_depend
        WHERE classid = catalog AND objid = object.oid AND deptype = 'e'
    ))
"""


@pytest.fixture(scope="module")
def cluster(cluster: Cluster) -> Cluster:
    """The same with one more role, as a remote has it at its edge."""
    asyncio.run(_make_subscriber(cluster))
    return cluster


async def _make_subscriber(cluster: Cluster) -> None:
    async with cluster.connected(cluster.server.dsn()) as connection:
        await connection.execute(
            "CREATE ROLE subscriber LOGIN REPLICATION PASSWORD 'secret' IN ROLE rep"
        )


async def make(cluster: Cluster, place: str) -> Database:
    """A database as `edge-remote setup` leaves it in this place, with a row in every table."""
    db = Database(cluster, await cluster.fresh())
    for path in sorted((sql_files.folder() / place).glob("*.sql")):
        async with cluster.connected(db.owner_dsn) as connection, connection.transaction():
            await connection.execute(path.read_text())
    await db.execute(
        "SELECT plc_make_partitions(ARRAY[floor(extract(epoch FROM now()) / 86400)::bigint]);"
        "INSERT INTO plc_raw VALUES (now() - interval '1 minute', 'A1', 'L1', 'D1', 'T1', 1, '')"
    )
    await db.execute("CALL plc_refresh(now() - interval '2 hours', now())")
    if cluster.flavour == "timescale":
        await db.execute("SELECT compress_chunk(chunk) FROM show_chunks('plc_raw') AS chunk")
    return db


@pytest.fixture(scope="module")
def places(cluster: Cluster) -> dict[str, Database]:
    """A database alone, one at the edge and one at the remote. No test leaves a change in it."""

    async def make_all() -> dict[str, Database]:
        return {place: await make(cluster, place) for place in PLACE}

    return asyncio.run(make_all())


@pytest.fixture
def db(places: dict[str, Database]) -> Database:
    return places["alone"]


def plain(name: str) -> str:
    """An object's name without its day, hour or number."""
    if "_timescaledb_internal." in name:
        return re.sub(r"\d+", "#", name)
    return re.sub(r"_\d{8,10}$", "_#", name)


# --- what the catalogs say ---------------------------------------------------------------------


@pytest.mark.parametrize("place", list(PLACE))
async def test_every_role_over_every_object(places: dict[str, Database], place: str) -> None:
    """Exactly the rights of the lists, on exactly the objects of the lists."""
    db = places[place]
    found: dict[str, dict[str, set[str]]] = {}
    for row in await db.query(WALK, ROLES):
        roles = found.setdefault(plain(row["object"]), {})
        if row["privilege"] is not None:
            roles.setdefault(row["role"], set()).add(row["privilege"])
    expected = COMMON | FLAVOUR[db.cluster.flavour] | PLACE[place]
    assert found.keys() == expected.keys()
    told = {
        name: {role: " ".join(sorted(rights)) for role, rights in roles.items()}
        for name, roles in found.items()
    }
    assert told == expected


@pytest.mark.parametrize("place", list(PLACE))
async def test_everything_belongs_to_the_role_that_nobody_logs_in_as(
    places: dict[str, Database], place: str
) -> None:
    """The superuser who applied the files owns nothing of it; rights can't be passed on."""
    db = places[place]
    owners = {row["owner"] for row in await db.query(WALK, ROLES) if row["owner"]}
    assert owners == {"plc_owner"}
    passed_on = await db.query(
        "SELECT relname FROM pg_class, aclexplode(relacl) AS acl"
        " WHERE is_grantable AND grantee <> relowner UNION ALL"
        " SELECT proname FROM pg_proc, aclexplode(proacl) AS acl"
        " WHERE is_grantable AND grantee <> proowner"
    )
    assert not passed_on


@pytest.mark.parametrize("place", list(PLACE))
async def test_functions_with_the_owners_rights_choose_their_own_names(
    places: dict[str, Database], place: str
) -> None:
    """No search_path and no temporary table of a caller can lead them astray."""
    db = places[place]
    functions = await db.query(
        "SELECT proname, proconfig FROM pg_proc JOIN pg_roles ON pg_roles.oid = proowner"
        " WHERE rolname = 'plc_owner' AND prosecdef"
    )
    assert len(functions) >= 3
    pinned = "search_path=pg_catalog, pg_temp"
    assert not [row["proname"] for row in functions if pinned not in (row["proconfig"] or [])]


async def test_the_roles_have_no_powers_of_their_own(db: Database) -> None:
    """No superuser among them, no member of another, and no login but where it must be."""
    found = await db.query(
        "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls"
        " OR rolreplication AS powerful, rolcanlogin, rolconnlimit,"
        " (SELECT count(*) FROM pg_auth_members WHERE member = r.oid) AS member_of"
        " FROM pg_roles AS r WHERE rolname IN ('plc_owner', 'ingest', 'viewer', 'rep')"
    )
    jobs = db.cluster.flavour == "timescale"
    assert {tuple(row) for row in found} == {
        ("plc_owner", False, jobs, 0 if jobs else -1, 0),
        ("ingest", False, False, -1, 0),
        ("viewer", False, False, -1, 0),
        ("rep", False, False, -1, 0),
    }


async def test_passwords_are_stored_as_scram(db: Database) -> None:
    """Every password that there is, and the owner has none."""
    stored = dict(
        await db.query("SELECT rolname, rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")
    )
    assert stored.keys() == {"guarded", "subscriber"}
    assert all(text.startswith("SCRAM-SHA-256$") for text in stored.values())


# --- tried for real ----------------------------------------------------------------------------

ROW = "(now(), 'A1', 'L1', 'D1', 'T9', 1, '')"
NOBODY = [
    "UPDATE plc_raw SET value = 0",
    "DELETE FROM plc_raw",
    "TRUNCATE plc_raw",
    "DROP TABLE plc_raw",
    "ALTER TABLE plc_raw ADD COLUMN more text",
    "ALTER TABLE plc_raw DISABLE TRIGGER ALL",
    "CREATE INDEX ON plc_raw (value)",
    "DROP FUNCTION plc_rollup",
    "UPDATE plc_settings SET raw_days = 1",
    "UPDATE plc_horizon SET raw_from = now()",
    "DELETE FROM schema_version",
    "DELETE FROM plc_cursor",
    "DELETE FROM admin.address_map",
    "UPDATE admin.address_map_version SET author = 'me'",
    "SELECT plc_apply_settings()",
    "SELECT * FROM plc_health_flavour()",
    "SELECT * FROM plc_status()",
    "CALL plc_refresh(now(), now())",
    "CREATE TABLE public.mine (x integer)",
    "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE SCHEMA mine",
    "CREATE PUBLICATION mine",
    "GRANT ingest TO stranger",
    "ALTER ROLE plc_owner PASSWORD 'x'",
    "SET ROLE plc_owner",
    "SET SESSION AUTHORIZATION plc_owner",
    "SET session_replication_role = replica",
    "COPY plc_raw TO PROGRAM 'cat'",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT rolpassword FROM pg_authid",
]
"""What none of the login roles may do."""
UPKEEP = [
    "SELECT plc_rollup(1)",
    "SELECT plc_retention()",
    "SELECT plc_make_partitions('{}')",
    "SELECT plc_insert_staged(0)",
    "INSERT INTO plc_cursor VALUES ('a', 'j', 1)",
    "CREATE TEMPORARY TABLE mine (x integer)",
]
RECORD = f"SELECT admin.record_map('{64 * '0'}', 'me', 'edge-1', '[]')"
READ = [
    "SELECT * FROM plc_raw",
    "SELECT * FROM plc_1m",
    "SELECT * FROM plc_1h",
    "SELECT * FROM admin.address_map",
]
INSERT = f"INSERT INTO plc_raw VALUES {ROW}"
WRITE = [INSERT, f"{INSERT} ON CONFLICT DO NOTHING"]
LOOK = ["SELECT * FROM plc_health()"]
SLOT = ["SELECT pg_create_logical_replication_slot('mine', 'pgoutput', true)"]
MAY_DO = {
    "agent": [*WRITE, *UPKEEP[:3], *UPKEEP[4:], *LOOK, RECORD, "SELECT * FROM plc_cursor"],
    "reader": [*READ, *LOOK, "SELECT raw_days FROM plc_settings"],
    "subscriber": [],
    "stranger": [],
}
MAY_NOT_DO = {
    "agent": [*READ, *SLOT, "COPY plc_raw TO STDOUT", "SELECT raw_days FROM plc_settings"],
    "reader": [*WRITE, *UPKEEP, *SLOT, RECORD, "SELECT * FROM plc_cursor"],
    "subscriber": [*READ, *WRITE, *UPKEEP, *LOOK, RECORD],
    "stranger": [*READ, *WRITE, *UPKEEP, *LOOK, *SLOT, RECORD],
}


async def outcome(db: Database, user: str, statement: str) -> str:
    """What comes of a statement in a transaction that is then rolled back: its SQLSTATE."""
    async with db.cluster.connected(db.dsn(user)) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(statement)
        except asyncpg.PostgresError as error:
            return str(error.sqlstate)
        finally:
            await transaction.rollback()
    return "done"


@pytest.mark.parametrize("user", list(MAY_DO))
async def test_what_a_role_may_do_works_and_all_else_is_denied(db: Database, user: str) -> None:
    """Each statement is run by the role itself: done, or denied for want of the privilege."""
    wanted = dict.fromkeys(MAY_DO[user], "done")
    wanted |= dict.fromkeys([*MAY_NOT_DO[user], *NOBODY], "42501")
    found = {statement: await outcome(db, user, statement) for statement in wanted}
    assert found == wanted


async def test_rights_on_plc_raw_are_none_on_its_parts(db: Database) -> None:
    """A writer can't go round plc_raw, and so round its triggers, into a day of its own choice."""
    if db.cluster.flavour == "timescale":
        pytest.skip("TimescaleDB gives the rights on a hypertable on its chunks too")
    (part,) = await db.query(
        "SELECT inhrelid::regclass::text FROM pg_inherits"
        " WHERE inhparent = 'public.plc_raw'::regclass ORDER BY 1 LIMIT 1"
    )
    for user in ("agent", "reader"):
        for statement in (f"INSERT INTO {part[0]} VALUES {ROW}", f"SELECT * FROM {part[0]}"):
            assert await outcome(db, user, statement) == "42501"


async def test_the_outbox_is_for_its_subscriber_alone(places: dict[str, Database]) -> None:
    """At the edge `rep` reads it and nobody writes it; at the remote only the owner touches it."""
    edge, remote = places["edge"], places["remote"]
    read = "SELECT * FROM plc_outbox"
    write = "INSERT INTO plc_outbox VALUES (now(), 'A1', 'L1', 'D1', 'T1', 1, '', now())"
    for user in ROLES[:-1]:
        at_edge = "done" if user == "subscriber" else "42501"
        assert await outcome(edge, user, read) == at_edge
        assert await outcome(remote, user, read) == "42501"
        for db in (edge, remote):
            for statement in (write, "DELETE FROM plc_outbox", "DROP TABLE plc_outbox"):
                assert await outcome(db, user, statement) == "42501"
    for user in ("reader", "subscriber", "stranger"):
        assert await outcome(edge, user, "SELECT plc_outbox_upkeep()") == "42501"
        assert await outcome(edge, user, "DROP PUBLICATION plc_pub") == "42501"
    assert await outcome(edge, "agent", "SELECT plc_outbox_upkeep()") == "done"
    rows = await edge.query("SELECT tag FROM plc_outbox", user="subscriber")
    assert [row["tag"] for row in rows] == ["T1"]


@pytest.mark.parametrize("role", ["plc_owner", "ingest", "viewer", "rep"])
async def test_nobody_logs_in_as_these(db: Database, role: str) -> None:
    """Not even from where everybody is trusted."""
    with pytest.raises(asyncpg.PostgresError) as caught:
        await asyncpg.connect(db.dsn(role))
    limited = db.cluster.flavour == "timescale" and role == "plc_owner"
    assert caught.value.sqlstate == ("53300" if limited else "28000"), caught.value


JOBS = """
SELECT owner::text, proc_name, coalesce(total_successes, 0) AS successes,
       coalesce(total_failures, 0) AS failures
FROM timescaledb_information.jobs JOIN timescaledb_information.job_stats USING (job_id)
WHERE job_id >= 1000  -- those below are the extension's own
"""


@pytest.mark.timescale
@WITHOUT_TIMESCALE
async def test_jobs_run_as_the_role_that_nobody_logs_in_as(tmp_path: Path) -> None:
    """TimescaleDB's workers are no clients: the limit of 0 connections does not hold them up."""
    settings = ["fsync=off", *TIMESCALE_WORKERS]
    with Postgres(tmp_path / "server", settings, timescale=True) as server:
        await database.init(server.dsn(), flavour="timescale")
        async with Cluster.connected(server.dsn()) as connection, asyncio.timeout(30):
            jobs = await connection.fetch(JOBS)
            while not all(job["successes"] for job in jobs):
                await asyncio.sleep(0.1)
                jobs = await connection.fetch(JOBS)
        with pytest.raises(asyncpg.TooManyConnectionsError):
            await asyncpg.connect(server.dsn("plc_owner"))
    assert len(jobs) >= 7
    assert {(job["owner"], job["failures"]) for job in jobs} == {("plc_owner", 0)}
