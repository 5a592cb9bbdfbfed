-- Who may do what. Nobody logs in as any of these roles: make login roles of your own and grant
-- them one, e.g.  CREATE ROLE agent LOGIN PASSWORD '...';  GRANT ingest TO agent;
--
--   plc_owner  owns every object; its functions are the only way to change them
--   ingest     writes samples and its own cursor, and calls the upkeep functions
--   viewer     reads plc_raw, plc_1m and plc_1h
--   rep        reads plc_outbox for a remote, where there is one (edge/110_outbox.sql)
--
-- Each file of this folder is idempotent and runs in one transaction: `edge-agent db init`, or
-- `psql -1 -f FILE`. This one needs a role that may create roles and owns the database; the
-- others change to plc_owner first.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['plc_owner', 'ingest', 'viewer', 'rep'] LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
    -- The following files say SET ROLE plc_owner. From 16 on, having made a role does not allow it.
    IF NOT pg_has_role(current_user, 'plc_owner', CASE
        WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET'
    END) THEN
        EXECUTE format('GRANT plc_owner TO %I', current_user);
    END IF;
    -- TEMPORARY is for the staging table that resolves duplicates (060_delivery.sql).
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO ingest', current_database());
END
$$;

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO plc_owner;
GRANT USAGE ON SCHEMA public TO ingest, viewer, rep;

-- A new function is executable by everybody unless this is said before it is made.
ALTER DEFAULT PRIVILEGES FOR ROLE plc_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

SET LOCAL ROLE plc_owner;

-- Which of these files were applied, and with which content.
CREATE TABLE IF NOT EXISTS public.schema_version (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
