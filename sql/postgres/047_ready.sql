-- How far plc_1m can be read without computing.

SET LOCAL ROLE plc_owner;

-- Here nothing is ever computed while it is read: the minute that has begun last.
CREATE OR REPLACE FUNCTION public.plc_minutes_ready() RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT date_bin('1 minute', now(), 'epoch')
$$;

REVOKE ALL ON FUNCTION public.plc_minutes_ready() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.plc_minutes_ready() TO viewer;
