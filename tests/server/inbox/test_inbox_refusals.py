"""Two people, one interrupt; and everything that is too late, changed, not allowed or not shown."""

from __future__ import annotations

import re
from datetime import timedelta

import httpx
from office import DEPLOY
from playwright.sync_api import expect
from visiting import ANA, ZOE, House, Opener, Seen

from ownloop import Actor


def test_of_two_browsers_one_decides_and_the_other_is_told_who(browse: Opener, house: House, seen: Seen) -> None:
    seen.expected = ("409",)
    _, one = house.start("releases", "release v1.9.0")
    first, second = browse(ANA, scripts=False), browse(ZOE, scripts=False)
    for page in (first, second):
        page.goto(f"/interrupts/{one.id}")
    first.click("#approve")
    second.click("#reject")
    second.fill("#note-reject", "no")
    second.click("#reject-box .solid")
    expect(second.locator("h1")).to_have_text("Somebody was first")
    decided = house.interrupt(one.id).decision
    expect(second.locator(".lead")).to_contain_text(f"ana approved this at {decided.at:%Y-%m-%d %H:%M:%S} UTC")
    second.click("text=See it as it stands")
    expect(second.locator(".audit")).to_contain_text("refused: already-decided")
    assert len(house.office.done) <= 1


def test_a_page_that_is_open_is_told_that_somebody_else_decided(browse: Opener, house: House) -> None:
    _, one = house.start("releases", "release v1.9.0")
    page = browse(ZOE)
    page.goto(f"/interrupts/{one.id}")
    page.wait_for_timeout(500)
    house.run(house.office.app.reject(one, by=Actor("marc", ("release-managers",)), note="not today"))
    expect(page.locator("#state")).to_contain_text("Rejected by marc")
    expect(page.locator("#state")).to_contain_text("not today")
    expect(page.locator("#decide")).to_be_hidden()


def test_a_decision_after_the_deadline_is_a_page_that_says_so(browse: Opener, house: House, seen: Seen) -> None:
    seen.expected = ("410",)
    house.office.deadline = timedelta(seconds=1.2)
    _, one = house.start("releases", "release v1.9.0")
    page = browse(scripts=False)
    page.goto(f"/interrupts/{one.id}")
    page.wait_for_timeout(1500)
    page.click("#approve")
    expect(page.locator("h1")).to_have_text("This has expired")
    assert house.office.done == []
    assert house.interrupt(one.id).status == "expired"


def test_a_digest_that_is_not_the_one_shown_decides_nothing(browse: Opener, house: House, seen: Seen) -> None:
    seen.expected = ("412",)
    _, one = house.start("releases", "release v1.9.0")
    page = browse()
    page.goto(f"/interrupts/{one.id}")
    page.eval_on_selector("form:has(#approve) [name=digest]", "field => { field.value = '0'.repeat(64) }")
    page.click("#approve")
    expect(page.locator("h1")).to_have_text("This has changed")
    assert house.interrupt(one.id).status == "open"


def test_who_may_not_decide_is_told_why_and_is_offered_nothing(browse: Opener, house: House) -> None:
    _, one = house.start("releases", "release v1.9.0")
    page = browse(Actor("tim", ("interns",)))
    page.goto(f"/interrupts/{one.id}")
    sentence = "You cannot decide this: the policy asks for release-managers, so let one of them decide."
    expect(page.locator(".refused")).to_have_text(sentence)
    assert page.locator("#approve, #edit, #reject").count() == 0


def test_approve_is_offered_only_once_all_of_it_was_delivered(browse: Opener, house: House, seen: Seen) -> None:
    whole = "".join(f"line {number}\n" for number in range(90_000))
    house.office.scripts["long"] = [DEPLOY.model_copy(update={"release_notes": whole})]
    _, one = house.start("releases", "long")
    page = browse()
    page.goto(f"/interrupts/{one.id}")
    expect(page.locator("#left-out")).to_contain_text("characters are not shown")
    assert page.locator("form #approve").count() == 0
    page.click("#left-out a")
    assert whole.strip() in (page.locator(".sheet .text", has_text="line 0").text_content() or "")
    page.click("form #approve")
    expect(page.locator("#state")).to_contain_text("Approved by ana")


def test_a_form_that_says_nothing_of_having_seen_all_is_led_to_it(house: House) -> None:
    house.office.scripts["long"] = [DEPLOY.model_copy(update={"release_notes": "x" * 100_000})]
    _, one = house.start("releases", "long")
    cookie = house.cookie(ANA)
    with httpx.Client(base_url=house.url, cookies={cookie["name"]: cookie["value"]}) as client:
        csrf = _token(client.get(f"/interrupts/{one.id}").text)
        answer = client.post(f"/interrupts/{one.id}/decide", data={"csrf": csrf, "decision": "approve", "digest": one.digest})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/interrupts/{one.id}?all=1")
    assert house.interrupt(one.id).status == "open"
    assert [(kept.actor.id, kept.decision, kept.problem) for kept in house.attempts(one.id)] == [("ana", "approve", "not-shown")]


def test_a_form_without_our_token_is_refused(house: House) -> None:
    _, one = house.start("releases", "release v1.9.0")
    cookie = house.cookie(ANA)
    with httpx.Client(base_url=house.url, cookies={cookie["name"]: cookie["value"]}) as client:
        answer = client.post(f"/interrupts/{one.id}/decide", data={"decision": "approve", "digest": one.digest})
    assert answer.status_code == 403
    assert house.interrupt(one.id).status == "open"


def test_no_get_and_no_head_changes_anything(house: House) -> None:
    _, one = house.start("releases", "release v1.9.0")
    thread = one.thread_id
    before = house.run(house.office.app.show(thread))
    cookie, tried = house.cookie(ANA), set[str]()
    with httpx.Client(base_url=house.url, cookies={cookie["name"]: cookie["value"]}) as client:
        waiting = ["/", "/threads", f"/interrupts/{one.id}", f"/threads/{thread}", "/settings"]
        waiting += [f"/interrupts/{one.id}/{verb}" for verb in ("decide", "snooze", "again")] + [
            f"/threads/{thread}/{verb}" for verb in ("send", "command")
        ]
        while waiting:
            path = waiting.pop()
            if path in tried or "/v1/" in path:
                continue
            tried.add(path)
            for method in ("HEAD", "GET"):
                answer = client.request(method, path)
                assert answer.status_code in (200, 405), f"{method} {path}: {answer.status_code}"
            if answer.headers.get("content-type", "").startswith("text/html"):
                waiting += [one.replace("&amp;", "&") for one in re.findall(r'(?:href|action|hx-get)="(/[^"]*)"', answer.text)]
    assert len(tried) >= 18
    assert house.run(house.office.app.show(thread)) == before


def _token(page: str) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found is not None
    return found[1]
