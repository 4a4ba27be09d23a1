"""Our row of the fault table: green as the library is, red where a fault is put into its protocol. The table itself is `python -m bench.faults`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bench.faults.__main__ import play  # noqa: E402
from bench.faults.peers_compared import PEERS  # noqa: E402
from bench.faults.processes import Peer  # noqa: E402
from bench.faults.scenarios import BAD, FAULTS, GOOD, Cell  # noqa: E402
from bench.faults.table import README, RESULTS, page  # noqa: E402

SHORT = ("kill-tool", "kill-between", "twice-one", "duplicate")
BROKEN = {"forgets_what_began": {"kill-tool": "repeats"}, "forgets_what_was_chosen": {"kill-between": "loses"}}


@pytest.fixture(scope="module")
def at_once() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def cells(pool: ThreadPoolExecutor, peer: Peer, faults: tuple[str, ...]) -> dict[str, Cell]:
    return dict(zip(faults, pool.map(lambda fault: play(peer, fault), faults), strict=True))


def broken(name: str) -> Peer:
    return Peer(name, Path(__file__).parent / "broken" / f"{name}.py", "ownloop")


def test_our_row_withstands_the_short_faults(at_once: ThreadPoolExecutor) -> None:
    found = cells(at_once, PEERS["ownloop"], SHORT)
    assert {fault: cell for fault, cell in found.items() if cell.verdict not in GOOD} == {}
    assert found["kill-tool"].verdict == "asks"
    assert "AlreadyDecided" in found["duplicate"].note


@pytest.mark.soak
def test_our_row_withstands_all_faults(at_once: ThreadPoolExecutor) -> None:
    found = cells(at_once, PEERS["ownloop"], tuple(FAULTS))
    assert {fault: cell for fault, cell in found.items() if cell.verdict not in GOOD} == {}


@pytest.mark.parametrize("name", BROKEN)
def test_a_fault_in_our_own_protocol_turns_our_row_red(name: str, at_once: ThreadPoolExecutor) -> None:
    expected = BROKEN[name]
    found = cells(at_once, broken(name), tuple(expected))
    assert {fault: cell.verdict for fault, cell in found.items()} == expected
    assert set(expected.values()) <= set(BAD)


def test_a_peer_that_never_answers_is_named_so_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.faults.processes.RUN_SECONDS", 1.5)
    cell = play(broken("never_answers"), "duplicate")
    assert cell.verdict == "not run"
    assert "no word within the 2 s of a run" in cell.note


def test_the_page_is_what_its_results_say() -> None:
    import json

    assert README.read_text(encoding="utf-8") == page(json.loads(RESULTS.read_text(encoding="utf-8")))
