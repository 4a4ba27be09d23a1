"""`python -m bench` measures everything and prints a table; `--write` also puts it into bench/README.md; `--quick` takes fewer rounds."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import approve, disk, engines, fleet, importing, inbox, model_call, postgres, server, telemetry, together, tool_loop, wakes
from .measure import Result, show

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- results: written by `python -m bench --write` -->\n", "<!-- end of results -->\n"


def run(quick: bool) -> list[Result]:
    parts: list[Callable[[], list[Result]]] = [
        lambda: importing.measure(7 if quick else 21),
        lambda: approve.measure(5 if quick else 15),
        lambda: tool_loop.measure(3 if quick else 9),
        lambda: model_call.measure(5 if quick else 15),
        disk.measure,
        fleet.measure,
        lambda: together.measure(1 if quick else 3),
        lambda: telemetry.measure(5 if quick else 15),
        server.measure,
        lambda: inbox.measure(5 if quick else 15),
        lambda: engines.measure(60 if quick else 200),
        lambda: postgres.measure(3 if quick else 7),
        lambda: wakes.measure(quick),
    ]
    results: list[Result] = []
    for part in parts:
        found = part()
        show(found)
        results += found
    return results


def table(results: Sequence[Result]) -> str:
    lines = ["| promise | target | measured | floor, same run | |", "|---|---|---|---|---|"]
    lines += [f"| {one.promise} | {one.target} | {one.measured} | {one.floor} | {'ok' if one.is_met else '**missed**'} |" for one in results]
    return "\n".join(lines)


def machine() -> str:
    """What it was measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    python = f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    return f"{os.cpu_count()} × {model}, {platform.system()} {platform.release()}, {python}, load {load}"


def write(results: Sequence[Result], command: str) -> None:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    text = README.read_text(encoding="utf-8")
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    body = f"Measured {today} with `{command}` on {machine()}.\n\n{table(results)}\n"
    README.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into bench/README.md")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    results = run(options.quick)
    print(f"\n{table(results)}\n\n{machine()}")
    if options.write:
        write(results, " ".join(["python -m bench", *sys.argv[1:]]))
    raise SystemExit(0 if all(result.is_met for result in results) else 1)


if __name__ == "__main__":
    main()
