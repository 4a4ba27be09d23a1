"""What goes out: signed, in order, again and again until it arrives; and never into the house."""

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from ownloop import App, Intent, Thread
from ownloop.server.webhooks import Endpoint, Webhooks, new_secret, outgoing, signed_headers
from ownloop.server.webhooks.guard import Forbidden, GuardedTransport
from ownloop.testing import FakeClock, ScriptedModel, drive

LOOPBACK = ["127.0.0.0/8"]


class Deploy(Intent):
    """Deploy."""

    tag: str = "v1"


class Done(Intent):
    """Done."""


class Receiver:
    """A server that keeps what it is sent, and answers as it is told."""

    def __init__(self) -> None:
        self.status, self.headers = 200, {}
        self.requests: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/in"

    def told(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.requests]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.server.shutdown()


def make(clock: FakeClock, model: ScriptedModel, url: str = "memory://", **approval: object) -> App:
    app = App(url, clock=clock)

    @app.agent
    async def deployer(thread: Thread) -> None:
        while True:
            step = await thread.next_step(model)
            match step.intent:
                case Deploy():
                    await step.approved(**approval)
                case _:
                    return

    return app


async def test_an_endpoint_hears_everything_signed_and_in_order(any_url: str, receiver: Receiver) -> None:
    clock, secrets = FakeClock(), [new_secret(), new_secret()]
    app = make(clock, ScriptedModel([Deploy(), Done()]), any_url, by="ops", reason="production")
    hooks = Webhooks(app, [Endpoint(receiver.url, secrets)], allow=LOOPBACK)
    async with drive(app, clock) as d:
        await d.start("deployer", key="ticket-1")
        await d.settle()
        await app._outbox.deliver()
        await hooks.deliver()
        waiting = await d.interrupt()
        await d.approve(waiting, by="ops")
        await d.settle()
        await app._outbox.deliver()
        await hooks.deliver()
        assert receiver.told() == ["thread.started", "interrupt.opened", "interrupt.resolved", "thread.done"]
        for headers, body in receiver.requests:
            for secret in secrets:
                checker = Webhook(secret)
                now = int(clock.now().timestamp())
                checker_headers = {**headers, "webhook-timestamp": headers["webhook-timestamp"]}
                assert abs(int(headers["webhook-timestamp"]) - now) < 5
                # the PyPI library looks at the machine's clock: the same body signed now must pass it, and another body must not
                fresh = signed_headers([secret], headers["webhook-id"], datetime.now(UTC), body)
                checker.verify(body, {**checker_headers, **fresh})
                with pytest.raises(WebhookVerificationError):
                    checker.verify(body + b" ", {**checker_headers, **fresh})
        opened = json.loads(receiver.requests[1][1])
        assert opened["data"]["interrupt"]["arguments"] == {"tag": "v1"}
        assert opened["data"]["interrupt"]["digest"] == waiting.digest
        assert opened["data"]["key"] == "ticket-1"
        assert json.loads(receiver.requests[2][1])["data"]["interrupt"]["decision"]["by"] == "ops"
        assert await hooks.deliveries() == []


async def test_a_receiver_that_is_down_for_a_day_gets_everything_once_it_is_back_in_order(receiver: Receiver) -> None:
    clock, receiver.status = FakeClock(), 503
    app = make(clock, ScriptedModel([Deploy(), Done()]))
    hooks = Webhooks(app, [Endpoint(receiver.url, [new_secret()])], allow=LOOPBACK)
    async with drive(app, clock) as d:
        await d.start("deployer")
        await d.settle()
        await d.approve(await d.interrupt(), by="ops")
        await d.settle()
        await app._outbox.deliver()
        for _ in range(24):
            await hooks.deliver()
            clock.advance("1h")
        assert set(receiver.told()) == {"thread.started"}, "later messages of the thread wait for the first"
        assert len({headers["webhook-id"] for headers, _ in receiver.requests}) == 1
        assert 5 <= len(receiver.requests) <= 9
        receiver.requests.clear()
        receiver.status = 200
        clock.advance("24h")
        await hooks.deliver()
        assert receiver.told() == ["thread.started", "interrupt.opened", "interrupt.resolved", "thread.done"]


