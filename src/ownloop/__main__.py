"""`python -m ownloop` is the `ownloop` command."""

from .cli import main

main()
