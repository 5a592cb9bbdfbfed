-- Partitions of plc_raw, one per UTC day.

SET LOCAL ROLE plc_owner;

-- Make the partitions of these days (days since 1970-01-01), as far as they are missing; returns
-- the days that are refused.
--
-- The sink calls this before it writes to a day that it has not written to before, so a late row
-- never fails for want of a partition.
CREATE OR REPLACE FUNCTION public.plc_make_partitions(days bigint[]) RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    refused bigint[] := '{}';
    day bigint;
    first date;
    name text;
BEGIN
    -- One at a time. The look at pg_class below then sees what the one before has made; to_regclass
    -- would answer from this session's cache.
    PERFORM pg_advisory_xact_lock(hashtextextended('plc_make_partitions', 0));
    FOREACH day IN ARRAY days LOOP
        IF public.plc_refuses_day(day) THEN
            refused := refused || day;
            CONTINUE;
        END IF;
        first := date '1970-01-01' + day::integer;
        name := 'plc_raw_' || to_char(first, 'YYYYMMDD');
        CONTINUE WHEN EXISTS (
            SELECT FROM pg_class
            WHERE relname = name AND relnamespace = 'public'::regnamespace
        );
        -- Attaching a finished table lets others go on writing; CREATE ... PARTITION OF does not.
        EXECUTE format('CREATE TABLE public.%I (LIKE public.plc_raw INCLUDING ALL)', name);
        EXECUTE format(
            'ALTER TABLE public.plc_raw ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
            name, first || ' 00:00:00+00', first + 1 || ' 00:00:00+00'
        );
    END LOOP;
    RETURN refused;
END
$$;

REVOKE ALL ON FUNCTION public.plc_make_partitions(bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.plc_make_partitions(bigint[]) TO ingest;
