-- What makes delivery exactly once.

SET LOCAL ROLE plc_owner;

-- Up to where an agent's journal is in plc_raw; advanced in the transaction that writes the rows.
CREATE TABLE IF NOT EXISTS public.plc_cursor (
    agent_id text NOT NULL,
    journal_id text NOT NULL,
    sequence bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (agent_id, journal_id)
);
-- Rows of batches up to there that are not in plc_raw because they were refused, as long as the
-- agent's journal may hand them over again: [[sequence, samples, {reason: [position]}]].
ALTER TABLE public.plc_cursor
    ADD COLUMN IF NOT EXISTS refused jsonb NOT NULL DEFAULT '[]';

-- Insert the rows that the caller has staged in pg_temp.plc_staged, numbered 1 to `count`.
-- Rows that are there already are skipped. Rows that the table refuses for good (out of range, a
-- constraint or a trigger of yours) come back with the reason; every other row is inserted: what
-- fails is split in halves until the bad rows stand alone, 2 x count attempts at most.
CREATE OR REPLACE FUNCTION public.plc_insert_staged(
    count integer, OUT inserted bigint, OUT refused integer[], OUT reasons text[]
)
LANGUAGE plpgsql
AS $$
DECLARE
    firsts integer[] := ARRAY[1];  -- a stack of ranges, the earliest on top
    lasts integer[] := ARRAY[count];
    first integer;
    last integer;
    done bigint;
    code text;
    broken text;
BEGIN
    inserted := 0;
    refused := '{}';
    reasons := '{}';
    WHILE cardinality(firsts) > 0 LOOP
        first := firsts[cardinality(firsts)];
        last := lasts[cardinality(lasts)];
        firsts := trim_array(firsts, 1);
        lasts := trim_array(lasts, 1);
        BEGIN
            INSERT INTO public.plc_raw (ts, site, line, device, tag, value, unit)
            SELECT ts, site, line, device, tag, value, unit FROM pg_temp.plc_staged
            WHERE n BETWEEN first AND last ORDER BY n
            ON CONFLICT DO NOTHING;
            GET DIAGNOSTICS done = ROW_COUNT;
            inserted := inserted + done;
        EXCEPTION
            WHEN data_exception OR integrity_constraint_violation OR plpgsql_error
                OR program_limit_exceeded
            THEN
                GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, broken = CONSTRAINT_NAME;
                IF code = '23514' AND broken = '' THEN
                    RAISE;  -- no partition for the row: the sink makes it and comes again
                ELSIF first = last THEN
                    refused := refused || first;
                    reasons := reasons || (SQLERRM || ' (' || code || ')');
                ELSE
                    firsts := firsts || ARRAY[(first + last) / 2 + 1, first];
                    lasts := lasts || ARRAY[last, (first + last) / 2];
                END IF;
        END;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION public.plc_insert_staged(integer) FROM PUBLIC;
GRANT SELECT, INSERT, UPDATE ON public.plc_cursor TO ingest;
GRANT EXECUTE ON FUNCTION public.plc_insert_staged(integer) TO ingest;
