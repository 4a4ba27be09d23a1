"""The JSON API: a list of 10,000 open interrupts, a decision over HTTP, and 1,000 who listen to one process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ownloop import Actor
from ownloop.server import Served, Tokens, create, serve
from ownloop.server.tokens import SCOPES

from .agents import Gate
from .measure import Result, main, median, scratch

OPEN = 10_000
LISTENERS = 1_000
DECISIONS = 60
ROUNDS = 15
IDLE_SECONDS = 5.0
MANAGER = Actor("ana", ("release-managers",))


class Door:
    """An application asked without a network: what is measured is the server's own time."""

    def __init__(self, site: Any, token: str) -> None:
        self._site, self._token = site, token.encode()

    async def ask(self, method: str, path: str, query: str = "", body: Any = None) -> Any:
        """The JSON that it answers with."""
        sent = json.dumps(body).encode() if body is not None else b""
        headers = [(b"host", b"localhost"), (b"authorization", b"Bearer " + self._token), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(), "headers": headers}
        scope |= {"http_version": "1.1", "scheme": "http", "client": ("127.0.0.1", 1), "server": ("localhost", 80), "root_path": ""}
        parts: list[bytes] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": sent, "more_body": False}

        async def send(message: Any) -> None:
            parts.append(message.get("body", b""))

        await self._site(scope, receive, send)
        return json.loads(b"".join(parts))


async def seconds(act: Callable[[], Awaitable[Any]]) -> float:
    began = time.perf_counter()
    await act()
    return time.perf_counter() - began


async def lists(url: str) -> tuple[float, float, float]:
    """Seconds for the first page of all that is open, for a page in the middle, and for one that is searched for in vain."""
    gate = Gate(url)
    await gate.park(OPEN)
    gate = Gate(url)
    site, door = await opened(gate)
    page = await door.ask("GET", "/v1/interrupts", "limit=500")
    for _ in range(9):
        page = await door.ask("GET", "/v1/interrupts", f"limit=500&after={page['next']}")
    queries = ("", f"after={page['next']}", "q=nothing")
    found = [[await seconds(lambda query=query: door.ask("GET", "/v1/interrupts", query)) for _ in range(ROUNDS)] for query in queries]  # type: ignore[misc]
    await site.state.desk.hub.close()
    await gate.app.aclose()
    return median(found[0]), median(found[1]), median(found[2])


async def opened(gate: Gate) -> tuple[Any, Door]:
    await gate.app.threads(limit=1)
    token, _ = await Tokens(gate.app.store).issue("bench", MANAGER, SCOPES)
    site = create(gate.app, pages=False, wakes=False)
    return site, Door(site, token)


async def decisions(url: str) -> tuple[float, float]:
    """Seconds of a decision over HTTP, and of the same by the library, in turns."""
    gate = Gate(url)
    await gate.park(2 * DECISIONS)
    gate = Gate(url)
    _, door = await opened(gate)
    waiting = await gate.app.interrupts(limit=2 * DECISIONS)
    over, own = [], []
    for one, other in zip(waiting[::2], waiting[1::2], strict=True):
        body = {"decision": "approve", "digest": one.digest}
        over.append(await seconds(lambda one=one, body=body: door.ask("POST", f"/v1/interrupts/{one.id}/decision", body=body)))  # type: ignore[misc]
        own.append(await seconds(lambda other=other: gate.app.approve(other.id, by=MANAGER, digest=other.digest)))  # type: ignore[misc]
    await gate.app.aclose()
    return median(over[5:]), median(own[5:])


# ---- who listens -----------------------------------------------------------------------------------------------------------------


def serve_one(url: str, token_file: str) -> None:
    """The process that is listened to: its address on the first line that it prints."""
    gate = Gate(url)

    async def prepare() -> str:
        await gate.app.threads(limit=1)
        token, _ = await Tokens(gate.app.store).issue("bench", MANAGER, SCOPES)
        await gate.app.aclose()
        return token

    Path(token_file).write_text(asyncio.run(prepare()), encoding="utf-8")

    def ready(served: Served) -> None:
        print(served.url, flush=True)

    serve(Gate(url).app, port=0, ready=ready)


SERVER = "import sys; sys.path.insert(0, sys.argv[3]); from bench.server import serve_one; serve_one(sys.argv[1], sys.argv[2])"


