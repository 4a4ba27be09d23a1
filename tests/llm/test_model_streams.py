"""`stream=`: what listeners hear while the model still writes. The streams here are made up, in pieces of every size."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asked import ask_at
from hypothesis import given, settings
from hypothesis import strategies as st
from replay.server import Replay, chat_stream, sse

from ownloop import Intent
from ownloop.llm import ProviderDown
from ownloop.llm.streaming import Told, found


class Reply(Intent):
    """Say something to the person."""

    text: str


class Draft(Intent):
    """Write a draft."""

    title: str
    body: str


TEXT = 'Grüße! "Quoted", a back\\slash,\nnew lines, 😀 and </tags>.'


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_the_pieces_are_the_text_and_nothing_but_new_text(replay: Replay, size: int) -> None:
    tape = replay.play([chat_stream("draft", json.dumps({"title": "T", "body": TEXT}), size=size)])
    asked = await ask_at("openai_chat", tape, Draft | Reply, stream="body")
    assert asked.answer == Draft(title="T", body=TEXT)
    assert "".join(asked.heard) == TEXT
    assert all(asked.heard)


async def test_other_fields_are_not_told(replay: Replay) -> None:
    tape = replay.play([chat_stream("draft", json.dumps({"body": "shown", "title": "hidden"}))])
    assert "".join((await ask_at("openai_chat", tape, Draft, stream="body")).heard) == "shown"


async def test_plain_text_is_told_when_the_field_is_what_text_becomes(replay: Replay) -> None:
    tape = replay.play("openai_chat/stream_text_usage")
    asked = await ask_at("openai_chat", tape, Draft | Reply, stream="text")
    assert "".join(asked.heard) == asked.answer.text == '"This is a test."'


async def test_text_that_is_no_answer_is_not_told(replay: Replay) -> None:
    asked = await ask_at("openai_chat", replay.play("openai_chat/stream_text_usage"), Draft, stream="body", retries=0)
    assert asked.heard == []


async def test_json_in_the_text_is_told_from_inside(replay: Replay) -> None:
    said = json.dumps({"result": {"intent": "draft", "arguments": {"title": "T", "body": TEXT}}})
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    pieces = [said[at : at + 4] for at in range(0, len(said), 4)]
    chunks = [{**base, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
    end = {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    from replay.server import Answer

    tape = replay.play([Answer(sse(*chunks, end), headers={"content-type": "text/event-stream"})])
    asked = await ask_at("openai_chat", tape, Draft | Reply, stream="body")
    assert asked.answer == Draft(title="T", body=TEXT)
    assert "".join(asked.heard) == TEXT


async def test_a_stream_without_an_end_is_no_answer_even_if_its_call_is_whole(replay: Replay) -> None:
    tape = replay.play([chat_stream("reply", '{"text": "all of it"}', finish=None)])
    asked = await ask_at("openai_chat", tape, Reply, stream="text")
    assert isinstance(asked.answer, ProviderDown)


async def test_a_streamed_answer_that_will_not_do_is_asked_again(replay: Replay) -> None:
    tape = replay.play([chat_stream("draft", '{"title": "T"}'), chat_stream("draft", '{"title": "T", "body": "B"}')])
    asked = await ask_at("openai_chat", tape, Draft, stream="body")
    assert asked.answer == Draft(title="T", body="B")
    assert asked.heard == ["B"]
    assert asked.noted["usage"]["requests"] == 2


@settings(deadline=None)
@given(st.text(), st.integers(1, 9), st.booleans())
def test_whatever_the_text_and_wherever_it_is_cut_what_is_told_adds_up_to_it(text: str, size: int, is_ascii: bool) -> None:
    said: list[str] = []
    told = Told("body", False, "m", said.append)
    written = json.dumps({"title": "t", "body": text}, ensure_ascii=is_ascii)
    for at in range(0, len(written), size):
        told._add(0, "tool_call", _Delta(written[at : at + size]))
    assert "".join(said) == text


class _Delta:
    def __init__(self, args_delta: str) -> None:
        self.args_delta = args_delta


@pytest.mark.parametrize(
    ("value", "text"),
    [({"body": "x"}, "x"), ({"result": {"intent": "draft", "arguments": {"body": "x"}}}, "x"), ({"title": "x"}, None), ([], None), (None, None)],
)
def test_the_field_is_found_where_it_stands(value: Any, text: str | None) -> None:
    assert found(value, "body") == text
