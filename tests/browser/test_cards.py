"""The home page with a `dashboard.yaml`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.rig import Plant

CARDS = """version: 1
cards:
  "B2/TANK07":
    title: "Rain water"
  "A1/PUMP01":
    main: "TEMP"
    gauge:
      lo: -20
      hi: 150
"""


@pytest.fixture(scope="module")
def cards_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the dashboard looks for it."""
    return tmp_path_factory.mktemp("cards") / "dashboard.yaml"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory, cards_file: Path) -> Iterator[Plant]:
    """A plant whose cards are arranged by the file."""
    cards_file.write_text(CARDS)
    settings = f'[dashboard]\ncards_file = "{cards_file}"\n'
    made = Plant(tmp_path_factory.mktemp("plant"), dashboard_config=settings)
    with made.running():
        yield made


def test_the_file_arranges_the_cards(plant: Plant, open_page: OpenPage, cards_file: Path) -> None:
    """Order, title, main tag, ends of the gauge; a change shows without a reload."""
    page = open_page(plant.dashboard.url)
    links = page.locator("article.card h2 a")
    expect(links).to_have_text(["Rain water", "PUMP01", "보일러01"])
    pump = page.locator('[data-device="PUMP01"]')
    expect(pump.locator(".gauge .name")).to_contain_text("TEMP")
    expect(pump.locator(".gauge .end")).to_have_text(["-20", "150"])
    expect(page.locator('[data-device="TANK07"] h2 a')).to_have_attribute(
        "href", "/detail/?site=B2&device=TANK07"
    )
    page.keyboard.press("/")
    page.get_by_role("searchbox").fill("rain")
    expect(links).to_have_text(["Rain water"])
    page.get_by_role("searchbox").fill("")
    cards_file.write_text('version: 1\ncards: {"A1/보일러01": {title: Steam}}\n')
    expect(links).to_have_text(["Steam", "PUMP01", "TANK07"])
    expect(pump.locator(".gauge .name")).to_contain_text("PRESS")
