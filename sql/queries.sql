-- Every statement that Python sends to the database, by name (edge_agent/postgres/sql_files.py reads them).
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
SELECT sequence, refused FROM public.plc_cursor WHERE agent_id = $1 AND journal_id = $2

-- name: cursor_advance
-- Returns no row where somebody else has moved the cursor. A server whose commits do not wait for
-- its disk would lose rows that the journal has let go: for this transaction they wait.
UPDATE public.plc_cursor SET sequence = $4, refused = $5::jsonb, updated_at = now()
WHERE agent_id = $1 AND journal_id = $2 AND sequence = $3
RETURNING set_config(
    'synchronous_commit',
    replace(current_setting('synchronous_commit'), 'off', 'on'),
    true
)

-- name: cursor_refused
UPDATE public.plc_cursor SET refused = $3::jsonb WHERE agent_id = $1 AND journal_id = $2

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
SELECT partitions_dropped, minutes_deleted FROM public.plc_retention()

-- name: schema_lock
SELECT pg_advisory_xact_lock(hashtextextended('edge-agent db init', 0))

-- name: schema_exists
SELECT to_regclass('public.schema_version') IS NOT NULL

-- name: schema_applied
SELECT name, sha256 FROM public.schema_version

-- name: schema_record
INSERT INTO public.schema_version (name, sha256) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, applied_at = now()

-- name: timescale_facts
-- The extension's library defines its settings when it is preloaded; before that a setting of its
-- prefix is only a text that the server keeps, and not in this view.
SELECT current_setting('server_version_num')::integer AS version_num,
       (SELECT default_version FROM pg_catalog.pg_available_extensions
        WHERE name = 'timescaledb') AS available,
       (SELECT extversion FROM pg_catalog.pg_extension
        WHERE extname = 'timescaledb') AS installed,
       (SELECT extnamespace::regnamespace::text FROM pg_catalog.pg_extension
        WHERE extname = 'timescaledb') AS schema,
       EXISTS (SELECT FROM pg_catalog.pg_settings
               WHERE name = 'timescaledb.max_background_workers') AS preloaded,
       coalesce(current_setting('timescaledb.license', true), 'timescale') AS license

-- name: owner_role
SET LOCAL ROLE plc_owner

-- name: settings_write
UPDATE public.plc_settings
SET chunk_days = $1, compress_days = $2, raw_days = $3, minute_days = $4,
    refresh_minute_days = $5, refresh_hour_days = $6

-- name: settings_apply
SELECT public.plc_apply_settings()

-- name: settings_read
SELECT chunk_days, compress_days, raw_days, minute_days, refresh_minute_days, refresh_hour_days
FROM public.plc_settings

-- name: status
SELECT * FROM public.plc_status()

-- name: health
SELECT check_name, object, value, problem FROM public.plc_health()

-- edge-remote repair: backfill, reconcile and resync (remote/). Every time is [first, last).

-- name: repair_now
SELECT now()

-- name: repair_ready
SELECT to_regclass('public.plc_resync') IS NOT NULL

-- name: repair_lock
-- One of a kind at a time; held until the connection ends.
SELECT pg_try_advisory_lock(hashtextextended($1, 0))

-- name: repair_stage
CREATE TEMPORARY TABLE plc_repair (
    ts timestamptz, site text COLLATE "C", line text COLLATE "C", device text COLLATE "C",
    tag text COLLATE "C", value double precision, unit text COLLATE "C"
) ON COMMIT DROP

-- name: repair_insert
INSERT INTO public.plc_raw (ts, site, line, device, tag, value, unit)
SELECT ts, site, line, device, tag, value, unit FROM pg_temp.plc_repair
ON CONFLICT DO NOTHING

-- name: repair_refresh
CALL public.plc_refresh($1, $2)

-- name: repair_make_partitions
SELECT public.plc_make_partitions($1::bigint[])

-- name: repair_keeps
-- What is older than this is dropped by the next retention.
SELECT raw_days, date_bin('1 day', now(), 'epoch') - raw_days * interval '24 hours' AS kept_from
FROM public.plc_settings

