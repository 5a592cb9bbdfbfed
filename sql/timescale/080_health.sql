-- What plc_health() (085_health.sql) says about TimescaleDB. Its jobs can be installed and never
-- succeed, so it is their success that is looked at.

SET LOCAL ROLE plc_owner;

-- How far an aggregate is behind, 0 while no row that is older than `late` waits for it: a plant
-- that stands still is not late.
CREATE OR REPLACE FUNCTION public.plc_health_rollup(aggregate text, late interval)
RETURNS TABLE (check_name text, object text, value double precision, problem text)
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    reached timestamptz := (
        SELECT _timescaledb_functions.to_timestamp(
            _timescaledb_functions.cagg_watermark(mat_hypertable_id))
        FROM _timescaledb_catalog.continuous_agg
        WHERE user_view_schema = 'public' AND user_view_name = aggregate
    );
    waits boolean;
    behind interval;
BEGIN
    -- With the times written out, the planner leaves out all other chunks.
    EXECUTE format('SELECT EXISTS (SELECT FROM public.plc_raw WHERE ts >= %L AND ts < %L)',
        reached, now() - late) INTO waits;
    IF reached < 'epoch' THEN  -- nothing was ever rolled up
        SELECT applied_at INTO reached FROM public.schema_version
        WHERE name = 'timescale/055_policies.sql';
    END IF;
    behind := CASE WHEN waits THEN coalesce(now() - reached, late) ELSE interval '0' END;
    RETURN QUERY SELECT 'rollup_lag_seconds', aggregate, extract(epoch FROM behind)::float8,
        CASE WHEN behind > late THEN format(
            '%s is %s behind plc_raw, so what reads it is slow: does its refresh job run? See'
            ' timescaledb_information.job_stats and the server''s log',
            aggregate, date_trunc('minute', behind)) END;
END
$$;

-- The jobs that 055_policies.sql makes: failures since they were made, and the time since the last
-- success; for one that never succeeded, since it was made or the server was started.
CREATE OR REPLACE FUNCTION public.plc_health_jobs()
RETURNS TABLE (check_name text, object text, value double precision, problem text)
LANGUAGE sql STABLE
AS $$
WITH wanted (job, proc, relation) AS (VALUES
    ('refresh of plc_1m', 'policy_refresh_continuous_aggregate', 'plc_1m'),
    ('refresh of plc_1h', 'policy_refresh_continuous_aggregate', 'plc_1h'),
    ('compression of plc_raw', 'policy_compression', 'plc_raw'),
    ('compression of plc_1m', 'policy_compression', 'plc_1m'),
    ('compression of plc_1h', 'policy_compression', 'plc_1h'),
    ('plc_refresh_late', 'plc_refresh_late', NULL),
    ('plc_expire', 'plc_expire', NULL)
),
begun AS (
    SELECT greatest(pg_postmaster_start_time(), max(applied_at)) AS at
    FROM public.schema_version WHERE name = 'timescale/055_policies.sql'
),
found AS (
    SELECT job, job_id, scheduled, schedule_interval, stats.job_status = 'Running' AS running,
           coalesce(stats.total_failures, 0) AS failures,
           stats.last_run_status = 'Failed' AS failed,
           -- It began, it does not run, and it has not ended.
           stats.last_run_started_at < now() - interval '1 minute' AND stats.job_status <> 'Running'
               AND stats.last_run_status IS NULL AS crashed,
           now() - CASE WHEN isfinite(stats.last_successful_finish)
                        THEN stats.last_successful_finish ELSE begun.at END AS age,
           now() - CASE WHEN isfinite(stats.next_start) THEN stats.next_start
                        WHEN stats.next_start IS NULL THEN begun.at END AS overdue
    FROM begun CROSS JOIN wanted
    LEFT JOIN timescaledb_information.jobs ON proc_name = proc
        AND (relation IS NULL OR (hypertable_schema = 'public' AND hypertable_name = relation))
    LEFT JOIN timescaledb_information.job_stats AS stats USING (job_id)
)
SELECT 'job_failures', job, failures,
       -- One failure that the next run makes good is none.
       CASE WHEN (failed OR crashed) AND age > least(3 * schedule_interval, interval '1 hour') THEN
           format('background job %s (%s) has not succeeded for %s; its last error: %s',
               job_id, job, date_trunc('minute', age), coalesce((
                   SELECT err_message FROM timescaledb_information.job_errors AS error
                   WHERE error.job_id = found.job_id
                   -- One that was terminated has no true start, one that crashed no finish.
                   ORDER BY coalesce(finish_time, start_time) DESC LIMIT 1
               ), 'see the server''s log')) END