async def test_what_nobody_takes_is_a_dead_letter_that_can_be_sent_again(any_url: str, receiver: Receiver) -> None:
    clock, receiver.status = FakeClock(), 500
    app = make(clock, ScriptedModel([Done()]), any_url)
    hooks = Webhooks(app, [Endpoint(receiver.url, [new_secret()], ["thread.done"])], allow=LOOPBACK)
    async with drive(app, clock) as d:
        await d.start("deployer")
        await d.settle()
        await app._outbox.deliver()
        for _ in range(len(outgoing.SCHEDULE) + 1):
            await hooks.deliver()
            clock.advance("27h")
        [dead] = await hooks.deliveries()
        assert (dead.status, dead.tries, dead.problem) == ("dead", 10, "500 Internal Server Error")
        receiver.status = 200
        assert await hooks.send_again(dead.key)
        await hooks.deliver()
        assert receiver.told() == ["thread.done"] * 11
        assert await hooks.deliveries() == []


async def test_retry_after_is_kept_and_gone_is_gone(receiver: Receiver) -> None:
    clock, receiver.status, receiver.headers = FakeClock(), 429, {"Retry-After": "7200"}
    app = make(clock, ScriptedModel([Done()]))
    hooks = Webhooks(app, [Endpoint(receiver.url, [new_secret()], ["thread.done"])], allow=LOOPBACK)
    async with drive(app, clock) as d:
        await d.start("deployer")
        await d.settle()
        await app._outbox.deliver()
        soonest = await hooks.deliver()
        assert soonest is not None
        assert soonest - clock.now() == timedelta(hours=2)
        receiver.status = 410
        clock.advance("2h")
        await hooks.deliver()
        clock.advance("48h")
        await hooks.deliver()
        assert len(receiver.requests) == 2
        receiver.status = 200
        assert await hooks.enable(receiver.url)
        await hooks.deliver()
        assert len(receiver.requests) == 3


async def test_two_processes_that_deliver_tell_an_endpoint_once(any_url: str, receiver: Receiver) -> None:
    clock = FakeClock()
    app = make(clock, ScriptedModel([Done()]), any_url)
    endpoints = [Endpoint(receiver.url, [new_secret()])]
    one, other = Webhooks(app, endpoints, allow=LOOPBACK), Webhooks(app, endpoints, allow=LOOPBACK)
    async with drive(app, clock) as d:
        await d.start("deployer")
        await d.settle()
        await app._outbox.deliver()
        await asyncio.gather(one.deliver(), other.deliver())
        assert receiver.told() == ["thread.started", "thread.done"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "169.254.169.254", "[::1]", "10.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0", "[64:ff9b::7f00:1]"]
)
async def test_a_request_never_goes_into_the_house(host: str) -> None:
    async with httpx.AsyncClient(transport=GuardedTransport()) as client:
        with pytest.raises(Forbidden, match="not a public address"):
            await client.get(f"http://{host}:9/")


async def test_a_redirect_is_no_way_into_the_house(receiver: Receiver) -> None:
    clock, receiver.status, receiver.headers = FakeClock(), 302, {"Location": "http://169.254.169.254/latest/meta-data"}
    app = make(clock, ScriptedModel([Done()]))
    hooks = Webhooks(app, [Endpoint(receiver.url, [new_secret()], ["thread.done"])], allow=LOOPBACK)
    async with drive(app, clock) as d:
        await d.start("deployer")
        await d.settle()
        await app._outbox.deliver()
        await hooks.deliver()
        [waiting] = await hooks.deliveries()
        assert waiting.problem.startswith("302")


