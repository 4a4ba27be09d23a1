"""How a thread looks: its head, its story, and what waits with the commands that answer it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from ..clock import Clock
from ..events import Json
from ..interrupts import DECIDABLE, GATES, Actor, Interrupt, Verb
from ..views import ThreadView
from .brief import brief, fields, span
from .paper import Paper, Span
from .story import Line, told
from .totals import dollars, in_words, totals

STYLES = {"open": "cyan", "paused": "yellow", "done": "green", "failed": "bold red", "cancelled": "red", "closed": "dim"}
INDENT = 10
Again = Callable[..., str]


def head(paper: Paper, view: ThreadView, now: datetime) -> None:
    """Who it is and how it stands, in two or three lines."""
    waiting = [one for one in view.interrupts if one.kind in DECIDABLE]
    others = {one.kind for one in view.interrupts} - DECIDABLE
    more = f", waits for {_people(waiting)}" if waiting else f", waits for {' and '.join(sorted(others))}" if others else ""
    more = more if view.status in ("open", "paused") else ""
    key = (("  key ", "dim"), view.key) if view.key is not None else ()
    paper.line((view.id, "bold"), "  ", view.agent or "no agent", "  ", (view.status, STYLES[view.status]), more, *key)
    usage = view.usage
    spent = f" · {usage.requests} model answers, {usage.input_tokens:,} tokens in, {usage.output_tokens:,} out" if usage.requests else ""
    cost = f", {dollars(usage.cost_usd)}" if usage.cost_usd else ""
    steps = f" · {len(view.steps)} step{'s' if len(view.steps) != 1 else ''}"
    paper.line((f"started {view.created_at:%Y-%m-%d %H:%M:%S}Z, {span(now - view.created_at)} ago{steps}{spent}{cost}", "dim"))
    if view.context:
        paper.line(("context ", "dim"), fields(view.context))


def _people(waiting: Sequence[Interrupt]) -> str:
    names = sorted({name for one in waiting for name in one.policy.by})
    return ", ".join(names) or "a person"


def story(paper: Paper, view: ThreadView, now: datetime, *, limit: int = 300) -> None:
    """All that happened, and what it came to."""
    paper.line()
    for line in told(view.id, view.events, limit):
        write(paper, line, now=now)
    if view.steps:
        paper.line((f"{'total':<{INDENT}}", "dim"), in_words(totals(view, now)), indent=INDENT)


def write(paper: Paper, line: Line, *, now: datetime | None = None) -> None:
    """One line of the story: the time, then what happened; what belongs to a step is set in under it."""
    inside = "" if line.is_heading or line.group is None else "  "
    since = ((f" {span(now - line.at)} ago, no outcome yet", "yellow"),) if line.running is not None and now is not None else ()
    paper.line((f"{line.at:%H:%M:%S}  ", "dim"), inside, *line.spans, *since, indent=INDENT + len(inside))


def waiting(paper: Paper, view: ThreadView, again: Again, actor: Actor, clock: Clock) -> None:
    """Everything open, each with how to answer it."""
    for one in view.interrupts:
        paper.line()
        for spans in described(one, clock.now()):
            paper.line(*spans, indent=2)
        for command in commands(one, again, actor):
            paper.line("  ", (command, "cyan"))


def described(one: Interrupt, now: datetime) -> list[tuple[Span, ...]]:
    """What an interrupt asks, of whom, since when and until when."""
    title = {"approval": "approve", "result": "look at the result of", "hold": "held:", "question": "question in", "in_doubt": "in doubt:"}
    lines: list[tuple[Span, ...]] = [
        (("? " if one.kind in DECIDABLE else "… ", "bold yellow"), (f"{title.get(one.kind, one.kind)} {one.name}", "bold"), "  ", (one.id, "dim"))
    ]
    for name, value in one.intent.items():
        lines.append(("  ", (f"{name}  ", "dim"), brief(value, 2000)))
    for text in one.question.split("\n") if one.question else ():
        lines.append(("  ", text))
    if one.choices is not None:
        lines.append(("  ", ("one of  ", "dim"), " · ".join(brief(choice) for choice in one.choices)))
    for name, value in about(one).items():
        lines.append(("  ", (f"{name}  ", "dim"), brief(value, 2000)))
    if one.policy.reason:
        lines.append(("  ", ("because  ", "dim"), one.policy.reason))
    lines.append(("  ", (" · ".join(_terms(one, now)), "dim")))
    return lines


def about(one: Interrupt) -> Mapping[str, Json]:
    """What its kind adds: the result that waits, the doubt's cause, the event, the child."""
    value = one.value
    if one.kind == "result":
        return {"result": waiting_value(one)}
    if not isinstance(value, dict):
        return {} if value is None else {one.kind: value}
    shown = {"in_doubt": ("error",), "event": ("event", "key"), "child": ("child",)}.get(one.kind, tuple(value))
    return {"because" if name == "error" else name: value[name] for name in shown if value.get(name) is not None}


def waiting_value(one: Interrupt) -> Json:
    """The result that waits to be shown to the model."""
    held = one.value
    return held["value"] if isinstance(held, dict) and set(held) == {"call", "value"} else held


def _terms(one: Interrupt, now: datetime) -> list[str]:
    terms = [f"waits for {span(now - one.created_at)}"]
    if one.policy.by:
        terms.insert(0, f"asks {', '.join(one.policy.by)}")
    if one.policy.not_by:
        terms.append(f"not {', '.join(one.policy.not_by)}")
    if one.policy.quorum > 1:
        who = f" ({', '.join(vote.by.id for vote in one.votes)})" if one.votes else ""
        terms.append(f"{len(one.votes)} of {one.policy.quorum} agreed{who}")
    if one.expires_at is not None:
        left = one.expires_at - now
        terms.append(f"expires in {span(left)}" if left.total_seconds() > 0 else f"its deadline passed {span(-left)} ago")
    return terms


def commands(one: Interrupt, again: Again, actor: Actor) -> list[str]:
    """The commands that answer an interrupt, ready to copy; who would be refused is reminded to say who they are."""
    return [again(*words, *(_who(one, actor) if words[0] == "decide" else ())) for words in _answers(one)]


def _who(one: Interrupt, actor: Actor) -> tuple[str, ...]:
    if one.policy.refuses(actor) is None:
        return ()
    return ("--as", "NAME") if actor.is_in(one.policy.not_by) else ("--group", one.policy.by[0])


def _answers(one: Interrupt) -> list[tuple[str, ...]]:
    """The words of the commands that close it."""
    decide = ("decide", one.id)
    if one.kind in GATES:
        return [(*decide, verb, *_MORE[verb]) for verb in one.policy.allow if verb in _MORE]
    if one.kind == "in_doubt":
        return [(*decide, "answer", "--happened", "--value", "RESULT"), (*decide, "answer", "--not-happened")]
    if one.kind in DECIDABLE:
        example = brief(one.choices[0]) if one.choices else "TEXT" if one.schema == {"type": "string"} else "JSON"
        return [(*decide, "answer", example)]
    if one.kind == "event" and isinstance(one.value, dict):
        key = ["--key", str(one.value["key"])] if one.value.get("key") is not None else []
        return [("emit", str(one.value["event"]), "{}", *key)]
    if one.kind == "child":
        child = one.value if isinstance(one.value, str) else (one.value or {}).get("child", "")
        return [("show", str(child))]
    return []


_MORE: dict[Verb, tuple[str, ...]] = {"approve": (), "edit": (), "reject": ("--note", "WHY"), "respond": ("VALUE",)}
