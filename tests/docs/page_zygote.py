"""Runs the programs of pages: a process that has imported what they import, and forks for each.

Reads orders as JSON lines: {"argv", "folder", "environment", "output"}; answers each with its exit code (negative: the signal that killed it).
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

PRELOADED = """
    asyncio sqlite3 httpx fastapi jsonschema rich typer pytest pydantic_ai.models.function openai.types.responses
    ownloop.app ownloop.stores.sqlite ownloop.stores.memory ownloop.engines.embedded ownloop.cli.program ownloop.server.site ownloop.telemetry.metrics
    ownloop.llm.model ownloop.llm.judge ownloop.llm.budget ownloop.llm.cache ownloop.llm.limits ownloop.llm.compaction ownloop.llm.summaries
    ownloop.testing.crashes ownloop.testing.driving ownloop.testing.model"""
SECONDS = 120


def main() -> None:
    for name in PRELOADED.split():
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            become(order)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(order: dict[str, Any]) -> NoReturn:
    """Be the program from here on. What Python does at its end is done, but for freeing what was imported: that takes 0.4 s."""
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    streams = (os.open(os.devnull, os.O_RDONLY), os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    for number, source in enumerate((streams[0], streams[1], streams[1])):
        os.dup2(source, number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, 1, encoding="utf-8", closefd=False) for number, mode in enumerate("rww"))
    signal.alarm(SECONDS)
    code = ended(order["argv"])
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as every end of Python does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


def ended(argv: list[str]) -> int:
    """Run `python ARGV…`; its exit code."""
    try:
        if argv[0] == "-m":
            sys.path[0], sys.argv = str(Path.cwd()), argv[1:]
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        else:
            sys.path[0], sys.argv = str(Path(argv[0]).resolve().parent), argv
            runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()
