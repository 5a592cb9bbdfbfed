-- What has no key in pigsty.yml. Pigsty runs this in database plc, as the superuser, right after it
-- has made the database (`baseline: plc.sql`); running it again changes nothing.
--
-- Publications, subscriptions, landing table and triggers are not here: `edge-remote setup` makes
-- them, and the rest of the schema.

-- `revokeconn` takes CONNECT from everybody. plc_owner is among them because TimescaleDB's
-- background jobs connect in its name.
GRANT CONNECT ON DATABASE plc TO plc_owner, ingest, viewer;

-- Pigsty lets its dbrole_admin make objects in every database. Here nobody does but plc_owner.
REVOKE CREATE ON DATABASE plc FROM dbrole_admin;
REVOKE CREATE ON SCHEMA public FROM dbrole_admin;