class Listener:
    """One connection that follows a stream, with nothing around it."""

    def __init__(self) -> None:
        self.at = 0.0
        self._awaited = b""
        self._heard: asyncio.Future[None] | None = None

    async def open(self, port: int, path: str, token: str) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
        await self._reader.readuntil(b"\r\n\r\n")
        self._task = asyncio.ensure_future(self._read())

    def await_text(self, text: bytes) -> asyncio.Future[None]:
        self._awaited, self._heard = text, asyncio.get_running_loop().create_future()
        return self._heard

    async def _read(self) -> None:
        while chunk := await self._reader.read(65536):
            if self._heard is not None and not self._heard.done() and self._awaited in chunk:
                self.at = time.perf_counter()
                self._heard.set_result(None)

    def close(self) -> None:
        self._task.cancel()
        self._writer.close()


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[int, int, str]]:
    """A server of its own: its process, port and a token."""
    root = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", SERVER, f"sqlite:///{folder}/live.db", str(folder / "token"), root]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int((await process.stdout.readline()).rpartition(b":")[2])
        yield process.pid, port, (folder / "token").read_text(encoding="utf-8")
    finally:
        process.terminate()
        await process.wait()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def listening(folder: Path) -> dict[str, float]:
    """Some follow one thread, as many a thread each; then what it costs, and how long an event takes to reach all of the first."""
    gate = Gate(f"sqlite:///{folder}/live.db")
    await gate.park(LISTENERS + 1)
    gate = Gate(f"sqlite:///{folder}/live.db")
    waiting = await gate.app.interrupts(limit=LISTENERS + 1)
    one, *others = [interrupt.thread_id for interrupt in waiting]
    async with served(folder) as (pid, port, token):
        await asyncio.sleep(1)
        before = resident_bytes(pid)
        together, apart = [Listener() for _ in range(LISTENERS)], [Listener() for _ in others]
        for listener in together:
            await listener.open(port, f"/v1/threads/{one}/stream", token)
        for listener, thread in zip(apart, others, strict=True):
            await listener.open(port, f"/v1/threads/{thread}/stream", token)
        await asyncio.sleep(2)
        memory = (resident_bytes(pid) - before) / (len(together) + len(apart))
        spent = cpu_seconds(pid)
        await asyncio.sleep(IDLE_SECONDS)
        idle = (cpu_seconds(pid) - spent) / IDLE_SECONDS
        last, middle = [], []
        for number in range(ROUNDS):
            text = f"round {number};"
            heard = [listener.await_text(text.encode()) for listener in together]
            for thread in (one, others[number]):  # this process commits, the other one has to notice
                began = time.perf_counter()
                await gate.app.send(thread, text)
                if thread == one:
                    await asyncio.wait_for(asyncio.gather(*heard), 20)
                    arrived = sorted(listener.at - began for listener in together)
                    last.append(arrived[-1])
                    middle.append(arrived[len(arrived) // 2])
        for listener in [*together, *apart]:
            listener.close()
    await gate.app.aclose()
    return {"bytes": memory, "idle": idle, "last": median(last), "middle": median(middle)}


def measure() -> list[Result]:
    with scratch() as folder:
        first, middle, search = asyncio.run(lists(f"sqlite:///{folder}/lists.db"))
        over, own = asyncio.run(decisions(f"sqlite:///{folder}/decisions.db"))
        live = asyncio.run(listening(folder))
    return [
        Result(
            f"GET /v1/interrupts: the first 50 of {OPEN:,} open ones, by urgency, server time",
            "≤ 50 ms",
            f"{first * 1e3:.1f} ms ({middle * 1e3:.1f} ms in the middle, {search * 1e3:.1f} ms to search all in vain)",
            "–",
            first <= 0.05,
        ),
        Result(
            "POST …/decision: server time with its audit, over that of app.approve",
            "≤ +10 ms",
            f"+{(over - own) * 1e3:.1f} ms ({over * 1e3:.1f} ms)",
            f"{own * 1e3:.1f} ms for app.approve",
            over - own <= 0.01,
        ),
        Result(
            f"{LISTENERS:,} listeners of one thread and {LISTENERS:,} of one each, one process: memory of each, CPU while nothing happens",
            "≤ 100 KB each, ≤ 2 % of a core",
            f"{live['bytes'] / 1024:.0f} KB each, {live['idle'] * 100:.1f} %",
            "–",
            live["bytes"] <= 100 * 1024 and live["idle"] <= 0.02,
        ),
        Result(
            f"an event that another process commits, until the last of {LISTENERS:,} listeners has it",
            "≤ 0.5 s",
            f"{live['last'] * 1e3:.0f} ms ({live['middle'] * 1e3:.0f} ms for half of them)",
            "≤ 100 ms until the process notices the commit",
            live["last"] <= 0.5,
        ),
    ]


if __name__ == "__main__":
    main(measure)
