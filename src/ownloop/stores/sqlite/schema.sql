-- Version 1. A thread is known by the number of its id; its events and interrupts carry its place, which is short. Times are microseconds since 1970, kinds and statuses the codes of codec.py,
-- a step is the number of a selected one or the name of a named one. Statements end with a semicolon at the end of a line.

CREATE TABLE threads (
    place INTEGER PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE,
    agent TEXT NOT NULL,
    key TEXT,
    status INTEGER NOT NULL,
    turns INTEGER NOT NULL,
    head INTEGER NOT NULL,
    woken INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    released INTEGER NOT NULL,
    barrier INTEGER NOT NULL,  -- the last superseding message
    lease_until INTEGER,
    due INTEGER,
    ready INTEGER,  -- when it can be claimed: below zero at once, NULL never (Row.ready)
    last_end INTEGER,
    parent INTEGER,  -- its number
    parent_seq INTEGER,
    context TEXT,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE UNIQUE INDEX threads_key ON threads (agent, key) WHERE key IS NOT NULL;
CREATE INDEX threads_ready ON threads (agent, ready) WHERE ready IS NOT NULL;
CREATE INDEX threads_status ON threads (status, number);

CREATE TABLE events (
    thread INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    at INTEGER NOT NULL,
    step,
    op TEXT,
    actor TEXT,
    data TEXT,  -- JSON; NULL is {}
    big TEXT,  -- JSON: top-level fields of the data that stand in blobs, by hash
    PRIMARY KEY (thread, seq)
) WITHOUT ROWID;
CREATE INDEX events_named ON events (thread, step, seq) WHERE typeof(step) = 'text';
CREATE INDEX events_outcomes ON events (thread, step, op, seq) WHERE kind = 8;
CREATE INDEX events_appended ON events (thread, seq) WHERE kind = 14;
CREATE INDEX events_compacted ON events (thread, seq) WHERE kind = 15;
CREATE INDEX events_big ON events (thread, seq) WHERE big IS NOT NULL;

CREATE TABLE interrupts (
    thread INTEGER NOT NULL,
    seq INTEGER NOT NULL,  -- position of the request
    kind INTEGER NOT NULL,
    status INTEGER NOT NULL,
    at INTEGER NOT NULL,
    step,
    name TEXT,  -- the event that is waited for, or the call in doubt
    key TEXT,
    mail INTEGER,  -- what a wait got
    votes TEXT,  -- JSON: their positions
    closing INTEGER,
    PRIMARY KEY (thread, seq)
) WITHOUT ROWID;
CREATE INDEX interrupts_open ON interrupts (at, thread, seq, kind) WHERE status = 0;
CREATE INDEX interrupts_by_step ON interrupts (thread, step, seq) WHERE status = 0;
CREATE INDEX interrupts_waits ON interrupts (name, key, thread, seq) WHERE status = 0 AND kind = 3;
CREATE INDEX interrupts_had ON interrupts (thread, name, key, mail) WHERE mail IS NOT NULL;

CREATE TABLE dedupe (
    thread INTEGER NOT NULL,
    token TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (thread, token)
) WITHOUT ROWID;

CREATE TABLE mail (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    key TEXT,
    id TEXT,
    at INTEGER NOT NULL,
    payload TEXT NOT NULL
);
CREATE INDEX mail_box ON mail (name, key);
CREATE INDEX mail_id ON mail (name, id) WHERE id IS NOT NULL;
CREATE INDEX mail_at ON mail (at);

CREATE TABLE blobs (
    hash TEXT PRIMARY KEY,
    json TEXT NOT NULL
);

CREATE TABLE records (
    space TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    version INTEGER NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (space, key)
) WITHOUT ROWID;
CREATE INDEX records_expiry ON records (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE subscriptions (name TEXT PRIMARY KEY) WITHOUT ROWID;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    thread INTEGER NOT NULL,  -- its number
    seq INTEGER,
    at INTEGER NOT NULL,
    hidden_until INTEGER NOT NULL,
    tries INTEGER NOT NULL
);
