"""`send emit hold pause resume cancel retry close fork`: acting on threads from outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from .. import ids
from ..app import App
from ..errors import ThreadEnded
from ..intents import snake_case
from ..stores.base import ControlVerb
from . import resolving
from .command import command
from .paper import plain
from .session import Session
from .standing import made_again
from .trouble import Code, Trouble
from .values import given, meant

Thread = Annotated[str, typer.Argument(metavar="THREAD", help="Its id, a part of it, or AGENT/KEY.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in the log.")]


def register(program: typer.Typer) -> None:
    command(program)(send)
    command(program)(emit)
    command(program)(hold)
    for verb, help in _HELP.items():
        command(program, verb)(_control(verb, help))
    command(program)(fork)


async def send(
    session: Session,
    thread: Thread,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The message; - for stdin.")],
    dedupe: Annotated[str | None, typer.Option(metavar="ID", help="The same value is the same message.")] = None,
    supersede: Annotated[bool, typer.Option("--supersede", help="End every step that has started nothing.")] = False,
) -> None:
    """Send a message; the model reads it at its next step."""
    async with session.opened() as app:
        thread_id, message = await resolving.thread_id(app, thread), given(text)
        event = await _explained(
            session, "send", thread_id, lambda: app.send(thread_id, message, by=session.actor, dedupe=dedupe, supersede=supersede)
        )
    _done(session, {"thread": thread_id, "event": plain(event)}, f"{thread_id} message at {event.seq}")


async def emit(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The event's name.")],
    payload: Annotated[str, typer.Argument(metavar="PAYLOAD", help="JSON or text; - for stdin.")] = "{}",
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Whose: what `wait_for(…, key=)` says.")] = None,
    id: Annotated[str | None, typer.Option(metavar="ID", help="The same id is the same event.")] = None,
) -> None:
    """Tell everybody who waits for an event, now or for 7 days."""
    value = meant(payload, "PAYLOAD")
    async with session.opened() as app:
        is_new = await app.emit(name, value, key=key, id=id)
    _done(session, {"event": name, "key": key, "new": is_new}, f"{name} emitted" if is_new else f"{name} {id} was known already; nothing was done")


async def hold(
    session: Session,
    target: Annotated[str | None, typer.Argument(metavar="THREAD|AGENT", help="Nothing: list the breakpoints.")] = None,
    on: Annotated[str | None, typer.Option(metavar="INTENT", help="Only at this intent: DeployBackend or deploy_backend.")] = None,
    release: Annotated[bool, typer.Option("--release", help="Take it away; what is parked already still waits.")] = False,
) -> None:
    """Set the operator's breakpoint, or --release it.

    The thread, or every thread of the agent, parks at its next selection even where the program asks nobody; `decide` lets it go on.
    """
    async with session.opened() as app:
        if target is None:
            return await _list_holds(session, app)
        place = await _target(session, app, target)
        intent = None if on is None else snake_case(on)
        if intent is not None and not release and (known := _intents(app, place)) and intent not in known:
            session.paper.note((f"{place} is known to choose {', '.join(known)}, and no {intent}; see that it is the one you mean", "yellow"))
        verb = app.release_hold if release else app.hold
        await _explained(session, "hold", place, lambda: verb(place, on=intent, by=session.actor))
        held = await app.store.get("hold", place if ids.thread_number(place) is not None else f"agent:{place}")
    state = [] if held is None else held.value["on"]
    what = f"{'released' if release else 'held'}{f' on {intent}' if intent else ''}"
    _done(session, {"target": place, "on": state, "released": release}, f"{place} {what}")
    return None


async def _target(session: Session, app: App, text: str) -> str:
    """A thread where it looks like one, else an agent."""
    if text.startswith("thr_") or "/" in text or (text.isalnum() and text.isupper() and text not in app.agents):
        return await resolving.thread_id(app, text)
    if not app.agents and not await app.threads(agent=text, limit=1):
        session.paper.note((f"no thread of an agent {text!r} is here yet; the breakpoint waits for the first one", "yellow"))
    return text


def _intents(app: App, place: str) -> list[str]:
    """What an agent of this App declares that it may choose; nothing where that is not known."""
    agent = app.agents.get(place) if isinstance(app, App) else None
    return [] if agent is None else sorted(agent.known_intents())


async def _list_holds(session: Session, app: App) -> None:
    held = {key.removeprefix("agent:"): record.value["on"] for key, record in (await app.store.records("hold")).items() if record.value["on"]}
    if not session.paper.is_plain:
        session.paper.object({"holds": [{"target": target, "on": on} for target, on in held.items()]})
    elif held:
        session.paper.columns(("held", "on"), [[target, ", ".join(one or "every intent" for one in on)] for target, on in held.items()])
    else:
        session.paper.note(("no breakpoints", "dim"))


# ---- pause … close -----------------------------------------------------------------------------------------------------------------

_HELP: dict[ControlVerb, str] = {
    "pause": "Start nothing more in a thread until `resume`.",
    "resume": "Go on after `pause`.",
    "cancel": "End a thread and its open children for good.",
    "retry": "Wake a failed thread again, after the fix.",
    "close": "End a thread for good, in order.",
}
_WRONG: dict[str, tuple[str, str]] = {
    "pause": ("only an open thread can be paused", "show"),
    "resume": ("only a paused thread can be resumed", "show"),
    "retry": ("only a failed or open thread can be retried", "show"),
    "cancel": ("it has ended for good", "fork"),
    "close": ("it has ended for good", "fork"),
    "send": ("it has ended for good", "fork"),
    "hold": ("it has ended for good", "fork"),
}


def _control(verb: ControlVerb, help: str) -> Callable[..., Awaitable[None]]:
    async def act(session: Session, thread: Thread, reason: Reason = "") -> None:
        async with session.opened() as app:
            thread_id = await resolving.thread_id(app, thread)
            failed = made_again(await app.show(thread_id)) if verb == "retry" else None
            await _explained(session, verb, thread_id, lambda: getattr(app, verb)(thread_id, by=session.actor, reason=reason))
            row = await app.store.thread(thread_id)
        if failed is not None:
            said = f"{failed[0]} failed, which stays in the log: the program is given it again, and the call is not made again. To make it: "
            session.paper.note((said, "yellow"), (session.again(*failed[1]), "cyan"))
        status = "gone" if row is None else row.status
        _done(session, {"thread": thread_id, "verb": verb, "status": status}, f"{thread_id} {status}")

    act.__doc__, act.__name__ = help, verb
    return act


async def _explained(session: Session, verb: str, place: str, act: Callable[[], Awaitable[Any]]) -> Any:
    """Do it, and say why where the thread's status forbids it."""
    try:
        return await act()
    except ThreadEnded as error:
        why, next = _WRONG[verb]
        next = {"failed": "retry", "paused": "resume"}.get(error.status, next) if verb in ("pause", "resume", "retry") else next
        more = {"thread": place, "status_now": error.status}
        what = f"thread {place} is {error.status}; {why}, and nothing was changed"
        raise Trouble(Code.CONFLICT, what, (session.again(next, place),), "thread-ended", more) from None


async def fork(
    session: Session,
    thread: Thread,
    before: Annotated[str | None, typer.Option(metavar="STEP", help="Cut before this step: its id, or its number.")] = None,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Your own id of the new thread.")] = None,
) -> None:
    """Start a thread with the ended steps of another one."""
    async with session.opened() as app:
        thread_id = await resolving.thread_id(app, thread)
        cut = None if before is None else resolving.step_id(thread_id, before)
        new = await app.fork(thread_id, before=cut, key=key)
    _done(session, {"thread": new, "forked_from": thread_id}, new)


def _done(session: Session, value: dict[str, Any], text: str) -> None:
    if session.paper.is_plain:
        session.paper.line(text)
    else:
        session.paper.object(value)
