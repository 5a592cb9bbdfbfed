"""The login form: who gets a session, who has to wait, and where it leads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.types import Message

from dashboard.auth import limiter, login
from dashboard.auth.headers import inline_hashes
from dashboard.auth.pages import language_of, local_path
from dashboard.auth.passwords import PasswordHash
from tests.dashboard_house import ORIGIN, PASSWORDS, House, furnish, sign_in


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A dashboard with an admin and two viewers."""
    return furnish(tmp_path / "users")


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("/detail/?device=PUMP01&tag=a%26b", "/detail/?device=PUMP01&tag=a%26b"),
        ("/detail/?device=펌프", "/detail/?device=펌프"),
        ("", "/"),
        ("detail", "/"),
        ("//evil.example", "/"),
        ("///evil.example", "/"),
        ("/\\evil.example", "/"),
        ("\\\\evil.example", "/"),
        ("/a\\..\\b", "/"),
        ("/\t/evil.example", "/"),
        ("/\n/evil.example", "/"),
        (" //evil.example", "/"),
        ("https:", "/"),
        ("https:evil.example", "/"),
        ("https://evil.example/", "/"),
        ("javascript:alert(1)", "/"),
        ("//edge.local:8080@evil.example", "/"),
        ("/a\x00b", "/"),
        ("/a\u202eb", "/"),
        ("/login?next=/", "/"),
        ("/logout", "/"),
        ("/" + "x" * 2_000, "/"),
    ],
)
async def test_a_login_leads_to_a_page_of_ours(house: House, to: str, expected: str) -> None:
    """By the form, and by the form's address for who is signed in already."""
    assert local_path(to) == expected
    client = house.client()
    first = await client.get("/login", params={"next": to})
    assert f'name="next" value="{expected.replace("&", "&amp;")}"' in first.text
    answer = await sign_in(client, "lee", PASSWORDS["lee"], next=to)
    again = await client.get("/login", params={"next": to})
    for each in (answer, again):
        assert each.status_code == 303
        assert httpx.URL(each.headers["location"]) == httpx.URL(expected)


