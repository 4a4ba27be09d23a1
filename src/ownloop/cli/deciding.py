"""`decide`: a person's answer, from words on the command line or asked at the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from ..app import App
from ..errors import AlreadyDecided, ArgumentsChanged, Expired
from ..events import Json
from ..interrupts import ALL, GATES, Interrupt
from ..tools import Happened, NotHappened
from . import resolving
from .brief import brief
from .command import command
from .paper import plain
from .session import Session
from .showing import commands, described, waiting_value
from .trouble import usage
from .values import ask, choose, edited, fitting, given, loose, parsed

VERBS = (*ALL, "answer")


def register(program: typer.Typer) -> None:
    command(program)(decide)


@dataclass(frozen=True)
class Answer:
    """What the command line says."""

    verb: str | None
    args: str | None
    value: str | None
    note: str
    digest: str | None
    happened: bool | None


async def decide(
    session: Session,
    interrupt: Annotated[str, typer.Argument(metavar="INTERRUPT", help="Its id, a part of it, or its thread if only one waits there.")],
    verb: Annotated[str | None, typer.Argument(metavar="DECISION", help="approve, edit, reject, respond or answer.")] = None,
    words: Annotated[str | None, typer.Argument(metavar="VALUE", help="The same as --value (with edit: as --args).")] = None,
    args: Annotated[str | None, typer.Option(metavar="JSON", help="edit: the full new arguments; - for stdin. Without it $EDITOR opens.")] = None,
    value: Annotated[str | None, typer.Option(metavar="JSON", help="respond, answer: the value; - for stdin. Plain text is a string.")] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Words for the model and the audit; - for stdin.")] = "",
    digest: Annotated[str | None, typer.Option(metavar="HEX", help="Decide only if this is what waits (its beginning, 12 digits or more).")] = None,
    happened: Annotated[bool | None, typer.Option("--happened/--not-happened", help="For a call in doubt.", show_default=False)] = None,
) -> None:
    """Approve, edit, reject, respond to or answer what waits.

    On a terminal it asks for what was not said; elsewhere it never asks.
    """
    if verb is not None and verb not in VERBS:
        raise usage(f"{verb!r} is no decision; choose from {', '.join(VERBS)}", session.again("decide", interrupt, "approve"))
    if words is not None:
        args, value = (words, value) if verb == "edit" else (args, words)
    _check_words(session, interrupt, verb, {"--args": args, "--value": value, "--happened": happened})
    said = Answer(verb, args, value, given(note) if note else "", digest, happened)
    async with session.opened() as app:
        one = await resolving.interrupt(app, interrupt)
        _check_open(one, said)
        said = said if said.verb is not None else _asked(session, app, one, said)
        if said.verb is None:
            session.paper.note("nothing was decided; it still waits")
            return
        done = await _give(session, app, one, said)
        _tell(session, done, said)


FITS = {"--args": ("edit",), "--value": ("edit", "respond", "answer"), "--happened": ("answer",)}


def _check_words(session: Session, interrupt: str, verb: str | None, said: dict[str, str | bool | None]) -> None:
    """Who approves with other arguments did not mean the call that waits: nothing that was said is left out in silence."""
    for word, value in said.items():
        if verb is not None and value is not None and verb not in FITS[word]:
            meant = ("edit", "--args") if verb == "approve" else ("reject", "--note")
            more = (*meant, value) if isinstance(value, str) and verb in ("approve", "reject") else (verb,)
            raise usage(f"{verb} takes no {word}; nothing was decided", session.again("decide", interrupt, *more))


def _check_open(one: Interrupt, said: Answer) -> None:
    """Say at once what nobody can answer any more; the store says it again, for good."""
    if one.status == "expired":
        raise Expired(one)
    if one.status != "open":
        raise AlreadyDecided(one)
    if said.digest is not None and not (len(said.digest) >= 12 and one.digest.startswith(said.digest.lower())):
        raise ArgumentsChanged(one, said.digest)


async def _give(session: Session, app: App, one: Interrupt, said: Answer) -> Interrupt:
    digest = one.digest if said.digest is not None or session.is_interactive else None
    common: dict[str, Any] = {"by": session.actor, "note": said.note}
    match said.verb:
        case "approve":
            return await app.approve(one.id, digest=digest, **common)
        case "reject":
            return await app.reject(one.id, digest=digest, **common)
        case "edit":
            return await app.edit(one.id, _arguments(session, one, said), digest=digest, **common)
        case "respond":
            return await app.respond(one.id, _response(session, one, said), digest=digest, **common)
    return await app.answer(one.id, _answer(session, one, said), digest=digest, **common)


# ---- what was not said -----------------------------------------------------------------------------------------------------------


def offered(one: Interrupt) -> Sequence[str]:
    """The decisions that fit this kind of interrupt."""
    return one.policy.allow if one.kind in GATES else ("answer",)


def _asked(session: Session, app: App, one: Interrupt, said: Answer) -> Answer:
    """Show what waits, and ask what is to become of it."""
    verbs = offered(one)
    if said.happened is not None or (said.value is not None and list(verbs) == ["answer"]):
        return Answer("answer", said.args, said.value, said.note, said.digest, said.happened)
    if not session.is_interactive:
        raise usage(f"say what is decided about {one.id}: {', '.join(verbs)}", *commands(one, session.again, session.actor), kind="no-decision")
    for spans in described(one, app.store.clock.now()):
        session.paper.line(*spans, indent=2)
    verb = choose("decide", [*verbs, "later"]) if one.kind in GATES else "answer"
    if verb == "later":
        return said
    note = said.note or (ask("why? (shown to the model; may be empty) ") if verb == "reject" else "")
    return Answer(verb, said.args, said.value, note, said.digest, said.happened)


def _arguments(session: Session, one: Interrupt, said: Answer) -> Json:
    """The full new arguments (or the full new result)."""
    if said.args is not None:
        return parsed(said.args, "--args")
    if said.value is not None and one.kind == "result":
        return loose(said.value)
    if not session.is_interactive:
        example = session.again("decide", one.id, "edit", "--args", brief(dict(one.intent), 10_000))
        raise usage("edit needs the full new arguments: --args JSON (a terminal opens $EDITOR instead)", example)
    return edited(waiting_value(one) if one.kind == "result" else dict(one.intent), one.name or "call")


def _response(session: Session, one: Interrupt, said: Answer) -> Json:
    if said.value is not None:
        return loose(said.value)
    if not session.is_interactive:
        raise usage("respond needs what stands in the call's place: --value JSON", session.again("decide", one.id, "respond", "--value", "VALUE"))
    return loose(ask("respond with (JSON or text): "))


def _answer(session: Session, one: Interrupt, said: Answer) -> Any:
    if one.kind == "in_doubt":
        return _doubt(session, one, said)
    if said.happened is not None:
        raise usage(f"--happened is for a call in doubt, and {one.id} is a {one.kind}", *commands(one, session.again, session.actor))
    if said.value is not None:
        return fitting(said.value, one)
    if not session.is_interactive:
        raise usage(f"answer needs a value: {brief(one.question)}", *commands(one, session.again, session.actor))
    if said.verb == "answer" and one.question:
        session.paper.err.print(session.paper.text(one.question), soft_wrap=True)
    shown = f" [{' / '.join(brief(choice) for choice in one.choices)}]" if one.choices else ""
    return fitting(ask(f"answer{shown}: "), one)


def _doubt(session: Session, one: Interrupt, said: Answer) -> Happened | NotHappened:
    is_so = said.happened
    if is_so is None:
        if not session.is_interactive:
            raise usage(f"{one.question} Say --happened or --not-happened", *commands(one, session.again, session.actor))
        is_so = choose(f"{one.question} happened?", ("yes", "no")) == "yes"
    if not is_so:
        return NotHappened()
    if said.value is None and session.is_interactive:
        text = ask("with what result? (JSON or text; empty: none) ")
        return Happened(fitting(text, one) if text else None)
    return Happened(None if said.value is None else fitting(said.value, one))


def _tell(session: Session, done: Interrupt, said: Answer) -> None:
    paper = session.paper
    if not paper.is_plain:
        paper.object({"interrupt": plain(done)})
        return
    if done.status == "open":
        agreed = f"{len(done.votes)} of {done.policy.quorum} agreed"
        paper.line(("✓ ", "green"), f"{done.id} {agreed}; it still waits for others")
        return
    kind = done.decision.kind if done.decision is not None else done.status
    by = done.decision.by.id if done.decision is not None and done.decision.by is not None else "nobody"
    paper.line(("✓ ", "green"), f"{done.id} {done.name} {kind} by {by}")
