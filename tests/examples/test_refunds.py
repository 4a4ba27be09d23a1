"""examples/refunds.py: limits, a quorum, an expiry, and a ledger that is asked when a process died."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import refunds
from outside import Folders

from ownloop import Actor
from ownloop.errors import Expired, NotAllowed
from ownloop.testing import FakeClock, crash_everywhere, drive

ANA, BEN, MIA = (Actor(name, ("finance",)) for name in ("ana", "ben", "mia"))
LARGE = {"order": "A-2", "cents": 900_00}


def app_on(url: Any, clock: FakeClock, folder: Path) -> Any:
    return refunds.make_app(url, clock, ledger=folder / "ledger.jsonl")


def paid(folder: Path) -> list[str]:
    return [payment["order"] for payment in refunds.Ledger(folder / "ledger.jsonl").payments()]


async def test_an_amount_up_to_the_limit_is_paid_without_asking_anybody(url: str, tmp_path: Path) -> None:
    clock = FakeClock()
    async with drive(app_on(url, clock, tmp_path), clock) as d:
        thread = await d.start("refunds", {"order": "A-1", "cents": refunds.UNASKED_UP_TO}, context={"requester": "mia"})
        await d.settle()
        assert (await d.show(thread)).result == "paid 50.00 for A-1"
        assert await d.interrupts(status=None) == []
    assert paid(tmp_path) == ["A-1"]


async def test_one_cent_more_is_paid_after_two_people_agreed_and_never_by_the_requester(url: str, tmp_path: Path) -> None:
    clock = FakeClock()
    async with drive(app_on(url, clock, tmp_path), clock) as d:
        thread = await d.start("refunds", {"order": "A-2", "cents": refunds.UNASKED_UP_TO + 1}, context={"requester": "mia"})
        await d.settle()
        approval = await d.interrupt()
        with pytest.raises(NotAllowed, match="the policy excludes mia"):
            await d.approve(approval, by=MIA)
        await d.approve(approval, by=ANA)
        with pytest.raises(NotAllowed, match="ana agreed already"):
            await d.approve(approval, by=ANA)
        await d.settle()
        assert paid(tmp_path) == []
        await d.approve(approval, by=BEN)
        await d.settle()
        assert (await d.show(thread)).result == "paid 50.01 for A-2"
    assert paid(tmp_path) == ["A-2"]


async def test_a_refund_that_nobody_decided_for_a_day_is_not_paid_and_not_called_a_persons_no(url: str, tmp_path: Path) -> None:
    clock = FakeClock()
    async with drive(app_on(url, clock, tmp_path), clock) as d:
        thread = await d.start("refunds", LARGE, context={"requester": "mia"})
        await d.settle()
        approval = await d.interrupt()
        await d.approve(approval, by=ANA)
        await d.advance("24h")
        with pytest.raises(Expired):
            await d.approve(approval, by=BEN)
        assert (await d.show(thread)).result == "nobody decided in time; nothing was paid"
    assert paid(tmp_path) == []


async def test_a_refusal_says_why(url: str, tmp_path: Path) -> None:
    clock = FakeClock()
    async with drive(app_on(url, clock, tmp_path), clock) as d:
        thread = await d.start("refunds", LARGE, context={"requester": "mia"})
        await d.settle()
        await d.reject(await d.interrupt(), by=ANA, note="it was delivered")
        await d.settle()
        assert (await d.show(thread)).result == "refused: it was delivered"
    assert paid(tmp_path) == []


async def test_no_death_pays_twice_and_nobody_is_asked_because_the_ledger_knows(place: Any, fresh: Any) -> None:
    folders = Folders(fresh)

    async def scenario(d: Any) -> None:
        await d.start("refunds", LARGE, key="one", context={"requester": "mia"})
        await d.settle()
        approval = await d.interrupt()
        await d.approve(approval, by=ANA)
        await d.approve(approval, by=BEN)
        await d.settle()

    report = await crash_everywhere(scenario, lambda at, clock: app_on(at, clock, folders.of(at)), url=place)
    assert (report.lost, report.silent, report.asked) == ([], [], [])
    assert report.starts == {"pay": 1}
    assert len(folders.all) == report.runs > 10
    assert all(paid(folder) == ["A-2"] for folder in folders.all)
