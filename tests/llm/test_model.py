"""`Model`: what is asked, what counts as an answer, and what happens to one that does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from asked import ADDRESSES, Asked, Listener, ask, ask_at
from pydantic import BaseModel, Field
from replay.server import Answer, Replay, chat

from ownloop import Intent
from ownloop.intents import find_intents
from ownloop.llm import CutOff, InvalidAnswer, Model, ProviderDown, Refused, UnknownModel
from ownloop.tools import noting


class DeployBackend(Intent):
    """Deploy the backend at a tag. High stakes."""

    tag: str
    environment: Literal["staging", "production"] = "staging"


class ListGitTags(Intent):
    """List the tags that can be deployed."""


class Reply(Intent):
    """Say something to the person."""

    text: str


class Done(Intent):
    """Nothing is left to do."""

    message: str


CHOICE = DeployBackend | ListGitTags | Done
GOOD = ("deploy_backend", '{"tag": "v1"}')


async def told(replay: Replay, *answers: Answer, choice: Any = CHOICE, **options: Any) -> tuple[Asked, Any]:
    tape = replay.play(answers)
    return await ask_at("openai_chat", tape, choice, **options), tape


# ---- what is asked ---------------------------------------------------------------------------------------------------------------


async def test_each_intent_is_a_tool_and_one_must_be_called(replay: Replay) -> None:
    asked, tape = await told(replay, chat(GOOD), instructions="You deploy.", settings={"temperature": 0.5})
    assert asked.answer == DeployBackend(tag="v1")
    body = tape.requests[0].body
    assert [one["function"]["name"] for one in body["tools"]] == ["deploy_backend", "list_git_tags", "done"]
    assert body["tools"][0]["function"]["description"] == "Deploy the backend at a tag. High stakes."
    assert body["tools"][0]["function"]["parameters"]["properties"]["environment"]["enum"] == ["staging", "production"]
    assert (body["tool_choice"], body["temperature"]) == ("required", 0.5)
    assert [(one["role"], one["content"]) for one in body["messages"]] == [("system", "You deploy."), ("user", "What next?")]


@pytest.mark.parametrize("provider", ["openai_chat", "openai_responses", "anthropic", "gemini"])
async def test_every_provider_is_told_to_choose(replay: Replay, provider: str) -> None:
    recordings = {
        "openai_chat": "tool_required",
        "openai_responses": "tool_call_roundtrip",
        "anthropic": "tool_required",
        "gemini": "function_call_required",
    }
    tape = replay.play(f"{provider}/{recordings[provider]}")
    await ask_at(provider, tape, CHOICE, retries=0)
    sent = json.dumps(tape.requests[0].body)
    assert all(name in sent for name in ("deploy_backend", "list_git_tags", "done", "High stakes"))
    assert any(forced in sent for forced in ('"tool_choice": "required"', '"type": "any"', '"mode": "ANY"', '"mode": "VALIDATED"')), sent


async def test_prompt_and_instructions_may_be_functions_of_the_thread(replay: Replay) -> None:
    tape = replay.play([chat(GOOD)])

    async def instructions(thread: Any) -> str:
        return f"for {thread.id}"

    def prompt(thread: Any) -> str:
        return f"read {thread.id}"

    await ask(Model[CHOICE](ADDRESSES["openai_chat"].format(tape.url), instructions=instructions, prompt=prompt))
    assert [one["content"] for one in tape.requests[0].body["messages"]] == ["for thr_of_a_test", "read thr_of_a_test"]


async def test_a_prompt_may_be_messages_of_pydantic_ai(replay: Replay) -> None:
    from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, UserPromptPart

    history = [ModelRequest([UserPromptPart("Hello")]), ModelResponse([TextPart("Hi")]), ModelRequest([UserPromptPart("Deploy")])]
    tape = replay.play([chat(GOOD)])
    await ask(Model[CHOICE](ADDRESSES["openai_chat"].format(tape.url), prompt=lambda thread: history))
    assert [one["content"] for one in tape.requests[0].body["messages"]] == ["Hello", "Hi", "Deploy"]


async def test_a_model_without_tools_gets_the_schema_and_its_json_is_read(replay: Replay) -> None:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    tape = replay.play([chat(text=json.dumps({"result": {"intent": "deploy_backend", "arguments": {"tag": "v1"}}}))])
    profile: Any = {"supports_tools": False, "supports_json_schema_output": True}
    model = OpenAIChatModel("small", provider=OpenAIProvider(base_url=f"{tape.url}/v1"), profile=profile)
    asked = await ask(Model[CHOICE](model, prompt=lambda thread: "What next?"))
    assert asked.answer == DeployBackend(tag="v1")
    schema = tape.requests[0].body["response_format"]["json_schema"]["schema"]
    assert schema["type"] == "object", "providers want an object at the top"
    assert "deploy_backend" in json.dumps(schema)


async def test_a_model_with_neither_is_asked_in_words(replay: Replay) -> None:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    tape = replay.play([chat(text='Sure:\n```json\n{"intent": "done", "arguments": {"message": "over"}}\n```')])
    profile: Any = {"supports_tools": False, "supports_json_schema_output": False, "supports_json_object_output": False}
    model = OpenAIChatModel("smaller", provider=OpenAIProvider(base_url=f"{tape.url}/v1"), profile=profile)
    assert (await ask(Model[CHOICE](model, prompt=lambda thread: "What next?"))).answer == Done(message="over")
    assert "JSON object that's compatible with this schema" in json.dumps(tape.requests[0].body["messages"])


async def test_any_object_with_an_async_request_is_a_model() -> None:
    from pydantic_ai.messages import ModelResponse, ToolCallPart

    class Mine:
        async def request(self, messages: Any, settings: Any, parameters: Any) -> ModelResponse:
            return ModelResponse([ToolCallPart("deploy_backend", {"tag": "v1"})])

    model = Model[CHOICE](Mine(), prompt=lambda thread: "What next?", stream="tag")
    assert (await ask(model)).answer == DeployBackend(tag="v1")
    assert (model.name, model.provider) == ("Mine", "custom")


async def test_a_model_of_pydantic_ais_own_is_taken_as_it_is() -> None:
    from pydantic_ai.messages import ModelResponse, ToolCallPart
    from pydantic_ai.models.function import FunctionModel

    model = FunctionModel(lambda messages, info: ModelResponse([ToolCallPart(info.output_tools[1].name, {})]))
    assert (await ask(Model[CHOICE](model, prompt=lambda thread: "What next?"))).answer == ListGitTags()


# ---- what an answer is -----------------------------------------------------------------------------------------------------------


async def test_one_call_is_an_intent_and_several_are_a_list_in_order(replay: Replay) -> None:
    one, _ = await told(replay, chat(GOOD))
    several, _ = await told(replay, chat(("list_git_tags", ""), GOOD, ("list_git_tags", "{}")))
    assert one.answer == DeployBackend(tag="v1")
    assert several.answer == [ListGitTags(), DeployBackend(tag="v1"), ListGitTags()]


async def test_words_beside_a_call_are_no_answer_of_their_own(replay: Replay) -> None:
    asked, _ = await told(replay, chat(GOOD, text="I will deploy it now."), choice=CHOICE | Reply)
    assert asked.answer == DeployBackend(tag="v1")


async def test_text_is_the_intent_whose_only_required_field_is_text(replay: Replay) -> None:
    asked, _ = await told(replay, chat(text="Which tag?"), choice=CHOICE | Reply)
    assert asked.answer == Reply(text="Which tag?")


class Short(Intent):
    """Say something short."""

    text: str = Field(max_length=10)


async def test_text_that_the_intent_does_not_accept_is_asked_again(replay: Replay) -> None:
    asked, _ = await told(replay, chat(text="Far too long for it."), chat(text="Short."), choice=CHOICE | Short)
    assert asked.answer == Short(text="Short.")


async def test_text_never_becomes_an_intent_that_only_happens_to_take_a_string(replay: Replay) -> None:
    asked, tape = await told(replay, chat(text="I am not sure what to do."), chat(GOOD))
    assert asked.answer == DeployBackend(tag="v1"), "not Done(message=…), which would have ended the turn"
    assert "Call one of: deploy_backend, list_git_tags, done" in tape.requests[1].body["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"intent": "deploy_backend", "arguments": {"tag": "v1"}}', DeployBackend(tag="v1")),
        ('{"name": "deploy_backend", "arguments": {"tag": "v1"}}', DeployBackend(tag="v1")),
        ('```json\n{"tag": "v1"}\n```', DeployBackend(tag="v1")),
        ('{"message": "over"}', Done(message="over")),
        ('[{"intent": "list_git_tags"}, {"tag": "v1"}]', [ListGitTags(), DeployBackend(tag="v1")]),
    ],
)
async def test_json_in_the_text_is_the_choice_it_names_or_the_only_one_it_fits(replay: Replay, text: str, wanted: Any) -> None:
    asked, _ = await told(replay, chat(text=text), retries=0)
    assert asked.answer == wanted


class Say(Intent):
    message: str


async def test_json_that_fits_two_intents_is_asked_again_and_not_guessed(replay: Replay) -> None:
    asked, _ = await told(replay, chat(text='{"message": "over"}'), choice=Done | Say, retries=0)
    assert isinstance(asked.answer, InvalidAnswer)
    assert "fits done and say" in str(asked.answer)


# ---- asked again -----------------------------------------------------------------------------------------------------------------

WRONG = {
    "a missing field": (chat(("deploy_backend", "{}")), "deploy_backend: tag: Field required"),
    "a value that is not allowed": (chat(("deploy_backend", '{"tag": "v1", "environment": "moon"}')), "Input should be 'staging' or 'production'"),
    "a field nobody asked for": (chat(("list_git_tags", '{"all": true}')), "all: Extra inputs are not permitted (it was true)"),
    "broken JSON": (chat(("deploy_backend", '{"tag": "v1"')), "Invalid JSON: EOF"),
    "an unknown name": (chat(("drop_database", "{}")), "There is no drop_database. Call one of: deploy_backend, list_git_tags, done"),
    "text": (chat(text="Which one?"), "The answer was text."),
    "broken JSON in the text": (chat(text='{"intent": "done", "arguments": {'), "broken JSON"),
    "nothing": (chat(text=""), "The answer was empty."),
}


@pytest.mark.parametrize("what", WRONG)
async def test_an_answer_that_will_not_do_is_asked_again_with_the_reason(replay: Replay, what: str) -> None:
    bad, why = WRONG[what]
    asked, tape = await told(replay, bad, chat(GOOD))
    assert asked.answer == DeployBackend(tag="v1")
    assert len(tape) == 2
    assert why in tape.requests[1].body["messages"][-1]["content"]
    assert asked.noted["tries"] == [{"error": asked.noted["tries"][0]["error"], "usage": {**asked.noted["tries"][0]["usage"], "input_tokens": 100}}]
    assert why in asked.noted["tries"][0]["error"]
    usage = asked.noted["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["requests"]) == (200, 20, 2), "both answers were paid"
    assert asked.noted["prompt_tokens"] == 100, "of the last request"


async def test_one_wrong_call_spoils_the_whole_answer_and_every_call_is_answered(replay: Replay) -> None:
    asked, tape = await told(replay, chat(GOOD, ("deploy_backend", "{}")), chat(GOOD, GOOD))
    assert asked.answer == [DeployBackend(tag="v1")] * 2
    call, first, second = tape.requests[1].body["messages"][-3:]
    assert [one["id"] for one in call["tool_calls"]] == [first["tool_call_id"], second["tool_call_id"]]
    assert "Not taken" in first["content"]
    assert "Field required" in second["content"]


async def test_after_the_last_try_it_is_an_error_that_says_what_was_wrong(replay: Replay) -> None:
    asked, tape = await told(replay, chat(text="Hm."), retries=2)
    assert isinstance(asked.answer, InvalidAnswer)
    assert not asked.answer.transient
    assert str(asked.answer) == (
        "openai:gpt-4o-mini gave no valid answer: 3 tries, the last: The answer was text. Call one of: deploy_backend, list_git_tags, done; "
        'write nothing else. It wrote: "Hm.". Make the intents plainer, allow more retries= or use another model, then retry the thread'
    )
    assert len(tape) == 3
    assert len(asked.noted["tries"]) == 3
    assert asked.noted["usage"]["requests"] == 3


async def test_retries_0_asks_once(replay: Replay) -> None:
    _, tape = await told(replay, chat(text="Hm."), retries=0)
    assert len(tape) == 1


@pytest.mark.parametrize(
    ("provider", "recording", "carried"),
    [
        ("anthropic", "anthropic/tool_with_thinking", '"type": "thinking"'),
        ("gemini", "gemini/function_call_required", "thoughtSignature"),
        ("openai_responses", "openai_responses/tool_call_roundtrip", '"type": "reasoning"'),
    ],
)
async def test_thinking_goes_back_with_the_answer_that_is_refused(replay: Replay, provider: str, recording: str, carried: str) -> None:
    from replay.server import recorded

    tape = replay.play([recorded(recording)[0]])
    asked = await ask_at(provider, tape, CHOICE, retries=1)
    assert isinstance(asked.answer, InvalidAnswer)
    assert carried not in json.dumps(
        tape.requests[0].body["messages" if provider == "anthropic" else "contents" if provider == "gemini" else "input"]
    )
    assert carried in json.dumps(tape.requests[1].body)
    assert "There is no get_" in json.dumps(tape.requests[1].body)


# ---- how an answer ends -----------------------------------------------------------------------------------------------------------


async def test_an_answer_that_was_cut_off_is_never_used_even_if_it_looks_whole(replay: Replay) -> None:
    asked, tape = await told(replay, chat(GOOD, finish="length"))
    assert isinstance(asked.answer, CutOff)
    assert "max_tokens" in str(asked.answer)
    assert (len(tape), asked.noted["usage"]["requests"]) == (1, 1)


async def test_a_filtered_answer_is_a_refusal(replay: Replay) -> None:
    asked, _ = await told(replay, chat(text="…", finish="content_filter"))
    assert isinstance(asked.answer, Refused)


async def test_an_unknown_finish_reason_does_not_hide_a_whole_call(replay: Replay) -> None:
    asked, _ = await told(replay, chat(GOOD, finish="eos"))
    assert asked.answer == DeployBackend(tag="v1")


async def test_an_error_inside_an_http_200_is_that_error(replay: Replay) -> None:
    body = {"error": {"message": "upstream is overloaded", "code": 503}}
    asked, _ = await told(replay, Answer(body, headers={"content-type": "application/json"}))
    assert isinstance(asked.answer, ProviderDown)
    assert "upstream is overloaded" in str(asked.answer)


# ---- limits ----------------------------------------------------------------------------------------------------------------------


class Limit:
    def __init__(self) -> None:
        self.admitted: list[tuple[int, int]] = []
        self.corrected: list[tuple[int | None, str | None]] = []

    async def admit(self, thread: Any, *, requests: int, tokens: int) -> int:
        self.admitted.append((requests, tokens))
        return len(self.admitted)

    async def correct(self, ticket: int, *, tokens: int | None, headers: Any) -> None:
        assert ticket == len(self.admitted)
        self.corrected.append((tokens, (headers or {}).get("x-ratelimit-remaining-requests")))


async def test_every_request_passes_the_limits_and_is_corrected_by_what_it_took(replay: Replay) -> None:
    limit = Limit()
    answers = [chat(text="Hm."), Answer(chat(GOOD).body, headers={"content-type": "application/json", "x-ratelimit-remaining-requests": "7"})]
    await told(replay, *answers, limits=[limit], settings={"max_tokens": 500})
    assert [requests for requests, _ in limit.admitted] == [1, 1]
    assert all(tokens > 500 for _, tokens in limit.admitted)
    assert limit.corrected == [(110, None), (110, "7")]


async def test_what_a_provider_refused_took_no_tokens(replay: Replay) -> None:
    limit = Limit()
    await told(replay, Answer({"error": {"message": "slow down"}}, 429, {"x-ratelimit-remaining-requests": "0"}), limits=[limit])
    assert limit.corrected == [(0, "0")]


# ---- making one -------------------------------------------------------------------------------------------------------------------


def test_the_intents_are_known_before_anything_is_asked() -> None:
    model = Model[CHOICE]("openai:gpt-5-mini")
    assert model.intents == (DeployBackend, ListGitTags, Done)
    assert find_intents(model) == model.intents
    assert repr(model) == "Model[DeployBackend | ListGitTags | Done]('openai:gpt-5-mini')"
    assert isinstance(model, Model)


def test_a_model_that_does_not_know_its_choice_says_how_to_write_it() -> None:
    with pytest.raises(TypeError, match=r"write Model\[A \| B\]"):
        Model("openai:gpt-5-mini")
    with pytest.raises(TypeError, match="is not a choice of intents"):
        Model[str]("openai:gpt-5-mini")  # type: ignore[type-var]


@pytest.mark.parametrize("name", ["gpt-5-mini", "openai:", ":gpt-5-mini"])
def test_a_name_without_a_provider_is_refused_when_it_is_written(name: str) -> None:
    with pytest.raises(UnknownModel, match='Name it "provider:model"'):
        Model[Done](name)


def test_a_field_that_no_intent_has_cannot_be_streamed() -> None:
    with pytest.raises(ValueError, match="stream='body': no intent"):
        Model[CHOICE]("openai:gpt-5-mini", stream="body")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("ollama:llama3.2", "/chat/completions"),
        ("vllm:qwen", "/chat/completions"),
        ("llamacpp:any", "/chat/completions"),
        ("openai-responses:m", "/responses"),
    ],
)
async def test_servers_of_your_own_are_reached_by_name_and_address(replay: Replay, name: str, path: str) -> None:
    recording = "openai_responses/tool_call_roundtrip" if "responses" in name else None
    tape = replay.play(recording or [chat(GOOD)])
    await ask(Model[CHOICE](f"{name}@{tape.url}/v1", prompt=lambda thread: "What next?", retries=0))
    assert [request.path for request in tape.requests] == [f"/v1{path}"]
    assert "key-of-the-tests" not in tape.requests[0].headers.get("authorization", "") or name.startswith("openai")


async def test_an_address_may_come_from_the_environment(replay: Replay, monkeypatch: pytest.MonkeyPatch) -> None:
    tape = replay.play([chat(GOOD)])
    monkeypatch.setenv("OLLAMA_BASE_URL", f"{tape.url}/v1")
    assert (await ask(Model[CHOICE]("ollama:llama3.2", prompt=lambda thread: "What next?"))).answer == DeployBackend(tag="v1")


def test_one_model_serves_one_event_loop_after_another(replay: Replay) -> None:
    import asyncio

    tape = replay.play([chat(GOOD)])
    model = Model[CHOICE](ADDRESSES["openai_chat"].format(tape.url), prompt=lambda thread: "What next?")

    async def once() -> Any:
        with noting({}):
            return await model(Listener())

    assert [asyncio.run(once()) for _ in range(3)] == [DeployBackend(tag="v1")] * 3


def test_importing_the_models_side_imports_no_sdk() -> None:
    program = "import sys, ownloop.llm; ownloop.llm.Model; print({name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert not {"pydantic_ai", "openai", "anthropic", "google", "genai_prices", "httpx2"} & eval(done.stdout)


def test_without_the_extra_it_says_what_to_install() -> None:
    program = (
        "import sys, asyncio; sys.modules['pydantic_ai'] = None\n"
        "from ownloop import Intent\nfrom ownloop.llm import Model\nclass A(Intent): ...\n"
        "asyncio.run(Model[A]('openai:m', prompt=lambda thread: '')(None))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'ownloop[llm]'" in done.stderr


ROOT = Path(__file__).resolve().parents[2]
TYPED = """
from ownloop import App, Intent, Thread
from ownloop.llm import Model

