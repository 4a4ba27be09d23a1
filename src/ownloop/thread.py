"""`Thread`: the log as a handler meets it. `next_step` is the moment between selection and invocation."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

from . import calls, ids, selection, waits
from .branch import UNAWAITED, Branch
from .errors import CallNoLongerValid, StepIgnored, TwoLoops, only_suspends
from .events import Draft, Event, Json
from .history import Events, StepLog, Usage
from .intents import Intent, UnknownIntent, arguments_of, by_name, find_intents, load_intent
from .step import Agents, Step
from .tools import noting
from .views import StepView, note_view, step_view, step_views
from .wake import Wake

if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # in typing from Python 3.13 on; checkers know it everywhere

    D = TypeVarWithDefault("D", default=Any)
else:
    D = TypeVar("D")
I = TypeVar("I", bound=Intent)  # noqa: E741  # the intent
T = TypeVar("T")

_Says: TypeAlias = Callable[["Thread[Any]"], T]
Decide: TypeAlias = _Says[Awaitable[I]] | _Says[Awaitable[list[I]]] | _Says[I] | _Says[list[I]]
"""What selects: any function of the thread that gives one intent or a list; a sync one runs in a thread."""

_PACKAGE = __file__.removesuffix("thread.py")


class Thread(Generic[D]):
    """A thread inside its handler, for one wake. `D` is the type of `deps`.

    Attributes:
        id, key, agent: "thr_…", the caller's own id or None, and the agent's name.
        now: the store's clock at the beginning of this wake.
        parent: the id of the thread that spawned this one, or None.
        context: the JSON object given to `start`.
        deps: what the App's `deps` gave for this wake; never stored.
    """

    def __init__(self, wake: Wake, agents: Agents, *, interject: bool = False, passed: frozenset[str] = frozenset()) -> None:
        row = wake.row
        self._wake = wake
        self._agents = agents
        self._interject = interject
        self._passed = passed  # steps whose news this wake has handed out before
        self._handed: dict[str, Branch] = {}
        self._named: dict[str, Branch] = {}
        self._site: tuple[str, int] | None = None
        self._learned: Any = None
        self.id = wake.thread_id
        self.key = row.key
        self.agent = row.agent
        self.now = wake.now
        self.parent = None if row.parent is None else row.parent[0]
        self.context = row.context
        self.deps = cast(D, None)  # until the App's are entered

    def __repr__(self) -> str:
        return f"<Thread {self.id} of {self.agent}>"

    # ---- reading ---------------------------------------------------------------------------------------------------------------

    @property
    def input(self) -> Json:
        """What the thread was started with."""
        return self._wake.history.events[0].data.get("input")

    @property
    def turn(self) -> int:
        """The number of this turn, from 1."""
        return self._wake.history.turn

    @property
    def events(self) -> Sequence[Event]:
        """The log as this wake sees it, from the last compaction on."""
        return Events(self._wake.history.events)

    @property
    def steps(self) -> list[StepView]:
        """The steps that `events` holds."""
        return step_views(self._wake.history)

    @property
    def unread(self) -> list[Event]:
        """Messages that no selection has read yet."""
        return self._wake.history.unread()

    @property
    def errors_in_a_row(self) -> int:
        """How many steps, newest first, had a last run that failed; a person's answer in an ended step ends the row."""
        return self._wake.history.errors_in_a_row()

    @property
    def usage(self) -> Usage:
        """What the model's answers cost so far, over the whole thread."""
        return self._wake.history.counters.usage

    @property
    def prompt_tokens(self) -> int:
        """Input tokens of the model's last answer; 0 if it did not say."""
        return self._wake.history.counters.prompt_tokens

    def count(self, intent: type[Intent]) -> int:
        """How often this intent was selected in this turn."""
        if not isinstance(intent, type):
            raise TypeError(f"count({intent!r}) names no intent; give it the class: thread.count(Deploy)")
        return self._wake.history.counters.counts.get(intent.intent_name, 0)

    # ---- the loop --------------------------------------------------------------------------------------------------------------

    def next_step(self, decide: Decide[I]) -> Coroutine[Any, Any, Step[I]]:
        """The step that is still open, or the next one that `decide` selects; on disk before it is returned.

        Ends the steps before it: a step that waits suspends the thread, a call whose outcome is unknown is asked about.

        Raises:
            StepIgnored: nothing was done on a step that was handed out.
            TwoLoops: this wake has met another call of `next_step` or `each`.
            TypeError: `decide` returned no intent, or one that it does not declare.
        """
        self._meet(decide, sys._getframe(1))
        return self._next(decide)

    def each(self, decide: Decide[I], fn: Callable[[Step[I]], Awaitable[T]]) -> Coroutine[Any, Any, list[T]]:
        """Run `fn` on all steps of one answer at once; what they return, in order.

        A branch that waited is entered again as soon as its answer comes, while others still work. Suspends when all that is left waits.
        Raises what `next_step` raises, and the first error of a branch.
        """
        self._meet(decide, sys._getframe(1))
        return self._each(decide, fn)

    def step(self, name: str, intent: Intent | None = None) -> Step[Any]:
        """A step that no model chose: the same one on every wake, known by its name in the whole thread.

        Every operation works on it; its open requests never stop `next_step`. For once a turn: `thread.step(f"prefetch:{thread.turn}")`.
        """
        if not name:
            raise ValueError("a named step needs a name")
        history = self._wake.history
        log = history.step(ids.step_id(self.id, name))
        log.arguments = arguments_of(intent) if intent is not None else {}
        if (branch := self._named.get(name)) is None:
            branch = self._named[name] = Branch(self._wake, log, history.head, covered=history.covered > 0)
        branch.begin_again(history.head)
        return Step(branch, self._agents, intent)

    async def append(self, name: str, data: Any) -> None:
        """Write a note into the log, once per name in the thread, whatever the number of wakes."""
        wake, history = self._wake, self._wake.history
        if name not in history.notes and history.covered:
            history.recall(await wake.store.recall(self.id, None, history.covered))
        if name not in history.notes:
            history.notes.add(name)  # before anything is awaited: a branch beside may say the same
            try:
                await wake.begin(Draft("appended", {"name": name, "data": wake.setting.redact(calls.model_value(data))}))
            except BaseException:
                history.notes.discard(name)
                raise

    async def compact(self, summarize: Callable[[list[StepView]], Awaitable[str]], *, keep_last: int = 20) -> None:
        """Cover ended steps with a summary, except the last `keep_last`; nothing happens until there are more.

        `summarize` gets what is covered, oldest first: the summary before (name "summary"), steps, messages and notes. The log keeps everything.
        """
        history = self._wake.history
        if not (covered := history.coverable(keep_last)):
            return
        upto, kept, counters = history.compaction(covered)
        before = [] if history.compacted is None else [history.compacted]
        gone = [event for event in history.events if event.seq <= upto and event.seq not in kept]
        said = [event for event in gone if event.kind in ("message", "appended")]
        named = [step for step in history.steps.values() if step.is_named and any(event.step_id == step.id for event in gone)]
        views = [*(note_view(event) for event in [*before, *said]), *(step_view(history, step) for step in [*named, *covered])]
        noted: dict[str, Json] = {}
        with noting(noted):
            summary = await self._wake.interruptible(_text(summarize(views)))
        data = {**noted, "summary": summary, "upto": upto, "kept": kept, "counters": counters.to_json()}
        events = await self._wake.begin(Draft("compacted", data))
        history.cover(events[0], covered)

    # ---- inside ----------------------------------------------------------------------------------------------------------------

    def _meet(self, decide: Any, frame: FrameType) -> None:
        """One place asks for steps; and what `decide` declares is known from now on."""
        if not callable(decide):
            raise TypeError(f"{decide!r} selects nothing; pass the function itself, thread.next_step(decide), and it is called when no step is open")
        caller: FrameType | None = frame
        while caller is not None and caller.f_code.co_filename.startswith(_PACKAGE):
            caller = caller.f_back
        caller = caller or frame
        site = (caller.f_code.co_filename, caller.f_lineno)
        if self._site is not None and self._site != site:
            raise TwoLoops(self.agent, self._site, site)
        self._site = site
        if self._learned != decide:  # equal: a method is a new object each time
            self._learned = decide
            self._agents.intents.update(by_name(find_intents(decide, caller)))

    async def _next(self, decide: Any) -> Step[Any]:
        while True:
            if waiting := self._to_hand_out():
                if (step := await self._hand_out(waiting[0])) is not None:
                    return step
            else:
                await self._select(decide)

    def _to_hand_out(self) -> list[StepLog]:
        """Open steps that this wake has not handed out: all of the last answer, and those set aside that have news."""
        history, now = self._wake.history, self._wake.now
        fresh = [step for step in history.open_steps() if step.id not in self._handed]
        wanted = [step for step in fresh if not history.is_aside(step) or (step.has_news(now) and step.id not in self._passed)]
        if self._interject and history.unread():
            wanted = [step for step in wanted if step.id not in self._passed and step.has_news(now)]
        return wanted

    async def _hand_out(self, log: StepLog) -> Step[Any] | None:
        """The step, or None if the operator's breakpoint has dealt with it. Parks at the breakpoint."""
        step = self._begin(log)
        branch = self._handed[log.id]
        is_held = log.ops.keys() <= {"hold"} and any(on is None or on == log.name for on in self._wake.holds)
        if not is_held and "hold" not in log.ops:
            return step
        if (decision := await waits.hold(branch, log.selected.data.get("schema") if log.selected else None)) is None:
            raise branch.suspend()
        branch.met.update(() if decision.granted else ("close",))
        return step if decision.granted else None

    async def _select(self, decide: Any) -> None:
        ends = [await self._end(branch) for step in self._wake.history.open_steps() if (branch := self._handed.get(step.id)) is not None]
        wake, history = self._wake, self._wake.history
        if history.backs_off(wake.now):
            raise wake.suspend()
        await wake.refresh()
        ends = [draft for draft in ends if history.steps[draft.step_id or ""].ended is None]
        read = history.head
        await self._agents.check_budget(self)
        chosen, noted = await selection.select(wake, self, decide, self._agents.intents)
        first = history.counters.steps + 1
        drafts = [selection.draft(self.id, first + place, first, intent, read, len(chosen), noted) for place, intent in enumerate(chosen)]
        await wake.begin(*ends, *drafts, selecting=True)

    async def _end(self, branch: Branch) -> Draft:
        """The end of a step, if it may end.

        Raises:
            Suspend: it waits, or a call in it is in doubt.
            StepIgnored: nothing was done on it.
        """
        is_ignored = branch.met <= {"hold", UNAWAITED}  # whatever an earlier wake did on it: this program has no case for it
        await calls.end_doubts(branch)
        await branch.close_overdue()
        if branch.waiting or any(request.kind != "child" for request in branch.log.open_requests()):
            raise branch.suspend()
        if not is_ignored:
            return branch.end()
        intent = load_intent(branch.log.name, branch.arguments, self._agents.intents)
        if isinstance(intent, UnknownIntent):
            raise CallNoLongerValid(branch.log.id, intent.name, intent.why)
        raise StepIgnored(self.agent, type(intent).__name__, branch.log.id)

    async def _each(self, decide: Any, fn: Callable[[Step[Any]], Awaitable[T]]) -> list[T]:
        if not self._to_hand_out():
            await self._select(decide)
        steps = {log.id: step for log in self._to_hand_out() if (step := await self._hand_out(log)) is not None}
        return await _Branches(self, steps, fn).gather()

    def _begin(self, log: StepLog) -> Step[Any]:
        """A step at the beginning of its branch; also once more in this wake, when its answer has come."""
        branch = self._handed[log.id] = Branch(self._wake, log, self._wake.history.head)
        return Step(branch, self._agents)

    async def _end_turn(self) -> tuple[list[Draft], list[str]]:
        """The ends of all steps but those set aside, and the ids of those. Raises Suspend while a call is in doubt."""
        history = self._wake.history
        fresh = [step for step in history.open_steps() if step.id not in self._handed]
        aside = [step for step in fresh if history.is_aside(step) or (self._interject and step.open_requests())]
        ends = []
        for log in [*history.open_steps(), *(step for step in history.steps.values() if step.is_named)]:
            if log in aside:
                continue
            branch = self._handed.get(log.id) or Branch(self._wake, log, history.head)
            await calls.end_doubts(branch)
            if not log.is_named:
                ends.append(branch.end(None if log.id in self._handed else "skipped"))
        return ends, [step.id for step in aside]

    def _leftovers(self) -> list[Draft]:
        """Open requests that the program passed by, to be closed as superseded."""
        return [draft for branch in (*self._handed.values(), *self._named.values()) for draft in branch.superseded()]


