"""The twelve faults. Each makes its harm with real processes and says what was paid, asked and left; the judgement is the same for all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .processes import Peer, Run

GOOD = ("safe", "asks", "refuses")
BAD = ("repeats", "wrong call", "loses", "stuck")
APART = ("not offered", "not run")
RACES = 3


@dataclass(frozen=True)
class Cell:
    """What one framework did under one fault."""

    verdict: str
    note: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    name: str
    what: str
    play: Callable[[Peer], Cell]


def short(status: str) -> str:
    """A framework's own words, cut for a table."""
    return status if len(status) <= 160 else status[:157] + "…"


def facts(run: Run, **more: Any) -> dict[str, Any]:
    return {**more, "paid": run.paid(), "model": [line["call"] and line["call"]["args"]["amount"] for line in run.lines("model")]}


def parked(run: Run) -> Any:
    """Start a thread that waits for a person; the call as the framework names it."""
    began = run.ask("start")
    assert began["waiting"], f"nothing waits: {began}"
    return began["waiting"][0]["call"]


def after_a_death(run: Run, status: dict[str, Any], **more: Any) -> Cell:
    """One payment was made and its result is known to nobody: what did the framework make of it?"""
    ledger = run.lines("ledger")
    assert ledger, f"nothing was paid: {status['status']}"
    known = facts(run, status=status["status"], questions=status["questions"], **more)
    if len(ledger) > 1:
        keys = {line["key"] for line in ledger}
        key = "no key for the bank" if keys == {None} else "the same key both times" if len(keys) == 1 else "another key each time"
        return Cell("repeats", f"paid {len(ledger)} times, {key}", known)
    if status["questions"]:
        answered = run.ask("happened")
        known["answered"] = answered["status"]
        if answered["status"] != "done" or len(run.paid()) != 1:
            return Cell("stuck", f"asks, but the answer leads to: {short(answered['status'])}", known)
        return Cell("asks", "paid once; a person is asked whether it happened; the answer ends the thread", known)
    if status["status"] == "done":
        return Cell("safe", "paid once, and the thread ended", known)
    return Cell("stuck", f"paid once; the thread does not go on: {short(status['status'])}", known)


def kill_in_the_tool(peer: Peer) -> Cell:
    with Run(peer) as run:
        run.set(slow=600)
        child = run.begin("start")
        run.until(run.paid, child, "the payment")
        time.sleep(0.5)
        run.kill(child)
        run.set(slow=0)
        return after_a_death(run, run.ask("recover"))


def kill_before_the_start(peer: Peer) -> Cell:
    with Run(peer) as run:
        run.set(gap=True)
        child = run.begin("start")
        run.until(lambda: run.lines("gap"), child, "the moment between selection and start")
        time.sleep(0.5)
        run.kill(child)
        run.set(gap=False)
        status = run.ask("recover")
        known = facts(run, status=status["status"])
        match run.paid():
            case [100]:
                return Cell("safe", "paid what had been selected; the model was not asked again", known)
            case []:
                return Cell("stuck", f"nothing was paid: {short(status['status'])}", known)
            case [other]:
                return Cell("loses", f"the selection of 100 was gone; the model was asked again, and {other} was paid", known)
            case many:
                return Cell("repeats", f"paid {many}", known)


def _race(run: Run, answers: str, **more: Any) -> Cell:
    assert "died" not in answers, answers
    paid = len(run.paid())
    known = facts(run, answers=answers, **more)
    if paid == 1:
        told = next((one for one in answers.split(" | ") if "raised" in one or "already" in one), "")
        return Cell("safe", "paid once" + (f"; the second heard: {short(told)}" if told else "; the second heard nothing of the first"), known)
    return Cell("repeats", f"paid {paid} times", known) if paid else Cell("loses", f"paid nothing: {short(answers)}", known)


def two_approvals_in_one_process(peer: Peer) -> Cell:
    with Run(peer) as run:
        run.set(limit=50, slow=0.3)
        call = parked(run)
        return _race(run, run.ask("answer_twice", "approve", call)["status"])


def two_approvals_in_two_processes(peer: Peer) -> Cell:
    """Whether they meet is chance: the first bad race counts, and three good ones."""
    for number in range(1, RACES):
        cell = _two_processes(peer)
        if cell.verdict in BAD:
            return Cell(cell.verdict, f"{cell.note}, in race {number} of at most {RACES}", cell.facts)
    return _two_processes(peer)


