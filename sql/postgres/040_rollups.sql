-- plc_1m and plc_1h follow plc_raw, whoever writes it and in whatever order rows arrive.
--
-- A trigger lists the minutes that a statement touched (plc_dirty, in the writer's transaction);
-- plc_rollup() recomputes exactly those minutes from plc_raw, and then their hours from plc_1m.
-- Nothing is added up, so doing it twice, late or after a crash gives the same rows.

SET LOCAL ROLE plc_owner;

CREATE OR REPLACE FUNCTION public.plc_mark_dirty() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.plc_dirty (minute)
    SELECT DISTINCT date_bin('1 minute', ts, 'epoch') FROM added;
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER plc_mark_dirty
    AFTER INSERT ON public.plc_raw REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION public.plc_mark_dirty();

-- Let the index by time know the pages of these minutes' days. Rows that came in bulk lie in pages
-- that it has not summarized yet, and each look at a minute reads all of those: rolling up a day
-- of 520,000 rows took 35 s instead of 2. Where vacuum is at the table, it is doing the same.
CREATE OR REPLACE FUNCTION public.plc_summarize(first timestamptz, last timestamptz) RETURNS void
LANGUAGE plpgsql SET timezone = 'UTC' SET lock_timeout = '1s'
AS $$
DECLARE
    by_time regclass;
BEGIN
    FOR by_time IN
        SELECT indexrelid FROM pg_catalog.pg_inherits
        JOIN pg_catalog.pg_class AS part ON part.oid = inhrelid
        JOIN pg_catalog.pg_index ON indrelid = inhrelid
        JOIN pg_catalog.pg_class AS index ON index.oid = indexrelid
        JOIN pg_catalog.pg_am ON pg_am.oid = index.relam AND amname = 'brin'
        WHERE inhparent = 'public.plc_raw'::regclass
            AND right(part.relname, 8) BETWEEN to_char(first, 'YYYYMMDD')
                AND to_char(last, 'YYYYMMDD')
    LOOP
        PERFORM pg_catalog.brin_summarize_new_values(by_time);
    END LOOP;
EXCEPTION WHEN lock_not_available THEN
    NULL;
END
$$;

-- Recompute up to `minutes_max` touched minutes, newest first so that what is watched is fresh,
-- and their hours. Returns how many touched minutes are left. A call that finds another one at
-- work leaves everything to it.
CREATE OR REPLACE FUNCTION public.plc_rollup(minutes_max integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
-- The rows are too fresh for the statistics, and the best plan is always the same one: find the
-- minute by its index, group it in memory (a sort would spill to disk), look the last row of each
-- tag up by the primary key, and leave the other cores alone.
SET enable_seqscan = off SET enable_sort = off SET enable_hashjoin = off SET enable_mergejoin = off
SET work_mem = '32MB' SET jit = off SET max_parallel_workers_per_gather = 0
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    minutes timestamptz[];
    start timestamptz;
    horizon public.plc_horizon;
BEGIN
    IF pg_try_advisory_xact_lock(hashtextextended('plc_rollup', 0)) THEN
        SELECT * INTO STRICT horizon FROM public.plc_horizon;
        -- First take the entries, then read the rows, with a newer snapshot: a row that commits
        -- in between is counted now and its own entry stays.
        WITH taken AS (
            DELETE FROM public.plc_dirty WHERE minute IN (
                SELECT DISTINCT minute FROM public.plc_dirty ORDER BY 1 DESC LIMIT minutes_max
            ) RETURNING minute
        )
        SELECT coalesce(array_agg(DISTINCT minute), '{}') INTO minutes FROM taken;
        -- More than the minute that runs and the one before: rows came late, and in bulk.
        IF cardinality(minutes) > 2 THEN
            PERFORM public.plc_summarize(min(minute), max(minute)) FROM unnest(minutes) AS minute;
        END IF;
        FOREACH start IN ARRAY minutes LOOP
            PERFORM public.plc_roll_minute(start, start < horizon.raw_from);
        END LOOP;
        FOR start IN
            SELECT DISTINCT date_bin('1 hour', minute, 'epoch') FROM unnest(minutes) AS minute
        LOOP
            PERFORM public.plc_roll_hour(start, start < horizon.minute_from);
        END LOOP;
    END IF;
    RETURN (SELECT count(DISTINCT minute) FROM public.plc_dirty);
END
$$;

-- `final`: rows of this minute have been removed already; keep what was computed from them.
CREATE OR REPLACE FUNCTION public.plc_roll_minute(start timestamptz, final boolean) RETURNS void
LANGUAGE sql
AS $$
    INSERT INTO public.plc_1m AS old
    SELECT start, spread.site, latest.line, spread.device, spread.tag, latest.unit,
           spread.mean, spread.lowest, spread.highest, latest.value, spread.samples
    FROM (
        SELECT site, device, tag,
               public.plc_mean(sum(greatest(-1e300, least(1e300, value))), count(*)) AS mean,
               min(value) AS lowest, max(value) AS highest,
               count(*) AS samples, max(ts) AS ts
        FROM public.plc_raw
        WHERE ts >= start AND ts < start + interval '1 minute'
        GROUP BY site, device, tag
    ) AS spread
    JOIN public.plc_raw AS latest USING (site, device, tag, ts)
    WHERE latest.ts >= start AND latest.ts < start + interval '1 minute'
    ON CONFLICT (site, device, tag, bucket) DO UPDATE SET
        line = excluded.line, unit = excluded.unit, avg_value = excluded.avg_value,
        min_value = excluded.min_value, max_value = excluded.max_value,
        last_value = excluded.last_value, samples = excluded.samples
    WHERE NOT final AND old IS DISTINCT FROM excluded
$$;

-- The same for an hour, from its minutes. The mean is weighted by samples.
CREATE OR REPLACE FUNCTION public.plc_roll_hour(start timestamptz, final boolean) RETURNS void
LANGUAGE sql
AS $$
    INSERT INTO public.plc_1h AS old
    SELECT start, spread.site, latest.line, spread.device, spread.tag, latest.unit,
           spread.mean, spread.lowest, spread.highest, latest.last_value, spread.samples
    FROM (
        SELECT site, device, tag,
               public.plc_mean(sum(avg_value * samples), sum(samples)) AS mean,
               min(min_value) AS lowest, max(max_value) AS highest,
               sum(samples)::bigint AS samples, max(bucket) AS bucket
        FROM public.plc_1m
        WHERE bucket >= start AND bucket < start + interval '1 hour'
        GROUP BY site, device, tag
    ) AS spread
    JOIN public.plc_1m AS latest USING (site, device, tag, bucket)
    WHERE latest.bucket >= start AND latest.bucket < start + interval '1 hour'
    ON CONFLICT (site, device, tag, bucket) DO UPDATE SET
        line = excluded.line, unit = excluded.unit, avg_value = excluded.avg_value,
        min_value = excluded.min_value, max_value = excluded.max_value,
        last_value = excluded.last_value, samples = excluded.samples
    WHERE NOT final AND old IS DISTINCT FROM excluded
$$;

REVOKE ALL ON FUNCTION
    public.plc_mark_dirty(), public.plc_summarize(timestamptz, timestamptz),
    public.plc_roll_minute(timestamptz, boolean), public.plc_roll_hour(timestamptz, boolean),
    public.plc_rollup(integer)
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.plc_rollup(integer) TO ingest;