-- name: repair_days
-- The UTC days that have rows. One look per day, which stops at the first row and reads the
-- partition or chunk of that day only.
SELECT (day AT TIME ZONE 'UTC')::date AS day FROM generate_series(
    date_bin('1 day', $1::timestamptz, 'epoch'), $2::timestamptz - interval '1 microsecond',
    interval '24 hours'
) AS day
WHERE EXISTS (
    SELECT FROM public.plc_raw
    WHERE ts >= greatest(day, $1) AND ts < least(day + interval '24 hours', $2)
)
ORDER BY 1

-- name: repair_rows
SELECT ts, site, line, device, tag, value, unit FROM public.plc_raw WHERE ts >= $1 AND ts < $2

-- name: repair_rows_of_device
SELECT ts, site, line, device, tag, value, unit FROM public.plc_raw
WHERE ts >= $1 AND ts < $2 AND site = $3 AND device = $4

-- name: repair_rows_of_outbox
SELECT ts, site, line, device, tag, value, unit FROM public.plc_outbox
WHERE added_at >= $1 AND added_at < $2

-- name: backfill_unfinished
-- The one that was cut short after it had passed this time.
SELECT first, done_until, refreshed_until FROM public.plc_backfill
WHERE name = $1 AND first <= $2 AND done_until >= $2 AND least(done_until, refreshed_until) < last
ORDER BY first LIMIT 1

-- name: backfill_begin
INSERT INTO public.plc_backfill (name, first, last, done_until, refreshed_until)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (name, first) DO UPDATE SET last = excluded.last, done_until = excluded.done_until,
    refreshed_until = excluded.refreshed_until, updated_at = now()

-- name: backfill_done
UPDATE public.plc_backfill SET done_until = $3, updated_at = now() WHERE name = $1 AND first = $2

-- name: backfill_refreshed
UPDATE public.plc_backfill SET refreshed_until = $3, updated_at = now()
WHERE name = $1 AND first = $2

-- name: reconcile_window
-- So many hours back, from the beginning of that hour, up to a minute ago: younger rows may still be
-- on their way.
SELECT date_bin('1 hour', now() - $1 * interval '1 hour', 'epoch') AS first,
       now() - $2 * interval '1 second' AS last

-- name: reconcile_by_index
-- For this transaction. A planner that has no statistics of a young partition would sort all of
-- its rows to find the first.
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
       set_config('enable_sort', 'off', true)

-- name: reconcile_devices
-- From one device to the next by the primary key; for whole days, so that every row of a
-- partition fits and the first one found is enough. The step is said twice: the index of a
-- partition understands the first form, compressed chunks the second.
WITH RECURSIVE seen AS (
    (
        SELECT site, device FROM public.plc_raw WHERE ts >= $1 AND ts < $2
        ORDER BY site, device LIMIT 1
    )
    UNION ALL
    SELECT next.site, next.device FROM seen CROSS JOIN LATERAL (
        SELECT raw.site, raw.device FROM public.plc_raw AS raw
        WHERE (raw.site, raw.device) > (seen.site, seen.device)
            AND raw.site >= seen.site AND (raw.site > seen.site OR raw.device > seen.device)
            AND ts >= $1 AND ts < $2
        ORDER BY site, device LIMIT 1
    ) AS next
)
SELECT site, device FROM seen

-- name: reconcile_edge
-- Count and checksum per device. The same rows give the same sum in any order, plan and
-- partitioning. The hash is the one that hash partitioning stands on, so it is the same in every
-- version of PostgreSQL (on machines of one byte order); sum(bigint) can't overflow.
SELECT site, device, count(*) AS row_count,
       sum(hash_record_extended(ROW(ts, site, line, device, tag, value, unit), 0)) AS checksum
FROM public.plc_raw
WHERE ts >= $1 AND ts < $2
GROUP BY site, device

-- name: reconcile_remote
-- The same, for these devices only.
SELECT site, device, count(*) AS row_count,
       sum(hash_record_extended(ROW(ts, site, line, device, tag, value, unit), 0)) AS checksum
