"""The same pages from a database: at the edge, and as a remote sees it, without an agent."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.rig import Dashboard, Plant, until
from tests.integration.plc_database import Cluster

ROWS_TIMEOUT_MS = 15_000
MINUTE_TIMEOUT_MS = 190_000


@dataclass
class Site:
    """A plant whose agent writes into a database too, and dashboards that read it."""

    plant: Plant
    cluster: Cluster
    dashboard: Dashboard


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """PostgreSQL, agent, and a dashboard that can show store, edge and remote."""
    folder = tmp_path_factory.mktemp("site")
    with ThreadPoolExecutor(1) as thread:  # Playwright has an event loop in ours
        cluster = thread.submit(Cluster, folder / "postgres").result()
        name = thread.submit(asyncio.run, cluster.fresh()).result()
    plant = Plant(folder)
    agent_dsn, reader_dsn = (cluster.server.dsn(user, name) for user in ("agent", "reader"))
    plant.agent.configure(["[store]", "enabled = true", "[postgres]", f'dsn = "{agent_dsn}"'])
    config = (
        f'[dashboard]\nsource = "edge"\nedge_dsn = "{reader_dsn}"\nremote_dsn = "{reader_dsn}"\n'
        "[store]\nenabled = true\n"
    )
    agent_url = f"http://127.0.0.1:{plant.agent.port}"
    options = ["--data-dir", str(plant.agent.data_dir), "--agent-url", agent_url]
    plant.dashboard = Dashboard(folder / "dashboard", options, config=config)
    with plant.running():
        yield Site(plant, cluster, plant.dashboard)
    cluster.server.stop()


def test_chart_and_rows_come_from_the_database(site: Site, open_page: OpenPage) -> None:
    """Live values from the agent, history from plc_raw, with the rights of a viewer."""
    page = open_page(f"{site.dashboard.url}detail/?site=A1&device=PUMP01&tag=PRESS&range=1h")
    until(page, "performance.getEntriesByName('chart').length > 0")
    expect(page.locator("plc-rows tbody tr:not(.space)").first).to_contain_text("7.0")
    assert site.dashboard.get("api/rows?site=A1&device=PUMP01&tag=PRESS&limit=5")["rows"]


def test_the_source_is_chosen_on_the_page(site: Site, open_page: OpenPage) -> None:
    """All that are set; the choice stands in the URL and goes along to a device."""
    page = open_page(site.dashboard.url)
    choice = page.get_by_role("combobox", name="데이터 출처")
    expect(choice.get_by_role("option")).to_have_text(["엣지 DB", "원격 DB", "내장 저장소"])
    choice.select_option("store")
    page.wait_for_url(re.compile("source=store"))
    expect(page.locator('[data-device="PUMP01"] .gauge .value')).to_have_text("7.0")
    page.locator('[data-device="PUMP01"]').click(position={"x": 60, "y": 60})
    page.wait_for_url(re.compile("/detail/.*source=store"))
    until(page, "performance.getEntriesByName('chart').length > 0")
    urls = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    charts = [url for url in urls if "/api/chart" in url]
    assert charts
    assert all("source=store" in url for url in charts)


def test_a_remote_without_an_agent(site: Site, open_page: OpenPage) -> None:
    """Cards from the newest rows: values and ages, and no limits, since no map is there."""
    page = open_page(f"{site.dashboard.url}?source=remote")
    card = page.locator('[data-device="보일러01"]')
    # A tag shows when its first minute is rolled up, which the agent does each minute.
    expect(card).to_be_visible(timeout=MINUTE_TIMEOUT_MS)
    expect(card).to_contain_text("55")
    expect(card.locator(".ticks path")).to_have_count(0)
    site.plant.set({3: 612})
    expect(card).to_contain_text("61.2", timeout=ROWS_TIMEOUT_MS)
    site.plant.calm()


def test_the_database_goes_away_and_comes_back(site: Site, open_page: OpenPage) -> None:
    """Live values go on; the chart says what is wrong, and heals by itself."""
    page = open_page(
        f"{site.dashboard.url}detail/?site=A1&device=PUMP01&tag=PRESS&range=24h", errors=True
    )
    until(page, "performance.getEntriesByName('chart').length > 0")
    site.cluster.server.stop(signal.SIGINT)
    page.get_by_role("button", name="7d", exact=True).click()
    note = page.locator("plc-player .note")
    expect(note).to_be_visible(timeout=20_000)
    site.plant.set({0: 75})
    expect(page.locator("plc-about")).to_contain_text("7.5 bar", timeout=8_000)
    site.plant.calm()
    site.cluster.server.start()
    expect(note).to_be_hidden(timeout=30_000)
