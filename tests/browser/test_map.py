"""The page of the address map in a browser, in front of a real agent: nothing is simulated."""

from __future__ import annotations

import hashlib
import http.client
import io
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import openpyxl
import pytest
from playwright.sync_api import FileChooser, FilePayload, Page, expect

from edge_agent import address_map
from edge_agent.address_map.writer import to_csv
from edge_agent.control_client import ControlClient
from edge_agent.model import Tag
from tests.browser.conftest import OpenPage
from tests.browser.rig import Dashboard, Plant, tag
from tests.browser.test_users import PASSWORD, user
from tests.servers import wait_until

SOON_MS = 5_000
"""From the click to the card, as the product promises it."""


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A plant of this module's own: its map changes."""
    made = Plant(tmp_path_factory.mktemp("map"))
    with made.running():
        yield made


@pytest.fixture(autouse=True)
def _same_map(plant: Plant) -> None:
    """Every test begins with the same map in the file and running."""
    control(plant).post("/map", to_csv(plant.tags))


def control(plant: Plant) -> ControlClient:
    """The agent's own interface, past the dashboard."""
    return ControlClient(plant.agent.data_dir)


def running_hash(plant: Plant) -> str:
    """Of the map that runs."""
    return str(control(plant).get("/map")["sha256"])


def version_of(plant: Plant) -> int:
    """The number of the map that runs."""
    return int(control(plant).get("/map")["version"])


def other_map(plant: Plant) -> bytes:
    """A new device and a new tag, another limit, and TANK07 is gone."""
    conn = plant.plc.conn
    first, *rest = plant.tags[:-1]
    new = (tag("FAN04", "VIB", 6, unit="mm/s", conn=conn), tag("PUMP01", "FLOW", 7, conn=conn))
    return to_csv([replace(first, hi=11.0), *rest, *new])


def wrong_map(plant: Plant) -> bytes:
    """Line 2 has an unknown type, lines 4 and 6 a period that is too short."""
    lines = to_csv(plant.tags).split(b"\n")
    lines[1] = lines[1].replace(b"INT16", b"INT17")
    for number in (4, 6):
        lines[number - 1] = lines[number - 1].replace(b",500,", b",7,")
    return b"\n".join(lines)


def workbook(tags: Sequence[Tag]) -> bytes:
    """The same map as Excel has it."""
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    for line in to_csv(tags).decode("utf-8-sig").splitlines():
        sheet.append(line.split(","))
    held = io.BytesIO()
    book.save(held)
    return held.getvalue()


def file(data: bytes, name: str = "new.csv") -> FilePayload:
    """A file as a browser is given one."""
    return {"name": name, "mimeType": "text/csv", "buffer": data}


def choose(page: Page, data: bytes, name: str = "new.csv") -> None:
    """Choose a file by the button."""
    button = page.get_by_role("button", name=re.compile("파일 선택|Choose a file"))
    choose_by(page, button.click, data, name)


def choose_by(page: Page, act: Callable[[], None], data: bytes, name: str = "new.csv") -> None:
    """Do what opens the chooser, and choose a file in it."""
    choosers: list[FileChooser] = []

    def came(chooser: FileChooser) -> None:
        choosers.append(chooser)

    page.on("filechooser", came)
    page.wait_for_timeout(100)  # until the browser hands choosers over, of which nobody tells us
    act()
    deadline = time.monotonic() + 15
    while not choosers:
        assert time.monotonic() < deadline, "no file chooser"
        page.wait_for_timeout(20)
    page.remove_listener("filechooser", came)
    choosers[0].set_files(file(data, name))


def outcome(page: Page, kind: str) -> None:
    """Wait until the last choice has come to this."""
    expect(page.locator(f'.outcome[data-kind="{kind}"]')).to_be_visible()


@pytest.fixture
def map_page(plant: Plant, open_page: OpenPage) -> Page:
    """The page, from the home page by its link, in English."""
    page = open_page(plant.dashboard.url, locale="en-US")
    page.get_by_role("link", name="Address map").click()
    page.wait_for_url(re.compile("/map/"))
    expect(page.get_by_role("heading", name="The running map")).to_be_visible()
    return page


