"""A thread's story at a glance: what was chosen, who decided, what ran, how long each wait was, what it cost; and the line under it."""

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ownloop.cli.story import told
from ownloop.cli.totals import in_words, spent, totals
from ownloop.events import Event, Kind
from ownloop.stores.base import ThreadRow
from ownloop.views import ThreadView, thread_view

from .conftest import Run, environment

START = datetime(2026, 11, 3, 10, 0, tzinfo=UTC)
THREAD = "thr_01JD3N8Q0V4KC"
FIRST, SECOND = "stp_01JD3N8Q0V4KC_1", "stp_01JD3N8Q0V4KC_2"
Line = tuple[float, Kind, str | None, str | None, str | None, dict[str, Any]]

ASKED: dict[str, Any] = {"model": "gpt-5-mini", "latency_ms": 812, "finish_reason": "tool_call", "response_id": "resp_1"}
STORY: Sequence[Line] = [
    (0, "input", None, None, None, {"input": "deploy"}),
    (1, "model_failed", None, None, None, {"error": {"type": "ProviderDown", "message": "503"}, "attempt": 1, "usage": {"requests": 1}}),
    (
        2,
        "selected",
        FIRST,
        None,
        None,
        {
            "intent": "deploy",
            "arguments": {"tag": "v1"},
            "usage": {"input_tokens": 1200, "output_tokens": 80, "cost_usd": 0.0042, "requests": 2},
            "tries": [{"error": "no tag", "usage": {}}],
            **ASKED,
        },
    ),
    (
        3,
        "request",
        FIRST,
        "approval:1",
        None,
        {"kind": "approval", "name": "deploy", "arguments": {"tag": "v1"}, "policy": {"by": ["ops"]}, "digest": "d"},
    ),
    (3, "request", FIRST, "event:1", None, {"kind": "event", "event": "built", "digest": "d"}),
    (63, "delivered", FIRST, "event:1", None, {"request": 5, "payload": {}}),
    (303, "decision", FIRST, None, "ana", {"request": 4, "kind": "approved"}),
    (304, "started", FIRST, "run:deploy", None, {}),
    (306, "outcome", FIRST, "run:deploy", None, {"value": "done"}),
    (307, "ended", FIRST, None, None, {}),
    (
        307,
        "selected",
        SECOND,
        None,
        None,
        {"intent": "look", "arguments": {}, "usage": {"input_tokens": 300, "output_tokens": 20}, "finish_reason": "length"},
    ),
    (
        308,
        "outcome",
        SECOND,
        "run:look",
        None,
        {"value": "rows", "reads": True, "cached": True, "usage": {"input_tokens": 10, "output_tokens": 1, "cost_usd": 2}},
    ),
    (309, "outcome", SECOND, "run:sum", None, {"value": "rows", "reads": True, "summary": "few"}),
    (310, "outcome", SECOND, "run:bad", None, {"error": {"type": "KeyError", "message": "x"}, "reads": True}),
    (311, "turn_ended", None, None, None, {"value": "ok", "read": 1}),
]


def view_of(lines: Sequence[Line], status: Any = "done") -> ThreadView:
    events = [Event(seq, kind, START + timedelta(seconds=at), step, op, by, data) for seq, (at, kind, step, op, by, data) in enumerate(lines, 1)]
    end = events[-1]
    row = ThreadRow(THREAD, "bot", None, status, 1, end.seq, 0, 0, 1, 1, None, None, {}, None, START, end.at, end)
    return thread_view(row, events)


def lines_of(view: ThreadView) -> list[str]:
    return ["".join(one if isinstance(one, str) else one[0] for one in line.spans) for line in told(view.id, view.events)]


def test_what_was_asked_and_what_it_cost_stands_under_each_selection() -> None:
    lines = lines_of(view_of(STORY))
    assert "· gpt-5-mini, 1,200 tokens in, 80 out, $0.0042, 0.8 s, 2 tries" in lines
    assert "· 300 tokens in, 20 out, ended by length" in lines


def test_who_decided_what_ran_and_how_long_each_wait_was() -> None:
    lines = lines_of(view_of(STORY))
    assert "✓ approved by ana after 5 min" in lines
    assert "✓ event built came after 1 min → {}" in lines
    assert "✓ deploy → done  2.0 s" in lines


