"""Run the tests: `python tools/run_tests.py [PYTEST'S WORDS]`; `OWNLOOP_TEST_JOBS` processes, 3 by default.

First those that bear company, side by side; then, one by one, those marked `alone`, which measure time or count system calls.
The second part is run whatever failed in the first one, unless pytest broke or was interrupted. The last lines name what failed and how many
of each part passed. Exits with 0 if tests were run and none failed, else with pytest's code of the first part that failed (5: no test was chosen).
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PASSED, FAILED, NO_TESTS = 0, 1, 5  # pytest's exit codes; any other means that it broke or was interrupted


@dataclass(frozen=True)
class Part:
    """One run of pytest: its exit code, and what `--tell` of tests/conftest.py wrote; nothing if pytest broke."""

    name: str
    code: int
    told: dict[str, Any]

    def __str__(self) -> str:
        if self.code == NO_TESTS:
            return f"{self.name}: no tests"
        return f"{self.name}: {self.told.get('line', 'pytest broke')}" + (f" (exit code {self.code})" if self.code else "")


def main(words: list[str]) -> int:
    jobs = os.environ.get("OWNLOOP_TEST_JOBS") or "3"
    parts = [run(f"side by side, {jobs} processes", "not soak and not alone", "-n", jobs, "--dist", "worksteal", *words)]
    if parts[0].code in (PASSED, FAILED, NO_TESTS):
        parts.append(run("one by one", "not soak and alone", "--alone", *words))
    print("=" * 20, "make test", "=" * 20)
    for part in parts:
        print(*part.told.get("failed", ()), part, sep="\n")
    code = verdict([part.code for part in parts])
    print(f"FAILED, exit code {code}" if code else "all passed")
    return code


def run(name: str, marks: str, *words: str) -> Part:
    with tempfile.TemporaryDirectory(prefix="ownloop-tests-") as folder:
        file = Path(folder) / "told.json"
        done = subprocess.run([sys.executable, "-m", "pytest", "-m", marks, "--tell", str(file), *words], cwd=ROOT, check=False)
        return Part(name, done.returncode, json.loads(file.read_text()) if file.exists() else {})


def verdict(codes: list[int]) -> int:
    """A part without tests is fine as long as the other one has some."""
    bad = [code for code in codes if code not in (PASSED, NO_TESTS)]
    return bad[0] if bad else min(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
