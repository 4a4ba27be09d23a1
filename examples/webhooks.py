"""Webhooks for the examples: a process of its own that opens the same file and passes on what comes in by HTTP. Standard library only.

    python examples/webhooks.py sqlite:///seed.db

    POST /interrupts/ID/approve|reject|answer {"value", "note"}        POST /events/NAME {"payload", "key", "id"}

Who answers is what the bearer token proves, never what the body says. This is enough for the examples; `ownloop.server` is the real one.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from ownloop import Actor, App, OwnloopError
from ownloop.errors import AlreadyDecided, Expired, NotAllowed, NotFound

TOKENS = {"ana-token": Actor("ana", ("maintainers", "ml-leads")), "bob-token": Actor("bob"), "job-token": Actor("trainer")}
STATUSES: dict[type[OwnloopError], int] = {NotAllowed: 403, NotFound: 404, AlreadyDecided: 409, Expired: 410}


async def act(app: App, path: str, body: dict[str, Any], actor: Actor) -> None:
    """One request: a decision about an interrupt, or an event from outside."""
    if found := re.fullmatch(r"/interrupts/(int_\w+)/(approve|reject|answer)", path):
        interrupt, verb = found.groups()
        if verb == "answer":
            await app.answer(interrupt, body["value"], by=actor)
        else:
            await (app.approve if verb == "approve" else app.reject)(interrupt, by=actor, note=body.get("note", ""))
    elif found := re.fullmatch(r"/events/([\w.]+)", path):
        await app.emit(found[1], body["payload"], key=body.get("key"), id=body.get("id"))
    else:
        raise NotFound("path", path)


class Webhook(BaseHTTPRequestHandler):
    url = ""

    def do_POST(self) -> None:
        actor = TOKENS.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        status, said = (401, "no such token") if actor is None else asyncio.run(self.handle_one(body, actor))
        answer = json.dumps({"said": said}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    async def handle_one(self, body: dict[str, Any], actor: Actor) -> tuple[int, str]:
        app = App(self.url)
        try:
            await act(app, self.path, body, actor)
        except OwnloopError as error:
            return STATUSES.get(type(error), 422), str(error)
        except (KeyError, ValueError) as error:
            return 422, repr(error)
        finally:
            await app.aclose()
        return 200, "ok"

    def log_message(self, format: str, *args: Any) -> None:
        print(f"  webhook[{os.getpid()}]: {format % args}", file=sys.stderr, flush=True)


def post(url: str, body: dict[str, Any], token: str) -> tuple[int, str]:
    """What a chat tool, a mail gateway or a job does: one POST; its status and what the server said."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        with urlopen(Request(url, json.dumps(body).encode(), headers), timeout=10) as response:
            return response.status, json.load(response)["said"]
    except HTTPError as error:
        return error.code, json.load(error)["said"]


@contextmanager
def serving(store: str) -> Iterator[str]:
    """The server in another process; gives its base URL."""
    command = [sys.executable, __file__, store]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


if __name__ == "__main__":
    Webhook.url = sys.argv[1]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
