"""The routes below /api/map: who may, from where, with what, and what they say of what the agent
refuses. The agent's own side is real in tests/browser/test_map.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from dashboard import map_routes
from dashboard.auth.guard import EVERYBODY
from dashboard.auth.users import User
from dashboard.maps import LISTED_MAX, Maps, file_name, in_short
from edge_agent.control_client import RefusedMapError
from edge_agent.errors import ConfigError, TransientError
from tests.dashboard_house import ORIGIN, House, cookie_of, furnish

BYTES = {"content-type": "application/octet-stream"}
JSON = {"content-type": "application/json"}
OVER = {"if-match": "abc"}
PLAN: dict[str, Any] = {
    "rows": {"added": [], "changed": [], "removed": []},
    "connections": {"kept": [], "changed": [], "begun": [], "ended": []},
    "series_begun": [],
    "series_ended": [],
    "before": {},
    "after": {},
    "sha256": "def",
    "over": "abc",
}
ROUTES = [
    ("GET", "/api/map"),
    ("POST", "/api/map"),
    ("GET", "/api/map/file"),
    ("POST", "/api/map/plan"),
    ("GET", "/api/map/versions/1"),
    ("GET", "/api/map/versions/1/plan"),
    ("POST", "/api/map/versions/1/rollback"),
]
POSTS = [route for method, route in ROUTES if method == "POST"]


@dataclass
class Desk:
    """Takes the place of the agent's socket: notes what it is asked, answers what it is told."""

    asked: list[tuple[str, bytes, dict[str, str], str]] = field(default_factory=list)
    error: Exception | None = None
    author: str = ""
    trouble: str | None = None
    problems: list[dict[str, Any]] = field(default_factory=list)

    def client(self, _: Path, *, author: str = "") -> Any:
        """As `ControlClient`; one at a time."""
        self.author = author
        return self

    def get(self, route: str) -> dict[str, Any]:
        """The running map."""
        self._note(route)
        return {
            "path": "/data/우리 맵.csv",
            "error": self.trouble and f"/data/우리 맵.csv: {self.trouble}",
            "problems": self.problems,
            "versions": [{"version": 1}, {"version": 2}],
        }

    def get_bytes(self, route: str) -> bytes:
        """A file."""
        self._note(route)
        return b"PK" if route.endswith("2") else b"site"

    def post(self, route: str, body: bytes = b"", *, headers: Any = None) -> dict[str, Any]:
        """A plan, or what was applied."""
        self._note(route, bytes(body), headers)
        return PLAN if route == "/map/plan" else {"changed": True, "summary": "-", "version": 3}

    def _note(self, route: str, body: bytes = b"", headers: Any = None) -> None:
        self.asked.append((route, body, headers or {}, self.author))
        if self.error is not None:
            raise self.error


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def maps(desk: Desk, tmp_path: Path) -> Maps:
    return Maps(tmp_path, desk.client)


@pytest.fixture
def house(maps: Maps, tmp_path: Path) -> House:
    """The routes behind the guard, with an admin and two viewers."""
    made = furnish(tmp_path / "users")
    made.app = Starlette(routes=map_routes.map_routes(maps))
    return made


async def admin_of(house: House) -> httpx.AsyncClient:
    """An admin's browser on a page of ours."""
    client = await house.signed_in("kim")
    client.headers.update(ORIGIN)
    return client


@pytest.mark.parametrize(("method", "route"), ROUTES)
@pytest.mark.parametrize(("name", "status"), [("lee", 403), ("", 401)])
async def test_for_admins_only(
    house: House, desk: Desk, method: str, route: str, name: str, status: int
) -> None:
    """A viewer and a stranger learn nothing, and nothing reaches the agent."""
    client = await house.signed_in(name) if name else house.client()
    headers = {**ORIGIN, **BYTES, **OVER}
    answer = await client.request(method, route, headers=headers, content=b"x" * (method != "GET"))
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    assert not desk.asked


