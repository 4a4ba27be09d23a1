-- The pieces that every statement of the protocol is made of. What is a rule of a draft alone (what it closes, whom it tells, what it watches) comes with
-- the draft, from rules.py; what depends on rows stands here. Names with an underscore are for the functions of this schema.

-- Microseconds since 1970. A test sets the clock of a session: SET ownloop_test.clock = '1767225600000000'.
CREATE OR REPLACE FUNCTION ownloop.now() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
    SELECT coalesce(nullif(current_setting('ownloop_test.clock', true), '')::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
$$;

-- Crockford's base 32 of 63 bits, as ids.py writes it.
CREATE OR REPLACE FUNCTION ownloop.thread_id(number bigint) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    a text := '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
    n bigint := number;
BEGIN
    RETURN 'thr_' || substr(a, (n >> 60 & 31)::integer + 1, 1) || substr(a, (n >> 55 & 31)::integer + 1, 1) || substr(a, (n >> 50 & 31)::integer + 1, 1) || substr(a, (n >> 45 & 31)::integer + 1, 1) ||
        substr(a, (n >> 40 & 31)::integer + 1, 1) || substr(a, (n >> 35 & 31)::integer + 1, 1) || substr(a, (n >> 30 & 31)::integer + 1, 1) || substr(a, (n >> 25 & 31)::integer + 1, 1) ||
        substr(a, (n >> 20 & 31)::integer + 1, 1) || substr(a, (n >> 15 & 31)::integer + 1, 1) || substr(a, (n >> 10 & 31)::integer + 1, 1) || substr(a, (n >> 5 & 31)::integer + 1, 1) || substr(a, (n & 31)::integer + 1, 1);
END $$;

CREATE OR REPLACE FUNCTION ownloop.thread_number(id text) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT CASE WHEN id ~ '^thr_[0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{13}$' AND substr(id, 5, 1) < '8' THEN
        (SELECT bit_or((strpos('0123456789ABCDEFGHJKMNPQRSTVWXYZ', upper(substr(id, 17 - place, 1))) - 1)::bigint << 5 * place)
         FROM generate_series(0, 12) AS place) ELSE -1 END
$$;

-- Whoever listens hears of the thread after the commit. The caller may know its id.
CREATE OR REPLACE FUNCTION ownloop._tell(me bigint, id text DEFAULT NULL) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('ownloop', coalesce(id, ownloop.thread_id(me)));
END $$;

-- A field of an event's JSON as JSON, for searching. What jsonb or text cannot hold is not found.
CREATE OR REPLACE FUNCTION ownloop._field(data text, field text) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    IF strpos(data, '\u') = 0 THEN
        RETURN data::json -> field;
    END IF;
    BEGIN
        RETURN data::json -> field;
    EXCEPTION WHEN data_exception THEN
        RETURN NULL;
    END;
END $$;

CREATE OR REPLACE FUNCTION ownloop._text(data text, field text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ownloop._field(data, field)::json #>> '{}'
$$;

CREATE OR REPLACE FUNCTION ownloop._searched(context text) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN context::jsonb;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION ownloop._notice(what text, me bigint, place integer, moment bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ownloop.outbox (name, thread, seq, at, hidden_until)
    SELECT name, me, CASE WHEN what LIKE 'interrupt.%' THEN place END, moment, moment FROM ownloop.subscriptions WHERE name = what;
END $$;

-- Values by hash. The row is locked or new until the commit, so that `sweep` does not take it away in between.
CREATE OR REPLACE FUNCTION ownloop._keep(me bigint, blobs jsonb, moment bigint) RETURNS void LANGUAGE sql AS $$
    INSERT INTO ownloop.blobs AS known (hash, touched, json) SELECT key, moment, value FROM jsonb_each_text(blobs) ORDER BY key
    ON CONFLICT (hash) DO UPDATE SET touched = excluded.touched WHERE known.touched < excluded.touched - 3600000000;
    INSERT INTO ownloop.holders (hash, thread) SELECT key, me FROM jsonb_each_text(blobs) ON CONFLICT DO NOTHING;
$$;

-- Close open interrupts that nobody answered: of a step ('step'), of named steps ('named'), about a call ('doubt'), or all.
CREATE OR REPLACE FUNCTION ownloop._withdraw(me bigint, moment bigint, how text, of_step text DEFAULT '', call text DEFAULT '') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM ownloop.interrupts WHERE thread = me AND status = 'open') THEN
        RETURN;
    END IF;
    WITH gone AS (
        UPDATE ownloop.interrupts SET status = 'withdrawn' WHERE thread = me AND status = 'open' AND CASE how
            WHEN 'step' THEN step = of_step AND kind <> 'child'
            WHEN 'named' THEN left(step, 1) = '@' AND kind <> 'child'
            WHEN 'doubt' THEN step = of_step AND kind = 'in_doubt' AND name = call
            ELSE true END
        RETURNING seq, decidable
    )
    INSERT INTO ownloop.outbox (name, thread, seq, at, hidden_until)
    SELECT s.name, me, gone.seq, moment, moment FROM gone, ownloop.subscriptions s
    WHERE gone.decidable AND s.name = 'interrupt.resolved' ORDER BY gone.seq;
END $$;

CREATE OR REPLACE FUNCTION ownloop._open_interrupt(me bigint, place integer, moment bigint, expires bigint, d jsonb) RETURNS void LANGUAGE sql AS $$
    INSERT INTO ownloop.interrupts (thread, seq, at, expires_at, decidable, kind, step, name, box, child, digest)
    VALUES (me, place, moment, expires, (d -> 'decidable')::boolean, d ->> 'asks', coalesce(d ->> 'step', ''), d ->> 'name', d ->> 'box',
            (d ->> 'child')::bigint, d ->> 'digest')
$$;

-- The data of an event as it is, if it is a JSON object: whoever calls, what is no JSON could never be read again.
CREATE OR REPLACE FUNCTION ownloop._object(data text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF json_typeof(data::json) <> 'object' THEN
        RAISE EXCEPTION 'the data of an event is a JSON object, and this is %', left(data, 80) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN data;
END $$;

-- One event at its place, and what follows from it. The caller holds the thread's row and writes its head.
CREATE OR REPLACE FUNCTION ownloop._append(me bigint, place integer, moment bigint, d jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    what text := d ->> 'kind';
    body text := d ->> 'data';
    asked integer := (d ->> 'request')::integer;
    expires bigint := coalesce((d ->> 'expires')::bigint, moment + (d ->> 'expires_in')::bigint);
    covered integer[];
BEGIN
    IF d ? 'covers' THEN
        covered := ARRAY(SELECT jsonb_array_elements_text(d -> 'covers')::integer);
    END IF;
    IF d ? 'expires_in' THEN
        body := CASE WHEN body IS NULL THEN '{' ELSE left(body, -1) || ',' END || '"expires_at":' || expires || '}';
    END IF;
    INSERT INTO ownloop.events (thread, at, seq, request, kind, step, op, actor, data, big, covers)
    VALUES (me, moment, place, asked, what, coalesce(d ->> 'step', ''), coalesce(d ->> 'op', ''), d ->> 'by', ownloop._object(body), d -> 'big', covered);
    IF d ? 'blobs' THEN
        PERFORM ownloop._keep(me, d -> 'blobs', moment);
    END IF;
    IF what = 'request' THEN
        PERFORM ownloop._open_interrupt(me, place, moment, expires, d);
    ELSIF what = 'vote' THEN
        UPDATE ownloop.interrupts SET votes = votes || place WHERE thread = me AND seq = asked;
    ELSIF what = 'ended' THEN
        PERFORM ownloop._withdraw(me, moment, 'step', coalesce(d ->> 'step', ''));
    ELSIF what = 'turn_ended' THEN
        PERFORM ownloop._withdraw(me, moment, 'named');
    END IF;
    IF d ? 'closes' THEN
        UPDATE ownloop.interrupts SET status = d ->> 'closes', closing = place WHERE thread = me AND seq = asked;
    END IF;
    IF d ? 'notice' THEN
        PERFORM ownloop._notice(d ->> 'notice', me, coalesce(asked, place), moment);
    END IF;
END $$;

-- Events of which nothing follows in another table, after the head of a thread whose row the caller holds.
CREATE OR REPLACE FUNCTION ownloop._append_plain(t ownloop.threads, moment bigint, drafts jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ownloop.events (thread, at, seq, kind, step, op, actor, data)
    SELECT t.number, moment, t.head + place, d ->> 'kind', coalesce(d ->> 'step', ''), coalesce(d ->> 'op', ''), d ->> 'by', ownloop._object(d ->> 'data')
    FROM jsonb_array_elements(drafts) WITH ORDINALITY AS one (d, place);
END $$;

-- A thread's row, locked; null if it is not there, or if somebody holds it who is not waited for.
CREATE OR REPLACE FUNCTION ownloop._lock(me bigint, patient boolean) RETURNS ownloop.threads LANGUAGE plpgsql AS $$
DECLARE
    t ownloop.threads;
BEGIN
    IF patient THEN
        SELECT * INTO t FROM ownloop.threads WHERE number = me FOR NO KEY UPDATE;
    ELSE
        SELECT * INTO t FROM ownloop.threads WHERE number = me FOR NO KEY UPDATE SKIP LOCKED;
    END IF;
    RETURN t;
END $$;

CREATE OR REPLACE FUNCTION ownloop._has_outcome(me bigint, of_step text, of_op text, after integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    RETURN EXISTS (SELECT FROM ownloop.events WHERE thread = me AND step = of_step AND op = of_op AND seq > after AND kind = 'outcome');
END $$;

-- The operator's breakpoints on a thread and its agent: a list of what `hold` wrote.
CREATE OR REPLACE FUNCTION ownloop._holds(me bigint, its_agent text, moment bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    mine text := ownloop.thread_id(me);
    its text := 'agent:' || its_agent;
    found jsonb := '[]';
    one text;
BEGIN
    FOR one IN SELECT value FROM ownloop.records WHERE space = 'hold' AND key = ANY (ARRAY[mine, its]) AND (expires_at IS NULL OR expires_at > moment)
        ORDER BY key DESC LOOP
        found := found || to_jsonb(one);
    END LOOP;
    RETURN found;
END $$;

CREATE OR REPLACE FUNCTION ownloop._event(me bigint, place integer) RETURNS jsonb LANGUAGE sql VOLATILE AS $$
    SELECT jsonb_build_array(seq, kind, at, step, op, actor, data, big) FROM ownloop.events WHERE thread = me AND seq = place
$$;

-- Why a wake may not write any more, or NULL: it has lost its lease, the thread's status forbids it, or a superseding message has not been read.
CREATE OR REPLACE FUNCTION ownloop._fence(t ownloop.threads, its_epoch integer, moment bigint, statuses text[], known integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN CASE
        WHEN (t.number IS NOT NULL AND t.epoch = its_epoch AND t.lease_until > moment) IS NOT TRUE
            THEN CASE WHEN t.status IN ('cancelled', 'closed') THEN t.status ELSE 'lease' END
        WHEN t.status <> ALL (statuses) THEN t.status
        WHEN t.barrier > known THEN 'superseded' END;
END $$;

-- The lock that a wait and an event of one name and key take, before any thread's row.
CREATE OR REPLACE FUNCTION ownloop._lock_box(event text, key text) RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(hashtextextended('ownloop' || chr(1) || event || chr(1) || key, 0))
$$;
