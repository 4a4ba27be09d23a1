"""`python -m bench.faults`: twelve faults for every framework that is installed; `--install` first, `--write` puts the table into its README."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from .. import environments
from .peers_compared import PEERS
from .processes import NotRun, Peer
from .scenarios import BAD, FAULTS, Cell
from .table import RESULTS, results, write

QUICK = ("kill-tool", "twice-one", "duplicate", "rejected")


def play(peer: Peer, fault: str) -> Cell:
    """A fault that could not be made is named so, with the reason; a peer that behaves in a way no scenario knows is told as it came."""
    try:
        return FAULTS[fault].play(peer)
    except NotRun as reason:
        return Cell("not run", str(reason))
    except AssertionError as reason:
        return Cell("not run", f"the scenario was not reached: {' '.join(str(reason).split())[:300]}")


def play_all(peer: Peer, faults: list[str]) -> dict[str, Cell]:
    cells = {}
    for fault in faults:
        began = time.monotonic()
        cells[fault] = play(peer, fault)
        print(f"{peer.name:22} {fault:13} {cells[fault].verdict:12} {time.monotonic() - began:5.1f} s  {cells[fault].note}", flush=True)
    return cells


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    words.add_argument("--install", action="store_true", help="make the peers' environments (PEERBENCH_VENVS names the folder)")
    words.add_argument("--peer", action="append", choices=list(PEERS), help="only this one (may be repeated)")
    words.add_argument("--fault", action="append", choices=list(FAULTS), help="only this one (may be repeated)")
    words.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    words.add_argument("--jobs", type=int, default=1, help="so many peers at once")
    words.add_argument("--write", action="store_true", help=f"write {RESULTS.name} and README.md; what was not played again is kept")
    words.add_argument("--only-write", action="store_true", help=f"README.md again from {RESULTS.name}")
    words.epilog = "Ends with 1 if ownloop itself does wrong."
    given = words.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if given.only_write:
        write(json.loads(RESULTS.read_text(encoding="utf-8")))
        return
    peers = given.peer or list(PEERS)
    if given.install:
        environments.install(dict.fromkeys(PEERS[one].environment for one in peers if PEERS[one].environment != "ownloop"))
        if not given.write:
            return
    left_out = {one: f"not installed: {PEERS[one].python} is missing" for one in peers if not PEERS[one].python.exists()}
    faults = given.fault or list(QUICK if given.quick else FAULTS)
    began = time.monotonic()
    played = [one for one in peers if one not in left_out]
    turn = Lock()

    def column(one: str) -> dict[str, Cell]:
        """Kept as soon as it is whole: a run that is cut short loses the rest only."""
        cells = play_all(PEERS[one], faults)
        with turn:
            if given.write:
                write(results({one: cells}, left_out, time.monotonic() - began))
        return cells

    with ThreadPoolExecutor(given.jobs) as pool:
        at_once = pool.map if given.jobs > 1 else map  # one after the other in this thread, so that SIGTERM and Ctrl-C leave nothing behind
        cells = dict(zip(played, at_once(column, played), strict=True))
    found = results(cells, left_out, time.monotonic() - began)
    if given.write:
        write(found)
    else:
        print(json.dumps({"left out": found["left_out"]}), file=sys.stderr)
    sys.exit(any(cell.verdict in BAD for cell in cells.get("ownloop", {}).values()))


if __name__ == "__main__":
    main()
