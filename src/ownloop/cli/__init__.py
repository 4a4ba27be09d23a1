"""The command line: one file a family of commands. Without the extra `[cli]` it says what is missing."""

from __future__ import annotations

import sys

NEEDS = ("typer", "rich")


def main() -> None:
    """The `ownloop` command: exits with the codes of `ownloop --help`."""
    try:
        import rich  # noqa: F401  # only looked for; each is loaded where it is used
        import typer  # noqa: F401
    except ImportError as error:
        print(f"ownloop: the command line is not installed ({error}); the library works without it", file=sys.stderr)
        print('next: pip install "ownloop[cli]"', file=sys.stderr)
        sys.exit(2)
    from .program import run

    sys.exit(run(sys.argv[1:]))
