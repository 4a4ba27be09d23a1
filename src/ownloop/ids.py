"""Ids at the border: `thr_01JD3N8Q0V4KC`, `stp_…_3` (the third selected step), `stp_…@name` (a named step), `int_…_12` (the request at 12)."""

from __future__ import annotations

import secrets
import time
from functools import lru_cache

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
_WIDTH = 13


def new_number() -> int:
    """A number for a thread, rising with time: 42 bits of milliseconds, 21 random ones. The store draws again if it is taken."""
    return (time.time_ns() // 1_000_000 << 21 | secrets.randbits(21)) & (1 << 63) - 1


@lru_cache(maxsize=4096)
def thread_id(number: int) -> str:
    """`thr_` and 13 characters."""
    return "thr_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (_WIDTH - 1), -1, -5))


@lru_cache(maxsize=4096)
def thread_number(id: str) -> int | None:
    """The number of a thread's id, or None if it is none."""
    body = id[4:].upper()
    if not id.startswith("thr_") or len(body) != _WIDTH or any(char not in _ALPHABET for char in body):
        return None
    number = 0
    for char in body:
        number = number << 5 | _ALPHABET.index(char)
    return number if number < 1 << 63 else None


def is_thread(id: str) -> bool:
    """Whether it has the form of a thread's id."""
    return thread_number(id) is not None


def step_id(thread: str, step: int | str) -> str:
    """The id of a selected step (by its number) or of a named step (by its name)."""
    return f"stp_{thread[4:]}_{step}" if isinstance(step, int) else f"stp_{thread[4:]}@{step}"


def step_of(id: str) -> int | str:
    """The number of a selected step, or the name of a named one."""
    return id.split("@", 1)[1] if is_named(id) else int(id.rsplit("_", 1)[1])


def is_named(id: str) -> bool:
    """Whether the step has a name that the program gave, and no selection."""
    return len(id) > 4 + _WIDTH and id[4 + _WIDTH] == "@"


def interrupt_id(thread: str, seq: int) -> str:
    """The id of the interrupt whose request stands at `seq`."""
    return f"int_{thread[4:]}_{seq}"


def interrupt_of(id: str) -> tuple[str, int] | None:
    """Thread id and position of the request, or None if it is no interrupt's id."""
    thread, _, seq = id[4:].rpartition("_")
    if not id.startswith("int_") or not seq.isdecimal() or len(seq) > 18 or thread_number("thr_" + thread) is None:
        return None
    return "thr_" + thread.upper(), int(seq)
