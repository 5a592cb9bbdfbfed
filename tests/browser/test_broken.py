"""What an operator sees when a part is away: said clearly, with an age, and healed by itself."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.rig import CALM, Dashboard, Plant, give_past, tag

HEAL_MS = 12_000


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A plant of our own, since its parts are killed here."""
    made = Plant(tmp_path_factory.mktemp("broken"))
    give_past(made)
    with made.running():
        yield made


def test_the_agent_is_killed_and_comes_back(plant: Plant, open_page: OpenPage) -> None:
    """Values stay, grey and with their age; then all is well again without a reload."""
    page = open_page(plant.dashboard.url)
    value = page.locator('[data-device="PUMP01"] .gauge .value')
    expect(value).to_have_text("7.0")
    plant.agent.stop(signal.SIGKILL)
    message = page.locator(".banner")
    expect(message).to_contain_text("에이전트가 응답하지 않습니다", timeout=HEAL_MS)
    expect(message).to_contain_text(re.compile(r"\d+초 전 값을 보고 있습니다"))
    expect(value).to_have_text("7.0")
    expect(page.locator(".card .thumb").first).to_have_css("filter", "grayscale(1)")
    plant.agent.start()
    expect(message).to_be_hidden(timeout=HEAL_MS)
    expect(page.locator("html[data-old]")).to_have_count(0)
    plant.set({0: 81})
    expect(value).to_have_text("8.1", timeout=HEAL_MS)
    plant.calm()


def test_the_dashboard_itself_is_killed_and_comes_back(plant: Plant, open_page: OpenPage) -> None:
    """The page notices that nobody speaks to it any more, and when somebody does again."""
    page = open_page(plant.dashboard.url, errors=True)
    expect(page.locator("article.card")).to_have_count(3)
    plant.dashboard.stop(signal.SIGKILL)
    message = page.locator(".banner")
    expect(message).to_contain_text("대시보드 서버와 연결이 끊겼습니다", timeout=HEAL_MS)
    expect(message).to_contain_text(re.compile(r"\d+초 전 값을 보고 있습니다"), timeout=HEAL_MS)
    plant.dashboard.start()
    expect(message).to_be_hidden(timeout=HEAL_MS)
    plant.set({0: 82})
    expect(page.locator('[data-device="PUMP01"] .gauge .value')).to_have_text(
        "8.2", timeout=HEAL_MS
    )
    plant.calm()


def test_a_plc_goes_away(plant: Plant, open_page: OpenPage) -> None:
    """Its cards are silent with their age, and the banner says where the data stops."""
    page = open_page(plant.dashboard.url, locale="en-US")
    expect(page.locator("article.card")).to_have_count(3)
    plant.plc.stop()
    card = page.locator('[data-device="TANK07"]')
    expect(card).to_have_attribute("data-state", "stale", timeout=HEAL_MS)
    expect(card.locator(".live")).to_contain_text("Silent")
    expect(page.locator(".banner")).to_contain_text("Data stops at the PLCs")
    expect(page.get_by_role("button", name=re.compile("Silent 3"))).to_be_visible()
    plant.plc.start()
    expect(card).to_have_attribute("data-state", "ok", timeout=HEAL_MS)
    expect(page.locator(".banner")).to_be_hidden(timeout=HEAL_MS)


def test_a_dashboard_that_starts_before_its_agent(plant: Plant, open_page: OpenPage) -> None:
    """It shows the newest samples of the store, as old as they are, until the agent is there."""
    plant.agent.stop()
    plant.dashboard.stop()
    plant.dashboard.start()
    page = open_page(plant.dashboard.url)
    expect(page.locator("article.card")).to_have_count(3, timeout=HEAL_MS)
    expect(page.locator(".banner")).to_contain_text("에이전트가 응답하지 않습니다")
    plant.agent.start()
    expect(page.locator(".banner")).to_be_hidden(timeout=HEAL_MS)
    expect(page.locator('[data-device="PUMP01"] h2')).to_contain_text("급수 펌프 압력")


def test_an_empty_plant(
    tmp_path_factory: pytest.TempPathFactory, plant: Plant, open_page: OpenPage
) -> None:
    """No agent and no store yet: a sentence that says what to do, and no error."""
    folder = tmp_path_factory.mktemp("empty")
    options = ["--data-dir", str(folder / "data"), "--agent-url", "http://127.0.0.1:9"]
    dashboard = Dashboard(folder, options)
    dashboard.start()
    try:
        page = open_page(dashboard.url)
        expect(page.get_by_text("장치가 없습니다")).to_be_visible()
        expect(page.locator(".banner")).to_contain_text("에이전트가 응답하지 않습니다")
        page.close()
    finally:
        dashboard.stop()


def test_names_of_any_length_and_kind(
    tmp_path_factory: pytest.TempPathFactory, open_page: OpenPage
) -> None:
    """Long and Korean names, HTML in them, no limits, a value far out: no page breaks."""
    long = "원료투입컨베이어-" * 12
    tags = (
        tag(long, "아주아주긴태그이름" * 6, 0, line="라인" * 20, unit="단위" * 8),
        tag("<b onclick=x>&amp;", '"><img onerror=alert(1) src=x>', 1, line="L2"),
        tag("FAR", "VALUE", 2, line="L2", scale=1e9, hi=10.0),
    )
    plant = Plant(tmp_path_factory.mktemp("names"), tags)
    with plant.running():
        plant.set(CALM | {2: 30_000})
        for size in ({"width": 1440, "height": 900}, {"width": 360, "height": 740}):
            page = open_page(plant.dashboard.url, viewport=size)
            expect(page.locator("article.card")).to_have_count(3)
            expect(page.locator("article.card h2 a").nth(1)).to_have_text(long)
            expect(page.get_by_role("heading", name="<b onclick=x>&amp;")).to_be_visible()
            wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            assert not page.evaluate(wider)
            page.close()
