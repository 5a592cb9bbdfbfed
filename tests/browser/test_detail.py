"""A device's page in a browser: chart, tags, range, figures, rows, downloads."""

from __future__ import annotations

import csv
import io
import json
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from edge_agent.clock import HOUR_MS
from tests.browser.conftest import OpenPage
from tests.browser.rig import Plant, until, wave

PNG_HEAD = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def _calm(plant: Plant) -> None:
    """Every test begins with a plant that is well."""
    plant.calm()


def pump(plant: Plant, *tags: str, more: str = "") -> str:
    """The page of PUMP01."""
    chosen = "".join(f"&tag={tag}" for tag in tags)
    return f"{plant.dashboard.url}detail/?site=A1&device=PUMP01{chosen}{more}"


def wait_for_chart(page: Page) -> None:
    """Until a chart with data is drawn."""
    until(page, "performance.getEntriesByName('chart').length > 0")


def ink(page: Page) -> int:
    """Pixels of the chart that have a colour of a line: something is really drawn."""
    return int(
        page.evaluate(
            """() => {
              const canvas = document.querySelector("plc-player canvas");
              const {width, height} = canvas;
              const data = canvas.getContext("2d").getImageData(0, 0, width, height).data;
              let count = 0;
              for (let i = 0; i < data.length; i += 4) {
                const [r, g, b] = [data[i], data[i + 1], data[i + 2]];
                if (data[i + 3] > 200 && Math.max(r, g, b) - Math.min(r, g, b) > 100) count += 1;
              }
              return count;
            }"""
        )
    )


def test_from_a_card_to_its_chart(plant: Plant, open_page: OpenPage) -> None:
    """A click on a card leads to the device with its main tag drawn, live, over a day."""
    page = open_page(plant.dashboard.url)
    page.locator('[data-device="PUMP01"]').click(position={"x": 60, "y": 60})
    page.wait_for_url(re.compile("/detail/.*device=PUMP01"))
    wait_for_chart(page)
    expect(page.get_by_role("heading", level=1)).to_contain_text("PUMP01")
    expect(page.get_by_role("heading", level=1)).to_contain_text("급수 펌프 압력")
    assert ink(page) > 100
    chip = page.get_by_role("button", name=re.compile("PRESS"))
    expect(chip).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="24h")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("plc-player .plot")).to_have_attribute(
        "aria-label", re.compile(r"PRESS.*평균.*7\.\d")
    )


def test_the_figures_are_the_historys(plant: Plant, open_page: OpenPage) -> None:
    """Average, least and greatest of two hours in the past, as what was written there has them."""
    end_ms = (int(time.time() * 1000) - HOUR_MS // 2) // 60_000 * 60_000
    start_ms = end_ms - 2 * HOUR_MS
    page = open_page(pump(plant, "PRESS", more=f"&from={start_ms}&to={end_ms}"))
    wait_for_chart(page)
    values = [wave(0, ts_ms) for ts_ms in range(start_ms, end_ms, 10_000)]
    figures = page.locator("plc-about dd")
    expect(figures.nth(0)).to_contain_text("7.0 bar")
    expect(figures.nth(1)).to_contain_text(f"{sum(values) / len(values):.1f} bar")
    expect(figures.nth(2)).to_contain_text(f"{min(values):.1f} / {max(values):.1f}")
    expect(figures.nth(3)).to_contain_text("100")


def test_tags_are_chosen_and_stand_in_the_url(plant: Plant, open_page: OpenPage) -> None:
    """A second line, then without the first one; one always stays; a reload shows the same."""
    page = open_page(pump(plant, "PRESS"))
    wait_for_chart(page)
    press = page.get_by_role("button", name=re.compile("^PRESS"))
    temp = page.get_by_role("button", name=re.compile("^TEMP"))
    temp.click()
    expect(temp).to_have_attribute("aria-pressed", "true")
    expect(page.locator("plc-player .plot")).to_have_attribute("aria-label", re.compile("TEMP"))
    press.click()
    temp.click()
    expect(temp).to_have_attribute("aria-pressed", "true")
    expect(page).to_have_url(re.compile(r"[?&]tag=TEMP(&|$)"))
    page.reload()
    wait_for_chart(page)
    expect(press).to_have_attribute("aria-pressed", "false")
    expect(page.locator("plc-rows tbody")).to_contain_text("TEMP")
    expect(page.locator("plc-rows tbody")).not_to_contain_text("PRESS")


def test_ranges(plant: Plant, open_page: OpenPage) -> None:
    """Each of the four, said in the URL; raw samples for an hour, minutes for longer."""
    page = open_page(pump(plant, "PRESS"))
    wait_for_chart(page)
    for name, how in (("1h", "샘플"), ("7d", "집계"), ("30d", "집계"), ("24h", "집계")):
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.locator("plc-player .how")).to_contain_text(how)
        expect(page).to_have_url(re.compile(rf"[?&]range={name}(&|$)"))
    page.go_back()


def test_a_free_range(plant: Plant, open_page: OpenPage) -> None:
    """From and to are typed, and then stand in the URL; LIVE leads back."""
    page = open_page(pump(plant, "PRESS"))
    wait_for_chart(page)
    page.get_by_role("button", name="기간").click()
    fields = page.locator('plc-player input[type="datetime-local"]')
    now_s = time.time() + 9 * 3600  # the browser's zone
    for place, back_s in enumerate((7200, 3600)):
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s - back_s))
        fields.nth(place).fill(stamp)
    page.locator("plc-player .apply").click()
    page.wait_for_url(re.compile("from=.*to="))
    query = parse_qs(urlsplit(page.url).query)
    assert int(query["to"][0]) - int(query["from"][0]) == HOUR_MS
    live = page.get_by_role("button", name="LIVE")
    expect(live).to_have_attribute("aria-pressed", "false")
    live.click()
    expect(live).to_have_attribute("aria-pressed", "true")
    expect(page).to_have_url(re.compile(r"^((?!from=).)*$"))