async def test_without_a_guard_nobody_is_an_admin(maps: Maps, desk: Desk) -> None:
    """The routes refuse by themselves what comes without a user."""
    transport = httpx.ASGITransport(Starlette(routes=map_routes.map_routes(maps)))
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        assert (await client.get("/api/map")).status_code == 403
    assert not desk.asked


@pytest.mark.parametrize("route", POSTS)
@pytest.mark.parametrize(
    "origin",
    [
        {},
        {"origin": "http://evil.example"},
        {"origin": "http://edge.local:9090"},
        {"origin": "null"},
        {**ORIGIN, "sec-fetch-site": "cross-site"},
        {**ORIGIN, "sec-fetch-site": "same-site"},
    ],
    ids=["none", "another", "another port", "null", "cross-site", "same-site"],
)
async def test_no_other_site_changes_the_map(
    house: House, desk: Desk, route: str, origin: dict[str, str]
) -> None:
    """With an admin's cookie and all the right headers."""
    client = await house.signed_in("kim")
    kind = JSON if route.endswith("rollback") else BYTES
    answer = await client.post(route, content=b"site", headers={**kind, **OVER, **origin})
    assert answer.status_code == 403
    assert not desk.asked


@pytest.mark.parametrize("route", POSTS)
@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""],
)
async def test_what_a_form_can_send_is_not_taken(
    house: House, desk: Desk, route: str, kind: str
) -> None:
    """The second line of defence: such types are sent by foreign pages without being asked."""
    client = await admin_of(house)
    answer = await client.post(route, content=b"site", headers={"content-type": kind, **OVER})
    assert answer.status_code == 415
    assert "allowed: application/" in answer.json()["error"]
    assert not desk.asked


async def test_a_map_is_planned_and_applied_as_it_came(house: House, desk: Desk) -> None:
    """The bytes, over which map, and who: the signed-in user."""
    client = await admin_of(house)
    data = bytes(range(256)) * 99
    planned = await client.post("/api/map/plan", content=data, headers=BYTES)
    assert planned.json()["over"] == "abc"
    done = await client.post("/api/map", content=data, headers={**BYTES, "if-match": '"abc"'})
    assert done.json()["version"] == 3
    back = await client.post("/api/map/versions/1/rollback", headers={**JSON, **OVER})
    assert back.status_code == 200
    over, who = {"If-Match": "abc"}, "kim (dashboard)"
    assert desk.asked == [
        ("/map/plan", data, {}, ""),
        ("/map", data, over, who),
        ("/map/rollback/1", b"", over, who),
    ]


async def test_nothing_is_applied_that_was_not_compared(house: House, desk: Desk) -> None:
    """Without the hash that a plan was made over: 428."""
    client = await admin_of(house)
    for route, kind in (("/api/map", BYTES), ("/api/map/versions/1/rollback", JSON)):
        answer = await client.post(route, content=b"{}", headers=kind)
        assert answer.status_code == 428
        assert "plan" in answer.json()["hint"]
    assert not desk.asked


async def test_everybody_on_loopback(maps: Maps, desk: Desk, tmp_path: Path) -> None:
    """Is admin, and stands in the versions as the dashboard."""
    house = House(tmp_path / "none")
    house.app = Starlette(routes=map_routes.map_routes(maps))
    client = house.client(base="http://localhost:8501")
    headers = {**BYTES, **OVER, "origin": "http://localhost:8501"}
    assert (await client.post("/api/map", content=b"site", headers=headers)).status_code == 200
    assert [author for *_, author in desk.asked] == ["dashboard"]


