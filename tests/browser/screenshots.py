"""`make screenshots`: every page into docs/images/, light and dark, wide and narrow, in each state.

    home    empty, normal, alarm, broken (the agent is away)
    detail  normal, alarm, broken
    system  normal, alarm (the broker is away), broken
    map     normal, wrong (a file with problems), plan
    login

`python -m tests.browser.screenshots map` takes those alone whose names begin so.

The plant is real: a PLC whose registers are written here, the agent, a broker, a store with a day
of past.
"""

from __future__ import annotations

import math
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Browser, FilePayload, Page, sync_playwright

from edge_agent.address_map.writer import to_csv
from edge_agent.clock import DAY_MS
from edge_agent.model import Tag
from tests.browser.rig import CHROMIUM_FLAGS, Dashboard, Plant, give_past, tag, until
from tests.servers import Mosquitto

IMAGES = Path(__file__).parents[2] / "docs" / "images"
SCREENS = {
    "desktop": {"width": 1440, "height": 900},
    "phone": {"width": 390, "height": 844},
}
THEMES = ("light", "dark")
SETTLE_MS = 2_500
QUALITY = 88
"""Of JPEG: letters are clean, and a picture has a third of what PNG takes for its gradients."""
PASSWORD = "correct horse battery"

TAGS: tuple[Tag, ...] = (
    tag("PUMP01", "PRESS", 0, line="LINE1", hi=8.5, lo=2.0, description="1호 급수 펌프"),
    tag("PUMP01", "TEMP", 1, line="LINE1", unit="°C", hi=80.0),
    tag("PUMP01", "RPM", 2, line="LINE1", unit="", scale=1.0),
    tag("COMP03", "TEMP", 3, line="LINE2", unit="°C", hi=110.0, lo=-20.0, description="압축기 3"),
    tag("COMP03", "LOAD", 4, line="LINE2", unit="%"),
    tag("BOIL01", "PRESS", 5, line="LINE1", hi=14.0, lo=2.0, description="스팀 보일러"),
    tag("BOIL01", "LEVEL", 6, line="LINE1", unit="%", hi=90.0, lo=20.0),
    tag("BOIL01", "O2", 7, line="LINE1", unit="%"),
    tag("MIX02", "TORQ", 8, line="LINE3", unit="N·m", scale=1.0, hi=350.0, description="혼합기 2"),
    tag("MIX02", "SPEED", 9, line="LINE3", unit="rpm", scale=1.0),
    tag("CONV11", "SPEED", 10, line="LINE3", unit="m/s", scale=0.01, hi=2.6, description="벨트"),
    tag("CONV11", "AMP", 11, line="LINE3", unit="A"),
    tag("CHIL01", "OUT", 12, line="LINE2", unit="°C", hi=16.0, lo=-3.0, description="냉동기"),
    tag("CHIL01", "IN", 13, line="LINE2", unit="°C"),
    tag("CHIL01", "POWER", 14, line="LINE2", unit="kW", scale=1.0),
    tag("TANK07", "LEVEL", 15, line="LINE3", unit="%", hi=95.0, lo=5.0, description="원료 탱크 7"),
    tag("TANK07", "TEMP", 16, line="LINE3", unit="°C", scale=1.0),
    tag("FAN04", "VIB", 17, line="LINE1", unit="mm/s", hi=7.0, lo=0.0, description="배기 팬 4"),
    tag("FAN04", "RPM", 18, line="LINE1", unit="", scale=1.0),
)
CALM = {
    0: 63, 1: 710, 2: 1482, 3: 780, 4: 830, 5: 94, 6: 620, 7: 31, 8: 221, 9: 48, 10: 162, 11: 61,
    12: 63, 13: 118, 14: 74, 15: 470, 16: 22, 17: 22, 18: 960,
}  # fmt: skip
ALARM = {0: 89, 3: 1040}
"""Above its limit, and close below it."""


