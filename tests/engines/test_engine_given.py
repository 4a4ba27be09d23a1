"""What `App(url, engine=…)` takes, what it says of anything else, and what an App without a living engine says of itself."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ownloop import App, engines
from ownloop.engines import Embedded
from ownloop.engines.base import RunOne
from ownloop.errors import StoreError
from ownloop.server import create


@pytest.mark.parametrize("given", [Embedded, "temporal", object()])
async def test_what_is_no_engine_is_refused_with_what_to_write(tmp_path: Path, given: Any) -> None:
    app = App(f"sqlite:///{tmp_path}/a.db", engine=given)
    with pytest.raises(TypeError, match=r"engine=.* is no engine, which has `wake` and `serve`; give one that is made: engine=Embedded\(\)"):
        await app.threads()


async def test_an_engine_whose_wake_is_no_coroutine_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    class Plain(Ended):
        def wake(self, thread_id: str, **options: Any) -> None:  # type: ignore[override]  # that is the mistake
            return None

    app = App(f"sqlite:///{tmp_path}/a.db", engine=Plain())
    with pytest.raises(TypeError, match=r"its `wake` is a plain function, and is awaited; write `async def wake`"):
        await app.start("anything")
    await app.store.close()


async def test_an_engine_serves_one_store_and_a_second_is_refused(tmp_path: Path) -> None:
    engine = Embedded()
    first, second = (App(f"sqlite:///{tmp_path}/{name}.db", engine=engine) for name in ("one", "two"))
    await first.threads()
    with pytest.raises(
        ValueError, match=r"wakes the threads of sqlite:///\S*one\.db, and would forget them over sqlite:///\S*two\.db; make one for each App"
    ):
        await second.threads()
    await first.aclose()
    await first.threads()  # its own may come again
    await first.aclose()
    await second.store.close()


async def test_what_an_own_engine_keeps_for_itself_is_its_own_affair(tmp_path: Path) -> None:
    class Own(Ended):
        _store = "a name"

    app = App(f"sqlite:///{tmp_path}/a.db", engine=Own())
    assert await app.threads() == []
    await app.aclose()


class Ended:
    """Cannot serve, as PgQueuer where its tables are missing and this role may not make them."""

    async def wake(self, thread_id: str, *, at: datetime | None = None, tx: Any = None) -> None:
        return None

    async def serve(self, run_one: RunOne) -> None:
        raise StoreError("this role may not make the schema")


async def test_an_app_whose_engine_ends_says_so_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with App(f"sqlite:///{tmp_path}/a.db", engine=Ended()):
        await asyncio.sleep(0)
        assert "this process wakes no thread any more: this role may not make the schema" in caplog.text


class Quits(Ended):
    """Serves what there is, and goes."""

    async def serve(self, run_one: RunOne) -> None:
        return None


async def test_an_engine_that_returns_by_itself_has_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with App(f"sqlite:///{tmp_path}/a.db", engine=Quits()) as app:
        await asyncio.sleep(0)
        assert "wakes no thread any more: Quits.serve returned, and nobody had cancelled it" in caplog.text
        assert app._serving[0].done() and app._serving[0].exception()


def test_a_server_that_was_to_run_wakes_and_cannot_is_alive_and_not_ready(tmp_path: Path) -> None:
    for engine, status in ((Ended(), 503), (Embedded(), 200)):
        with TestClient(create(App(f"sqlite:///{tmp_path}/a.db", engine=engine)), base_url="http://localhost") as site:
            assert site.get("/healthz").status_code == 200
            answer = site.get("/readyz")
            assert answer.status_code == status
            assert status == 200 or "its engine has ended: this role may not make the schema" in answer.text


@pytest.mark.parametrize("name", ["PgQueuer", "Restate", "Temporal"])
def test_an_engine_whose_packages_are_missing_names_an_extra_that_there_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"ownloop.engines.{name.lower()}", None)
    with pytest.raises(ImportError, match=rf"the engine {name} needs \S+; install it with: pip install 'ownloop\[(\w+)\]'") as error:
        getattr(engines, name)
    assert str(error.value).rpartition("[")[2].removesuffix("]'") in (metadata("ownloop").get_all("Provides-Extra") or [])
