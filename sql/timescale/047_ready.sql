-- How far plc_1m can be read without computing.

SET LOCAL ROLE plc_owner;

-- Minutes before this time are materialized (1970 where none ever was). What comes after is computed from plc_raw whenever it
-- is asked for: at 5,000 rows/s the newest two minutes of all tags take a second and more.
CREATE OR REPLACE FUNCTION public.plc_minutes_ready() RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT greatest(timestamptz 'epoch', _timescaledb_functions.to_timestamp(
        _timescaledb_functions.cagg_watermark(mat_hypertable_id)
    ))
    FROM _timescaledb_catalog.continuous_agg
    WHERE user_view_schema = 'public' AND user_view_name = 'plc_1m'
$$;

REVOKE ALL ON FUNCTION public.plc_minutes_ready() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.plc_minutes_ready() TO viewer;
