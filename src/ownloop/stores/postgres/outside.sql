-- What comes from outside, and the doors: `append` for the protocol, `start`, `send` and `emit` for programs in any language.

-- A new thread with the events it begins with; false if its number is taken, or its key.
CREATE OR REPLACE FUNCTION ownloop._born(a jsonb, above bigint, above_seq integer, moment bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    me bigint := (a ->> 'thread')::bigint;
    count integer := jsonb_array_length(a -> 'drafts');
BEGIN
    INSERT INTO ownloop.threads (number, agent, key, context, searched, parent, parent_seq, created_at, updated_at, woken_at, head, woken, turns, last_end)
    VALUES (me, a ->> 'agent', a ->> 'key', a ->> 'context', ownloop._searched(a ->> 'context'), above, above_seq, moment, moment, moment, count, count,
        coalesce((a ->> 'turns')::integer, 0), (a ->> 'end')::integer)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM ownloop._append(me, ordinality::integer, moment, value) FROM jsonb_array_elements(a -> 'drafts') WITH ORDINALITY;
    PERFORM ownloop._tell(me);
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION ownloop._create(a jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    known bigint;
BEGIN
    FOR look IN 1..2 LOOP
        SELECT number INTO known FROM ownloop.threads WHERE agent = a ->> 'agent' AND key = a ->> 'key';
        IF known IS NOT NULL THEN
            RETURN jsonb_build_object('thread', known, 'new', false);
        END IF;
        IF look = 1 AND ownloop._born(a, NULL, NULL, ownloop.now()) THEN
            RETURN jsonb_build_object('thread', (a ->> 'thread')::bigint, 'new', true);
        END IF;
    END LOOP;
    RETURN '{"taken": true}';
END $$;

CREATE OR REPLACE FUNCTION ownloop._message(a jsonb, patient boolean) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    t ownloop.threads;
    known integer;
    moment bigint;
    count integer := jsonb_array_length(a -> 'drafts');
BEGIN
    t := ownloop._lock((a ->> 'thread')::bigint, patient);
    IF t.number IS NULL THEN
        RETURN CASE WHEN patient THEN '{"refused": "missing"}' ELSE '{"busy": true}' END;
    END IF;
    IF a ->> 'dedupe' IS NOT NULL THEN
        SELECT seq INTO known FROM ownloop.dedupe WHERE thread = t.number AND token = a ->> 'dedupe';
    END IF;
    IF known IS NOT NULL THEN
        RETURN jsonb_build_object('known', ownloop._event(t.number, known));
    ELSIF t.status IN ('cancelled', 'closed') THEN
        RETURN jsonb_build_object('refused', t.status);
    ELSIF t.head <> (a ->> 'at_head')::integer THEN
        RETURN '{"refused": "moved"}';
    END IF;
    moment := ownloop.now();
    IF a ? 'plain' THEN
        PERFORM ownloop._append_plain(t, moment, a -> 'drafts');
    ELSE
        FOR place IN 1 .. count LOOP
            PERFORM ownloop._append(t.number, t.head + place, moment, a -> 'drafts' -> (place - 1));
        END LOOP;
    END IF;
    UPDATE ownloop.threads SET head = t.head + count, woken = t.head + count, updated_at = moment, woken_at = CASE WHEN woken > seen THEN woken_at ELSE moment END,
        barrier = CASE WHEN a ->> 'at_head' IS NULL THEN barrier ELSE t.head + count END, status = CASE status WHEN 'done' THEN 'open' ELSE status END
    WHERE number = t.number;
    IF a ->> 'dedupe' IS NOT NULL THEN
        INSERT INTO ownloop.dedupe (thread, token, seq) VALUES (t.number, a ->> 'dedupe', t.head + 1);
    END IF;
    PERFORM ownloop._tell(t.number, a ->> 'id');
    RETURN jsonb_build_object('at', moment, 'seq', t.head + 1);
END $$;

-- Messages to different threads, one to each, without a token: {"threads": […], "ids": […], "by": […], "data": […]}. The new heads by number; a thread that
-- has none is held by somebody, ended or not there.
CREATE OR REPLACE FUNCTION ownloop._messages(a jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    held bigint[];
    moment bigint;
    heads jsonb;
BEGIN
    held := ARRAY(SELECT number FROM ownloop.threads WHERE number = ANY (ARRAY(SELECT value::bigint FROM jsonb_array_elements_text(a -> 'threads')))
        ORDER BY number FOR NO KEY UPDATE SKIP LOCKED);
    moment := ownloop.now();
    WITH asked AS MATERIALIZED (
        SELECT thread::bigint, id, actor, ownloop._object(data) AS data FROM ROWS FROM (jsonb_array_elements_text(a -> 'threads'),
            jsonb_array_elements_text(a -> 'ids'), jsonb_array_elements_text(a -> 'by'), jsonb_array_elements_text(a -> 'data')) AS one (thread, id, actor, data)
    ), moved AS (
        UPDATE ownloop.threads SET head = head + 1, woken = head + 1, updated_at = moment, woken_at = CASE WHEN woken > seen THEN woken_at ELSE moment END,
            status = CASE status WHEN 'done' THEN 'open' ELSE status END
        WHERE number = ANY (held) AND status NOT IN ('cancelled', 'closed') RETURNING number, head
    ), written AS (
        INSERT INTO ownloop.events (thread, at, seq, kind, step, op, actor, data)
        SELECT number, moment, head, 'message', '', '', actor, data FROM moved JOIN asked ON thread = number
    )
    SELECT jsonb_object_agg(number, head) FILTER (WHERE pg_notify('ownloop', id) IS NOT NULL) INTO heads FROM moved JOIN asked ON thread = number;
    RETURN jsonb_build_object('at', moment, 'heads', heads);
END $$;

-- `after` is rules.after_control by status. An end takes the lease away, withdraws what is open, tells the parent; cancel goes down.
CREATE OR REPLACE FUNCTION ownloop._control(a jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    t ownloop.threads;
    d jsonb := a -> 'draft';
    moment bigint;
    becomes text;
    ends boolean;
    child bigint;
    children bigint[];
BEGIN
    IF a ? 'tell' THEN
        PERFORM ownloop._lock_parent((a ->> 'thread')::bigint);
    END IF;
    SELECT * INTO t FROM ownloop.threads WHERE number = (a ->> 'thread')::bigint FOR NO KEY UPDATE;
    becomes := a -> 'after' ->> t.status;
    IF becomes IS NULL THEN
        RETURN jsonb_build_object('refused', coalesce(t.status, 'missing'));
    ELSIF becomes = t.status AND NOT a ->> 'verb' IN ('retry', 'hold', 'release_hold') THEN
        RETURN '{"changed": false}';
    END IF;
    moment := ownloop.now();
    ends := becomes IN ('cancelled', 'closed');
    PERFORM ownloop._append(t.number, t.head + 1, moment, CASE WHEN ends THEN d || jsonb_build_object('notice', 'thread.' || becomes) ELSE d END);
    UPDATE ownloop.threads SET head = t.head + 1, updated_at = moment, status = becomes, epoch = epoch + ends::integer,
        woken = CASE WHEN a ->> 'verb' IN ('resume', 'retry') THEN t.head + 1 ELSE woken END, woken_at = CASE WHEN woken > seen THEN woken_at ELSE moment END,
        released = CASE WHEN ends OR a ->> 'verb' = 'retry' THEN epoch + ends::integer ELSE released END,
        lease_until = CASE WHEN NOT ends THEN lease_until END, due = CASE WHEN NOT ends THEN due END
    WHERE number = t.number;
    PERFORM pg_notify('ownloop', '*');  -- who holds the lease looks at once
    PERFORM ownloop._tell(t.number);
    IF ends THEN
        SELECT array_agg(i.child ORDER BY i.child) INTO children FROM ownloop.interrupts i WHERE thread = t.number AND status = 'open' AND kind = 'child';
        PERFORM ownloop._withdraw(t.number, moment, 'all');
        IF t.parent IS NOT NULL THEN
            PERFORM ownloop._tell_parent(t.parent, a -> 'tell' || jsonb_build_object('request', t.parent_seq,
                'data', '{"request":' || t.parent_seq || ',' || substr(a -> 'tell' ->> 'data', 2)), moment);
        END IF;
        FOREACH child IN ARRAY CASE WHEN becomes = 'cancelled' THEN coalesce(children, '{}') ELSE '{}' END LOOP
            PERFORM ownloop._control(a || jsonb_build_object('thread', child, 'draft', d || jsonb_build_object('data',
                left(a ->> 'down', -1) || to_json('its parent ' || ownloop.thread_id(t.number) || ' was cancelled') || '}')));
        END LOOP;
    END IF;
    RETURN '{"changed": true}';
END $$;

CREATE OR REPLACE FUNCTION ownloop._decide(a jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    t ownloop.threads;
    i ownloop.interrupts;
    moment bigint;
    refused text;
    closes boolean := a -> 'draft' ->> 'kind' = 'decision';
BEGIN
    SELECT * INTO t FROM ownloop.threads WHERE number = (a ->> 'thread')::bigint FOR NO KEY UPDATE;
    SELECT * INTO i FROM ownloop.interrupts WHERE thread = t.number AND seq = (a ->> 'seq')::integer;
    moment := ownloop.now();
    refused := CASE
        WHEN i.seq IS NULL THEN 'missing'
        WHEN i.status <> 'open' THEN CASE i.status WHEN 'expired' THEN 'expired' ELSE 'decided' END
        WHEN i.expires_at <= moment THEN 'expired'
        WHEN i.digest <> a ->> 'digest' THEN 'digest'
        WHEN cardinality(i.votes) <> (a ->> 'votes')::integer THEN 'votes' END;
    IF refused IS NOT NULL THEN
        RETURN jsonb_build_object('refused', refused);
    END IF;
    PERFORM ownloop._append(t.number, t.head + 1, moment, a -> 'draft');
    UPDATE ownloop.threads SET head = t.head + 1, updated_at = moment, woken = CASE WHEN closes THEN t.head + 1 ELSE woken END,
        woken_at = CASE WHEN woken > seen THEN woken_at ELSE moment END,
        status = CASE WHEN closes AND status = 'done' THEN 'open' ELSE status END WHERE number = t.number;
    PERFORM ownloop._tell(t.number, a ->> 'id');
    RETURN jsonb_build_object('at', moment, 'seq', t.head + 1);
END $$;

CREATE OR REPLACE FUNCTION ownloop._emit(a jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    m ownloop.mail;
    t ownloop.threads;
    wait ownloop.events;
    waiting bigint;
    moment bigint;
BEGIN
    PERFORM ownloop._lock_box(a ->> 'name', a ->> 'box');
    moment := ownloop.now();
    INSERT INTO ownloop.mail (at, name, box, id, payload) VALUES (moment, a ->> 'name', a ->> 'box', a ->> 'id', a ->> 'payload')
    ON CONFLICT (name, box, id) WHERE id IS NOT NULL DO NOTHING RETURNING * INTO m;
    IF m.number IS NULL THEN
        RETURN 'false';
    END IF;
    FOR waiting IN SELECT DISTINCT thread FROM ownloop.interrupts
        WHERE status = 'open' AND kind = 'event' AND name = m.name AND box = m.box ORDER BY thread LOOP
        SELECT * INTO t FROM ownloop.threads WHERE number = waiting FOR NO KEY UPDATE;
        CONTINUE WHEN t.number IS NULL OR t.status IN ('cancelled', 'closed');
        SELECT e.* INTO wait FROM ownloop.interrupts i JOIN ownloop.events e ON e.thread = i.thread AND e.seq = i.seq  -- under the row's lock
        WHERE i.thread = waiting AND i.status = 'open' AND i.kind = 'event' AND i.name = m.name AND i.box = m.box ORDER BY i.seq LIMIT 1;
        CONTINUE WHEN wait.seq IS NULL;
        PERFORM ownloop._deliver(t, wait.seq, wait.step, wait.op, m, t.head + 1, moment);
        UPDATE ownloop.threads SET head = t.head + 1, woken = t.head + 1, updated_at = moment, woken_at = CASE WHEN woken > seen THEN woken_at ELSE moment END,
            status = CASE status WHEN 'done' THEN 'open' ELSE status END
        WHERE number = waiting;
        PERFORM ownloop._tell(waiting);
    END LOOP;
    RETURN 'true';
END $$;

-- One statement of the protocol: {"do": "begin", "thread": 42, …}. Where it is one of a group that shares a transaction, `patient` is false: it waits
-- for nobody, answers {"busy": true} and is tried again alone. Its plans are made once, for any arguments and any size of the tables: an index is always right.
CREATE OR REPLACE FUNCTION ownloop.append(call jsonb, patient boolean DEFAULT true) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'ownloop writes only at READ COMMITTED, and this transaction is at %', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'invalid_transaction_state', HINT = 'a wait and an event must see each other; begin the transaction at READ COMMITTED';
    END IF;
    CASE call ->> 'do'
        WHEN 'begin' THEN RETURN ownloop._begin(call, patient);
        WHEN 'fact' THEN RETURN ownloop._fact(call, patient);
        WHEN 'message' THEN RETURN ownloop._message(call, patient);
        WHEN 'messages' THEN RETURN ownloop._messages(call);
        ELSE
    END CASE;
    IF NOT patient AND call ? 'thread' AND call ->> 'do' <> 'create' THEN
        PERFORM FROM ownloop.threads WHERE number = (call ->> 'thread')::bigint FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN '{"busy": true}';
        END IF;
    END IF;
    CASE call ->> 'do'
        WHEN 'claim' THEN RETURN ownloop._claim(call);
        WHEN 'release' THEN RETURN ownloop._release(call);
        WHEN 'settle' THEN RETURN ownloop._settle(call);
        WHEN 'finish' THEN RETURN ownloop._finish(call);
        WHEN 'create' THEN RETURN ownloop._create(call);
        WHEN 'decide' THEN RETURN ownloop._decide(call);
        WHEN 'control' THEN RETURN ownloop._control(call);
        WHEN 'emit' THEN RETURN ownloop._emit(call);
        WHEN 'renew' THEN RETURN ownloop._renew(call);
        ELSE RAISE EXCEPTION 'ownloop.append has no "do" called %', coalesce(call ->> 'do', 'null') USING ERRCODE = 'invalid_parameter_value', HINT =
            'begin, fact, message, messages, claim, release, settle, finish, create, decide, control, emit or renew; a newer program needs `ownloop migrate`';
    END CASE;
END $$;

-- Start a thread, from any language, in the caller's transaction. Its id; with a key the one that has it.
CREATE OR REPLACE FUNCTION ownloop.start(agent text, input jsonb DEFAULT 'null', key text DEFAULT NULL, context jsonb DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    made jsonb := '{"taken": true}';
BEGIN
    IF jsonb_typeof(context) <> 'object' THEN
        RAISE EXCEPTION 'a context is a JSON object, and this is %', context USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WHILE made ? 'taken' LOOP
        made := ownloop.append(jsonb_build_object('do', 'create', 'agent', agent, 'key', key, 'context', context::text,
            'thread', (extract(epoch FROM clock_timestamp()) * 1000)::bigint << 21 | floor(random() * 2097152)::bigint,
            'drafts', jsonb_build_array(jsonb_build_object('kind', 'input', 'data', jsonb_build_object('input', input)::text, 'notice', 'thread.started'))));
    END LOOP;
    RETURN ownloop.thread_id((made ->> 'thread')::bigint);
END $$;

-- A message to a thread; its position, or an error. With a `dedupe` that the thread has had: the first one's.
CREATE OR REPLACE FUNCTION ownloop.send(thread text, message text, actor text DEFAULT NULL, dedupe text DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    made jsonb;
BEGIN
    IF message IS NULL THEN
        RAISE EXCEPTION 'a message has a text' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    made := ownloop.append(jsonb_build_object('do', 'message', 'thread', ownloop.thread_number(thread), 'dedupe', dedupe,
        'drafts', jsonb_build_array(jsonb_build_object('kind', 'message', 'by', actor, 'data', jsonb_build_object('text', message)::text))));
    IF made ? 'refused' THEN
        RAISE EXCEPTION 'the thread % takes no message: %', thread, made ->> 'refused' USING ERRCODE = 'no_data_found';
    END IF;
    RETURN coalesce(made -> 'known' ->> 0, made ->> 'seq')::integer;
END $$;

-- An event for whoever waits for it now or within 7 days. False: that id was known.
CREATE OR REPLACE FUNCTION ownloop.emit(name text, payload jsonb, key text DEFAULT NULL, id text DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF payload IS NULL OR payload = 'null' THEN
        RAISE EXCEPTION 'an event carries something: a wait that times out gives null; send {} or true' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    RETURN ownloop.append(jsonb_build_object('do', 'emit', 'name', name, 'box', coalesce('=' || key, ''), 'id', id, 'payload', payload::text))::boolean;
END $$;
