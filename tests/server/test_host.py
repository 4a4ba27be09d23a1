"""In a host's own FastAPI application: the host says who asks and what they see."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from bureau import BASE, kind, make
from fastapi import FastAPI, HTTPException, Request

from ownloop import Actor
from ownloop.server import router

PEOPLE = {"ann": "acme", "bob": "globex"}


def who(request: Request) -> Actor:
    name = request.headers.get("X-Session", "")
    if name not in PEOPLE and name != "root":
        raise HTTPException(401, "log in first", {"WWW-Authenticate": "Session"})
    return Actor(name, ("managers",))


def see(actor: Actor) -> Any:
    return {"tenant": PEOPLE[actor.id]} if actor.id in PEOPLE else None


def host(bureau: Any, prefix: str = "/agents", **more: Any) -> FastAPI:
    application = FastAPI()

    @application.get("/own")
    async def own() -> Any:
        return {"of": "the host"}

    application.include_router(router(bureau.app, **{"actor": who, "see": see, **more}), prefix=prefix)
    return application


def visit(application: FastAPI, name: str | None, base: str = BASE) -> httpx.AsyncClient:
    headers = {} if name is None else {"X-Session": name}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=application), base_url=base, headers=headers)


async def test_the_hosts_people_act_under_their_names_and_see_their_threads() -> None:
    bureau = make("memory://")
    application = host(bureau)
    async with visit(application, "ann") as ann, visit(application, "bob") as bob, visit(application, "root") as root:
        made = await ann.post("/agents/v1/threads", json={"agent": "desk", "input": "managers"})
        assert (made.status_code, made.json()["context"]) == (201, {"tenant": "acme"})
        assert made.headers["location"] == f"/agents/v1/threads/{made.json()['id']}"
        await bureau.settle()
        (one,) = (await ann.get("/agents/v1/interrupts")).json()["items"]
        assert (await bob.get("/agents/v1/interrupts")).json()["items"] == []
        assert kind(await bob.get(f"/agents/v1/interrupts/{one['id']}")) == "not-found"
        assert len((await root.get("/agents/v1/interrupts")).json()["items"]) == 1
        done = await ann.post(f"/agents/v1/interrupts/{one['id']}/decision", json={"decision": "approve", "digest": one["digest"]})
        assert done.json()["decision"]["by"] == {"id": "ann", "groups": ["managers"]}
        assert (await root.get("/own")).json() == {"of": "the host"}
    await bureau.app.aclose()


async def test_the_hosts_refusal_is_told_as_a_problem() -> None:
    async with visit(host(make("memory://")), None) as nobody:
        refused = await nobody.get("/agents/v1/threads")
        assert (refused.status_code, kind(refused), refused.json()["detail"]) == (401, "unauthenticated", "log in first")
        assert refused.headers["www-authenticate"] == "Session"


@pytest.mark.parametrize("answer", [None, "ann", Actor("ann")])
async def test_actor_and_see_may_be_async_and_see_may_take_the_request(answer: Any) -> None:
    async def actor(request: Request) -> Any:
        return answer

    async def seen(request: Request) -> Any:
        return {"tenant": request.headers["X-Tenant"]}

    bureau = make("memory://")
    await bureau.thread("deploy", context={"tenant": "acme"})
    async with visit(host(bureau, actor=actor, see=seen), None) as http:
        found = await http.get("/agents/v1/threads", headers={"X-Tenant": "acme"})
        assert found.status_code == (401 if answer is None else 200)
        if answer is not None:
            assert len(found.json()["items"]) == 1
            assert (await http.get("/agents/v1/threads", headers={"X-Tenant": "globex"})).json()["items"] == []


async def test_tokens_cookies_and_proxies_mean_nothing_there() -> None:
    bureau = make("memory://")
    token = await bureau.token("ann")
    async with visit(host(bureau), None) as http:
        for headers in ({"Authorization": f"Bearer {token}"}, {"X-Forwarded-User": "ann"}):
            assert (await http.get("/agents/v1/threads", headers=headers)).status_code == 401


async def test_a_page_of_another_origin_changes_nothing_there_either() -> None:
    bureau = make("memory://")
    async with visit(host(bureau), "ann", "https://app.example.com") as ann:
        for path in ("/agents/v1/threads", "/agents/settings"):
            for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
                refused = await ann.post(path, json={"agent": "desk"}, headers=headers)
                assert refused.status_code == 403
        assert (await ann.post("/agents/v1/threads", json={"agent": "desk"}, headers={"Origin": "https://app.example.com"})).status_code == 201


async def test_idempotency_keys_work_there_too() -> None:
    bureau = make("memory://")
    async with visit(host(bureau), "ann") as ann:
        both = [await ann.post("/agents/v1/threads", json={"agent": "desk"}, headers={"Idempotency-Key": "k"}) for _ in range(2)]
        assert both[0].content == both[1].content


async def test_the_pages_come_with_it_and_link_below_the_prefix() -> None:
    bureau = make("memory://")
    await bureau.parked("managers", context={"tenant": "acme"})
    for prefix in ("", "/agents", "/a/b"):
        async with visit(host(bureau, prefix), "ann") as ann:
            page = await ann.get(f"{prefix}/")
            assert page.status_code == 200, page.text
            links = [part.split('"')[0] for name in ('href="/', 'src="/', 'action="/') for part in page.text.split(name)[1:]]
            assert links and all(f"/{link}".startswith(f"{prefix}/") for link in links)
            assert (await ann.get(f"{prefix}/static/inbox.css")).status_code == 200
            assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_the_api_alone_can_be_had() -> None:
    async with visit(host(make("memory://"), pages=False), "ann") as ann:
        assert (await ann.get("/agents/v1/threads")).status_code == 200
        assert (await ann.get("/agents/")).status_code == 404
