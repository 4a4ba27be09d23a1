-- Version 2. Notes beside the threads, and the index of their words; the index is missing where SQLite was built without FTS5.

CREATE TABLE notes (
    number INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    text TEXT NOT NULL,
    at INTEGER NOT NULL
);
CREATE UNIQUE INDEX notes_key ON notes (owner, key);
CREATE INDEX notes_at ON notes (owner, at);
CREATE VIRTUAL TABLE note_words USING fts5 (owner, words, content = '');
