"""Workers that die and freeze, servers that restart, hints that are lost: every thread ends, and every effect took place once.

The long forms take some minutes each: `make soak ARGS="tests/chaos -s"` prints what happened in them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import storm
from storm_servers import Postgres, postgres
from storm_worker import Work

sys.path.insert(0, str(Path(__file__).parents[1] / "engines"))
import restate_cluster
import temporal_server

SEED = 2026
Harm = tuple[str, Callable[[], None]]


def work(folder: Path, url: str, engine: str, lease: float, **server: Any) -> Work:
    return Work("", url, engine, str(folder / "ledger"), lease=lease, steps=10, seed=SEED, lost=0.1, server=server)


async def short(work: Work, folder: Path, sweep: float, *servers: Harm, **more: Any) -> None:
    plan = storm.Plan(replace(work, steps=5), workers=3, threads=30, seconds=6, sweep=sweep, servers=servers, slack=5, **more)
    assert (await storm.run(plan, folder)).wrong == []


async def full(work: Work, folder: Path, sweep: float, *servers: Harm, workers: int = 8, threads: int = 2_000, **more: Any) -> None:
    plan = storm.Plan(work, workers=workers, threads=threads, seconds=threads / 10, sweep=sweep, servers=servers, **more)
    assert (await storm.run(plan, folder)).wrong == []


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres(quick=True) as server:
        yield server


@pytest.fixture
def durable() -> Iterator[Postgres]:
    with postgres(quick=False) as server:
        yield server


def fast(server: Postgres) -> Harm:
    return "Postgres restarts, fast", lambda: server.restart("fast")


def immediate(server: Postgres) -> Harm:
    return "Postgres restarts, immediate", lambda: server.restart("immediate")


# ---- the embedded engine ---------------------------------------------------------------------------------------------------------


async def test_a_short_storm_on_one_file(tmp_path: Path) -> None:
    await short(work(tmp_path, f"sqlite:///{tmp_path}/a.db", "Embedded", 2), tmp_path, 5)


async def test_a_short_storm_over_embedded_workers(server: Postgres, tmp_path: Path) -> None:
    url = server.store("embedded")
    await short(work(tmp_path, url, "Embedded", 2), tmp_path, 5, fast(server), immediate(server))


@pytest.mark.soak
async def test_a_storm_over_embedded_workers(durable: Postgres, tmp_path: Path) -> None:
    await full(work(tmp_path, durable.store("embedded"), "Embedded", 5), tmp_path, 5, fast(durable), immediate(durable))


# ---- PgQueuer --------------------------------------------------------------------------------------------------------------------


async def test_a_short_storm_over_pgqueuer(server: Postgres, tmp_path: Path) -> None:
    await server.lose_jobs("pgqueuer", 0.1)
    storm = work(tmp_path, server.store("pgqueuer"), "PgQueuer", 2)
    await short(storm, tmp_path, 2.4, fast(server), immediate(server), also_lost=lambda: server.jobs_lost("pgqueuer"))


@pytest.mark.soak
async def test_a_storm_over_pgqueuer(durable: Postgres, tmp_path: Path) -> None:
    await durable.lose_jobs("pgqueuer", 0.1)
    storm = work(tmp_path, durable.store("pgqueuer"), "PgQueuer", 5)
    await full(storm, tmp_path, 2.4, fast(durable), immediate(durable), also_lost=lambda: durable.jobs_lost("pgqueuer"))


# ---- Temporal --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def temporal() -> Iterator[temporal_server.TemporalServer]:
    yield from temporal_server.served()


def dies(temporal: temporal_server.TemporalServer) -> Harm:
    def harm() -> None:
        temporal.kill()
        temporal.start()

    return "Temporal killed", harm


def on_temporal(folder: Path, url: str, lease: float, temporal: temporal_server.TemporalServer, queue: str) -> Work:
    return work(folder, url, "Temporal", lease, target=temporal.target, heartbeat=f"{lease}s", task_queue=queue)


async def test_a_short_storm_over_temporal(server: Postgres, temporal: temporal_server.TemporalServer, tmp_path: Path) -> None:
    work = on_temporal(tmp_path, server.store("temporal"), 2, temporal, "short")
    await short(work, tmp_path, 2.4, dies(temporal), immediate(server))


@pytest.mark.soak
async def test_a_storm_over_temporal(durable: Postgres, temporal: temporal_server.TemporalServer, tmp_path: Path) -> None:
    work = on_temporal(tmp_path, durable.store("temporal"), 5, temporal, "full")
    harms = (fast(durable), dies(temporal), immediate(durable), dies(temporal))
    await full(work, tmp_path, 2.4, *harms, workers=4, threads=500)


# ---- Restate ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[restate_cluster.Cluster]:
    yield from restate_cluster.served()


def loses(cluster: restate_cluster.Cluster, number: int) -> Harm:
    def harm() -> None:
        cluster.nodes[number].kill()
        cluster.nodes[number].start()
        cluster.wait()

    return f"Restate node {number + 1} killed", harm


def on_restate(folder: Path, url: str, lease: float, cluster: restate_cluster.Cluster, name: str) -> Work:
    listen = f"127.0.0.1:{temporal_server.free_port()}"
    return work(folder, url, "Restate", lease, ingress=cluster.ingress, admin=cluster.admin, listen=listen, name=name)


async def test_a_short_storm_over_restate(server: Postgres, cluster: restate_cluster.Cluster, tmp_path: Path) -> None:
    work = on_restate(tmp_path, server.store("restate"), 2, cluster, "short")
    await short(work, tmp_path, 2.4, loses(cluster, 1), fast(server))


@pytest.mark.soak
async def test_a_storm_over_restate(durable: Postgres, cluster: restate_cluster.Cluster, tmp_path: Path) -> None:
    work = on_restate(tmp_path, durable.store("restate"), 5, cluster, "full")
    harms = (loses(cluster, 0), fast(durable), loses(cluster, 1), immediate(durable), loses(cluster, 2))
    await full(work, tmp_path, 2.4, *harms)
