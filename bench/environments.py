"""The peers' environments: one a peer, with the versions that are compared. `PEERBENCH_VENVS` names the folder, by default `bench/peers/.venvs`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("PEERBENCH_VENVS") or ROOT / "bench" / "peers" / ".venvs")
PACKAGES: dict[str, tuple[str, ...]] = {
    "ownloop": (f"{ROOT}[postgres]",),
    "raw": ("psycopg[binary,pool]==3.3.9",),
    "langgraph": ("langgraph==1.2.22", "langgraph-checkpoint-sqlite==3.1.2", "langgraph-checkpoint-postgres==3.2.0", "psycopg[binary,pool]==3.3.9"),
    "oai": ("openai-agents==0.24.0",),
    "pydai": ("pydantic-ai-slim==2.68.0",),
    "pydai_dbos": ("pydantic-ai-slim[dbos]==2.68.0", "dbos==3.4.0"),
    "adk": ("google-adk==2.13.0", "aiosqlite==0.22.1"),
    "dbos": ("dbos==3.4.0",),
    "burr": ("apache-burr==0.43.0",),
    "llama": ("llama-index-workflows==2.26.1",),
    "restate": ("restate-sdk[serde]==1.3.0", "hypercorn==0.18.0", "httpx"),
}
RESTATE = "@restatedev/restate-server@1.7.12"
RESTATE_SERVER = "restate_node/node_modules/@restatedev/restate-server-linux-x64/bin/restate-server"


def python(name: str) -> Path:
    return FOLDER / name / "bin" / "python"


def restate_server() -> Path:
    return FOLDER / RESTATE_SERVER


def install(names: Iterable[str]) -> dict[str, str]:
    """Make what is missing or has other versions; gives the ones that failed, each with the reason."""
    failed = {}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            _install(name)
            if name == "restate":
                _install_restate_server()
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            words = str(getattr(error, "stderr", "") or error).strip().splitlines()
            failed[name] = words[-1][:200] if words else repr(error)
        print(f"{name}: {failed.get(name, 'installed')}", file=sys.stderr, flush=True)
    return failed


def _install(name: str) -> None:
    packages, mark = PACKAGES[name], FOLDER / name / "packages.json"
    if name != "ownloop" and mark.exists() and json.loads(mark.read_text()) == list(packages):
        return
    uv = shutil.which("uv")
    if not python(name).exists():
        _call([uv, "venv", "--python", sys.executable, str(FOLDER / name)] if uv else [sys.executable, "-m", "venv", str(FOLDER / name)])
    pip = [uv, "pip", "install", "--python", str(python(name))] if uv else [str(python(name)), "-m", "pip", "install", "--disable-pip-version-check"]
    _call([*pip, *packages])
    if name == "ownloop":  # the version stays the same while the source changes
        _call([*pip, "--force-reinstall", "--no-deps", str(ROOT)])
    mark.write_text(json.dumps(packages))


def _install_restate_server() -> None:
    if not restate_server().exists():
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("its server is installed by npm, and there is none on PATH: install Node.js")
        _call([npm, "install", "--prefix", str(FOLDER / "restate_node"), "--no-audit", "--no-fund", RESTATE])


def _call(command: list[str | None]) -> None:
    subprocess.run([word for word in command if word], check=True, capture_output=True, text=True)


def versions(name: str) -> dict[str, str]:
    """The versions that an environment really has, by package."""
    asked = [package.split("==")[0].split("[")[0] for package in PACKAGES[name]] if name != "ownloop" else ["ownloop"]
    code = "import sys, json, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    done = subprocess.run([python(name), "-c", code, *asked], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(done.stdout)
    if name == "restate":
        found["restate-server"] = RESTATE.rpartition("@")[2]
    return found
