"""What is wrong, said in Korean to who reads the Korean pages, and in English to the others."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.rig import Plant
from tests.servers import Mosquitto

WAIT_MS = 20_000
HANGUL = re.compile("[가-힣]")


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A plant whose PLC and whose broker are away: nobody ever started them."""
    folder = tmp_path_factory.mktemp("korean")
    made = Plant(folder)
    broker = Mosquitto(folder / "mosquitto")
    made.agent.configure(["[store]", "enabled = true", "[mqtt]", f'url = "{broker.url}"'])
    try:
        made.agent.start()
        made.dashboard.start()
        yield made
    finally:
        made.dashboard.stop()
        made.agent.stop()


def test_the_banner_says_in_korean_where_data_stops(plant: Plant, open_page: OpenPage) -> None:
    """The verdict with the PLC and its error; the other language's own a click later."""
    page = open_page(plant.dashboard.url)
    banner = page.locator(".banner")
    refused = f"데이터가 멈춘 곳: 모든 PLC(연결된 곳 없음): {plant.plc.conn}: 연결 거부됨"
    expect(banner).to_contain_text(refused, timeout=WAIT_MS)
    expect(banner).not_to_contain_text("Data stops")
    page.get_by_role("button", name="English로 보기").click()
    english = f"Data stops at the PLCs: no connection is up; {plant.plc.conn}: Connection refused"
    expect(banner).to_contain_text(english)
    assert not HANGUL.search(banner.inner_text())


def test_the_system_page_says_it_in_korean(plant: Plant, open_page: OpenPage) -> None:
    """The verdict, the errors of PLC and sink in picture and tables, each with what to do."""
    page = open_page(f"{plant.dashboard.url}system/")
    why = page.locator("section.head .why")
    expect(why).to_contain_text("데이터가 멈춘 곳: 모든 PLC", timeout=WAIT_MS)
    expect(why).to_contain_text("저널에서 대기 중인 샘플")
    main = page.locator("main")
    for place in (".pipeline", "#connections", "#sinks"):
        expect(page.locator(place)).to_contain_text("연결 거부됨")
    expect(main).not_to_contain_text("Connection refused")
    page.get_by_role("button", name="English로 보기").click()
    expect(why).to_contain_text("Data stops at the PLCs")
    expect(main).to_contain_text("Connection refused")
    assert not HANGUL.search(main.inner_text())


def test_an_agent_that_is_away(plant: Plant, open_page: OpenPage) -> None:
    """Who asks it says so in Korean, and what to do beside the command."""
    plant.agent.stop()
    try:
        page = open_page(f"{plant.dashboard.url}system/")
        why = page.locator("section.head .why")
        expect(why).to_contain_text("agent 응답 없음", timeout=WAIT_MS)
        expect(why).to_contain_text("연결 거부됨")
        expect(why).to_contain_text("에이전트의 주소는 dashboard.agent_url에서 설정합니다")
        expect(why.locator("code")).to_have_text("systemctl status edge-agent")
    finally:
        plant.agent.start()