def _two_processes(peer: Peer) -> Cell:
    with Run(peer) as run:
        run.set(limit=50, slow=0.3)
        call = parked(run)
        gate = run.world / "gate"
        both = [run.begin("answer_when", str(gate), "approve", call, worker=worker) for worker in (0, 1)]
        run.until(lambda: len(run.lines("ready")) == 2, both[1], "both are ready")
        time.sleep(0.2)
        gate.touch()
        return _race(run, " | ".join(run.end(child)["status"] for child in both))


def a_late_duplicate(peer: Peer) -> Cell:
    with Run(peer) as run:
        run.set(limit=50, amounts=[100, 250])
        first = parked(run)
        went_on = run.ask("answer", "approve", first)
        assert run.paid() == [100], f"{went_on}"
        again = run.ask("answer", "approve", first)
        paid = run.paid()
        known = facts(run, again=again["status"], after_the_duplicate=paid)
        if paid == [100, 250]:
            return Cell("wrong call", "the approval of 100, delivered twice, also paid 250, which nobody had seen", known)
        if paid != [100]:
            return Cell("repeats", f"paid {paid}", known)
        if not again["waiting"]:
            return Cell("loses", f"the next approval is gone: {short(again['status'])}", known)
        run.ask("answer", "approve", again["waiting"][0]["call"])
        if run.paid() != [100, 250]:
            return Cell("stuck", f"refused, but afterwards the next call cannot be approved: paid {run.paid()}", facts(run, **known))
        refused = "raised" in again["status"] or "already" in again["status"] or "looked up" in again["status"]
        return Cell("safe", f"refused: {short(again['status'])}" if refused else "the duplicate changed nothing", known)


def rejected_then_a_condition_changes(peer: Peer) -> Cell:
    with Run(peer) as run:
        run.set(limit=50)
        call = parked(run)
        run.set(limit=1000)
        rejected = run.ask("answer", "reject", call)
        known = facts(run, status=rejected["status"])
        if run.paid():
            return Cell("wrong call", f"the rejected payment was made: paid {run.paid()}", known)
        if rejected["status"] == "done":
            return Cell("safe", "nothing was paid; the model read the rejection", known)
        return Cell("refuses" if "failed" in rejected["status"] else "stuck", f"nothing was paid: {short(rejected['status'])}", known)


def edited_arguments(peer: Peer) -> Cell:
    with Run(peer) as run:
        run.set(limit=50)
        edited = run.ask("answer", "edit", parked(run), 60)
        known = facts(run, status=edited["status"])
        if edited["status"].startswith("not offered"):
            return Cell("not offered", edited["status"].removeprefix("not offered: "), known)
        if run.paid() != [60]:
            return Cell("wrong call", f"edited to 60, paid {run.paid()}: {short(edited['status'])}", known)
    with Run(peer) as run:
        run.set(limit=50)
        wrong = run.ask("answer", "edit", parked(run), "sixty")
        known |= {"sixty": wrong["status"], "paid after 'sixty'": run.paid()}
        if "sixty" in run.paid():
            return Cell("wrong call", "60 was paid as edited; an edit to 'sixty' went to the bank unchecked", known)
        if run.paid():
            return Cell("wrong call", f"60 was paid as edited; after an edit to 'sixty' {run.paid()} was paid", known)
        heard = "refused" if "raised" in wrong["status"] else "not paid"
        left = "the call still waits" if wrong["waiting"] else "no call waits any more"
        return Cell("safe", f"60 was paid; an edit to 'sixty' was {heard}, {left}", known)


def code_changed_while_parked(peer: Peer) -> Cell:
    with Run(peer) as run:
        run.set(limit=50)
        call = parked(run)
        gate = run.world / "gate"
        if peer.old_code_stays:
            beside = run.begin("stand_by", str(gate))
            run.until(lambda: run.lines("ready"), beside, "the old code beside the changed one")
        status = run.ask("answer", "approve", call, changed=True)
        gate.touch()
        audits = len(run.lines("audit"))
        known = facts(run, status=status["status"], audits=audits)
        if run.paid() == [100] and status["status"] == "done":
            where = "by the old code, which must run beside the changed one until then" if peer.old_code_stays else "under the changed code"
            return Cell("safe", f"paid once {where}; the added step ran {audits} times", known)
        if run.paid():
            return Cell("repeats" if len(run.paid()) > 1 else "stuck", f"paid {run.paid()}: {short(status['status'])}", known)
        old = run.ask("recover")
        known |= facts(run, old_code=old["status"])
        if run.paid() == [100]:
            return Cell("stuck", f"under the changed code: {short(status['status'])}; it went on once the old code was started again", known)
        return Cell("loses", f"{short(status['status'])}; with the old code again: {short(old['status'])}", known)


