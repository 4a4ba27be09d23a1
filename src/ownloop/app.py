"""`App`: agents, their life cycle, and the verbs by which everybody else acts on threads."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Literal, Self, TypeVar, Unpack, overload

from . import deciding, forking, ids, watch
from .calls import model_value, result_type
from .clock import Clock, duration
from .engines.base import Engine, served
from .engines.urls import engine_for
from .errors import AlreadyDecided, ArgumentsChanged, Expired, NotFound, OwnloopError, ThreadBusy, ThreadEnded, only_suspends
from .events import Delta, Draft, Event, Json, Progress, sparse
from .history import History, Request, interrupt_of
from .intents import Intent, by_name, members
from .interrupts import Actor, Interrupt, Verb
from .runner import Agent, Deps, Runner
from .stores.base import ENDED, ControlVerb, InterruptFilter, InterruptRow, NewThread, NoticeName, Refused, Store, ThreadFilter, ThreadRow, asked
from .stores.leases import LeaseKeeper
from .stores.outbox import Listener, Outbox
from .stores.streams import Board, event_key, follow
from .stores.urls import joined, open_store
from .thread import Thread
from .tools import Promise
from .views import ThreadView, thread_view
from .wake import Setting, is_async

H = TypeVar("H", bound=Callable[..., Awaitable[Any]])
Ref = str | tuple[str, str]
"""A thread: its id, or (agent, key)."""
By = Actor | str | None
Target = Ref | Callable[..., Any]
On = type[Intent] | str | None


class App:
    """A store, the agents of this process, and the verbs.

    The verbs open the store at first use. `async with app:` also runs wakes in this process; `app.run()` does that and blocks.

    Args:
        url_or_store: "sqlite:///relative.db" (?synchronous=normal), "sqlite:////absolute.db", "postgresql://user@host/database", "memory://",
            or a `Store`.
        engine: who wakes threads; default the one that fits the store.
        deps: an async context manager `(thread) -> D`, entered once a wake, never stored.
        redact: applied to JSON values before they are recorded: inputs, contexts, messages, questions,
            reasons, results, errors, payloads, answers, notes; never to the arguments that a model selected, or a person edited: what is recorded is
            what runs.
        clock: replaces the store's clock (tests).
        lease: how long a wake that died keeps others out.
        concurrency: how many handlers run at once in this process.
        base_url: where people find interrupts; fills `Interrupt.url`.
    """

    def __init__(
        self,
        url_or_store: str | Store,
        *,
        engine: Engine | None = None,
        deps: Deps | None = None,
        redact: Callable[[Json], Json] | None = None,
        clock: Clock | None = None,
        lease: timedelta | str = "30s",
        concurrency: int = 100,
        base_url: str | None = None,
    ) -> None:
        self.agents: dict[str, Agent] = {}
        self.store = open_store(url_or_store, clock)
        self.base_url = base_url
        self._deps, self._redact, self._lease, self._concurrency = deps, redact or (lambda value: value), duration(lease), concurrency
        self._engine: Engine | None = engine
        self._outbox, self._board = Outbox(self.store), Board(self.store)
        self._runner: Runner | None = None
        self._serving: list[asyncio.Task[None]] = []
        self._opening = asyncio.Lock()
        self._schemas: dict[str, Json] = {}
        self.witness: Callable[[Promise], None] = lambda promise: None

    # ---- agents ----------------------------------------------------------------------------------------------------------------

    @overload
    def agent(self, handler: H) -> H: ...
    @overload
    def agent(self, *, name: str | None = None, intents: Any = (), interject: bool = False, budget: Any = None) -> Callable[[H], H]: ...
    def agent(self, handler: Any = None, **options: Any) -> Any:
        """Register a handler; returns the function unchanged. Usable with and without arguments. See `add`."""
        return partial(self.add, **options) if handler is None else self.add(handler, **options)

    def add(self, handler: H, *, name: str | None = None, intents: Any = (), interject: bool = False, budget: Any = None) -> H:
        """Register `async def handler(thread)`.

        Args:
            name: how threads name it; default the function's name.
            intents: what its log may hold, where `decide` does not say it: classes, or A | B.
            interject: a message that comes while everything open waits sets those steps aside and asks the model.

        Raises:
            ValueError: another handler has that name.
            TypeError: two intents have one name.
        """
        if not is_async(handler) or any(isinstance(one, list | dict | set) for one in getattr(handler, "__defaults__", None) or ()):
            shown = getattr(handler, "__name__", handler)
            raise TypeError(f"{shown!r}: write `async def bot(thread): …`, without a default that can change: wakes share nothing but the log")
        chosen = name or handler.__name__
        known = self.agents.get(chosen)
        if known is not None and known.handler != handler:
            raise ValueError(f"two handlers are named {chosen!r}; give one another name: @app.agent(name=…)")
        declared = by_name(members(intents)) if intents != () else {}
        self.agents[chosen] = Agent(chosen, handler, declared, interject, result_type(handler), budget)
        return handler

    def _agent_name(self, agent: str | Callable[..., Any]) -> str:
        if isinstance(agent, str):
            if self.agents and agent not in self.agents:
                raise NotFound("agent", agent, self.agents)
            return agent
        name = next((one.name for one in self.agents.values() if one.handler == agent), None)  # equal: a method is a new object each time
        if name is None:
            raise NotFound("agent", getattr(agent, "__name__", agent), self.agents)
        return name

    # ---- life cycle ------------------------------------------------------------------------------------------------------------

    async def _open(self) -> Runner:
        async with self._opening:
            if self._runner is None:
                await self.store.open()
                self._outbox.subscribed.clear()
                self._board.attach()
                self._keeper = LeaseKeeper(self.store, self._lease, self.store.clock)
                setting = Setting(self.store, self._lease, self._keeper, self._redact, lambda promise: self.witness(promise), self._board)
                self._runner = Runner(setting, self.agents, self._deps, self._agent_name)
                self._engine = engine_for(self._engine, self.store, self.agents.keys, self._concurrency)
            await self._outbox.subscribe()
            return self._runner

    async def _wake(self, thread_id: str, tx: Any = None) -> None:
        if self._engine is not None:
            await self._engine.wake(thread_id, tx=tx)

    async def run_one(self, thread_id: str) -> bool:
        """Run one wake of a thread if it is runnable; whether it is runnable again at once. What engines call."""
        runner = await self._open()
        self._board.attach()
        return await runner.run_one(thread_id)

    async def __aenter__(self) -> Self:
        await self._open()
        assert self._engine is not None
        self._serving = [asyncio.ensure_future(served(self._engine, self.run_one)), asyncio.ensure_future(self._outbox.serve())]
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Start nothing new, finish what was started, release the leases, close the store."""
        for wake in list(self._runner.wakes) if self._runner is not None else []:
            wake.stop("shutdown")
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        self._serving = []
        if self._runner is not None:
            self._runner = None
            self._keeper.close()
            await self._board.drain()
            await self.store.close()

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C, then stop in order."""
        if threading.current_thread() is not threading.main_thread():
            raise OwnloopError("app.run() takes SIGTERM and Ctrl-C, and only the main thread hears them; elsewhere write `async with app:`")
        asyncio.run(self._serve_until_told())

    async def _serve_until_told(self) -> None:
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told.set)
        async with self:
            stopped = asyncio.ensure_future(told.wait())
            done, _ = await asyncio.wait({stopped, *self._serving}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    # ---- threads ---------------------------------------------------------------------------------------------------------------

    async def start(
        self, agent: str | Callable[..., Any], input: Any = None, *, key: str | None = None, context: Mapping[str, Any] | None = None, tx: Any = None
    ) -> str:
        """Start a thread; its id. With `key`, your own id: the same key is the same thread, and a second start changes nothing.

        `context` is a JSON object by which threads can be listed and scoped ({"tenant": "acme"}).
        """
        await self._open()
        name = self._agent_name(agent)
        drafts = [Draft("input", {"input": self._redact(model_value(input))})]
        thread_id, _ = await joined(self.store, tx).create(NewThread(name, drafts, key, self._redact(model_value(dict(context or {})))))
        await self._wake(thread_id, tx)
        return thread_id

    async def send(self, thread: Ref, text: str, *, by: By = None, dedupe: str | None = None, supersede: bool = False, tx: Any = None) -> Event:
        """A message to one thread; the model reads it at the next step, and a done thread begins its next turn.

        Args:
            dedupe: the same value on the same thread is the same message.
            supersede: end every step that has started nothing, with the message as the reason, in the same commit.

        Raises:
            ThreadEnded: it was closed or cancelled.
        """
        thread_id = await self._id(thread, tx)
        actor = None if by is None else Actor.of(by).id
        draft = Draft("message", {"text": self._redact(text)}, by=actor)
        while True:
            ends, head = await self._superseded(joined(self.store, tx), thread_id, draft) if supersede else ([], None)
            try:
                event, _ = await joined(self.store, tx).message(thread_id, [draft, *ends], dedupe=dedupe, at_head=head)
            except Refused as refusal:
                if refusal.why == "moved":
                    continue
                raise self._refusal(thread_id, refusal) from None
            await self._wake(thread_id, tx)
            return event

    @staticmethod
    async def _superseded(store: Store, thread_id: str, message: Draft) -> tuple[list[Draft], int]:
        events = await store.events(thread_id)
        steps = [step for step in History(thread_id, events).open_steps() if not step.is_started]
        data = {"status": "superseded", "reason": message.data["text"]}
        return [Draft("ended", data, step.id) for step in steps], len(events)

    async def emit(self, name: str, payload: Any, *, key: str | None = None, id: str | None = None, tx: Any = None) -> bool:
        """An event for whoever waits for it now or within 7 days. False: that `id` was known, nothing was done.

        "NAME.progress" with {"done", "total", "text"} is the progress of the job that will end with NAME and the same key: only the latest is kept.
        """
        await self._open()
        if (value := self._redact(model_value(payload))) is None:
            raise ValueError("payload=None: a wait that times out gives None, so an event carries something; send {} or True")
        if name.endswith(".progress") and isinstance(value, dict) and "done" in value:
            await self._board.write(event_key(name.removesuffix(".progress"), key), value)
            return True
        return await joined(self.store, tx).emit(name, key, id, value)

    async def hold(self, thread_or_agent: Target, *, on: On = None, by: By = None) -> None:
        """The operator's breakpoint: from now on the thread, or every thread of the agent, parks at a selection (`on`: of that intent), even
        where the program asks nobody. Decide the interrupt of kind "hold" to let it go on."""
        await self._hold(thread_or_agent, "hold", on, by)

    async def release_hold(self, thread_or_agent: Target, *, on: On = None, by: By = None) -> None:
        """Take breakpoints away: that on one intent, or all. What is parked already still waits for its decision."""
        await self._hold(thread_or_agent, "release_hold", on, by)

    async def _hold(self, target: Any, verb: Literal["hold", "release_hold"], on: On, by: By) -> None:
        await self._open()
        intent = on if on is None or isinstance(on, str) else on.intent_name
        is_thread = isinstance(target, tuple) or (isinstance(target, str) and ids.is_thread(target))
        key = await self._id(target) if is_thread else f"agent:{self._agent_name(target)}"
        while True:
            record = await self.store.get("hold", key)
            held = [] if record is None else record.value["on"]
            held = [*held, intent] if verb == "hold" else [] if intent is None else [one for one in held if one != intent]
            if await self.store.put("hold", key, {"on": list(dict.fromkeys(held))}, expect=record.version if record else 0):
                break
        if is_thread:
            await self._control(key, verb, by, "", {"on": intent})

    async def pause(self, thread: Ref, *, by: By = None, reason: str = "") -> None:
        """Start nothing more in this thread until `resume`; a model call or a read in flight is cancelled, a tool with effects is not."""
        await self._control(thread, "pause", by, reason)

    async def resume(self, thread: Ref, *, by: By = None, reason: str = "") -> None:
        """Go on after `pause`."""
        await self._control(thread, "resume", by, reason)

    async def cancel(self, thread: Ref, *, by: By = None, reason: str = "") -> None:
        """End the thread and its open children for good; what waits is withdrawn, what runs may finish and is recorded."""
        await self._control(thread, "cancel", by, reason)

    async def retry(self, thread: Ref, *, by: By = None, reason: str = "") -> None:
        """Wake a failed thread again, after the fix."""
        await self._control(thread, "retry", by, reason)

    async def close(self, thread: Ref, *, by: By = None, reason: str = "") -> None:
        """End the thread for good, in order; nothing can be sent to it any more."""
        await self._control(thread, "close", by, reason)

    async def _control(self, thread: Ref, verb: ControlVerb, by: By, reason: str, more: Mapping[str, Json] | None = None) -> None:
        thread_id = await self._id(thread)
        data = {"verb": verb, **sparse(reason=self._redact(reason) or None), **(more or {})}
        try:
            await self.store.control(thread_id, verb, Draft("control", data, by=None if by is None else Actor.of(by).id))
        except Refused as refusal:
            raise self._refusal(thread_id, refusal) from None
        if verb in ("pause", "cancel", "close"):
            self._keeper.check()
        await self._wake(thread_id)

    async def fork(self, thread: Ref, *, before: str | None = None, key: str | None = None) -> str:
        """A new thread with a copy of the whole ended steps before a selection (`before`: a step id; default: all that have ended). Nothing open
        or started is copied; the new thread asks the model from there. Its id; with a `key` that is known, as with `start`, the id of that thread."""
        row = await self._row(thread)
        kept = forking.cut(row.id, await self.store.events(row.id), before)
        thread_id, _ = await self.store.create(NewThread(row.agent, forking.renumbered(kept), key, row.context))
        await self._wake(thread_id)
        return thread_id

    # ---- decisions -------------------------------------------------------------------------------------------------------------

    async def approve(self, interrupt: Interrupt | str, *, by: Actor | str, digest: str | None = None, note: str = "") -> Interrupt:
        """Let a parked call run; the first valid answer wins.

        Args:
            by: who answers, as authentication proved it; never taken from a request body.
            digest: SHA-256 (hex) of what the person was shown; required over HTTP.
            note: at most 4,000 characters, shown to the model and kept for the audit.

        Raises:
            AlreadyDecided: somebody was first; carries who, what and when.
            Expired: the deadline passed, measured by the store's clock.
            ArgumentsChanged: `digest` is not that of the call that waits now.
            NotAllowed: the policy does not let this actor answer.

        Source: 12-factor agents 6 and 8; AG-UI 1.0 interrupts for the vocabulary.
        """
        return await self._decide(interrupt, "approve", by, None, note, digest)

    async def edit(self, interrupt: Interrupt | str, arguments: Any, *, by: Actor | str, digest: str | None = None, note: str = "") -> Interrupt:
        """Let a call run with other arguments: the full new ones (or the full new result). The original stays beside them.

        Raises what `approve` raises, and InvalidEdit: they do not fit the recorded schema.
        """
        return await self._decide(interrupt, "edit", by, arguments, note, digest)

    async def reject(self, interrupt: Interrupt | str, *, by: Actor | str, note: str = "", digest: str | None = None) -> Interrupt:
        """Do not let a call run; the note tells the model why. Raises what `approve` raises."""
        return await self._decide(interrupt, "reject", by, None, note, digest)

    async def respond(self, interrupt: Interrupt | str, value: Any, *, by: Actor | str, note: str = "", digest: str | None = None) -> Interrupt:
        """Answer in the call's place: the value becomes its result, nothing runs. Raises what `approve` raises."""
        return await self._decide(interrupt, "respond", by, value, note, digest)

    async def answer(self, interrupt: Interrupt | str, value: Any, *, by: Actor | str, note: str = "", digest: str | None = None) -> Interrupt:
        """Answer a question, or say of a call in doubt `Happened(value)` or `NotHappened()`. Raises what `approve` raises, and InvalidEdit."""
        return await self._decide(interrupt, "answer", by, value, note, digest)

    async def _decide(self, interrupt: Interrupt | str, verb: Verb, by: Actor | str, value: Any, note: str, digest: str | None) -> Interrupt:
        row = await self._interrupt_row(interrupt.id if isinstance(interrupt, Interrupt) else interrupt)
        try:
            return await self._decide_on(row, verb, Actor.of(by), value, note, digest)
        except OwnloopError as refusal:
            watch.current.decided(await self._shown(row), verb, refusal)
            raise

    async def _decide_on(self, row: InterruptRow, verb: Verb, actor: Actor, value: Any, note: str, digest: str | None) -> Interrupt:
        while True:
            shown = await self._shown(row)
            if shown.status != "open":
                raise Expired(shown) if shown.status == "expired" else AlreadyDecided(shown)
            if digest is not None and digest != shown.digest:
                raise ArgumentsChanged(shown, digest)
            known = self.agents[row.agent].known_intents() if verb == "edit" and row.agent in self.agents else {}
            draft = deciding.answer(shown, verb, actor, value, note, known, self._redact)
            try:
                event = await self.store.decide(row.thread_id, row.request.seq, draft, digest=digest, votes=len(row.votes))
            except Refused as refusal:
                if refusal.why == "expired":
                    raise Expired(shown) from None
                row = await self._interrupt_row(shown.id)  # somebody was first: what it is now
            else:
                watch.current.decided(shown, verb, event)
                await self._wake(row.thread_id)
                return await self._shown(row.after(event))

    async def interrupt(self, id: str) -> Interrupt:
        """One interrupt by its id, whatever its status."""
        return await self._shown(await self._interrupt_row(id))

    async def _interrupt_row(self, id: str) -> InterruptRow:
        await self._open()
        row = await self.store.interrupt(*place) if (place := ids.interrupt_of(str(id))) else None
        if row is None:
            raise NotFound("interrupt", id)
        return row

    async def _shown(self, row: InterruptRow) -> Interrupt:
        shown = interrupt_of(row.thread_id, row.agent, Request(row.request, row.status, list(row.votes), row.closing), self.base_url)
        if isinstance(shown.schema, str):  # recorded once, by digest
            name = shown.schema
            if name not in self._schemas:
                record = await self.store.get("schema", name)
                self._schemas[name] = None if record is None else record.value
            object.__setattr__(shown, "schema", self._schemas[name])
        return shown

    # ---- reading ---------------------------------------------------------------------------------------------------------------

    async def show(self, thread: Ref) -> ThreadView:
        """A thread with its whole log, its steps and its open interrupts."""
        row = await self._row(thread)
        events = await self.store.events(row.id)
        interrupts = [await self._shown(one) for one in await self.store.interrupts(thread=row.id, limit=10_000)]
        return thread_view(row, events, interrupts)

    async def threads(self, **filters: Unpack[ThreadFilter]) -> list[ThreadView]:
        """Threads, newest first, without their logs: `steps`, `interrupts` and `events` are empty here. `after`: the last id of the page before."""
        await self._open()
        return [thread_view(row) for row in await self.store.threads(**asked(ThreadFilter, filters))]

    async def interrupts(self, *, thread: Ref | None = None, after: str | None = None, **filters: Unpack[InterruptFilter]) -> list[Interrupt]:
        """What waits, oldest first: for people, events, clocks and children. `after`: the last id of the page before; `status=None`: all."""
        await self._open()
        within = None if thread is None else await self._id(thread)
        place = None if after is None else ids.interrupt_of(after)
        if after is not None and place is None:
            raise NotFound("interrupt", after)
        return [await self._shown(row) for row in await self.store.interrupts(thread=within, after=place, **asked(InterruptFilter, filters))]

    async def stream(self, thread: Ref, *, after: int = 0) -> AsyncIterator[Event | Delta | Progress]:
        """Events after a position, as they are committed by any process, and in between what streams. Ends with the thread.

        Raises:
            NotFound: there is no such thread.
        """
        async for item in follow(self.store, self._board, (await self._row(thread)).id, after):
            yield item

    # ---- the lease outside a wake ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self, thread_or_key: Ref) -> AsyncIterator[Thread[Any]]:
        """Hold a thread's lease and work on it from your own code. A string that is no thread's id is a key: the thread without an agent that has
        it, made if there is none. A wait unwinds the block and ends it; the thread is released and what waited can be answered.

        Raises:
            ThreadBusy: a wake holds it.
        """
        runner = await self._open()
        thread_id = await self._id_or_new(thread_or_key)
        asked = self.store.clock.ticks()
        if (claim := await self.store.claim(thread_id, None, self._lease)) is None:
            row = await self._row(thread_id)
            raise ThreadEnded(thread_id, row.status) if row.status in ENDED else ThreadBusy(thread_id, row.lease_until)
        async with runner.holding(claim, asked) as wake:
            try:
                yield Thread(wake, runner.about(claim.row.agent))
            except BaseException as error:
                if not only_suspends(error):
                    raise
            finally:
                wake.seal()
                await wake.drain()
                await wake.release()

    async def _id_or_new(self, thread_or_key: Ref) -> str:
        if isinstance(thread_or_key, tuple) or ids.is_thread(thread_or_key):
            return await self._id(thread_or_key)
        thread_id, _ = await self.store.create(NewThread("", [Draft("input", {"input": None})], thread_or_key))
        return thread_id

    def on(self, name: NoticeName) -> Callable[[Listener], Listener]:
        """Register `async fn(notice)` for a kind of notice; told at least once, by any process that serves. See `Notice`."""
        return partial(self._outbox.add, name)

    # ---- inside ----------------------------------------------------------------------------------------------------------------

    async def _id(self, thread: Ref, tx: Any = None) -> str:
        await self._open()
        found = await joined(self.store, tx).find(*thread) if isinstance(thread, tuple) else thread if ids.is_thread(thread) else None
        if found is None:
            raise NotFound("thread", thread)
        return found

    async def _row(self, thread: Ref) -> ThreadRow:
        if (row := await self.store.thread(await self._id(thread))) is None:
            raise NotFound("thread", thread)
        return row

    @staticmethod
    def _refusal(thread_id: str, refusal: Refused) -> Exception:
        return NotFound("thread", thread_id) if refusal.why == "missing" else ThreadEnded(thread_id, refusal.why)
