"""Providers, played back over loopback HTTP: recordings as they were, and answers made up where no recording shows the case.

Bodies go out in chunks of an odd size, so a client that takes one read for one event fails. Every request is kept: what is counted here is what
would have been paid.
"""

from __future__ import annotations

import io
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CASSETTES = Path(__file__).resolve().parent.parent / "cassettes"
HOP = {"connection", "date", "server", "content-length", "transfer-encoding", "content-encoding"}
CHUNK = 37


@dataclass(frozen=True)
class Answer:
    """One HTTP answer.

    Attributes:
        cut: after so many bytes of the body the connection is reset.
        ends: after so many bytes the body ends in order, as if that were all.
        after: seconds before anything is sent.
    """

    body: Any = None
    status: int = 200
    headers: Mapping[str, Any] = field(default_factory=dict)
    cut: int | None = None
    ends: int | None = None
    after: float = 0

    @property
    def raw(self) -> bytes:
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class Tape:
    """Answers in order, the last one again and again; or a function from the request to its answer."""

    url: str
    answers: Sequence[Answer] | Callable[[Request], Answer]
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, request: Request) -> Answer:
        with self.lock:
            self.requests.append(request)
            number = len(self.requests) - 1
        return self.answers(request) if callable(self.answers) else self.answers[min(number, len(self.answers) - 1)]

    def __len__(self) -> int:
        return len(self.requests)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client went away, which is what a test of a timeout wants."""


class Replay:
    """The server; `play` gives an address at which one tape is played."""

    def __init__(self) -> None:
        self._tapes: dict[str, Tape] = {}
        self._numbers = itertools.count(1)
        self._server = Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def play(self, tape: str | Sequence[Answer] | Callable[[Request], Answer], start: int = 0) -> Tape:
        """A recording by its name ("openai_chat/refusal"), from interaction `start` on; or answers that a test makes up."""
        answers = recorded(tape)[start:] if isinstance(tape, str) else tape
        key = str(next(self._numbers))
        made = self._tapes[key] = Tape(f"http://127.0.0.1:{self._server.server_address[1]}/{key}", answers)
        return made

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        tapes = self._tapes

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None: ...

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                key = self.path.split("/")[1]
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = tapes[key].next(Request(self.path.removeprefix(f"/{key}"), headers, json.loads(raw) if raw else None))
                time.sleep(answer.after)
                self._send(answer)

            def _send(self, answer: Answer) -> None:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    for one in value if isinstance(value, list) else [value]:
                        self.send_header(name, str(one))
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                body = answer.raw[: answer.ends]
                for piece in pieces(body[: answer.cut]):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                if answer.cut is not None:
                    return self._reset()
                self.wfile.write(b"0\r\n\r\n")
                return None

            def _reset(self) -> None:
                """Close with RST, as a provider that dies."""
                time.sleep(0.02)  # what was sent arrives first
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                self.wfile = self.rfile = io.BytesIO()  # type: ignore[assignment]  # nothing more goes out

        return Handler


def pieces(body: bytes) -> Iterator[bytes]:
    for place in range(0, len(body), CHUNK):
        yield body[place : place + CHUNK]


def recorded(name: str) -> list[Answer]:
    """The answers of a recording."""
    found = json.loads((CASSETTES / f"{name}.json").read_text(encoding="utf-8"))["interactions"]
    return [
        Answer(one["response"]["body"], one["response"]["status"], {k: v for k, v in one["response"]["headers"].items() if k.lower() not in HOP})
        for one in found
    ]


# ---- made up: what no recording shows --------------------------------------------------------------------------------------------


def chat(*calls: tuple[str, str], text: str | None = None, finish: str | None = None, usage: tuple[int, int] = (100, 10), **more: Any) -> Answer:
    """A made-up answer of OpenAI's chat API: calls as (name, arguments as they are written)."""
    tools = [{"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": said}} for place, (name, said) in enumerate(calls)]
    message = {"role": "assistant", "content": text, **({"tool_calls": tools} if tools else {})}
    choice = {"index": 0, "message": message, "finish_reason": finish or ("tool_calls" if tools else "stop")}
    counted = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    body = {"id": "chatcmpl-made-up", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini", "choices": [choice], "usage": counted}
    return Answer(body | more, headers={"content-type": "application/json"})


def sse(*events: Any, done: bool = True) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + ("data: [DONE]\n\n" if done else "")


def chat_stream(name: str, arguments: str, *, size: int = 5, finish: str | None = "tool_calls") -> Answer:
    """A made-up stream of OpenAI's chat API: one call, its arguments in small pieces."""
    base = {"id": "chatcmpl-made-up", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}

    def chunk(delta: Any, reason: str | None = None) -> Any:
        return {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    first = {"role": "assistant", "tool_calls": [{"index": 0, "id": "call_0", "type": "function", "function": {"name": name, "arguments": ""}}]}
    rest = [{"tool_calls": [{"index": 0, "function": {"arguments": arguments[at : at + size]}}]} for at in range(0, len(arguments), size)]
    last = [chunk({}, finish)] if finish else []
    counted = {**base, "choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}}
    body = sse(chunk(first), *map(chunk, rest), *last, counted)
    return Answer(body, headers={"content-type": "text/event-stream"})


def failing(status: int, message: str = "made up", headers: Mapping[str, str] | None = None, **error: Any) -> Answer:
    """A made-up error."""
    return Answer({"error": {"message": message, **error}}, status, {"content-type": "application/json", **(headers or {})})
