"""Notes: rows, and an index of their words if SQLite has one.

The index holds the words that `rules.words_of` finds, so that every store finds the same notes, and the owner as one word, so that a search reads
only what is the owner's.
"""

from __future__ import annotations

import hashlib
import sqlite3

from ...clock import from_micros
from ..base import Note
from ..rules import matches, query_words, words_of
from .codec import rows
from .connect import has_fts5
from .transaction import Transaction

_COLUMNS = "notes.owner, notes.key, notes.text, notes.at"


def note(tx: Transaction, owner: str, key: str, text: str) -> Note:
    found = tx.db.execute("SELECT number, text, at FROM notes WHERE owner = ? AND key = ?", (owner, key)).fetchone()
    if found is not None and found[1] == text:
        return Note(owner, key, text, from_micros(found[2]))
    if found is not None:
        _forget(tx.db, owner, found[0], found[1])
    insert = "INSERT INTO notes (owner, key, text, at) VALUES (?, ?, ?, ?)"
    number = tx.db.execute(insert, (owner, key, text, tx.now)).lastrowid
    if _has_index(tx.db):
        tx.db.execute("INSERT INTO note_words (rowid, owner, words) VALUES (?, ?, ?)", (number, _word(owner), _words(text)))
    return Note(owner, key, text, from_micros(tx.now))


def notes(db: sqlite3.Connection, owner: str, query: str | None, limit: int) -> list[Note]:
    if query is None:
        return _notes(db, "FROM notes WHERE owner = ? ORDER BY at DESC, number DESC LIMIT ?", owner, limit)
    wanted = query_words(query)
    if not wanted:
        return []
    if not _has_index(db):
        every = _notes(db, "FROM notes WHERE owner = ? ORDER BY at DESC, number DESC", owner)
        return sorted((one for one in every if matches(one.text, wanted)), key=lambda one: -matches(one.text, wanted))[:limit]
    either = " OR ".join(f'"{word}" *' for word in wanted)  # quoted: nothing in a word is an operator
    expression = f"owner : {_word(owner)} AND words : ({either})"
    ranked = "FROM note_words CROSS JOIN notes ON number = note_words.rowid WHERE note_words MATCH ? AND notes.owner = ?"
    return _notes(db, f"{ranked} ORDER BY bm25(note_words, 0.0, 1.0), at DESC, number DESC LIMIT ?", expression, owner, limit)


def forget(tx: Transaction, owner: str, key: str | None) -> int:
    found = rows(tx.db.execute("SELECT number, text FROM notes WHERE owner = ? AND key = coalesce(?, key)", (owner, key)))
    for number, text in found:
        _forget(tx.db, owner, number, text)
    return len(found)


def _forget(db: sqlite3.Connection, owner: str, number: int, text: str) -> None:
    if _has_index(db):  # an index without content must be told what it held
        delete = "INSERT INTO note_words (note_words, rowid, owner, words) VALUES ('delete', ?, ?, ?)"
        db.execute(delete, (number, _word(owner), _words(text)))
    db.execute("DELETE FROM notes WHERE number = ?", (number,))


def _notes(db: sqlite3.Connection, query: str, *values: object) -> list[Note]:
    return [Note(owner, key, text, from_micros(at)) for owner, key, text, at in rows(db.execute(f"SELECT {_COLUMNS} {query}", values))]


def _has_index(db: sqlite3.Connection) -> bool:
    return has_fts5(db) and db.execute("SELECT 1 FROM sqlite_master WHERE name = 'note_words'").fetchone() is not None


def _word(owner: str) -> str:
    return "o" + hashlib.sha256(owner.encode()).hexdigest()


def _words(text: str) -> str:
    return " ".join(words_of(text))