def test_a_map_is_planned_applied_and_on_the_home_page(
    plant: Plant, open_page: OpenPage, map_page: Page
) -> None:
    """What it changes is shown first; then the file is the upload, and the card is there in 5 s."""
    page, data = map_page, other_map(plant)
    home = open_page(plant.dashboard.url)
    expect(home.locator("article.card")).to_have_count(3)
    before = plant.map_path.read_bytes()
    choose(page, data)
    outcome(page, "plan")
    shown = page.locator(".outcome")
    for sentence in (
        "Tags added 2", "A1/FAN04/VIB", "A1/PUMP01/FLOW",
        "Tags changed 1", "A1/PUMP01/PRESS", "hi: 12 → 11",
        "Tags removed 1", "B2/TANK07/LEVEL",
        "Connections changed, without closing them 1", plant.plc.conn,
        "Series begun 2", "Series ended (what is stored of them stays) 1",
    ):  # fmt: skip
        expect(shown).to_contain_text(sentence)
    load = page.locator("table.load")
    expect(load.get_by_role("row", name="Tags")).to_have_text("Tags67")
    expect(load.get_by_role("row", name="Verdict")).to_have_text("VerdictFitsFits")
    assert plant.map_path.read_bytes() == before, "a plan changes nothing"
    version = version_of(plant)
    started = time.monotonic()
    page.get_by_role("button", name="Apply", exact=True).click()
    expect(home.locator('[data-device="FAN04"]')).to_be_visible(timeout=SOON_MS)
    print(f"on the home page {time.monotonic() - started:.1f} s after the click")
    outcome(page, "applied")
    assert plant.map_path.read_bytes() == data
    expect(shown).to_contain_text(f"Applied: version {version + 1}")
    expect(shown).to_contain_text("2 added, 1 changed, 1 removed")
    expect(shown.locator('[data-device="FAN04"]')).to_contain_text("VIB 0.0 mm/s")
    expect(shown.locator("article.card")).to_have_count(2)
    row = page.locator(f'tr[data-version="{version + 1}"]')
    expect(row).to_contain_text("+2 ~1 −1")
    expect(row).to_contain_text("upload")
    expect(row).to_contain_text("running")
    expect(row).to_contain_text("dashboard")
    shown.get_by_role("link", name="See the home page").click()
    expect(page.locator('[data-device="FAN04"]')).to_be_visible()
    expect(page.locator('[data-device="TANK07"]')).to_have_count(0)


def test_a_wrong_map_is_shown_with_every_place(plant: Plant, open_page: OpenPage) -> None:
    """Line, column, value and what is allowed; the file's own lines around; nothing changes."""
    page = open_page(f"{plant.dashboard.url}map/", locale="en-US", errors=True)
    before, version = plant.map_path.stat(), version_of(plant)
    choose(page, wrong_map(plant), "broken.csv")
    outcome(page, "wrong")
    rows = page.locator("#upload-problems tbody tr:not(.excerpt)")
    expect(rows).to_have_count(3)
    places = [row.locator("th, td").all_text_contents()[:3] for row in rows.all()]
    assert places == [["2", "type", "INT17"], ["4", "period_ms", "7"], ["6", "period_ms", "7"]]
    expect(rows.first).to_contain_text("write INT16")
    expect(rows.last).to_contain_text("allowed: a whole number of milliseconds from 200")
    excerpts = page.locator("#upload-problems .excerpt")
    expect(excerpts.locator("mark")).to_have_text(["INT17", "7", "7"])
    expect(excerpts.nth(1).locator("b")).to_have_text(["3", "4", "5"])
    expect(excerpts.nth(1).locator("p").nth(1)).to_contain_text("A1,L1,PUMP01,RUN,modbus")
    expect(page.locator(".outcome")).to_contain_text("Nothing has changed")
    expect(page.get_by_role("button", name="Apply", exact=True)).to_have_count(0)
    assert (plant.map_path.stat(), version_of(plant)) == (before, version)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".outcome")).to_be_hidden()


