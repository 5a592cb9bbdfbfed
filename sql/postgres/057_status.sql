-- What `edge-agent db status` shows.

SET LOCAL ROLE plc_owner;

-- Partitions of plc_raw, its first and last day, how many days after today are ready, about how
-- many rows it has by the server's statistics, and how many touched minutes wait for plc_rollup().
CREATE OR REPLACE FUNCTION public.plc_status(
    OUT partitions bigint, OUT oldest_day date, OUT newest_day date, OUT days_ahead bigint,
    OUT rows_estimate bigint, OUT dirty_minutes bigint, OUT dirty_oldest timestamptz
)
LANGUAGE sql STABLE
AS $$
    WITH part AS (
        SELECT to_date(right(child.relname, 8), 'YYYYMMDD') AS day,
               greatest(child.reltuples, stats.n_live_tup, 0)::bigint AS row_count
        FROM pg_catalog.pg_inherits
        JOIN pg_catalog.pg_class AS child ON child.oid = inhrelid
        LEFT JOIN pg_catalog.pg_stat_all_tables AS stats ON stats.relid = child.oid
        WHERE inhparent = 'public.plc_raw'::regclass
    )
    SELECT count(*), min(day), max(day),
           count(*) FILTER (WHERE day > (now() AT TIME ZONE 'UTC')::date),
           coalesce(sum(row_count), 0)::bigint,
           (SELECT count(DISTINCT minute) FROM public.plc_dirty),
           (SELECT min(minute) FROM public.plc_dirty)
    FROM part
$$;

REVOKE ALL ON FUNCTION public.plc_status() FROM PUBLIC;
