-- What plc_health() (085_health.sql) says about the flavour that needs no extension.

SET LOCAL ROLE plc_owner;

-- Figures with the unit last in their name, and NULL or a sentence that says what to do.
CREATE OR REPLACE FUNCTION public.plc_health_flavour()
RETURNS TABLE (check_name text, object text, value double precision, problem text)
LANGUAGE sql STABLE
AS $$
WITH part AS (
    SELECT inhrelid AS id, to_date(right(relname, 8), 'YYYYMMDD') AS day
    FROM pg_catalog.pg_inherits JOIN pg_catalog.pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'public.plc_raw'::regclass
),
kept AS (
    SELECT (now() AT TIME ZONE 'UTC')::date AS today, raw_days FROM public.plc_settings
),
days AS (
    SELECT count(*) FILTER (WHERE day > today) AS ahead,
           greatest(0, today - raw_days - min(day)) AS overdue
    FROM kept LEFT JOIN part ON true GROUP BY today, raw_days
),
-- One entry per statement and minute: a hundred thousand are days without upkeep. More need not
-- be counted to know that.
dirty AS (
    SELECT count(DISTINCT minute) AS minutes, max(minute) AS newest
    FROM (SELECT minute FROM public.plc_dirty LIMIT 100000) AS entry
),
-- The newest minutes are rolled up first, so this is what somebody who watches is behind.
lag AS (
    SELECT coalesce(greatest(0, extract(epoch FROM newest - coalesce(
               (SELECT max(bucket) FROM public.plc_1m),
               (SELECT min(minute) FROM public.plc_dirty)
           ))), 0) AS seconds
    FROM dirty
),
pieces AS (
    SELECT 'plc_raw' AS root, id FROM part
    UNION ALL SELECT relname, oid FROM pg_catalog.pg_class
    WHERE oid IN ('public.plc_1m'::regclass, 'public.plc_1h'::regclass)
)
SELECT 'rollup_lag_seconds', 'plc_1m', seconds,
       CASE WHEN seconds > 300 THEN format(
           'plc_1m is %s minutes behind plc_raw: does the upkeep of the agent (on the remote,'
           ' edge-remote serve) run, and does its log complain?', round(seconds / 60)) END
FROM lag
UNION ALL
SELECT 'rollup_backlog_minutes', 'plc_1m', minutes,
       CASE WHEN minutes > 60 THEN format(
           '%s minutes wait for their rollup: normal for a while after late rows; otherwise the'
           ' upkeep does not run or the server is too slow', minutes) END
FROM dirty
UNION ALL
SELECT 'partitions_ahead_days', 'plc_raw', ahead,
       CASE WHEN ahead = 0 THEN
           'no partition of plc_raw is ready for tomorrow: does the upkeep of the agent (on the'
           ' remote, edge-remote serve) run, and does its log complain?' END
FROM days
UNION ALL
SELECT 'retention_overdue_days', 'plc_raw', overdue,
       CASE WHEN overdue > 2 THEN format(
           'the oldest day of plc_raw should have been dropped %s days ago: does the upkeep run, or'
           ' does a long query in pg_stat_activity hold plc_raw?', overdue) END
FROM days
UNION ALL
SELECT 'table_bytes', root, sum(pg_table_size(id)), NULL FROM pieces GROUP BY root
UNION ALL
SELECT 'index_bytes', root, sum(pg_indexes_size(id)), NULL FROM pieces GROUP BY root
$$;

REVOKE ALL ON FUNCTION public.plc_health_flavour() FROM PUBLIC;
