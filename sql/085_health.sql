-- What the database says of itself. The agent's upkeep asks each minute, `edge-agent db status` and
-- `edge-remote status` when they are called.

SET LOCAL ROLE plc_owner;

-- One row per figure: `check_name` ends in the unit of `value`, `object` is what was looked at,
-- `problem` is NULL while all is well, else a sentence that says what to do. Cheap: catalogs and
-- sizes of files, no row of plc_raw is read. What locks a table for long makes it fail after a
-- second, not wait.
CREATE OR REPLACE FUNCTION public.plc_health()
RETURNS TABLE (check_name text, object text, value double precision, problem text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s' SET timezone = 'UTC'
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT * FROM public.plc_health_flavour();
    RETURN QUERY SELECT * FROM public.plc_health_server();
    RETURN QUERY SELECT * FROM public.plc_health_slots();
    RETURN QUERY SELECT * FROM public.plc_health_outbox();
END
$$;

CREATE OR REPLACE FUNCTION public.plc_health_server()
RETURNS TABLE (check_name text, object text, value double precision, problem text)
LANGUAGE sql STABLE
AS $$
SELECT 'database_bytes', datname, pg_database_size(oid), NULL
FROM pg_catalog.pg_database
-- A database that does not let its own owner of objects connect does not tell its size.
WHERE datname = current_database() AND has_database_privilege(oid, 'CONNECT')
UNION ALL
-- At 2^31 the server stops writing. Autovacuum begins at autovacuum_freeze_max_age; twice that
-- means that something holds it up.
SELECT 'freeze_age_xids', datname, age(datfrozenxid),
       CASE WHEN age(datfrozenxid) > least(1500000000,
               2 * current_setting('autovacuum_freeze_max_age')::bigint) THEN format(
           'the oldest transaction id of %s is %s old and the server stops at 2.1 billion: look for'
           ' old transactions in pg_stat_activity, pg_prepared_xacts and pg_replication_slots, then'
           ' run VACUUM as superuser', datname, age(datfrozenxid)) END
FROM pg_catalog.pg_database WHERE datname = current_database()
$$;

-- Slots keep WAL for a subscriber, in the worst case until the disk is full; those of other
-- databases and standbys too, so all of the server's are looked at.
CREATE OR REPLACE FUNCTION public.plc_health_slots()
RETURNS TABLE (check_name text, object text, value double precision, problem text)
LANGUAGE sql STABLE
AS $$
WITH here AS (
    SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                ELSE pg_current_wal_lsn() END AS lsn,
           pg_size_bytes(current_setting('max_slot_wal_keep_size')) AS bytes_max
),
slot AS (
    SELECT slot_name::text, slot_type, active, wal_status, safe_wal_size, bytes_max,
           coalesce(greatest(0, pg_wal_lsn_diff(lsn, restart_lsn)), 0)::bigint AS bytes
    FROM pg_catalog.pg_replication_slots, here WHERE NOT temporary
)
SELECT 'slot_active', slot_name, active::int, NULL FROM slot
UNION ALL
SELECT 'slot_wal_bytes', slot_name, bytes, CASE
    WHEN wal_status = 'lost' THEN format(
        'slot %s is lost, its WAL was removed and its subscriber gets nothing any more: run'
        ' `edge-remote resync`, or drop the slot if its subscriber is gone for good', slot_name)
    WHEN wal_status = 'unreserved' OR safe_wal_size < bytes_max / 5 THEN format(
        'slot %s keeps %s of WAL and is lost at %s: is its subscriber up, and does it keep up?',
        slot_name, pg_size_pretty(bytes), pg_size_pretty(bytes_max))
    -- Without a subscriber for so much WAL: not just one that connects again.
    WHEN NOT active AND bytes > 64 * 1024 * 1024 THEN format(
        'slot %s has no subscriber and keeps %s of WAL: is the remote up and in reach? If it is'
        ' gone for good, run `edge-remote teardown`', slot_name, pg_size_pretty(bytes))
    END
FROM slot
UNION ALL
SELECT 'slot_wal_max_bytes', 'max_slot_wal_keep_size', bytes_max,
       CASE WHEN bytes_max < 0 AND EXISTS (SELECT FROM slot WHERE slot_type = 'logical') THEN
           'nothing limits the WAL that is kept for an absent subscriber, and a full disk stops the'
           ' server: ALTER SYSTEM SET max_slot_wal_keep_size = ''4GB''; SELECT pg_reload_conf()' END
FROM here
$$;

-- On the edge plc_outbox is partitioned by the hour; on the remote it is the landing table, whose
-- trigger leaves no row in it. There is none before `edge-remote setup`.
CREATE OR REPLACE FUNCTION public.plc_health_outbox()
RETURNS TABLE (check_name text, object text, value double precision, problem text)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    -- Rows are counted up to here: more is no other news, and the look stays cheap.
    stray_max constant integer := 10000;
    outbox constant oid := to_regclass('public.plc_outbox');
    partitioned constant boolean := EXISTS (
        SELECT FROM pg_partitioned_table WHERE partrelid = outbox
    );
    -- Where rows lie that should not: the default partition, or the landing table itself.
    catch_all constant oid := CASE WHEN partitioned THEN (
        SELECT nullif(partdefid, 0) FROM pg_partitioned_table WHERE partrelid = outbox
    ) ELSE outbox END;
    ahead double precision;
    stray double precision;
BEGIN
    IF outbox IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT kind, 'plc_outbox', sum(bytes)::float8, NULL
    FROM (SELECT outbox AS id UNION ALL SELECT inhrelid FROM pg_inherits WHERE inhparent = outbox)
             AS piece,
         LATERAL (VALUES ('table_bytes', pg_table_size(id)), ('index_bytes', pg_indexes_size(id)))
             AS size (kind, bytes)
    GROUP BY kind;
    IF catch_all IS NOT NULL THEN
        EXECUTE format('SELECT count(*) FROM (SELECT FROM ONLY %s LIMIT %s) AS found',
            catch_all::regclass, stray_max) INTO stray;
    END IF;
    IF to_regclass('public.plc_refused') IS NOT NULL THEN
        RETURN QUERY EXECUTE format(
            'SELECT ''refused_rows'', ''plc_refused'', count(*)::float8, CASE WHEN count(*) > 0 THEN'
            ' ''rows of an edge were refused here: plc_refused has them with the reasons; delete'
            ' them there when they are dealt with'' END'
            ' FROM (SELECT FROM public.plc_refused LIMIT %s) AS found', stray_max
        );
    END IF;
    IF NOT partitioned THEN
        RETURN QUERY SELECT 'landing_rows', 'plc_outbox', stray, CASE WHEN stray > 0 THEN
            'rows lie in the landing table and are missing in plc_raw, because its trigger did not'
            ' run: run `edge-remote setup`, then `edge-remote reconcile`' END;
        RETURN;
    END IF;
    SELECT coalesce(extract(epoch FROM max(upper::timestamptz) - now()) / 3600, 0) INTO ahead
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid,
         substring(pg_get_expr(relpartbound, inhrelid) FROM $x$TO \('([^']+)'\)$x$) AS upper
    WHERE inhparent = outbox;
    RETURN QUERY
    SELECT 'outbox_ahead_hours', 'plc_outbox', ahead, CASE WHEN ahead < 12 THEN
        'the hours of plc_outbox are not made ahead any more: does the upkeep of the agent run, and'
        ' does its log complain? Rows are published all the same' END
    UNION ALL
    SELECT 'outbox_default_rows', 'plc_outbox', stray, NULL
    WHERE catch_all IS NOT NULL;
END
$$;

REVOKE ALL ON FUNCTION public.plc_health(), public.plc_health_server(), public.plc_health_slots(),
    public.plc_health_outbox() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.plc_health() TO ingest, viewer;
