"""Who is refused, on every route: the table of routes is read from the application, so that a new route is tried too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from bureau import Place, kind, make, opened, visitor

from ownloop.server import Tokens, create
from ownloop.server.tokens import SCOPES

BODIES: dict[str, Any] = {
    "threads_start": {"agent": "desk"},
    "threads_send": {"text": "hello"},
    "events_emit": {"name": "built", "payload": 1},
    "interrupts_decide": {"decision": "approve", "digest": "0" * 64},
    "interrupts_snooze": {"until": "2026-01-01T00:30:00Z"},
}
SCOPE = {
    "threads_start": "threads:write",
    "threads_send": "threads:write",
    "events_emit": "events:write",
    "interrupts_decide": "interrupts:decide",
    "interrupts_snooze": "interrupts:decide",
    "metrics": "admin",
}
OPEN = {"health", "ready", "hooks_take"}  # a webhook is signed


def _table() -> list[tuple[str, str, str]]:
    """(operation, method, path) of all that is in the OpenAPI document."""
    paths = create(make("memory://").app).openapi()["paths"]
    return [(one["operationId"], method.upper(), path) for path, methods in paths.items() for method, one in methods.items()]


TABLE = _table()
GUARDED = [row for row in TABLE if row[0] not in OPEN]
OF_A_THREAD = [row for row in TABLE if "{id}" in row[2]]
POSTS = [row for row in GUARDED if row[1] == "POST"]


def scope_of(operation: str) -> str:
    if operation in SCOPE:
        return SCOPE[operation]
    if operation.startswith("threads_"):
        reads = operation in ("threads_list", "threads_show", "threads_events", "threads_stream")
        return "threads:read" if reads else "threads:write"
    return "interrupts:read"


async def ask(http: httpx.AsyncClient, row: tuple[str, str, str], id: str = "", **more: Any) -> httpx.Response:
    operation, method, path = row
    body = {"json": BODIES.get(operation, {})} if method == "POST" else {}
    return await http.request(method, path.replace("{id}", id), **{**body, **more})


async def id_for(place: Place, row: tuple[str, str, str], **more: Any) -> str:
    one = await place.bureau.parked("deploy", **more)
    return str(one.id if row[0].startswith("interrupts") else one.thread_id)


async def log_of(place: Place) -> list[Any]:
    store = place.bureau.app.store
    return [(row.id, row.status, await store.events(row.id)) for row in await store.threads()]


def test_the_table_is_the_one_of_the_contract() -> None:
    known = {
        *("POST /v1/threads", "GET /v1/threads", "GET /v1/threads/{id}", "GET /v1/threads/{id}/events", "GET /v1/threads/{id}/stream"),
        *("GET /v1/stream", "POST /v1/threads/{id}/messages", "POST /v1/events", "GET /v1/interrupts", "GET /v1/interrupts/{id}"),
        *(
            "POST /v1/interrupts/{id}/decision",
            "POST /v1/interrupts/{id}/snooze",
            "GET /healthz",
            "GET /readyz",
            "GET /metrics",
            "POST /v1/hooks/{source}",
        ),
        *(f"POST /v1/threads/{{id}}/{verb}" for verb in ("hold", "release_hold", "pause", "resume", "cancel", "retry", "close", "fork")),
    }
    assert {f"{method} {path}" for _, method, path in TABLE} == known


@pytest.mark.parametrize("row", GUARDED, ids=lambda row: row[0])
async def test_without_credentials_nothing_is_told_or_done(desk_place: Place, row: tuple[str, str, str]) -> None:
    id = await id_for(desk_place, row)
    before = await log_of(desk_place)
    async with visitor(desk_place.site) as nobody:
        refused = await ask(nobody, row, id)
    assert (refused.status_code, kind(refused)) == (401, "unauthenticated")
    assert "bearer" in refused.headers["www-authenticate"].lower()
    assert await log_of(desk_place) == before


@pytest.mark.parametrize("row", GUARDED, ids=lambda row: row[0])
async def test_a_token_that_does_not_count_lets_nobody_in(desk_place: Place, row: tuple[str, str, str]) -> None:
    tokens = Tokens(desk_place.bureau.app.store)
    revoked, known = await tokens.issue("gone", "bob", SCOPES)
    await tokens.revoke(known.id)
    expired, _ = await tokens.issue("old", "bob", SCOPES, expires=timedelta(seconds=1))
    desk_place.clock.advance("1s")
    for text, told in (
        (revoked, "was revoked at"),
        (expired, "expired at"),
        ("ownloop_made_up", "no token"),
        ("", "no token"),
        ("x" * 9000, "no token"),
    ):
        async with visitor(desk_place.site, text) as bob:
            refused = await ask(bob, row, "thr_0000000000001", headers={"Authorization": f"Bearer {text}"})
            assert (refused.status_code, kind(refused)) == (401, "unauthenticated")
            assert told in refused.json()["detail"]
            assert text not in refused.text or not text


@pytest.mark.parametrize("row", GUARDED, ids=lambda row: row[0])
async def test_every_other_scope_is_the_wrong_one(desk_place: Place, row: tuple[str, str, str]) -> None:
    id = await id_for(desk_place, row)
    before = await log_of(desk_place)
    wanted = scope_of(row[0])
    async with await desk_place.visitor(scopes=set(SCOPES) - {wanted, "admin"}) as bob:
        refused = await ask(bob, row, id)
    assert (refused.status_code, kind(refused), refused.json()["scope"]) == (403, "missing-scope", wanted)
    assert await log_of(desk_place) == before


@pytest.mark.parametrize("row", [row for row in GUARDED if "stream" not in row[0]], ids=lambda row: row[0])
async def test_the_scope_alone_is_enough(desk_place: Place, row: tuple[str, str, str]) -> None:
    id = await id_for(desk_place, row)
    async with await desk_place.visitor(scopes=[scope_of(row[0])]) as bob:
        answer = await ask(bob, row, id)
    assert answer.status_code not in (401, 403, 500), answer.text


@pytest.mark.parametrize("row", OF_A_THREAD, ids=lambda row: row[0])
async def test_somebody_elses_thread_is_not_there(desk_place: Place, row: tuple[str, str, str]) -> None:
    id = await id_for(desk_place, row, context={"tenant": "acme"})
    before = await log_of(desk_place)
    async with await desk_place.visitor(see={"tenant": "globex"}) as bob:
        refused, absent = await ask(bob, row, id), await ask(bob, row, id[:4] + "0000000000001" + id[17:])
    assert (refused.status_code, kind(refused)) == (404, "not-found")
    assert refused.json()["detail"].replace(id, "ID") == absent.json()["detail"].replace(id[:4] + "0000000000001" + id[17:], "ID")
    assert "acme" not in refused.text
    assert await log_of(desk_place) == before


FOREIGN_HOSTS = ("evil.example", "evil.example:8470", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::2]", "10.0.0.1", "@127.0.0.1x")


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
async def test_a_foreign_host_is_refused(desk_place: Place, row: tuple[str, str, str]) -> None:
    for host in FOREIGN_HOSTS:
        refused = await ask(desk_place.http, row, "thr_0000000000001", headers={"Host": host})
        assert (refused.status_code, kind(refused)) == (421, "foreign-host"), host


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8470", "127.0.0.1", "[::1]:8470", "localhost."])
async def test_the_names_of_this_machine_are_known(desk_place: Place, host: str) -> None:
    assert (await desk_place.http.get("/v1/threads", headers={"Host": host})).status_code == 200


FOREIGN_PAGES: tuple[dict[str, str], ...] = (
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "127.0.0.1:8470"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "http://127.0.0.1:8470.evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://127.0.0.1:8470", "Sec-Fetch-Site": "cross-site"},
)


@pytest.mark.parametrize("row", POSTS, ids=lambda row: row[0])
async def test_a_page_of_another_origin_changes_nothing(desk_place: Place, row: tuple[str, str, str]) -> None:
    id = await id_for(desk_place, row)
    before = await log_of(desk_place)
    for headers in FOREIGN_PAGES:
        refused = await ask(desk_place.http, row, id, headers=headers)
        assert (refused.status_code, kind(refused)) == (403, "foreign-origin"), headers
    assert await log_of(desk_place) == before


async def test_our_own_pages_may(desk_place: Place) -> None:
    ours = {"Origin": "http://127.0.0.1:8470", "Sec-Fetch-Site": "same-origin"}
    for headers in (ours, {"Origin": "null", "Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {}):
        assert (await desk_place.http.post("/v1/threads", json={"agent": "desk"}, headers=headers)).status_code == 201


@pytest.mark.parametrize("row", POSTS, ids=lambda row: row[0])
async def test_a_body_that_names_who_acts_is_refused(desk_place: Place, row: tuple[str, str, str]) -> None:
    id = await id_for(desk_place, row)
    before = await log_of(desk_place)
    for field in ("actor", "by", "principal", "decided_by"):
        refused = await ask(desk_place.http, row, id, json={**BODIES.get(row[0], {}), field: "the boss"})
        assert (refused.status_code, kind(refused)) == (422, "invalid-request")
        assert f"/{field}" in [one.get("pointer") for one in refused.json()["errors"]]
    assert await log_of(desk_place) == before


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_looking_at_every_address_changes_nothing(tmp_path: Path, method: str) -> None:
    async with opened(f"sqlite:///{tmp_path}/t.db", pages=True) as place:
        one = await place.bureau.parked("managers")
        before = await log_of(place)
        code = await place.site.state.auth.sessions.code("ann")
        paths = {route.path for route in routes_of(place.site)} | {path for _, _, path in TABLE}
        assert {"/", "/login", "/interrupts/{id}", "/interrupts/{id}/decide", "/v1/threads"} <= paths
        for path in sorted(path for path in paths if not path.endswith("/stream")):
            for found in (path.replace("{id}", one.thread_id), path.replace("{id}", one.id)):
                for query in ("", f"?code={code}", f"?decision=approve&digest={one.digest}&by=ann"):
                    answer = await place.http.request(method, found + query)
                    assert answer.status_code < 500, answer.text
        assert await log_of(place) == before
        assert (await place.bureau.app.interrupt(one.id)).status == "open"
        assert await place.site.state.auth.sessions.is_good(code)
        assert place.bureau.ran == []


def routes_of(site: Any) -> Iterator[Any]:
    """All routes, those of routers that were included too."""
    for route in site.routes:
        if hasattr(route, "path") and isinstance(route.path, str):
            yield route
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        if inner is not None:
            yield from routes_of(inner)


# ---- what somebody sees ------------------------------------------------------------------------------------------------------------


async def test_who_sees_some_threads_sees_only_those_and_what_comes_of_them(place: Place) -> None:
    ours = await place.bureau.parked("deploy", context={"tenant": "acme"})
    await place.bureau.parked("deploy", context={"tenant": "globex"})
    await place.bureau.parked("deploy")
    child = await place.bureau.thread("child", context={"tenant": "acme"})
    async with await place.visitor(see={"tenant": "acme"}) as bob:
        waiting = (await bob.get("/v1/interrupts")).json()["items"]
        threads = (await bob.get("/v1/threads")).json()["items"]
        assert {one["context"]["tenant"] for one in threads} == {"acme"}
        assert len(threads) == 3
        assert ours.id in [one["id"] for one in waiting]
        assert {one["thread_id"] for one in waiting} <= {one["id"] for one in threads}
        assert len(waiting) == 2  # a child's too
        for asked in ({"q": "deploy"}, {"thread": ours.thread_id}, {"status": "open"}):
            assert all(one["thread_id"] in {one["id"] for one in threads} for one in (await bob.get("/v1/interrupts", params=asked)).json()["items"])
    assert (await place.bureau.app.store.thread(child)).context == {"tenant": "acme"}  # type: ignore[union-attr]


async def test_who_sees_some_threads_starts_only_such(place: Place) -> None:
    async with await place.visitor(see={"tenant": "acme"}) as bob:
        made = await bob.post("/v1/threads", json={"agent": "desk", "key": "k", "context": {"floor": 2}})
        assert made.json()["context"] == {"floor": 2, "tenant": "acme"}
        refused = await bob.post("/v1/threads", json={"agent": "desk", "context": {"tenant": "globex"}})
        assert (refused.status_code, kind(refused)) == (403, "not-allowed")
    async with await place.visitor("eve", see={"tenant": "globex"}) as eve:
        taken = await eve.post("/v1/threads", json={"agent": "desk", "key": "k"})
        assert (taken.status_code, kind(taken)) == (409, "key-taken")
        assert made.json()["id"] not in taken.text
        emitted = await eve.post("/v1/events", json={"name": "built", "payload": 1})
        assert (emitted.status_code, kind(emitted)) == (403, "not-allowed")
