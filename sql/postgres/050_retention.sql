-- What is older than asked goes: raw rows by whole days, one-minute rows in portions.

SET LOCAL ROLE plc_owner;

-- It once took the days from whoever called it.
DROP FUNCTION IF EXISTS public.plc_retention(integer, integer);

-- Drop at most 10 daily partitions and delete at most 50,000 one-minute rows that end before
-- raw_days and minute_days of plc_settings, in UTC days; prune the outbox, where a remote has been
-- set up. Call it again each minute. Writers wait at most the lock_timeout below: where the lock is
-- not to be had, the next call tries again.
CREATE OR REPLACE FUNCTION public.plc_retention(
    OUT partitions_dropped integer, OUT minutes_deleted bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms' SET timezone = 'UTC'
AS $$
DECLARE
    settings public.plc_settings;
    raw_limit timestamptz;
    minute_limit timestamptz;
    expired text;
BEGIN
    SELECT * INTO STRICT settings FROM public.plc_settings;
    raw_limit := date_trunc('day', now()) - settings.raw_days * interval '1 day';
    minute_limit := date_trunc('day', now()) - settings.minute_days * interval '1 day';
    partitions_dropped := 0;
    BEGIN
        FOR expired IN
            SELECT child.relname FROM pg_inherits
            JOIN pg_class AS child ON child.oid = inhrelid
            WHERE inhparent = 'public.plc_raw'::regclass
                AND child.relname < 'plc_raw_' || to_char(raw_limit, 'YYYYMMDD')
            ORDER BY 1 LIMIT 10
        LOOP
            LOCK TABLE ONLY public.plc_raw IN ACCESS EXCLUSIVE MODE;
            -- Late rows that are not rolled up yet keep their day until they are.
            CONTINUE WHEN EXISTS (
                SELECT FROM public.plc_dirty
                WHERE to_char(minute, 'YYYYMMDD') = right(expired, 8)
            );
            EXECUTE format('DROP TABLE public.%I', expired);
            partitions_dropped := partitions_dropped + 1;
            UPDATE public.plc_horizon AS h SET raw_from = greatest(
                h.raw_from, to_date(right(expired, 8), 'YYYYMMDD') + interval '1 day'
            );
        END LOOP;
    EXCEPTION WHEN lock_not_available THEN
        partitions_dropped := 0;
    END;
    DELETE FROM public.plc_1m WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM public.plc_1m WHERE bucket < minute_limit LIMIT 50000
    ));
    GET DIAGNOSTICS minutes_deleted = ROW_COUNT;
    IF minutes_deleted > 0 THEN
        UPDATE public.plc_horizon AS h
        SET minute_from = greatest(h.minute_from, minute_limit);
    END IF;
    IF to_regprocedure('public.plc_outbox_upkeep()') IS NOT NULL THEN
        EXECUTE 'SELECT public.plc_outbox_upkeep()';
    END IF;
END
$$;

REVOKE ALL ON FUNCTION public.plc_retention() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.plc_retention() TO ingest;
