"""The home page in a browser, in front of a real agent with a real store."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.rig import PLANT, Plant, tag


@pytest.fixture(autouse=True)
def _calm(plant: Plant) -> None:
    """Every test begins with a plant that is well."""
    plant.calm()


def names(page: Page) -> list[str]:
    """The devices that are shown, in their order."""
    return [text or "" for text in page.locator("article.card h2 a").all_text_contents()]


def test_a_card_per_device(plant: Plant, open_page: OpenPage) -> None:
    """Title, place, main value with unit, badges, and the past hour as bars."""
    page = open_page(plant.dashboard.url)
    pump = page.locator('[data-device="PUMP01"]')
    expect(page.locator("article.card")).to_have_count(3)
    expect(pump.locator(".gauge .value")).to_have_text("7.0")
    expect(pump.locator("h2")).to_contain_text("급수 펌프 압력")
    expect(pump).to_contain_text("A1 · L1")
    expect(pump).to_contain_text("TEMP 40.0 °C")
    expect(pump).to_contain_text(re.compile("방금 전|초 전"))
    expect(pump.get_by_role("img")).to_have_attribute("aria-label", "PRESS 7.0 bar 정상")
    bars = pump.locator(".bars").first.get_attribute("d") or ""
    assert bars.count("M") > 50
    expect(page.locator('[data-device="TANK07"] .ticks path')).to_have_count(0)
    expect(pump.locator(".ticks path")).to_have_count(2)


def test_values_are_live(plant: Plant, open_page: OpenPage) -> None:
    """What the PLC has now is on the page within seconds."""
    page = open_page(plant.dashboard.url)
    value = page.locator('[data-device="PUMP01"] .gauge .value')
    expect(value).to_have_text("7.0")
    plant.set({0: 83})
    expect(value).to_have_text("8.3", timeout=4000)


def test_search(plant: Plant, open_page: OpenPage) -> None:
    """By device, tag, description, site and line; "/" leads there, the URL keeps it."""
    page = open_page(plant.dashboard.url)
    expect(page.locator("article.card")).to_have_count(3)
    page.keyboard.press("/")
    box = page.get_by_role("searchbox")
    expect(box).to_be_focused()
    for words, found in (
        ("보일러", ["보일러01"]),
        ("level", ["TANK07"]),
        ("급수 pump", ["PUMP01"]),
        ("b2", ["TANK07"]),
        ("l2", ["보일러01"]),
    ):
        box.fill(words)
        expect(page.locator("article.card h2 a")).to_have_text(found)
    expect(page).to_have_url(re.compile("q=l2"))
    page.reload()
    expect(page.locator("article.card h2 a")).to_have_text(["보일러01"])
    expect(page.get_by_role("searchbox")).to_have_value("l2")
    page.get_by_role("searchbox").fill("nothing like this")
    expect(page.get_by_text("조건에 맞는 장치가 없습니다")).to_be_visible()
    page.get_by_role("button", name="모두 보기").click()
    expect(page.locator("article.card")).to_have_count(3)


def test_chips(plant: Plant, open_page: OpenPage) -> None:
    """Sites and lines, several at a time; all of it in the URL, so that back works."""
    page = open_page(plant.dashboard.url)
    chips = page.get_by_role("group", name="필터")
    chips.get_by_role("button", name="L2").click()
    expect(page.locator("article.card h2 a")).to_have_text(["보일러01"])
    chips.get_by_role("button", name="L3").click()
    expect(page.locator("article.card")).to_have_count(2)
    chips.get_by_role("button", name="B2").click()
    expect(page.locator("article.card h2 a")).to_have_text(["TANK07"])
    expect(chips.get_by_role("button", name="B2")).to_have_attribute("aria-pressed", "true")
    chips.get_by_role("button", name="전체").click()
    expect(page.locator("article.card")).to_have_count(3)
    expect(page).to_have_url(re.compile(r"^[^?]*$"))


def test_an_alarm_comes_first_and_clears(plant: Plant, open_page: OpenPage) -> None:
    """Red card at the front, strip with how far and since when, chip with the count; then gone."""
    page = open_page(plant.dashboard.url)
    expect(page.locator("article.card")).to_have_count(3)
    expect(page.locator(".alarms")).to_be_hidden()
    plant.set({4: 113})
    boiler = page.locator('[data-device="보일러01"]')
    expect(boiler).to_have_attribute("data-state", "alarm", timeout=5000)
    assert names(page)[0] == "보일러01"
    expect(boiler.locator(".live")).to_contain_text("증기압력 상한 초과")
    strip = page.locator(".alarms")
    expect(strip).to_contain_text("보일러01 증기압력")
    expect(strip).to_contain_text("11.3 bar · 상한 10.0 (+1.3)")
    chip = page.get_by_role("button", name="경보 1")
    chip.click()
    expect(page.locator("article.card")).to_have_count(1)
    chip.click()
    strip.get_by_role("link").click()
    page.wait_for_url(re.compile("/detail/.*device=.*tag="))
    page.go_back()
    plant.calm()
    expect(page.locator(".alarms")).to_be_hidden(timeout=5000)
    expect(page.locator('[data-device="보일러01"]')).to_have_attribute("data-state", "ok")


def test_an_alarm_below_the_lower_limit(plant: Plant, open_page: OpenPage) -> None:
    """The other side, with its sign."""
    page = open_page(plant.dashboard.url, locale="en-US")
    plant.set({0: 15})
    strip = page.locator(".alarms")
    expect(strip).to_contain_text("1.5 bar · lo 2.0 (−0.5)", timeout=6000)
    expect(page.locator('[data-device="PUMP01"] .live')).to_contain_text("Below limit")


def test_no_card_moves_under_the_pointer(plant: Plant, open_page: OpenPage) -> None:
    """What one is about to click stays where it is; it is put in order when the pointer leaves."""
    page = open_page(plant.dashboard.url)
    expect(page.locator("article.card")).to_have_count(3)
    before = names(page)
    page.locator("article.card").first.hover()
    plant.set({4: 113})
    expect(page.locator('[data-device="보일러01"]')).to_have_attribute("data-state", "alarm")
    page.wait_for_timeout(1500)
    assert names(page) == before
    page.mouse.move(5, 5)
    expect(page.locator("article.card h2 a").first).to_have_text("보일러01")


def test_dark_and_light(plant: Plant, open_page: OpenPage) -> None:
    """The system's theme at first, then the chosen one, also after a reload."""
    page = open_page(plant.dashboard.url, color_scheme="dark")
    body = page.locator("body")
    expect(body).to_have_css("background-color", "rgb(15, 15, 15)")
    page.get_by_role("button", name="밝은 화면").click()
    expect(body).to_have_css("background-color", "rgb(255, 255, 255)")
    page.reload()
    expect(body).to_have_css("background-color", "rgb(255, 255, 255)")