FROM public.plc_raw
JOIN unnest($3::text[], $4::text[]) AS known (site, device) USING (site, device)
WHERE ts >= $1 AND ts < $2
GROUP BY site, device

-- name: reconcile_minutes
-- The same for one device, per minute.
SELECT date_bin('1 minute', ts, 'epoch') AS minute, count(*) AS row_count,
       sum(hash_record_extended(ROW(ts, site, line, device, tag, value, unit), 0)) AS checksum
FROM public.plc_raw
WHERE ts >= $1 AND ts < $2 AND site = $3 AND device = $4
GROUP BY 1

-- name: reconcile_count
-- The staged rows of the edge against plc_raw: how many are missing, different, too many.
SELECT count(*) FILTER (WHERE here.ts IS NULL) AS missing,
       count(*) FILTER (WHERE edge.ts IS NULL) AS extra,
       count(*) FILTER (
           WHERE here.ts IS NOT NULL AND edge.ts IS NOT NULL
               AND (here.line, here.value, here.unit)
                   IS DISTINCT FROM (edge.line, edge.value, edge.unit)
       ) AS different
FROM pg_temp.plc_repair AS edge
FULL JOIN (
    SELECT * FROM public.plc_raw WHERE ts >= $1 AND ts < $2 AND site = $3 AND device = $4
) AS here USING (site, device, tag, ts)

-- name: reconcile_correct
UPDATE public.plc_raw AS here SET line = edge.line, value = edge.value, unit = edge.unit
FROM pg_temp.plc_repair AS edge
WHERE here.ts >= $1 AND here.ts < $2 AND here.site = $3 AND here.device = $4
    AND edge.site = here.site AND edge.device = here.device
    AND edge.tag = here.tag AND edge.ts = here.ts
    AND (here.line, here.value, here.unit) IS DISTINCT FROM (edge.line, edge.value, edge.unit)

-- name: reconcile_extra
-- Rows that the edge did not stage, behind (tag, ts), as many as asked for.
SELECT tag, ts FROM public.plc_raw AS here
WHERE ts >= $1 AND ts < $2 AND site = $3 AND device = $4 AND (tag, ts) > ($5, $6)
    AND NOT EXISTS (
        SELECT FROM pg_temp.plc_repair AS edge WHERE edge.tag = here.tag AND edge.ts = here.ts
    )
ORDER BY tag, ts LIMIT $7

-- name: reconcile_absent
-- Those of these rows that the edge does not have, though it has an older one of the device: what
-- is older than that may be another edge's, or gone from here by retention.
SELECT tag, ts FROM unnest($3::text[], $4::timestamptz[]) AS found (tag, ts)
WHERE NOT EXISTS (
        SELECT FROM public.plc_raw AS here
        WHERE here.site = $1 AND here.device = $2 AND here.tag = found.tag AND here.ts = found.ts
    ) AND EXISTS (
        SELECT FROM public.plc_raw AS older
        WHERE older.site = $1 AND older.device = $2 AND older.ts < found.ts
    )

-- name: reconcile_delete
DELETE FROM public.plc_raw AS here USING unnest($3::text[], $4::timestamptz[]) AS found (tag, ts)
WHERE here.site = $1 AND here.device = $2 AND here.tag = found.tag AND here.ts = found.ts
    AND here.ts >= $5 AND here.ts < $6

-- name: reconcile_position
SELECT pg_current_wal_insert_lsn()::text

-- name: reconcile_arrived
-- Whether everything up to this position has been applied; NULL where nobody receives.
SELECT receiver.replay_lsn >= $2::text::pg_lsn FROM pg_catalog.pg_replication_slots AS slot
JOIN pg_catalog.pg_stat_replication AS receiver ON receiver.pid = slot.active_pid
WHERE slot.slot_name = $1

-- name: resync_published
SELECT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'plc_pub')
    AND to_regclass('public.plc_outbox') IS NOT NULL

-- name: resync_begun
SELECT gap_from, outbox_until FROM public.plc_resync WHERE name = $1

-- name: resync_begin
-- Another slot was lost before the last resync was through: the outbox is copied anew.
INSERT INTO public.plc_resync (name, gap_from) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET gap_from = least(plc_resync.gap_from, excluded.gap_from),
    outbox_until = DEFAULT