def test_zoom_by_dragging_and_back(plant: Plant, open_page: OpenPage) -> None:
    """What is dragged over becomes the range; the back button undoes it."""
    page = open_page(pump(plant, "PRESS", more="&range=1h"))
    wait_for_chart(page)
    box = page.locator("plc-player .u-over").bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.5, y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=5)
    page.mouse.move(box["x"] + box["width"] * 0.75, y, steps=5)
    page.mouse.up()
    page.wait_for_url(re.compile("from=.*to="))
    query = parse_qs(urlsplit(page.url).query)
    assert int(query["to"][0]) - int(query["from"][0]) == pytest.approx(HOUR_MS / 4, rel=0.1)
    page.go_back()
    expect(page.get_by_role("button", name="LIVE")).to_have_attribute("aria-pressed", "true")


def test_by_keyboard(plant: Plant, open_page: OpenPage) -> None:
    """Arrow keys move the cursor, and what it is on is said."""
    page = open_page(pump(plant, "PRESS", more="&range=1h"))
    wait_for_chart(page)
    page.locator("plc-player .plot").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("plc-player .player > [aria-live]")).to_contain_text(
        re.compile(r"PRESS.*\d\.\d")
    )
    page.keyboard.press("+")
    page.wait_for_url(re.compile("from=.*to="))


def test_nothing_is_lost_while_react_takes_over(plant: Plant, open_page: OpenPage) -> None:
    """It stops keys and clicks on what it has not reached yet; here it never gets there."""
    page = open_page("about:blank")
    page.add_init_script(
        """for (const type of ["keydown", "pointerdown", "mousedown", "click"])
          document.addEventListener(type, (event) => event.stopPropagation(), true);"""
    )
    page.goto(pump(plant, "PRESS", more="&range=1h"))
    wait_for_chart(page)
    page.locator("plc-player .plot").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("+")
    page.wait_for_url(re.compile("from=.*to="))
    page.get_by_role("button", name="LIVE").click()
    page.wait_for_url(re.compile("^((?!from=).)*$"))


def test_rows_are_live(plant: Plant, open_page: OpenPage) -> None:
    """What the PLC has next stands on top within seconds, red if it is beyond a limit."""
    page = open_page(pump(plant, "PRESS"))
    rows = page.locator("plc-rows tbody tr:not(.space)")
    expect(rows.first).to_contain_text("7.0")
    plant.set({0: 123})
    expect(rows.first).to_contain_text("12.3", timeout=6000)
    red = rows.first.locator("td").last.evaluate("cell => getComputedStyle(cell).color")
    assert red != page.evaluate("getComputedStyle(document.body).color")


def test_csv(plant: Plant, open_page: OpenPage, tmp_path: Path) -> None:
    """The file has what the chart shows, in a form that Excel opens, with the Korean name."""
    end_ms = (int(time.time() * 1000) - HOUR_MS // 2) // 60_000 * 60_000
    start_ms = end_ms - HOUR_MS
    url = (
        f"{plant.dashboard.url}detail/?site=A1&device=보일러01&tag=수위&from={start_ms}&to={end_ms}"
    )
    page = open_page(url)
    wait_for_chart(page)
    with page.expect_download() as waiting:
        page.get_by_role("link", name="CSV").click()
    path = tmp_path / "download.csv"
    waiting.value.save_as(path)
    assert "보일러01" in waiting.value.suggested_filename
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert len(rows) == HOUR_MS // 10_000
    assert {row["tag"] for row in rows} == {"수위"}
    assert [float(row["value"]) for row in rows] == [
        wave(3, ts_ms) for ts_ms in range(start_ms, end_ms, 10_000)
    ]


def test_png(plant: Plant, open_page: OpenPage, tmp_path: Path) -> None:
    """A picture of the chart."""
    page = open_page(pump(plant, "PRESS"))
    wait_for_chart(page)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="PNG").click()
    path = tmp_path / "chart.png"
    waiting.value.save_as(path)
    content = path.read_bytes()
    assert content.startswith(PNG_HEAD)
    assert len(content) > 5_000


def test_an_unknown_device(plant: Plant, open_page: OpenPage) -> None:
    """A sentence, and a way home."""
    page = open_page(f"{plant.dashboard.url}detail/?site=A1&device=NOBODY&tag=X")
    expect(page.locator("plc-player .note")).to_contain_text("NOBODY")
    page.locator("plc-player .note").get_by_role("link").click()
    page.wait_for_url(plant.dashboard.url)


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("chart?site=A1&device=PUMP01&tag=PRESS&from=10&to=5", "from"),
        ("chart?site=A1&device=PUMP01&tag=PRESS&from=x&to=5", "from"),
        ("chart?site=A1&device=PUMP01&from=0&to=5", "tag"),
        ("chart?site=A1&device=PUMP01&tag=PRESS&from=0&to=5&source=moon", "moon"),
        ("rows?site=A1&device=PUMP01&tag=PRESS&limit=0", "limit"),
        ("rows?site=A1&device=PUMP01&tag=PRESS&limit=100000", "limit"),
        ("export.csv?site=A1&device=PUMP01&tag=PRESS&from=9&to=5", "from"),
        ("snapshot?source=moon", "moon"),
    ],
)
def test_wrong_questions_get_an_answer(plant: Plant, question: str, said: str) -> None:
    """400 with what is wrong and what is allowed, never a traceback."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{plant.dashboard.url}api/{question}", timeout=10)
    assert caught.value.code == 400
    body = json.load(caught.value)
    assert said in body["error"]
