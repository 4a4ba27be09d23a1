"""Logs: fields, forms, levels, and no secret in them."""

import base64
import io
import json
import logging
import secrets
import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ownloop import App, Thread, watch
from ownloop.errors import AlreadyDecided
from ownloop.interrupts import Actor
from ownloop.telemetry import logs
from ownloop.telemetry.redaction import HIDDEN, redacted, redacted_json
from ownloop.testing import FakeClock, drive

from .robot import SECRET, Deploy, robot_on

MANAGER = Actor("ana", ("managers",))


class Said(io.StringIO):
    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def one(self, part: str) -> dict[str, Any]:
        (line,) = [line for line in self.lines if part in line["message"]]
        return line


async def run_through(input: str = "", **more: Any) -> str:
    clock = FakeClock()
    async with drive(robot_on(App("memory://", clock=clock, **more)), clock) as d:
        thread = await d.start("robot", input)
        await d.settle()
        if input == "":
            clock.advance("90s")
            waiting = await d.interrupt(thread)
            await d.approve(waiting, by=MANAGER)
            with pytest.raises(AlreadyDecided):
                await d.reject(waiting, by="eve")
            await d.settle()
        return thread


async def test_lines_of_the_program_carry_thread_step_and_agent() -> None:
    said = Said()
    logs.configure("json", "info", said)
    thread = await run_through()
    line = said.one("deploying")
    assert line["logger"] == "robot" and line["level"] == "info" and line["time"].endswith("Z")
    assert (line["thread"], line["step"], line["agent"]) == (thread, f"stp_{thread[4:]}_1", "robot")
    assert "trace_id" not in line


async def test_a_line_of_the_handler_between_calls_knows_its_thread_and_open_step() -> None:
    said, clock = Said(), FakeClock()
    logs.configure("json", stream=said)
    async with drive(robot_on(App("memory://", clock=clock), lambda: logging.getLogger("mine").warning("here")), clock) as d:
        thread = await d.start("robot", "read")
        await d.settle()
    assert (said.one("here")["thread"], said.one("here")["step"]) == (thread, f"stp_{thread[4:]}_1")


async def test_where_no_step_is_open_or_several_are_a_line_names_none() -> None:
    said, clock = Said(), FakeClock()
    logs.configure("json", stream=said)
    app = App("memory://", clock=clock)

    async def decide(thread: Thread) -> list[Deploy]:
        logging.getLogger("mine").warning("choosing")
        return [Deploy(tag="a"), Deploy(tag="b")]

    @app.agent(intents=Deploy)
    async def pair(thread: Thread) -> None:
        step = await thread.next_step(decide)
        logging.getLogger("mine").warning("chosen")
        await step.close()

    async with drive(app, clock) as d:
        await d.start(pair)
        await d.settle()
    assert [(line["message"], "step" in line) for line in said.lines if line["logger"] == "mine"] == [("choosing", False), ("chosen", False)]


async def test_a_library_line_outside_a_wake_names_the_thread_it_speaks_of() -> None:
    said, thread = Said(), "thr_01JD3N8Q0V4KC"
    logs.configure("json", stream=said)
    logging.getLogger("ownloop").error("a wake of %s could not be run", thread)
    assert said.lines[0]["thread"] == thread


async def test_what_happens_is_told_at_levels_that_make_sense() -> None:
    said = Said()
    logs.configure("json", "debug", said)
    thread = await run_through()
    await run_through("doubtful")
    await run_through("broken")
    told = [(line["level"], line["message"].replace(thread, "T").replace(thread[4:], "T")) for line in said.lines]
    for expected in [
        ("debug", "T: a wake begins"),
        ("info", "stp_T_1 selected: deploy"),
        ("info", "stp_T_1 waits: approval of deploy"),
        ("info", "int_T_3 of T was approved by ana after 90.0 s"),
        ("debug", "run:deploy starts in stp_T_1"),
        ("info", "run:deploy in stp_T_1 is done"),
        ("info", "T: turn 1 ends"),
    ]:
        assert expected in told
    levels = {line["message"].split(" ", 1)[1]: line["level"] for line in said.lines}
    assert [level for text, level in levels.items() if "was refused: interrupt" in text] == ["warning"]
    assert levels["waits: in doubt of deploy"] == "warning"
    assert [level for text, level in levels.items() if "failed: RuntimeError" in text] == ["warning"]


async def test_the_level_is_kept() -> None:
    said = Said()
    logs.configure("json", "warning", said)
    await run_through("read")
    assert said.getvalue() == ""


async def test_an_error_is_one_json_line_with_its_traceback() -> None:
    said = Said()
    logs.configure("json", stream=said)
    await run_through("crash")
    (line,) = [line for line in said.lines if line["level"] == "error"]
    assert line["error"]["type"] == "ValueError" and "robot.py" in line["error"]["trace"]


async def test_lines_for_people_have_the_fields_and_act_on_no_terminal() -> None:
    said = Said()
    logs.configure("console", stream=said)
    thread = await run_through()
    logging.getLogger("mine").warning("evil \x1b[2J and \u202e", extra={"tenant": "acme"})
    lines = said.getvalue().splitlines()
    assert any(f"INFO    robot  deploying with password=***  thread={thread} step=stp_" in line and "agent=robot" in line for line in lines)
    assert lines[-1].endswith("WARNING mine  evil \\x1b[2J and \\u202e  tenant=acme")


async def test_the_apps_redact_holds_for_every_line_of_its_wakes() -> None:
    said = Said()
    logs.configure("json", stream=said)
    await run_through("crash", redact=lambda value: json.loads(json.dumps(value).replace(SECRET, "[hidden]")))
    assert "[hidden]" in said.getvalue() and SECRET not in said.getvalue()


