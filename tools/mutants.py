"""Change the program in one place at a time and see whether a test notices: `python tools/mutants.py [--sample N --seed S]`.

One run of the tests learns which test runs which line. Then each mutant (tools/mutations.py) is written into a copy of `src`, and the tests that
run its line are run on the copy: first one case of each test, the quickest first, until one fails or hangs or `--seconds` of tests have passed.
What nobody noticed has survived. A mutant inside a function is put in its place in a fork of a process that has collected all tests; what runs at
import gets a process of its own. A sample is the beginning of one shuffled list, so a larger one with the same seed holds the smaller one.

Not run: tests on Postgres, those that type-check the examples, a few long ones, those marked `soak` or `alone`. Writes to build/mutants/:
covered.json (kept while sources and tests stay as they are) and results.jsonl. Exits with 1 if fewer than 85 % were noticed.
"""

import argparse
import gc
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from types import FunctionType
from typing import Any

import coverage
import hypothesis  # noqa: F401  (loaded here, once, and not in each fork)
import pydantic  # noqa: F401
import pytest
import pytest_asyncio  # noqa: F401
from mutations import Mutant, mutants_of, replace_code

ROOT = Path(__file__).resolve().parent.parent
LEAST = 0.85
BUILD = ROOT / "build" / "mutants"
SOURCES = ["wake.py", "calls.py", "waits.py", "interrupts.py", "stores/sqlite/*.py"]
TESTS = ["semantics", "examples", "wrong", "stores/test_sqlite*.py", "test_interrupts.py", "test_closing.py", "test_progress.py"]
TESTS += ["engines/test_embedded.py", "llm/test_judge.py", "llm/test_limits.py", "telemetry/test_traces.py", "server/test_api_decisions.py"]
LEFT_OUT = ["postgres", "type_checker", "a_random_program", "a_death_anywhere", "two_processes"]
CHOICE = ["-k", " and ".join(f"not {name}" for name in LEFT_OUT), "-m", "not soak and not alone"]
WORDS = ["-q", "--timeout=0", "--timeout-method=thread", "--hypothesis-seed=0", *CHOICE]  # no timeout of the plugin's: see Chosen
PLUGINS = ["no:cacheprovider", "pytest_asyncio.plugin", "pytest_timeout", "_hypothesis_pytestplugin"]


class Chosen:
    """Run these tests in this order, each in the seconds it may take; say which one runs, and end the process at the first that fails.

    Without `limits` all are run to the end, or `instead` gets what was collected.
    """

    def __init__(self, told: Path, limits: dict[str, float] | None = None, instead: Callable[[list[pytest.Item]], None] | None = None) -> None:
        self.told, self.limits, self.instead = told, limits, instead
        self.covered: coverage.Coverage | None = None
        self.took: dict[str, float] = {}
        self.failed: set[str] = set()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.limits is not None:
            items[:] = self.in_order(items)

    def in_order(self, items: list[pytest.Item]) -> list[pytest.Item]:
        found = {item.nodeid: item for item in items}
        return [found[test] for test in self.limits or () if test in found]

    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if self.instead is None:
            return None
        self.instead(session.items)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        began = time.perf_counter()
        if self.covered is not None:
            self.covered.switch_context(item.nodeid)
        if self.limits is not None:
            self.told.write_text(item.nodeid, encoding="utf-8")
            signal.setitimer(signal.ITIMER_REAL, self.limits[item.nodeid])  # ends the process
        done = yield
        self.took[item.nodeid] = time.perf_counter() - began
        return done

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
            if self.limits is not None:
                os._exit(pytest.ExitCode.TESTS_FAILED)


@dataclass(frozen=True)
class Covered:
    """Of one run of the tests: how long each took, and which ran each line of a file ("ownloop/wake.py:12")."""

    seconds: dict[str, float]
    tests: dict[str, list[str]]

    def limits(self, mutant: Mutant, most: float) -> dict[str, float]:
        """One case of each test, the quickest tests first, then another case of each, together within `most` seconds; and how long each may hang.

        After those that run the lines come those that run the function: Python 3.11 traces no line that a coroutine comes to by an exception.
        """
        every = {place: set(tests) for place, tests in self.tests.items() if place.startswith(f"{mutant.file}:")}
        of = {f"{mutant.file}:{line}" for line in mutant.lines} if mutant.lines else every.keys()
        near, far = (set().union(*(every.get(place, ()) for place in places)) for places in (of, [f"{mutant.file}:{line}" for line in mutant.around]))
        rounds: Counter[str] = Counter()
        order = []
        for test in sorted(near | far, key=lambda test: (test not in near, self.seconds[test], test)):
            rounds[test.split("[")[0]] += 1
            order.append((test not in near, rounds[test.split("[")[0]], self.seconds[test], test))
        total = accumulate(seconds for _, _, seconds, _ in sorted(order))
        return {test: 15 + 10 * took for (_, _, took, test), until in zip(sorted(order), total, strict=True) if until <= most}