def test_a_chosen_theme_outlives_the_systems(plant: Plant, open_page: OpenPage) -> None:
    """Who has chosen keeps the choice; who has not follows the system, and the button with it."""
    page = open_page(plant.dashboard.url, color_scheme="dark")
    body = page.locator("body")
    page.emulate_media(color_scheme="light")
    expect(body).to_have_css("background-color", "rgb(255, 255, 255)")
    page.get_by_role("button", name="어두운 화면").click()
    expect(body).to_have_css("background-color", "rgb(15, 15, 15)")
    page.emulate_media(color_scheme="dark")
    page.emulate_media(color_scheme="light")
    page.wait_for_timeout(300)  # nothing happens, which nobody tells us
    expect(body).to_have_css("background-color", "rgb(15, 15, 15)")
    expect(page.get_by_role("button", name="밝은 화면")).to_be_visible()


def test_languages(plant: Plant, open_page: OpenPage) -> None:
    """The browser's language at first, then the chosen one, also after a reload."""
    page = open_page(plant.dashboard.url, locale="en-US")
    expect(page.get_by_role("searchbox")).to_have_attribute(
        "placeholder", "Search devices, tags, lines"
    )
    expect(page.get_by_role("link", name="System", exact=True)).to_be_visible()
    page.get_by_role("button", name="한국어로 보기").click()
    expect(page.get_by_role("link", name="시스템")).to_be_visible()
    expect(page.get_by_role("button", name="전체")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="전체")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "ko")


def test_by_keyboard(plant: Plant, open_page: OpenPage) -> None:
    """Every control can be reached by the tab key, and a card opened by Enter."""
    page = open_page(plant.dashboard.url)
    expect(page.locator("article.card")).to_have_count(3)
    reached = []
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
    text = " ".join(reached)
    for name in ("본문으로", "시스템", "EN", "전체", "L1", "L2", "L3", "PUMP01", "TANK07"):
        assert name in text
    page.get_by_role("link", name="TANK07").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/detail/.*device=TANK07"))


def test_a_tag_added_to_the_map_appears_by_itself(plant: Plant, open_page: OpenPage) -> None:
    """The page stays open while the agent takes over another map."""
    page = open_page(plant.dashboard.url)
    expect(page.locator("article.card")).to_have_count(3)
    added = (
        *PLANT,
        tag("FAN04", "VIB", 6, unit="mm/s"),
        tag("TANK07", "TEMP", 7, site="B2", line="L3"),
    )
    plant.write_map([replace(one, conn=plant.plc.conn) for one in added])
    try:
        expect(page.locator('[data-device="FAN04"]')).to_be_visible(timeout=6000)
        expect(page.locator('[data-device="TANK07"]')).to_contain_text("TEMP 0.0")
        expect(page.locator("article.card")).to_have_count(4)
    finally:
        plant.write_map(plant.tags)
    expect(page.locator("article.card")).to_have_count(3, timeout=8000)
