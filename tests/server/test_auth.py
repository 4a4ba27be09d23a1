"""How people are known: the login link, tokens, a trusted proxy; and what a public address needs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from bureau import Place, kind, make, opened, running, visitor
from fastapi import Depends, Form, Request

from ownloop import Actor
from ownloop.errors import NotFound
from ownloop.server import Auth, NotSafe, Principal, Proxy, Tokens, create, serve
from ownloop.server.auth import check_form, csrf, require

URL = "memory://"
JSON = {"agent": "desk"}
ANYBODY = require()


def add_probe(place: Place) -> None:
    """A route that tells who asks, and a form."""

    @place.site.get("/who")
    async def who(who: Principal = ANYBODY) -> Any:
        return {"id": who.actor.id, "groups": list(who.actor.groups), "via": who.via, "scopes": sorted(who.scopes)}

    @place.site.get("/form", dependencies=[require()])
    async def token(value: str = Depends(csrf)) -> Any:
        return {"csrf": value}

    @place.site.post("/form", dependencies=[require()])
    async def send(request: Request, csrf: str = Form("")) -> Any:
        check_form(request, csrf)
        return {"done": True}


async def log_in(place: Place, http: Any, actor: Any = "ann") -> Any:
    code = await place.site.state.auth.sessions.code(actor)
    return await http.post("/login", data={"code": code})


# ---- the login link ----------------------------------------------------------------------------------------------------------------


async def test_the_link_shows_a_button_and_the_button_logs_in_once(any_url: str) -> None:
    async with opened(any_url) as place, visitor(place.site) as browser:
        add_probe(place)
        code = await place.site.state.auth.sessions.code(Actor("ann", ("managers",)))
        for _ in range(3):
            page = await browser.get("/login", params={"code": code})
            assert (page.status_code, "set-cookie" in page.headers) == (200, False)
            assert (await browser.head("/login", params={"code": code})).status_code == 200
        assert re.search(rf'<form method="post" action="login"><input type="hidden" name="code" value="{code}">', page.text)
        entered = await browser.post("/login", data={"code": code})
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie and "secure" not in cookie
        assert (await browser.get("/who")).json() == {
            "id": "ann",
            "groups": ["managers"],
            "via": "login",
            "scopes": ["admin", "events:write", "interrupts:decide", "interrupts:read", "threads:read", "threads:write"],
        }
        async with visitor(place.site) as other:
            assert (await other.get("/login", params={"code": code})).status_code == 403
            assert (await other.post("/login", data={"code": code})).status_code == 403
            assert (await other.get("/who")).status_code == 401


async def test_a_code_and_a_session_end(any_url: str) -> None:
    async with opened(any_url) as place, visitor(place.site) as browser:
        add_probe(place)
        code = await place.site.state.auth.sessions.code("ann")
        place.clock.advance("1h")
        assert (await browser.post("/login", data={"code": code})).status_code == 403
        await log_in(place, browser)
        place.clock.advance("6d")
        assert (await browser.get("/who")).status_code == 200
        place.clock.advance("1d")
        assert (await browser.get("/who")).status_code == 401


async def test_a_cookie_that_was_touched_is_none() -> None:
    async with opened(URL) as place, visitor(place.site) as browser:
        add_probe(place)
        await log_in(place, browser)
        ((name, value),) = browser.cookies.items()
        for forged in (value[:-1] + ("0" if value[-1] != "0" else "1"), "x" + value, value.partition(".")[0], "", ".", "ü.ü", "=" * 5000):
            async with visitor(place.site) as forger:
                answer = await forger.get("/who", headers={"Cookie": f"{name}={forged}".encode("latin-1")})
                assert kind(answer) == "unauthenticated"


async def test_the_link_works_from_this_machine_only() -> None:
    async with opened(URL) as place, visitor(place.site, client=("10.1.2.3", 1)) as browser:
        code = await place.site.state.auth.sessions.code("ann")
        assert kind(await browser.get("/login", params={"code": code})) == "not-allowed"
        assert kind(await browser.post("/login", data={"code": code})) == "not-allowed"
        assert await place.site.state.auth.sessions.is_good(code)


async def test_a_browser_that_is_not_logged_in_is_told_so_in_words() -> None:
    async with opened(URL) as place, visitor(place.site) as browser:
        add_probe(place)
        page = await browser.get("/who", headers={"Accept": "text/html,*/*"})
        assert (page.status_code, page.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert "Open the link that the server printed" in page.text


async def test_a_mistyped_address_is_a_page_for_a_browser_and_a_problem_for_programs() -> None:
    async with opened(URL) as place, visitor(place.site) as browser:
        page = await browser.get("/thread/thr_1", headers={"Accept": "text/html,*/*"})
        assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert '<a href="/">The inbox</a>' in page.text
        assert kind(await browser.get("/thread/thr_1")) == "not-found"
        assert kind(await browser.get("/v1/thread/thr_1", headers={"Accept": "text/html,*/*"})) == "not-found"


async def test_a_form_of_another_visitor_does_nothing() -> None:
    async with opened(URL) as place, visitor(place.site) as ann, visitor(place.site) as bob:
        add_probe(place)
        await log_in(place, ann)
        await log_in(place, bob, "bob")
        mine, theirs = (await ann.get("/form")).json()["csrf"], (await bob.get("/form")).json()["csrf"]
        assert (await ann.post("/form", data={"csrf": mine})).json() == {"done": True}
        for token in ("", theirs, mine[:-1], "ü"):
            assert kind(await ann.post("/form", data={"csrf": token})) == "wrong-form"
        async with visitor(place.site) as again:
            await log_in(place, again)
            assert (await again.get("/form")).json()["csrf"] != mine


async def test_logging_out_takes_the_cookie_away() -> None:
    async with opened(URL) as place, visitor(place.site) as browser:
        add_probe(place)
        await log_in(place, browser)
        assert kind(await browser.post("/logout", data={"csrf": "no"})) == "wrong-form"
        token = (await browser.get("/form")).json()["csrf"]
        assert (await browser.post("/logout", data={"csrf": token})).status_code == 200
        assert (await browser.get("/who")).status_code == 401


async def test_servers_on_one_store_know_each_others_sessions_and_others_do_not(kept_url: str) -> None:
    async with opened(kept_url) as one, opened(kept_url) as other, opened(URL) as stranger:
        for place in (one, other, stranger):
            add_probe(place)
        async with visitor(one.site) as browser:
            await log_in(one, browser)
            async with visitor(other.site) as second, visitor(stranger.site) as third:
                second.cookies = third.cookies = browser.cookies
                assert (await second.get("/who")).status_code == 200
                assert (await third.get("/who")).status_code == 401


# ---- tokens ------------------------------------------------------------------------------------------------------------------------


async def test_a_token_is_kept_as_a_hash_only(any_url: str) -> None:
    async with opened(any_url) as place:
        text, known = await Tokens(place.bureau.app.store).issue("ci", Actor("robot", ("ci",)), ["threads:read"], see={"tenant": "acme"})
        assert text.startswith("ownloop_") and len(text) > 40
        kept = await place.bureau.app.store.records("token")
        assert text not in str(kept) and text.removeprefix("ownloop_") not in str(kept)
        assert (known.name, known.actor, known.scopes, known.see) == ("ci", Actor("robot", ("ci",)), {"threads:read"}, {"tenant": "acme"})
        assert known.expires_at == place.clock.now() + timedelta(days=90)


async def test_tokens_are_listed_and_revoked(any_url: str) -> None:
    async with opened(any_url) as place:
        tokens = Tokens(place.bureau.app.store)
        place.clock.advance("1s")
        text, known = await tokens.issue("ci", "robot", ["threads:read"], expires=None)
        assert [one.name for one in await tokens.all()] == ["ann's", "ci"]
        assert (await tokens.revoke(known.id)).revoked_at == place.clock.now()
        place.clock.advance("1s")
        assert (await tokens.revoke(known.id)).revoked_at == place.clock.now() - timedelta(seconds=1)
        assert (await tokens.find(text)).revoked_at is not None  # type: ignore[union-attr]  # it is found
        with pytest.raises(NotFound, match="no token 'tok_0'"):
            await tokens.revoke("tok_0")
        with pytest.raises(ValueError, match="no scope is named everything; choose from threads:read"):
            await tokens.issue("ci", "robot", ["everything"])
        with pytest.raises(ValueError, match="names nobody"):
            await tokens.issue("ci", " ", [])


async def test_bad_credentials_are_not_rescued_by_a_good_cookie() -> None:
    async with opened(URL) as place, visitor(place.site) as browser:
        add_probe(place)
        await log_in(place, browser)
        for said in ("Bearer nonsense", "Basic YTpi", "Bearer", place.token):
            assert kind(await browser.get("/who", headers={"Authorization": said})) == "unauthenticated"


# ---- a proxy -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "is_ours"),
    [("10.1.2.3", True), ("10.2.0.1", False), ("127.0.0.1", False), ("::ffff:10.1.2.3", True), ("fd00::1", True), ("", False), ("unix", False)],
)
async def test_a_proxys_word_counts_from_its_network_only(peer: str, is_ours: bool) -> None:
    proxy = Proxy(["10.1.0.0/16", "fd00::/8"])
    bureau = make(URL)
    site = create(bureau.app, auth=Auth(bureau.app, login=False, tokens=False, proxy=proxy))
    said = {"X-Forwarded-User": "ann", "X-Forwarded-Groups": "managers, ci,", "X-Forwarded-For": "10.1.2.3"}
    async with visitor(site, client=(peer, 1)) as http:
        answer = await http.get("/v1/threads", headers=said)
        assert answer.status_code == (200 if is_ours else 401)
        assert (await http.get("/v1/threads")).status_code == 401
        assert (await http.get("/v1/threads", headers={"X-Forwarded-User": " "})).status_code == 401
        if is_ours:
            made = (await http.post("/v1/threads", json=JSON, headers=said)).json()["id"]
            sent = await http.post(f"/v1/threads/{made}/messages", json={"text": "x"}, headers=said)
            assert sent.json()["by"] == "ann"
            assert kind(await http.get("/metrics", headers=said)) == "missing-scope"


async def test_behind_a_real_socket_a_forwarded_address_changes_nothing() -> None:
    """uvicorn can be told to believe X-Forwarded-For; `serve` does not, and neither does this."""
    import httpx

    bureau = make(URL)
    site = create(bureau.app, wakes=False, auth=Auth(bureau.app, proxy=Proxy(["10.1.0.0/16"])))
    async with running(site, proxy_headers=False) as url, httpx.AsyncClient(base_url=url) as http:
        said = {"X-Forwarded-User": "ann", "X-Forwarded-For": "10.1.2.3", "Forwarded": "for=10.1.2.3"}
        assert kind(await http.get("/v1/threads", headers=said)) == "unauthenticated"


# ---- a public address --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "inbox.example.com", ""])
def test_a_public_address_is_refused_where_nobody_is_known(host: str) -> None:
    with pytest.raises(NotSafe, match="can be reached from other machines"):
        serve(make(URL).app, host, 0)


async def test_the_name_of_base_url_is_known() -> None:
    async with opened(URL, hosts=["Inbox.example.com:443", "other.example"]) as place:
        for name, status in (("inbox.example.com", 200), ("other.example:8080", 200), ("third.example", 421)):
            assert (await place.http.get("/healthz", headers={"Host": name})).status_code == status
    bureau = make(URL, base_url="https://agents.example.com/inbox")
    async with visitor(create(bureau.app)) as http:
        assert (await http.get("/healthz", headers={"Host": "agents.example.com"})).status_code == 200
