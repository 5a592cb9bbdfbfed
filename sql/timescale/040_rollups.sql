-- plc_1m and plc_1h are continuous aggregates. What is not materialized yet is computed from the
-- rows below when it is asked for; what changed later, late rows included, is recomputed by the
-- jobs of 055_policies.sql.
--
-- Buckets are UTC minutes and hours: buckets of a time zone lose rows after bulk writes over
-- several chunks (timescaledb issue 10296).

SET LOCAL ROLE plc_owner;

-- One row per tag and minute (plc_1h: hour) that has samples. `line` and `unit` are those of the
-- last sample. An average counts a value beyond +-1e300 as +-1e300 (015_settings.sql). A day's
-- chunk keeps the index that each minute writes all over in memory.
CREATE MATERIALIZED VIEW IF NOT EXISTS public.plc_1m
WITH (
    timescaledb.continuous, timescaledb.materialized_only = false,
    timescaledb.create_group_indexes = false, timescaledb.chunk_interval = '1 day'
) AS
SELECT public.time_bucket(interval '1 minute', ts) AS bucket,
       site,
       public.last(line, ts) AS line,
       device,
       tag,
       public.last(unit, ts) AS unit,
       public.plc_mean(sum(greatest(-1e300, least(1e300, value))), count(*)) AS avg_value,
       min(value) AS min_value,
       max(value) AS max_value,
       public.last(value, ts) AS last_value,
       count(*) AS samples
FROM public.plc_raw
GROUP BY 1, site, device, tag
WITH NO DATA;

-- The same for an hour, from its minutes. The mean is weighted by samples. It is grouped by
-- position: `GROUP BY bucket` would mean the minute's own column.
CREATE MATERIALIZED VIEW IF NOT EXISTS public.plc_1h
WITH (
    timescaledb.continuous, timescaledb.materialized_only = false,
    timescaledb.create_group_indexes = false, timescaledb.chunk_interval = '30 days'
) AS
SELECT public.time_bucket(interval '1 hour', bucket) AS bucket,
       site,
       public.last(line, bucket) AS line,
       device,
       tag,
       public.last(unit, bucket) AS unit,
       public.plc_mean(sum(avg_value * samples), sum(samples)) AS avg_value,
       min(min_value) AS min_value,
       max(max_value) AS max_value,
       public.last(last_value, bucket) AS last_value,
       sum(samples)::bigint AS samples
FROM public.plc_1m
GROUP BY 1, site, device, tag
WITH NO DATA;

-- TimescaleDB has made one by bucket. A tag's minutes lie a page apart in the table, but side by side
-- in the index; with these columns in it the table need not be read.
CREATE INDEX IF NOT EXISTS plc_1m_key ON public.plc_1m (site, device, tag, bucket)
    INCLUDE (avg_value, min_value, max_value);
CREATE INDEX IF NOT EXISTS plc_1h_key ON public.plc_1h (site, device, tag, bucket)
    INCLUDE (avg_value, min_value, max_value);

DO $$
DECLARE
    aggregate text;
BEGIN
    FOR aggregate IN
        SELECT view_name FROM timescaledb_information.continuous_aggregates
        WHERE view_schema = 'public' AND view_name IN ('plc_1m', 'plc_1h')
            AND NOT compression_enabled
    LOOP
        EXECUTE format(
            'ALTER MATERIALIZED VIEW public.%I SET (timescaledb.compress = true,'
            ' timescaledb.compress_segmentby = ''site, device, tag'','
            ' timescaledb.compress_orderby = ''bucket'')', aggregate
        );
    END LOOP;
END
$$;

-- Nothing is left to do: the background jobs do it.
CREATE OR REPLACE FUNCTION public.plc_rollup(minutes_max integer) RETURNS bigint
LANGUAGE sql IMMUTABLE
RETURN 0;

REVOKE ALL ON FUNCTION public.plc_rollup(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.plc_rollup(integer) TO ingest;
GRANT SELECT ON public.plc_1m, public.plc_1h TO viewer;
