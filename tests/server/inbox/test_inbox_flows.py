"""The whole way of an answer, by mouse, by keyboard alone, and without JavaScript."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from visiting import House, Opener, Seen

WAYS = ("mouse", "keyboard", "no script")


class Hand:
    """How a person reaches things on a page."""

    def __init__(self, page: Page, way: str) -> None:
        self.page, self.way = page, way

    def press(self, selector: str) -> None:
        """A button or a link, as this person presses it."""
        if self.way != "keyboard":
            self.page.click(selector)
            return
        self.reach(selector)
        self.page.keyboard.press("Enter")

    def reach(self, selector: str) -> None:
        """Tab until it has the focus."""
        target = self.page.locator(selector).first
        target.wait_for()
        for _ in range(120):
            if target.evaluate("element => element === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"{selector} cannot be reached by Tab")

    def write(self, selector: str, text: str) -> None:
        if self.way != "keyboard":
            self.page.fill(selector, text)
            return
        self.reach(selector)
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)

    def tick(self, selector: str) -> None:
        if self.way != "keyboard":
            self.page.check(selector)
            return
        group = self.page.locator(selector).first.get_attribute("name")
        self.page.locator(selector).first.wait_for()
        for _ in range(120):
            name, is_it = self.page.evaluate("s => [document.activeElement.name, document.activeElement.matches(s)]", selector)
            if is_it:
                self.page.keyboard.press("Space")
                return
            self.page.keyboard.press("ArrowDown" if name == group else "Tab")
        raise AssertionError(f"{selector} cannot be reached")


@pytest.fixture(params=WAYS)
def hand(request: Any, browse: Opener) -> Hand:
    return Hand(browse(scripts=request.param != "no script"), request.param)


def until(true: Callable[[], bool], page: Page) -> None:
    for _ in range(200):
        if true():
            return
        page.wait_for_timeout(25) if page.context else None
    raise AssertionError("it never came true")


def open_it(hand: Hand, house: House, agent: str, input: str) -> Any:
    _, one = house.start(agent, input)
    hand.page.goto("/")
    hand.press(f"#open-{one.id}")
    expect(hand.page).to_have_url(f"{house.url}/interrupts/{one.id}")
    return one


def test_an_approval_is_given_and_the_call_runs_as_it_was_shown(hand: Hand, house: House) -> None:
    one = open_it(hand, house, "releases", "release v1.9.0")
    hand.press("#approve")
    expect(hand.page.locator("#state")).to_contain_text("Approved by ana")
    until(lambda: bool(house.office.done), hand.page)
    assert house.office.done == [("deploy", dict(one.intent))]


def test_an_edit_is_previewed_keeps_its_types_and_runs(hand: Hand, house: House) -> None:
    one = open_it(hand, house, "releases", "release v1.9.0")
    hand.press("#edit")
    hand.write("[name='f/canary_percent']", "25")
    hand.write("[name='f/regions/1']", "us-west-1")
    hand.press("#preview")
    row = hand.page.locator(".diff tr.changed", has_text="canary_percent")
    expect(row.locator("del")).to_have_text("10")
    expect(row.locator("ins")).to_have_text("25")
    assert house.interrupt(one.id).status == "open", "a preview decides nothing"
    hand.press("#approve")
    expect(hand.page.locator("#state")).to_contain_text("Edited and approved by ana")
    until(lambda: bool(house.office.done), hand.page)
    (_, arguments), *_ = house.office.done
    assert arguments == {**one.intent, "canary_percent": 25, "regions": ["eu-central-1", "us-west-1"]}
    assert type(arguments["canary_percent"]) is int


def test_an_edit_that_does_not_fit_is_shown_again_with_what_was_typed(hand: Hand, house: House, seen: Seen) -> None:
    seen.expected = ("422",)
    one = open_it(hand, house, "releases", "release v1.9.0")
    hand.press("#edit")
    hand.write("[name='f/canary_percent']", "lots")
    hand.press("#preview")
    field = hand.page.locator("[name='f/canary_percent']")
    expect(field).to_have_value("lots")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(hand.page.locator(".bad-text")).to_contain_text("is not a whole number")
    hand.write("[name='f/canary_percent']", "101")
    hand.press("#preview")
    expect(hand.page.locator(".bad-text")).to_contain_text("maximum of 100")
    assert house.interrupt(one.id).status == "open"


def test_items_are_added_and_removed_without_a_script_too(hand: Hand, house: House) -> None:
    one = open_it(hand, house, "releases", "release v1.9.0")
    hand.press("#edit")
    hand.press("[value='remove:/regions/0']")
    hand.press("[value='add:/regions']")
    hand.write("[name='f/regions/1']", "sa-east-1")
    hand.press("#preview")
    hand.press("#approve")
    expect(hand.page.locator("#state")).to_contain_text("Edited and approved by ana")
    assert house.interrupt(one.id).decision.value["regions"] == ["us-east-2", "sa-east-1"]


def test_a_rejection_carries_its_reason(hand: Hand, house: House) -> None:
    one = open_it(hand, house, "releases", "release v1.9.0")
    hand.press("#reject")
    hand.write("#note-reject", "Not on a Sunday.")
    hand.press("#reject-box .solid")
    expect(hand.page.locator("#state")).to_contain_text("Rejected by ana")
    decision = house.interrupt(one.id).decision
    assert (decision.kind, decision.note) == ("rejected", "Not on a Sunday.")
    assert house.office.done == []


def test_a_choice_is_answered(hand: Hand, house: House) -> None:
    one = open_it(hand, house, "support", "which")
    hand.tick("[name=choice][value='1']")
    hand.press("#approve")
    expect(hand.page.locator("#state")).to_contain_text("Answered by ana")
    assert house.interrupt(one.id).decision.value == "GLS"


def test_a_text_is_answered_with_its_lines(hand: Hand, house: House) -> None:
    one = open_it(hand, house, "support", "free")
    hand.write("#value", "Tell them: as before.")
    hand.press("#approve")
    expect(hand.page.locator("#state")).to_contain_text("Answered by ana")
    assert house.interrupt(one.id).decision.value == "Tell them: as before."


def test_a_form_is_answered_with_typed_values(hand: Hand, house: House) -> None:
    one = open_it(hand, house, "support", "contact")
    hand.write("[name='f/name']", "Zoe")
    hand.page.select_option("[name='k/on_call']", label="true")
    if hand.way == "keyboard":  # a date field is typed part by part
        hand.page.fill("[name='f/since']", "2026-11-16")
    else:
        hand.write("[name='f/since']", "2026-11-16")
    hand.write("[name='f/level']", "3")
    hand.press("#approve")
    expect(hand.page.locator("#state")).to_contain_text("Answered by ana")
    assert house.interrupt(one.id).decision.value == {"name": "Zoe", "on_call": True, "since": "2026-11-16", "level": 3}


def test_a_choice_between_true_and_false_is_nobody_s_default(browse: Opener, house: House, seen: Seen) -> None:
    seen.expected = ("422",)
    page = browse()
    _, one = house.start("support", "contact")
    page.goto(f"/interrupts/{one.id}")
    page.fill("[name='f/name']", "Zoe")
    page.fill("[name='f/since']", "2026-11-16")
    page.fill("[name='f/level']", "3")
    page.click("#approve")
    expect(page.locator(".bad-text")).to_have_text("choose one")
    assert house.interrupt(one.id).status == "open"


def test_a_call_in_doubt_happened_with_a_result(hand: Hand, house: House) -> None:
    one = open_it(hand, house, "billing", "charge")
    hand.tick("[name=happened][value=yes]")
    hand.write("[name=f]", '{"charge": "ch_77"}')
    hand.press("#answer .go")
    expect(hand.page.locator("#state")).to_contain_text("Answered by ana")
    assert house.interrupt(one.id).decision.value == {"happened": True, "value": {"charge": "ch_77"}}
    assert house.office.charges == 1


def test_who_does_not_know_leaves_a_call_in_doubt_open(hand: Hand, house: House) -> None:
    one = open_it(hand, house, "billing", "charge")
    hand.press("[value=leave]")
    expect(hand.page.locator(f"#open-{one.id}")).to_be_visible()
    assert house.interrupt(one.id).status == "open"


def test_a_result_is_cut_before_the_model_sees_it(hand: Hand, house: House) -> None:
    one = open_it(hand, house, "billing", "export")
    hand.press("#edit")
    hand.write("[name='f/rows/0/phone']", "withheld")
    hand.press("#preview")
    hand.press("#approve")
    expect(hand.page.locator("#state")).to_contain_text("Edited and approved by ana")
    row = house.interrupt(one.id).decision.value["rows"][0]
    assert row == {"id": "cus_8812", "name": "Nadia Haddad", "phone": "withheld", "orders": 14}


def test_raw_json_edits_too(hand: Hand, house: House) -> None:
    one = open_it(hand, house, "releases", "release v1.9.0")
    hand.press("#edit")
    hand.press(".tabs a:has-text('JSON')")
    text = hand.page.input_value("#json")
    hand.page.fill("#json", text.replace('"canary_percent": 10', '"canary_percent": 11'))
    hand.press("#preview")
    hand.press("#approve")
    expect(hand.page.locator("#state")).to_contain_text("Edited and approved")
    assert house.interrupt(one.id).decision.value == {**one.intent, "canary_percent": 11}


def test_what_is_put_off_leaves_the_list_and_stays_open(hand: Hand, house: House) -> None:
    one = open_it(hand, house, "support", "which")
    hand.press(".later summary")
    hand.press("[name=until][value='4h']")
    expect(hand.page.locator("#list")).not_to_contain_text("Which carrier")
    hand.page.goto("/?snoozed=1")
    expect(hand.page.locator("#list")).to_contain_text("Which carrier")
    assert house.interrupt(one.id).status == "open"


def test_a_held_call_goes_on_when_the_operator_says_so(hand: Hand, house: House) -> None:
    house.run(house.office.app.hold("marketing"))
    open_it(hand, house, "marketing", "newsletter")
    hand.press("#approve")
    expect(hand.page.locator("#state")).to_contain_text("Approved by ana")
    until(lambda: bool(house.office.done), hand.page)