class Bench:
    """A copy of the sources in which one place at a time is changed, and the forks that run tests on it."""

    def __init__(self) -> None:
        self.tree, self.told, self.results = BUILD / "src", BUILD / "told", BUILD / "results.jsonl"
        self.files = tempfile.TemporaryDirectory(prefix="ownloop-mutants-", ignore_cleanup_errors=True)
        shutil.rmtree(self.tree, ignore_errors=True)
        shutil.copytree(ROOT / "src", self.tree)
        os.environ.update(PYTHONPATH=str(self.tree), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", HYPOTHESIS_STORAGE_DIRECTORY=str(BUILD / "hypothesis"))
        sys.path.insert(0, str(self.tree))
        self.written = int(time.time()) - 10**7  # each mutant has a time of its own: Python tells by it that a compiled file is stale

    def covered(self) -> Covered:
        """Kept while nothing changes."""
        sources = sorted(path for folder in ("src", "tests", "examples") for path in (ROOT / folder).rglob("*.py"))
        state = hashlib.sha256(b"".join([repr(TESTS + CHOICE).encode(), *(path.read_bytes() for path in sources)])).hexdigest()
        file = BUILD / "covered.json"
        kept = json.loads(file.read_text()) if file.exists() else {}
        if kept.get("state") != state:
            print("running all tests once, to learn which test runs which line", flush=True)
            self.fork(lambda: self.cover(file, state))
            kept = json.loads(file.read_text())
            print(f"{len(kept['seconds'])} tests; left out, for they failed: {', '.join(kept['failed']) or 'none'}", flush=True)
        return Covered(kept["seconds"], kept["tests"])

    def cover(self, file: Path, state: str) -> int:
        watched = coverage.Coverage(data_file=None, include=[f"{self.tree}/ownloop/{name}" for name in SOURCES])
        chosen = Chosen(self.told)
        chosen.covered = watched
        watched.start()
        self.pytest([], chosen)
        watched.stop()
        tests, data = {}, watched.get_data()
        for measured in data.measured_files():
            for line, contexts in data.contexts_by_lineno(measured).items():
                tests[f"{Path(measured).relative_to(self.tree).as_posix()}:{line}"] = sorted(set(contexts) - {""} - chosen.failed)
        file.write_text(json.dumps({"state": state, "failed": sorted(chosen.failed), "seconds": chosen.took, "tests": tests}), encoding="utf-8")
        return 0

    def try_all(self, mutants: list[Mutant], covered: Covered, seconds: float) -> None:
        """Those inside functions from one process that has collected all tests, the others one by one."""
        self.results.write_text("")
        inside = [(mutant, covered.limits(mutant, seconds)) for mutant in mutants if mutant.lines]
        chosen = Chosen(self.told, instead=lambda items: self.in_place(inside, items, chosen))
        self.fork(lambda: self.pytest([], chosen))
        for mutant in (one for one in mutants if not one.lines):
            limits = covered.limits(mutant, seconds)
            self.try_out(mutant, limits, partial(self.pytest, ["-x"], Chosen(self.told, limits)))

    def in_place(self, mutants: list[tuple[Mutant, dict[str, float]]], items: list[pytest.Item], chosen: Chosen) -> None:
        functions = [one for one in gc.get_objects() if isinstance(one, FunctionType) and one.__code__.co_filename.startswith(str(self.tree))]
        gc.freeze()

        def work(mutant: Mutant) -> int:
            replace_code(functions, self.tree / mutant.file, (ROOT / "src" / mutant.file).read_bytes())
            tests = chosen.in_order(items)
            for test, following in zip(tests, [*tests[1:], None], strict=True):
                test.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
            return pytest.ExitCode.OK

        for mutant, chosen.limits in mutants:
            self.try_out(mutant, chosen.limits, partial(work, mutant))

    def try_out(self, mutant: Mutant, tests: Mapping[str, float], work: Callable[[], int]) -> None:
        """Note how it ended: "survived", or the test that noticed it, after a signal if it was killed."""
        target, source = self.tree / mutant.file, (ROOT / "src" / mutant.file).read_bytes()
        target.write_bytes(source[: mutant.start] + mutant.new.encode() + source[mutant.end :])
        self.written += 10
        os.utime(target, (self.written, self.written))
        self.told.write_text("import", encoding="utf-8")
        try:
            status = self.fork(work) if tests else 0
        finally:
            shutil.copy2(ROOT / "src" / mutant.file, target)
        code = os.waitstatus_to_exitcode(status)
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED) and code >= 0:
            sys.exit(f"pytest broke (exit code {code}) on {mutant}; see {BUILD}/output")
        ended = "survived" if code == 0 else f"{signal.Signals(-code).name if code < 0 else ''} {self.told.read_text(encoding='utf-8')}".strip()
        with self.results.open("a", encoding="utf-8") as results:
            results.write(json.dumps({**asdict(mutant), "ended": ended, "tests": len(tests)}, ensure_ascii=False) + "\n")

    def fork(self, work: Callable[[], int]) -> int:
        """The exit status of this work in a process of its own, which takes the processes that it started with it."""
        if (child := os.fork()) == 0:
            os.setsid()
            with (BUILD / "output").open("w") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            os._exit(work())
        _, status = os.waitpid(child, 0)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        return status

    def pytest(self, words: list[str], chosen: Chosen) -> int:
        folders = [path for name in TESTS for path in sorted((ROOT / "tests").glob(name))]
        files = {test.split("::")[0] for test in chosen.limits or ()}
        paths = [str(path) for path in folders] if chosen.limits is None else sorted(files)
        plugins = [word for name in PLUGINS for word in ("-p", name)]
        signal.setitimer(signal.ITIMER_REAL, 60 if chosen.limits is not None else 0)  # its default ends the process
        return int(pytest.main([*WORDS, *plugins, *words, f"--basetemp={self.files.name}/tests", f"--rootdir={ROOT}", *paths], plugins=[chosen]))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sample", type=int, help="try so many mutants; without it all")
    parser.add_argument("--seed", type=int, default=1, help="shuffles the mutants")
    parser.add_argument("--seconds", type=float, default=30, help="try a mutant with tests that take so long together")
    parser.add_argument("--again", type=Path, help="only those that survived in this results.jsonl")
    asked = parser.parse_args()
    os.chdir(ROOT)
    BUILD.mkdir(parents=True, exist_ok=True)
    paths = [path for name in SOURCES for path in sorted((ROOT / "src/ownloop").glob(name))]
    mutants = [mutant for path in paths for mutant in mutants_of(path, ROOT / "src")]
    random.Random(asked.seed).shuffle(mutants)
    chosen = mutants[: asked.sample]
    if asked.again:
        survived = {(one["file"], one["start"], one["new"]) for one in read(asked.again) if one["ended"] == "survived"}
        chosen = [mutant for mutant in mutants if (mutant.file, mutant.start, mutant.new) in survived]
    bench = Bench()
    bench.try_all(chosen, bench.covered(), asked.seconds)
    if len(results := read(bench.results)) < len(chosen):
        sys.exit(f"only {len(results)} of {len(chosen)} were tried; see {BUILD}/output")
    return told(results, len(mutants))


def read(results: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


def told(results: list[dict[str, Any]], population: int) -> int:
    survived = [one for one in results if one["ended"] == "survived"]
    for one in survived:
        print(f"{one['file']}:{one['line']} {one['kind']}, {one['tests']} tests: {one['old']} → {one['new']}")
    tried, left = Counter(one["file"] for one in results), Counter(one["file"] for one in survived)
    print(f"\n| file | tried, of {population} | noticed | |\n|---|---:|---:|---:|")
    for name in sorted(tried):
        print(f"| {name} | {tried[name]} | {tried[name] - left[name]} | {1 - left[name] / tried[name]:.0%} |")
    score = 1 - len(survived) / max(len(results), 1)
    print(f"| together | {len(results)} | {len(results) - len(survived)} | {score:.1%} |")
    return int(score < LEAST)


if __name__ == "__main__":
    sys.exit(main())