async def test_a_wrong_name_or_password_is_refused_alike(house: House) -> None:
    """The same answer for both; the name stays in the field, the password does not."""
    client = house.client()
    answers = [
        await sign_in(client, "lee", "wrong password"),
        await sign_in(client, "nobody", "battery staple"),
        await sign_in(client, "lee", ""),
        await sign_in(client, "", ""),
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert 'role="alert">The user name or the password is wrong.<' in answer.text
        assert "set-cookie" not in answer.headers
    assert 'value="lee"' in answers[0].text
    assert "wrong password" not in answers[0].text
    assert answers[0].text.replace("lee", "nobody") == answers[1].text


async def test_an_unknown_name_takes_as_long_as_a_known_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One comparison of the same cost each, and not on the event loop's thread."""
    costs: list[tuple[int, int]] = []
    matches = PasswordHash.matches

    def counted(self: PasswordHash, password: str) -> bool:
        assert threading.current_thread() is not threading.main_thread()
        costs.append((self.n, self.p))
        return matches(self, password)

    monkeypatch.setattr(PasswordHash, "matches", counted)
    for name in ("lee", "nobody", "x" * 500):
        assert (await sign_in(house.client(), name, "wrong password")).status_code == 401
    assert costs == [(2**14, 1)] * 3


async def test_what_was_typed_is_shown_as_text(house: House) -> None:
    """No markup gets into the page."""
    answer = await sign_in(house.client(), '"><script>x</script>', "wrong", next='/"><b>')
    assert "<script>" not in answer.text
    assert "<b>" not in answer.text
    assert "&quot;&gt;&lt;script&gt;" in answer.text


async def test_guessing_is_slowed_down(house: House) -> None:
    """After the free tries 429 with Retry-After, even with the right password; then it goes on."""
    client = house.client()
    for _ in range(limiter.FREE_TRIES):
        assert (await sign_in(client, "lee", "wrong password")).status_code == 401
    for password in ("wrong password", PASSWORDS["lee"]):
        answer = await sign_in(client, "lee", password)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "10"
        assert "Too many tries. Try again in 10 s." in answer.text
    elsewhere = house.client(address="10.0.0.2")
    assert (await sign_in(elsewhere, "lee", PASSWORDS["lee"])).status_code == 429
    assert (await sign_in(elsewhere, "kim", PASSWORDS["kim"])).status_code == 303
    house.sleep(10)
    assert (await sign_in(client, "lee", PASSWORDS["lee"])).status_code == 303


async def test_who_makes_no_mistake_never_waits(house: House) -> None:
    """However often one signs in, from an address that many share."""
    client = house.client()
    for name in ("lee", "kim") * limiter.FREE_TRIES:
        assert (await sign_in(client, name, PASSWORDS[name])).status_code == 303


async def test_a_burst_gets_no_more_tries_than_a_queue(house: House) -> None:
    """Tries that run at the same time are counted before they are compared."""
    client = house.client()
    answers = await asyncio.gather(*(sign_in(client, "lee", f"guess {n}...") for n in range(30)))
    codes = [answer.status_code for answer in answers]
    assert codes.count(401) == limiter.FREE_TRIES
    assert codes.count(429) == 30 - limiter.FREE_TRIES


async def test_comparisons_under_way_are_bounded(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many addresses at once can't take all memory; who comes too late is told when to come."""
    hold = threading.Event()

    def held(*_: object) -> bool:
        return not hold.wait(10)

    monkeypatch.setattr(PasswordHash, "matches", held)
    tasks = [
        asyncio.ensure_future(
            sign_in(house.client(address=f"10.0.1.{number}"), f"name{number}", "wrong password")
        )
        for number in range(login.HASHING_WAITING_MAX + 5)
    ]
    waiting = iter(asyncio.as_completed(tasks))
    late = [await next(waiting) for _ in range(5)]
    assert {answer.status_code for answer in late} == {429}
    assert {answer.headers["retry-after"] for answer in late} == {"3"}
    hold.set()
    codes = [answer.status_code for answer in await asyncio.gather(*tasks)]
    assert codes.count(401) == login.HASHING_WAITING_MAX


async def test_forms_that_are_none(house: House) -> None:
    """Too long, of another type, too many fields, not ASCII: refused, and nothing is compared."""
    client, form = house.client(), "application/x-www-form-urlencoded"

    async def code(body: bytes, kind: str = form) -> int:
        headers = {**ORIGIN, "content-type": kind}
        return (await client.post("/login", content=body, headers=headers)).status_code

    assert await code(b"name=" + b"x" * login.BODY_BYTES_MAX) == 413
    assert await code(b'{"name":"lee"}', "application/json") == 415
    assert await code(b"name=lee", "multipart/form-data; boundary=x") == 415
    assert await code(b"&".join([b"name=lee"] * 11)) == 400
    assert await code(b"name=\xff") == 400
    assert await code(b"") == 401
    assert await code(b"name=lee&password=battery+staple", f"{form}; charset=UTF-8") == 303


async def test_a_long_form_is_not_read_to_its_end(house: House) -> None:
    """What exceeds the bound is never held in memory."""
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"x" * 1_024

    headers = {**ORIGIN, "content-type": "application/x-www-form-urlencoded"}
    answer = await house.client().post("/login", content=endless(), headers=headers)
    assert answer.status_code == 413
    assert taken <= login.BODY_BYTES_MAX // 1_024 + 2


async def test_a_form_that_never_comes_is_not_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is bounded; a client that leaves gets no answer."""
    monkeypatch.setattr(login, "BODY_TIMEOUT_S", 0.0)

    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    headers = {**ORIGIN, "content-type": "application/x-www-form-urlencoded"}
    answer = await house.client().post("/login", content=never(), headers=headers)
    assert answer.status_code == 408
    monkeypatch.undo()
    sent: list[Message] = []

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    all_headers = {"host": "edge.local:8080", **headers}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/login",
        "query_string": b"",
        "headers": [(name.encode(), text.encode()) for name, text in all_headers.items()],
    }
    await house.guard(scope, gone, send)
    assert sent == []


async def test_signing_out_takes_the_cookie_back(house: House) -> None:
    """By POST only: a link can't sign anybody out."""
    client = await house.signed_in("lee")
    assert (await client.get("/logout")).status_code == 405
    assert (await client.get("/api/cards")).status_code == 200
    answer = await client.post("/logout", headers=ORIGIN)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login"
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert (await client.get("/api/cards")).status_code == 401
    assert (await client.put("/login", headers=ORIGIN)).headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
        ("en-US,en;q=0.9,ko;q=0.8", "en"),
        ("ko", "ko"),
        ("de", "en"),
        ("de,ko;q=0.5", "ko"),
        ("ko;q=0,en;q=0.1", "en"),
        ("en,ko", "en"),
        ("ko,en", "ko"),
        ("", "en"),
        ("ko;q=x, ;;q, *", "en"),
    ],
)
async def test_the_form_speaks_the_browsers_language(
    house: House, header: str, expected: str
) -> None:
    """Korean where it is liked better, else English; every text is there."""
    assert language_of(header) == expected
    answer = await house.client().get("/login", headers={"accept-language": header})
    assert f'<html lang="{expected}">' in answer.text
    assert ("비밀번호" in answer.text) is (expected == "ko")
    assert "$" not in answer.text


async def test_the_form_allows_its_own_style_and_no_script(house: House) -> None:
    """It carries the hash of its one style, labels for its fields, and is never stored."""
    answer = await house.client().get("/login")
    scripts, styles = inline_hashes(answer.content)
    assert (len(scripts), len(styles)) == (0, 1)
    own = answer.headers["content-security-policy"]
    assert f"style-src 'self' {styles[0]};" in own
    assert "script-src 'self';" in own
    assert answer.headers["cache-control"] == "no-store"
    assert 'label for="name"' in answer.text
    assert 'label for="password"' in answer.text
    assert " style=" not in answer.text
