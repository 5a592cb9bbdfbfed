"""The guard: who gets in, and what is refused, around a small application."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message

from dashboard.auth import sessions
from dashboard.auth.changes import change
from dashboard.auth.headers import DEFAULTS
from dashboard.auth.passwords import PasswordHash
from dashboard.auth.users import Account, Users, load
from tests.dashboard_house import (
    HASHES,
    HTML,
    ORIGIN,
    PASSWORDS,
    House,
    cookie_of,
    furnish,
    sign_in,
)


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A dashboard with an admin and two viewers."""
    return furnish(tmp_path / "users")


@pytest.fixture
def open_house(tmp_path: Path) -> House:
    """A dashboard without users, on loopback."""
    return House(tmp_path / "none")


# Without a cookie


@pytest.mark.parametrize("path", ["/", "/detail/?device=PUMP01&range=1h", "/nothing/here"])
async def test_a_page_leads_to_the_form_and_back(house: House, path: str) -> None:
    """The address that was asked for is where the form leads."""
    answer = await house.client().get(path, headers=HTML)
    assert answer.status_code == 303
    target = httpx.URL(answer.headers["location"])
    assert target.path == "/login"
    assert target.params.get("next", "/") == path
    assert not house.reached


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/api/cards"),
        ("GET", "/api/live"),
        ("GET", "/download/pump.csv"),
        ("GET", "/assets/app.js"),
        ("GET", "/_event/?EIO=4&transport=polling"),
        ("OPTIONS", "/api/cards"),
        ("POST", "/api/save"),
        ("PUT", "/api/save"),
        ("DELETE", "/api/save"),
        ("POST", "/_event/?EIO=4&transport=polling"),
        ("GET", "/ping"),
        ("GET", "/healthz/"),
        ("POST", "/healthz"),
        ("HEAD", "/healthz"),
        ("GET", "/healthz/../api/cards"),
        ("GET", "//healthz"),
        ("GET", "/login/"),
        ("GET", "/login/../api/cards"),
        ("GET", "/LOGIN"),
    ],
)
async def test_nothing_is_answered_without_a_cookie(house: House, method: str, path: str) -> None:
    """API, files, downloads, polling, unknown paths: 401 in JSON; the application is not asked."""
    answer = await house.client().request(method, path, headers=ORIGIN)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/json"
    assert not house.reached


async def test_a_websocket_is_refused_before_it_is_accepted(house: House) -> None:
    """The one message is a close, which a server turns into 403."""
    (message,) = await house.websocket(send=("hello",))
    assert message["type"] == "websocket.close"
    assert message["code"] == 4401
    assert not house.reached


async def test_health_is_open(house: House, open_house: House) -> None:
    """For whoever watches the service, by whatever name."""
    for each in (house, open_house):
        answer = await each.client().get("/healthz")
        assert answer.json() == {"healthy": True}


