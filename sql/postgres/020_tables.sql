-- The tables of the flavour that needs no extension. Names and columns are the same in every
-- flavour, so that no query knows which one it is on.
--
-- Text is COLLATE "C": it compares by memcmp, and the indexes survive an upgrade of the operating
-- system, whose new C library may sort a language differently and so break every other text index
-- in silence.

SET LOCAL ROLE plc_owner;

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
-- the last sample. An average counts a value beyond +-1e300 as +-1e300 (040_rollups.sql).
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
    PRIMARY KEY (site, device, tag, bucket)
);
CREATE INDEX IF NOT EXISTS plc_1m_bucket ON public.plc_1m (bucket);

CREATE TABLE IF NOT EXISTS public.plc_1h (LIKE public.plc_1m INCLUDING ALL);

-- Minutes whose rows changed since they were last rolled up. It has no unique key, on purpose: a
-- writer that found its minute already listed would add nothing, the rollup could remove that
-- entry before the writer's rows are visible, and they would never be counted.
CREATE TABLE IF NOT EXISTS public.plc_dirty (
    minute timestamptz NOT NULL
);

-- Before these times, rows have been removed by retention: what was rolled up from them is final.
CREATE TABLE IF NOT EXISTS public.plc_horizon (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    raw_from timestamptz NOT NULL DEFAULT '-infinity',
    minute_from timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO public.plc_horizon DEFAULT VALUES ON CONFLICT DO NOTHING;

GRANT INSERT ON public.plc_raw TO ingest;
GRANT SELECT ON public.plc_raw, public.plc_1m, public.plc_1h TO viewer;