def test_what_came_from_the_cache_or_was_summarised_says_so() -> None:
    lines = lines_of(view_of(STORY))
    assert "✓ look → rows  from the cache  10 tokens in, 1 out, $2.00" in lines
    assert "✓ sum → rows  summarised for the model" in lines


def test_the_last_line_is_the_sum() -> None:
    sums = totals(view_of(STORY), START + timedelta(days=1))
    assert (sums.steps, sums.calls, sums.cached, sums.failed) == (2, 4, 1, 1)
    assert (sums.waited_for_people, sums.waited, sums.took) == (300.0, 60.0, 311.0)
    assert in_words(sums) == (
        "2 steps · 4 calls, 1 from the cache, 1 failed · 5 model answers, 1,510 tokens in, 101 out, $2.00 · "
        "waited 5 min for people, 1 min for clocks, events and children · 5 min 11 s in all"
    )


def test_waits_that_overlap_count_once_and_open_ones_until_now() -> None:
    question = {"kind": "question", "question": "?", "policy": {}, "digest": "d"}
    lines: list[Line] = [
        STORY[0],
        (0, "selected", FIRST, None, None, {"intent": "ask", "arguments": {}}),
        (10, "request", FIRST, "question:1", None, question),
        (20, "request", FIRST, "question:2", None, question),
        (30, "decision", FIRST, None, "ana", {"request": 3, "kind": "answered", "value": 1}),
    ]
    sums = totals(view_of(lines, "open"), START + timedelta(seconds=100))
    assert (sums.waited_for_people, sums.took) == (90.0, 100.0)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({}, ""),
        ({"usage": {"requests": 1}}, ""),
        ({"usage": {"cost_usd": 0.00001}}, "< $0.0001"),
        ({"usage": {"cost_usd": 1234.5}}, "$1,234.50"),
        ({"model": "m", "latency_ms": 90_000}, "m, 1 min 30 s"),
        ({"tries": 3, "finish_reason": "stop"}, "3 tries"),
    ],
)
def test_what_is_not_known_is_not_told(data: dict[str, Any], text: str) -> None:
    assert spent(data) == text


def test_show_ends_with_the_sum_and_json_has_it(run: Run, settled: Callable[..., list[str]]) -> None:
    (thread,) = settled("review")
    assert re.search(r"^total     1 step · 1 call · waited \S+ s for people · \S+ s in all$", run("show", thread).out, re.MULTILINE)
    found = run("show", thread, "--json").json["thread"]["totals"]
    assert (found["steps"], found["calls"], found["cost_usd"]) == (1, 1, 0.0)
    assert found["waited_for_people"] > 0


def test_a_thread_without_steps_has_no_sum(run: Run, settled: Callable[..., list[str]]) -> None:
    (thread,) = settled("fail")
    assert "total" not in run("show", thread).out


def test_on_a_terminal_of_80_columns_every_line_fits_without_colour(run: Run, settled: Callable[..., list[str]], url: str) -> None:
    threads = settled("review", "charge", "deploy")
    for thread in threads:
        for line in on_terminal(url, "show", thread).splitlines():
            plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
            assert len(plain) <= 80 or "ownloop decide" in plain  # a command is copied whole
            assert not re.search(r"\x1b\[(?:[0-9]+;)*[34][0-9]", line)


def on_terminal(url: str, *words: str) -> str:
    """What a command writes to a terminal of 80 columns."""
    main, other = pty.openpty()
    command = [sys.executable, "-m", "ownloop", *words]
    done = subprocess.Popen(
        command, env=environment(url, NO_COLOR="1", COLUMNS="80", TERM="xterm"), stdout=other, stderr=other, stdin=subprocess.DEVNULL
    )
    os.close(other)
    text = b""
    while select.select([main], [], [], 20)[0]:
        try:
            piece = os.read(main, 65536)
        except OSError:
            break
        text += piece
        if not piece:
            break
    os.close(main)
    assert done.wait(20) == 0
    return text.decode().replace("\r\n", "\n")