async def test_an_approval_that_waits_too_long_is_told_to_whom_the_policy_names(any_url: str, receiver: Receiver) -> None:
    clock, told = FakeClock(), []
    app = make(clock, ScriptedModel([Deploy(), Done()]), any_url, escalate=[("24h", "cfo"), ("48h", "ceo")])

    async def escalated(interrupt: object, whom: str) -> None:
        told.append(whom)

    hooks = Webhooks(app, [Endpoint(receiver.url, [new_secret()], ["interrupt.escalated"])], allow=LOOPBACK, escalated=escalated)
    async with drive(app, clock) as d:
        await d.start("deployer")
        await d.settle()
        await app._outbox.deliver()
        await hooks.escalate()
        assert told == []
        clock.advance("24h")
        await hooks.escalate()
        await hooks.escalate()
        await hooks.deliver()
        assert told == ["cfo"]
        assert json.loads(receiver.requests[0][1])["data"]["to"] == "cfo"
        assert (await d.interrupt()).status == "open", "it tells, it never decides"
        await d.approve(await d.interrupt(), by="cfo")
        clock.advance("24h")
        await hooks.escalate()
        assert told == ["cfo"], "what is decided is not escalated"


async def test_an_escalation_of_a_thread_that_was_forgotten_stops_nothing(any_url: str, receiver: Receiver) -> None:
    clock = FakeClock()
    app = make(clock, ScriptedModel([Deploy(), Done()]), any_url, escalate=[("30d", "cfo")])
    hooks = Webhooks(app, [Endpoint(receiver.url, [new_secret()], ["thread.started"])], allow=LOOPBACK)
    async with drive(app, clock) as d:
        await d.start("deployer")
        await d.settle()
        await d.approve(await d.interrupt(), by="ann")
        await d.settle()
        await app._outbox.deliver()
        clock.advance("10d")
        assert await app.store.prune(clock.now() - timedelta(days=7)) == 1
        clock.advance("20d")
        await d.start("deployer")
        await app._outbox.deliver()
        await hooks._pass()
        assert len(receiver.requests) == 2
        assert not await app.store.records("escalation")


async def test_an_escalation_that_fails_keeps_no_message_back(receiver: Receiver) -> None:
    clock = FakeClock()
    app = make(clock, ScriptedModel([Deploy(), Done()]), escalate=[("24h", "cfo")])

    async def escalated(interrupt: object, whom: str) -> None:
        raise RuntimeError("no line to the cfo")

    hooks = Webhooks(app, [Endpoint(receiver.url, [new_secret()], ["thread.started"])], allow=LOOPBACK, escalated=escalated)
    async with drive(app, clock) as d:
        await d.start("deployer")
        await d.settle()
        await app._outbox.deliver()
        clock.advance("24h")
        await hooks._pass()
        assert len(receiver.requests) == 1


async def test_a_long_call_is_told_short_and_sends_the_reader_to_the_inbox(receiver: Receiver) -> None:
    clock = FakeClock()
    app = make(clock, ScriptedModel([Deploy(tag="x" * 30_000), Done()]))
    hooks = Webhooks(app, [Endpoint(receiver.url, [new_secret()], ["interrupt.opened"])], allow=LOOPBACK)
    async with drive(app, clock) as d:
        await d.start("deployer")
        await d.settle()
        await app._outbox.deliver()
        await hooks.deliver()
        [(_, body)] = receiver.requests
        assert len(body) < 20_000
        assert "arguments" in json.loads(body)["data"]["interrupt"]["left_out"]


@pytest.mark.parametrize(
    ("url", "secrets", "events", "says"),
    [
        ("https://example.com", [], (), "has no secret"),
        ("https://example.com", ["hunter2"], (), "whsec_"),
        ("ftp://example.com", [new_secret()], (), "no http"),
        ("https://example.com", [new_secret()], ["thread.exploded"], "no event is named thread.exploded"),
    ],
)
def test_an_endpoint_that_cannot_work_is_refused(url: str, secrets: list[str], events: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Endpoint(url, secrets, events)
