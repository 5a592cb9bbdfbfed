"""The server as a process: what the wheel brings, what it needs, how it starts and ends."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from dashboard.serve import STOP_TIMEOUT_S
from tests.browser.conftest import OpenPage
from tests.browser.rig import Dashboard, Plant
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parents[2]
PROGRAM = str(Path(sys.executable).with_name("edge-dashboard"))
INSTALL_TIMEOUT_S = 600
PAGES = ("/", "/detail/", "/system/", "/dashboard.css", "/elements/main.js", "/favicon.svg")


def run(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command, which is expected to end by itself."""
    return subprocess.run(
        [PROGRAM, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**os.environ, **environ},
    )


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[Dashboard]:
    """A server without agent and store."""
    options = ["--data-dir", str(tmp_path / "data"), "--agent-url", "http://127.0.0.1:9"]
    with Dashboard(tmp_path, options) as started:
        yield started


@pytest.fixture(scope="session")
def clean_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what it asks for, in the locked versions."""
    folder = tmp_path_factory.mktemp("clean")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True, timeout=INSTALL_TIMEOUT_S)
    (wheel,) = folder.glob("*.whl")
    locked = re.findall(r"(?m)^[\w.\[\]-]+==[^ \\]+(?: ; [^\\\n]*)?", lock())
    (folder / "constraints.txt").write_text("\n".join(locked))
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True, timeout=120)
    own_pip = [str(folder / "venv" / "bin" / "pip"), "--disable-pip-version-check", "--quiet"]
    install = [*own_pip, "install", "-c", str(folder / "constraints.txt"), str(wheel)]
    subprocess.run(install, check=True, timeout=INSTALL_TIMEOUT_S)
    return folder / "venv"


def lock() -> str:
    """The lock file."""
    return (ROOT / "requirements.lock").read_text()


def files_of(folder: Path) -> dict[str, int]:
    """Every file with the time of its last change."""
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.skipif(os.getuid() != 0, reason="a network namespace needs root")
def test_the_wheel_serves_all_pages_without_node_and_network(
    clean_environment: Path, tmp_path: Path
) -> None:
    """A clean environment, an empty PATH, no network but loopback, a home that stays empty."""
    home, empty = tmp_path / "home", tmp_path / "empty"
    home.mkdir()
    empty.mkdir()
    program = clean_environment / "bin" / "edge-dashboard"
    port = free_port()
    (package,) = clean_environment.glob("lib/python3*/site-packages/dashboard")
    before = files_of(package)
    command = [
        *("/usr/bin/unshare", "--net", "/bin/sh", "-c", '/usr/sbin/ip link set lo up; exec "$@"'),
        *("sh", str(program), "--port", str(port), "--data-dir", str(tmp_path / "data")),
    ]
    environ = {"PATH": str(empty), "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as server:
        try:
            network = Path(f"/proc/{server.pid}/ns/net")
            ours = Path("/proc/self/ns/net").readlink()
            wait_until(lambda: network.readlink() != ours, "a network of its own")
            ask = (
                "import sys, time, http.client\n"
                "def get(path):\n"
                f"    c = http.client.HTTPConnection('127.0.0.1', {port}, timeout=5)\n"
                "    c.request('GET', path, headers={'Accept': 'text/html'})\n"
                "    a = c.getresponse()\n"
                "    return a.status, len(a.read())\n"
                "for _ in range(450):\n"
                "    try: get('/healthz'); break\n"
                "    except OSError: time.sleep(0.1)\n"
                f"print([get(path)[0] for path in {PAGES!r}], get('/')[1] > 3000)\n"
            )
            inside = ["/usr/bin/nsenter", "-t", str(server.pid), "--net", sys.executable, "-c", ask]
            told = subprocess.run(inside, capture_output=True, text=True, timeout=90, check=False)
            assert told.stdout.strip() == f"{[200] * len(PAGES)} True", told.stderr
        finally:
            server.send_signal(signal.SIGTERM)
            _, errors = server.communicate(timeout=20)
    assert server.returncode == 0, errors
    assert "Traceback" not in errors
    assert files_of(package) == before
    assert not list(home.rglob("*"))


def test_no_request_leaves_the_host(plant: Plant, open_page: OpenPage) -> None:
    """Every request of every page goes to where the page came from."""
    requests: list[str] = []
    page = open_page("about:blank")
    page.on("request", lambda request: requests.append(request.url))
    page.on("websocket", lambda socket: requests.append(socket.url.replace("ws:", "http:")))
    for path in ("", "detail/?site=A1&device=PUMP01", "system/"):
        page.goto(f"{plant.dashboard.url}{path}")
        page.wait_for_timeout(1500)
    assert len(requests) > 30
    foreign = [
        url for url in requests if not url.startswith((plant.dashboard.url, "data:", "blob:"))
    ]
    assert not foreign


def test_pages_are_kept_by_browsers(dashboard: Dashboard) -> None:
    """Names with a hash for a year; all else is asked for again and answered in short."""
    connection = http.client.HTTPConnection("127.0.0.1", dashboard.port, timeout=5)

    def get(path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer, answer.read()

    answer, body = get("/")
    assert answer.headers["Cache-Control"] == "no-cache"
    again, nothing = get("/", **{"If-None-Match": answer.headers["ETag"]})
    assert (again.status, nothing) == (304, b"")
    (asset, *_) = re.findall(rb"/assets/[\w.-]+\.js", body)
    answer, plain = get(asset.decode())
    assert "immutable" in answer.headers["Cache-Control"]
    answer, packed = get(asset.decode(), **{"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(packed) < len(plain)
    for path in ("/nothing", "/../pyproject.toml", "/assets/../../backend/stateful_pages.json"):
        assert get(path)[0].status == 404
    connection.request("POST", "/", headers={"Origin": dashboard.url.rstrip("/")})
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 405
    assert get("/detail")[0].headers["Location"] == "/detail/"
    connection.close()


def test_it_ends_at_once_whatever_is_open(dashboard: Dashboard) -> None:
    """A browser that listens does not hold it up; the exit code is 0, and nothing is complained."""
    process = dashboard._process
    assert process is not None
    with urllib.request.urlopen(f"{dashboard.url}api/events", timeout=20) as stream:
        assert stream.readline() == b"event: snapshot\n"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        stream.read()  # it ends by itself
        assert process.wait(20) == 0
        assert time.monotonic() - began < STOP_TIMEOUT_S + 2
    log = (dashboard.folder / "server.log").read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log


def test_it_ends_at_once_with_pages_open(dashboard: Dashboard, open_page: OpenPage) -> None:
    """Nor do browsers with their websockets; and no traceback is left behind."""
    pages = [open_page(dashboard.url, errors=True) for _ in range(3)]
    for page in pages:
        expect(page.get_by_text("장치가 없습니다")).to_be_visible()
        page.wait_for_timeout(700)  # the websocket is up
    process = dashboard._process
    assert process is not None
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert time.monotonic() - began < STOP_TIMEOUT_S + 2
    assert "Traceback" not in (dashboard.folder / "server.log").read_text()


def test_it_is_one_process(dashboard: Dashboard) -> None:
    """No worker, no helper, no Node."""
    children = Path(f"/proc/{dashboard.pid}/task/{dashboard.pid}/children").read_text()
    assert children == ""


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    """One line with what to do, exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("--port", str(taken.getsockname()[1]), "--data-dir", str(tmp_path))
    assert done.returncode == 1
    assert "can't listen on 127.0.0.1" in done.stderr
    assert "hint: another one may be running" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", "seven"), "1 to 65535"),
        (("--port", "70000"), "1 to 65535"),
        (("--source", "moon"), "remote"),
        (("--source", "edge"), "edge_dsn"),
        (("--host", "a b"), "host"),
        (("--agent-url", "ftp://x"), "http://"),
        (("--config", "/nowhere.toml"), "/nowhere.toml"),
    ],
)
def test_wrong_settings_are_said(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """What, where, what is allowed; exit code 2."""
    done = run(*words, "--data-dir", str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_certificate_that_is_not_there(tmp_path: Path) -> None:
    """Named, with exit code 2."""
    (tmp_path / "x.toml").write_text('[dashboard]\ncert_file = "a.crt"\nkey_file = "a.key"\n')
    done = run("--config", str(tmp_path / "x.toml"), "--data-dir", str(tmp_path))
    assert done.returncode == 2
    assert "a.crt" in done.stderr


def test_tls(tmp_path: Path, open_page: OpenPage) -> None:
    """With a certificate it speaks https, and a page works over it."""
    certificate = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    where = ["-keyout", str(tmp_path / "a.key"), "-out", str(tmp_path / "a.crt")]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*certificate, *where, *subject], check=True, capture_output=True)
    config = f'[dashboard]\ncert_file = "{tmp_path}/a.crt"\nkey_file = "{tmp_path}/a.key"\n'
    options = ["--data-dir", str(tmp_path / "data"), "--agent-url", "http://127.0.0.1:9"]

    class Secure(Dashboard):
        def ready(self) -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

    with Secure(tmp_path, options, config=config) as secure:
        url = secure.url.replace("http:", "https:")
        page = open_page(url, errors=True, ignore_https_errors=True)
        expect(page.get_by_text("장치가 없습니다")).to_be_visible()
        page.close()
