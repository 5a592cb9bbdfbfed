-- The tables of the flavour that needs no extension. Names and columns are the same in every
-- flavour, so that no query knows which one it is on.
--
-- Text is COLLATE "C": it compares by memcmp, and the indexes survive an upgrade of the operating
-- system, whose new C library may sort a language differently and so break every other text index
-- in silence.

SET LOCAL ROLE plc_owner;

INSERT INTO public.plc_settings (flavour) VALUES ('postgres') ON CONFLICT DO NOTHING;

-- One row per sample. There is no DEFAULT partition: its rows would block the making of the
-- partition they belong to, and nobody would see them. Partitions are made on demand instead
-- (030_partitions.sql). The primary key is the look-up index too: the newest rows of a tag are a
-- backward scan of it.
CREATE TABLE IF NOT EXISTS public.plc_raw (
    ts timestamptz NOT NULL,
    site text COLLATE "C" NOT NULL,
    line text COLLATE "C" NOT NULL,
    device text COLLATE "C" NOT NULL,
    tag text COLLATE "C" NOT NULL,
    value double precision NOT NULL,
    unit text COLLATE "C" NOT NULL,
    PRIMARY KEY (site, device, tag, ts)
) PARTITION BY RANGE (ts);

-- Rows arrive nearly in time order, so a few bytes per 256 kB find a minute. Pages not summarized
-- yet are read by every query; autosummarize keeps them few.
CREATE INDEX IF NOT EXISTS plc_raw_ts ON public.plc_raw
    USING brin (ts) WITH (pages_per_range = 32, autosummarize = on);

-- One row per tag and UTC minute (plc_1h: hour) that has samples. `line` and `unit` are those of
-- the last sample. An average counts a value beyond +-1e300 as +-1e300 (015_settings.sql).
CREATE TABLE IF NOT EXISTS public.plc_1m (
    bucket timestamptz NOT NULL,
    site text COLLATE "C" NOT NULL,
    line text COLLATE "C" NOT NULL,
    device text COLLATE "C" NOT NULL,
    tag text COLLATE "C" NOT NULL,
    unit text COLLATE "C" NOT NULL,
    avg_value double precision NOT NULL,
    min_value double precision NOT NULL,
    max_value double precision NOT NULL,
    last_value double precision NOT NULL,
    samples bigint NOT NULL,
    -- A tag's minutes lie a page apart in the table: a week of 5 tags would read 50,000 pages. In
    -- the index they lie side by side, and with these columns in it the table need not be read.
    PRIMARY KEY (site, device, tag, bucket) INCLUDE (avg_value, min_value, max_value)
) WITH (
    -- What is not vacuumed must be looked up in the table after all. The usual fifth of a year's
    -- rows would be months; these are three hours of 3,000 tags.
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000
);
CREATE INDEX IF NOT EXISTS plc_1m_bucket ON public.plc_1m (bucket);
-- Otherwise the planner multiplies devices by tags, and sorts on disk for groups that aren't there.
CREATE STATISTICS IF NOT EXISTS public.plc_1m_tags (ndistinct) ON site, device, tag
    FROM public.plc_1m;

CREATE TABLE IF NOT EXISTS public.plc_1h (LIKE public.plc_1m INCLUDING ALL);

-- Minutes whose rows changed since they were last rolled up. It has no unique key, on purpose: a
-- writer that found its minute already listed would add nothing, the rollup could remove that
-- entry before the writer's rows are visible, and they would never be counted.
CREATE TABLE IF NOT EXISTS public.plc_dirty (
    minute timestamptz NOT NULL
);

GRANT INSERT ON public.plc_raw TO ingest;
GRANT SELECT ON public.plc_raw, public.plc_1m, public.plc_1h TO viewer;