-- name: resync_outbox_copied
UPDATE public.plc_resync SET outbox_until = $2 WHERE name = $1

-- name: resync_end
DELETE FROM public.plc_resync WHERE name = $1

-- name: resync_workers
-- Workers of a subscription that still run.
SELECT count(*) FROM pg_catalog.pg_stat_subscription WHERE subname = $1 AND pid IS NOT NULL

-- name: resync_drop_slot
SELECT pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
WHERE slot_name = $1

-- name: resync_create_slot
SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'pgoutput')

-- name: resync_set_origin
-- Where the subscription goes on. The old position may be that of another server (the edge's disk
-- was replaced): the edge would then skip whatever lies before it.
SELECT pg_replication_origin_advance('pg_' || $1::oid, $2::text::pg_lsn)

-- name: resync_outbox_hours
-- The hours of arrival that the outbox still has rows of.
SELECT hour FROM generate_series(
    date_bin('1 hour', now(), 'epoch') - $1 * interval '1 hour',
    date_bin('1 hour', now(), 'epoch'), interval '1 hour'
) AS hour
WHERE EXISTS (
    SELECT FROM public.plc_outbox WHERE added_at >= hour AND added_at < hour + interval '1 hour'
)
ORDER BY hour

-- edge-remote repair ends

-- edge-remote: the two ends, what setup, teardown and status look at (remote/).

-- name: end_facts
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::integer AS version_num,
       current_setting('server_encoding') AS encoding,
       current_database()::text AS database, current_user::text AS "user",
       (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AS superuser,
       current_setting('wal_level') AS wal_level,
       pg_postmaster_start_time() AS started_at

-- name: end_has_settings
-- Whether the schema is applied; false too for whoever may not read it.
SELECT coalesce(has_table_privilege(to_regclass('public.plc_settings'), 'SELECT'), false)

-- name: end_flavour
SELECT flavour FROM public.plc_settings

-- name: end_clock
SELECT extract(epoch FROM clock_timestamp())::double precision

-- name: secret_unlogged
-- What follows in this transaction is not logged. An error inside a statement would be logged with
-- the statement as its context; `terse` leaves that out.
SELECT set_config('log_statement', 'none', true),
       set_config('log_min_duration_statement', '-1', true),
       set_config('log_min_duration_sample', '-1', true),
       set_config('log_duration', 'off', true),
       set_config('log_min_error_statement', 'panic', true),
       set_config('log_error_verbosity', 'terse', true)

-- name: secret_bind
SELECT set_config('plc_remote.secret', $1, true)

-- name: subscription_state
SELECT s.oid::bigint AS oid, subenabled AS enabled, subslotname::text AS slot_name,
       subpublications AS publications, subconninfo AS address,
       ARRAY(
           SELECT srsubstate::text FROM pg_catalog.pg_subscription_rel WHERE srsubid = s.oid
       ) AS copy_states,
       (
           SELECT pid FROM pg_catalog.pg_stat_subscription WHERE subid = s.oid AND relid IS NULL
           LIMIT 1
       ) AS worker_pid
FROM pg_catalog.pg_subscription AS s
JOIN pg_catalog.pg_database AS d ON d.oid = subdbid AND datname = current_database()
WHERE subname = $1

-- name: slot_state
SELECT slot_name::text AS name, active_pid, wal_status, safe_wal_size AS safe_wal_bytes,
       pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint AS lag_bytes
FROM pg_catalog.pg_replication_slots
WHERE slot_name = $1 AND database = current_database()

-- name: slots_in_use
-- Ends whoever holds them: with the subscription gone nobody comes back.
SELECT slot_name, pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots
WHERE active_pid IS NOT NULL AND database = current_database()
    AND (slot_name = $1 OR slot_name LIKE $2)

-- name: slots_drop
SELECT pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
WHERE database = current_database() AND (slot_name = $1 OR slot_name LIKE $2)

-- name: edge_names
-- Slots that remotes of ours have on this edge database.
SELECT slot_name::text FROM pg_catalog.pg_replication_slots
WHERE database = current_database() AND slot_name LIKE 'plc\_%' ORDER BY 1

-- name: remote_names
-- Subscriptions of ours in this remote database.
SELECT subname::text FROM pg_catalog.pg_subscription AS s
JOIN pg_catalog.pg_database AS d ON d.oid = subdbid AND datname = current_database()
WHERE subname LIKE 'plc\_%' ORDER BY 1

-- name: edge_limits
SELECT current_setting('max_replication_slots')::integer AS slots_max,
       (SELECT count(*) FROM pg_catalog.pg_replication_slots)::integer AS slots,
       current_setting('max_wal_senders')::integer AS senders_max,
       (SELECT setting::bigint FROM pg_catalog.pg_settings
        WHERE name = 'max_slot_wal_keep_size') AS wal_keep_mb

-- name: remote_limits
-- Each subscription needs an origin (max_replication_slots) and a worker, and one for its copy.
SELECT current_setting('max_replication_slots')::integer AS origins_max,
       current_setting('max_logical_replication_workers')::integer AS workers_max,
       (SELECT count(*) FROM pg_catalog.pg_subscription)::integer AS subscriptions

-- name: edge_objects
-- What makes the outbox work, as far as it is there; the login with its verifier.
SELECT (SELECT relkind = 'p' FROM pg_catalog.pg_class
        WHERE oid = to_regclass('public.plc_outbox')) AS outbox_is_partitioned,
       to_regclass('public.plc_outbox_settings') IS NOT NULL AS has_settings,
       EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgname = 'plc_publish'
               AND tgrelid = to_regclass('public.plc_raw')
               AND tgenabled IN ('O', 'A')) AS has_trigger,
       EXISTS (SELECT FROM pg_catalog.pg_publication_rel AS r
               JOIN pg_catalog.pg_publication AS p ON p.oid = prpubid
               WHERE pubname = 'plc_pub' AND prrelid = to_regclass('public.plc_outbox')
               AND pubinsert AND pubviaroot AND NOT pubupdate AND NOT pubdelete
               AND NOT pubtruncate) AS has_publication,
       (SELECT count(*) FROM pg_catalog.pg_publication
        WHERE pubname = 'plc_pub') > 0 AS has_some_publication

