-- Bringing plc_1m and plc_1h up to date at once, and where rows were deleted or changed, which no
-- trigger sees.

SET LOCAL ROLE plc_owner;

-- Bring both up to date from `first` to `last`, rows of any age included: for the owner, outside a
-- transaction. What retention has left is final.
CREATE OR REPLACE PROCEDURE public.plc_refresh(first timestamptz, last timestamptz)
LANGUAGE plpgsql
AS $$
DECLARE
    start timestamptz := date_bin('1 hour', first, 'epoch');
BEGIN
    PERFORM public.plc_summarize(first, last);
    COMMIT;
    WHILE start <= last LOOP
        PERFORM public.plc_refresh_hour(start);
        COMMIT;
        start := start + interval '1 hour';
    END LOOP;
END
$$;

-- Recompute an hour and its minutes, and remove those that have no rows any more.
CREATE OR REPLACE FUNCTION public.plc_refresh_hour(start timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- For the same reasons as plc_rollup().
SET enable_seqscan = off SET enable_sort = off SET enable_hashjoin = off SET enable_mergejoin = off
SET work_mem = '32MB' SET jit = off SET max_parallel_workers_per_gather = 0
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    stop constant timestamptz := start + interval '1 hour';
    horizon public.plc_horizon;
    minute timestamptz;
BEGIN
    -- Of two that recompute a minute, the one that has seen less must not write last.
    PERFORM pg_advisory_xact_lock(hashtextextended('plc_rollup', 0));
    SELECT * INTO STRICT horizon FROM public.plc_horizon;
    FOR minute IN
        SELECT DISTINCT date_bin('1 minute', ts, 'epoch') FROM public.plc_raw
        WHERE ts >= start AND ts < stop
    LOOP
        PERFORM public.plc_roll_minute(minute, minute < horizon.raw_from);
    END LOOP;
    DELETE FROM public.plc_1m AS old
    WHERE bucket >= greatest(start, horizon.raw_from) AND bucket < stop AND NOT EXISTS (
        SELECT FROM public.plc_raw AS raw
        WHERE raw.site = old.site AND raw.device = old.device AND raw.tag = old.tag
            AND raw.ts >= old.bucket AND raw.ts < old.bucket + interval '1 minute'
    );
    PERFORM public.plc_roll_hour(start, start < horizon.minute_from);
    DELETE FROM public.plc_1h AS old
    WHERE bucket = start AND bucket >= horizon.minute_from AND NOT EXISTS (
        SELECT FROM public.plc_1m AS minute
        WHERE minute.site = old.site AND minute.device = old.device AND minute.tag = old.tag
            AND minute.bucket >= start AND minute.bucket < stop
    );
END
$$;

REVOKE ALL ON PROCEDURE public.plc_refresh(timestamptz, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION public.plc_refresh_hour(timestamptz) FROM PUBLIC;
