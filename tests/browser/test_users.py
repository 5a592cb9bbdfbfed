"""Logging in, in a browser, and everything that is closed without it."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.rig import Dashboard

PASSWORD = "correct horse battery"
PROGRAM = str(Path(sys.executable).with_name("edge-dashboard"))


def user(folder: Path, *words: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    """`edge-dashboard user ...` on this folder's users file."""
    return subprocess.run(
        [PROGRAM, "user", *words, "--users-file", str(folder / "users")],
        input=password,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard with one user, and no plant behind it."""
    folder = tmp_path_factory.mktemp("guarded")
    done = user(folder, "add", "kim", "--role", "admin", "--password-file", "-")
    assert done.returncode == 0, done.stderr
    config = f'[dashboard]\nusers_file = "{folder}/users"\n'
    options = ["--data-dir", str(folder / "data"), "--agent-url", "http://127.0.0.1:9"]
    dashboard = Dashboard(folder, options, config=config)
    dashboard.start()
    yield dashboard
    dashboard.stop()


def test_login_and_logout(guarded: Dashboard, open_page: OpenPage) -> None:
    """A wrong password is said, the right one leads to the page that was asked for."""
    page = open_page(f"{guarded.url}system/", errors=True)
    page.wait_for_url(re.compile("/login"))
    page.locator("input[name=name]").fill("kim")
    page.locator("input[name=password]").fill("wrong password")
    page.get_by_role("button").first.click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.locator("input[name=name]").fill("kim")
    page.locator("input[name=password]").fill(PASSWORD)
    page.get_by_role("button").first.click()
    page.wait_for_url(re.compile("/system/"))
    expect(page.locator(".who")).to_have_text("kim")
    page.get_by_role("button", name="로그아웃").click()
    page.wait_for_url(re.compile("/login"))
    page.goto(guarded.url)
    page.wait_for_url(re.compile("/login"))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/detail/",
        "/system/",
        "/dashboard.css",
        "/elements/main.js",
        "/api/snapshot",
        "/api/events",
        "/api/chart?site=A1&device=P&tag=T&from=0&to=1",
        "/api/rows?site=A1&device=P&tag=T",
        "/api/export.csv?site=A1&device=P&tag=T&from=0&to=1",
        "/api/system",
        "/_event/?EIO=4&transport=polling",
        "/ping",
        "/_health",
        "/_upload",
        "/nothing",
    ],
)
def test_nothing_is_told_without_a_cookie(guarded: Dashboard, path: str) -> None:
    """Every route of the real server: refused, or led to the login."""
    connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status in (303, 401), body
    assert b"sid" not in body
    assert len(body) < 200


def test_no_websocket_without_a_cookie(guarded: Dashboard) -> None:
    """The handshake is refused, with the right Origin and with none."""
    for origin in ({"Origin": guarded.url.rstrip("/")}, {}):
        connection = http.client.HTTPConnection("127.0.0.1", guarded.port, timeout=10)
        headers = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            **origin,
        }
        connection.request("GET", "/_event/?EIO=4&transport=websocket", headers=headers)
        assert connection.getresponse().status in (401, 403)
        connection.close()


def test_a_removed_user_is_out_at_once(
    tmp_path_factory: pytest.TempPathFactory, open_page: OpenPage
) -> None:
    """The open page leads to the login by itself."""
    folder = tmp_path_factory.mktemp("removed")
    for name in ("kim", "lee"):
        assert user(folder, "add", name, "--password-file", "-").returncode == 0
    config = f'[dashboard]\nusers_file = "{folder}/users"\n'
    options = ["--data-dir", str(folder / "data"), "--agent-url", "http://127.0.0.1:9"]
    dashboard = Dashboard(folder, options, config=config)
    dashboard.start()
    try:
        page = open_page(dashboard.url, errors=True)
        page.locator("input[name=name]").fill("lee")
        page.locator("input[name=password]").fill(PASSWORD)
        page.get_by_role("button").first.click()
        expect(page.locator(".who")).to_have_text("lee")
        assert user(folder, "remove", "lee").returncode == 0
        page.wait_for_url(re.compile("/login"), timeout=15_000)
    finally:
        dashboard.stop()


def test_it_does_not_start_for_everybody(tmp_path: Path) -> None:
    """Another address than loopback needs users; the message names the command. Exit code 2."""
    done = subprocess.run(
        [PROGRAM, "--host", "0.0.0.0", "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 2
    assert "edge-dashboard user add" in done.stderr
    assert "Traceback" not in done.stderr
