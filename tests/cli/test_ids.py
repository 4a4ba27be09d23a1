"""Parts of ids, where only one thing can be meant."""

from collections.abc import Callable

import pytest

from .conftest import Run

Settled = Callable[..., list[str]]


def unlike(a: str, b: str) -> int:
    """The length of the shortest beginning that tells them apart."""
    return next(place for place, (one, other) in enumerate(zip(a, b, strict=True)) if one != other) + 1


def test_a_beginning_is_enough_with_and_without_its_prefix(run: Run, settled: Settled) -> None:
    one, two = settled("deploy", "ask")
    short = one[: unlike(one, two)]
    for text in (short, short[4:], short[4:].lower()):
        assert run("show", text, "--json").json["thread"]["id"] == one


def test_the_end_of_an_id_is_enough(run: Run, settled: Settled) -> None:
    one, two = settled("deploy", "ask")
    assert run("show", one[-9:], "--json").json["thread"]["id"] == one
    assert run("decide", two[-9:], "answer", "alpha").code == 0


def test_what_could_be_two_is_refused_with_both(run: Run, settled: Settled) -> None:
    threads = settled("deploy", "ask")
    said = run("show", threads[0][:6], "--json")
    assert said.code == 2
    assert set(said.json["candidates"]) == set(threads)
    assert all(thread in said.err for thread in threads)


def test_an_agent_and_a_key(run: Run, settled: Settled) -> None:
    thread = settled("deploy", key="zendesk:812")[0]
    assert run("show", "desk/zendesk:812", "--json").json["thread"]["id"] == thread


def test_an_interrupt_leads_to_its_thread_and_a_thread_to_its_only_interrupt(run: Run, settled: Settled) -> None:
    thread, _ = settled("ask", "ask")
    interrupt = f"int_{thread[4:]}_3"
    assert run("show", interrupt, "--json").json["thread"]["id"] == thread
    assert run("decide", thread, "answer", "alpha", "--json").json["interrupt"]["id"] == interrupt


def test_a_part_of_an_interrupts_id(run: Run, settled: Settled) -> None:
    thread, other = settled("ask", "ask")
    short = thread[4 : unlike(thread, other)]
    assert run("decide", f"int_{short}", "answer", "alpha").code == 0
    assert run("decide", f"{thread[-9:]}_3", "answer", "alpha").code == 4


@pytest.mark.parametrize("text", ["int_38", "38"])
def test_an_ambiguous_interrupt_is_refused_with_the_candidates(run: Run, settled: Settled, text: str) -> None:
    threads = settled("ask", "ask")
    common = threads[0][4:][: unlike(*threads) - 5]
    said = run("decide", text.replace("38", common), "answer", "alpha", "--json")
    assert said.code == 2
    assert len(said.json["candidates"]) == 2


def test_a_step_by_its_number(run: Run, settled: Settled) -> None:
    thread = settled("deploy")[0]
    assert run("fork", thread, "--before", "1").code == 0
    assert run("fork", thread, "--before", "9").code == 3
