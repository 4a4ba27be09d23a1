"""The picture of a thread: what stood still, what ran, what it cost; and the lines about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from ownloop.events import Event, Kind
from ownloop.server.inbox import telling
from ownloop.server.inbox.timeline import NARROWEST, WIDTH, Axis, picture

START = datetime(2026, 11, 22, 9, tzinfo=UTC)
STEP = "stp_38G4QG4Q7YJKN_1"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def event(seq: int, is_a: Any, seconds: float, step: str | None = STEP, /, op: str | None = None, by: str | None = None, **data: Any) -> Event:
    return Event(seq, is_a, at(seconds), step, op, by, data)


SELECTED = event(2, "selected", 2, intent="deploy", arguments={"tag": "v1"}, latency_ms=1500, usage={"input_tokens": 10, "output_tokens": 2})
ASKED = event(3, "request", 2, op="approval:1", kind="approval", name="deploy", arguments={"tag": "v1"}, policy={"by": ["managers"]})


def test_a_wait_a_run_and_an_answer_of_the_model_are_bars_of_their_own() -> None:
    log = [
        event(1, "input", 0, None, input="go"),
        SELECTED,
        ASKED,
        event(4, "decision", 7202, by="ana", request=3, kind="approved"),
        event(5, "started", 7202, op="run:deploy"),
        event(6, "outcome", 7204.5, op="run:deploy", value=1),
        event(7, "ended", 7204.5),
    ]
    about = picture(log, at(9000))
    lane = about.lanes[1]
    assert [(bar.kind, bar.label, (bar.end - bar.start).total_seconds()) for bar in lane.bars if bar.end] == [
        ("model", "the model", 1.5),
        ("person", "ana", 7200),
        ("run", "deploy", 2.5),
    ]
    assert lane.told(at(9000)) == "model 1.5 s · waited 2 h for ana · deploy ran 2.5 s"
    assert (lane.usage.input_tokens, about.usage.output_tokens, lane.status) == (10, 2, "ended")


def test_what_goes_on_reaches_to_now_and_says_so() -> None:
    (lane,) = picture([SELECTED, ASKED], at(62)).lanes
    assert lane.told(at(62)).endswith("waited 1 min for managers, still open")
    assert lane.bars[-1].x + lane.bars[-1].width == WIDTH


def test_a_second_and_a_week_are_both_seen() -> None:
    times = [at(0), at(1), at(1 + 7 * 86400)]
    axis = Axis(times)
    first, rest = axis.place(times[1]), WIDTH - axis.place(times[1])
    assert 0 < first < rest
    assert first > WIDTH / 30


def test_every_bar_lies_inside_and_can_be_seen() -> None:
    log = [SELECTED, ASKED, *(event(10 + one, "outcome", 2 + one / 1000, op=f"run:read{one}", value=one) for one in range(50))]
    for lane in picture(log, at(86400 * 30)).lanes:
        assert all(bar.x >= 0 and bar.x + bar.width <= WIDTH and bar.width >= NARROWEST for bar in lane.bars)


def test_a_call_in_doubt_ends_where_nobody_knows_it_any_more() -> None:
    log = [
        SELECTED,
        event(3, "started", 3, op="run:charge"),
        event(4, "request", 33, op="doubt:run:charge@3", kind="in_doubt", question="Did it?", call="run:charge", error="lost"),
    ]
    run = picture(log, at(1000)).lanes[0].bars[1]
    assert (run.end, run.is_bad, run.label) == (at(33), True, "charge (outcome unknown)")


def test_a_stretch_from_the_middle_of_a_log_is_a_picture_too() -> None:
    log = [event(5003, "decision", 1, request=4711, kind="approved"), event(5004, "outcome", 2, op="run:x", error={"type": "E", "message": "m"})]
    (lane,) = picture(log, at(3)).lanes
    assert (lane.number, lane.error, len(lane.bars)) == ("1", "E: m", 1)
    assert picture([], at(0)).lanes == []


def test_cancel_ends_what_was_open() -> None:
    lanes = picture([SELECTED, ASKED, event(4, "control", 9, None, verb="cancel")], at(1000)).lanes
    assert lanes[0].bars[-1].end == at(9)


def test_every_kind_of_event_has_a_line() -> None:
    data: dict[str, Any] = {
        "input": None,
        "text": "t",
        "intent": "i",
        "arguments": {},
        "kind": "approval",
        "request": 1,
        "name": "n",
        "data": [1],
        "verb": "pause",
    }
    for kind in get_args(Kind):
        one = Event(1, kind, START, None, None, None, data)  # type: ignore[arg-type]  # each of the closed list
        assert telling.word(one)
        assert telling.gist(one) is not None


def test_the_end_of_a_wait_is_told_in_words() -> None:
    assert telling.gist(Event(6, "outcome", START, "stp_1", "sleep", None, {"request": 5})) == "the wait is over"
    assert telling.gist(Event(6, "outcome", START, "stp_1", "child", None, {"request": 5, "value": "done"})) == "done"
