"""Every page for everybody: axe-core, 360 pixels, fingers, keys that can be switched off; and nothing from elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from visiting import ANA, House, Opener, Seen


def axe(page: Page) -> list[str]:
    """Violations that are serious or worse. axe is run past the page's policy, as a browser's extension would be."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']} {[node['html'][:160] for node in one['nodes'][:3]]}" for one in found if one["impact"] in ("serious", "critical")
    ]


def addresses(house: House) -> dict[str, str]:
    """A page of every kind."""
    house.run(house.office.app.hold("marketing"))
    open_ones = {name: house.start(agent, name)[1] for agent, name in (("releases", "release v1.9.0"), ("billing", "charge"), ("support", "contact"))}
    open_ones |= {name: house.start(agent, name)[1] for agent, name in (("support", "which"), ("billing", "export"), ("marketing", "newsletter"))}
    thread, decided = house.start("releases", "release v1.9.0")
    edited = {**decided.intent, "canary_percent": 50}
    house.run(house.office.app.edit(decided, edited, by=ANA, note="half of it"))
    deploy = open_ones["release v1.9.0"].id
    pages = {name: f"/interrupts/{one.id}" for name, one in open_ones.items()}
    return pages | {
        "list": "/",
        "filtered": "/?q=nothing-like-this&status=all",
        "edit": f"/interrupts/{deploy}/edit",
        "json": f"/interrupts/{deploy}/edit?tab=json",
        "decided": f"/interrupts/{decided.id}",
        "threads": "/threads",
        "thread": f"/threads/{thread}",
        "event": f"/threads/{thread}/events/2",
        "settings": "/settings",
        "missing": "/threads/thr_0000000000000",
    }


OTHERS = [pytest.param(360, "light", marks=pytest.mark.soak), pytest.param(1280, "dark", marks=pytest.mark.soak)]


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light"), *OTHERS])
def test_no_page_has_a_serious_finding_or_is_wider_than_its_screen(browse: Opener, house: House, seen: Seen, width: int, scheme: str) -> None:
    seen.expected = ("404",)
    pages, page, found = addresses(house), browse(width=width, scheme=scheme), dict[str, Any]()
    for name, address in pages.items():
        page.goto(address)
        page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true })")
        if troubles := axe(page):
            found[name] = troubles
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{name} is {wide} px wide on a screen of {width}"
    assert found == {}


def test_the_conflict_and_preview_pages_too(browse: Opener, house: House, seen: Seen) -> None:
    seen.expected = ("409",)
    _, one = house.start("releases", "release v1.9.0")
    page, late = browse(width=360), browse()
    late.goto(f"/interrupts/{one.id}")
    late.evaluate("document.getElementById('live').remove()")
    page.goto(f"/interrupts/{one.id}/edit")
    page.fill("[name='f/canary_percent']", "20")
    page.click("#preview")
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.click("#approve")
    late.click("#approve")
    expect(late.locator("h1")).to_have_text("Somebody was first")
    assert axe(late) == []


def test_fingers_hit_what_they_want(browse: Opener, house: House) -> None:
    pages, page = addresses(house), browse(width=360)
    small = {}
    for name in ("list", "release v1.9.0", "charge", "contact", "edit", "thread"):
        page.goto(pages[name])
        page.eval_on_selector_all("details.act, details.more", "all => all.forEach(one => { one.open = true })")
        found = page.evaluate(
            """() => [...document.querySelectorAll("button, .button, select, textarea, input:not([type=hidden], [type=radio], [type=checkbox])")]
                .filter(one => one.offsetParent !== null && one.getBoundingClientRect().height < 43.5 && one.getBoundingClientRect().height > 1)
                .map(one => `${one.outerHTML.slice(0, 80)} ${one.getBoundingClientRect().height}`)"""
        )
        if found:
            small[name] = found
    assert small == {}


def test_single_keys_do_nothing_unless_they_were_switched_on(browse: Opener, house: House) -> None:
    _, one = house.start("releases", "release v1.9.0")
    page = browse()
    page.goto("/")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.tagName") == "BODY"
    page.goto(f"/interrupts/{one.id}")
    for key in ("e", "r", "a", "?"):
        page.keyboard.press(key)
    assert page.url.endswith(one.id)
    page.goto("/settings")
    page.check("[name=keys][value=on]")
    page.click("text=Keep")
    page.goto("/")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{house.url}/interrupts/{one.id}")
    page.wait_for_load_state()
    page.keyboard.press("r")
    expect(page.locator("#note-reject")).to_be_focused()
    page.keyboard.type("a e r ? j")
    page.keyboard.press("Escape")
    assert house.interrupt(one.id).status == "open", "neither letters in a field nor Escape decide"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    assert page.evaluate("document.activeElement.id") == "approve"
    assert house.interrupt(one.id).status == "open"
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_contain_text("Approved by ana")
    page.wait_for_load_state()
    page.keyboard.press("g")
    page.keyboard.press("i")
    expect(page).to_have_url(f"{house.url}/")


def test_light_and_dark_are_chosen_without_a_script(browse: Opener, house: House) -> None:
    page = browse(scripts=False, scheme="light")
    page.goto("/settings")
    page.check("[name=theme][value=dark]")
    page.click("text=Keep")
    page.goto("/")
    assert page.get_attribute("html", "data-theme") == "dark"


def test_the_first_tab_skips_to_the_content(browse: Opener, house: House) -> None:
    page = browse()
    page.goto("/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
