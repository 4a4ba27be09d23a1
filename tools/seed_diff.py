"""How `examples/seed.py` differs from the listing of factor 8: prints the unified diff and the number of changed lines.

The listing is examples/seed_listing.txt, word for word from https://github.com/humanlayer/12-factor-agents,
content/factor-08-own-your-control-flow.md (code under Apache-2.0, text under CC BY-SA 4.0).
"""

from __future__ import annotations

import difflib
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def listing() -> list[str]:
    """The seed's lines."""
    return (EXAMPLES / "seed_listing.txt").read_text().splitlines()


def executed() -> list[str]:
    """Ours: what stands between `# fmt: off` and `# fmt: on`."""
    text = (EXAMPLES / "seed.py").read_text()
    return text.split("# fmt: off\n")[1].split("# fmt: on\n")[0].splitlines()


def diff() -> str:
    """The unified diff."""
    return "\n".join(difflib.unified_diff(listing(), executed(), "the seed's listing", "examples/seed.py", lineterm=""))


def changed() -> int:
    """Changed lines: at each place the lines that went or those that came, whichever are more."""
    places = difflib.SequenceMatcher(None, listing(), executed(), autojunk=False).get_opcodes()
    return sum(max(end - start, new_end - new) for kind, start, end, new, new_end in places if kind != "equal")


if __name__ == "__main__":
    print(diff())
    print(f"{changed()} changed lines")
