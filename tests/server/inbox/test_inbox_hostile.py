"""What an agent writes is shown, whole, and does nothing."""

from __future__ import annotations

import re
import sys
import unicodedata
from html.parser import HTMLParser

import pytest
from office import AskPerson, SendNewsletter
from playwright.sync_api import expect
from visiting import House, Opener

from ownloop.inert import inert as on_a_terminal
from ownloop.server.inbox import inert
from ownloop.server.inbox.values import Sheet

HOSTILE = [
    "<script>alert(1)</script>",
    "</textarea><script>alert(2)</script>",
    "</title><svg onload=alert(3)>",
    '"><img src=x onerror=alert(4)>',
    "<img src='https://evil.example/x.png'>",
    "![](https://evil.example/pixel.png)",
    "<a href='javascript:alert(5)'>Approve</a>",
    "<style>body{display:none}</style>",
    "<form action=https://evil.example><button>Approve</button></form>",
    "<iframe srcdoc='<script>alert(6)</script>'>",
    "<base href=https://evil.example/>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<div hx-get=/v1/threads hx-trigger=load>x</div>",
    "<div hx-sse:connect=/v1/stream>x</div>",
    "<hx-partial hx-target='#main'>gone</hx-partial>",
    "<input name=digest value=0><input name=decision value=approve>",
    "{{ 7 * 7 }}",
    "{% include 'base.html' %}",
    "${7*7}",
    "&lt;b&gt; &amp; &#x202e; &ZeroWidthSpace;",
    "]]><!-- --><!--",
    "<!-- ",
    "<plaintext>",
    "<noscript><p title='</noscript><script>alert(7)</script>'>",
    "\u202egnp.tegdub\u202c is safe",
    "\u2066\u2067deploy\u2069 production",
    "pay\u200bpal.com \u200d\u2060\ufeff",
    "a\u00adb\u034fc\u115f\u3164\u2800",
    "\u061c\u200e\u200f marks",
    "\U000e0041\U000e0042 tags \U000e007f",
    "a\ufe0fb\ufe00c\U000e0100 selectors",
    "\x1b[2J\x1b[31mred\x1b[0m",
    "\x1b]8;;https://evil.example\x07link\x1b]8;;\x07",
    "\x00nul\x07bell\x08back\x7fdel\x9bcsi",
    "line\u2028separator\u2029paragraph",
    "carriage\rreturn\r\nline",
    "tab\tand\vvertical\ffeed",
    "\ud800 half a pair \udfff",
    "\ue000 private \U0010fffd",
    "\ufffe\uffff nothing",
    "Z" + "\u0322\u0336\u0489" * 40 + "algo",
    "spaces" + " " * 400 + "approve = false",
    "lines" + "\n" * 300 + "really: drop table",
    "x" * 5000,
    "😀👩\u200d👧🏳️\u200d🌈",
    "مرحبا עולם mixed",
    "'; DROP TABLE events; --",
    "../../etc/passwd%00",
    "\\u202e typed by hand",
    "This only reads. Nothing to see. [Approve]",
]


class Words(HTMLParser):
    """The text of HTML, and the elements in it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.tags = "", set[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def words(html: str) -> Words:
    found = Words()
    found.feed(html)
    found.close()
    return found


def test_there_are_fifty() -> None:
    assert len(set(HOSTILE)) == 50


@pytest.mark.parametrize("text", HOSTILE, ids=range(50))
def test_the_page_shows_what_the_terminal_shows(text: str) -> None:
    shown = words(inert.line(text))
    assert shown.tags <= {"span"}
    if not re.search(r"[\ufe00-\ufe0f\U000e0100-\U000e01ef]|[\u0300-\u036f\u0489]{5}", text):  # these are escaped on pages only
        assert shown.text == on_a_terminal(text)
    assert all(inert.seen(char) == char for char in shown.text)


@pytest.mark.parametrize("text", HOSTILE, ids=range(50))
def test_nothing_of_a_value_is_left_out(text: str) -> None:
    sheet = Sheet(whole=True)
    shown = words(sheet.value(text))
    assert shown.tags <= {"div", "span"}
    said = re.sub(r"\n?⟨(\d+) (spaces|line breaks)⟩\n?", lambda gap: (" " if gap[2] == "spaces" else "\n") * int(gap[1]), shown.text)
    assert said == "".join(char if char == "\n" else expected(char, text) for char in text) or "Z\u0322" in text
    assert sheet.left_out == 0


def expected(char: str, text: str) -> str:
    return inert.seen(char)


def test_every_character_that_hides_or_acts_is_escaped() -> None:
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        category = unicodedata.category(char)
        if category in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
            assert inert.seen(char) != char, f"U+{code:04X}"
        elif category[0] in "LNPS" and char not in "\u115f\u1160\u3164\uffa0\u2800":
            assert inert.seen(char) == char, f"U+{code:04X}"


def test_fifty_texts_in_every_place_do_nothing(browse: Opener, house: House) -> None:
    """The watch of `seen` fails this on a foreign request, a dialog, a complaint about the policy."""
    office = house.office
    for number, text in enumerate(HOSTILE):
        office.scripts[f"h{number}"] = [SendNewsletter(subject=text, body=text * 2, recipients=number)]
        office.scripts[f"q{number}"] = [AskPerson(question=text)]
    house.run(office.app.hold("marketing"))
    held = [house.start("marketing", f"h{number}")[1] for number in range(50)]
    asked = [house.start("support", f"q{number}")[1] for number in range(50)]
    page = browse()
    page.goto("/")
    assert page.locator(".row").count() == 50
    expect(page.locator(".pager a").last).to_be_visible()
    for one in [*held[::4], *asked[::4]]:
        page.goto(f"/interrupts/{one.id}")
        assert page.locator(".detail form[action^='http'], .detail img, .detail iframe, .detail [onerror], .words [hx-get]").count() == 0
        assert page.locator("main").count() == 1
    for one in held[1::7]:
        page.goto(f"/interrupts/{one.id}/edit")
        page.goto(f"/threads/{one.thread_id}")
        page.goto(f"/threads/{one.thread_id}/events/2")


def test_an_edit_of_hostile_text_changes_only_what_was_typed(browse: Opener, house: House) -> None:
    text = "\u202egnp.exe\u202c\u200b <script>alert(1)</script>"
    house.office.scripts["h"] = [SendNewsletter(subject=text, body="plain", recipients=1)]
    house.run(house.office.app.hold("marketing"))
    _, one = house.start("marketing", "h")
    page = browse(scripts=False)
    page.goto(f"/interrupts/{one.id}/edit")
    page.fill("[name='f/recipients']", "2")
    page.click("#preview")
    page.click("#approve")
    expect(page.locator("#state")).to_contain_text("Edited and approved")
    assert house.interrupt(one.id).decision.value == {"subject": text, "body": "plain", "recipients": 2}


def test_a_megabyte_is_shown_whole(browse: Opener, house: House) -> None:
    text = ("0123456789abcdef" * 64 + "\n") * 1000
    house.office.scripts["h"] = [SendNewsletter(subject="long", body=text + "THE END", recipients=1)]
    house.run(house.office.app.hold("marketing"))
    _, one = house.start("marketing", "h")
    page = browse()
    page.goto(f"/interrupts/{one.id}?all=1")
    shown = page.locator(".sheet .text").nth(1).text_content()
    assert shown is not None
    assert shown == text + "THE END"
