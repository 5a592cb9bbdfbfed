-- What is older than plc_settings asks goes, by whole chunks.
--
-- It is a job of our own and no retention policy: see plc_horizon in 045_refresh.sql.

SET LOCAL ROLE plc_owner;

-- A job: drop the chunks of plc_raw and plc_1m that end before raw_days and minute_days UTC days
-- ago, the oldest first, each after what it still owes to the aggregate above it. Where a chunk is
-- in use it waits for 0.1 s at most, and then for the job's next run.
CREATE OR REPLACE PROCEDURE public.plc_expire(job_id integer, config jsonb)
LANGUAGE plpgsql
AS $$
DECLARE
    today constant timestamptz := date_bin('1 day', now(), 'epoch');
    settings public.plc_settings;
    kept_from timestamptz;
    expired record;
BEGIN
    SELECT * INTO STRICT settings FROM public.plc_settings;
    LOOP
        SELECT range_start, range_end INTO expired FROM timescaledb_information.chunks
        WHERE hypertable_schema = 'public' AND hypertable_name = 'plc_raw'
            AND range_end <= today - settings.raw_days * interval '1 day'
        ORDER BY range_end LIMIT 1;
        EXIT WHEN NOT FOUND;
        SELECT raw_from INTO STRICT kept_from FROM public.plc_horizon;
        IF kept_from < expired.range_end THEN
            CALL public.refresh_continuous_aggregate(
                'public.plc_1m', greatest(expired.range_start, kept_from), expired.range_end
            );
        END IF;
        EXIT WHEN NOT public.plc_drop_chunks('public.plc_raw', expired.range_end);
        UPDATE public.plc_horizon SET raw_from = greatest(raw_from, expired.range_end);
        COMMIT;
    END LOOP;
    LOOP
        SELECT chunk.range_start, chunk.range_end INTO expired
        FROM timescaledb_information.chunks AS chunk
        JOIN timescaledb_information.continuous_aggregates AS aggregate
            ON chunk.hypertable_schema = aggregate.materialization_hypertable_schema
            AND chunk.hypertable_name = aggregate.materialization_hypertable_name
        WHERE aggregate.view_schema = 'public' AND aggregate.view_name = 'plc_1m'
            AND chunk.range_end <= today - settings.minute_days * interval '1 day'
        ORDER BY chunk.range_end LIMIT 1;
        EXIT WHEN NOT FOUND;
        SELECT minute_from INTO STRICT kept_from FROM public.plc_horizon;
        IF kept_from < expired.range_end THEN
            CALL public.refresh_continuous_aggregate(
                'public.plc_1h', greatest(expired.range_start, kept_from), expired.range_end
            );
        END IF;
        EXIT WHEN NOT public.plc_drop_chunks('public.plc_1m', expired.range_end);
        UPDATE public.plc_horizon SET minute_from = greatest(minute_from, expired.range_end);
        COMMIT;
    END LOOP;
END
$$;

-- Drop the chunks that end at `stop` or before; false where somebody is using one.
CREATE OR REPLACE FUNCTION public.plc_drop_chunks(relation regclass, stop timestamptz)
RETURNS boolean LANGUAGE plpgsql
SET lock_timeout = '100ms'
AS $$
BEGIN
    PERFORM public.drop_chunks(relation, older_than => stop);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END
$$;

-- The jobs have done it; what is left is the outbox, where a remote has been set up.
CREATE OR REPLACE FUNCTION public.plc_retention(
    OUT partitions_dropped integer, OUT minutes_deleted bigint
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    partitions_dropped := 0;
    minutes_deleted := 0;
    IF to_regprocedure('public.plc_outbox_upkeep()') IS NOT NULL THEN
        EXECUTE 'SELECT public.plc_outbox_upkeep()';
    END IF;
END
$$;

REVOKE ALL ON FUNCTION
    public.plc_drop_chunks(regclass, timestamptz), public.plc_retention()
FROM PUBLIC;
REVOKE ALL ON PROCEDURE public.plc_expire(integer, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.plc_retention() TO ingest;
