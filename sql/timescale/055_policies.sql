-- What TimescaleDB's background workers do here, as plc_owner, and how often:
--
--   refresh of plc_1m    each minute, refresh_minute_days back
--   refresh of plc_1h    every 5 minutes, refresh_hour_days back
--   plc_refresh_late     each hour: what changed before these windows (045_refresh.sql)
--   plc_expire           each hour: retention (050_retention.sql)
--   compression          of plc_raw after compress_days, of plc_1m and plc_1h once no refresh looks
--                        at them any more

SET LOCAL ROLE plc_owner;

-- Make chunks, policies and jobs follow plc_settings; where they do already, nothing changes.
CREATE OR REPLACE FUNCTION public.plc_apply_settings() RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    day constant interval := '1 day';
    settings public.plc_settings;
    horizon public.plc_horizon;
    job regproc;
BEGIN
    SELECT * INTO STRICT settings FROM public.plc_settings;
    SELECT * INTO STRICT horizon FROM public.plc_horizon;
    -- A window that has grown must not reach behind the horizon either. It gets its full length
    -- when this is called again later.
    IF isfinite(horizon.raw_from) THEN
        settings.refresh_minute_days :=
            least(settings.refresh_minute_days, extract(day FROM now() - horizon.raw_from));
    END IF;
    IF isfinite(horizon.minute_from) THEN
        settings.refresh_hour_days :=
            least(settings.refresh_hour_days, extract(day FROM now() - horizon.minute_from));
    END IF;
    PERFORM public.set_chunk_time_interval('public.plc_raw', settings.chunk_days * day);
    PERFORM public.plc_set_compression('public.plc_raw', settings.compress_days * day);
    IF public.plc_set_refresh(
        'public.plc_1m', settings.refresh_minute_days * day, interval '1 minute', interval '1 minute'
    ) THEN
        PERFORM public.plc_set_compression(
            'public.plc_1m', (settings.refresh_minute_days + 1) * day
        );
    END IF;
    IF public.plc_set_refresh(
        'public.plc_1h', settings.refresh_hour_days * day, interval '1 hour', interval '5 minutes'
    ) THEN
        PERFORM public.plc_set_compression('public.plc_1h', (settings.refresh_hour_days + 1) * day);
    END IF;
    FOREACH job IN ARRAY ARRAY['public.plc_refresh_late', 'public.plc_expire']::regproc[] LOOP
        PERFORM public.add_job(job, interval '1 hour') WHERE NOT EXISTS (
            SELECT FROM timescaledb_information.jobs
            WHERE to_regproc(format('%I.%I', proc_schema, proc_name)) = job
        );
    END LOOP;
END
$$;

-- Make a refresh policy look back this far; whether it did not. A policy that compresses what it
-- refreshes is refused, so that one has to go first and to be set again.
CREATE OR REPLACE FUNCTION public.plc_set_refresh(
    aggregate regclass, back interval, bucket interval, every interval
)
RETURNS boolean LANGUAGE plpgsql
AS $$
BEGIN
    IF EXISTS (
        SELECT FROM timescaledb_information.jobs
        WHERE proc_name = 'policy_refresh_continuous_aggregate'
            AND to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) = aggregate
            AND (config ->> 'start_offset')::interval = back
    ) THEN
        RETURN false;
    END IF;
    PERFORM public.remove_compression_policy(aggregate, if_exists => true);
    PERFORM public.remove_continuous_aggregate_policy(aggregate, if_exists => true);
    PERFORM public.add_continuous_aggregate_policy(
        aggregate, start_offset => back, end_offset => bucket, schedule_interval => every
    );
    RETURN true;
END
$$;

-- Make the compression policy of a hypertable or an aggregate wait for this long.
CREATE OR REPLACE FUNCTION public.plc_set_compression(relation regclass, after interval)
RETURNS void LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM timescaledb_information.jobs
        WHERE proc_name = 'policy_compression'
            AND to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) = relation
            AND (config ->> 'compress_after')::interval = after
    ) THEN
        PERFORM public.remove_compression_policy(relation, if_exists => true);
        PERFORM public.add_compression_policy(relation, compress_after => after);
    END IF;
END
$$;

REVOKE ALL ON FUNCTION
    public.plc_apply_settings(), public.plc_set_refresh(regclass, interval, interval, interval),
    public.plc_set_compression(regclass, interval)
FROM PUBLIC;

SELECT public.plc_apply_settings();
