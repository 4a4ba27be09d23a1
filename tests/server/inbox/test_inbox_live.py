"""The list grows and shrinks by itself, also over a cut line; and nothing that a person has under the fingers is taken away."""

from __future__ import annotations

from playwright.sync_api import expect
from visiting import ZOE, House, Opener, Seen


def test_what_waits_appears_and_goes_by_itself(browse: Opener, house: House) -> None:
    page = browse()
    page.goto("/")
    expect(page.locator("#list")).to_contain_text("Nobody waits for you")
    page.wait_for_timeout(500)
    _, one = house.start("support", "which")
    expect(page.locator(f"#row-{one.id}")).to_be_visible()
    expect(page).to_have_title("(1) Inbox · ownloop")
    expect(page.locator("#news")).to_have_text("1 new request")
    expect(page.locator("#count")).to_contain_text("1")
    house.run(house.office.app.answer(one, "GLS", by="marc"))
    expect(page.locator("#list")).to_contain_text("Nobody waits for you")
    expect(page).to_have_title("Inbox · ownloop")


def test_the_focus_stays_where_it_is(browse: Opener, house: House) -> None:
    _, one = house.start("support", "which")
    page = browse()
    page.goto("/")
    page.wait_for_timeout(500)
    page.focus(f"#open-{one.id}")
    _, other = house.start("releases", "release v1.9.0")
    expect(page.locator(f"#row-{other.id}")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == f"open-{one.id}"


def test_a_page_whose_call_was_decided_elsewhere_says_nothing_that_is_over(browse: Opener, house: House) -> None:
    _, one = house.start("releases", "release v1.9.0")
    page = browse(ZOE)
    page.goto(f"/interrupts/{one.id}")
    expect(page.locator("#call-title")).to_contain_text("The call that will run")
    page.click("#facts .digest summary")
    page.wait_for_timeout(500)
    house.run(house.office.app.approve(one, by=ZOE))
    expect(page.locator("#state")).to_contain_text("Approved by")
    expect(page.locator("#decide")).to_be_hidden()
    expect(page.locator("#call-title")).not_to_contain_text("will run")
    expect(page.locator("#facts")).not_to_contain_text("you may")
    expect(page.locator("#rest")).not_to_contain_text("still open")
    expect(page.locator("#facts .digest .full")).to_be_visible()  # what a person has opened stays open


def test_a_server_that_comes_back_is_heard_again_without_gap_or_duplicate(browse: Opener, house: House, seen: Seen) -> None:
    seen.expected = ("Failed to load resource", "ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "htmx", "SSE", "network error", "fetch")
    _, one = house.start("support", "which")
    page = browse()
    page.goto("/")
    expect(page.locator(".row")).to_have_count(1)
    house.close()
    house.office.app.agents.clear()
    house.office._register()
    _, while_away = house.run(_parked(house))
    house.open()
    expect(page.locator(f"#row-{while_away.id}")).to_be_visible(timeout=30_000)
    _, later = house.start("support", "free")
    expect(page.locator(f"#row-{later.id}")).to_be_visible(timeout=30_000)
    expect(page.locator(f"#row-{one.id}")).to_have_count(1)
    expect(page.locator(".row")).to_have_count(3)


async def _parked(house: House) -> tuple[str, object]:
    app = house.office.app
    thread = await app.start("releases", "release v1.9.0")
    await app.run_one(thread)
    return thread, (await app.interrupts(thread=thread))[0]


def test_a_thread_s_page_grows_while_it_works(browse: Opener, house: House) -> None:
    thread, one = house.start("releases", "release v1.9.0")
    page = browse(ZOE)
    page.goto(f"/threads/{thread}")
    page.wait_for_timeout(500)
    house.run(house.office.app.approve(one, by=ZOE))
    expect(page.locator("#thread")).to_contain_text("turn ended")
    expect(page.locator(".badge.st")).to_have_text("done")


def test_a_long_tool_shows_how_far_it_is(browse: Opener, house: House) -> None:
    thread, _ = house.start("billing", "train", waits=False)
    page = browse()
    page.goto(f"/threads/{thread}")
    expect(page.locator("progress")).to_be_visible(timeout=15_000)
    expect(page.locator("[data-text]").first).to_contain_text("of 40")


def test_a_message_and_the_operator_s_buttons(browse: Opener, house: House) -> None:
    thread, _ = house.start("support", "free")
    page = browse(scripts=False)
    page.goto(f"/threads/{thread}")
    page.fill("#message", "Please be quick.\nShe waits.")
    page.click("text=Send")
    expect(page.locator(".log")).to_contain_text("Please be quick.")
    page.click("text=Pause")
    expect(page.locator(".badge.st")).to_have_text("paused")
    page.click("text=Resume")
    expect(page.locator(".badge.st")).to_have_text("open")
    page.click("summary:has-text('Cancel')")
    page.click("text=Cancel this thread")
    expect(page.locator(".badge.st")).to_have_text("cancelled")
