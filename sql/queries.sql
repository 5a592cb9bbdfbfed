-- Every statement that Python sends to the database, by name (edge_agent/sql_files.py reads them).
-- All names are qualified: no search_path of a role or a database can lead them astray.

-- name: session_settings
-- A server must notice within half a minute that the agent is gone: the transaction that it
-- leaves behind holds the lock on its cursor.
SELECT set_config('tcp_keepalives_idle', '10', false),
       set_config('tcp_keepalives_interval', '5', false),
       set_config('tcp_keepalives_count', '3', false),
       set_config('idle_in_transaction_session_timeout', '30s', false)

-- name: server_facts
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::integer AS version_num,
       current_setting('server_encoding') AS encoding

-- name: cursor_create
INSERT INTO public.plc_cursor (agent_id, journal_id, sequence) VALUES ($1, $2, -1)
ON CONFLICT (agent_id, journal_id) DO NOTHING

-- name: cursor_read
SELECT sequence FROM public.plc_cursor WHERE agent_id = $1 AND journal_id = $2

-- name: cursor_advance
-- Returns no row where somebody else has moved the cursor. A server whose commits do not wait for
-- its disk would lose rows that the journal has let go: for this transaction they wait.
UPDATE public.plc_cursor SET sequence = $4, updated_at = now()
WHERE agent_id = $1 AND journal_id = $2 AND sequence = $3
RETURNING set_config(
    'synchronous_commit',
    replace(current_setting('synchronous_commit'), 'off', 'on'),
    true
)

-- name: make_partitions
SELECT public.plc_make_partitions($1::bigint[])

-- name: stage_create
CREATE TEMPORARY TABLE plc_staged (
    n integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ts timestamptz, site text, line text, device text, tag text, value double precision, unit text
) ON COMMIT DROP

-- name: stage_insert
SELECT inserted, refused, reasons FROM public.plc_insert_staged($1)

-- name: rollup
SELECT public.plc_rollup($1)

-- name: partitions_ahead
SELECT public.plc_make_partitions(ARRAY(
    SELECT floor(extract(epoch FROM now()) / 86400)::bigint + ahead
    FROM generate_series(0, $1::integer) AS ahead
))

-- name: retention
SELECT partitions_dropped, minutes_deleted FROM public.plc_retention($1, $2)

-- name: schema_lock
SELECT pg_advisory_xact_lock(hashtextextended('edge-agent db init', 0))

-- name: schema_exists
SELECT to_regclass('public.schema_version') IS NOT NULL

-- name: schema_applied
SELECT name, sha256 FROM public.schema_version

-- name: schema_record
INSERT INTO public.schema_version (name, sha256) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, applied_at = now()

-- name: status_partitions
-- Days ahead: how many days after today are ready. The estimate is the statistics' own.
WITH part AS (
    SELECT to_date(right(child.relname, 8), 'YYYYMMDD') AS day,
           greatest(child.reltuples, stats.n_live_tup, 0)::bigint AS row_count
    FROM pg_catalog.pg_inherits
    JOIN pg_catalog.pg_class AS child ON child.oid = inhrelid
    LEFT JOIN pg_catalog.pg_stat_all_tables AS stats ON stats.relid = child.oid
    WHERE inhparent = 'public.plc_raw'::regclass
)
SELECT count(*) AS partitions, min(day) AS oldest_day, max(day) AS newest_day,
       count(*) FILTER (WHERE day > (now() AT TIME ZONE 'UTC')::date) AS days_ahead,
       coalesce(sum(row_count), 0)::bigint AS rows_estimate
FROM part

-- name: status_dirty
SELECT count(DISTINCT minute) AS minutes, min(minute) AS oldest FROM public.plc_dirty