def test_problems_are_korean_on_the_korean_page(plant: Plant, open_page: OpenPage) -> None:
    """Each problem's sentence follows the page's language, at once; places and values stay."""
    page = open_page(f"{plant.dashboard.url}map/", errors=True)
    choose(page, wrong_map(plant), "틀린 맵.csv")
    outcome(page, "wrong")
    rows = page.locator("#upload-problems tbody tr:not(.excerpt)")
    expect(rows).to_have_count(3)
    korean = "200보다 작습니다. 허용: 200~86400000의 정수(밀리초)"
    expect(rows.last.locator("th, td")).to_have_text(["6", "period_ms", "7", korean])
    expect(rows.first).to_contain_text("알 수 없는 데이터 형식입니다. 이렇게 쓰세요: INT16")
    page.get_by_role("button", name="English로 보기").click()
    expect(rows.last).to_contain_text("below 200; allowed: a whole number of milliseconds")
    page.get_by_role("button", name="한국어로 보기").click()
    expect(rows.last).to_contain_text(korean)


def test_a_wrong_file_is_told_in_korean(plant: Plant, open_page: OpenPage) -> None:
    """Why the file on the disk is not what runs: in one sentence, and each problem of it."""
    page = open_page(f"{plant.dashboard.url}map/", errors=True)
    plant.map_path.write_bytes(wrong_map(plant))
    trouble = page.locator(".running .problems")
    expect(trouble.locator("p").first).to_contain_text(
        f"{plant.map_path}: 2행, type 열, 'INT17': 알 수 없는 데이터 형식입니다."
    )
    expect(trouble.locator("p").first).to_contain_text("(외 2건: edge-agent check --map ")
    expect(trouble.locator("tbody tr").last).to_contain_text("200보다 작습니다")
    page.get_by_role("button", name="English로 보기").click()
    expect(trouble.locator("p").first).to_contain_text("not a type; write INT16")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "empty"),
        (b"PK\x03\x04 no zip", "xlsx"),
        (bytes(range(256)) * 9, "the file is not UTF-8"),
        (b"a,b,c\n1,2,3\n", "first line must name the columns"),
    ],
    ids=["empty", "no workbook", "garbage", "other columns"],
)
def test_what_is_no_map(plant: Plant, open_page: OpenPage, data: bytes, sentence: str) -> None:
    """Is told as a problem of the whole file, however strange it is."""
    page = open_page(f"{plant.dashboard.url}map/", locale="en-US", errors=True)
    choose(page, data, "strange.csv")
    outcome(page, "wrong")
    expect(page.locator("#upload-problems")).to_contain_text(sentence)


def test_a_cp949_file_is_shown_as_it_reads(plant: Plant, open_page: OpenPage) -> None:
    """Excel in Korea writes it."""
    page = open_page(f"{plant.dashboard.url}map/", errors=True)
    text = wrong_map(plant).decode("utf-8-sig").replace("°C", "도")
    choose(page, text.encode("cp949"))
    outcome(page, "wrong")
    expect(page.locator(".excerpt").nth(2)).to_contain_text("보일러01,증기압력")


def test_a_workbook_by_dropping_it(plant: Plant, map_page: Page) -> None:
    """An .xlsx that is dropped on the page; what lies on the disk then is the workbook."""
    data = workbook(plant.tags[:-1])
    transfer = map_page.evaluate_handle(
        """(bytes) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "plant.xlsx"));
          return transfer;
        }""",
        list(data),
    )
    for kind in ("dragover", "drop"):
        map_page.dispatch_event(".drop", kind, {"dataTransfer": transfer})
    outcome(map_page, "plan")
    expect(map_page.locator(".outcome")).to_contain_text("What applying plant.xlsx does")
    expect(map_page.locator(".outcome")).to_contain_text("Tags removed 1")
    map_page.get_by_role("button", name="Apply", exact=True).click()
    outcome(map_page, "applied")
    assert plant.map_path.read_bytes() == data
    with map_page.expect_download() as download:
        map_page.get_by_role("link", name="Download the running map").click()
    assert download.value.suggested_filename == "address_map.xlsx"
    assert download.value.path().read_bytes() == data


