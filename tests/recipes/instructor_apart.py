"""Runs the instructor recipe in an environment of its own: `python instructor_apart.py RECIPE`. What became of the thread is one line of JSON."""

import asyncio
import importlib.util
import json
import sys

from ownloop import App
from ownloop.testing import FakeClock, drive


async def main(path: str) -> None:
    spec = importlib.util.spec_from_file_location("recipe", path)
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    clock = FakeClock()
    app = App("memory://", clock=clock)
    app.add(recipe.deploybot)
    async with drive(app, clock) as d:
        thread = await d.start("deploybot", "deploy v1.4.0 to production")
        await d.settle()
        asked = await d.interrupts()
        for waiting in asked:
            await d.approve(waiting, by="ops")
        await d.settle()
        view = await d.show(thread)
    events = [{"kind": event.kind, "at": event.at.isoformat(), **event.data} for event in view.events]
    print(json.dumps({"status": view.status, "result": view.result, "asked": [one.intent for one in asked], "events": events}))


asyncio.run(main(sys.argv[1]))