-- name: edge_login
SELECT rolcanlogin AND rolreplication AND pg_has_role(oid, 'rep', 'MEMBER')
           AND EXISTS (SELECT FROM pg_catalog.pg_db_role_setting
                       WHERE setrole = pg_authid.oid AND setconfig::text LIKE '%tcp_user_timeout=%')
           AS is_complete,
       rolpassword AS verifier
FROM pg_catalog.pg_authid WHERE rolname = $1

-- name: outbox_hours
SELECT outbox_hours FROM public.plc_outbox_settings

-- name: outbox_hours_write
UPDATE public.plc_outbox_settings SET outbox_hours = $1

-- name: remote_objects
SELECT (SELECT relkind = 'r' FROM pg_catalog.pg_class
        WHERE oid = to_regclass('public.plc_outbox')) AS outbox_is_plain,
       EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgname = 'plc_land'
               AND tgrelid = to_regclass('public.plc_outbox')
               AND tgenabled = 'A') AS has_trigger

-- name: trap_publications
-- Publications that carry plc_raw, one of its partitions or chunks, or a schema that holds them.
WITH RECURSIVE part AS (
    SELECT to_regclass('public.plc_raw')::oid AS oid
    UNION ALL
    SELECT inhrelid FROM pg_catalog.pg_inherits JOIN part ON part.oid = inhparent
)
SELECT pubname::text AS name,
       CASE
           WHEN puballtables THEN 'all tables'
           WHEN EXISTS (
               SELECT FROM pg_catalog.pg_publication_namespace JOIN pg_catalog.pg_class AS c
                   ON c.relnamespace = pnnspid
               JOIN part ON part.oid = c.oid WHERE pnpubid = p.oid
           ) THEN 'the schema of plc_raw'
           ELSE (
               SELECT min(prrelid::regclass::text) FROM pg_catalog.pg_publication_rel
               JOIN part ON part.oid = prrelid WHERE prpubid = p.oid
           )
       END AS carries
