"""What stands in a log may not act on the terminal of who reads it."""

import re
import unicodedata
from collections.abc import Callable

import pytest

from ownloop.inert import inert

from .conftest import DESK, Run

ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("pay\u200bpal", "pay\\u200bpal"),
        ("\x9b31m", "\\x9b31m"),
        ("two\nlines\r\ttab", "two\\nlines\\r\\ttab"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("\u2028\u2029\u00a0\u3164", "\\u2028\\u2029\\xa0\\u3164"),
        ("größer 東京 ✓ 🚀", "größer 東京 ✓ 🚀"),
        ("pay\ufe0f\U000e0101", "pay\\ufe0f\\U000e0101"),
        ("z" + "\u0335" * 6, "z" + "\u0335" * 4 + "\\u0335" * 2),
    ],
)
def test_what_acts_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert inert(text) == shown


def test_a_page_shows_what_a_terminal_shows() -> None:
    from ownloop.server.inbox import inert as page

    for code in (*range(0x3000), *range(0xFE00, 0xFF00), *range(0xE0000, 0xE0200)):
        assert page.plain(f"x{chr(code)}") == inert(f"x{chr(code)}")
    assert page.plain("z" + "\u0335" * 6) == inert("z" + "\u0335" * 6)


def test_no_character_of_unicode_gets_through_that_a_terminal_could_obey() -> None:
    through = [char for code in (*range(0x20000), *range(0xE0000, 0xE0200)) if inert(char := chr(code)) == char]
    assert {unicodedata.category(char) for char in through} & {"Cc", "Cf", "Cs", "Zl", "Zp"} == set()


@pytest.mark.parametrize(
    "words", [["show", "THREAD"], ["show", "THREAD", "--events"], ["inbox"], ["threads"], ["show", "THREAD", "--json"], ["export", "--all"]]
)
def test_a_hostile_question_is_inert_everywhere(run: Run, settled: Callable[..., list[str]], words: list[str]) -> None:
    thread = settled("hostile")[0]
    said = run(*[thread if word == "THREAD" else word for word in words])
    assert ACTS.search(said.out + said.err) is None
    assert "\x1b" not in said.out
    if words[0] != "threads":
        assert "\\u202e" in said.out


def test_a_hostile_error_is_inert_in_the_log_on_stderr(run: Run) -> None:
    said = run("start", "desk", "fail", "--app", DESK, "--watch", "-v")
    assert ACTS.search(said.out + said.err) is None
    assert "the model is \\x1b[31mbroken" in said.err


def test_a_terminal_that_knows_only_ascii_gets_ascii(run: Run, settled: Callable[..., list[str]], url: str) -> None:
    import subprocess
    import sys

    from .conftest import environment

    thread = settled("hostile")[0]
    plain = {**environment(url), "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "ownloop", "show", thread], env=plain, capture_output=True, check=True)
    done.stdout.decode("ascii")
    assert b"\\u202e" in done.stdout


def test_no_color_and_no_terminal_mean_no_escapes(run: Run, settled: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    thread = settled("deploy")[0]
    assert "\x1b" not in run("show", thread).out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" in run("show", thread).out
    assert "\x1b[3" not in run("show", thread, "--no-color").out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in run("show", thread).out
