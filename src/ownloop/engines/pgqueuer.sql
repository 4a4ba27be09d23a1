-- What PgQueuer's tables need to know of threads. A job is a hint: its entrypoint is the agent, its payload the thread's id. Whoever makes a thread runnable
-- also makes a job, in the same commit, whatever driver or language it comes from: a trigger on the rows does it.

-- A person's answer goes before what machines have told.
CREATE OR REPLACE FUNCTION ownloop_pgq.priority(t ownloop.threads) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN EXISTS (
        SELECT FROM ownloop.events WHERE thread = t.number AND seq = t.woken AND kind IN ('decision', 'message', 'control')) THEN 10 ELSE 0 END
$$;

CREATE OR REPLACE FUNCTION ownloop_pgq.key(t ownloop.threads) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN t.ready >= 0 AND t.lease_until IS NULL THEN 't:' || t.number || ':' || t.due
        ELSE 's:' || t.number || ':' || t.epoch || ':' || t.released || ':' || t.woken END
$$;

-- Without a key for what is new; with one for what may be told again: a key that waits or runs already is passed by. The thread's id as a key would lose
-- wakes: it stands there until the job before has been cleared away.
CREATE OR REPLACE FUNCTION ownloop_pgq.enqueue(batch ownloop.threads[], keyed boolean) RETURNS void LANGUAGE sql AS $$
    INSERT INTO ownloop_pgq.pgqueuer (priority, entrypoint, payload, execute_after, dedupe_key, status)
    SELECT CASE WHEN t.woken > t.seen THEN ownloop_pgq.priority(t) ELSE 0 END, t.agent, convert_to(ownloop.thread_id(t.number), 'UTF8'),
        CASE WHEN t.ready >= 0 AND t.lease_until IS NULL THEN to_timestamp(t.ready / 1000000.0) ELSE now() END,
        CASE WHEN keyed THEN ownloop_pgq.key(t) END, 'queued' FROM unnest(batch) AS t ON CONFLICT DO NOTHING
$$;

CREATE OR REPLACE FUNCTION ownloop_pgq.hint() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.ready < 0 THEN
        PERFORM ownloop_pgq.enqueue(ARRAY[NEW], false);
    ELSIF NEW.ready < ownloop.now() + 60000000 THEN
        PERFORM ownloop_pgq.enqueue(ARRAY[NEW], true);
    END IF;
    RETURN NULL;
END $$;

-- A row that is ready at once and was not, or has another timer. One that was ready has its job; one that is held gets it from the release.
CREATE OR REPLACE TRIGGER pgqueuer_born AFTER INSERT ON ownloop.threads FOR EACH ROW
    WHEN (NEW.lease_until IS NULL AND NEW.ready IS NOT NULL) EXECUTE FUNCTION ownloop_pgq.hint();
CREATE OR REPLACE TRIGGER pgqueuer_hint AFTER UPDATE ON ownloop.threads FOR EACH ROW
    WHEN (NEW.lease_until IS NULL AND (NEW.ready IS DISTINCT FROM OLD.ready OR OLD.lease_until IS NOT NULL)
        AND (NEW.ready >= 0 OR coalesce(OLD.ready, 0) >= 0))
    EXECUTE FUNCTION ownloop_pgq.hint();

