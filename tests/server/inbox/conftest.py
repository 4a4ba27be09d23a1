"""A house with a server in it, and browsers that visit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from visiting import ANA, CHROMIUM, House, Opener, Seen

from ownloop import Actor

expect.set_options(timeout=20_000)  # a machine may be busy with other tests


@pytest.fixture(scope="module")  # no longer: its event loop is in the way of every async test that follows
def chromium() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


ON_POSTGRES = {"test_inbox_live"}
"""Tests of pages that change because of what others commit."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "house" in metafunc.fixturenames and metafunc.module.__name__ in ON_POSTGRES:
        metafunc.parametrize("house", ["memory", "postgres"], indirect=True)


@pytest.fixture
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    is_server = getattr(request, "param", "memory") == "postgres"
    house = House(request.getfixturevalue("postgres_url") if is_server else "memory://")
    house.open()
    yield house
    house.close()
    house.loop.call_soon_threadsafe(house.loop.stop)
    house.thread.join(10)


@pytest.fixture
def seen() -> Iterator[Seen]:
    """Fails the test when a page asked for something foreign, broke its own policy, or complained on the console."""
    seen = Seen()
    yield seen
    assert seen.troubles == []


@pytest.fixture
def browse(chromium: Browser, house: House, seen: Seen) -> Iterator[Opener]:
    """A page of somebody who has logged in."""
    contexts = []

    def page(actor: Actor = ANA, *, width: int = 1280, scripts: bool = True, keys: bool = False, scheme: Any = "light") -> Page:
        size: Any = {"width": width, "height": 900 if width > 500 else 740}
        context = chromium.new_context(viewport=size, java_script_enabled=scripts, color_scheme=scheme, base_url=house.url)
        contexts.append(context)
        seen.watch(context, house.url)
        cookies = [house.cookie(actor), *([{"name": "ownloop_keys", "value": "on", "url": house.url}] if keys else [])]
        context.add_cookies(cookies)  # type: ignore[arg-type]
        made = context.new_page()
        made.set_default_timeout(20_000)
        return made

    yield page
    for context in contexts:
        context.close()
