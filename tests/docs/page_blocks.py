"""A page of the docs as a list of blocks: what is a program, what is a session of a shell, what was printed.

- ```` ```python ````: a program, saved under the name in its first line (`# deploybot.py`) and run; ```` ```text ```` right after it is what it
  prints.
- ```` ```console ````: lines with `$ ` are commands, the others what they print. Ids, times and durations are those of another run; `…` in a printed
  line stands for any text in that line, a line of only `…` for any lines.
- `<!-- not run: reason -->` before a block says why it is only shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- not run: (.+?) -->\s*\Z", re.DOTALL)
_NAME = re.compile(r"# (\S+\.\w+)\n")


@dataclass
class Block:
    language: str
    text: str
    line: int
    mark: str | None
    output: str | None = None
    name: str | None = field(init=False)

    def __post_init__(self) -> None:
        found = _NAME.match(self.text)
        self.name = found[1] if found else None

    @property
    def commands(self) -> Iterator[tuple[str, str]]:
        """Of a console block: each command with what it prints."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            while command.endswith("\\"):
                more, _, printed = printed.partition("\n")
                command = command[:-1] + more.removeprefix("> ")
            yield command, printed


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in order; a `text` block right after a program is its output and no block of its own."""
    source, found, end = page.read_text(encoding="utf-8"), list[Block](), 0
    for match in _FENCE.finditer(source):
        before = source[end : match.start()]
        mark = _MARK.search(before)
        block = Block(match[1], match[2], source.count("\n", 0, match.start()) + 1, mark[1] if mark else None)
        if block.language == "text" and not before.strip() and found and found[-1].language == "python":
            found[-1].output = block.text
        else:
            found.append(block)
        end = match.end()
    return found


_VARYING = [
    (re.compile(r"\b(thr|int|stp)_[0-9A-Z]+(_\d+)*"), r"\1_ID"),
    (re.compile(r"\d{4}-\d\d-\d\d"), "DATE"),
    (re.compile(r"\d\d:\d\d:\d\d(\.\d+)?"), "TIME"),
    (re.compile(r"\b\d+(\.\d+)? ?(ms|s|min|h|d)\b( \d+ (s|min|h))*"), "DURATION"),
    (re.compile(r"(?<=\S)  +"), "  "),
]


def settled(printed: str) -> str:
    """The same text for every run: ids, dates, times and durations by what they are, columns two spaces apart."""
    for what, name in _VARYING:
        printed = what.sub(name, printed)
    return "".join(f"{line.rstrip()}\n" for line in printed.rstrip().splitlines())


def pattern_of(printed: str) -> re.Pattern[str]:
    """What a program may print, once it is settled, where a page shows this."""
    lines = []
    for line in settled(printed).splitlines():
        lines.append(r"(?:[^\n]*\n)*?" if line == "…" else re.escape(line).replace("…", "[^\n]*?") + r"\n")
    return re.compile("".join(lines) + r"\Z")
