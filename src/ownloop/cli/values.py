"""Values on a command line: JSON, plain text, `-` for stdin; and asking a person who sits at the terminal."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..clock import duration
from ..events import Json
from ..inert import inert
from ..interrupts import Interrupt
from .trouble import usage


def given(text: str) -> str:
    """The text itself; for `-` what stdin holds, without its last line break."""
    return sys.stdin.read().removesuffix("\n") if text == "-" else text


def parsed(text: str, option: str) -> Json:
    """JSON, and nothing else.

    Raises:
        Trouble: with the place where it breaks.
    """
    text = given(text)
    try:
        return json.loads(text, parse_constant=_refused)
    except ValueError as error:
        raise usage(f"{option} is no JSON: {error}; what came was {text[:80]!r}") from None


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def loose(text: str) -> Json:
    """JSON, or the text itself where it is none."""
    text = given(text)
    try:
        return json.loads(text, parse_constant=_refused)
    except ValueError:
        return text


def meant(text: str, option: str) -> Json:
    """JSON, or the text itself; but what begins like an object or a list is meant to be one.

    Raises:
        Trouble: it is none.
    """
    text = given(text)
    return parsed(text, option) if text.lstrip()[:1] in ("{", "[") else loose(text)


def spoken(text: str) -> Json:
    """What a thread is started with: a JSON object or list, else the text itself."""
    text = given(text)
    value = loose(text) if text.lstrip()[:1] in ("{", "[") else text
    return value if isinstance(value, dict | list) else text


def fitting(text: str, interrupt: Interrupt) -> Json:
    """An answer: where a string is asked for the text itself (a JSON string too), else JSON if it is some."""
    value = loose(text)
    if interrupt.choices is not None:
        return value if value in interrupt.choices else given(text) if text != "-" else value
    wants_text = isinstance(interrupt.schema, dict) and interrupt.schema.get("type") == "string"
    return value if isinstance(value, str) or not wants_text or text == "-" else text


def seconds(text: str | None) -> float | None:
    """`90s`, `10m`, or a bare number of seconds."""
    return None if text is None else length(text).total_seconds()


def length(text: str) -> timedelta:
    """A duration; a bare number means seconds."""
    return duration(f"{text}s" if text.replace(".", "", 1).isdecimal() else text)


# ---- a person at the terminal ------------------------------------------------------------------------------------------------------


def ask(question: str) -> str:
    """One line from the terminal.

    Raises:
        KeyboardInterrupt: Ctrl-C, at once, although an event loop runs.
        Trouble: the input ended.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.stderr.write(inert(question, keep="\n"))
        sys.stderr.flush()
        line = sys.stdin.readline()
    finally:
        signal.signal(signal.SIGINT, before)
    if not line:
        raise usage("the input ended before an answer came; nothing was done")
    return line.strip()


def choose(question: str, offered: Sequence[str]) -> str:
    """One of some words; their first letters do."""
    while True:
        said = ask(f"{question} [{' / '.join(offered)}] ").lower()
        found = [word for word in offered if said and word.startswith(said)]
        if len(found) == 1:
            return found[0]


def edited(value: Json, about: str) -> Json:
    """The value as the person's editor leaves it.

    Raises:
        Trouble: no editor, it failed, or what it left is no JSON.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="ownloop-") as folder:
        file = Path(folder) / f"{about}.json"
        file.write_text(json.dumps(value, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")
        try:
            done = subprocess.run([*shlex.split(editor), str(file)], check=False)
        except FileNotFoundError:
            raise usage(f"the editor {editor!r} is not there; set EDITOR, or give --args JSON") from None
        if done.returncode != 0:
            raise usage(f"the editor {editor!r} ended with {done.returncode}; nothing was decided")
        return parsed(file.read_text(encoding="utf-8"), "what the editor left")