class A(Intent):
    x: int

class B(Intent):
    y: int

decide = Model[A | B]("openai:gpt-5-mini")

def rules(thread: Thread) -> A | B:
    return A(x=1)

def several(thread: Thread) -> list[A | B]:
    return [A(x=1)]

app = App("memory://")

@app.agent
async def handler(thread: Thread) -> None:
    reveal_type(await thread.next_step(decide))
    reveal_type(await thread.next_step(rules))
    reveal_type(await thread.next_step(several))

async def follow() -> object:
    async for event in app.stream(await app.start(handler)):
        if event.kind == "request":
            return event.data
    return None
"""
NOT_ASYNC = """
from ownloop import App, Thread

@App("memory://").agent
def handler(thread: Thread) -> None:
    pass
"""


def test_a_type_checker_knows_the_step_of_a_decider_and_what_is_followed_and_refuses_a_handler_that_is_not_async(tmp_path: Path) -> None:
    program, wrong = tmp_path / "program.py", tmp_path / "wrong.py"
    program.write_text(TYPED)
    wrong.write_text(NOT_ASYNC)
    mypy = subprocess.run([sys.executable, "-m", "mypy", str(program), str(wrong)], cwd=ROOT, capture_output=True, text=True)
    assert mypy.stdout.count('Revealed type is "ownloop.step.Step[program.A | program.B]"') == 3, mypy.stdout
    assert "Found 1 error in 1 file" in mypy.stdout and 'cannot be "Callable[[Thread[Any]], None]"' in mypy.stdout
    pyright = subprocess.run([sys.executable, "-m", "pyright", "--pythonpath", sys.executable, program, wrong], capture_output=True, text=True)
    assert pyright.stdout.count('is "Step[A | B]"') == 3, pyright.stdout
    assert "1 error," in pyright.stdout and "wrong.py:4:" in pyright.stdout


# ---- ask, which judges and summaries are made of -----------------------------------------------------------------------------------


async def test_ask_gives_text_or_an_instance_of_a_schema(replay: Replay) -> None:
    from ownloop.llm.asking import ask as ask_once

    class Verdict(BaseModel):
        passed: bool

    text = replay.play([chat(text=""), chat(text="A summary.")])
    assert await ask_once(ADDRESSES["openai_chat"].format(text.url), instructions="Sum up.", prompt="…") == "A summary."
    assert len(text) == 2, "an empty answer is asked again"
    assert "tools" not in text.requests[0].body

    verdict = replay.play([chat(("verdict", '{"passed": "maybe"}')), chat(("verdict", '{"passed": true}'))])
    noted: dict[str, Any] = {}
    with noting(noted):
        found = await ask_once(ADDRESSES["openai_chat"].format(verdict.url), prompt="…", schema=Verdict)
    assert found == Verdict(passed=True)
    assert (noted["usage"]["requests"], len(noted["tries"])) == (2, 1)


async def test_a_watcher_is_told_of_every_request(replay: Replay) -> None:
    from contextlib import contextmanager

    from ownloop import watch

    seen: list[Any] = []

    class Watcher(watch.Watch):
        @contextmanager
        def asking(self, model: Any, thread: Any, messages: Any = ()) -> Any:
            yield SimpleNamespace(answered=lambda response: seen.append((model.name, thread.id, len(messages), response.model_name)))

    watch.use(Watcher())
    try:
        await told(replay, chat(text="Hm."), chat(GOOD))
    finally:
        watch.use(None)
    assert seen == [("gpt-4o-mini", "thr_of_a_test", number, "gpt-4o-mini") for number in (1, 3)], "what it was asked, and asked again"