@pytest.mark.parametrize("route", ["/api/map", "/api/map/plan"])
async def test_a_file_that_is_too_large_is_not_read(
    house: House, desk: Desk, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that says so nor one that does not: reading ends at the bound."""
    monkeypatch.setattr(map_routes, "FILE_BYTES_MAX", 1000)
    client = await admin_of(house)
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 100
            yield bytes(100)

    headers = {**BYTES, **OVER}
    said = await client.post(route, content=pieces(), headers={**headers, "content-length": "1001"})
    assert (said.status_code, sent) == (413, 0)
    unsaid = await client.post(route, content=pieces(), headers=headers)
    assert (unsaid.status_code, sent) == (413, 1100)
    assert "1,000 bytes" in unsaid.json()["error"]
    assert not desk.asked
    fits = await client.post(route, content=bytes(1000), headers=headers)
    assert fits.status_code == 200


async def test_a_file_that_never_ends(
    house: House, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holds nobody up for long."""
    monkeypatch.setattr(map_routes, "BODY_TIMEOUT_S", 0.05)
    client = await admin_of(house)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"site"
        await asyncio.Event().wait()

    answer = await client.post("/api/map/plan", content=pieces(), headers=BYTES)
    assert answer.status_code == 408
    assert not desk.asked


async def test_one_file_at_a_time_is_in_memory(house: House, maps: Maps) -> None:
    """The second one stays where it is until the first is done with."""
    client = await admin_of(house)
    begun = False

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal begun
        begun = True
        yield b"site"

    async with maps.uploading:
        asking = asyncio.create_task(client.post("/api/map/plan", content=pieces(), headers=BYTES))
        await asyncio.wait([asking], timeout=0.05)
        assert not begun
    assert (await asking).status_code == 200


async def test_problems_of_a_map(house: House, desk: Desk) -> None:
    """All that the agent tells, by line, those of the whole file first; how many there are."""
    lines = [7, None, 3, 3]
    problems = [
        {"line": line, "column": f"c{place}", "value": "", "message": "m"}
        for place, line in enumerate(lines)
    ]
    text = "map.csv: 5,000 problems\n  line 7 ..."
    desk.error = RefusedMapError(text, problems, count=5000)
    client = await admin_of(house)
    answer = await client.post("/api/map/plan", content=b"site", headers=BYTES)
    told = answer.json()
    assert answer.status_code == 422
    assert [one["column"] for one in told["problems"]] == ["c1", "c2", "c3", "c0"]
    assert (told["error"], told["count"]) == ("map.csv: 5,000 problems", 5000)


async def test_problems_are_told_in_korean_too(house: House, desk: Desk) -> None:
    """Of an upload and of the file that is not taken; English alone where there is no Korean."""
    known = {"line": 2, "column": "period_ms", "value": "x", "message": "not a whole number"}
    theirs = {"line": 3, "column": "conn", "value": "x", "message": "expected a rack"}
    desk.trouble = "line 2, column period_ms, 'x': not a whole number (and 1 more: the command)"
    desk.problems = [known, theirs]
    client = await admin_of(house)
    state = (await client.get("/api/map")).json()
    assert state["problems"] == [
        {**known, "message_ko": "정수가 아닙니다"},
        {**theirs, "message_ko": None},
    ]
    where = "/data/우리 맵.csv: 2행, period_ms 열, 'x'"
    assert state["error_ko"] == f"{where}: 정수가 아닙니다 (외 1건: the command)"
    desk.error = RefusedMapError("map.csv: 2 problems", [known, theirs])
    told = (await client.post("/api/map/plan", content=b"site", headers=BYTES)).json()
    assert told["problems"] == state["problems"]


async def test_refusals_are_told_in_korean_too(house: House, desk: Desk) -> None:
    """What the agent refuses, what the dashboard refuses by itself, and what is known to nobody."""
    client = await admin_of(house)
    desk.error = RefusedMapError(
        "another map has been applied meanwhile",
        [],
        hint="look at the difference to the running one again",
    )
    told = (await client.post("/api/map", content=b"site", headers={**BYTES, **OVER})).json()
    assert told["error_ko"] == "그 사이 다른 맵이 적용되었습니다"
    assert told["hint_ko"] == "실행 중인 맵과 다시 비교하세요"
    told = (await client.post("/api/map", content=b"site", headers=BYTES)).json()
    assert (told["error_ko"], told["error"]) == ("If-Match 헤더가 없습니다", "If-Match is missing")
    desk.error = TransientError("no agent runs on /data", hint="start it")
    told = (await client.get("/api/map")).json()
    assert told["error_ko"] == "실행 중인 에이전트가 없습니다: /data"
    assert told["hint_ko"].startswith("systemctl status edge-agent; 대시보드는")
    desk.error = TransientError("the moon is full", hint="")
    told = (await client.get("/api/map")).json()
    assert (told["error_ko"], told["hint_ko"]) == (None, None)
    viewer = await house.signed_in("lee")
    told = (await viewer.get("/api/map")).json()
    assert told["error_ko"] == "주소 맵은 admin 역할의 사용자만 보고 바꿀 수 있습니다"


@pytest.mark.parametrize(
    ("error", "status", "hint"),
    [
        (RefusedMapError("another map has been applied", [], hint="look"), 409, "look"),
        (TransientError("no agent runs on /data", hint="start it"), 503, "agent.data_dir"),
        (TransientError("/etc/m.csv: can't be written", hint="the right"), 503, "the right"),
        (ConfigError("control.sock: Permission denied", hint="-"), 503, "as the agent's user"),
    ],
)
async def test_what_the_agent_refuses(
    house: House, desk: Desk, error: Exception, status: int, hint: str
) -> None:
    """As the agent says it, with what to do about it here."""
    desk.error = error
    client = await admin_of(house)
    answer = await client.post("/api/map", content=b"site", headers={**BYTES, **OVER})
    assert answer.status_code == status
    assert answer.json()["error"] == str(error)
    assert hint in answer.json()["hint"]


@pytest.mark.parametrize("number", ["x", "-1", "1.0", "٣", "1" * 10, "1" * 5000, "%2e%2e"])
async def test_a_version_is_a_number(house: House, desk: Desk, number: str) -> None:
    """Whatever else is asked for does not reach the agent."""
    client = await admin_of(house)
    assert (await client.get(f"/api/map/versions/{number}")).status_code == 400
    assert (await client.get(f"/api/map?known={number}")).status_code == 400
    assert not desk.asked


async def test_versions_are_told_once(house: House) -> None:
    """Newest first, and not again to who knows the newest."""
    client = await admin_of(house)
    told = (await client.get("/api/map")).json()
    assert [one["version"] for one in told["versions"]] == [2, 1]
    assert (await client.get("/api/map?known=2")).json()["versions"] is None
    assert (await client.get("/api/map?known=1")).json()["versions"]


@pytest.mark.parametrize(
    ("route", "name"),
    [
        ("/api/map/file", "%EC%9A%B0%EB%A6%AC%20%EB%A7%B5.csv"),
        ("/api/map/versions/2", "%EC%9A%B0%EB%A6%AC%20%EB%A7%B5-2.xlsx"),
    ],
)
async def test_downloads_have_names(house: House, route: str, name: str) -> None:
    """Of the map's own, its version and what the file is; a browser saves and never shows it."""
    client = await admin_of(house)
    answer = await client.get(route)
    assert answer.headers["content-disposition"] == f"attachment; filename*=UTF-8''{name}"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_workbook_is_told_by_its_bytes() -> None:
    """The agent asks for no name either."""
    assert file_name("/data/a.b.csv", None, b"PK\x03\x04") == "a.b.xlsx"
    assert file_name("/data/map.xlsx", 12, b"site,line") == "map-12.csv"


def test_a_long_plan_in_short() -> None:
    """Counts are those of all rows; names are the first ones, in map order."""
    keys = [f"A/P/{number}" for number in range(LISTED_MAX + 7)]
    plan = {**PLAN, "rows": {**PLAN["rows"], "added": keys}, "series_begun": keys[:3]}
    short = in_short(plan)
    assert short["rows"]["added"] == {"count": LISTED_MAX + 7, "first": keys[:LISTED_MAX]}
    assert short["rows"]["removed"] == {"count": 0, "first": []}
    assert short["series_begun"] == {"count": 3, "first": keys[:3]}
    assert short["over"] == "abc"


async def test_whose_session_a_page_has(house: House, tmp_path: Path) -> None:
    """By it the menu shows the link: none without a session, everybody's where all may look."""
    client = await house.signed_in("kim")
    assert house.guard.user_of(cookie_of(client)) == User("kim", "admin")
    assert house.guard.user_of("") is None
    assert House(tmp_path / "none").guard.user_of("") == EVERYBODY
