"""Our own row with a store that has a selection on disk only once something follows it: a death takes it back."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import world

from ownloop.stores.sqlite import SqliteStore
from ownloop.stores.sqlite.codec import EVENT_CODES

sys.path.append(str(Path(world.__file__).parent / "peers"))
import ownloop_


class ForgetsWhatWasChosen(SqliteStore):
    async def open(self) -> None:
        if Path(self.path).exists():
            with closing(sqlite3.connect(self.path)) as db, db:
                last = "kind = ? AND seq = (SELECT head FROM threads WHERE place = events.thread)"
                gone = db.execute(f"DELETE FROM events WHERE {last} RETURNING thread", (EVENT_CODES["selected"],)).fetchall()
                db.executemany("UPDATE threads SET head = head - 1 WHERE place = ?", gone)
        await super().open()


ownloop_.STORE_CLASS = ForgetsWhatWasChosen
Peer = ownloop_.Peer
