"""`Step`: one call between selection and invocation, and everything that can be done with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, cast, overload

from . import calls, waits
from .branch import UNAWAITED, Branch
from .clock import duration
from .events import Json
from .intents import Intent, argument_schema, load_intent, schema_digest
from .interrupts import ApprovalPolicy, Decision, Rules
from .tools import Outcome

I = TypeVar("I", bound=Intent, covariant=True)  # noqa: E741  # the intent
P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


Names = Sequence[str] | str | None
Span = timedelta | str | None


@dataclass(frozen=True)
class Agents:
    """What a step must know of the program around it: intents by name, and the result types of agents (for `join`)."""

    intents: dict[str, type[Intent]]
    resolve: Callable[[str | Callable[..., Any]], str]
    result_type: Callable[[str], Any]
    check_budget: Callable[[Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Child:
    """A thread that this one spawned."""

    thread_id: str


class _Done:
    """Awaitable and over already, so that `step.close()` works with and without `await`."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


class Step(Generic[I]):
    """A step that the model selected, or a named one. Its operations are durable: what the log holds is given back, not done again.

    Attributes:
        id: "stp_…".
        name: the intent's name in snake case; for a named step its name.
    """

    def __init__(self, branch: Branch, agents: Agents, intent: Intent | None = None, label: str | None = None) -> None:
        self._branch = branch
        self._agents = agents
        self._given = intent
        self._label = label
        self.id = branch.log.id
        self.name = branch.log.name

    def __repr__(self) -> str:
        return f"<Step {self.name} {self.id}>"

    @property
    def intent(self) -> I:
        """The effective call: what the model chose, with people's edits. An `UnknownIntent` if no class accepts it."""
        return cast(I, self._load(self._branch.arguments))

    @property
    def proposed(self) -> I:
        """What the model chose, whatever people made of it."""
        return cast(I, self._load(self._branch.log.arguments))

    @property
    def decision(self) -> Decision | None:
        """The latest decision on this step that this hand-out can see: why it goes on as it does."""
        decided = self._branch.closed_requests("approval", "result", "hold")
        return max(decided, key=lambda one: one.closing.seq if one.closing else 0).decision() if decided else None

    def _load(self, arguments: Mapping[str, Json]) -> Intent | None:
        if self._given is not None:
            return load_intent(self._given.intent_name, arguments, {self._given.intent_name: type(self._given)})
        if self._branch.log.is_named:
            return None
        return load_intent(self.name, arguments, self._agents.intents)

    def named(self, name: str) -> Step[I]:
        """The same step, whose operations carry this name: for operations that move (a loop over a live list) or run side by side."""
        return Step(self._branch, self._agents, self._given, name)

    def close(self, reason: str | None = None, result: Any = None) -> Awaitable[None]:
        """Say that nothing (more) is to be done; `reason` and `result` are shown to the model."""
        self._branch.met.add("close")
        redact = self._branch.wake.setting.redact
        self._branch.closed = (redact(reason), redact(calls.model_value(result)))
        return _Done()

    # ---- people ----------------------------------------------------------------------------------------------------------------

    def approved(self, policy: ApprovalPolicy | None = None, **rules: Unpack[Rules]) -> Coroutine[Any, Any, bool]:
        """Wait until people have decided; whether the call may run, with the arguments as `step.intent` has them now.

        Parks the thread. False means rejected, responded to or expired: `step.decision` says which, by whom and with what words.
        Arguments: see `ApprovalPolicy`; a policy, keywords, or a policy and the keywords that differ from it.

        Raises:
            Expired: the deadline passed and `on_expiry="fail"`.
        """
        self._branch.met.add(UNAWAITED)  # a coroutine is true: nothing starts in this step until it is awaited
        return self._approved(policy, rules)

    async def _approved(self, policy: ApprovalPolicy | None, rules: Rules) -> bool:
        self._branch.met.discard(UNAWAITED)
        return self._branch.or_suspend(await self.request_approval(policy, **rules)).granted

    async def request_approval(self, policy: ApprovalPolicy | None = None, **rules: Unpack[Rules]) -> Decision | None:
        """Like `approved`, without unwinding: None while nobody has decided. Return None then, and the decision wakes the thread.

        Source: 12-factor agents, factor 8 ("break the loop, we'll get a webhook later").
        """
        policy = replace(policy, **rules) if policy and rules else policy or ApprovalPolicy(**rules)
        return await waits.approval(self._branch, policy, self._schema, self._label)

    async def result_approved(self, policy: ApprovalPolicy | None = None, **rules: Unpack[Rules]) -> bool:
        """Let people see (and edit or redact) the result of the last run before the model does. Parks the thread.

        What an edit or a response says is shown to the model instead; a rejected result is withheld from it.
        """
        policy = replace(policy, **rules) if policy and rules else policy or ApprovalPolicy(**rules)
        return self._branch.or_suspend(await waits.result_approval(self._branch, policy, self._label)).granted

    @overload
    async def ask(
        self, question: str, *, schema: None = None, choices: Sequence[str] | None = None, to: Names = None, expires: Span = None
    ) -> str | None: ...
    @overload
    async def ask(
        self, question: str, *, schema: type[T], choices: Sequence[T] | None = None, to: Names = None, expires: Span = None
    ) -> T | None: ...
    async def ask(
        self, question: str, *, schema: type[Any] | None = None, choices: Sequence[Any] | None = None, to: Names = None, expires: Span = None
    ) -> Any:
        """Ask a person, and wait for the answer. Parks the thread.

        Args:
            schema: the type of the answer (anything pydantic knows); default a string.
            choices: the answers that are offered; nothing else is accepted.
            to: ids or groups that may answer; default anyone.
            expires: after this the answer is None.
        """
        return self._branch.or_suspend(await self._ask(question, schema, choices, to, expires))[0]

    async def request_answer(
        self, question: str, *, schema: type[Any] | None = None, choices: Sequence[Any] | None = None, to: Names = None, expires: Span = None
    ) -> Any:
        """Like `ask`, without unwinding: None while nobody has answered, or when the question expired."""
        answer = await self._ask(question, schema, choices, to, expires)
        return None if answer is None else answer[0]

    async def _ask(self, text: str, schema: Any, choices: Any, to: Any, expires: timedelta | str | None) -> tuple[Any] | None:
        return await waits.question(self._branch, text, schema, choices, to or (), None if expires is None else duration(expires), self._label)

    async def _schema(self) -> str | None:
        """The digest of the arguments' JSON Schema, stored once, so that any process can check an edit."""
        named = None if self._branch.log.is_named else self._agents.intents.get(self.name)
        intent = type(self._given) if self._given is not None else named
        if intent is None:
            selected = self._branch.log.selected
            return None if selected is None else selected.data.get("schema")
        name, setting = schema_digest(intent), self._branch.wake.setting
        if name not in setting.schemas:
            await setting.store.put("schema", name, argument_schema(intent), expect=0)
            setting.schemas.add(name)
        return name

    # ---- doing -----------------------------------------------------------------------------------------------------------------

    @overload
    async def run(self, fn: Callable[..., Awaitable[R]]) -> Outcome[R]: ...
    @overload
    async def run(self, fn: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> Outcome[R]: ...
    @overload
    async def run(self, fn: Callable[..., R]) -> Outcome[R]: ...
    @overload
    async def run(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Outcome[R]: ...
    async def run(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Outcome[Any]:
        """Call a function once, durably: its outcome is on disk before this returns, and is given back on later wakes.

        Everything is forwarded. Without arguments the function's parameters are filled from the fields of `step.intent` with the same names.
        A failure is not raised: look at `Outcome.ok`. A sync function runs in a thread. What may be done after a crash is the function's
        promise (`tool`).

        Raises:
            ProgramChanged: the log holds something else than the program asks for; nothing was started.
            CallNoLongerValid: the recorded call fits no class of today; nothing was started.
            TypeError: `fn` is no function, needs what no field of the intent is, or its return annotation has no JSON form; nothing was started.
        """
        return await calls.run(self._branch, self._load(self._branch.arguments), self._label, fn, args, kwargs)

    # ---- clocks, events, children ----------------------------------------------------------------------------------------------

    async def wait_for(self, name: str, *, key: str | None = None, timeout: Span = None) -> Any:
        """Wait for an event that somebody emits; its payload, or None when the time is up. Parks the thread.

        Each thread gets each event of a name and key emitted since its start once, oldest first, also one that came before the wait.
        """
        return self._branch.or_suspend(await waits.event(self._branch, name, key, None if timeout is None else duration(timeout), self._label))[0]

    async def sleep(self, until: timedelta | datetime | str) -> None:
        """Wait for a duration ("6h") or until an aware time, by the store's clock. Parks the thread."""
        self._branch.or_suspend(await waits.timer(self._branch, until, self._label))

    async def spawn(self, agent: str | Callable[..., Any], input: Any = None, *, budget: Any = None) -> Child:
        """Start another agent's thread as a child: in one commit with this step, once. Cancelling this thread cancels it."""
        return Child(await waits.child(self._branch, self._agents.resolve(agent), input, budget, self._label))

    async def join(self, *children: Child) -> list[Outcome[Any]]:
        """Wait until these children have ended their turn; their outcomes in order. Parks the thread."""
        return self._branch.or_suspend(waits.children(self._branch, [child.thread_id for child in children], self._agents.result_type))
