"""Server-Sent Events: no gap, no duplicate, whoever is cut off and however; one watcher for all."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from bureau import Place, kind, make, running, visitor

from ownloop.client import Client
from ownloop.events import Event
from ownloop.server import Tokens, create, streams
from ownloop.server.hub import Hub
from ownloop.server.tokens import SCOPES

HERE = Path(__file__).parent


@dataclass
class Frame:
    event: str = "message"
    data: Any = None
    id: int | None = None


async def frames(response: httpx.Response) -> AsyncIterator[Frame | str]:
    """What a browser would make of it; comments as they are."""
    frame, said = Frame(), False
    async for line in response.aiter_lines():
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line.startswith(":"):
            yield line
        elif name in ("event", "data", "id"):
            said = True
            setattr(frame, name, json.loads(value) if name == "data" else int(value) if name == "id" else value)
        elif not line and said:
            yield frame
            frame, said = Frame(), False


@asynccontextmanager
async def following(url: str, token: str, path: str, **headers: str) -> AsyncIterator[AsyncIterator[Frame | str]]:
    async with (
        httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=20) as http,
        http.stream("GET", path, headers=headers) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        async with aclosing(frames(response)) as found:
            yield found


async def take(found: AsyncIterator[Frame | str], count: int, *, only: str | None = None, seconds: float = 10) -> list[Frame]:
    taken: list[Frame] = []
    async with asyncio.timeout(seconds):
        async for one in found:
            if isinstance(one, Frame) and (only is None or one.event == only):
                taken.append(one)
                if len(taken) == count:
                    break
    return taken


async def news(found: AsyncIterator[Frame | str], name: str) -> tuple[Frame, Frame]:
    """A change and the counts after it, in whatever order they come."""
    both = {one.event: one for one in await take(found, 2)}
    return both[name], both["counts"]


@dataclass
class Live:
    url: str
    bureau: Any
    site: Any
    token: str = ""
    more: dict[str, Any] = field(default_factory=dict)


@pytest.fixture
async def live(kept_url: str) -> AsyncIterator[Live]:
    """A bureau that runs its wakes, behind a real socket."""
    bureau = make(kept_url)
    site = create(bureau.app)
    async with running(site) as url:
        yield Live(url, bureau, site, await bureau.token("ann", groups=("managers",)))


async def say(live: Live, thread: str, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        await live.bureau.app.send(thread, f"message {number}")


async def test_the_log_comes_as_it_grows_with_positions_and_kinds(live: Live) -> None:
    thread = await live.bureau.app.start("desk", "deploy")
    async with following(live.url, live.token, f"/v1/threads/{thread}/stream") as found:
        first = await take(found, 3)
        assert [(one.id, one.event, one.data["kind"]) for one in first] == [
            (1, "input", "input"),
            (2, "selected", "selected"),
            (3, "request", "request"),
        ]
        await live.bureau.app.send(thread, "hello")
        (message,) = await take(found, 1, only="message")
        assert (message.id, message.data["data"]["text"], message.data["seq"]) == (message.data["seq"], "hello", message.id)


async def test_a_stream_that_is_cut_goes_on_without_gap_or_duplicate(live: Live) -> None:
    thread = await live.bureau.app.start("desk", "deploy")
    path, seen = f"/v1/threads/{thread}/stream", list[int]()
    writing = asyncio.create_task(say(live, thread, 300))
    while len(seen) < 303:
        headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
        async with following(live.url, live.token, path, **headers) as found:
            seen += [one.id or 0 for one in await take(found, min(37, 303 - len(seen)))]
    await writing
    assert seen == list(range(1, 304))
    async with following(live.url, live.token, f"{path}?after=290") as found:
        assert [one.id for one in await take(found, 3)] == [291, 292, 293]
    async with following(live.url, live.token, f"{path}?after=0", **{"Last-Event-ID": "301"}) as found:
        assert [one.id for one in await take(found, 2)] == [302, 303]


async def test_many_listeners_hear_the_same_each_from_where_it_was(live: Live) -> None:
    thread = await live.bureau.app.start("desk", "deploy")
    await say(live, thread, 500)
    hub: Hub = live.site.state.desk.hub

    async def listen(after: int) -> list[int]:
        async with aclosing(hub.follow(thread, after)) as items:
            heard = []
            async for item in items:
                assert item is not None
                heard.append(item.seq)
                if item.seq == 1003:
                    return heard
        raise AssertionError("it ended")

    async with asyncio.timeout(30):
        *heard, _ = await asyncio.gather(*(listen(after) for after in (0, 1, 250, 499, 503, 600)), say(live, thread, 500, 500))
    for after, seqs in zip((0, 1, 250, 499, 503, 600), heard, strict=True):
        assert seqs == list(range(after + 1, 1004))


async def test_what_another_process_commits_is_heard(live: Live, kept_url: str) -> None:
    thread = await live.bureau.app.start("desk", "deploy")
    async with following(live.url, live.token, f"/v1/threads/{thread}/stream") as found:
        await take(found, 3)
        other = await asyncio.create_subprocess_exec(sys.executable, "-m", "ownloop", "send", thread, "from elsewhere", "--store", kept_url)
        assert await other.wait() == 0
        (message,) = await take(found, 1, only="message", seconds=3)
        assert message.data["data"]["text"] == "from elsewhere"


async def test_the_stream_of_a_thread_that_ends_ends_and_is_not_opened_again(live: Live) -> None:
    thread = await live.bureau.app.start("desk", "deploy")
    async with following(live.url, live.token, f"/v1/threads/{thread}/stream") as found:
        await take(found, 3)
        await live.bureau.app.cancel(thread)
        rest = [one async for one in found if isinstance(one, Frame)]
        assert (rest[-1].event, rest[-1].data["data"]["verb"]) == ("control", "cancel")
    async with httpx.AsyncClient(base_url=live.url, headers={"Authorization": f"Bearer {live.token}"}) as http:
        over = await http.get(f"/v1/threads/{thread}/stream", headers={"Last-Event-ID": str(rest[-1].id)})
        assert (over.status_code, over.content) == (204, b"")  # a browser's EventSource does not come back
        again = await http.get(f"/v1/threads/{thread}/stream")
        assert again.text.count("\nid: ") == rest[-1].id


async def test_progress_and_text_pass_by_without_a_position(live: Live) -> None:
    thread = await live.bureau.app.start("desk", "train")
    async with following(live.url, live.token, f"/v1/threads/{thread}/stream") as found:
        (progress,) = await take(found, 1, only="progress", seconds=5)
        assert progress.id is None
        assert progress.data["total"] == 3 and progress.data["text"].startswith("epoch ")
        live.bureau.app._board.say(thread, "Once upon")
        (delta,) = await take(found, 1, only="delta")
        assert (delta.id, delta.data) == (None, {"text": "Once upon"})
        (last,) = await take(found, 1, only="outcome", seconds=5)
        assert last.id is not None


async def test_the_progress_of_an_outside_job_is_heard(live: Live) -> None:
    thread = await live.bureau.app.start("desk", "event")
    async with following(live.url, live.token, f"/v1/threads/{thread}/stream") as found:
        await take(found, 1, only="request")
        await live.bureau.app.emit("built.progress", {"done": 40, "total": 100}, key="job-1")
        (progress,) = await take(found, 1, only="progress", seconds=4)
        assert progress.data["done"] == 40


async def test_silence_is_told_apart_from_a_dead_line(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    from ownloop.server import api

    monkeypatch.setattr(api, "IDLE", 0.05)
    thread = await live.bureau.app.start("desk", "deploy")
    for path in (f"/v1/threads/{thread}/stream?after=99", "/v1/stream"):
        async with following(live.url, live.token, path) as found, asyncio.timeout(5):
            comments = 0
            async for one in found:
                comments += isinstance(one, str)
                if comments == 3:
                    break


async def test_a_listener_whose_token_ends_is_cut_off(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    from ownloop.server import api

    monkeypatch.setattr(api, "IDLE", 0.05)
    monkeypatch.setattr(streams, "IDLE", 0.05)
    tokens = Tokens(live.bureau.app.store)
    text, known = await tokens.issue("x", "bob", SCOPES)
    thread = await live.bureau.app.start("desk", "deploy")
    async with following(live.url, text, f"/v1/threads/{thread}/stream") as found, asyncio.timeout(5):
        await take(found, 3)
        await tokens.revoke(known.id)
        async for _ in found:
            pass


async def test_nobody_listens_to_the_store_when_nobody_listens_here(live: Live) -> None:
    thread = await live.bureau.app.start("desk", "deploy")
    hub: Hub = live.site.state.desk.hub
    before = len(live.bureau.app.store._listeners)
    for path in (f"/v1/threads/{thread}/stream", "/v1/stream"):
        async with following(live.url, live.token, path) as found:
            await take(found, 1)
            assert len(live.bureau.app.store._listeners) == before + 1
        async with asyncio.timeout(5):
            while hub._channels or hub._lobbies or len(live.bureau.app.store._listeners) != before:
                await asyncio.sleep(0.01)


async def test_a_wrong_position_is_refused(place: Place) -> None:
    id = await place.bureau.thread("deploy")
    for value in ("x", "-1", "1.5", "9" * 30):
        assert kind(await place.http.get(f"/v1/threads/{id}/stream", headers={"Last-Event-ID": value})) == "invalid-request"


# ---- the inbox ---------------------------------------------------------------------------------------------------------------------


async def test_the_inbox_tells_what_opens_and_what_is_resolved_and_counts(live: Live) -> None:
    first = await live.bureau.app.start("desk", "deploy")
    async with asyncio.timeout(5):
        while not await live.bureau.app.interrupts(thread=first):
            await asyncio.sleep(0.01)
    async with following(live.url, live.token, "/v1/stream") as found:
        (counts,) = await take(found, 1)
        assert (counts.event, counts.data) == ("counts", {"open": 1, "snoozed": 0, "by_kind": {"approval": 1}, "by_agent": {"desk": 1}})
        second = await live.bureau.app.start("desk", "ask")
        opened, counts = await news(found, "interrupt.opened")
        assert (opened.event, opened.data["thread_id"], opened.data["kind"], opened.id) == ("interrupt.opened", second, "question", None)
        assert counts.data["open"] == 2
        await live.bureau.app.answer(opened.data["id"], "alpha", by="ann")
        resolved, counts = await news(found, "interrupt.resolved")
        assert (resolved.event, resolved.data["id"], resolved.data["decision"]["by"]["id"]) == ("interrupt.resolved", opened.data["id"], "ann")
        assert counts.data["by_kind"] == {"approval": 1}
        (one,) = await live.bureau.app.interrupts(thread=first)
        async with httpx.AsyncClient(base_url=live.url, headers={"Authorization": f"Bearer {live.token}"}) as http:
            until = (live.bureau.app.store.clock.now() + timedelta(hours=1)).isoformat()
            await http.post(f"/v1/interrupts/{one.id}/snooze", json={"until": until})
        (counts,) = await take(found, 1)
        assert (counts.data["open"], counts.data["snoozed"]) == (0, 1)


async def test_the_inbox_tells_nothing_of_threads_that_are_not_seen(live: Live) -> None:
    text, _ = await Tokens(live.bureau.app.store).issue("x", "bob", SCOPES, see={"tenant": "acme"})
    async with following(live.url, text, "/v1/stream") as found, following(live.url, live.token, "/v1/stream") as all_found:
        await take(found, 1)
        await take(all_found, 1)
        await live.bureau.app.start("desk", "deploy", context={"tenant": "globex"})
        await take(all_found, 1, only="interrupt.opened")
        ours = await live.bureau.app.start("desk", "deploy", context={"tenant": "acme"})
        opened, counts = await news(found, "interrupt.opened")
        assert (opened.data["thread_id"], counts.data["open"]) == (ours, 1)
        assert (await take(all_found, 1, only="interrupt.opened"))[0].data["thread_id"] == ours


# ---- processes that die ------------------------------------------------------------------------------------------------------------


def start_server(folder: Path, store: str, port: int = 0) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, str(HERE / "served.py"), store, str(port), str(folder / "token")]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent / "src")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    url = process.stdout.readline().split()[0]
    return process, url


async def test_the_server_is_killed_while_somebody_follows_and_who_follows_misses_nothing(tmp_path: Path, kept_url: str) -> None:
    process, url = start_server(tmp_path, kept_url)
    port, token = int(url.rpartition(":")[2]), (tmp_path / "token").read_text(encoding="utf-8")
    seen: list[int] = []
    try:
        async with Client(url, token) as client:
            thread = await client.start("desk", "deploy")

            async def follow() -> None:
                async for item in client.stream(thread):
                    if isinstance(item, Event):
                        seen.append(item.seq)

            following = asyncio.create_task(follow())
            for number in range(60):
                await client.send(thread, f"message {number}")
                if number in (20, 40):
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    process, _ = start_server(tmp_path, kept_url, port)
            await client.cancel(thread)
            await asyncio.wait_for(following, 20)
            assert seen == [event.seq for event in await client.events(thread, limit=1000)]
            assert len(seen) >= 63
    finally:
        process.kill()
        process.wait()


@pytest.mark.alone
async def test_a_server_that_is_told_to_stop_does_not_wait_for_who_listens(tmp_path: Path, kept_url: str) -> None:
    process, url = start_server(tmp_path, kept_url)
    try:
        token = (tmp_path / "token").read_text(encoding="utf-8")
        async with following(url, token, "/v1/stream") as found:
            await take(found, 1)
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            async for _ in found:
                pass
            await asyncio.to_thread(process.wait, 10)
            assert time.monotonic() - began < 2.5
    finally:
        process.kill()
        process.wait()


async def test_nobody_is_let_in_by_looking(live: Live) -> None:
    async with visitor(live.site) as http:
        assert kind(await http.get("/v1/stream")) == "unauthenticated"
