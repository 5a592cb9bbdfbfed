-- Every address map that was applied, for ever: a map has a few thousand rows and changes rarely.

CREATE SCHEMA IF NOT EXISTS admin AUTHORIZATION plc_owner;

SET LOCAL ROLE plc_owner;

-- Versions count all agents of this database together.
CREATE TABLE IF NOT EXISTS admin.address_map_version (
    version integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sha256 text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    applied_at timestamptz NOT NULL DEFAULT now(),
    author text NOT NULL,
    agent_id text NOT NULL,
    row_count integer NOT NULL
);
CREATE INDEX IF NOT EXISTS address_map_version_agent
    ON admin.address_map_version (agent_id, version);

-- One row per tag, in the file's order. `columns` has all of the map's columns by name, as text:
-- no column that a later version of the map knows is lost.
CREATE TABLE IF NOT EXISTS admin.address_map (
    version integer NOT NULL REFERENCES admin.address_map_version ON DELETE CASCADE,
    row_number integer NOT NULL,
    site text COLLATE "C" NOT NULL,
    line text COLLATE "C" NOT NULL,
    device text COLLATE "C" NOT NULL,
    tag text COLLATE "C" NOT NULL,
    columns jsonb NOT NULL CHECK (jsonb_typeof(columns) = 'object'),
    PRIMARY KEY (version, row_number),
    UNIQUE (version, site, device, tag)
);

-- Record a map that an agent has applied; returns its version. `map_rows` is an array with one
-- object per tag, each of the map's columns by name as text. A map that is this agent's newest
-- already is not recorded again: an agent that starts applies the map that it had.
CREATE OR REPLACE FUNCTION admin.record_map(
    map_sha256 text, map_author text, map_agent_id text, map_rows jsonb
)
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    newest admin.address_map_version;
    recorded integer;
BEGIN
    -- One at a time: two agents with one name would both find nothing.
    PERFORM pg_advisory_xact_lock(hashtextextended('admin.record_map', 0));
    SELECT * INTO newest FROM admin.address_map_version
    WHERE agent_id = map_agent_id ORDER BY version DESC LIMIT 1;
    IF newest.sha256 = map_sha256 THEN
        RETURN newest.version;
    END IF;
    INSERT INTO admin.address_map_version (sha256, author, agent_id, row_count)
    VALUES (map_sha256, map_author, map_agent_id, jsonb_array_length(map_rows))
    RETURNING version INTO recorded;
    INSERT INTO admin.address_map (version, row_number, site, line, device, tag, columns)
    SELECT recorded, n, tag ->> 'site', tag ->> 'line', tag ->> 'device', tag ->> 'tag', tag
    FROM jsonb_array_elements(map_rows) WITH ORDINALITY AS row (tag, n);
    RETURN recorded;
END
$$;

REVOKE ALL ON FUNCTION admin.record_map(text, text, text, jsonb) FROM PUBLIC;
GRANT USAGE ON SCHEMA admin TO ingest, viewer;
GRANT SELECT ON admin.address_map_version, admin.address_map TO viewer;
GRANT EXECUTE ON FUNCTION admin.record_map(text, text, text, jsonb) TO ingest;