def test_downloads_are_the_files_to_the_byte(plant: Plant, map_page: Page) -> None:
    """The running map and every version."""
    first, version = plant.map_path.read_bytes(), version_of(plant)
    second = other_map(plant).replace(b"\n", b"\r\n")
    control(plant).post("/map", second)
    for name, file_name, data in (
        (f"Download version {version}", f"address_map-{version}.csv", first),
        (f"Download version {version + 1}", f"address_map-{version + 1}.csv", second),
        ("Download the running map", "address_map.csv", second),
    ):
        link = map_page.get_by_role("link", name=name, exact=True)
        expect(link).to_be_visible()
        with map_page.expect_download() as download:
            link.click()
        assert download.value.suggested_filename == file_name
        assert download.value.path().read_bytes() == data
    shown = map_page.locator(".running")
    expect(shown).to_contain_text(hashlib.sha256(second).hexdigest()[:12])
    expect(shown).to_contain_text(str(plant.map_path))


def test_back_to_an_older_version(plant: Plant, map_page: Page) -> None:
    """First what it changes, then a question that Escape declines, then the file as it was."""
    page, first, version = map_page, plant.map_path.read_bytes(), version_of(plant)
    control(plant).post("/map", other_map(plant))
    row = page.locator(f'tr[data-version="{version}"]')
    row.get_by_role("button", name=f"Go back to version {version}: preview").click()
    outcome(page, "plan")
    expect(page.locator(".outcome")).to_contain_text("Tags removed 2")
    expect(page.locator(".outcome")).to_contain_text("Tags added 1")
    apply = page.locator(".outcome").get_by_role("button", name=f"Go back to version {version}")
    apply.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Go back to version {version}?")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert version_of(plant) == version + 1
    apply.click()
    dialog.get_by_role("button", name="Go back").click()
    outcome(page, "applied")
    assert plant.map_path.read_bytes() == first
    newest = page.locator(f'tr[data-version="{version + 2}"]')
    expect(newest).to_contain_text(f"back to {version}")
    expect(newest).to_contain_text("+1 ~1 −2")
    expect(page.locator(".outcome article.card")).to_have_count(1)


def test_another_map_comes_in_between(plant: Plant, map_page: Page) -> None:
    """The plan is no longer true: the page says so by itself, and compares anew."""
    page = map_page
    choose(page, other_map(plant))
    outcome(page, "plan")
    edited = to_csv(plant.tags[1:])
    plant.map_path.write_bytes(edited)
    expect(page.locator(".outcome")).to_contain_text("The address map has been changed meanwhile")
    expect(page.get_by_role("button", name="Apply", exact=True)).to_have_count(0)
    assert plant.map_path.read_bytes() == edited
    page.get_by_role("button", name="Compare again").click()
    outcome(page, "plan")
    expect(page.locator(".outcome")).to_contain_text("Tags added 3")
    page.get_by_role("button", name="Apply", exact=True).click()
    outcome(page, "applied")
    assert plant.map_path.read_bytes() == other_map(plant)


@pytest.mark.parametrize("way", ["upload", "rollback"])
def test_the_other_map_comes_at_the_last_moment(
    plant: Plant, open_page: OpenPage, way: str
) -> None:
    """The page does not know yet: the agent refuses, and nothing is lost of the other's work."""
    first = version_of(plant)
    control(plant).post("/map", to_csv(plant.tags[:-1]))
    page = open_page(f"{plant.dashboard.url}map/", locale="en-US", errors=True)
    expect(page.locator(f'tr[data-version="{first}"]')).to_be_visible()
    page.route("**/api/map?known=*", lambda _: None)  # it learns nothing more
    if way == "upload":
        choose(page, other_map(plant))
    else:
        page.get_by_role("button", name=f"Go back to version {first}: preview").click()
    outcome(page, "plan")
    control(plant).post("/map", to_csv(plant.tags[1:]))
    others = plant.map_path.read_bytes()
    page.locator(".outcome .primary").click()
    if way == "rollback":
        page.get_by_role("dialog").get_by_role("button", name="Go back").click()
    expect(page.locator(".outcome")).to_contain_text("The address map has been changed meanwhile")
    assert plant.map_path.read_bytes() == others


def test_the_same_map_again(plant: Plant, map_page: Page) -> None:
    """There is nothing to apply."""
    choose(map_page, plant.map_path.read_bytes())
    outcome(map_page, "plan")
    expect(map_page.locator(".outcome")).to_contain_text("This map was running already")
    expect(map_page.get_by_role("button", name="Apply", exact=True)).to_have_count(0)