def past(place: int, ts_ms: int) -> float:
    """A day as plants have them: slow waves of different lengths, and a little noise."""
    one = TAGS[place]
    middle = CALM[place] * one.scale
    hours = ts_ms / 3_600_000
    slow = math.sin(hours * 0.9 + place) * 0.06 + math.sin(hours * 5.3 + 2 * place) * 0.025
    noise = (((ts_ms // 10_000) * 40_503 + place * 977) % 65_536 / 65_536 - 0.5) * 0.015
    return round(middle * (1 + slow + noise), 3)


@contextmanager
def showcase(folder: Path) -> Iterator[tuple[Plant, Mosquitto]]:
    """The plant at work."""
    plant = Plant(folder, TAGS, CALM)
    broker = Mosquitto(folder / "mosquitto")
    plant.agent.configure(["[store]", "enabled = true", "[mqtt]", f'url = "{broker.url}"'])
    give_past(plant, past, DAY_MS)
    with broker, plant.running():
        yield plant, broker


class Camera:
    """Takes a page in both themes and widths; of pages whose names begin with ``only``."""

    def __init__(self, browser: Browser, only: str) -> None:
        self._browser = browser
        self._only = only

    def take(
        self, name: str, url: str, ready: Callable[[Page], None], language: str = "ko-KR"
    ) -> None:
        """`{name}-{theme}-{screen}.jpg`, four of them."""
        if not name.startswith(self._only):
            return
        for theme in THEMES:
            for screen, size in SCREENS.items():
                context = self._browser.new_context(
                    viewport=size,  # type: ignore[arg-type]
                    color_scheme=theme,  # type: ignore[arg-type]
                    locale=language,
                    timezone_id="Asia/Seoul",
                )
                page = context.new_page()
                page.goto(url)
                ready(page)
                page.mouse.move(2, 2)
                page.wait_for_timeout(SETTLE_MS)
                path = IMAGES / f"{name}-{theme}-{screen}.jpg"
                page.screenshot(path=path, type="jpeg", quality=QUALITY)
                context.close()
        print(f"docs/images/{name}-*.jpg")


def cards(page: Page) -> None:
    """Cards are there."""
    page.wait_for_selector("article.card")


def chart(page: Page) -> None:
    """The chart is there."""
    until(page, "performance.getEntriesByName('chart').length > 0")


def tables(page: Page) -> None:
    """The tables are there."""
    page.wait_for_selector("plc-system table")


def form(page: Page) -> None:
    """The form is there."""
    page.wait_for_selector("form")


def verdict(page: Page) -> None:
    """The verdict is there."""
    page.wait_for_selector("plc-system strong")


def sentence(page: Page) -> None:
    """The empty page's sentence is there."""
    page.wait_for_selector(".empty h2")


def versions(page: Page) -> None:
    """The versions are there."""
    page.wait_for_selector("#versions tbody tr")


def chosen(data: bytes, kind: str) -> Callable[[Page], None]:
    """A file is chosen, and has come to this."""

    def choose(page: Page) -> None:
        versions(page)
        one = FilePayload(name="address_map.csv", mimeType="text/csv", buffer=data)
        page.locator("input[type=file]").set_input_files(one)
        page.wait_for_selector(f'.outcome[data-kind="{kind}"]')

    return choose


def take_map(camera: Camera, plant: Plant) -> None:
    """The address map's page: as it is, with a file that is wrong, with a plan."""
    url, data = f"{plant.dashboard.url}map/", to_csv(plant.tags)
    *others, last = plant.tags
    new = replace(last, device="FAN05", address="hr:19", description="배기 팬 5")
    other = to_csv([replace(others[0], hi=9.0), *others[1:-1], last, new])
    wrong = data.replace(b"INT16", b"INT17", 1).replace(b"hr:5,", b"hr:5x,")
    camera.take("map-normal", url, versions)
    camera.take("map-wrong", url, chosen(wrong, "wrong"))
    camera.take("map-plan", url, chosen(other, "plan"))


def take_login(camera: Camera, folder: Path) -> None:
    """The login, and the home page of who has no plant yet."""
    users = folder / "users"
    program = str(Path(sys.executable).with_name("edge-dashboard"))
    subprocess.run(
        [program, "user", "add", "kim", "--password-file", "-", "--users-file", str(users)],
        input=PASSWORD, text=True, check=True, capture_output=True,
    )  # fmt: skip
    nobody = ["--data-dir", str(folder / "data"), "--agent-url", "http://127.0.0.1:9"]
    config = f'[dashboard]\nusers_file = "{users}"\n'
    with Dashboard(folder / "guarded", nobody, config=config) as guarded:
        camera.take("login", guarded.url, form)
    with Dashboard(folder / "empty", nobody) as empty:
        camera.take("home-empty", empty.url, sentence)


def main() -> int:
    """Take all of them."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is not installed: tests/install.sh chromium"
    with (
        tempfile.TemporaryDirectory(prefix="screenshots-") as name,
        sync_playwright() as playwright,
    ):
        folder = Path(name)
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_FLAGS))
        camera = Camera(browser, "".join(sys.argv[1:2]))
        take_login(camera, folder)
        with showcase(folder / "plant") as (plant, broker):
            home = plant.dashboard.url
            detail = f"{home}detail/?site=A1&device=PUMP01&tag=PRESS&tag=TEMP&range=24h"
            time.sleep(5)
            camera.take("home-normal", home, cards)
            camera.take("home-english", home, cards, "en-US")
            camera.take("detail-normal", detail, chart)
            camera.take("system-normal", f"{home}system/", tables)
            take_map(camera, plant)
            plant.set(ALARM)
            broker.stop()
            time.sleep(35)  # a warning counts when it has lasted for 30 s
            camera.take("home-alarm", home, cards)
            camera.take("detail-alarm", detail, chart)
            camera.take("system-alarm", f"{home}system/", tables)
            plant.agent.stop(signal.SIGKILL)
            time.sleep(20)
            camera.take("home-broken", home, cards)
            camera.take("detail-broken", detail, chart)
            camera.take("system-broken", f"{home}system/", verdict)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
