"""Runs a page as a reader would: its programs saved and run in order, in one folder that was empty."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from page_blocks import Block, pattern_of, settled

OURS = {"ownloop": ["-m", "ownloop"], "pytest": ["-m", "pytest", "-p", "no:cacheprovider"], "python": []}
"""Programs of ours that the zygote runs; everything else is given to bash."""


class Zygote:
    """A process that forks for each program, see page_zygote.py."""

    def __init__(self) -> None:
        script = str(Path(__file__).with_name("page_zygote.py"))
        self._process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, argv: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
        """The exit code as a shell gives it, and what was printed on both streams."""
        assert self._process.stdin is not None and self._process.stdout is not None
        output = folder.with_name(f"{folder.name}.output")
        order = {"argv": argv, "folder": str(folder), "output": str(output), "environment": environment}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return code if code >= 0 else 128 - code, output.read_text(encoding="utf-8")

    def close(self) -> None:
        self._process.communicate()


class PageRun:
    """One page in its folder. Every method raises AssertionError where the page says something else than what happens."""

    def __init__(self, zygote: Zygote, folder: Path, **environment: str) -> None:
        self._zygote, self._folder = zygote, folder
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        self._environment = {
            **kept,
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            "COLUMNS": "120",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "USER": "you",
            "LOGNAME": "you",
            **environment,
        }
        self._code = 0

    def run(self, number: int, block: Block) -> None:
        if block.language == "console":
            self._session(block)
        else:
            name = block.name or f"program{number}.py"
            (self._folder / name).write_text(block.text, encoding="utf-8")
            if block.language == "python":
                code, printed = self._zygote.run([name], self._folder, self._environment)
                assert code == 0, f"line {block.line}: {name} ended with {code}:\n{printed}"
                agree(block.line, name, block.output or "", printed)

    def _session(self, block: Block) -> None:
        for command, shown in block.commands:
            if command == "echo $?":
                printed, self._code = f"{self._code}\n", 0
            else:
                assert self._code == 0, (
                    f"line {block.line}: the command before `{command}` ended with {self._code}; the page does not show it (echo $?)"
                )
                self._code, printed = self._command(command)
            agree(block.line, command, shown, printed)
        assert self._code == 0, f"line {block.line}: the last command ended with {self._code}; the page does not show it (echo $?):\n{printed}"

    def _command(self, command: str) -> tuple[int, str]:
        words = shlex.split(command)
        if words[0] == "export":
            self._environment.update(word.split("=", 1) for word in words[1:])
            return 0, ""
        given: dict[str, str] = {}
        while "=" in words[0]:
            given.update([words.pop(0).split("=", 1)])
        is_program = words[0] in OURS and (words[0] != "python" or words[1].endswith(".py"))
        if is_program and not {"|", ">", "<", ">>", "&", ";", "&&"} & set(words):
            expanded = [os.path.expandvars(word) if word.startswith("$") else word for word in words[1:]]
            return self._zygote.run([*OURS[words[0]], *expanded], self._folder, {**self._environment, **given})
        return self._shell(command)

    def _shell(self, command: str) -> tuple[int, str]:
        path = f"{Path(sys.executable).parent}:{self._environment['PATH']}"
        environment = {**self._environment, "PATH": path}
        merged = subprocess.STDOUT
        done = subprocess.run(
            ["bash", "-c", command], cwd=self._folder, env=environment, stdout=subprocess.PIPE, stderr=merged, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout


def agree(line: int, what: str, shown: str, printed: str) -> None:
    """Check that a page shows what was printed."""
    assert pattern_of(shown).match(settled(printed)), f"line {line}: `{what}` prints\n{printed}\nand the page shows\n{shown}"
