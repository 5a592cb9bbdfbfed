"""What axe-core finds on each page, in both themes: nothing serious."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests import npm
from tests.browser.conftest import OpenPage
from tests.browser.rig import Plant, until

HERE = Path(__file__).parent
GRAVE = {"serious", "critical"}
THEMES = pytest.mark.parametrize("theme", ["light", "dark"])


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's script, from npm by the committed lock."""
    return (npm.install(HERE) / "axe-core" / "axe.min.js").read_text()


def complaints(page: Page, axe: str) -> list[str]:
    """Serious and critical findings, with the elements that they are about."""
    # Through the debugger, since the page's own policy forbids foreign scripts.
    page.evaluate(axe)
    found: dict[str, Any] = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['impact']} {one['id']}: {node['html'][:150]} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in GRAVE
        for node in one["nodes"]
    ]


@THEMES
@pytest.mark.parametrize("alarmed", [False, True], ids=["calm", "alarm"])
def test_home(plant: Plant, open_page: OpenPage, axe: str, theme: str, alarmed: bool) -> None:
    """With a plant that is well, and with one that is not."""
    plant.calm()
    page = open_page(plant.dashboard.url, color_scheme=theme)
    expect(page.locator("article.card")).to_have_count(3)
    if alarmed:
        plant.set({4: 113, 1: 950})
        expect(page.locator('[data-state="alarm"].card')).to_have_count(2, timeout=6000)
    assert not complaints(page, axe)
    plant.calm()


@THEMES
def test_detail(plant: Plant, open_page: OpenPage, axe: str, theme: str) -> None:
    """With a chart of two tags."""
    url = f"{plant.dashboard.url}detail/?site=A1&device=PUMP01&tag=PRESS&tag=TEMP"
    page = open_page(url, color_scheme=theme)
    until(page, "performance.getEntriesByName('chart').length > 0")
    assert not complaints(page, axe)


@THEMES
def test_system(plant: Plant, open_page: OpenPage, axe: str, theme: str) -> None:
    """With everything well."""
    page = open_page(f"{plant.dashboard.url}system/", color_scheme=theme)
    expect(page.get_by_role("table").first).to_be_visible()
    assert not complaints(page, axe)


def test_axe_would_complain(plant: Plant, open_page: OpenPage, axe: str) -> None:
    """The silence above means something: an image without a text is found."""
    page = open_page(plant.dashboard.url)
    react = "Object.keys(document.querySelector('main')).some(key => key.startsWith('__react'))"
    until(page, react)  # it would take a foreign image out again
    page.evaluate("document.querySelector('main').append(new Image())")
    assert any("image-alt" in complaint for complaint in complaints(page, axe))


def test_reduced_motion(plant: Plant, open_page: OpenPage) -> None:
    """Who asks for less motion gets none: no transition on gauges or cards."""
    durations = (
        "[...document.querySelectorAll('.fill, .thumb')]"
        ".map(e => getComputedStyle(e).transitionDuration)"
    )
    for wish, moves in (("reduce", False), ("no-preference", True)):
        page = open_page(plant.dashboard.url, reduced_motion=wish)
        expect(page.locator("article.card")).to_have_count(3)
        found = set(page.evaluate(durations))
        assert (found != {"0s"}) is moves