FROM pg_catalog.pg_publication AS p
WHERE puballtables OR EXISTS (
    SELECT FROM pg_catalog.pg_publication_rel JOIN part ON part.oid = prrelid WHERE prpubid = p.oid
) OR EXISTS (
    SELECT FROM pg_catalog.pg_publication_namespace
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = pnnspid
    JOIN part ON part.oid = c.oid WHERE pnpubid = p.oid
)
ORDER BY 1

-- name: trap_subscriptions
-- Subscriptions that write into plc_raw, or into one of its partitions or chunks.
WITH RECURSIVE part AS (
    SELECT to_regclass('public.plc_raw')::oid AS oid
    UNION ALL
    SELECT inhrelid FROM pg_catalog.pg_inherits JOIN part ON part.oid = inhparent
)
SELECT subname::text AS name, min(srrelid::regclass::text) AS feeds
FROM pg_catalog.pg_subscription AS s
JOIN pg_catalog.pg_subscription_rel ON srsubid = s.oid
JOIN part ON part.oid = srrelid
GROUP BY 1 ORDER BY 1

-- name: sender_state
-- The edge's side of a subscription; no row where the slot is not in use.
SELECT state, extract(epoch FROM replay_lag)::double precision AS lag_s
FROM pg_catalog.pg_stat_replication WHERE pid = $1

-- name: edge_wal_bytes
SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint

-- name: outbox_ahead
-- Whether the outbox has a partition for the hour after this one.
SELECT to_regclass('public.plc_outbox_' || to_char(
    (now() + interval '1 hour') AT TIME ZONE 'UTC', 'YYYYMMDDHH24'
)) IS NOT NULL

-- name: subscription_errors
SELECT apply_error_count AS apply_errors, sync_error_count AS sync_errors
FROM pg_catalog.pg_stat_subscription_stats WHERE subid = $1::bigint::oid

-- name: refused_rows
-- Rows that the remote could not take; counted up to a thousand.
SELECT count(*) FROM (SELECT FROM public.plc_refused LIMIT 1000) AS counted

-- name: newest_rows
SELECT ts, site, device, tag FROM public.plc_raw
WHERE ts >= $1 AND ts < $2 ORDER BY ts DESC LIMIT $3

-- name: newest_minute
SELECT max(bucket) FROM public.plc_1m WHERE bucket >= $1

-- name: newest_of
-- One backward look at the primary key for each tag.
SELECT max(newest.ts)
FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (site, device, tag)
CROSS JOIN LATERAL (
    SELECT ts FROM public.plc_raw AS r
    WHERE r.site = wanted.site AND r.device = wanted.device AND r.tag = wanted.tag
    ORDER BY ts DESC LIMIT 1
) AS newest

-- dashboard: what the pages read. Times and values of a tag come as one run of big-endian bytes
-- each, which a reader unpacks at once: timestamptz_send is int8, microseconds since 2000-01-01 UTC;
-- float8send is float8. Within a tag they are in step with each other, but in no promised order.

-- name: dashboard_session
-- With less memory card_minutes spills to the disk, and compiling costs more than any query here.
-- None needs a sort; but where statistics are young the planner believes that a tag has one row,
-- and card_latest would read and sort them all instead of the newest one.
-- What nobody waits for any more ends.
SELECT set_config('work_mem', '32MB', false), set_config('jit', 'off', false),
       set_config('enable_sort', 'off', false), set_config('statement_timeout', '10s', false)

-- name: minutes_ready
-- Ask for no later minutes of all tags at once: they might have to be computed.
SELECT public.plc_minutes_ready()

-- name: card_minutes
-- The bars of all cards: every tag's minutes in [$1, $2).
SELECT site, device, tag,
       string_agg(timestamptz_send(bucket), '') AS buckets,
       string_agg(float8send(avg_value), '') AS averages
FROM public.plc_1m
WHERE bucket >= $1 AND bucket < $2
GROUP BY site, device, tag