def test_a_wrong_file_on_the_disk_is_told_on_every_page(plant: Plant, open_page: OpenPage) -> None:
    """Banner, system page and this page; what runs goes on; a map from here puts it right."""
    data = wrong_map(plant)
    plant.map_path.write_bytes(data)
    sentence = "Data flows, but the address map in the file is not the one that runs"
    page = open_page(plant.dashboard.url, locale="en-US")
    for path in ("", "detail/?site=A1&device=PUMP01&tag=PRESS", "map/"):
        page.goto(f"{plant.dashboard.url}{path}")
        banner = page.locator(".banner")
        expect(banner).to_be_visible()
        expect(banner).to_contain_text(sentence)
        expect(banner).to_contain_text("line 2, column type, 'INT17'")
    page.goto(plant.dashboard.url)
    expect(page.locator("article.card")).to_have_count(3)
    page.goto(f"{plant.dashboard.url}system/")
    expect(page.locator("plc-system .head")).to_contain_text(sentence)
    expect(page.locator("plc-system .problems")).to_contain_text("the address map in the file")
    page.goto(f"{plant.dashboard.url}map/")
    trouble = page.locator(".running .problems")
    expect(trouble).to_contain_text("The map in the file is not the one that runs")
    expect(trouble.locator("tbody tr")).to_have_count(3)
    expect(trouble.locator("tbody tr").nth(1)).to_contain_text("4period_ms7")
    assert plant.map_path.read_bytes() == data
    choose(page, other_map(plant))
    page.get_by_role("button", name="Apply", exact=True).click()
    outcome(page, "applied")
    expect(trouble).to_be_hidden()
    expect(page.locator(".banner")).to_be_hidden()
    assert plant.map_path.read_bytes() == other_map(plant)


def test_an_impossible_map_asks_first(plant: Plant, map_page: Page) -> None:
    """It may be applied, but not by one click."""
    slow = f"{plant.plc.conn}?pause_ms=300"
    data = to_csv([replace(one, conn=slow, period_ms=200) for one in plant.tags])
    choose(map_page, data)
    outcome(map_page, "plan")
    expect(map_page.locator("table.load")).to_contain_text("Impossible")
    expect(map_page.locator(".outcome")).to_contain_text("can't be kept up with")
    map_page.get_by_role("button", name="Apply", exact=True).click()
    dialog = map_page.get_by_role("dialog")
    expect(dialog).to_contain_text("Apply it all the same?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert plant.map_path.read_bytes() != data


def test_by_keyboard(plant: Plant, open_page: OpenPage) -> None:
    """Choosing, reading, applying and going back without a pointer; the focus goes along."""
    page = open_page(f"{plant.dashboard.url}map/")
    version = version_of(plant)
    expect(page.locator(f'tr[data-version="{version}"]')).to_be_visible()

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            label = "e => e.getAttribute('aria-label') ?? e.textContent.trim()"
            if page.locator(":focus").evaluate(label) == name:
                return
        raise AssertionError(f"{name} was not reached by the tab key")

    tab_to("파일 선택")
    choose_by(page, lambda: page.keyboard.press("Enter"), other_map(plant))
    outcome(page, "plan")
    expect(page.locator(".outcome")).to_be_focused()
    tab_to("적용")
    page.keyboard.press("Enter")
    outcome(page, "applied")
    expect(page.locator(".outcome")).to_be_focused()
    expect(page.locator(f'tr[data-version="{version + 1}"]')).to_be_visible()
    tab_to(f"되돌리기(먼저 보기): 버전 {version}")
    page.keyboard.press("Enter")
    outcome(page, "plan")
    tab_to(f"되돌리기: 버전 {version}")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_role("button", name="취소").last).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    outcome(page, "applied")
    wait_until(lambda: version_of(plant) == version + 2, "the older version", 5.0)


