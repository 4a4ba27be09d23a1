"""Where settings come from, and which source wins."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .programs import said


def of(folder: Path, name: str, *words: str, **more: str) -> tuple[str, str]:
    done = said(folder, "config", "--json", *words, **more)
    (row,) = [one for one in json.loads(done.stdout)["settings"] if one["name"] == name]
    return row["value"], row["source"]


def test_flags_win_over_the_environment_then_dotenv_then_the_files(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.ownloop]\nstore = "sqlite:///pyproject.db"\nport = 1\n')
    assert of(tmp_path, "store") == ("sqlite:///pyproject.db", "pyproject.toml")
    (tmp_path / "ownloop.toml").write_text('store = "sqlite:///toml.db"\n')
    assert of(tmp_path, "store") == ("sqlite:///toml.db", "ownloop.toml")
    assert of(tmp_path, "port") == ("1", "pyproject.toml")
    (tmp_path / ".env").write_text("# mine\nexport OWNLOOP_DATABASE_URL='sqlite:///dotenv.db'  \nOPENAI_API_KEY=sk # a key\n")
    assert of(tmp_path, "store") == ("sqlite:///dotenv.db", ".env")
    assert of(tmp_path, "store", OWNLOOP_STORE="sqlite:///environment.db") == ("sqlite:///environment.db", "environment")
    assert of(tmp_path, "store", "--store", "sqlite:///flag.db", OWNLOOP_STORE="sqlite:///environment.db") == ("sqlite:///flag.db", "flag")


def test_the_store_that_is_shown_is_the_one_that_commands_act_on(tmp_path: Path) -> None:
    assert of(tmp_path, "store")[0] == "sqlite:///.ownloop/dev.db once `ownloop dev` made it"
    (tmp_path / ".ownloop").mkdir()
    (tmp_path / ".ownloop" / "dev.db").touch()
    assert of(tmp_path, "store")[0] == "sqlite:///.ownloop/dev.db"
    assert of(tmp_path, "store", OWNLOOP_APP="agent.py")[0] == "that of agent.py"
    (tmp_path / ".env").write_text("OWNLOOP_APP=agent.py\n")
    assert of(tmp_path, "store")[0] == "sqlite:///.ownloop/dev.db"


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    done = said(tmp_path, "config", OWNLOOP_TOKEN="ownloop_secret")
    assert "ownloop_secret" not in done.stdout
    assert "(set)" in done.stdout


def test_what_looks_like_a_setting_and_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ownloop.toml").write_text('stroe = "sqlite:///x.db"\n')
    done = said(tmp_path, "config", OWNLOOP_LOG_FROMAT="json")
    assert "nothing reads OWNLOOP_LOG_FROMAT of the environment; did you mean OWNLOOP_LOG_FORMAT?" in done.stderr
    assert "nothing reads OWNLOOP_STROE of ownloop.toml; did you mean OWNLOOP_STORE?" in done.stderr


@pytest.mark.parametrize(("file", "text"), [("ownloop.toml", "store ="), (".env", "what is this")])
def test_a_broken_file_is_named(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    done = said(tmp_path, "config")
    assert done.returncode == 2
    assert file in done.stderr


def test_the_app_of_a_file_is_used_with_the_store_of_dev(tmp_path: Path) -> None:
    (tmp_path / "ownloop.toml").write_text('app = "agent.py"\n')
    (tmp_path / "agent.py").write_text("from ownloop import App\napp = App('sqlite:///own.db')\n")
    assert said(tmp_path, "threads").returncode == 0
    assert (tmp_path / "own.db").exists()
