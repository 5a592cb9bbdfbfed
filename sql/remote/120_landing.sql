-- Where the edges' rows arrive: a plain table of the outbox's name, whose trigger hands each row to
-- plc_raw and keeps none. `edge-remote setup` applies this file; all edges of a remote share it.
--
-- Subscribing into a hypertable itself would lose every row without an error: the subscription's
-- worker writes into the root table, which no query reads.

SET LOCAL ROLE plc_owner;

CREATE TABLE IF NOT EXISTS public.plc_outbox (
    ts timestamptz NOT NULL,
    site text COLLATE "C" NOT NULL,
    line text COLLATE "C" NOT NULL,
    device text COLLATE "C" NOT NULL,
    tag text COLLATE "C" NOT NULL,
    value double precision NOT NULL,
    unit text COLLATE "C" NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now()
);

-- Rows that an edge had and this database can't take, with the reason.
CREATE TABLE IF NOT EXISTS public.plc_refused (
    ts timestamptz NOT NULL,
    site text COLLATE "C" NOT NULL,
    line text COLLATE "C" NOT NULL,
    device text COLLATE "C" NOT NULL,
    tag text COLLATE "C" NOT NULL,
    value double precision NOT NULL,
    unit text COLLATE "C" NOT NULL,
    refused_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL
);

-- Once per transaction and minute: have what rows of this minute need. Returns why they are
-- refused, or NULL.
CREATE OR REPLACE FUNCTION public.plc_land_minute(minute timestamptz) RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    day constant bigint := floor(extract(epoch FROM minute) / 86400);
    is_timescale constant boolean := (SELECT flavour = 'timescale' FROM public.plc_settings);
BEGIN
    -- Making partitions takes a lock until the transaction ends, so only where one is missing.
    IF is_timescale OR to_regclass(
        'public.plc_raw_' || to_char(minute AT TIME ZONE 'UTC', 'YYYYMMDD')
    ) IS NULL THEN
        IF public.plc_make_partitions(ARRAY[day]) <> '{}' THEN
            RETURN 'plc_make_partitions refuses its day';
        END IF;
    END IF;
    IF is_timescale THEN
        -- Late rows that meet a compressed chunk decompress what they meet. The usual limit of
        -- 100,000 rows in one transaction would stop the subscription for ever.
        PERFORM set_config('timescaledb.max_tuples_decompressed_per_dml_transaction', '0', true);
    ELSE
        -- The trigger of plc_raw that does this for others keeps still in a subscription's worker.
        INSERT INTO public.plc_dirty (minute) VALUES (minute);
    END IF;
    RETURN NULL;
END
$$;

-- Must not fail for a row that an edge accepted: an error stops its subscription for ever. All
-- names are in full, because a subscription's worker has an empty search_path.
CREATE OR REPLACE FUNCTION public.plc_land() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    minute timestamptz;
    -- What this transaction has prepared; cut off, and then prepared again, if they are many.
    minutes constant text := current_setting('plc_landing.minutes', true);
    reason text;
BEGIN
    IF NOT isfinite(NEW.ts) THEN
        reason := 'its time is infinite';
    ELSE
        minute := date_bin('1 minute', NEW.ts, 'epoch');
        IF minutes IS NULL OR position(minute::text IN minutes) = 0 THEN
            reason := public.plc_land_minute(minute);
            IF reason IS NULL THEN
                PERFORM set_config(
                    'plc_landing.minutes', left(concat_ws(' ', minute, minutes), 2000), true
                );
            END IF;
        END IF;
    END IF;
    IF reason IS NULL THEN
        INSERT INTO public.plc_raw (ts, site, line, device, tag, value, unit)
        VALUES (NEW.ts, NEW.site, NEW.line, NEW.device, NEW.tag, NEW.value, NEW.unit)
        ON CONFLICT DO NOTHING;
    ELSE
        INSERT INTO public.plc_refused (ts, site, line, device, tag, value, unit, reason)
        VALUES (
            NEW.ts, NEW.site, NEW.line, NEW.device, NEW.tag, NEW.value, NEW.unit, reason
        );
    END IF;
    RETURN NULL;
END
$$;

-- ALWAYS: an ordinary trigger keeps still in a subscription's worker.
CREATE OR REPLACE TRIGGER plc_land BEFORE INSERT ON public.plc_outbox
    FOR EACH ROW EXECUTE FUNCTION public.plc_land();
ALTER TABLE public.plc_outbox ENABLE ALWAYS TRIGGER plc_land;

REVOKE ALL ON FUNCTION public.plc_land_minute(timestamptz), public.plc_land() FROM PUBLIC;
GRANT SELECT ON public.plc_refused TO viewer;
