"""`ownloop token`: shown once, listed without the secret, ended at once."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from .conftest import Run


def test_it_is_shown_once_and_kept_as_a_hash(run: Run, tmp_path: Path) -> None:
    made = run("token", "create", "ci")
    secret = made.out.strip()
    assert (made.code, secret[:8]) == (0, "ownloop_")
    assert "not shown again" in made.err
    assert secret not in run("token", "list").out + run("token", "list", "--json").out
    with sqlite3.connect(tmp_path / "t.db") as db:
        assert not any(secret in str(row) for row in db.execute("SELECT * FROM records"))


def test_it_says_who_acts_what_they_may_what_they_see_and_until_when(run: Run) -> None:
    words = [
        "--scope",
        "threads:read,interrupts:decide",
        "--scope",
        "interrupts:read",
        "--as",
        "ann",
        "--group",
        "ops",
        "--see",
        '{"tenant": "acme"}',
    ]
    made = run("token", "create", "ci", *words, "--expires", "12h", "--json").json
    assert made["token"].startswith("ownloop_")
    assert made["actor"] == {"id": "ann", "groups": ["ops"]}
    assert made["scopes"] == ["interrupts:decide", "interrupts:read", "threads:read"]
    assert made["see"] == {"tenant": "acme"}
    (listed,) = run("token", "list", "--json").json["tokens"]
    assert "token" not in listed
    assert {name: made[name] for name in listed} == listed
    shown = run("token", "list").out
    assert "ann (ops)" in shown
    assert "tenant: acme" in shown


def test_without_words_it_may_read_only_and_for_90_days(run: Run) -> None:
    made = run("token", "create", "ci", "--json").json
    assert made["scopes"] == ["interrupts:read", "threads:read"]
    assert made["actor"]["id"] == "ci"
    assert made["expires_at"] is not None
    assert run("token", "create", "ever", "--expires", "never", "--json").json["expires_at"] is None


def test_a_revoked_one_is_listed_as_such(run: Run) -> None:
    made = run("token", "create", "ci", "--json").json
    assert "revoked at" in run("token", "revoke", made["id"]).out
    assert "revoked at" in run("token", "list").out
    assert run("token", "list", "--jsonl").lines[0]["revoked_at"] is not None
    assert run("token", "revoke", made["id"]).code == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["create", "ci", "--scope", "everything"], 2, "no scope is named everything"),
        (["create", "ci", "--see", "[1]"], 2, "is no JSON object"),
        (["create", "ci", "--expires", "soon"], 2, "is not a duration"),
        (["revoke", "tok_none"], 3, "tok_none"),
    ],
)
def test_what_it_refuses(run: Run, words: list[str], code: int, told: str) -> None:
    refused = run("token", *words)
    assert refused.code == code
    assert told in refused.err
