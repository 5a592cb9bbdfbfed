-- Bringing plc_1m and plc_1h up to date where the policies (055_policies.sql) do not look.
--
-- A refresh recomputes the buckets whose rows were changed, and dropping a chunk counts as a
-- change: it would find no rows there and delete what was computed from them. So nothing here goes
-- behind plc_horizon.
--
-- A procedure that commits may not have a search_path of its own: names are written in full.

SET LOCAL ROLE plc_owner;

-- Bring both up to date from `first` to `last`, rows of any age included: for the owner, outside a
-- transaction. What has not ended yet is left to the views, which compute it. Where a policy is
-- refreshing the same rows at this moment it raises lock_not_available: call it again.
CREATE OR REPLACE PROCEDURE public.plc_refresh(first timestamptz, last timestamptz)
LANGUAGE plpgsql
AS $$
DECLARE
    horizon public.plc_horizon;
    start timestamptz;
    stop timestamptz;
BEGIN
    SELECT * INTO STRICT horizon FROM public.plc_horizon;
    start := greatest(date_bin('1 minute', first, 'epoch'), horizon.raw_from);
    stop := least(
        date_bin('1 minute', last, 'epoch') + interval '1 minute', date_bin('1 minute', now(), 'epoch')
    );
    WHILE start < stop LOOP  -- in pieces, so that no policy waits for long
        CALL public.refresh_continuous_aggregate(
            'public.plc_1m', start, least(start + interval '1 day', stop)
        );
        start := start + interval '1 day';
    END LOOP;
    start := greatest(date_bin('1 hour', first, 'epoch'), horizon.minute_from);
    stop := least(
        date_bin('1 hour', last, 'epoch') + interval '1 hour', date_bin('1 hour', now(), 'epoch')
    );
    WHILE start < stop LOOP
        CALL public.refresh_continuous_aggregate(
            'public.plc_1h', start, least(start + interval '30 days', stop)
        );
        start := start + interval '30 days';
    END LOOP;
END
$$;

-- A job: rows may come later than the policies look back, as a journal's backlog or by a backfill.
-- Where nothing changed it costs next to nothing. It keeps an hour away from the policies' windows,
-- which move on while it runs: two refreshes of the same rows at once are an error.
CREATE OR REPLACE PROCEDURE public.plc_refresh_late(job_id integer, config jsonb)
LANGUAGE plpgsql
AS $$
DECLARE
    horizon public.plc_horizon;
    settings public.plc_settings;
    stop timestamptz;
BEGIN
    SELECT * INTO STRICT horizon FROM public.plc_horizon;
    SELECT * INTO STRICT settings FROM public.plc_settings;
    stop := now() - settings.refresh_minute_days * interval '1 day' - interval '1 hour';
    IF horizon.raw_from + interval '2 hours' < stop THEN
        CALL public.refresh_continuous_aggregate(
            'public.plc_1m', nullif(horizon.raw_from, '-infinity'), stop
        );
    END IF;
    stop := now() - settings.refresh_hour_days * interval '1 day' - interval '1 hour';
    IF horizon.minute_from + interval '2 hours' < stop THEN
        CALL public.refresh_continuous_aggregate(
            'public.plc_1h', nullif(horizon.minute_from, '-infinity'), stop
        );
    END IF;
END
$$;

REVOKE ALL ON PROCEDURE
    public.plc_refresh(timestamptz, timestamptz), public.plc_refresh_late(integer, jsonb)
FROM PUBLIC;
