"""Jobs that died in a worker's hands, between PgQueuer's pick and our claim: the thread goes on within the lease and two sweeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest
from storm_servers import Postgres, postgres

from ownloop import App, Thread

LEASE, SWEEP = 2.0, 2.4
SLACK = 5.0
"""Seconds that other tests beside it may cost."""
PICKED = """UPDATE hands_pgq.pgqueuer SET status = 'picked', updated = now(), heartbeat = now(), queue_manager_id = gen_random_uuid()
    WHERE dedupe_key IS NOT NULL RETURNING id"""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres(quick=True) as server:
        yield server


async def test_threads_whose_jobs_died_with_the_worker_that_picked_them_go_on_in_time(server: Postgres) -> None:
    await server.lose_jobs("hands", 0)
    app = App(server.store("hands"), lease=f"{LEASE}s")

    @app.agent
    async def napper(thread: Thread) -> str:
        await thread.step("nap").sleep(timedelta(seconds=1))
        return "rested"

    ids = [await app.start(napper) for _ in range(3)]
    for id in ids:
        await app.run_one(id)  # it naps, and its timer has a job
    ids.append(await app.start(napper))  # it never ran, and its job is one of the sweep
    with psycopg.connect(server.url, autocommit=True) as db:
        db.execute("DELETE FROM hands_pgq.pgqueuer WHERE dedupe_key IS NULL")
        db.execute("SELECT hands_pgq.sweep('{napper}', 100, 0)")
        assert len(db.execute(PICKED).fetchall()) == len(ids)
        await asyncio.sleep(1)  # the naps are over
        began = time.monotonic()
        async with app:
            while len(await app.threads(status="done")) < len(ids) and time.monotonic() < began + 30:
                await asyncio.sleep(0.05)
    took = time.monotonic() - began
    print(f"{len(ids)} threads went on within {took:.1f} s")
    assert took < LEASE + 2 * SWEEP + SLACK + 1  # the nap of the one that had not begun
