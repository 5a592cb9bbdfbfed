"""The system page in a browser: where is the data, and what is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.rig import Plant
from tests.servers import Mosquitto

HEAL_MS = 15_000


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A plant whose agent also delivers to a broker, which the test starts and stops."""
    folder = tmp_path_factory.mktemp("system")
    made = Plant(folder)
    broker = Mosquitto(folder / "mosquitto")
    made.agent.configure(["[store]", "enabled = true", "[mqtt]", f'url = "{broker.url}"'])
    with broker, made.running():
        made.broker = broker  # type: ignore[attr-defined]
        yield made


def test_the_pipeline(plant: Plant, open_page: OpenPage) -> None:
    """From the home page by its link: PLC, journal and both sinks with rates; nothing lost."""
    page = open_page(plant.dashboard.url)
    page.get_by_role("link", name="시스템").click()
    page.wait_for_url(re.compile("/system/"))
    main = page.locator("main")
    expect(main).to_contain_text("모두 정상입니다", timeout=HEAL_MS)
    expect(main).to_contain_text(plant.plc.conn)
    for sink in ("mqtt", "store"):
        expect(main).to_contain_text(sink)
    expect(main).to_contain_text(re.compile(r"12/초|1[0-9]/초"), timeout=HEAL_MS)
    expect(page.get_by_role("table")).not_to_have_count(0)


def test_a_broker_goes_away(plant: Plant, open_page: OpenPage) -> None:
    """The sink is named with its error and its backlog grows; then it is well again."""
    page = open_page(f"{plant.dashboard.url}system/", locale="en-US")
    main = page.locator("main")
    expect(main).to_contain_text("All is well", timeout=HEAL_MS)
    broker = plant.broker  # type: ignore[attr-defined]
    broker.stop()
    expect(main).to_contain_text("Data stops at mqtt", timeout=HEAL_MS)
    broker.start()
    expect(main).to_contain_text("All is well", timeout=40_000)


def test_the_agent_goes_away(plant: Plant, open_page: OpenPage) -> None:
    """The last picture stays, and the page says what to do."""
    page = open_page(f"{plant.dashboard.url}system/", locale="en-US")
    main = page.locator("main")
    expect(main).to_contain_text("All is well", timeout=HEAL_MS)
    plant.agent.stop()
    expect(main).to_contain_text("systemctl status edge-agent", timeout=HEAL_MS)
    expect(main).to_contain_text(plant.plc.conn)
    plant.agent.start()
    expect(main).to_contain_text("All is well", timeout=HEAL_MS)


def test_the_api_behind_it(plant: Plant) -> None:
    """Agent, losses and what the source says of itself; replication only where it is set up."""
    told = plant.dashboard.get("api/system")
    assert told["source"] == "store"
    assert told["agent"]["journal"]["taken"] > 0
    assert told["losses"] == {"losses": []}
    assert told["replication"] is None
    assert any(check["check"].endswith("_bytes") for check in told["health"]["checks"])