@pytest.mark.parametrize("locale", ["ko-KR", "en-US"])
def test_a_narrow_screen(plant: Plant, open_page: OpenPage, locale: str) -> None:
    """Nothing sticks out: neither problems, nor a plan, nor the versions, nor the menu."""
    phone = {"width": 390, "height": 844}
    url = f"{plant.dashboard.url}map/"
    page = open_page(url, locale=locale, viewport=phone, errors=True)
    expect(page.get_by_role("link", name=re.compile("^(맵|Map)$"))).to_be_visible()
    for data, kind in ((wrong_map(plant), "wrong"), (other_map(plant), "plan")):
        choose(page, data)
        outcome(page, kind)
        assert page.evaluate("document.documentElement.scrollWidth") == phone["width"]
        assert page.locator(".top plc-search").evaluate("e => e.clientWidth") > 60
    apply = page.locator(".outcome .primary")
    apply.scroll_into_view_if_needed()
    apply.click()
    outcome(page, "applied")


def test_the_agent_goes_away(plant: Plant, open_page: OpenPage) -> None:
    """The page says where it looked and what to do, and goes on by itself."""
    page = open_page(f"{plant.dashboard.url}map/", locale="en-US", errors=True)
    expect(page.get_by_role("button", name="Choose a file")).to_be_visible()
    plant.agent.stop()
    try:
        away = page.locator(".away")
        expect(away).to_contain_text(f"no agent runs on {plant.agent.data_dir}")
        expect(away).to_contain_text("systemctl status edge-agent")
        expect(page.get_by_role("button", name="Choose a file")).to_be_hidden()
    finally:
        plant.agent.start()
    expect(away).to_be_hidden()
    expect(page.get_by_role("button", name="Choose a file")).to_be_visible()


def test_refusals_are_korean_on_the_korean_page(plant: Plant, open_page: OpenPage) -> None:
    """The reason, and what to do, with the command in it as a command."""
    page = open_page(f"{plant.dashboard.url}map/", errors=True)
    expect(page.get_by_role("button", name="파일 선택")).to_be_visible()
    plant.agent.stop()
    try:
        away = page.locator(".away")
        expect(away).to_contain_text(f"실행 중인 에이전트가 없습니다: {plant.agent.data_dir}")
        expect(away.locator(".hint")).to_contain_text("같은 데이터 폴더를 지정해야 합니다")
        expect(away.locator(".hint code")).to_have_text("systemctl status edge-agent")
        page.get_by_role("button", name="English로 보기").click()
        expect(away).to_contain_text(f"no agent runs on {plant.agent.data_dir}")
    finally:
        plant.agent.start()
    expect(away).to_be_hidden()


def test_a_file_that_can_not_be_written(plant: Plant, open_page: OpenPage, tmp_path: Path) -> None:
    """The agent's reason is shown with its hint, and the plan can be tried again."""
    lost = tmp_path / "gone"
    page = open_page(f"{plant.dashboard.url}map/", locale="en-US", errors=True)
    choose(page, other_map(plant))
    outcome(page, "plan")
    plant.map_path.rename(lost)
    plant.map_path.mkdir()  # even root can't rename a file over a folder
    try:
        page.get_by_role("button", name="Apply", exact=True).click()
        outcome(page, "failed")
        expect(page.locator(".outcome")).to_contain_text("can't be written")
        expect(page.locator(".outcome")).to_contain_text("the right to write the file")
        expect(page.locator(".outcome code")).to_have_count(0)
    finally:
        plant.map_path.rmdir()
        lost.rename(plant.map_path)
    page.get_by_role("button", name="Try again").click()
    outcome(page, "plan")


