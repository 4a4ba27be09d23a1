"""examples/support_chat.py: turns, and a message that comes while a refund waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import support_chat
from outside import Folders

from ownloop.testing import FakeClock, crash_everywhere, drive


def app_on(url: Any, clock: FakeClock, folder: Path) -> Any:
    return support_chat.make_app(url, clock, ledger=folder / "refunds.txt")


def refunded(folder: Path) -> list[str]:
    path = folder / "refunds.txt"
    return path.read_text().split() if path.exists() else []


async def test_a_message_while_a_refund_waits_is_answered_at_once_and_the_approved_refund_still_runs(url: str, tmp_path: Path) -> None:
    clock = FakeClock()
    async with drive(app_on(url, clock, tmp_path), clock) as d:
        chat = await d.start("support", key="c7")
        await d.settle()
        assert (await d.show(chat)).result == "Hello!"
        await d.send(chat, "please refund A-17")
        await d.settle()
        approval = await d.interrupt()
        await d.send(chat, "how long does that take?")
        await d.settle()
        view = await d.show(chat)
        assert (view.status, view.result) == ("done", "We answer within a day. Your refund of A-17 is with a colleague.")
        assert refunded(tmp_path) == []
        assert (await d.interrupt()).id == approval.id
        await d.approve(approval, by="support-leads")
        await d.settle()
        view = await d.show(chat)
        assert (view.status, view.turn, view.result) == ("done", 3, "Order A-17 is refunded.")
    assert refunded(tmp_path) == ["A-17"]


async def test_two_refunds_wait_at_once_and_each_goes_its_own_way(url: str, tmp_path: Path) -> None:
    clock = FakeClock()
    async with drive(app_on(url, clock, tmp_path), clock) as d:
        chat = await d.start("support")
        for order in ("A-1", "A-2"):
            await d.send(chat, f"refund {order}")
            await d.settle()
        first, second = await d.interrupts(thread=chat)
        await d.approve(second, by="support-leads")
        await d.settle()
        assert (await d.show(chat)).result == "Order A-2 is refunded."
        await d.reject(first, by="support-leads")
        await d.settle()
        assert (await d.show(chat)).result == "We cannot refund A-1, sorry."
    assert refunded(tmp_path) == ["A-2"]


async def test_no_death_loses_a_message_or_refunds_in_silence(place: Any, fresh: Any) -> None:
    folders = Folders(fresh)

    async def scenario(d: Any) -> None:
        chat = await d.start("support", key="c7")
        await d.settle()
        await d.send(chat, "please refund A-17", dedupe="m1")
        await d.settle()
        await d.send(chat, "how long does that take?", dedupe="m2")
        await d.settle()
        await d.approve(await d.interrupt(), by="support-leads")
        await d.settle()

    report = await crash_everywhere(scenario, lambda at, clock: app_on(at, clock, folders.of(at)), url=place)
    assert (report.lost, report.silent) == ([], [])
    assert {question.split(" at ")[0] for question in report.asked} == {"refund"}
    assert all(refunded(folder) == ["A-17"] for folder in folders.all)
