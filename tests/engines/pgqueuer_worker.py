"""A worker in a process of its own: `python pgqueuer_worker.py URL EFFECTS GATE LEASE HEARTBEAT DRAIN`. It deploys, and says so."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "processes"))
import apart

from ownloop import App
from ownloop.engines import PgQueuer


def main(url: str, effects: str, gate: str, lease: str, heartbeat: str, drain: str) -> None:
    app = App(url, engine=PgQueuer(heartbeat=heartbeat, drain=drain), lease=lease)
    apart.deployer(app, effects, gate, approval=False)

    async def serve() -> None:
        running = asyncio.ensure_future(app._serve_until_told())
        while not app._serving:
            await asyncio.sleep(0.01)
        apart.say("ready", os.getpid())
        await running

    asyncio.run(serve())
    apart.say("left")


if __name__ == "__main__":
    main(*sys.argv[1:])
