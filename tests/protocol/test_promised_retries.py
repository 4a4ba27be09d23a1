"""A retry is for what may run twice; nobody can promise it for anything else by accident."""

from __future__ import annotations

import pytest

from ownloop import tool


def pay() -> None: ...


@pytest.mark.parametrize("promise", [{}, {"in_doubt": "ask"}, {"in_doubt": "fail"}, {"in_doubt": lambda key: None}])
def test_a_function_with_effects_cannot_be_given_tries(promise: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"retry=2 on pay: only what may run twice is retried"):
        tool(pay, retry=2, **promise)  # type: ignore[call-overload]  # that is what is refused


@pytest.mark.parametrize("promise", [{"reads": True}, {"in_doubt": "retry"}])
def test_what_may_run_twice_can_be_given_tries(promise: dict[str, object]) -> None:
    tool(pay, retry=2, **promise)  # type: ignore[call-overload]  # one of two


def test_tries_are_not_negative() -> None:
    with pytest.raises(ValueError, match="retry=-1"):
        tool(pay, reads=True, retry=-1)