@pytest.fixture(scope="module")
def guarded(plant: Plant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """Another dashboard of the same plant, with an admin and a viewer."""
    folder = tmp_path_factory.mktemp("guarded")
    for name, role in (("kim", "admin"), ("lee", "viewer")):
        done = user(folder, "add", name, "--role", role, "--password-file", "-")
        assert done.returncode == 0, done.stderr
    agent_url = f"http://127.0.0.1:{plant.agent.port}"
    options = ["--data-dir", str(plant.agent.data_dir), "--agent-url", agent_url]
    config = f'[dashboard]\nusers_file = "{folder}/users"\n'
    with Dashboard(folder, options, config=config) as dashboard:
        yield dashboard


def sign_in(page: Page, name: str) -> None:
    """Through the form."""
    page.locator("input[name=name]").fill(name)
    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button").first.click()
    expect(page.locator(".who")).to_have_text(name)


def test_a_viewer_has_no_link_and_no_way_in(guarded: Dashboard, open_page: OpenPage) -> None:
    """The menu lacks it, the page says whom it is for, and every route answers 403."""
    page = open_page(guarded.url, locale="en-US", errors=True)
    sign_in(page, "lee")
    expect(page.get_by_role("link", name="System")).to_be_visible()
    expect(page.locator('a[href="/map/"]')).to_have_count(0)
    page.goto(f"{guarded.url}map/")
    expect(page.locator(".away")).to_contain_text("This page is for admins")
    expect(page.get_by_role("button", name="Choose a file")).to_be_hidden()
    expect(page.locator("#versions")).to_be_hidden()
    statuses = page.evaluate(
        """async () => {
          const type = (kind) => ({ "Content-Type": kind, "If-Match": "x" });
          const asked = [
            ["GET", ""], ["GET", "/file"], ["GET", "/versions/1"], ["GET", "/versions/1/plan"],
            ["POST", "", "application/octet-stream"], ["POST", "/plan", "application/octet-stream"],
            ["POST", "/versions/1/rollback", "application/json"],
          ];
          return Promise.all(asked.map(async ([method, path, kind]) => {
            const body = kind ? { body: "x", headers: type(kind) } : {};
            return (await fetch(`/api/map${path}`, { method, ...body })).status;
          }));
        }"""
    )
    assert statuses == [403] * 7


def test_the_menu_on_a_narrow_screen(guarded: Dashboard, open_page: OpenPage) -> None:
    """Who is signed in as admin has the most in it: there is still room to search."""
    page = open_page(guarded.url, locale="en-US", viewport={"width": 390, "height": 700})
    page.locator("input[name=name]").fill("kim")
    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button").first.click()
    expect(page.get_by_role("link", name="Map")).to_be_visible()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator(".top plc-search").evaluate("e => e.clientWidth") > 200


def test_an_admin_is_named_in_the_versions(
    plant: Plant, guarded: Dashboard, open_page: OpenPage
) -> None:
    """Who signed in is who did it."""
    page = open_page(guarded.url, locale="en-US")
    sign_in(page, "kim")
    page.get_by_role("link", name="Address map").click()
    choose(page, other_map(plant))
    outcome(page, "plan")
    page.get_by_role("button", name="Apply", exact=True).click()
    outcome(page, "applied")
    row = page.locator(f'tr[data-version="{version_of(plant)}"]')
    expect(row).to_contain_text("kim (dashboard)")


@pytest.mark.parametrize("path", ["/api/map", "/api/map/plan", "/api/map/versions/1/rollback"])
@pytest.mark.parametrize("origin", [None, "http://evil.example", "null"])
def test_no_other_site_reaches_it(plant: Plant, path: str, origin: str | None) -> None:
    """On the real server, where everybody on loopback is an admin."""
    before = running_hash(plant)
    connection = http.client.HTTPConnection("127.0.0.1", plant.dashboard.port, timeout=10)
    headers = {"Content-Type": "application/octet-stream", "If-Match": before}
    if path.endswith("rollback"):
        headers["Content-Type"] = "application/json"
    connection.request(
        "POST", path, other_map(plant), headers | ({"Origin": origin} if origin else {})
    )
    assert connection.getresponse().status == 403
    connection.close()
    assert running_hash(plant) == before


def test_a_file_beyond_all_bounds(plant: Plant) -> None:
    """Is refused by its length alone, and the server works on."""
    connection = http.client.HTTPConnection("127.0.0.1", plant.dashboard.port, timeout=10)
    origin = plant.dashboard.url.rstrip("/")
    connection.putrequest("POST", "/api/map/plan")
    connection.putheader("Origin", origin)
    connection.putheader("Content-Type", "application/octet-stream")
    connection.putheader("Content-Length", str(address_map.FILE_BYTES_MAX + 1))
    connection.endheaders(b"site")
    assert connection.getresponse().status == 413
    connection.close()
    assert plant.dashboard.get("api/map")["sha256"] == running_hash(plant)
