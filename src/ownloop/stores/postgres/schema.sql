-- The tables. A thread is known by the number of its id; times are microseconds since 1970. JSON of events, mail and records is text: jsonb holds
-- neither NUL nor half a surrogate pair, and what was written must come back. What a statement asks of an event stands in columns beside it.
-- `ownloop.` and 'ownloop' are replaced where the schema has another name. A step is the end of its id ("_3", "@gate"), '' the thread itself.

CREATE TABLE ownloop.meta (
    version integer NOT NULL,
    oldest integer NOT NULL  -- the oldest program that may work on this schema
);

CREATE TABLE ownloop.threads (
    number bigint PRIMARY KEY,
    parent bigint,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    lease_until bigint,
    due bigint,
    woken_at bigint NOT NULL DEFAULT 0,  -- since when it has news that no wake has read
    head integer NOT NULL,
    woken integer NOT NULL,
    seen integer NOT NULL DEFAULT 0,
    epoch integer NOT NULL DEFAULT 0,
    released integer NOT NULL DEFAULT 0,
    barrier integer NOT NULL DEFAULT 0,  -- the last superseding message
    turns integer NOT NULL DEFAULT 0,
    last_end integer,
    parent_seq integer,
    status text COLLATE "C" NOT NULL DEFAULT 'open',
    agent text COLLATE "C" NOT NULL,
    key text COLLATE "C",
    context text,
    searched jsonb,  -- the context, as far as jsonb can hold it
    ready bigint GENERATED ALWAYS AS (  -- when it can be claimed: below zero, and still in order of waiting, at once; NULL never
        CASE status
            WHEN 'done' THEN due
            WHEN 'open' THEN CASE WHEN lease_until IS NOT NULL THEN lease_until WHEN woken > seen THEN woken_at - 4611686018427387904 ELSE due END
        END
    ) STORED
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX threads_key ON ownloop.threads (agent, key) WHERE key IS NOT NULL;
CREATE INDEX threads_ready ON ownloop.threads (agent, ready) WHERE ready IS NOT NULL;
CREATE INDEX threads_status ON ownloop.threads (status, number);
CREATE INDEX threads_context ON ownloop.threads USING gin (searched jsonb_path_ops) WHERE searched IS NOT NULL;

CREATE TABLE ownloop.events (
    thread bigint NOT NULL,
    at bigint NOT NULL,
    seq integer NOT NULL,
    request integer,  -- the interrupt that it is about
    kind text COLLATE "C" NOT NULL,
    step text COLLATE "C" NOT NULL,
    op text COLLATE "C" NOT NULL,
    actor text COLLATE "C",
    data text,  -- JSON; NULL is {}
    big jsonb,  -- fields of the data that stand in blobs, by hash
    covers integer[],  -- of a compaction: up to where, and what it keeps
    PRIMARY KEY (thread, seq)
);
CREATE INDEX events_named ON ownloop.events (thread, step, seq) WHERE left(step, 1) = '@';
CREATE INDEX events_outcomes ON ownloop.events (thread, step, op, seq) WHERE kind = 'outcome';
CREATE INDEX events_rare ON ownloop.events (thread, kind, seq) WHERE kind IN ('appended', 'compacted', 'message');

CREATE TABLE ownloop.interrupts (
    thread bigint NOT NULL,
    at bigint NOT NULL,
    expires_at bigint,
    mail bigint,  -- what a wait got
    seq integer NOT NULL,  -- position of the request
    closing integer,
    decidable boolean NOT NULL,  -- by a person
    kind text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL DEFAULT 'open',
    step text COLLATE "C" NOT NULL,
    name text COLLATE "C",  -- the event that is waited for, or the call in doubt
    box text COLLATE "C",  -- its key: '' for none, else '=' and the key
    child bigint,
    digest text COLLATE "C" NOT NULL,
    votes integer[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (thread, seq)
);
CREATE INDEX interrupts_open ON ownloop.interrupts (at, thread, seq) WHERE status = 'open';
CREATE INDEX interrupts_of ON ownloop.interrupts (thread, seq) WHERE status = 'open';
CREATE INDEX interrupts_urgent ON ownloop.interrupts (expires_at, at, thread, seq) WHERE status = 'open' AND decidable AND expires_at IS NOT NULL;
CREATE INDEX interrupts_waits ON ownloop.interrupts (name, box, thread, seq) WHERE status = 'open' AND kind = 'event';
CREATE INDEX interrupts_had ON ownloop.interrupts (thread, name, box, mail) WHERE mail IS NOT NULL;

CREATE TABLE ownloop.dedupe (
    thread bigint NOT NULL,
    seq integer NOT NULL,
    token text COLLATE "C" NOT NULL,
    PRIMARY KEY (thread, token)
);

CREATE TABLE ownloop.mail (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at bigint NOT NULL,
    name text COLLATE "C" NOT NULL,
    box text COLLATE "C" NOT NULL,
    id text COLLATE "C",
    payload text NOT NULL
);
CREATE INDEX mail_box ON ownloop.mail (name, box, number);
CREATE UNIQUE INDEX mail_id ON ownloop.mail (name, box, id) WHERE id IS NOT NULL;
CREATE INDEX mail_at ON ownloop.mail (at);

CREATE TABLE ownloop.blobs (
    hash text COLLATE "C" PRIMARY KEY,
    touched bigint NOT NULL,
    json text NOT NULL
);
CREATE TABLE ownloop.holders (  -- which threads hold a blob
    hash text COLLATE "C" NOT NULL,
    thread bigint NOT NULL,
    PRIMARY KEY (hash, thread)
);
CREATE INDEX holders_thread ON ownloop.holders (thread);

CREATE TABLE ownloop.records (
    version bigint NOT NULL,
    expires_at bigint,
    space text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (space, key)
) WITH (fillfactor = 80);
CREATE INDEX records_expiry ON ownloop.records (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE ownloop.subscriptions (name text COLLATE "C" PRIMARY KEY);

CREATE TABLE ownloop.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    thread bigint NOT NULL,
    at bigint NOT NULL,
    hidden_until bigint NOT NULL,
    seq integer,
    tries integer NOT NULL DEFAULT 0,
    name text COLLATE "C" NOT NULL
);

CREATE TABLE ownloop.notes (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at bigint NOT NULL,
    owner text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    text text NOT NULL,  -- a JSON string
    words tsvector NOT NULL
);
CREATE UNIQUE INDEX notes_key ON ownloop.notes (owner, key);
CREATE INDEX notes_at ON ownloop.notes (owner, at, number);
CREATE INDEX notes_words ON ownloop.notes USING gin (words);
