-- What this database is told to keep and for how long, and the rules that both flavours share.

SET LOCAL ROLE plc_owner;

-- One row, made by the flavour's own 020_tables.sql and written by `edge-agent db init` from
-- [postgres] of the settings. Only the owner may change it: what the agent could lengthen or
-- shorten, whoever has the agent's password could delete. plc_apply_settings() makes a change
-- take effect.
--
-- A refresh must not reach back to where raw rows (or minutes) are gone, or it would find nothing
-- there and delete what was computed from them.
CREATE TABLE IF NOT EXISTS public.plc_settings (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    flavour text NOT NULL CHECK (flavour IN ('postgres', 'timescale')),
    chunk_days integer NOT NULL DEFAULT 1 CHECK (chunk_days BETWEEN 1 AND 30),
    compress_days integer NOT NULL DEFAULT 7 CHECK (compress_days BETWEEN 1 AND 3660),
    raw_days integer NOT NULL DEFAULT 90 CHECK (raw_days BETWEEN 1 AND 3660),
    minute_days integer NOT NULL DEFAULT 400 CHECK (minute_days BETWEEN 1 AND 3660),
    refresh_minute_days integer NOT NULL DEFAULT 7
        CHECK (refresh_minute_days BETWEEN 1 AND raw_days),
    refresh_hour_days integer NOT NULL DEFAULT 31
        CHECK (refresh_hour_days BETWEEN 1 AND minute_days)
);

-- Before these times, rows have been removed by retention: what was rolled up from them is final.
CREATE TABLE IF NOT EXISTS public.plc_horizon (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    raw_from timestamptz NOT NULL DEFAULT '-infinity',
    minute_from timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO public.plc_horizon DEFAULT VALUES ON CONFLICT DO NOTHING;

-- Whether rows of this day (days since 1970-01-01) are refused: only a wrong clock can mean it, by
-- this server's own clock. Each day costs a table, and a clock that wanders must not make
-- thousands. 1,100 days back leave room to backfill three years; 7 days ahead cover a computer
-- without a battery-backed clock that wakes up in the past.
CREATE OR REPLACE FUNCTION public.plc_refuses_day(day bigint) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
RETURN day NOT BETWEEN floor(extract(epoch FROM now()) / 86400) - 1100
    AND floor(extract(epoch FROM now()) / 86400) + 7;

-- A mean that can't fail. PostgreSQL raises an error where a float overflows or underflows, and a
-- FLOAT64 read with the wrong byte order may well be 1e308 or 1e-310: one such value would stop
-- the rollup for ever. `total` is a sum of at most 1e7 values within +-1e300.
CREATE OR REPLACE FUNCTION public.plc_mean(total double precision, samples numeric)
RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN abs(total) < 1e-290 THEN 0 ELSE total / samples::double precision END;

REVOKE ALL ON FUNCTION
    public.plc_refuses_day(bigint), public.plc_mean(double precision, numeric)
FROM PUBLIC;
-- In the timescale flavour the views plc_1m and plc_1h call it with the reader's own rights.
GRANT EXECUTE ON FUNCTION public.plc_mean(double precision, numeric) TO viewer;
GRANT SELECT ON public.plc_settings TO viewer;
