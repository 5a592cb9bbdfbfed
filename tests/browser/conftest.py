"""One Chromium and one plant for each module, a page for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.browser.rig import CHROMIUM_FLAGS, Plant, give_past

WAIT_MS = 15_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window.

    Playwright keeps an event loop in this thread as long as it runs: no test outside this folder
    may find it there.
    """
    path = shutil.which("chromium")
    assert path, "Chromium is not installed: tests/install.sh chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(CHROMIUM_FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A plant with three hours of past, at work."""
    made = Plant(tmp_path_factory.mktemp("plant"))
    give_past(made)
    with made.running():
        yield made


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens pages, each in a context of its own.

    A console error, a refused resource (CSP) or an uncaught exception fails the test, unless it is
    told that there will be some (``errors=True``).
    """
    complaints: list[str] = []
    contexts = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    def open_(url: str, *, errors: bool = False, **options: object) -> Page:
        chosen = {"locale": "ko-KR", "timezone_id": "Asia/Seoul", **options}
        context = browser.new_context(**chosen)  # type: ignore[arg-type]
        context.set_default_timeout(WAIT_MS)
        contexts.append(context)
        page = context.new_page()
        if not errors:
            page.on("console", hear)
            page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not complaints