async def test_a_redact_that_fails_withholds_the_line() -> None:
    said = Said()
    logs.configure("json", stream=said)

    def redact(value: Any) -> Any:
        if "deploying" in str(value):
            raise KeyError
        return value

    await run_through(redact=redact)
    assert said.one("withheld")["message"] == "(withheld: redact failed with KeyError)"


async def test_with_tracing_a_line_names_its_trace(tracers: Any, instrument: Callable[..., None], collector: Any) -> None:
    instrument()
    said = Said()
    logs.configure("json", stream=said)
    await run_through()
    call = collector.one("execute_tool deploy")
    assert (said.one("deploying")["trace_id"], said.one("deploying")["span_id"]) == (call.trace, call.id)


async def test_the_filter_serves_handlers_of_your_own() -> None:
    said, handler = io.StringIO(), logging.StreamHandler()
    handler.setStream(said)
    handler.addFilter(logs.Fields())
    handler.setFormatter(logging.Formatter("%(thread_id)s %(step_id)s %(agent)s %(message)s"))
    logs.configure("json", "info", Said())
    logging.getLogger("robot").addHandler(handler)
    try:
        thread = await run_through()
    finally:
        logging.getLogger("robot").removeHandler(handler)
    assert said.getvalue().startswith(f"{thread} stp_{thread[4:]}_1 robot deploying")


def test_configuring_twice_writes_once_and_undoing_it_restores_everything() -> None:
    before, level, said = list(logging.root.handlers), logging.root.level, Said()
    logs.configure("json", "debug", said)
    logs.configure("json", "debug", said)
    logging.getLogger("mine").warning("once")
    assert len(said.lines) == 1
    logs.unconfigure()
    assert (logging.root.handlers, logging.root.level, type(watch.current)) == (before, level, watch.Watch)


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert not logs.from_environment()
    monkeypatch.setenv("OWNLOOP_LOG_FORMAT", "json")
    monkeypatch.setenv("OWNLOOP_LOG_LEVEL", "warning")
    assert logs.from_environment()
    logging.getLogger("mine").info("not this")
    logging.getLogger("mine").warning("this")
    assert json.loads(capsys.readouterr().err)["message"] == "this"
    monkeypatch.setenv("OWNLOOP_LOG_FORMAT", "xml")
    with pytest.raises(ValueError, match="OWNLOOP_LOG_FORMAT=xml is none of console, json"):
        logs.configure()


# ---- secrets -------------------------------------------------------------------------------------------------------------------

URLSAFE = string.ascii_letters + string.digits + "_-"
bodies = st.text(URLSAFE, min_size=24, max_size=60).filter(lambda body: body.strip("-_") == body)
passwords = st.text(string.ascii_letters + string.digits + "!$%^*+._~:@#-", min_size=6, max_size=30)
around = st.text(string.printable, max_size=40).map(lambda text: f"{text} ")
SHAPES: list[tuple[str, Any]] = [
    ("Authorization: Bearer {}", bodies),
    ("authorization='Bearer {}'", bodies),
    ("basic {}", bodies),
    ("key sk-{} is wrong", bodies),
    ("Incorrect API key provided: sk-proj-{}.", bodies),
    ("sk-ant-api03-{}", bodies),
    ("token ownloop_{}", bodies),
    ("whsec_{}", st.binary(min_size=24, max_size=64).map(lambda body: base64.b64encode(body).decode())),
    ("postgresql://app:{}@db.internal:5432/x", passwords),
    ("https://{}@example.org/".replace("{}", "user:{}"), passwords),
    ("ghp_{}", st.text(string.ascii_letters + string.digits, min_size=30, max_size=40)),
    ("OPENAI_API_KEY={}", bodies),
    ('{{"api_key": "{}", "n": 1}}', bodies),
    ("password={}", bodies),
    ("client_secret: {}", bodies),
    ("?access_token={}&page=2", bodies),
]


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(SHAPES), around, around)
def test_no_secret_of_a_known_form_is_logged(data: Any, shape: tuple[str, Any], before: str, after: str) -> None:
    form, bodies = shape
    secret = data.draw(bodies)
    assume(secret not in written(before, "", after))
    said = written(before, form.format(secret), after)
    assert secret not in said and HIDDEN in said


def written(before: str, text: str, after: str) -> str:
    """A line with a text in its message, its error and its extras, in both forms."""
    said = Said()
    handler = logging.StreamHandler(said)
    for formatter in (logs.JsonFormatter(), logs.ConsoleFormatter()):
        handler.setFormatter(formatter)
        try:
            raise RuntimeError(before + text)
        except RuntimeError as error:
            failure = (type(error), error, error.__traceback__)
        record = logging.LogRecord("x", 20, "x.py", 1, "%s", (f"{before}{text} {after}",), failure)
        record.about = {"deep": [text]}
        handler.emit(record)
    return said.getvalue()


@pytest.mark.parametrize(
    "text", ["stp_01JD3N8Q0V4KC_1 selected: deploy", "max_tokens=4096, input_token: 12", "https://example.org:8080/a/b?c=d@e", "it asks sk- of"]
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_fields_that_are_named_like_a_secret_are_hidden_whatever_they_hold() -> None:
    token = secrets.token_urlsafe(32)
    assert redacted_json({"password": "x", "db": {"Api-Key": token}, "n": 3}) == {"password": HIDDEN, "db": {"Api-Key": HIDDEN}, "n": 3}
