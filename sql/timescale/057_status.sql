-- What `edge-agent db status` shows.

SET LOCAL ROLE plc_owner;

-- Chunks of plc_raw, its first and last day, and about how many rows it has. No partition is made
-- ahead and no minute waits for the agent: those columns are NULL.
CREATE OR REPLACE FUNCTION public.plc_status(
    OUT partitions bigint, OUT oldest_day date, OUT newest_day date, OUT days_ahead bigint,
    OUT rows_estimate bigint, OUT dirty_minutes bigint, OUT dirty_oldest timestamptz
)
LANGUAGE sql STABLE
AS $$
    SELECT count(*), min(range_start AT TIME ZONE 'UTC')::date,
           (max(range_end AT TIME ZONE 'UTC') - interval '1 day')::date, NULL::bigint,
           public.approximate_row_count('public.plc_raw'), NULL::bigint, NULL::timestamptz
    FROM timescaledb_information.chunks
    WHERE hypertable_schema = 'public' AND hypertable_name = 'plc_raw'
$$;

REVOKE ALL ON FUNCTION public.plc_status() FROM PUBLIC;
