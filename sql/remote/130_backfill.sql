-- How far `edge-remote backfill` has got, per edge.

SET LOCAL ROLE plc_owner;

-- Everything from `first` up to `done_until` has been copied, and what was copied up to
-- `refreshed_until` is in plc_1m and plc_1h too. A backfill is finished when both have reached
-- `last`; until then the next one of the same edge and `first` goes on from there.
CREATE TABLE IF NOT EXISTS public.plc_backfill (
    name text NOT NULL,
    first timestamptz NOT NULL,
    last timestamptz NOT NULL,
    done_until timestamptz NOT NULL,
    refreshed_until timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, first)
);

-- A resync that is not finished, per edge. What the slot lost is missing from `gap_from` on; the
-- outbox has been copied up to what arrived at `outbox_until`. The row is written before anything
-- is dropped and removed at the very end, so that one that was killed is known.
CREATE TABLE IF NOT EXISTS public.plc_resync (
    name text PRIMARY KEY,
    gap_from timestamptz NOT NULL,
    outbox_until timestamptz NOT NULL DEFAULT 'epoch',
    begun_at timestamptz NOT NULL DEFAULT now()
);
