-- The statements of a wake. Each takes its arguments as JSON, locks the thread's row, reads the clock, checks, and only then writes: a refusal is an answer
-- and leaves nothing behind, so that many calls share a transaction. Lock order: boxes by name and key, then parent before child.

CREATE OR REPLACE FUNCTION ownloop._claim(a jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    t ownloop.threads;
    moment bigint := ownloop.now();
    wanted boolean := jsonb_typeof(a -> 'agents') = 'array';
BEGIN
    FOR look IN 1..2 LOOP  -- first without the lock: most claims that are refused wait for nobody
        IF look = 1 THEN
            SELECT * INTO t FROM ownloop.threads WHERE number = (a ->> 'thread')::bigint;
        ELSE
            SELECT * INTO t FROM ownloop.threads WHERE number = t.number FOR NO KEY UPDATE;
            moment := ownloop.now();
        END IF;
        IF t.number IS NULL OR wanted AND NOT (a -> 'agents' ? t.agent AND coalesce(t.ready <= moment, false))
            OR NOT wanted AND (t.status IN ('cancelled', 'closed') OR coalesce(t.lease_until > moment, false)) THEN
            RETURN NULL;
        END IF;
    END LOOP;
    UPDATE ownloop.threads SET epoch = epoch + 1, updated_at = moment, lease_until = moment + (a ->> 'ttl')::bigint,
        status = CASE status WHEN 'done' THEN 'open' ELSE status END
    WHERE number = t.number RETURNING * INTO t;
    RETURN jsonb_build_object('row', to_jsonb(t), 'end', ownloop._event(t.number, t.last_end), 'now', moment,
        'holds', ownloop._holds(t.number, t.agent, moment));
END $$;

-- Rows that somebody holds are passed by, so that one does not keep all waiting: they are named by null, and asked for again with a `wait` in milliseconds.
CREATE OR REPLACE FUNCTION ownloop._renew(a jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    one record;
    moment bigint;
    found jsonb := '{}';
    asked bigint[] := ARRAY(SELECT key::bigint FROM jsonb_each(a -> 'leases'));
    looked bigint[] := '{}';
BEGIN
    IF a ? 'wait' THEN
        PERFORM set_config('lock_timeout', a ->> 'wait', true);
        PERFORM FROM ownloop.threads WHERE number = ANY (asked) FOR NO KEY UPDATE;
    END IF;
    FOR one IN SELECT t.number, t.epoch, t.lease_until, t.status, t.woken, (a -> 'leases' ->> t.number::text)::integer AS mine FROM ownloop.threads t
        WHERE t.number = ANY (asked) FOR NO KEY UPDATE SKIP LOCKED LOOP
        moment := ownloop.now();
        looked := looked || one.number;
        IF one.epoch = one.mine AND one.lease_until > moment THEN
            UPDATE ownloop.threads SET lease_until = moment + (a ->> 'ttl')::bigint WHERE number = one.number;
            found := found || jsonb_build_object(one.number::text, jsonb_build_array(one.status, one.woken, one.epoch));
        END IF;
    END LOOP;
    FOR one IN SELECT number FROM ownloop.threads WHERE number = ANY (asked) AND number <> ALL (looked) LOOP
        found := found || jsonb_build_object(one.number::text, NULL);
    END LOOP;
    RETURN found;
END $$;

CREATE OR REPLACE FUNCTION ownloop._release(a jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    t ownloop.threads;
    moment bigint;
BEGIN
    SELECT * INTO t FROM ownloop.threads WHERE number = (a ->> 'thread')::bigint FOR NO KEY UPDATE;
    moment := ownloop.now();
    IF t.epoch = (a ->> 'epoch')::integer THEN
        UPDATE ownloop.threads SET lease_until = NULL, seen = (a ->> 'seen')::integer, due = (a ->> 'due')::bigint, released = epoch, updated_at = moment
        WHERE number = t.number RETURNING * INTO t;
        IF t.ready IS NOT NULL THEN
            PERFORM ownloop._tell(t.number);
        END IF;
        RETURN to_jsonb(coalesce(t.ready <= moment, false));
    END IF;
    RETURN 'false';
END $$;

CREATE OR REPLACE FUNCTION ownloop._deliver(t ownloop.threads, wait integer, at_step text, at_op text, m ownloop.mail, place integer, moment bigint)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    rest text := coalesce(',"mail":' || to_json(m.id), '') || '}';
    d jsonb := jsonb_build_object('kind', 'delivered', 'step', at_step, 'op', at_op, 'request', wait, 'closes', 'decided');
    hash text;
BEGIN
    IF length(m.payload) > 65536 THEN
        hash := encode(sha256(convert_to(m.payload, 'UTF8')), 'hex');
        d := d || jsonb_build_object('data', '{"request":' || wait || rest, 'big', jsonb_build_object('payload', hash),
            'blobs', jsonb_build_object(hash, m.payload));
    ELSE
        d := d || jsonb_build_object('data', '{"request":' || wait || ',"payload":' || m.payload || rest);
    END IF;
    PERFORM ownloop._append(t.number, place, moment, d);
    UPDATE ownloop.interrupts SET mail = m.number WHERE thread = t.number AND seq = wait;
    RETURN jsonb_build_array(place, 'delivered', moment, at_step, at_op, NULL, '{"request":' || wait || ',"payload":' || m.payload || rest, NULL);
END $$;

-- The oldest event of a wait's name and key, since the thread's start, that it has not had.
CREATE OR REPLACE FUNCTION ownloop._look(t ownloop.threads, wait integer, d jsonb, moment bigint, kept bigint) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    m ownloop.mail;
    had bigint;
BEGIN
    SELECT max(mail) INTO had FROM ownloop.interrupts WHERE thread = t.number AND name = d ->> 'name' AND box = d ->> 'box' AND mail IS NOT NULL;
    SELECT * INTO m FROM ownloop.mail WHERE name = d ->> 'name' AND box = d ->> 'box' AND number > coalesce(had, 0)
        AND at >= t.created_at AND at > moment - kept ORDER BY number LIMIT 1;
    IF m.number IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN ownloop._deliver(t, wait, coalesce(d ->> 'step', ''), coalesce(d ->> 'op', ''), m, wait + 1, moment);
END $$;

-- `plain` comes with drafts of which nothing follows in another table but for the end of a step: what a loop writes most.
CREATE OR REPLACE FUNCTION ownloop._begin(a jsonb, patient boolean) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    t ownloop.threads;
    d jsonb;
    got jsonb;
    mails jsonb := '[]';
    moment bigint;
    place integer;
    refused text;
    selecting boolean := coalesce((a -> 'selecting')::boolean, false);
    waits boolean;
    holds boolean;
BEGIN
    IF a ? 'boxes' THEN
        FOR d IN SELECT value FROM jsonb_array_elements(a -> 'boxes') ORDER BY value LOOP
            PERFORM ownloop._lock_box(d ->> 0, d ->> 1);
        END LOOP;
    END IF;
    t := ownloop._lock((a ->> 'thread')::bigint, patient);
    IF t.number IS NULL AND NOT patient THEN
        RETURN '{"busy": true}';
    END IF;
    moment := ownloop.now();
    refused := ownloop._fence(t, (a ->> 'epoch')::integer, moment, CASE WHEN selecting THEN '{open,paused}' ELSE '{open}' END::text[],
        (a ->> 'known')::integer);
    IF refused IS NULL AND a ? 'watches' THEN
        FOR d IN SELECT value FROM jsonb_array_elements(a -> 'watches') LOOP
            IF ownloop._has_outcome(t.number, d ->> 0, d ->> 1, (d ->> 2)::integer) THEN
                refused := 'overtaken';
            END IF;
        END LOOP;
    END IF;
    IF refused IS NOT NULL THEN
        RETURN jsonb_build_object('fenced', refused);
    END IF;
    place := t.head;
    IF a ? 'plain' THEN
        PERFORM ownloop._append_plain(t, moment, a -> 'drafts');
        place := t.head + jsonb_array_length(a -> 'drafts');
    ELSE
        FOR d IN SELECT value FROM jsonb_array_elements(a -> 'drafts') LOOP
            place := place + 1;
            PERFORM ownloop._append(t.number, place, moment, d);
            IF d ? 'box' THEN
                got := ownloop._look(t, place, d, moment, (a ->> 'kept')::bigint);
                IF got IS NOT NULL THEN
                    place := place + 1;
                    mails := mails || jsonb_build_array(got);
                END IF;
            END IF;
            IF d ? 'newborn' THEN
                IF NOT ownloop._born(d -> 'newborn', t.number, place, moment) THEN
                    RAISE EXCEPTION 'a thread with the number or the key of the child is there already' USING ERRCODE = 'unique_violation';
                END IF;
            END IF;
        END LOOP;
    END IF;
    UPDATE ownloop.threads SET head = place, updated_at = moment,
        released = CASE WHEN (a -> 'progress')::boolean THEN greatest(released, t.epoch - 1) ELSE released END WHERE number = t.number
    RETURNING selecting AND EXISTS (SELECT FROM ownloop.interrupts WHERE thread = t.number AND status = 'open'),
        selecting AND EXISTS (SELECT FROM ownloop.records WHERE space = 'hold' AND key = ANY (ARRAY[a ->> 'id', 'agent:' || t.agent])) INTO waits, holds;
    IF waits AND a ? 'plain' THEN  -- steps end where one is selected
        PERFORM ownloop._withdraw(t.number, moment, 'step', coalesce(value ->> 'step', '')) FROM jsonb_array_elements(a -> 'drafts')
        WHERE value ->> 'kind' = 'ended';
    END IF;
    IF NOT a ? 'quiet' THEN
        PERFORM ownloop._tell(t.number, a ->> 'id');
    END IF;
    RETURN jsonb_build_object('at', moment, 'head', t.head, 'mails', mails,
        'holds', CASE WHEN holds THEN ownloop._holds(t.number, t.agent, moment) WHEN selecting THEN '[]' END);
END $$;

CREATE OR REPLACE FUNCTION ownloop._fact(a jsonb, patient boolean) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    t ownloop.threads;
    d jsonb := a -> 'draft';
    what text := d ->> 'kind';
    of_step text := coalesce(d ->> 'step', '');
    of_op text := coalesce(d ->> 'op', '');
    moment bigint;
    held boolean;
    counts boolean := what = 'outcome';
    waits boolean;
BEGIN
    t := ownloop._lock((a ->> 'thread')::bigint, patient);
    IF t.number IS NULL THEN
        RETURN CASE WHEN patient THEN '{"refused": "missing"}' ELSE '{"busy": true}' END;
    END IF;
    moment := ownloop.now();
    held := t.epoch = (a ->> 'epoch')::integer AND coalesce(t.lease_until > moment, false);
    IF a ? 'plain' THEN
        INSERT INTO ownloop.events (thread, at, seq, kind, step, op, actor, data)
        VALUES (t.number, moment, t.head + 1, CASE WHEN counts AND EXISTS (SELECT FROM ownloop.events
                WHERE thread = t.number AND step = of_step AND op = of_op AND seq > (a ->> 'started')::integer AND kind = 'outcome') THEN 'late' ELSE what END,
            of_step, of_op, d ->> 'by', ownloop._object(d ->> 'data')) RETURNING kind INTO what;
    ELSE
        IF counts AND ownloop._has_outcome(t.number, of_step, of_op, (a ->> 'started')::integer) THEN
            what := 'late';
            d := d - 'closes' - 'notice' || '{"kind": "late"}';
        END IF;
        PERFORM ownloop._append(t.number, t.head + 1, moment, d);
    END IF;
    counts := what = 'outcome';
    UPDATE ownloop.threads SET head = t.head + 1, updated_at = moment, woken = CASE WHEN held THEN woken ELSE t.head + 1 END,
        woken_at = CASE WHEN woken > seen THEN woken_at ELSE moment END,
        released = CASE WHEN counts AND held THEN greatest(released, epoch - 1) ELSE released END WHERE number = t.number
    RETURNING counts AND EXISTS (SELECT FROM ownloop.interrupts WHERE thread = t.number AND status = 'open') INTO waits;
    IF waits THEN
        PERFORM ownloop._withdraw(t.number, moment, 'doubt', of_step, of_op);
    END IF;
    IF NOT (held AND a ? 'quiet') THEN
        PERFORM ownloop._tell(t.number, a ->> 'id');
    END IF;
    RETURN jsonb_build_object('at', moment, 'seq', t.head + 1, 'kind', what);
END $$;

CREATE OR REPLACE FUNCTION ownloop._settle(a jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    t ownloop.threads;
    d jsonb;
    moment bigint;
    refused text;
    written jsonb := '[]';
BEGIN
    SELECT * INTO t FROM ownloop.threads WHERE number = (a ->> 'thread')::bigint FOR NO KEY UPDATE;
    moment := ownloop.now();
    refused := ownloop._fence(t, (a ->> 'epoch')::integer, moment, '{open,paused,failed,done}', t.barrier);
    IF refused IS NOT NULL THEN
        RETURN jsonb_build_object('fenced', refused);
    END IF;
    FOR d IN SELECT value || jsonb_build_object('place', ordinality - 1) FROM jsonb_array_elements(a -> 'drafts') WITH ORDINALITY LOOP
        IF EXISTS (SELECT FROM ownloop.interrupts WHERE thread = t.number AND seq = (d ->> 'request')::integer AND status = 'open') THEN
            written := written || (d -> 'place');
            PERFORM ownloop._append(t.number, t.head + jsonb_array_length(written), moment, d);
        END IF;
    END LOOP;
    IF written <> '[]' THEN
        UPDATE ownloop.threads SET head = t.head + jsonb_array_length(written), updated_at = moment WHERE number = t.number;
        PERFORM ownloop._tell(t.number);
    END IF;
    RETURN jsonb_build_object('at', moment, 'head', t.head, 'written', written);
END $$;

-- The parent's row, locked before the child's. Only a thread that tells something needs it.
CREATE OR REPLACE FUNCTION ownloop._lock_parent(me bigint) RETURNS void LANGUAGE sql AS $$
    SELECT FROM ownloop.threads WHERE number = (SELECT parent FROM ownloop.threads WHERE number = me) FOR NO KEY UPDATE
$$;

-- The outcome of a child for its parent's open request; if that is not open any more, nothing is told.
CREATE OR REPLACE FUNCTION ownloop._tell_parent(above bigint, d jsonb, moment bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    p ownloop.threads;
BEGIN
    SELECT * INTO p FROM ownloop.threads WHERE number = above;
    IF p.number IS NULL OR p.status IN ('cancelled', 'closed') OR NOT EXISTS (
        SELECT FROM ownloop.interrupts WHERE thread = above AND seq = (d ->> 'request')::integer AND status = 'open') THEN
        RETURN;
    END IF;
    PERFORM ownloop._append(above, p.head + 1, moment, d);
    UPDATE ownloop.threads SET head = p.head + 1, woken = p.head + 1, updated_at = moment, woken_at = CASE WHEN woken > seen THEN woken_at ELSE moment END,
        status = CASE status WHEN 'done' THEN 'open' ELSE status END
    WHERE number = above;
    PERFORM ownloop._tell(above);
END $$;

CREATE OR REPLACE FUNCTION ownloop._finish(a jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    t ownloop.threads;
    d jsonb;
    moment bigint;
    place integer;
    has_read integer;
    goes_on boolean;
    refused text;
BEGIN
    IF a ? 'tell' THEN
        PERFORM ownloop._lock_parent((a ->> 'thread')::bigint);
    END IF;
    SELECT * INTO t FROM ownloop.threads WHERE number = (a ->> 'thread')::bigint FOR NO KEY UPDATE;
    moment := ownloop.now();
    refused := ownloop._fence(t, (a ->> 'epoch')::integer, moment, '{open}', t.barrier);
    IF refused IS NOT NULL THEN
        RETURN jsonb_build_object('fenced', refused);
    END IF;
    has_read := coalesce((a ->> 'read')::integer, t.head);
    goes_on := a ->> 'status' = 'done' AND (
        EXISTS (SELECT FROM ownloop.events WHERE thread = t.number AND kind = 'message' AND seq > has_read)
        OR a -> 'aside' <> '[]' AND EXISTS (
            SELECT FROM ownloop.events e JOIN ownloop.interrupts i ON i.thread = e.thread AND i.seq = e.request
            WHERE e.thread = t.number AND e.seq > (a ->> 'seen')::integer AND i.closing = e.seq AND a -> 'aside' ? i.step));
    place := t.head;
    FOR d IN SELECT value FROM jsonb_array_elements(a -> 'drafts') LOOP
        place := place + 1;
        PERFORM ownloop._append(t.number, place, moment, d);
    END LOOP;
    UPDATE ownloop.threads SET head = place, updated_at = moment, lease_until = NULL, released = epoch, due = (a ->> 'due')::bigint,
        status = CASE WHEN goes_on THEN 'open' ELSE a ->> 'status' END, turns = turns + (a ->> 'status' = 'done')::integer,
        seen = CASE WHEN goes_on THEN least(has_read, (a ->> 'seen')::integer) ELSE place END,
        last_end = coalesce(t.head + (a ->> 'end')::integer, last_end)
    WHERE number = t.number;
    IF a ? 'tell' THEN
        PERFORM ownloop._tell_parent(t.parent, a -> 'tell', moment);
    END IF;
    PERFORM ownloop._tell(t.number);
    RETURN to_jsonb(goes_on);
END $$;
