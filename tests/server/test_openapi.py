"""The OpenAPI document: committed, complete, and kept by the server whatever is thrown at it."""

from __future__ import annotations

import asyncio
import json
import runpy
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from bureau import Place, make, running, visitor
from hypothesis import HealthCheck, Phase, settings
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from ownloop.server import create

ROOT = Path(__file__).resolve().parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "openapi.py"))

DOCUMENT = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
OPERATIONS = [(path, method, one) for path, methods in DOCUMENT["paths"].items() for method, one in methods.items()]


def test_the_committed_document_is_the_servers() -> None:
    assert (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8") == TOOL["document"](), "run: python tools/openapi.py"


async def test_the_server_gives_it_to_anybody() -> None:
    async with visitor(create(make("memory://").app)) as http:
        assert (await http.get("/openapi.json")).json() == DOCUMENT


def test_it_is_openapi_3_1_and_every_operation_has_a_stable_name() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    names = [one["operationId"] for _, _, one in OPERATIONS]
    assert len(names) == len(set(names))
    assert "interrupts_decide" in names and "threads_start" in names
    assert all(name.replace("_", "").isalpha() and name == name.lower() for name in names)
    assert all(one.get("description") for _, _, one in OPERATIONS)


def test_every_reference_leads_somewhere_and_every_schema_has_a_name_of_ours() -> None:
    known = set(DOCUMENT["components"]["schemas"])
    references = {text.partition('"')[0] for text in json.dumps(DOCUMENT).split('"$ref": "#/components/schemas/')[1:]}
    assert references <= known
    assert not {name for name in known if "__" in name or "HTTP" in name or "ownloop" in name}


def test_every_refusal_is_a_problem_and_every_post_takes_a_key() -> None:
    for path, method, one in OPERATIONS:
        for status, answer in one["responses"].items():
            if status >= "400":
                assert list(answer["content"]) == ["application/problem+json"], (path, status)
        if method == "post" and "/hooks/" not in path:
            assert "Idempotency-Key" in [parameter["name"] for parameter in one["parameters"]]
        assert (one["security"] == []) == (path in ("/healthz", "/readyz", "/v1/hooks/{source}"))


def test_a_decision_is_told_apart_by_its_verb() -> None:
    body = DOCUMENT["paths"]["/v1/interrupts/{id}/decision"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["discriminator"]["mapping"]) == {"approve", "edit", "reject", "respond", "answer"}


async def test_answers_have_the_shape_that_is_promised(place: Place) -> None:
    for input in ("deploy", "two", "short", "ask", "charge", "review", "managers", "event", "child", "fail", "done"):
        await place.bureau.thread(input, context={"n": 1})
    one = await place.bureau.parked("two")
    await place.bureau.app.approve(one, by="bob")
    await place.bureau.app.approve(one, by="ann", note="go")
    late = await place.http.post(f"/v1/interrupts/{one.id}/decision", json={"decision": "approve", "digest": one.digest})
    fits("Problem", late.json())
    page = (await place.http.get("/v1/interrupts", params={"limit": 500})).json()
    fits("InterruptPage", page)
    fits("InterruptPage", (await place.http.get("/v1/interrupts", params={"kind": "event"})).json())
    fits("InterruptPage", (await place.http.get("/v1/interrupts", params={"status": "decided"})).json())
    fits("ThreadPage", (await place.http.get("/v1/threads")).json())
    for row in await place.bureau.app.store.threads():
        fits("ThreadView", (await place.http.get(f"/v1/threads/{row.id}")).json())
        fits("EventPage", (await place.http.get(f"/v1/threads/{row.id}/events")).json())


def fits(name: str, value: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    errors = list(Draft202012Validator(schema).iter_errors(value))
    assert errors == [], errors[:3]


# ---- whatever is thrown at it ------------------------------------------------------------------------------------------------------

EXAMPLES = 40
schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(path_regex="/stream$")  # a stream has no end


@dataclass
class Target:
    url: str
    token: str
    thread: str
    interrupt: str


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """A server in a thread, with a thread and an interrupt that are there."""
    started, found = threading.Event(), list[Target]()

    async def serve() -> None:
        bureau = make("memory://")
        one = await bureau.parked("two")
        async with running(create(bureau.app, wakes=False)) as url:
            found.append(Target(url, await bureau.token("ann"), one.thread_id, one.id))
            started.set()
            await asyncio.to_thread(ended.wait)

    ended = threading.Event()
    worker = threading.Thread(target=asyncio.run, args=[serve()])
    worker.start()
    assert started.wait(20)
    yield found[0]
    ended.set()
    worker.join()


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
def test_nothing_that_is_thrown_at_it_breaks_it(case: Any, target: Target) -> None:
    """No 5xx, and no status, type or shape that the document does not promise; half of the requests are about what is there."""
    if "id" in (case.path_parameters or {}) and len(str(case.path_parameters["id"])) % 2:
        case.path_parameters["id"] = target.interrupt if "/interrupts/" in case.path else target.thread
    response = case.call(base_url=target.url, headers={"Authorization": f"Bearer {target.token}"})
    case.validate_response(response, checks=[not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance])
