"""What comes in: only from who holds the secret, once, and also before anybody waits for it."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from ownloop import App, Intent, Thread
from ownloop.server.webhooks import Decide, Emit, Hooks, NotVerified, Request, Send, new_secret
from ownloop.testing import FakeClock, ScriptedModel, drive


class WaitForPayment(Intent):
    """Wait until it is paid."""

    order: str = "o1"


class Reply(Intent):
    """Say something."""


SECRET = new_secret()


def signed(body: bytes, *, secret: str = SECRET, id: str = "msg_1", at: datetime | None = None) -> Mapping[str, str]:
    """Headers by the PyPI library, which knows nothing of ours."""
    moment = at or datetime.now(UTC)
    return {"Webhook-Id": id, "Webhook-Timestamp": str(int(moment.timestamp())), "Webhook-Signature": Webhook(secret).sign(id, moment, body.decode())}


def make(clock: FakeClock, model: ScriptedModel) -> tuple[App, Hooks]:
    app, hooks = App("memory://", clock=clock), Hooks()

    @app.agent
    async def seller(thread: Thread) -> str:
        while True:
            step = await thread.next_step(model)
            match step.intent:
                case WaitForPayment(order=order):
                    payment = await step.wait_for("paid", key=order)
                    return f"paid {payment['amount']}"
                case _:
                    return "hello"

    @hooks.on("shop", secrets=SECRET)
    async def shop(request: Request) -> list[Emit]:
        return [Emit("paid", {"amount": request.body["amount"]}, key=request.body["order"])]

    @hooks.on("chat", secrets=[SECRET])
    def chat(request: Request) -> Send:
        return Send(("seller", request.body["thread"]), request.body["text"], by=request.body["from"])

    return app, hooks


async def test_a_webhook_that_comes_before_anybody_waits_is_kept() -> None:
    clock = FakeClock(datetime.now(UTC))
    app, hooks = make(clock, ScriptedModel([Reply(), WaitForPayment()]))
    body = b'{"order": "o1", "amount": 5}'
    async with drive(app, clock) as d:
        thread = await d.start("seller")
        await d.settle()
        assert await hooks.take(app, "shop", body, json.loads, signed(body))
        assert not await hooks.take(app, "shop", body, json.loads, signed(body)), "the second delivery changes nothing"
        await d.send(thread, "and now wait")
        await d.settle()
        assert (await d.show(thread)).result == "paid 5"


async def test_a_second_delivery_sends_no_second_message_even_if_the_first_was_not_remembered() -> None:
    clock = FakeClock(datetime.now(UTC))
    app, hooks = make(clock, ScriptedModel([Reply(), Reply(), Reply()]))
    body = json.dumps({"thread": "t1", "text": "hi", "from": "ann"}).encode()
    async with drive(app, clock) as d:
        thread = await d.start("seller", key="t1")
        await d.settle()
        await hooks.take(app, "chat", body, json.loads, signed(body))
        for key in await app.store.records("hook"):
            await app.store.drop("hook", key)  # as if the process had died before it remembered
        await hooks.take(app, "chat", body, json.loads, signed(body))
        await d.settle()
        messages = [event for event in (await d.show(thread)).events if event.kind == "message"]
        assert [(event.data["text"], event.by) for event in messages] == [("hi", "ann")]


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        (lambda body: signed(body, secret=new_secret()), "no signature fits"),
        (lambda body: signed(body + b" "), "no signature fits"),
        (lambda body: signed(body, at=datetime.now(UTC) - timedelta(minutes=6)), "5 minutes"),
        (lambda body: signed(body, at=datetime.now(UTC) + timedelta(minutes=6)), "5 minutes"),
        (lambda body: {**signed(body), "Webhook-Timestamp": "soon"}, "no number"),
        (lambda body: {**signed(body), "Webhook-Signature": "v1,AAAA v2,BBBB"}, "no signature fits"),
        (lambda body: {}, "all needed"),
    ],
)
async def test_a_request_that_is_not_genuine_is_refused_and_changes_nothing(headers: object, says: str) -> None:
    clock = FakeClock(datetime.now(UTC))
    app, hooks = make(clock, ScriptedModel([WaitForPayment()]))
    body = b'{"order": "o1", "amount": 5}'
    async with drive(app, clock) as d:
        thread = await d.start("seller")
        await d.settle()
        with pytest.raises(NotVerified, match=says):
            await hooks.take(app, "shop", body, json.loads, headers(body))  # type: ignore[operator]
        await d.settle()
        assert (await d.show(thread)).status == "open"
        assert [event.kind for event in (await d.show(thread)).events] == ["input", "selected", "request"]


async def test_an_old_secret_is_good_until_it_is_taken_away() -> None:
    old, new = new_secret(), new_secret()
    app, body = App("memory://"), b"{}"
    rotating, rotated = Hooks(), Hooks()
    rotating.on("x", secrets=[new, old])(lambda request: None)
    rotated.on("x", secrets=[new])(lambda request: None)
    await app.store.open()
    assert await rotating.take(app, "x", body, json.loads, signed(body, secret=old))
    with pytest.raises(NotVerified):
        await rotated.take(app, "x", body, json.loads, signed(body, secret=old, id="msg_2"))
    await app.aclose()


async def test_a_decision_through_another_system_counts_once_and_a_late_one_is_no_error() -> None:
    clock = FakeClock(datetime.now(UTC))
    app, hooks, ran = App("memory://", clock=clock), Hooks(), []

    @app.agent
    async def seller(thread: Thread) -> None:
        step = await thread.next_step(ScriptedModel([Reply()]))
        if await step.approved(by="ann"):
            ran.append(1)

    @hooks.on("slack", verify=lambda body, headers: headers.get("x-id"))
    def slack(request: Request) -> Decide:
        return Decide(request.body["interrupt"], request.body["decision"], by=request.body["user"])

    async with drive(app, clock) as d:
        await d.start("seller")
        await d.settle()
        waiting = await d.interrupt()
        for number, decision in enumerate(["approve", "reject"]):
            body = json.dumps({"interrupt": waiting.id, "decision": decision, "user": "ann"}).encode()
            assert await hooks.take(app, "slack", body, json.loads, {"X-Id": f"click-{number}"})
        await d.settle()
        assert ran == [1]
        decision = (await d.app.interrupt(waiting.id)).decision
        assert decision is not None
        assert decision.kind == "approved"
        with pytest.raises(NotVerified):
            await hooks.take(app, "slack", b"{}", json.loads, {})


def test_a_door_without_a_lock_is_refused() -> None:
    hooks = Hooks()
    with pytest.raises(ValueError, match="an open door"):
        hooks.on("x")
    with pytest.raises(ValueError, match="whsec_"):
        hooks.on("x", secrets="hunter2")
    hooks.on("x", secrets=SECRET)(lambda request: None)
    with pytest.raises(ValueError, match="two handlers"):
        hooks.on("x", secrets=SECRET)
