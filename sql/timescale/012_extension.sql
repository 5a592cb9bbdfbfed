-- The extension, and what it asks of this role and this database. Unlike the other files this one
-- runs as the role that applies it: it must own the database and be allowed to create roles.

CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public;

-- TimescaleDB's background jobs run as the owner of the tables, who must therefore be allowed to
-- log in. That nobody does is held by the limit: it counts the connections of clients, and
-- background workers are none. There is no password either.
ALTER ROLE plc_owner LOGIN CONNECTION LIMIT 0 PASSWORD NULL;

-- A late row makes TimescaleDB unpack the compressed rows around it, to check the primary key. By
-- default a transaction that unpacks 100,000 rows fails, and it would fail again for ever: a
-- journal that comes late by more than compress_days could never be delivered.
DO $$
BEGIN
    EXECUTE format(
        'ALTER DATABASE %I SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0',
        current_database()
    );
END
$$;

-- Everybody may add background jobs, of which there can only be so many at a time: here only the
-- owner may. It takes a superuser, who owns the extension's functions.
DO $$
BEGIN
    IF current_setting('is_superuser')::boolean THEN
        GRANT EXECUTE ON FUNCTION public.add_job TO plc_owner;
        REVOKE EXECUTE ON FUNCTION public.add_job FROM PUBLIC;
    END IF;
END
$$;
