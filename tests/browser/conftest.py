"""A real headless Chromium, started once, and pages that notice whatever goes wrong in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.chromium import CHROMIUM, INSTALL, REQUIRED

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page


@dataclass
class Opened:
    """A tab, and everything it said, threw and asked for."""

    page: Page
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def quiet(self) -> None:
        """It said nothing, threw nothing, and asked for nothing but itself."""
        assert self.said == []
        assert self.asked == []

    def visible(self, selector: str) -> int:
        """How many elements can be seen."""
        found = self.page.locator(f"{selector} >> visible=true")
        return found.count()


Open = Callable[..., Opened]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; skipped where there is none, unless it is required."""
    from playwright.sync_api import sync_playwright

    if not Path(CHROMIUM).exists():
        message = f"no Chromium here; install: {INSTALL}"
        pytest.fail(message) if REQUIRED else pytest.skip(message)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    """Open a page's source in a tab of its own: `opened(html, hash="#hops", width=360)`."""
    contexts: list[BrowserContext] = []

    def open_page(
        html: str,
        *,
        width: int = 1280,
        height: int = 900,
        at: str = "",
        clock: str = "",
        **how: Any,
    ) -> Opened:
        path = tmp_path / f"{len(contexts)}.html"
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(
            viewport={"width": width, "height": height}, offline=True, **how
        )
        contexts.append(context)
        context.set_default_timeout(20_000)
        if clock:
            context.clock.set_fixed_time(clock)
        tab = Opened(context.new_page())
        url = path.as_uri()
        tab.page.on("console", lambda message: tab.said.append(message.text))
        tab.page.on("pageerror", lambda error: tab.said.append(str(error)))
        tab.page.on("dialog", lambda dialog: tab.said.append(dialog.message))
        tab.page.on(
            "request",
            lambda request: (
                None if request.url.startswith((url, "data:,")) else tab.asked.append(request.url)
            ),
        )
        tab.page.goto(url + at)
        return tab

    yield open_page
    for context in contexts:
        context.close()