class _Branches(Generic[T]):
    """The branches of one `each`, run side by side."""

    def __init__(self, thread: Thread[Any], steps: Mapping[str, Step[Any]], fn: Callable[[Step[Any]], Awaitable[T]]) -> None:
        self._thread, self._fn = thread, fn
        self._order = list(steps)
        self._results: dict[str, T] = {}
        self._parked: set[str] = set()
        self._tasks = {asyncio.ensure_future(self._enter(step)): step_id for step_id, step in steps.items()}

    async def _enter(self, step: Step[Any]) -> T:
        return await self._fn(step)

    async def gather(self) -> list[T]:
        news = asyncio.ensure_future(self._thread._wake.news())
        try:
            while self._tasks:
                await asyncio.wait({*self._tasks, *([news] if self._parked else [])}, return_when=asyncio.FIRST_COMPLETED)
                self._collect()
                if self._parked and self._tasks and news.done():  # also what came before the branch had parked
                    news = asyncio.ensure_future(self._thread._wake.news())
                    await self._reenter()
        finally:
            for task in (news, *self._tasks):
                task.cancel()
        if self._parked:
            raise self._thread._wake.suspend()
        return [self._results[step_id] for step_id in self._order]

    def _collect(self) -> None:
        for task in [task for task in self._tasks if task.done()]:
            step_id = self._tasks.pop(task)
            if task.cancelled():
                raise asyncio.CancelledError
            if (error := task.exception()) is None:
                self._results[step_id] = task.result()
            elif only_suspends(error):
                self._parked.add(step_id)
            else:
                raise error

    async def _reenter(self) -> None:
        """Enter the branches whose answer has come, while others still work."""
        wake = self._thread._wake
        await wake.refresh()
        for step_id in sorted(self._parked):
            branch = self._thread._handed[step_id]
            closings = (request.closing for request in branch.log.requests.values())
            if any(closing is not None and closing.seq > branch.upto and closing.seq not in wake.history.own for closing in closings):
                self._parked.discard(step_id)
                self._tasks[asyncio.ensure_future(self._enter(self._thread._begin(branch.log)))] = step_id


async def _text(work: Awaitable[str]) -> str:
    text = await work
    if not isinstance(text, str) or not text.strip():
        raise TypeError(f"summarize returned {text!r}; return a text that is not empty")
    return text
