"""`python -m bench.peers_table results.jsonl` puts a table of what bench/peers/run.py printed into bench/README.md."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

from .__main__ import README, machine
from .measure import median

BEGIN, END = "<!-- peers: written by `python -m bench.peers_table FILE` -->\n", "<!-- end of peers -->\n"
NAMES = {
    "raw_sqlite:sync=FULL": "the floor: sqlite3, WAL, FULL, two commits a step",
    "ownloop_": "ownloop",
    "langgraph": "LangGraph SQLite (durability=sync)",
    "burr_": "Burr SQLitePersister",
}
HEAD = (
    "| | ms a step, N = 100 | × floor | last ten ÷ first ten, N = 1000 | bytes a step, N = 100 | cold process, s | warm approve → tool, ms "
    "| list 50, ms | killed in the tool: runs | two approvals at once, in one process / two: runs | 200 × 20 steps/s | import, ms | version |"
)


class Runs:
    """The JSON lines of one file."""

    def __init__(self, path: Path) -> None:
        self._lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("{")]

    def of(self, peer: str, workload: str, n: int | None = None) -> list[dict[str, Any]]:
        found = [one for one in self._lines if (one["peer"], one["workload"], one["n"]) == (peer, workload, n)]
        return [one["r"] for one in found if "error" not in one["r"]]


def number(values: list[float], form: str = ",.2f") -> str:
    return format(median(values), form) if values else "–"


def line(runs: Runs, peer: str) -> str:
    def steps(name: str) -> list[float]:
        return [run["ms_step"] for run in runs.of(name, "W1", 100)]

    floor, ours = steps("raw_sqlite:sync=FULL"), steps(peer)
    long = [run["ms_last10"] / run["ms_first10"] for run in runs.of(peer, "W1", 1000)]
    w2, race = runs.of(peer, "W2"), runs.of(peer, "W5race")
    killed = [str(run["lines_after_restart"]) for run in runs.of(peer, "W4")]
    versions = [" ".join(f"{name} {version}" for name, version in list(run["versions"].items())[:1]) for run in runs.of(peer, "W6")]
    cells = [
        NAMES[peer],
        number(ours),
        number([median(ours) / median(floor)] if ours and floor else []),
        number(long),
        number([run["disk_per_step"] for run in runs.of(peer, "W1", 100)], ",.0f"),
        number([run["B"]["wall_s"] for run in w2 if "wall_s" in run["B"]]),
        number([run["warm"]["approve_to_tool_ms"] for run in w2 if run["warm"] and "error" not in run["warm"]]),
        number([run["list50_ms"] for run in runs.of(peer, "W3")]),
        *(killed or ["–"]),
        *([f"{run['same_process'].get('runs', '–')} / {run['two_processes']['runs']}" for run in race] or ["–"]),
        number([run["steps_s"] for run in runs.of(peer, "W5")], ",.0f"),
        number([run["import_ms_median"] for run in runs.of(peer, "W6")], ",.0f"),
        *(versions or ["–"]),
    ]
    return f"| {' | '.join(cells)} |"


def main(path: Path) -> None:
    runs = Runs(path)
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    rule = "|" + "---|" * (HEAD.count("|") - 1)
    lines = [f"Measured {today} by `run.py` on {machine()}.", "", HEAD, rule, *(line(runs, peer) for peer in NAMES)]
    text = README.read_text(encoding="utf-8")
    README.write_text(text.partition(BEGIN)[0] + BEGIN + "\n" + "\n".join(lines) + "\n\n" + END + text.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