-- name: card_latest
-- The newest sample of each of these tags in [$4, $5): one backward look at the primary key each,
-- and none at partitions that wait for days to come.
SELECT wanted.site, newest.line, wanted.device, wanted.tag, newest.ts, newest.value, newest.unit
FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (site, device, tag)
CROSS JOIN LATERAL (
    SELECT ts, line, value, unit FROM public.plc_raw AS r
    WHERE r.site = wanted.site AND r.device = wanted.device AND r.tag = wanted.tag
        AND ts >= $4 AND ts < $5
    ORDER BY ts DESC LIMIT 1
) AS newest

-- name: dashboard_tags
-- The tags that have samples in [$1, $2), where $2 is what plc_minutes_ready() says: by whole hours,
-- and those of the newest hour, which may not be summarized yet, by its minutes.
SELECT site, device, tag FROM public.plc_1h
WHERE bucket >= date_bin('1 hour', $1, 'epoch') AND bucket < date_bin('1 hour', $2, 'epoch')
UNION
SELECT site, device, tag FROM public.plc_1m
WHERE bucket >= date_bin('1 hour', $2, 'epoch') AND bucket < $2

-- name: device_minute_steps
-- The minutes of some tags of a device in [$4, $5), grouped into steps of $6.
SELECT tag,
       string_agg(timestamptz_send(step), '') AS buckets,
       string_agg(float8send(average), '') AS averages,
       string_agg(float8send(lowest), '') AS lowest,
       string_agg(float8send(highest), '') AS highest,
       string_agg(int8send(parts), '') AS parts
FROM (
    SELECT tag, date_bin($6, bucket, 'epoch') AS step,
           public.plc_mean(sum(avg_value), count(*)) AS average,
           min(min_value) AS lowest, max(max_value) AS highest, count(*) AS parts
    FROM public.plc_1m
    WHERE site = $1 AND device = $2 AND tag = ANY ($3::text[]) AND bucket >= $4 AND bucket < $5
    GROUP BY tag, date_bin($6, bucket, 'epoch')
) AS stepped
GROUP BY tag

-- name: device_hour_steps
-- The same for hours.
SELECT tag,
       string_agg(timestamptz_send(step), '') AS buckets,
       string_agg(float8send(average), '') AS averages,
       string_agg(float8send(lowest), '') AS lowest,
       string_agg(float8send(highest), '') AS highest,
       string_agg(int8send(parts), '') AS parts
FROM (
    SELECT tag, date_bin($6, bucket, 'epoch') AS step,
           public.plc_mean(sum(avg_value), count(*)) AS average,
           min(min_value) AS lowest, max(max_value) AS highest, count(*) AS parts
    FROM public.plc_1h
    WHERE site = $1 AND device = $2 AND tag = ANY ($3::text[]) AND bucket >= $4 AND bucket < $5
    GROUP BY tag, date_bin($6, bucket, 'epoch')
) AS stepped
GROUP BY tag

-- name: device_samples
-- Tag by tag: a planner that has no statistics of a young partition would read all of the device.
SELECT wanted.tag, times, values
FROM unnest($3::text[]) AS wanted (tag)
CROSS JOIN LATERAL (
    SELECT string_agg(timestamptz_send(ts), '') AS times,
           string_agg(float8send(value), '') AS values
    FROM public.plc_raw AS r
    WHERE r.site = $1 AND r.device = $2 AND r.tag = wanted.tag AND ts >= $4 AND ts < $5
) AS found
WHERE times IS NOT NULL

-- name: device_counts
SELECT tag, sum(samples)::bigint AS samples FROM public.plc_1m
WHERE site = $1 AND device = $2 AND tag = ANY ($3::text[]) AND bucket >= $4 AND bucket < $5
GROUP BY tag

-- name: device_seen
-- Those of these tags that have samples in the hours in [$4, $5).
SELECT tag FROM unnest($3::text[]) AS wanted (tag)
WHERE EXISTS (
    SELECT FROM public.plc_1h AS h
    WHERE h.site = $1 AND h.device = $2 AND h.tag = wanted.tag AND bucket >= $4 AND bucket < $5
)

