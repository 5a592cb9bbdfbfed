-- TimescaleDB makes a chunk when the first row for it comes.

SET LOCAL ROLE plc_owner;

-- Makes nothing; returns the days (days since 1970-01-01) that are refused, by the same rule as
-- where partitions are made.
CREATE OR REPLACE FUNCTION public.plc_make_partitions(days bigint[]) RETURNS bigint[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(day), '{}') FROM unnest(days) AS day
    WHERE public.plc_refuses_day(day)
$$;

REVOKE ALL ON FUNCTION public.plc_make_partitions(bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.plc_make_partitions(bigint[]) TO ingest;
