"""What a race is shown as: the table between the marks of bench/README.md and three plots in docs/images."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import plots
from .__main__ import README, machine
from .measure import median

BEGIN, END = "<!-- peers: written by `python -m bench.race --write` -->\n", "<!-- end of peers -->\n"
IMAGES = README.parents[1] / "docs" / "images"
NAMES = {
    "raw_sqlite:sync=FULL": "floor: sqlite3",
    "ownloop_": "ownloop",
    "langgraph": "LangGraph",
    "langgraph:delta=1": "LangGraph DeltaChannel (beta)",
    "dbos_": "DBOS",
    "pydai": "Pydantic AI + own SQLite code",
    "pydai_dbos": "Pydantic AI + DBOS",
    "oai": "OpenAI Agents SDK",
    "adk": "Google ADK",
    "burr_": "Burr",
    "llama": "LlamaIndex Workflows",
    "restate_": "Restate",
    "raw_pg": "floor: Postgres",
    "ownloop_:db=pg": "ownloop, Postgres",
    "langgraph:db=pg": "LangGraph, Postgres",
    "dbos_:db=pg": "DBOS, Postgres",
}
HEAD = (
    "| | ms a step, N = 100 | × floor | last ten ÷ first ten, N = 1000 | bytes a step, N = 100 | N = 1000 | cold process, s "
    "| warm approve → tool, ms | parked threads/s | list 50, ms | killed in the tool: runs | two approvals at once, in one process / two: runs "
    "| many threads: steps/s | import, ms | version |"
)


def about() -> dict[str, Any]:
    return {"date": datetime.datetime.now(datetime.UTC).date().isoformat(), "machine": machine()}


class Runs:
    """The JSON lines of one file; the first says when, where and how."""

    def __init__(self, path: Path) -> None:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
        self.about: dict[str, Any] = next(one["about"] for one in lines if "about" in one)
        self._lines = [one for one in lines if "about" not in one]
        measured = {one["peer"] for one in self._lines}
        self.peers = [peer for peer in NAMES if peer in measured]

    def of(self, peer: str, workload: str, n: int | None = None) -> list[dict[str, Any]]:
        found = [one for one in self._lines if one["peer"] == peer and one["workload"] == workload and (n is None or one["n"] == n)]
        return [one["r"] for one in found if "error" not in one["r"]]

    def steps(self, peer: str, n: int, what: str) -> list[float]:
        return [run[what] for run in self.of(peer, "W1", n)]

    def cold(self, peer: str) -> list[float]:
        """Seconds of a new process that loads, approves and runs the tool once."""
        return [run["B"]["wall_s"] for run in self.of(peer, "W2") if "error" not in run["B"]]

    def warm(self, peer: str) -> list[float]:
        """Milliseconds from the approval to the tool's first line, in a process that is there already."""
        return [run["warm"]["approve_to_tool_ms"] for run in self.of(peer, "W2") if run["warm"] and "error" not in run["warm"]]


def number(values: Sequence[float], form: str = ",.2f") -> str:
    return format(median(values), form) if values else "–"


def floor_of(peer: str) -> str:
    return "raw_pg" if peer == "raw_pg" or "db=pg" in peer else "raw_sqlite:sync=FULL"


def line(runs: Runs, peer: str) -> str:
    floor, ours = runs.steps(floor_of(peer), 100, "ms_step"), runs.steps(peer, 100, "ms_step")
    long = runs.of(peer, "W1", 1000)
    reached = [f" (to step {run['n']:,})" for run in long if run["capped"]][:1]
    killed = [str(run["lines_after_restart"]) for run in runs.of(peer, "W4")]
    race = [f"{run['same_process'].get('runs', '–')} / {run['two_processes']['runs']}" for run in runs.of(peer, "W5race")]
    versions = [" ".join(pair) for run in runs.of(peer.partition(":")[0], "W6") for pair in list(run["versions"].items())[:1]]
    cells = [
        NAMES[peer],
        number(ours),
        number([median(ours) / median(floor)] if ours and floor else [], ",.1f"),
        number([run["ms_last10"] / run["ms_first10"] for run in long]) + "".join(reached),
        number(runs.steps(peer, 100, "disk_per_step"), ",.0f"),
        number([run["disk_per_step"] for run in long], ",.0f") + "".join(reached),
        number(runs.cold(peer)),
        number(runs.warm(peer)),
        number([run["create_per_s"] for run in runs.of(peer, "W3")], ",.0f"),
        number([run["list50_ms"] for run in runs.of(peer, "W3")]),
        (killed or ["–"])[0],
        (race or ["–"])[0],
        number([run["steps_s"] for run in runs.of(peer, "W5")], ",.0f"),
        number([run["import_ms_median"] for run in runs.of(peer, "W6")], ",.0f"),
        (versions or ["–"])[0],
    ]
    return f"| {' | '.join(cells)} |"


