"""What axe-core finds on each page, in both themes: nothing serious."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Page, expect

from edge_agent.address_map.writer import to_csv
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


@THEMES
def test_map(plant: Plant, open_page: OpenPage, axe: str, theme: str) -> None:
    """With problems, with a plan, with what was applied, and with a question; then as before."""
    url = f"{plant.dashboard.url}map/"
    page = open_page(url, color_scheme=theme, locale="en-US", errors=True)
    first = plant.map_path.read_bytes()
    *others, last = plant.tags
    other = to_csv([*others, replace(last, hi=99.0), replace(last, device="TANK08")])
    expect(page.locator("#versions tbody tr").first).to_be_visible()

    def see(kind: str) -> None:
        expect(page.locator(f'.outcome[data-kind="{kind}"]')).to_be_visible()
        assert not complaints(page, axe)

    def choose(data: bytes) -> None:
        one = FilePayload(name="new.csv", mimeType="text/csv", buffer=data)
        page.locator("input[type=file]").set_input_files(one)

    choose(first.replace(b"INT16", b"INT17"))
    see("wrong")
    choose(other)
    see("plan")
    page.get_by_role("button", name="Apply", exact=True).click()
    expect(page.locator('.outcome [data-device="TANK08"]')).to_be_visible()
    see("applied")
    page.get_by_role("button", name="Go back to version").first.click()
    see("plan")
    page.locator(".outcome .primary").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert not complaints(page, axe)
    page.get_by_role("dialog").get_by_role("button", name="Go back").click()
    see("applied")
    assert plant.map_path.read_bytes() == first
    plant.map_path.write_bytes(first.replace(b"INT16", b"INT17"))
    expect(page.locator(".running .problems")).to_be_visible()
    assert not complaints(page, axe)
    plant.map_path.write_bytes(first)
    expect(page.locator(".running .problems")).to_be_hidden()


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