-- Jobs for what is ready and has lost its own, for leases that have run out, and for timers of the next 60 s after `since`. How many jobs were surely lost
-- (nothing new waits to be run), and up to when timers have theirs. The clock is asked in a subselect: compared with the bare function the index would not be used.
-- `me` is the worker that asks, as PgQueuer names it, and `known` are the jobs that have arrived there.
DROP FUNCTION IF EXISTS ownloop_pgq.sweep(text[], integer, bigint);
CREATE OR REPLACE FUNCTION ownloop_pgq.sweep(
    agents text[], most integer, since bigint, me uuid DEFAULT NULL, known bigint[] DEFAULT '{}', OUT lost integer, OUT upto bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moment bigint := ownloop.now();
    batch ownloop.threads[];
    stale bigint[];
BEGIN
    -- Given to this worker two seconds ago, which knows nothing of it: the answer was lost with its connection. It would count among what the worker may have.
    stale := ARRAY(SELECT id FROM ownloop_pgq.pgqueuer
        WHERE queue_manager_id = me AND status = 'picked' AND id <> ALL (known) AND updated < clock_timestamp() - interval '2 seconds');
    IF stale <> '{}' THEN
        DELETE FROM ownloop_pgq.pgqueuer WHERE id = ANY (stale);
    END IF;
    -- Who picks a job claims its thread at once. If the thread is ready two seconds later, those hands are dead or frozen: the key is given to another job. Not
    -- while somebody's transaction holds the thread's row: whoever has the job waits for that, and so would each further one, until no worker had hands left.
    stale := ARRAY(SELECT id FROM ownloop_pgq.pgqueuer
        WHERE status = 'picked' AND dedupe_key ~ '^[st]:[0-9]+:' AND updated < clock_timestamp() - interval '2 seconds' ORDER BY id);
    IF stale <> '{}' THEN
        UPDATE ownloop_pgq.pgqueuer SET dedupe_key = NULL WHERE id = ANY (stale) AND split_part(dedupe_key, ':', 2)::bigint IN (
            SELECT number FROM ownloop.threads WHERE number IN (SELECT split_part(dedupe_key, ':', 2)::bigint FROM ownloop_pgq.pgqueuer WHERE id = ANY (stale))
            FOR NO KEY UPDATE SKIP LOCKED);
    END IF;
    SELECT array_agg(one ORDER BY one.number) INTO batch FROM unnest(agents) AS mine, LATERAL (
            (SELECT * FROM ownloop.threads WHERE agent = mine AND ready < 0 ORDER BY ready LIMIT most)
            UNION ALL (SELECT * FROM ownloop.threads WHERE agent = mine AND ready >= 0 AND ready <= (SELECT ownloop.now()) ORDER BY ready LIMIT most)) AS one
        WHERE NOT EXISTS (SELECT FROM ownloop_pgq.pgqueuer j WHERE j.dedupe_key = ownloop_pgq.key(one) AND j.status IN ('queued', 'picked'));
    lost := coalesce(cardinality(batch), 0);
    IF lost > 0 THEN
        IF EXISTS (SELECT FROM ownloop_pgq.pgqueuer
            WHERE status = 'queued' AND entrypoint = ANY (agents) AND execute_after <= now() AND dedupe_key IS NULL) THEN
            lost := 0;
        END IF;
        PERFORM ownloop_pgq.enqueue(batch, true);  -- not of nothing: every INSERT there calls the workers
    END IF;
    SELECT array_agg(one) INTO batch FROM (SELECT near.* FROM unnest(agents) AS mine, LATERAL (  -- from a little before: a commit may come late
            SELECT * FROM ownloop.threads w WHERE agent = mine AND ready >= since - 5000000 AND ready > (SELECT ownloop.now())
                AND ready < (SELECT ownloop.now()) + 60000000 AND lease_until IS NULL
                AND NOT EXISTS (SELECT FROM ownloop_pgq.pgqueuer j WHERE j.dedupe_key = ownloop_pgq.key(w) AND j.status IN ('queued', 'picked'))
            ORDER BY ready LIMIT most * 20) AS near ORDER BY near.ready LIMIT most * 20) AS one;
    upto := moment + 60000000;
    IF batch IS NOT NULL THEN
        PERFORM ownloop_pgq.enqueue(batch, true);
        IF cardinality(batch) = most * 20 THEN
            upto := (batch[most * 20]).ready;
        END IF;
    END IF;
END $$;

-- Forget what PgQueuer has written down of jobs that are over, and jobs of agents that nobody runs any more: the sweep makes them anew. How many lines went;
-- some at a time, and a table that somebody holds is not waited for: the sweep comes after it.
DROP FUNCTION IF EXISTS ownloop_pgq.prune(interval);
CREATE OR REPLACE FUNCTION ownloop_pgq.prune(age interval, most integer DEFAULT 20000) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '500ms' AS $$
    DELETE FROM ownloop_pgq.pgqueuer WHERE status = 'queued' AND execute_after <= now() - age - interval '1 hour';
    WITH gone AS (
        DELETE FROM ownloop_pgq.pgqueuer_log WHERE id IN (SELECT id FROM ownloop_pgq.pgqueuer_log WHERE created <= now() - age ORDER BY created LIMIT most)
        RETURNING 1
    )
    SELECT count(*) FROM gone
$$;

-- For the role of `ownloop migrate --roles`: PgQueuer writes its tables itself.
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'ownloop_app') AND to_regnamespace('ownloop_pgq') IS NOT NULL THEN
        GRANT USAGE ON SCHEMA ownloop_pgq TO ownloop_app;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ownloop_pgq TO ownloop_app;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA ownloop_pgq TO ownloop_app;
        GRANT EXECUTE ON FUNCTION ownloop_pgq.sweep, ownloop_pgq.prune TO ownloop_app;
    END IF;
END $$;
