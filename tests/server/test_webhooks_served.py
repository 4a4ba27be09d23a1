"""Webhooks of a whole server: A parks and is gone, a signed request reaches B, A's successor ends the thread; and what B tells the world."""

import asyncio
import json
from datetime import UTC, datetime

import httpx
import pytest
from standardwebhooks import Webhook
from test_webhooks_out import LOOPBACK, Receiver, receiver  # noqa: F401  # a fixture

from ownloop import App, Intent, Thread
from ownloop.server import create
from ownloop.server.webhooks import Emit, Endpoint, Hooks, Request, Webhooks, new_secret


class WaitForPayment(Intent):
    """Wait until it is paid."""


def program(url: str) -> App:
    app = App(url)

    @app.agent
    async def seller(thread: Thread) -> str:
        step = await thread.next_step(decide)
        payment = await step.wait_for("paid", key="o1")
        return f"paid {payment['amount']}"

    return app


async def decide(thread: Thread) -> WaitForPayment:
    return WaitForPayment()


async def parked(app: App) -> str:
    async with app:
        thread = await app.start("seller")
        while not await app.interrupts(kind="event"):
            await asyncio.sleep(0.02)
        return thread


async def test_a_webhook_from_outside_wakes_a_thread_whose_process_is_gone(kept_url: str) -> None:
    url, secret, hooks = kept_url, new_secret(), Hooks()

    @hooks.on("shop", secrets=secret)
    def shop(request: Request) -> Emit:
        return Emit("paid", request.body, key="o1")

    thread = await parked(program(url))
    site = create(App(url), wakes=False, hooks=hooks)
    body, now = '{"amount": 7}', datetime.now(UTC)
    headers = {"webhook-id": "evt_1", "webhook-timestamp": str(int(now.timestamp()))}
    signed = {**headers, "webhook-signature": Webhook(secret).sign("evt_1", now, body)}
    forged = {**headers, "webhook-signature": Webhook(new_secret()).sign("evt_1", now, body)}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(site), base_url="http://127.0.0.1") as client, site.router.lifespan_context(site):
        refused = await client.post("/v1/hooks/shop", content=body, headers=forged)
        assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")
        assert (await client.post("/v1/hooks/shop", content=body, headers=signed)).json() == {"is_new": True}
        assert (await client.post("/v1/hooks/shop", content=body, headers=signed)).json() == {"is_new": False}
    async with program(url) as successor:
        while (await successor.show(thread)).status != "done":
            await asyncio.sleep(0.02)
        assert (await successor.show(thread)).result == "paid 7"
        kinds = [event.kind for event in (await successor.show(thread)).events]
        assert kinds.count("delivered") == 1


@pytest.mark.parametrize("wakes", [True, False])
async def test_a_server_tells_endpoints_what_happens_whether_or_not_it_runs_wakes(kept_url: str, receiver: Receiver, wakes: bool) -> None:  # noqa: F811
    app = program(kept_url)
    site = create(app, wakes=wakes, webhooks=Webhooks(app, [Endpoint(receiver.url, [new_secret()], ["thread.started"])], allow=LOOPBACK))
    async with site.router.lifespan_context(site):
        thread = await app.start("seller")
        async with asyncio.timeout(10):
            while not receiver.requests:
                await asyncio.sleep(0.02)
    assert json.loads(receiver.requests[0][1])["data"]["thread_id"] == thread
