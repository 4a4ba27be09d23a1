"""ownloop: one thread per key on SQLite (WAL, synchronous=FULL) or Postgres, an agent that owns its loop; `run_one` is one wake, as an engine runs it.
opts: db=pg, sync=normal, lease=<duration>."""
import asyncio, os
from typing import Any
from ownloop import Actor, App, Intent, Thread, current_call
from ownloop.errors import AlreadyDecided
from harness import E

class Work(Intent):
    i: int
class Danger(Intent):
    i: int
class Slow(Intent):
    i: int
class Done(Intent): ...

NAMES = {"work": Work, "danger": Danger, "slow": Slow}

async def decide(thread: Thread) -> Work | Danger | Slow | Done:
    c = await E.next_step(sum(thread.count(one) for one in NAMES.values()), thread.input["mode"], thread.input["n"])
    return Done() if c is None else NAMES[c["name"]](i=c["args"]["i"])

async def work(i: int, size: int) -> str: return await E.work(i, size)
async def danger(i: int) -> str: return await E.danger(i, 200, key=current_call().key)
async def slow(i: int) -> str: return await E.slow(i, 200, key=current_call().key)

async def bench(thread: Thread) -> str:
    while True:
        step = await thread.next_step(decide)
        match step.intent:
            case Work(i=i):
                await step.run(work, i, thread.input["size"])
            case Danger():
                if step.decision is None: E.before_pause()
                if await step.approved(by="approvers"): await step.run(danger)
            case Slow():
                await step.run(slow)
            case Done():
                step.close()
                return "done"

class Peer:
    def __init__(self, store, opts): self.store = store; self.opts = opts; self.STORE = "pg" if opts.get("db") == "pg" else "sqlite"
    async def open(self):
        if self.STORE == "pg":
            d = dict(x.split("=") for x in self.store.split()); url = f"postgresql://{d['user']}@/{d['dbname']}?host={d['host']}&port={d['port']}"
        else: url = f"sqlite:///{os.path.join(self.store, 'ownloop.db')}?synchronous={self.opts.get('sync', 'full')}"
        self.app = App(url, lease=self.opts.get("lease", "3s"))
        self.app.add(bench)
    async def close(self): await self.app.aclose()
    async def _start(self, tid: str, mode: str, n: int, size: int = 200) -> str:
        id = await self.app.start("bench", {"mode": mode, "n": n, "size": size}, key=tid)
        await self.app.run_one(id)
        return id
    async def loop(self, tid, n, size): await self._start(tid, "loop", n, size)
    async def pause(self, tid, past): await self._start(tid, "approve", past)
    async def resume(self, tid) -> Any:
        open = await self.app.interrupts(thread=("bench", tid))
        if not open: return "nothing pending"
        try: one = await self.app.approve(open[0], by=Actor("ana", ("approvers",)))
        except AlreadyDecided as error: return str(error)
        await self.app.run_one(one.thread_id)
        return "paused"
    async def pending(self, limit): return [one.thread_id for one in await self.app.interrupts(limit=limit)]
    async def kill_start(self, tid): await self._start(tid, "kill", 1)
    async def kill_recover(self, tid):
        while not (open := await self.app.interrupts(thread=("bench", tid), kind="in_doubt")):      # until the dead process's lease has run out
            await self.app.run_one((await self.app.threads(agent="bench", key=tid))[0].id)
            await asyncio.sleep(0.05)
        return {"status": f"flagged in doubt, a person is asked: {open[0].question}"}
