"""The wake protocol in every order: nothing is lost, nothing starts twice, nothing spins. And what the check catches when the store is wrong."""

from __future__ import annotations

import random
from collections import Counter

import broken_stores as broken
import pytest
from state_space import Explorer, Scenario, Violation

from ownloop.stores.memory import MemoryStore

WHOLE = {
    "two workers, a crash, a decision and a message": Scenario(2, {"decide": 1, "message": 1, "crash": 1}),
    "two workers, a crash and a frozen one": Scenario(2, {"decide": 1, "crash": 1, "freeze": 1}),
    "a message and a frozen worker": Scenario(2, {"decide": 1, "message": 1, "freeze": 1}),
    "pause, resume and cancel": Scenario(2, {"decide": 1, "pause": 1, "resume": 1, "cancel": 1, "crash": 1}),
    "a cancel and a frozen worker": Scenario(2, {"decide": 1, "cancel": 1, "freeze": 1}),
    "an event, a timeout, a frozen worker": Scenario(2, {"decide": 1, "emit": 1, "freeze": 1}, waits=True),
    "an event, a timeout, two crashes": Scenario(2, {"decide": 1, "emit": 1, "crash": 2}, waits=True),
    "a superseding message and a frozen worker": Scenario(2, {"decide": 1, "supersede": 1, "freeze": 1}),
    "three workers, two frozen": Scenario(3, {"decide": 1, "freeze": 2}),
}
EVERYTHING = {"decide": 1, "message": 1, "pause": 1, "resume": 1, "cancel": 1, "emit": 1, "supersede": 1, "crash": 2, "freeze": 2}


@pytest.mark.parametrize("name", WHOLE)
def test_in_no_order_is_anything_lost_or_started_twice(name: str) -> None:
    result = Explorer(WHOLE[name]).run()
    assert result.taken["finish"] and result.taken["effect"]
    print(f"{name}: {result.states} states, {result.transitions} transitions")


def test_random_walks_with_everything_at_once_find_nothing_either() -> None:
    chance = random.Random(12)
    taken: Counter[str] = Counter()
    for walk in range(600):
        budget = {name: count for name, count in EVERYTHING.items() if name not in ("cancel", "supersede") or chance.random() < 0.2}
        taken += Explorer(Scenario(3, budget, waits=walk % 2 == 0)).walk(chance).taken
    expected = {"crash", "freeze", "claim", "not_started", "doubt", "answer", "conclude", "settle", "emit", "supersede", "cancel", "finish"}
    assert expected <= set(taken), taken


@pytest.mark.soak
@pytest.mark.parametrize(
    "budget",
    [
        {"decide": 1, "crash": 2, "freeze": 2},
        {"decide": 1, "message": 1, "crash": 2, "freeze": 1},
        {"decide": 1, "message": 1, "freeze": 2},
        {"decide": 1, "pause": 1, "resume": 1, "cancel": 1, "crash": 1, "freeze": 1},
        {"decide": 1, "supersede": 1, "crash": 2, "freeze": 1},
        {"decide": 1, "emit": 1, "crash": 2, "freeze": 1},
    ],
    ids=lambda budget: " ".join(f"{count} {name}" for name, count in budget.items()),
)
def test_three_workers_two_crashes_and_two_lost_leases_in_every_order(budget: dict[str, int]) -> None:
    result = Explorer(Scenario(3, budget, waits="emit" in budget)).run()
    print(f"{budget}: {result.states} states, {result.transitions} transitions")


FAULTS: list[tuple[type[MemoryStore], str, str]] = [
    (broken.BeginsWithoutItsEpoch, "two workers, a crash and a frozen one", "a wake that lost its lease began something"),
    (broken.BeginsWithoutALease, "two workers, a crash and a frozen one", "a wake that lost its lease began something"),
    (broken.BeginsWhilePaused, "pause, resume and cancel", "something began while paused"),
    (broken.BeginsInASupersededStep, "a superseding message and a frozen worker", "superseded"),
    (broken.ReleasesAsIfAllWasSeen, "two workers, a crash, a decision and a message", "a wake-up was lost"),
    (broken.ReleasesWithoutItsTimer, "an event, a timeout, two crashes", "a wake-up was lost"),
    (broken.ReleasesForAnybody, "two workers, a crash and a frozen one", "a lease was taken away by somebody else"),
    (broken.SeesNothing, "two workers, a crash, a decision and a message", "found nothing to do|spins"),
    (broken.FencesFacts, "two workers, a crash and a frozen one", "the result of an effect that took place was refused"),
    (broken.FactsWakeNobody, "two workers, a crash and a frozen one", "a wake-up was lost"),
    (broken.TakesEveryOutcome, "two workers, a crash and a frozen one", "an operation has two outcomes|was answered although its outcome is known"),
    (broken.LeavesTheQuestionOpen, "two workers, a crash and a frozen one", "in doubt was answered although its outcome is known"),
    (broken.RevivesLeases, "two workers, a crash and a frozen one", "a lease that had run out was revived"),
    (broken.ClaimsWhatIsHeld, "two workers, a crash, a decision and a message", "two workers hold the lease"),
    (broken.ClaimsWithoutANewEpoch, "two workers, a crash, a decision and a message", "a claim did not raise the epoch"),
    (broken.NeverClaimsAfterACrash, "two workers, a crash, a decision and a message", "a wake-up was lost"),
    (broken.DecidesWhatIsClosed, "two workers, a crash, a decision and a message", "was decided"),
    (broken.DecidesInSilence, "two workers, a crash, a decision and a message", "a wake-up was lost"),
    (broken.EndsOverMessages, "two workers, a crash, a decision and a message", "a message was never read"),
    (broken.CancelsWithoutTakingTheLease, "a cancel and a frozen worker", "something began after the cancel"),
    (broken.ForgetsMail, "an event, a timeout, two crashes", "an event that had come was never delivered"),
    (broken.DeliversInSilence, "an event, a timeout, two crashes", "a wake-up was lost"),
    (broken.SettlesWhatIsClosed, "an event, a timeout, a frozen worker", "closed twice"),
]


@pytest.mark.parametrize(("store_class", "scenario", "harm"), FAULTS, ids=[fault[0].__name__ for fault in FAULTS])
def test_the_check_catches_a_store_that(store_class: type[MemoryStore], scenario: str, harm: str) -> None:
    with pytest.raises(Violation, match=harm) as caught:
        Explorer(WHOLE[scenario], store_class).run()
    print(caught.value)
