"""Rebuild the pictures of the inbox: `python tools/screenshots.py [FOLDER]`, by default docs/images. Needs chromium and the extras [server,test].

The office is that of the inbox's tests; its clock stands still, so that only ids differ from one run to the next.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from ownloop import Actor
from ownloop.testing import Drive, FakeClock

ROOT = Path(__file__).resolve().parent.parent
START = datetime(2026, 11, 20, 9, 2, tzinfo=UTC)
MARC, ZOE = Actor("marc", ("support-leads", "finance")), Actor("zoe", ("finance", "release-managers"))


class Story:
    """A Friday in the office, told up to the moment of the pictures."""

    def __init__(self, house: Any, clock: FakeClock) -> None:
        self.house, self.clock = house, clock
        self.app = house.office.app
        self.threads: dict[str, str] = {}
        self.waiting: dict[str, Any] = {}

    async def tell(self) -> None:
        await self.app.hold("marketing")
        for agent, text in (("marketing", "newsletter"), ("billing", "export"), ("support", "contact"), ("support", "which"), ("billing", "charge")):
            await self.begin(agent, text)
            self.clock.advance("21m")
        await self.begin("support", "refund Nadia", key="zendesk:812", context={"tenant": "fernweh", "plan": "gold"})
        self.clock.advance("4m")
        await self.app.approve(self.waiting["refund Nadia"], by=MARC)
        await self.app.send(self.threads["refund Nadia"], "She called again: please be quick.", by="jo")
        await self.edited()
        await self.begin("releases", "release v1.9.0")
        self.clock.advance("7m")

    async def edited(self) -> None:
        """A thread that ran to its end, with an edit on its way."""
        await self.begin("support", "refund Nadia", name="edited", key="zendesk:790")
        self.clock.advance("1h")
        one = self.waiting["edited"]
        await self.app.edit(one, {**one.intent, "amount": 200.0}, by=ZOE, note="The shipping was free, take that off.")
        await self.drive.settle()
        self.clock.advance("33m")
        await self.app.approve(await self.drive.interrupt(self.threads["edited"]), by=MARC)
        await self.drive.settle()

    async def begin(self, agent: str, text: str, name: str = "", **options: Any) -> None:
        self.threads[name or text] = await self.app.start(agent, text, **options)
        await self.drive.settle()
        self.waiting[name or text] = await self.drive.interrupt(self.threads[name or text])

    @property
    def drive(self) -> Drive:
        return Drive(self.app, self.clock)


class Camera:
    def __init__(self, browser: Browser, house: Any, story: Story, folder: Path) -> None:
        self.browser, self.house, self.story, self.folder = browser, house, story, folder

    def take(self, name: str, address: str, *ways: tuple[int, str], before: Any = None, by: Actor = ZOE, full: bool = True) -> None:
        """Pictures of one page, one for each width and scheme."""
        for width, scheme in ways:
            size: Any = {"width": width, "height": 800 if width > 500 else 740}
            look: Any = {"viewport": size, "color_scheme": scheme, "base_url": self.house.url}
            context = self.browser.new_context(**look)
            context.add_cookies([self.house.cookie(by)])
            page = context.new_page()
            page.clock.set_fixed_time(self.story.clock.now())
            page.goto(address)
            if before is not None:
                before(page)
            page.wait_for_timeout(300)
            path = self.folder / f"{name}-{width}-{scheme}.png"
            page.screenshot(path=path, full_page=full)
            print(f"{path}  {path.stat().st_size // 1024} KiB")
            context.close()


WIDE, NARROW, WIDE_DARK, NARROW_DARK = (1280, "light"), (360, "light"), (1280, "dark"), (360, "dark")


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(ROOT / "tests" / "server" / "inbox"))
    clock = FakeClock(START)
    house = import_module("visiting").House("memory://", clock=clock, lease=timedelta(hours=2))
    story = Story(house, clock)
    house.run(story.tell())
    house.open(wakes=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        shoot(Camera(browser, house, story, folder), story)
        browser.close()
    house.close()


def shoot(camera: Camera, story: Story) -> None:
    release = f"/interrupts/{story.waiting['release v1.9.0'].id}"
    camera.take("inbox", "/", WIDE, WIDE_DARK, NARROW)
    camera.take("approve", release, WIDE, WIDE_DARK, NARROW)
    camera.take("votes", f"/interrupts/{story.waiting['refund Nadia'].id}", WIDE)
    camera.take("edit", f"{release}/edit", WIDE, NARROW, full=False)
    camera.take("diff", f"{release}/edit", WIDE, NARROW_DARK, before=change)
    camera.take("in-doubt", f"/interrupts/{story.waiting['charge'].id}", WIDE, NARROW_DARK)
    camera.take("question", f"/interrupts/{story.waiting['contact'].id}", WIDE)
    camera.take("thread", f"/threads/{story.threads['edited']}", WIDE, WIDE_DARK, NARROW)
    camera.take("threads", "/threads", WIDE)
    camera.take("conflict", release, WIDE, before=lambda page: be_late(page, story), full=False)


def change(page: Page) -> None:
    page.fill("[name='f/canary_percent']", "25")
    page.fill("[name='f/regions/1']", "us-west-1")
    page.fill("[name='f/release_notes']", page.input_value("[name='f/release_notes']").replace("about four minutes", "about nine minutes"))
    page.click("#preview")


def be_late(page: Page, story: Story) -> None:
    """Somebody else decides while this page is open."""
    page.evaluate("document.getElementById('live').remove()")
    one = story.waiting["release v1.9.0"]
    story.house.run(story.app.reject(one, by=Actor("mara", ("release-managers",)), note="Not on a Friday."))
    page.click("#approve")


if __name__ == "__main__":
    main()
