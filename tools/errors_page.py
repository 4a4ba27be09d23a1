"""Print docs/errors.md, made from the pages of tests/wrong: `python tools/errors_page.py > docs/errors.md`."""

from pathlib import Path

WRONG = Path(__file__).resolve().parent.parent / "tests" / "wrong"
GROUPS = {
    "await": "Without `await`",
    "loop": "The loop",
    "intent": "Intents",
    "agent": "Agents",
    "app": "The App and its store",
    "tool": "Tools and their results",
    "people": "Policies and decisions",
    "verb": "Verbs",
}
"""The first word of a page's file name, and what its section is called."""


def page() -> str:
    """The whole page. Raises ValueError for a file of no section."""
    files = sorted(path for path in WRONG.glob("*.md") if path.name != "prelude.md")
    if strange := [path.name for path in files if path.stem.partition("_")[0] not in GROUPS]:
        raise ValueError(f"{', '.join(strange)}: a name begins with one of {', '.join(GROUPS)}")
    parts = [(WRONG / "prelude.md").read_text(encoding="utf-8")]
    for group, title in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += ["##" + path.read_text(encoding="utf-8") for path in files if path.stem.partition("_")[0] == group]
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
