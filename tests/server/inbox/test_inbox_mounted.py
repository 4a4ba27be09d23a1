"""The same pages inside a host's application, under a prefix, with the host's own people; and the login link."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from fastapi import FastAPI
from office import Office
from playwright.sync_api import Browser, expect
from starlette.testclient import TestClient
from visiting import ANA, House, Seen

from ownloop import Actor
from ownloop.server import router


@contextmanager
def host(see: dict[str, str] | None = None) -> Iterator[tuple[TestClient, Office]]:
    office = Office("memory://")
    site = FastAPI()
    site.include_router(router(office.app, actor=lambda request: Actor("host-ana", ("release-managers",)), see=lambda actor: see), prefix="/agents")
    with TestClient(site, base_url="http://localhost") as client:
        yield client, office


def park(client: TestClient, office: Office, tenant: str) -> str:
    async def parked() -> str:
        thread = await office.app.start("releases", "release v1.9.0", context={"tenant": tenant})
        await office.app.run_one(thread)
        return (await office.app.interrupts(thread=thread))[0].id

    assert client.portal is not None
    return client.portal.call(parked)


def test_every_link_of_a_mounted_page_stays_under_its_prefix() -> None:
    with host() as (client, office):
        id = park(client, office, "acme")
        for path in ("/agents/", f"/agents/interrupts/{id}", f"/agents/interrupts/{id}/edit", "/agents/threads", "/agents/settings"):
            page = client.get(path)
            assert page.status_code == 200, path
            found = re.findall(r'(?:href|action|src|hx-get|hx-sse:connect)="([^"#][^"]*)"', page.text)
            assert found
            assert [one for one in found if not one.startswith("/agents/")] == []
        assert client.get("/agents/static/inbox.css").status_code == 200


def test_a_decision_of_a_mounted_page_is_the_host_s_actor_s() -> None:
    with host() as (client, office):
        id = park(client, office, "acme")
        csrf = re.search(r'name="csrf" value="([^"]+)"', client.get(f"/agents/interrupts/{id}").text)
        digest = re.search(r'name="digest" value="([^"]+)"', client.get(f"/agents/interrupts/{id}").text)
        assert csrf and digest
        form = {"csrf": csrf[1], "digest": digest[1], "decision": "reject", "note": "no", "by": "somebody else", "actor": "root"}
        answer = client.post(f"/agents/interrupts/{id}/decide", data=form)
        assert (answer.status_code, answer.url.path) == (200, f"/agents/interrupts/{id}")
        assert "Rejected</strong> by <strong>host-ana" in answer.text


def test_what_somebody_may_not_see_is_not_there() -> None:
    with host({"tenant": "acme"}) as (client, office):
        mine, other = park(client, office, "acme"), park(client, office, "globex")
        page = client.get("/agents/").text
        assert (mine in page, other in page) == (True, False)
        for path in (f"/agents/interrupts/{other}", f"/agents/interrupts/{other}/edit", f"/agents/threads/thr_{other[4:17]}"):
            answer = client.get(path)
            assert answer.status_code == 404
            assert "There is no such thing here" in answer.text
        assert client.get(f"/agents/threads/thr_{other[4:17]}/events.ndjson").status_code == 404


def test_the_log_is_downloaded_line_by_line(house: House) -> None:
    thread, _ = house.start("releases", "release v1.9.0")
    cookie = house.cookie(ANA)
    answer = httpx.get(f"{house.url}/threads/{thread}/events.ndjson", cookies={cookie["name"]: cookie["value"]})
    lines = answer.text.splitlines()
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert len(lines) == len(house.run(house.office.app.show(thread)).events)


def test_a_browser_comes_in_by_the_login_link(chromium: Browser, house: House, seen: Seen) -> None:
    seen.expected = ("404",)  # the icon of the login page
    context = chromium.new_context(base_url=house.url)
    seen.watch(context, house.url)
    page = context.new_page()
    page.goto(f"/login?code={house.run(house.auth.sessions.code(ANA))}")
    page.click("button")
    expect(page.locator("#list")).to_be_visible()
    context.close()


@pytest.mark.parametrize(
    "path", ["/interrupts/int_0000000000000_1", "/interrupts/nothing", "/threads/nothing", "/threads/thr_0000000000000/events/9"]
)
def test_what_is_not_there_is_a_page_that_says_so(house: House, path: str) -> None:
    cookie = house.cookie(ANA)
    answer = httpx.get(f"{house.url}{path}", cookies={cookie["name"]: cookie["value"]})
    assert answer.status_code == 404
    assert "There is no such thing here" in answer.text


@pytest.mark.parametrize("query", ["after=nonsense", "status=what", "kind=what", "snoozed=perhaps", "q=%00%ff", "agent=" + "x" * 3000])
def test_a_filter_that_makes_no_sense_breaks_nothing(house: House, query: str) -> None:
    cookie = house.cookie(ANA)
    for page in ("/", "/threads"):
        answer = httpx.get(f"{house.url}{page}?{query}", cookies={cookie["name"]: cookie["value"]})
        assert answer.status_code in (200, 422)
