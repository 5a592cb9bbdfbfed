-- The hypertable. Names and columns are the same in every flavour, so that no query knows which
-- one it is on.
--
-- Text is COLLATE "C": it compares by memcmp, and the indexes survive an upgrade of the operating
-- system, whose new C library may sort a language differently and so break every other text index
-- in silence.

SET LOCAL ROLE plc_owner;

INSERT INTO public.plc_settings (flavour) VALUES ('timescale') ON CONFLICT DO NOTHING;

-- One row per sample. The primary key is the look-up index too: the newest rows of a tag are a
-- backward scan of it, chunk by chunk.
CREATE TABLE IF NOT EXISTS public.plc_raw (
    ts timestamptz NOT NULL,
    site text COLLATE "C" NOT NULL,
    line text COLLATE "C" NOT NULL,
    device text COLLATE "C" NOT NULL,
    tag text COLLATE "C" NOT NULL,
    value double precision NOT NULL,
    unit text COLLATE "C" NOT NULL,
    PRIMARY KEY (site, device, tag, ts)
);
SELECT public.create_hypertable(
    'public.plc_raw', 'ts', chunk_time_interval => interval '1 day' * chunk_days,
    create_default_indexes => false, if_not_exists => true
) FROM public.plc_settings;

-- Rows arrive nearly in time order, so a few bytes per 256 kB find a minute. Pages not summarized
-- yet are read by every query; autosummarize keeps them few.
CREATE INDEX IF NOT EXISTS plc_raw_ts ON public.plc_raw
    USING brin (ts) WITH (pages_per_range = 32, autosummarize = on);

DO $$
BEGIN
    IF NOT (
        SELECT compression_enabled FROM timescaledb_information.hypertables
        WHERE hypertable_schema = 'public' AND hypertable_name = 'plc_raw'
    ) THEN
        ALTER TABLE public.plc_raw SET (
            timescaledb.compress,
            timescaledb.compress_segmentby = 'site, device, tag',
            timescaledb.compress_orderby = 'ts'
        );
    END IF;
END
$$;

GRANT INSERT ON public.plc_raw TO ingest;
GRANT SELECT ON public.plc_raw TO viewer;
