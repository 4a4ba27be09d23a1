"""POST only: decisions, answers, edits with their preview, snoozing. A GET changes nothing, whoever follows it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from fastapi import Request
from fastapi.responses import Response
from starlette.datastructures import FormData

from ...errors import AlreadyDecided, InvalidEdit
from ...events import Json, canonical
from ...interrupts import GATES, Interrupt, Verb
from ..auth import Principal
from . import diff, looking, reading, schemas
from .forms import Builder
from .rendering import House, go
from .routing import NotShown, PageRouter, form
from .values import Sheet

Problems = Sequence[tuple[str, str]]
SNOOZES = {"1h": timedelta(hours=1), "4h": timedelta(hours=4), "1d": timedelta(days=1), "7d": timedelta(days=7)}


def answers(house: House) -> PageRouter:
    """The page of an interrupt and everything that is done on it."""
    router, desk = PageRouter(house), house.desk
    sees, decides = house.who("interrupts:read"), house.who("interrupts:decide")

    @router.page("/interrupts/{id}")
    async def show(request: Request, id: str, who: Principal = sees, all: bool = False) -> Response:
        return await _shown(house, request, who, id, whole=all)

    @router.page("/interrupts/{id}/edit")
    async def edit(request: Request, id: str, who: Principal = decides, tab: str = "form") -> Response:
        one = await desk.interrupt(who, id)
        _must_be_open(one)
        return await _edit_page(house, request, who, one, tab, looking.edited_value(one))

    @router.form("/interrupts/{id}/edit")
    async def change(request: Request, id: str, who: Principal = decides) -> Response:
        sent = await form(house, request)
        one = await desk.interrupt(who, id)
        _must_be_open(one)
        return await _changed(house, request, who, one, sent)

    @router.form("/interrupts/{id}/decide")
    async def decide(request: Request, id: str, who: Principal = sees) -> Response:
        sent = await form(house, request)
        one = await desk.interrupt(who, id)
        verb = str(sent.get("decision") or "")
        if verb == "leave":
            return go(request, "/", left=one.id)
        try:
            async with desk.attempt(who, one, verb):
                value = _read(one, verb, sent)
            more = {"arguments": value} if verb == "edit" else {"value": value}
            digest = str(sent.get("digest") or "-")
            await desk.decide(who, id, cast(Verb, verb), digest=digest, note=str(sent.get("note") or "").replace("\r\n", "\n"), **more)
        except InvalidEdit as error:
            if verb == "edit":
                return await _edit_page(house, request, who, one, "json", json.loads(str(sent.get("arguments"))), error.problems)
            return await _shown(house, request, who, id, problems=error.problems, sent=sent)
        return go(request, f"/interrupts/{id}", done="1")

    @router.form("/interrupts/{id}/again")
    async def again(request: Request, id: str, who: Principal = decides) -> Response:
        sent = await form(house, request)
        one = await desk.interrupt(who, id)
        _must_be_open(one)
        found = reading.read_json(str(sent.get("arguments") or ""))
        value = looking.edited_value(one) if found.problems else found.value
        return await _edit_page(house, request, who, one, str(sent.get("tab") or "form"), value, note=str(sent.get("note") or ""))

    @router.form("/interrupts/{id}/snooze")
    async def snooze(request: Request, id: str, who: Principal = decides) -> Response:
        sent = await form(house, request)
        until = _until(str(sent.get("until") or ""), str(sent.get("at") or ""), house.now)
        await desk.snooze(who, id, until)
        return go(request, "/" if until is not None else f"/interrupts/{id}")

    return router


def _read(one: Interrupt, verb: str, sent: FormData) -> Json:
    """What somebody says, if they may say it."""
    if verb == "approve":
        _must_be_whole(one, sent)
    value, problems = _value(one, verb, sent)
    if problems:
        raise InvalidEdit(one, problems)
    return value


def _must_be_open(one: Interrupt) -> None:
    if one.status != "open":
        raise AlreadyDecided(one)


def _must_be_whole(one: Interrupt, sent: FormData) -> None:
    """Nobody approves what was not delivered to them in full."""
    sheet = Sheet()
    sheet.arguments(one.intent)
    if one.kind == "result":
        sheet.value(looking.held(one))
    if sheet.left_out and sent.get("whole") != "1":
        raise NotShown(one.id)


# ---- pages ---------------------------------------------------------------------------------------------------------------------------


async def _shown(
    house: House, request: Request, who: Principal, id: str, *, whole: bool = False, problems: Problems = (), sent: FormData | None = None
) -> Response:
    seen = await looking.look(house.desk, who, id, whole=whole)
    asks = "answer" in seen.offered
    return await house.page(
        request,
        who,
        "interrupt.html",
        422 if problems else 200,
        look=seen,
        one=seen.one,
        fields=looking.answer_form(seen.one, problems, sent) if asks else None,
        is_text=looking.is_text(seen.one),
        problems=list(problems),
        sent=defaultdict(str, dict(sent or {})),
        is_done=request.query_params.get("done") == "1" and seen.one.status != "open",
        snoozes=list(SNOOZES),
    )


async def _edit_page(
    house: House,
    request: Request,
    who: Principal,
    one: Interrupt,
    tab: str,
    value: Json,
    problems: Problems = (),
    sent: FormData | None = None,
    note: str = "",
) -> Response:
    builder = Builder(looking.edit_schema(one), problems)
    field = builder.form(value) if sent is None or tab == "json" else builder.again(sent)
    return await house.page(
        request,
        who,
        "edit.html",
        422 if problems else 200,
        one=one,
        tab=tab,
        field_root=field,
        raw=str(sent.get("json") or "") if sent is not None and tab == "json" else value,
        problems=list(problems) if tab == "json" else builder.rest,
        is_wrong=bool(problems),
        note=str(sent.get("note") or "") if sent is not None else note,
        is_json=tab == "json",
    )


async def _changed(house: House, request: Request, who: Principal, one: Interrupt, sent: FormData) -> Response:
    """The next page of an edit: the form again (another row, another type, a problem), or the preview."""
    move, tab = str(sent.get("do") or "preview"), "json" if "json" in sent else "form"
    if move != "preview" and tab == "form":
        pairs = [(name, value) for name, value in sent.multi_items() if isinstance(value, str)]
        return await _edit_page(house, request, who, one, tab, None, sent=FormData([*reading.moved(pairs, move)]))
    found = reading.read_json(str(sent.get("json") or "")) if tab == "json" else reading.read(looking.edit_schema(one), sent)
    if not found.is_settled:
        return await _edit_page(house, request, who, one, tab, None, sent=sent)
    problems = found.problems or ([] if one.kind == "result" else schemas.problems(one.schema, found.value))
    if not problems and one.kind != "result" and not isinstance(found.value, dict):
        problems = [("", "the arguments are a JSON object")]
    if problems:
        return await _edit_page(house, request, who, one, tab, None, problems, sent)
    before = looking.edited_value(one)
    return await house.page(
        request,
        who,
        "preview.html",
        one=one,
        changes=diff.change_of(before, found.value),
        is_same=canonical(before) == canonical(found.value),
        arguments=json.dumps(found.value),
        tab=tab,
        note=str(sent.get("note") or ""),
    )


# ---- values --------------------------------------------------------------------------------------------------------------------------


def _value(one: Interrupt, verb: str, sent: FormData) -> tuple[Json, Problems]:
    """The value that goes with a decision."""
    if verb == "edit":
        found = reading.read_json(str(sent.get("arguments") or ""))
        return found.value, found.problems
    if verb == "respond":
        return _said(sent)
    if verb != "answer" or one.kind in GATES:
        return None, ()
    if one.kind == "in_doubt":
        return _happened(one, sent)
    if one.choices is not None:
        number = str(sent.get("choice") or "")
        is_one = number.isdecimal() and int(number) < len(one.choices)
        return (one.choices[int(number)], ()) if is_one else (None, [("", "choose one of the answers")])
    if looking.is_text(one):
        return _text(sent.get("value")), ()
    found = reading.read(looking.answer_schema(one), sent)
    return found.value, found.problems if found.is_settled else [("", "fill in the fields that are shown now")]


def _said(sent: FormData) -> tuple[Json, Problems]:
    if sent.get("as") != "json":
        return _text(sent.get("value")), ()
    found = reading.read_json(str(sent.get("value") or ""))
    return found.value, found.problems


def _happened(one: Interrupt, sent: FormData) -> tuple[Json, Problems]:
    said = sent.get("happened")
    if said == "no":
        return {"happened": False}, ()
    if said != "yes":
        return None, [("", "say whether it happened")]
    found = reading.read(looking.answer_schema(one), sent)
    return {"happened": True, "value": found.value}, found.problems


def _text(value: Any) -> str:
    return str(value or "").replace("\r\n", "\n")


def _until(chosen: str, at: str, now: datetime) -> datetime | None:
    """When a snoozed interrupt comes back; None: now."""
    if chosen in SNOOZES:
        return now + SNOOZES[chosen]
    if chosen == "at" and at:
        try:
            moment = datetime.fromisoformat(at)
        except ValueError:
            return now + SNOOZES["1h"]
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return None
