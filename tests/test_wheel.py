"""What people install is the wheel: it is built, unpacked beside nothing else of the project, and tried."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
import asyncio, sys
from ownloop import App, Intent, Thread
from ownloop.testing import ScriptedModel

class Done(Intent):
    message: str

app = App("sqlite:///try.db")

@app.agent
async def bot(thread: Thread) -> str:
    step = await thread.next_step(ScriptedModel([Done(message="it works")]))
    return step.intent.message

async def main() -> None:
    async with app:
        thread = await app.start(bot)
        async for event in app.stream(thread):
            if getattr(event, "kind", "") == "turn_ended":
                print(event.data["value"], sys.modules["ownloop"].__file__)
                return

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-q", "-w", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_schema_the_types_and_the_licence_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "ownloop/py.typed" in names and "ownloop/stores/sqlite/schema.sql" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "examples/", "bench/"))]


def test_a_program_runs_from_an_empty_folder_with_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "installed here"
    zipfile.ZipFile(wheel).extractall(place)
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("it works") and str(place) in done.stdout