FROM found
UNION ALL
SELECT 'job_age_seconds', job, coalesce(extract(epoch FROM age), 0), CASE
    WHEN job_id IS NULL THEN
        format('the background job for %s is missing: run `edge-agent db init`', job)
    WHEN NOT scheduled THEN
        format('background job %s (%s) is paused: SELECT alter_job(%s, scheduled => true)',
            job_id, job, job_id)
    WHEN overdue > interval '10 minutes' AND NOT running IS TRUE THEN
        format('background job %s (%s) should have started %s ago: no worker is free or none is'
            ' started; look for TimescaleDB in the server''s log, and raise'
            ' timescaledb.max_background_workers and max_worker_processes',
            job_id, job, date_trunc('minute', overdue))
    WHEN running AND age > greatest(3 * schedule_interval, interval '6 hours') THEN
        format('background job %s (%s) has not come to its end for %s: see pg_stat_activity',
            job_id, job, date_trunc('minute', age))
    END
FROM found
$$;

-- Sizes, and the chunks that wait to be compressed or dropped.
CREATE OR REPLACE FUNCTION public.plc_health_chunks()
RETURNS TABLE (check_name text, object text, value double precision, problem text)
LANGUAGE sql STABLE
AS $$
WITH relation (name, hypertable) AS (
    SELECT 'plc_raw'::name, 'plc_raw'::name
    UNION ALL
    SELECT view_name, materialization_hypertable_name
    FROM timescaledb_information.continuous_aggregates WHERE view_schema = 'public'
),
chunk AS (
    SELECT relation.name, range_end, is_compressed, chunk_creation_time AS made_at
    FROM relation JOIN timescaledb_information.chunks ON hypertable_name = hypertable
),
policy AS (
    SELECT hypertable_name AS name, (config ->> 'compress_after')::interval AS after
    FROM timescaledb_information.jobs WHERE proc_name = 'policy_compression'
),
-- The job comes by twice a day. A chunk of old rows has waited only since it was made.
backlog AS (
    SELECT policy.name, count(chunk.name) AS chunks
    FROM policy LEFT JOIN chunk ON chunk.name = policy.name AND NOT is_compressed
        AND greatest(range_end + after, made_at) < now() - interval '2 days'
    GROUP BY policy.name
),
retention AS (
    SELECT greatest(0, extract(epoch FROM
               now() - raw_days * interval '1 day'
               - (SELECT min(range_end) FROM chunk WHERE name = 'plc_raw')
           ) / 86400) AS overdue
    FROM public.plc_settings
)
SELECT 'compression_backlog_chunks', name, chunks,
       CASE WHEN chunks > 0 THEN format(
           '%s chunks of %s should have been compressed two days ago and fill the disk: see the'
           ' compression job in timescaledb_information.job_stats', chunks, name) END
FROM backlog
UNION ALL
SELECT 'retention_overdue_days', 'plc_raw', overdue,
       CASE WHEN overdue > 2 THEN format(
           'the oldest chunk of plc_raw should have been dropped %s days ago: see the job plc_expire'
           ' in timescaledb_information.job_stats, and pg_stat_activity for a query that holds it',
           floor(overdue)) END
FROM retention
UNION ALL
SELECT kind, name, bytes, NULL
FROM relation, public.hypertable_approximate_detailed_size(format('public.%I', name)::regclass)
         AS size,
     LATERAL (VALUES
         ('table_bytes', size.table_bytes + size.toast_bytes), ('index_bytes', size.index_bytes)
     ) AS kinds (kind, bytes)
$$;

-- Figures with the unit last in their name, and NULL or a sentence that says what to do.
CREATE OR REPLACE FUNCTION public.plc_health_flavour()
RETURNS TABLE (check_name text, object text, value double precision, problem text)
LANGUAGE sql STABLE
AS $$
    SELECT * FROM public.plc_health_rollup('plc_1m', interval '10 minutes')
    UNION ALL
    SELECT * FROM public.plc_health_rollup('plc_1h', interval '3 hours')
    UNION ALL
    SELECT * FROM public.plc_health_jobs()
    UNION ALL
    SELECT * FROM public.plc_health_chunks()
$$;

REVOKE ALL ON FUNCTION public.plc_health_flavour(), public.plc_health_rollup(text, interval),
    public.plc_health_jobs(), public.plc_health_chunks() FROM PUBLIC;