def a_payment_times_out(peer: Peer) -> Cell:
    with Run(peer) as run:
        run.set(timeout=1, slow=3)
        status = run.ask("start")
        raised = status["status"]
        if not status["questions"] and raised != "done":
            status = run.ask("recover")
        cell = after_a_death(run, status, first=raised)
        later = f" (after: {short(raised)})" if raised.startswith("raised") else ""
        return Cell(cell.verdict, cell.note + later, cell.facts)


def a_full_disk(peer: Peer) -> Cell:
    with Run(peer, small_disk=True) as run:
        ballast = run.store / "ballast"
        run.set(fill=str(ballast), slow=0.5)
        child = run.begin("start")
        run.until(run.paid, child, "the payment")
        time.sleep(3)
        ballast.unlink()
        status = run.end(child)
        run.heal_server()
        first = status["status"]
        if first != "done" and not status["questions"]:
            status = run.ask("recover")
        cell = after_a_death(run, status, while_full=first)
        return Cell(cell.verdict, cell.note + (f" (while full: {short(first)})" if first != "done" else ""), cell.facts)


def a_clock_that_jumps(peer: Peer) -> Cell:
    with Run(peer, clock=True) as run:
        run.set(slow=5)
        gate = run.world / "gate"
        second = run.begin("stand_by", str(gate), worker=1)
        run.until(lambda: run.lines("ready"), second, "the second worker")
        child = run.begin("start")
        run.until(run.paid, child, "the payment")
        run.set_clock(3600)
        time.sleep(2.5)
        run.set_clock(0)
        status = run.end(child)
        first = status["status"]
        if first != "done":
            status = run.ask("recover")
        gate.touch()
        run.end(second)
        return after_a_death(run, status, first=first)


def a_message_while_parked(peer: Peer) -> Cell:
    with Run(peer) as run:
        run.set(limit=50)
        call = parked(run)
        told = run.ask("say", "this is the wrong account")
        known = facts(run, told=told["status"], waiting=told["waiting"])
        if told["status"] == "not offered":
            return Cell("not offered", "nothing takes a message while the program waits", known)
        if run.paid():
            return Cell("wrong call", f"the message paid {run.paid()}", known)
        after = run.ask("answer", "approve", call)
        known |= facts(run, after=after["status"])
        heard = any(line["said"] for line in run.lines("model"))
        if run.paid() != [100]:
            gone = f"the message ended the approval: {short(told['status'])}, waiting: {[one['amount'] for one in told['waiting']]}"
            return Cell("wrong call" if run.paid() else "loses", f"{gone}; the answer then paid {run.paid()}", known)
        if "raised" in told["status"]:
            return Cell("refuses", f"the message was refused, the approval stayed: {short(told['status'])}", known)
        if not heard:
            return Cell("loses", "the approval stayed; the message never reached the model", known)
        asked_early = len(run.lines("model")) > 2
        return Cell(
            "safe",
            "the approval stayed; the model reads the message" + (" (it was asked once more in between)" if asked_early else " afterwards"),
            known,
        )


FAULTS = {
    "kill-tool": Fault("killed in the tool", "SIGKILL while the bank works, then a restart as documented", kill_in_the_tool),
    "kill-between": Fault(
        "killed before the start",
        "SIGKILL after the model has chosen, before the payment begins; asked again, the model chooses 101",
        kill_before_the_start,
    ),
    "twice-one": Fault("two approvals, one process", "two people approve the same call at the same moment", two_approvals_in_one_process),
    "twice-two": Fault(
        "two approvals, two processes", "the same from two processes, behind a barrier; three times, the worst counts", two_approvals_in_two_processes
    ),
    "duplicate": Fault("a late duplicate approval", "the approval of 100 is delivered again while 250 waits", a_late_duplicate),
    "rejected": Fault(
        "rejected, then a condition changes", "a person rejects 100 after the house has raised its limit to 1000", rejected_then_a_condition_changes
    ),
    "edit": Fault("edited arguments", "a person changes 100 to 60; in a second run to 'sixty'", edited_arguments),
    "code": Fault(
        "code changed while parked", "the program gets another step before its approval while a thread waits there", code_changed_while_parked
    ),
    "timeout": Fault(
        "a payment times out",
        "the bank pays at once and answers after 3 s; the program waits 1 s; told of an error, the model pays again",
        a_payment_times_out,
    ),
    "disk": Fault("full disk", "the disk of the store is full when the payment returns; there is room again 3 s later", a_full_disk),
    "clock": Fault("clock step", "the time of day jumps an hour ahead for 2.5 s during a payment; a second worker stands by", a_clock_that_jumps),
    "message": Fault("a message while parked", "the user writes while the approval waits; then it is approved", a_message_while_parked),
}