def counted(runs: Runs, workload: str, n: int | None = None) -> str:
    """How many rounds there were; not all peers have the last one where the minutes were over in the middle."""
    found = sorted({len(runs.of(peer, workload, n)) for peer in runs.peers} - {0}) or [0]
    return f"{found[0]}–{found[-1]}" if len(found) > 1 else str(found[0])


def section(runs: Runs) -> str:
    """What stands between the marks."""
    rule = "|" + "---|" * (HEAD.count("|") - 1)
    out = (
        [f"Left out: {', '.join(f'{NAMES[peer]} ({reason})' for peer, reason in runs.about['left_out'].items())}.", ""]
        if runs.about["left_out"]
        else []
    )
    images = [f"![{plot.title}: {plot.unit}](../docs/images/{name}.svg)" for name, plot in drawings(runs).items()]
    return "\n".join(
        [
            f"Measured {runs.about['date']} with `{runs.about['command']}` on {runs.about['machine']}.",
            f"Rounds: {counted(runs, 'W1', 100)} of 100 steps, {counted(runs, 'W2')} of an approval – their medians are shown –, one of the rest.",
            "",
            HEAD,
            rule,
            *(line(runs, peer) for peer in runs.peers),
            "",
            *out,
            *images,
        ]
    )


def drawings(runs: Runs) -> dict[str, plots.Plot]:
    """The plots by the name of their file. Only SQLite and Restate, so that the lines can be told apart; the table has Postgres."""
    when = f"{runs.about['date']} · {runs.about['machine'].partition(',')[0]} · python -m bench.race"
    peers = [peer for peer in runs.peers if floor_of(peer) != "raw_pg"]
    curves = {NAMES[peer]: found[0]["curve"] for peer in peers if (found := runs.of(peer, "W1", 1000)) and found[0].get("curve")}
    sizes = {NAMES[peer]: [runs.steps(peer, n, "disk_per_step") for n in (100, 1000)] for peer in peers}
    resumes = {NAMES[peer]: [runs.cold(peer), runs.warm(peer)] for peer in peers}
    drawn: dict[str, plots.Plot] = {
        "race-growth": plots.Lines("Growth per step", "ms a step, by the number of the step", when, curves),
        "race-bytes": plots.Bars(
            "Bytes per step",
            "bytes on disk for a step with a result of 200 bytes",
            when,
            ("100 steps", "1,000 steps, or as many as there was time for"),
            medians(sizes),
        ),
        "race-resume": plots.Bars(
            "Approve → tool",
            "ms; a new process from its start to its end, and a process that is there already",
            when,
            ("new process", "warm"),
            resume(resumes),
        ),
    }
    return {name: plot for name, plot in drawn.items() if plot.known}


def medians(values: dict[str, list[list[float]]]) -> dict[str, list[float | None]]:
    return {name: [median(one) if one else None for one in pair] for name, pair in values.items()}


def resume(values: dict[str, list[list[float]]]) -> dict[str, list[float | None]]:
    return {name: [1000 * cold if cold is not None else None, warm] for name, (cold, warm) in medians(values).items()}


def write(results: Path) -> None:
    runs = Runs(results)
    text = README.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{README} has no lines {BEGIN.strip()!r} and {END.strip()!r}: put them where the table belongs")
    README.write_text(f"{text.partition(BEGIN)[0]}{BEGIN}\n{section(runs)}\n\n{END}{text.partition(END)[2]}", encoding="utf-8")
    for name, plot in drawings(runs).items():
        (IMAGES / f"{name}.svg").write_text(plot.svg(), encoding="utf-8")