-- name: device_series
-- Line and unit of each of these tags, as its newest row has them; hours outlive samples.
SELECT wanted.tag, newest.line, newest.unit FROM unnest($3::text[]) AS wanted (tag)
CROSS JOIN LATERAL (
    SELECT line, unit FROM (
        (
            SELECT ts, line, unit FROM public.plc_raw AS r
            WHERE r.site = $1 AND r.device = $2 AND r.tag = wanted.tag ORDER BY ts DESC LIMIT 1
        )
        UNION ALL
        (
            SELECT bucket, line, unit FROM public.plc_1h AS h
            WHERE h.site = $1 AND h.device = $2 AND h.tag = wanted.tag
            ORDER BY bucket DESC LIMIT 1
        )
    ) AS both_of_them
    ORDER BY ts DESC LIMIT 1
) AS newest

-- name: device_rows
-- The newest rows of these tags together: as many of each as of all, by the primary key.
SELECT newest.ts, wanted.tag, newest.value FROM unnest($3::text[]) AS wanted (tag)
CROSS JOIN LATERAL (
    SELECT ts, value FROM public.plc_raw AS r
    WHERE r.site = $1 AND r.device = $2 AND r.tag = wanted.tag ORDER BY ts DESC LIMIT $4
) AS newest
ORDER BY newest.ts DESC, wanted.tag DESC LIMIT $4

-- name: dashboard_kept
-- What is older than this is dropped by the next retention.
SELECT date_bin('1 day', now(), 'epoch') - raw_days * interval '24 hours' AS samples_from,
       date_bin('1 day', now(), 'epoch') - minute_days * interval '24 hours' AS minutes_from
FROM public.plc_settings

-- name: map_record
SELECT admin.record_map($1, $2, $3, $4::jsonb)

-- edge-agent quality: what it reads beside the above.

-- name: quality_session
-- Compiling costs more than any query here; what nobody waits for any more ends.
SELECT set_config('jit', 'off', false), set_config('statement_timeout', '60s', false),
       set_config('default_transaction_read_only', 'on', false)

-- name: quality_begins
-- The first minute of all, if there is none before $1; else NULL.
SELECT CASE WHEN begins > $1::timestamptz THEN begins END FROM (
    SELECT min(bucket) AS begins
    FROM (
        SELECT min(bucket) AS start FROM public.plc_1h
        WHERE bucket >= date_bin('1 hour', $1, 'epoch')
    ) AS hour
    JOIN public.plc_1m ON bucket >= start AND bucket < start + interval '1 hour'
    WHERE NOT EXISTS (
        SELECT FROM public.plc_1h WHERE bucket < date_bin('1 hour', $1, 'epoch')
    )
) AS first_minute

-- name: quality_samples
-- Every sample of some tags of a device in [$4, $5). Each tag is looked up by itself: with all at
-- once the planner may read every row that the device has in these partitions, for each window.
SELECT wanted.tag, found.times, found.values FROM unnest($3::text[]) AS wanted (tag)
CROSS JOIN LATERAL (
    SELECT string_agg(timestamptz_send(ts), '') AS times,
           string_agg(float8send(value), '') AS values
    FROM public.plc_raw AS r
    WHERE r.site = $1 AND r.device = $2 AND r.tag = wanted.tag AND ts >= $4 AND ts < $5
) AS found
WHERE found.times IS NOT NULL

-- name: quality_minutes
-- The minutes of some tags of a device in [$4, $5).
SELECT wanted.tag, found.buckets, found.samples, found.lowest, found.highest
FROM unnest($3::text[]) AS wanted (tag)
CROSS JOIN LATERAL (
    SELECT string_agg(timestamptz_send(bucket), '') AS buckets,
           string_agg(int8send(samples), '') AS samples,
           string_agg(float8send(min_value), '') AS lowest,
           string_agg(float8send(max_value), '') AS highest
    FROM public.plc_1m AS m
    WHERE m.site = $1 AND m.device = $2 AND m.tag = wanted.tag AND bucket >= $4 AND bucket < $5
) AS found
WHERE found.buckets IS NOT NULL
