-- What the edge publishes: every row that plc_raw takes, from whatever writer, is copied into
-- plc_outbox by a trigger and published from there. `edge-remote setup` applies this file, and
-- `edge-remote teardown` takes it away again.
--
-- Publishing plc_raw itself can't work: a hypertable's rows lie in chunks, which the publication
-- would name and the remote does not have.

GRANT USAGE ON SCHEMA public TO rep;
DO $$
BEGIN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO rep', current_database());
END
$$;

SET LOCAL ROLE plc_owner;

CREATE TABLE IF NOT EXISTS public.plc_outbox_settings (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    outbox_hours integer NOT NULL DEFAULT 48 CHECK (outbox_hours BETWEEN 1 AND 8760)
);
INSERT INTO public.plc_outbox_settings DEFAULT VALUES ON CONFLICT DO NOTHING;

-- One partition per hour of arrival, so that old rows go by DROP TABLE. It has no index: nobody
-- looks a row up. What comes while nobody made partitions goes into the DEFAULT partition: a
-- writer of plc_raw must never fail for want of one here.
CREATE TABLE IF NOT EXISTS public.plc_outbox (
    ts timestamptz NOT NULL,
    site text COLLATE "C" NOT NULL,
    line text COLLATE "C" NOT NULL,
    device text COLLATE "C" NOT NULL,
    tag text COLLATE "C" NOT NULL,
    value double precision NOT NULL,
    unit text COLLATE "C" NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (added_at);
CREATE TABLE IF NOT EXISTS public.plc_outbox_default PARTITION OF public.plc_outbox DEFAULT;

-- Make the partitions of the next 48 hours and drop what is older than outbox_hours; returns the
-- number of partitions dropped. Writers wait at most the lock_timeout below: where a lock is not
-- to be had (a new copy for the remote holds one as long as it reads), the next call tries again.
CREATE OR REPLACE FUNCTION public.plc_outbox_upkeep() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET lock_timeout = '100ms' SET timezone = 'UTC'
AS $$
DECLARE
    this_hour constant timestamptz := date_trunc('hour', now());
    keep_from timestamptz;
    hour timestamptz;
    name text;
    expired text;
    dropped integer := 0;
BEGIN
    SELECT date_trunc('hour', now() - outbox_hours * interval '1 hour') INTO STRICT keep_from
    FROM public.plc_outbox_settings;
    BEGIN
        PERFORM pg_advisory_xact_lock(hashtextextended('plc_outbox_upkeep', 0));
        FOR hour IN
            SELECT generate_series(this_hour, this_hour + interval '48 hours', interval '1 hour')
        LOOP
            name := 'plc_outbox_' || to_char(hour, 'YYYYMMDDHH24');
            -- An hour that has begun in the DEFAULT partition stays there until it is deleted.
            CONTINUE WHEN EXISTS (
                SELECT FROM pg_class
                WHERE relname = name AND relnamespace = 'public'::regnamespace
            ) OR EXISTS (
                SELECT FROM public.plc_outbox_default
                WHERE added_at >= hour AND added_at < hour + interval '1 hour'
            );
            -- Attaching a finished table lets others go on writing. Vacuuming what is dropped soon
            -- would only wear the disk.
            EXECUTE format(
                'CREATE TABLE public.%I (LIKE public.plc_outbox INCLUDING DEFAULTS)'
                ' WITH (autovacuum_enabled = off)', name
            );
            EXECUTE format(
                'ALTER TABLE public.plc_outbox ATTACH PARTITION public.%I FOR VALUES FROM (%L)'
                ' TO (%L)', name, hour, hour + interval '1 hour'
            );
        END LOOP;
    EXCEPTION WHEN lock_not_available OR check_violation THEN
        -- Violated: a row reached the DEFAULT partition between the look and the lock.
        NULL;
    END;
    BEGIN
        FOR expired IN
            SELECT child.relname FROM pg_inherits
            JOIN pg_class AS child ON child.oid = inhrelid
            WHERE inhparent = 'public.plc_outbox'::regclass
                AND child.relname < 'plc_outbox_' || to_char(keep_from, 'YYYYMMDDHH24')
            ORDER BY 1 LIMIT 48
        LOOP
            EXECUTE format('DROP TABLE public.%I', expired);
            dropped := dropped + 1;
        END LOOP;
    EXCEPTION WHEN lock_not_available THEN
        dropped := 0;
    END;
    DELETE FROM public.plc_outbox_default WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM public.plc_outbox_default WHERE added_at < keep_from LIMIT 50000
    ));
    RETURN dropped;
END
$$;

-- With the owner's rights: who may write plc_raw need not be able to write the outbox.
CREATE OR REPLACE FUNCTION public.plc_publish_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.plc_outbox (ts, site, line, device, tag, value, unit)
    VALUES (NEW.ts, NEW.site, NEW.line, NEW.device, NEW.tag, NEW.value, NEW.unit);
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION public.plc_publish_rows() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO public.plc_outbox (ts, site, line, device, tag, value, unit)
    SELECT ts, site, line, device, tag, value, unit FROM published;
    RETURN NULL;
END
$$;

-- Once per statement is the cheaper way. But a hypertable that has a trigger with a transition
-- table no longer tells its continuous aggregates which late rows came by COPY: there it must be
-- once per row, and after it.
DO $$
BEGIN
    IF (SELECT flavour FROM public.plc_settings) = 'timescale' THEN
        CREATE OR REPLACE TRIGGER plc_publish AFTER INSERT ON public.plc_raw
            FOR EACH ROW EXECUTE FUNCTION public.plc_publish_row();
    ELSE
        CREATE OR REPLACE TRIGGER plc_publish AFTER INSERT ON public.plc_raw
            REFERENCING NEW TABLE AS published
            FOR EACH STATEMENT EXECUTE FUNCTION public.plc_publish_rows();
    END IF;
END
$$;

REVOKE ALL ON FUNCTION
    public.plc_outbox_upkeep(), public.plc_publish_row(), public.plc_publish_rows()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.plc_outbox_upkeep() TO ingest;
GRANT SELECT ON public.plc_outbox TO rep;

SELECT public.plc_outbox_upkeep();

RESET ROLE;

-- By way of the root, so that the remote needs none of the partitions; inserts only, so that the
-- outbox is emptied here without anything happening there.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'plc_pub') THEN
        CREATE PUBLICATION plc_pub;
    END IF;
    ALTER PUBLICATION plc_pub SET TABLE public.plc_outbox;
    ALTER PUBLICATION plc_pub SET (publish = 'insert', publish_via_partition_root = true);
END
$$;
