"""The README of the faults, made from results.json and from nothing else."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import environments
from ..__main__ import machine
from .peers_compared import PEERS
from .scenarios import APART, BAD, FAULTS, GOOD, Cell

HERE = Path(__file__).parent
RESULTS, README = HERE / "results.json", HERE / "README.md"
MARKS = {**dict.fromkeys(GOOD, ""), **dict.fromkeys(BAD, "✗ "), **dict.fromkeys(APART, "– ")}
MEANINGS = {
    "safe": "every payment that a person or the model wanted was made once, no other, and the thread went on",
    "asks": "a person is asked whether it happened, and the answer ends the thread",
    "refuses": "nothing wrong was done, and the framework said no in words",
    "repeats": "a payment was made more than once, in silence",
    "wrong call": "something was paid that nobody had approved in this form",
    "loses": "a selection, an approval or a message was gone",
    "stuck": "nothing wrong was paid, and the thread does not go on by itself",
    "not offered": "the framework has no way to do this; a program may build one",
    "not run": "the fault could not be made here; the reason stands below",
}


def results(cells: Mapping[str, Mapping[str, Cell]], left_out: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """What was played now, beside what was played before and not again."""
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"peers": {}}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    peers = dict(before["peers"])
    for name, played in cells.items():
        kept = peers.get(name, {"cells": {}})["cells"]
        now = {fault: {**asdict(cell), "date": today} for fault, cell in played.items()}
        peers[name] = {"versions": environments_versions(name), "cells": {**kept, **now}}
    ordered = {name: peers[name] for name in PEERS if name in peers}
    still_out = {name: reason for name, reason in left_out.items() if name not in ordered}
    return {"date": today, "machine": machine(), "seconds": round(seconds), "left_out": still_out, "peers": ordered}


def environments_versions(name: str) -> dict[str, str]:
    if PEERS[name].environment == "ownloop":
        import importlib.metadata

        return {"ownloop": importlib.metadata.version("ownloop")}
    return environments.versions(PEERS[name].environment)


def write(found: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    README.write_text(page(found), encoding="utf-8")


def page(found: dict[str, Any]) -> str:
    """The whole README.md."""
    return "\n".join([*_top(found), "", *_matrix(found), "", *_meanings(), "", *_better(found), "", *_notes(found), "", *_how(found)]) + "\n"


def _top(found: dict[str, Any]) -> list[str]:
    return [
        "<!-- written by `python -m bench.faults --write` from results.json; do not edit -->",
        "# Twelve faults",
        "",
        "One program in each framework's own idiom: a scripted model chooses payments, a person approves them, a bank pays at once. Twelve times",
        "something goes wrong, in real processes (SIGKILL, full disks, moved clocks). What counts is the bank's ledger, not what a framework says",
        "of itself.",
        "",
        f"Run on {found['date']}, {found['machine']}.",
    ]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(found: dict[str, Any], peer: str, fault: str) -> str:
    verdict = _of(found, peer, fault)["verdict"]
    return f"**{MARKS[verdict]}{verdict}**" if verdict in BAD else f"{MARKS[verdict]}{verdict}"


def _matrix(found: dict[str, Any]) -> list[str]:
    """One line a framework would be too wide: one line a fault."""
    peers = list(found["peers"])
    counts = [str(sum(_of(found, peer, fault)["verdict"] in GOOD for fault in FAULTS)) for peer in peers]
    return [
        _row(["", *(PEERS[one].name for one in peers)]),
        _row(["---"] * (len(peers) + 1)),
        *(_row([FAULTS[fault].name, *(_cell(found, peer, fault) for peer in peers)]) for fault in FAULTS),
        _row([f"of {len(FAULTS)} withstood", *counts]),
        _row(["version", *(_version(found, peer) for peer in peers)]),
    ]


def _of(found: dict[str, Any], peer: str, fault: str) -> dict[str, Any]:
    cells: dict[str, dict[str, Any]] = found["peers"][peer]["cells"]
    return cells.get(fault, {"verdict": "not run", "note": "not played yet", "date": "–"})


def _version(found: dict[str, Any], peer: str) -> str:
    versions: dict[str, str] = found["peers"][peer]["versions"]
    return next(iter(versions.values()))


def _meanings() -> list[str]:
    return [f"- *{verdict}*: {meaning}." for verdict, meaning in MEANINGS.items()]


def _better(found: dict[str, Any]) -> list[str]:
    """Where another framework stands above ownloop: `safe` is better than `refuses` and `asks`, and all three than the rest."""

    def rank(cell: dict[str, Any]) -> int:
        return 2 if cell["verdict"] == "safe" else 1 if cell["verdict"] in GOOD else 0

    lines = ["## Where a peer is better", ""]
    if "ownloop" not in found["peers"]:
        return [*lines, "ownloop was not played."]
    for fault in FAULTS:
        ours = _of(found, "ownloop", fault)
        better = [PEERS[one].name for one in found["peers"] if rank(_of(found, one, fault)) > rank(ours)]
        if better:
            lines.append(f"- **{FAULTS[fault].name}**: {', '.join(better)} – *safe*; ownloop {ours['verdict']}: {ours['note']}.")
    for fault in FAULTS:
        keyed = [PEERS[one].name for one in found["peers"] if "the same key" in _of(found, one, fault)["note"]]
        if keyed and _of(found, "ownloop", fault)["verdict"] == "asks":
            lines.append(
                f"- **{FAULTS[fault].name}**, where the bank knows idempotency keys: {', '.join(keyed)} call again with the same key and go on alone."
            )
    if any("idempotency" in line for line in lines):
        lines += [
            "",
            'There the second call does no harm, and no person is needed. ownloop does so where the tool says `in_doubt="retry"`; here the tool says',
            "nothing, and a person is asked.",
        ]
    if len(lines) == 2:
        lines.append("In none of these twelve, in this run.")
    return [
        *lines,
        "",
        "These faults are the ones that a durable loop with people in it is made for. None of them measures what the others are chosen for: graphs,",
        "toolsets, tracing, languages, replication. DBOS and Restate make any function durable and run on many machines; Pydantic AI, the OpenAI",
        "Agents SDK and LlamaIndex Workflows name such engines for what must survive a crash, and are played here without.",
    ]


def _notes(found: dict[str, Any]) -> list[str]:
    lines = ["## What was seen", "", f"On {found['date']}, where a line does not end with another date.", ""]
    for fault, known in FAULTS.items():
        lines += [f"**{known.name}** – {known.what}.", ""]
        for peer in found["peers"]:
            cell = _of(found, peer, fault)
            note = cell["note"].replace("|", "\\|")
            lines.append(
                f"- {PEERS[peer].name} {_version(found, peer)}: *{cell['verdict']}* – {note}"
                + ("" if cell["date"] == found["date"] else f" ({cell['date']})")
            )
        lines.append("")
    return lines


def _how(found: dict[str, Any]) -> list[str]:
    versions = [
        f"{PEERS[one].name}: {', '.join(f'{name} {version}' for name, version in found['peers'][one]['versions'].items())}" for one in found["peers"]
    ]
    out = [f"- {PEERS[name].name}: {reason}" for name, reason in found["left_out"].items()] or ["- nobody"]
    return [
        "## How it was run",
        "",
        "```",
        "python -m bench.faults --install        # an environment for each peer; PEERBENCH_VENVS names the folder",
        "python -m bench.faults --write          # plays all, writes results.json and this file; root for the full disk, cc for the clock",
        "python -m bench.faults --only-write     # this file again from results.json",
        "python -m bench.faults --peer dbos --fault edit      # one cell",
        "```",
        "",
        f"The last run took {found['seconds']} s. `results.json` holds each run's ledger, the model's answers and the frameworks' own words.",
        "The programs are in `peers/`, the faults and their judgement – the same for all – in `scenarios.py`. One person wrote each program from the",
        "framework's documentation in an hour or less: an expert may do better, and a program with an idempotent bank, a lock or a table of its own",
        "surely does. Each cell is one run, ended after 150 s: where a race hangs on timing, another run may show another cell.",
        "",
        *(f"- {line}" for line in versions),
        "",
        "Left out in this run:",
        "",
        *out,
    ]