async def test_lifespan_passes_and_what_is_unknown_does_not(house: House) -> None:
    """The application starts and stops; new kinds of connections are not let in unseen."""
    messages: deque[Message] = deque([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> Message:
        return messages.popleft()

    async def send(message: Message) -> None:
        sent.append(message["type"])

    await house.guard({"type": "lifespan", "state": {}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    await house.guard({"type": "webtransport", "path": "/"}, receive, send)
    assert house.reached == ["lifespan"]


# With a cookie


async def test_a_viewer_sees_everything(house: House) -> None:
    """Page, API, download, a change, the websocket."""
    client = await house.signed_in("lee")
    assert (await client.get("/", headers=HTML)).text == "<h1>lee:viewer</h1>"
    assert (await client.get("/api/cards")).json() == {"role": "viewer"}
    assert (await client.get("/download/pump.csv")).text == "ts,value\n"
    saved = await client.post("/api/save", content="x", headers=ORIGIN)
    assert saved.json() == {"saved": "x"}
    house.parts.extend(["one ", "two"])
    assert (await client.get("/api/live")).text == "one two"
    frames = await house.websocket(cookie_of(client), send=("hello",))
    assert [frame["type"] for frame in frames] == ["websocket.accept", "websocket.send"]
    assert frames[1]["text"] == "lee: hello"


async def test_the_role_is_that_of_the_file(house: House) -> None:
    """An admin is one, also by a name in Hangul and other cookies beside ours."""
    client = await house.signed_in("kim")
    assert (await client.get("/")).text == "<h1>kim:admin</h1>"
    client = await house.signed_in("이영희")
    client.cookies.set("theme", "dark")
    client.cookies.set("another", "a=b")
    assert (await client.get("/")).text == "<h1>이영희:viewer</h1>"


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(house: House) -> None:
    """HttpOnly, SameSite=Strict, this host, 12 hours; Secure and `__Host-` with TLS."""
    answer = await sign_in(house.client(), "lee", PASSWORDS["lee"])
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert cookie.startswith("edge_dashboard_")
    assert sorted(attributes) == ["HttpOnly", "Max-Age=43200", "Path=/", "SameSite=strict"]
    house.tls = True
    house.guard = house.guarded(Users(house.path, monotonic=house.monotonic))
    client = house.client(base="https://edge.local")
    answer = await sign_in(client, "lee", PASSWORDS["lee"])
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert cookie.startswith("__Host-edge_dashboard_")
    assert "Secure" in attributes
    assert not [attribute for attribute in attributes if attribute.startswith("Domain")]
    assert (await client.get("/api/cards")).status_code == 200


async def test_a_session_survives_a_restart(house: House) -> None:
    """Nothing about it is kept in memory."""
    client = await house.signed_in()
    restarted = House(house.path)
    cookie = {"cookie": cookie_of(client)}
    assert (await restarted.client().get("/api/cards", headers=cookie)).status_code == 200


async def test_a_session_ends_after_twelve_hours(house: House) -> None:
    """Whatever the browser does with its cookie."""
    client = await house.signed_in()
    house.sleep(sessions.SESSION_S - 1)
    assert (await client.get("/api/cards")).status_code == 200
    house.sleep(1)
    assert (await client.get("/api/cards")).status_code == 401
    assert (await house.websocket(cookie_of(client)))[0]["code"] == 4401


async def test_a_session_from_the_future_is_none(house: House) -> None:
    """A clock that was wrong when it began must not make it longer; small steps do no harm."""
    client = await house.signed_in()
    house.now_s -= sessions.CLOCK_STEP_S
    assert (await client.get("/api/cards")).status_code == 200
    house.now_s -= 1
    assert (await client.get("/api/cards")).status_code == 401


async def test_a_tampered_cookie_is_refused(house: House) -> None:
    """Any changed character, anything cut off or added, and rubbish."""
    client = await house.signed_in()
    name, value = next(iter(client.cookies.items()))
    changed = [
        value[:place] + ("B" if value[place] == "A" else "A") + value[place + 1 :]
        # The last character has two bits that decode to nothing.
        for place in range(len(value) - 1)
    ]
    forged = [
        *changed,
        value[:-1],
        value + "x",
        "",
        ".",
        "..",
        "é".encode().decode("latin1"),
        "x" * 5_000,
    ]
    for text in forged:
        answer = await house.client().get(
            "/api/cards", headers={b"cookie": f"{name}={text}".encode("latin1")}
        )
        assert answer.status_code == 401, text
        assert (await house.websocket(f"{name}={text}"))[0]["code"] == 4401
    answer = await house.client().get("/api/cards", headers={"cookie": f"other={value}"})
    assert answer.status_code == 401


async def test_another_users_name_is_not_to_be_had(house: House) -> None:
    """A name with another user's fingerprint, or signed under another secret, is refused."""
    file = load(house.path)
    name = sessions.cookie_name(file.secret, tls=False)
    as_kim_by_lee = Account("kim", "admin", HASHES["lee"])
    for secret, account in (
        (file.secret, as_kim_by_lee),
        (b"another secret", file.accounts["kim"]),
        (b"", file.accounts["kim"]),
    ):
        value = sessions.seal(secret, account, house.now_s)
        answer = await house.client().get("/api/cards", headers={"cookie": f"{name}={value}"})
        assert answer.status_code == 401
    value = sessions.seal(file.secret, file.accounts["kim"], house.now_s)
    answer = await house.client().get("/api/cards", headers={"cookie": f"{name}={value}"})
    assert answer.json() == {"role": "admin"}


async def test_another_dashboards_session_is_refused(house: House, tmp_path: Path) -> None:
    """The same user and password elsewhere is not a session here, and both can be open at once."""
    other = tmp_path / "other"
    change(other, lambda file: file.with_account(load(house.path).accounts["kim"]))
    client = await House(other).signed_in("kim")
    answer = await house.client().get("/api/cards", headers={"cookie": cookie_of(client)})
    assert answer.status_code == 401
    mine = cookie_of(await house.signed_in("kim"))
    both = {"cookie": f"{cookie_of(client)}; {mine}"}
    assert (await house.client().get("/api/cards", headers=both)).status_code == 200


async def test_a_removed_user_is_out(house: House) -> None:
    """At the next request a second later; the others stay."""
    lee, kim = await house.signed_in("lee"), await house.signed_in("kim")
    house.remove("lee")
    assert (await lee.get("/api/cards")).status_code == 401
    assert (await house.websocket(cookie_of(lee)))[0]["code"] == 4401
    assert (await kim.get("/api/cards")).status_code == 200


async def test_a_new_password_ends_the_sessions_under_the_old(house: House) -> None:
    """Also when it is the same password again: its salt is new."""
    client = await house.signed_in("lee")
    account = Account("lee", "viewer", PasswordHash.of(PASSWORDS["lee"]))
    change(house.path, lambda file: file.with_account(account))
    house.sleep(1)
    assert (await client.get("/api/cards")).status_code == 401
    assert (await sign_in(client, "lee", PASSWORDS["lee"])).status_code == 303
    assert (await client.get("/api/cards")).status_code == 200


async def test_an_open_websocket_ends_with_its_session(house: House) -> None:
    """At its next message: it is closed, and what was sent is not heard."""
    client = await house.signed_in("lee")
    incoming: deque[Message] = deque(
        [
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": "before"},
            {"type": "remove", "name": "lee"},
            {"type": "websocket.receive", "text": "after"},
            {"type": "websocket.receive", "text": "later"},
        ]
    )
    frames = await house.frames(incoming, cookie_of(client))
    assert [frame["type"] for frame in frames] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
    assert frames[1]["text"] == "lee: before"
    assert frames[2]["code"] == 4401


async def test_an_open_websocket_ends_when_the_role_changes(house: House) -> None:
    """What it was opened as is no longer true; the session itself goes on in the new role."""
    client = await house.signed_in("kim")

    async def pushing(_: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        account = Account("kim", "viewer", HASHES["kim"])
        change(house.path, lambda file: file.with_account(account))
        house.sleep(1)
        await send({"type": "websocket.send", "text": "for admins"})

    app, house.app = house.app, pushing  # type: ignore[assignment]
    frames = await house.websocket(cookie_of(client))
    assert [frame["type"].partition(".")[2] for frame in frames] == ["accept", "close"]
    house.app = app
    assert (await client.get("/api/cards")).json() == {"role": "viewer"}


async def test_nothing_more_is_sent_to_a_websocket_whose_session_is_over(house: House) -> None:
    """A server that pushes is cut off too, without an error of its own."""
    client = await house.signed_in("lee")

    async def pushing(_: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "one"})
        house.remove("lee")
        for _ in range(3):
            await send({"type": "websocket.send", "text": "two"})

    house.app = pushing  # type: ignore[assignment]
    frames = await house.websocket(cookie_of(client))
    assert [frame["type"].partition(".")[2] for frame in frames] == ["accept", "send", "close"]


async def test_an_open_stream_ends_with_its_session(house: House) -> None:
    """No part is sent after the user has been removed."""
    client = await house.signed_in("lee")
    house.parts.extend(["one ", "two ", "remove lee", *["three "] * 1_000])
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    request = client.build_request("GET", "/api/live")
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/live",
        "query_string": b"",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "asgi": {"version": "3.0", "spec_version": "2.3"},
    }
    await house.guard(scope, receive, send)
    assert [message.get("body") for message in sent[1:]] == [b"one ", b"two "]
    assert len(house.parts) >= 999


async def test_an_error_of_the_application_is_not_hidden(house: House) -> None:
    """Only the end of a session is the guard's own business."""
    client = await house.signed_in("lee")

    async def broken(*_: Any) -> None:
        raise ConnectionAbortedError("its own")

    house.app = broken  # type: ignore[assignment]
    with pytest.raises(ConnectionAbortedError, match="its own"):
        await client.get("/api/cards")


async def test_a_users_file_that_becomes_wrong_shuts_the_dashboard(house: House) -> None:
    """Sessions rest until it is right again, and the form says why."""
    client = await house.signed_in("lee")
    good = house.path.read_bytes()
    house.path.write_bytes(b"nonsense\n")
    house.sleep(1)
    assert (await client.get("/api/cards")).status_code == 401
    answer = await client.get("/login")
    assert answer.status_code == 503
    assert "users file" in answer.text
    assert (await sign_in(client, "lee", PASSWORDS["lee"])).status_code == 503
    assert (await client.post("/logout", headers=ORIGIN)).status_code == 303
    house.path.write_bytes(good)
    house.sleep(1)
    assert (await client.get("/api/cards")).status_code == 200


# Other sites


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://edge.local"},
        {"origin": "http://edge.local:8081"},
        {"origin": "https://edge.local:8080"},
        {"origin": "http://edge.local:8080.evil.example"},
        {"origin": "http://edge.local:8080", "sec-fetch-site": "cross-site"},
        {"origin": "http://edge.local:8080", "sec-fetch-site": "same-site"},
        {"origin": "http://evil.example", "host": "edge.local:8080"},
    ],
)
async def test_no_other_site_acts_in_a_users_name(house: House, headers: dict[str, str]) -> None:
    """Changes, signing in and out, and websockets must come from our own origin, cookie or not."""
    client = await house.signed_in("kim")
    cookie = cookie_of(client)
    house.reached.clear()
    for method, path in (
        ("POST", "/api/save"),
        ("DELETE", "/api/save"),
        ("POST", "/login"),
        ("POST", "/logout"),
    ):
        answer = await client.request(method, path, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
    (message,) = await house.websocket(cookie, headers=headers, send=("hello",))
    assert message["code"] == 4403
    assert not house.reached


async def test_two_origins_or_hosts_are_none(house: House) -> None:
    """Who sends two may mean either."""
    client = await house.signed_in("kim")
    own = ("origin", ORIGIN["origin"])
    for more in (("origin", "http://evil.example"), ("host", "evil.example")):
        headers = [("host", "edge.local:8080"), own, more]
        answer = await client.post("/api/save", headers=headers)
        assert answer.status_code == 403


async def test_our_own_page_may_act(house: House) -> None:
    """As browsers say it: same-origin, and the host in any case."""
    client = await house.signed_in("kim")
    headers = {"origin": "http://Edge.local:8080", "sec-fetch-site": "same-origin"}
    assert (await client.post("/api/save", headers=headers)).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_other_sites_may_link_to_a_page_and_nothing_else(house: House, site: str) -> None:
    """A link from a mail works; an image, a frame or a script from elsewhere does not."""
    client = await house.signed_in("kim")
    link = {"sec-fetch-site": site, "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert (await client.get("/", headers=link)).status_code == 200
    for more in (
        {"sec-fetch-dest": "iframe"},
        {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"},
    ):
        assert (await client.get("/api/cards", headers={**link, **more})).status_code == 403


async def test_a_preflight_allows_nothing(house: House, open_house: House) -> None:
    """No answer ever names another origin."""
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    client = await house.signed_in("kim")
    local = open_house.client(base="http://localhost:8080")
    for browser in (client, house.client(), local):
        for method in ("OPTIONS", "GET"):
            answer = await browser.request(method, "/api/cards", headers=asked)
            assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_every_answer_carries_the_security_headers(house: House) -> None:
    """Those of the application, of the guard and of the form."""
    client = await house.signed_in("lee")
    answers = [
        await client.get("/"),
        await client.get("/nothing"),
        await client.get("/healthz"),
        await house.client().get("/", headers=HTML),
        await house.client().get("/api/cards"),
        await client.post("/api/save"),
        await client.get("/login"),
        await house.client().get("/login"),
        await sign_in(house.client(), "lee", "wrong password"),
    ]
    for answer in answers:
        missing = [name for name in DEFAULTS if name not in answer.headers]
        assert not missing, answer.url
        assert "default-src 'none'" in answer.headers["content-security-policy"]


# Without users


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]", "127.0.0.2"]
)
async def test_on_loopback_everybody_is_admin(open_house: House, host: str) -> None:
    """No form, no cookie; page, API, a change and the websocket."""
    client = open_house.client(base=f"http://{host}")
    assert (await client.get("/", headers=HTML)).text == "<h1>:admin</h1>"
    own = {"origin": f"http://{host}", "host": host}
    assert (await client.post("/api/save", headers=own)).status_code == 200
    frames = await open_house.websocket(headers=own, send=("hello",))
    assert frames[1]["text"] == ": hello"
    for method, path in (("GET", "/login"), ("POST", "/login"), ("POST", "/logout")):
        answer = await client.request(method, path, headers=own)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "192.168.0.10",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "",
        "[::1",
        "[::1].evil.example",
        "user@evil.example",
        "user@localhost",
        "localhost/evil",
        "localhost:80:80",
        "localhost, evil.example",
        "localhost@evil.example",
    ],
)
async def test_a_name_that_only_points_here_is_refused(open_house: House, host: str) -> None:
    """A web page whose name is turned to 127.0.0.1 reaches nothing, and a person is told why."""
    client = open_house.client()
    headers = {"host": host, "origin": f"http://{host}"}
    answer = await client.get("/api/cards", headers=headers)
    assert answer.status_code == 421
    assert "localhost" in answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert (await client.post("/api/save", headers=headers)).status_code == 421
    (message,) = await open_house.websocket(headers=headers)
    assert message["code"] == 4421
    assert not open_house.reached


async def test_other_sites_can_not_act_on_loopback_either(open_house: House) -> None:
    """There is no cookie that a browser could hold back."""
    client = open_house.client(base="http://localhost:8080")
    foreign = {"origin": "http://evil.example", "host": "localhost:8080"}
    assert (await client.post("/api/save", headers=foreign)).status_code == 403
    assert (await open_house.websocket(headers=foreign))[0]["code"] == 4403
    assert not open_house.reached
