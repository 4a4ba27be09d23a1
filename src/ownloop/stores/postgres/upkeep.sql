-- Records, the outbox, notes, and what keeps the tables small.

CREATE OR REPLACE FUNCTION ownloop.put(of_space text, at_key text, content text, expect bigint, ttl bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moment bigint := ownloop.now();
    known ownloop.records;
BEGIN
    IF expect IS NULL OR expect = 0 THEN  -- a new one; the version goes on rising over an expiry
        INSERT INTO ownloop.records AS r (space, key, value, version, expires_at) VALUES (of_space, at_key, content, 1, moment + ttl)
        ON CONFLICT (space, key) DO UPDATE SET value = excluded.value, version = r.version + 1, expires_at = excluded.expires_at
        WHERE expect IS NULL OR r.expires_at <= ownloop.now();
        RETURN FOUND;
    END IF;
    SELECT * INTO known FROM ownloop.records WHERE space = of_space AND key = at_key FOR UPDATE;
    IF known.version IS DISTINCT FROM expect OR known.expires_at <= ownloop.now() THEN
        RETURN false;
    END IF;
    UPDATE ownloop.records SET value = content, version = version + 1, expires_at = moment + ttl WHERE space = of_space AND key = at_key;
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION ownloop.drop(of_space text, at_key text) RETURNS boolean LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (DELETE FROM ownloop.records WHERE space = of_space AND key = at_key RETURNING expires_at)
    SELECT EXISTS (SELECT FROM gone WHERE expires_at IS NULL OR expires_at > ownloop.now())
$$;

CREATE OR REPLACE FUNCTION ownloop.subscribe(names text[]) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO ownloop.subscriptions (name) SELECT unnest(names) ON CONFLICT DO NOTHING
$$;

-- Take undelivered notices, hidden from others for `ttl`.
CREATE OR REPLACE FUNCTION ownloop.notices(names text[], most integer, ttl bigint) RETURNS SETOF ownloop.outbox
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moment bigint := ownloop.now();
BEGIN
    RETURN QUERY WITH ready AS (
        SELECT o.id FROM ownloop.outbox o WHERE o.hidden_until <= moment AND o.name = ANY (names) ORDER BY o.id LIMIT most FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE ownloop.outbox o SET hidden_until = moment + ttl, tries = o.tries + 1 FROM ready WHERE o.id = ready.id RETURNING o.*
    )
    SELECT * FROM taken ORDER BY taken.id;
END $$;

CREATE OR REPLACE FUNCTION ownloop.delivered(notices bigint[]) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM ownloop.outbox WHERE id = ANY (notices)
$$;

-- `content` is the text as JSON; `lexemes` are its words. When it was written; a note that says the same already keeps its time.
CREATE OR REPLACE FUNCTION ownloop.note(of_owner text, at_key text, content text, lexemes text[]) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH written AS (
        INSERT INTO ownloop.notes AS n (at, owner, key, text, words) VALUES (ownloop.now(), of_owner, at_key, content, array_to_tsvector(lexemes))
        ON CONFLICT (owner, key) DO UPDATE SET at = excluded.at, number = DEFAULT, text = excluded.text, words = excluded.words
        WHERE n.text <> excluded.text RETURNING at
    )
    SELECT at FROM written UNION ALL SELECT at FROM ownloop.notes WHERE owner = of_owner AND key = at_key LIMIT 1
$$;

CREATE OR REPLACE FUNCTION ownloop.forget_notes(of_owner text, at_key text) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (DELETE FROM ownloop.notes WHERE owner = of_owner AND key = coalesce(at_key, key) RETURNING 1) SELECT count(*) FROM gone
$$;

-- Forget some threads that are over, wait for nothing and were last touched before that time; how many. Call it until it says 0. And notices that nobody has
-- taken since: whoever listened to that name is gone.
CREATE OR REPLACE FUNCTION ownloop.prune(before bigint, most integer DEFAULT 500) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old bigint[];
BEGIN
    SELECT array_agg(number) INTO old FROM (
        SELECT number FROM ownloop.threads WHERE status IN ('done', 'cancelled', 'closed') AND updated_at < before
            AND NOT EXISTS (SELECT FROM ownloop.interrupts WHERE thread = number AND status = 'open') LIMIT most FOR UPDATE SKIP LOCKED) AS chosen;
    DELETE FROM ownloop.events WHERE thread = ANY (old);
    DELETE FROM ownloop.interrupts WHERE thread = ANY (old);
    DELETE FROM ownloop.dedupe WHERE thread = ANY (old);
    DELETE FROM ownloop.holders WHERE thread = ANY (old);
    DELETE FROM ownloop.threads WHERE number = ANY (old);
    DELETE FROM ownloop.outbox WHERE hidden_until < before;
    RETURN coalesce(cardinality(old), 0);
END $$;

-- Forget what nobody can ask for any more: old mail, expired records, values that no thread holds. `_keep` touches a value anew after an hour, so that what
-- is older than two is in nobody's open transaction.
CREATE OR REPLACE FUNCTION ownloop.sweep(kept bigint) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM ownloop.mail WHERE at <= (SELECT ownloop.now()) - kept;
    DELETE FROM ownloop.records WHERE expires_at <= (SELECT ownloop.now());
    DELETE FROM ownloop.blobs b WHERE touched < (SELECT ownloop.now()) - 7200000000
        AND NOT EXISTS (SELECT FROM ownloop.holders h WHERE h.hash = b.hash);
$$;
