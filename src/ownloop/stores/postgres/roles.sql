-- Least privilege. Run as the owner of the schema after each `ownloop migrate`; then GRANT ownloop_app TO the role that your workers and servers log in as.
-- It reads the tables and writes through functions only: no event can be changed or deleted, and no position made up.

DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ownloop_app') THEN
        CREATE ROLE ownloop_app NOLOGIN;
    END IF;
END $$;
REVOKE ALL ON SCHEMA ownloop FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA ownloop FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ownloop FROM PUBLIC;
GRANT USAGE ON SCHEMA ownloop TO ownloop_app;
GRANT SELECT ON ALL TABLES IN SCHEMA ownloop TO ownloop_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA ownloop GRANT SELECT ON TABLES TO ownloop_app;
GRANT EXECUTE ON FUNCTION ownloop.append, ownloop.start, ownloop.send, ownloop.emit, ownloop.put, ownloop.drop, ownloop.subscribe, ownloop.notices,
    ownloop.delivered, ownloop.note, ownloop.forget_notes, ownloop.prune, ownloop.sweep, ownloop.now, ownloop.thread_id, ownloop.thread_number,
    ownloop._field, ownloop._text TO ownloop_app;
