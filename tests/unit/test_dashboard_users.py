"""The users file, its command, and where the dashboard may listen."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from operator import methodcaller
from pathlib import Path

import pytest

from dashboard.auth import command
from dashboard.auth.changes import change
from dashboard.auth.exposure import check_exposure, is_loopback
from dashboard.auth.passwords import SCRYPT_N, PasswordHash, check_password
from dashboard.auth.users import LOOK_INTERVAL_S, Account, Users, UsersFile, check_name, load, parse
from edge_agent.errors import ConfigError
from edge_agent.settings import Settings, load_settings

HASH = PasswordHash.decoy().text()
KIM = f"user kim admin {HASH}"
SECRET = "secret " + "A" * 43
PLACE = Path("users")


def user(*words: str, users_file: Path | None, configured: Path | None = None) -> int:
    """Run `edge-dashboard user ...`."""
    parser = argparse.ArgumentParser()
    command.arguments(parser)
    option = ["--users-file", str(users_file)] if users_file else []
    return command.run(parser.parse_args([*words, *option]), settings(configured))


def settings(users_file: Path | None = None) -> Settings:
    """Settings that name this users file."""
    overrides = {"dashboard.users_file": str(users_file)} if users_file else {}
    return load_settings(None, {}, dict(overrides))


def add(
    path: Path, name: str = "kim", role: str = "viewer", password: str = "correct horse"
) -> None:
    """Add a user by the command."""
    secret = path.with_name("password")
    secret.write_text(f"{password}\n")
    assert user("add", name, "--role", role, "--password-file", str(secret), users_file=path) == 0


class FakeClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


# The hash


def test_a_hash_matches_its_password_only() -> None:
    """It survives being written, and differs each time by its salt."""
    stored = PasswordHash.parse(PasswordHash.of("correct horse").text())
    assert stored.matches("correct horse")
    assert not stored.matches("correct horsf")
    assert not stored.matches("")
    assert PasswordHash.of("correct horse").key != stored.key


def test_a_password_is_the_same_however_it_was_composed() -> None:
    """A Mac writes Hangul as single letters, Windows as syllables."""
    composed = "한글비밀번호 12"
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    assert PasswordHash.of(composed).matches(decomposed)
    assert check_password(decomposed) == composed


def test_nothing_of_a_hash_shows_in_its_repr() -> None:
    """Logs and tracebacks print reprs."""
    file = UsersFile(b"s" * 32, {"kim": Account("kim", "admin", PasswordHash.of("correct horse"))})
    assert "key" not in repr(file)
    assert "salt" not in repr(file)
    assert "ssss" not in repr(file)


@pytest.mark.parametrize(
    "password", ["", "1234567", "x" * 201, "line\nbreak", "tab\tinside", "\udc80" * 9]
)
def test_passwords_that_are_not_allowed(password: str) -> None:
    """8 to 200 characters that a form can send."""
    with pytest.raises(ConfigError, match="password has"):
        check_password(password)


@pytest.mark.parametrize("password", ["12345678", "x" * 200, "한글 비밀번호 🔑", " 8 blanks "])
def test_passwords_that_are_allowed(password: str) -> None:
    """Any script, spaces included."""
    assert check_password(password) == password


# The file


def test_a_file_is_read_as_it_is_written() -> None:
    """Comments, blank lines and a byte order mark do no harm."""
    text = f"\ufeff# people\n\n{SECRET}\nuser kim admin {HASH}\n  user\t이영희 viewer {HASH}\n"
    file = parse(text, PLACE)
    assert [(account.name, account.role) for account in file.accounts.values()] == [
        ("kim", "admin"),
        ("이영희", "viewer"),
    ]
    assert parse(file.text(), PLACE) == file


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "users: no line `secret ...`"),
        ("secret AAAA", "users:1: the secret must have 32 bytes"),
        ("secret ?", "users:1: not base64url"),
        (f"{SECRET}\n{SECRET}", "users:2: there must be one secret"),
        (f"{SECRET}\nkim admin {HASH}", "users:2: expected `user NAME ROLE HASH`"),
        (f"{SECRET}\nuser kim {HASH}", "users:2: expected `user NAME ROLE HASH`"),
        (f"{SECRET}\nuser kim boss {HASH}", "users:2: role 'boss': allowed are viewer and admin"),
        (f"{SECRET}\nuser ki/m admin {HASH}", "users:2: user name 'ki/m': 1 to 64 letters"),
        (f"{SECRET}\n{KIM}\n{KIM}", "users:3: user kim stands in line 2 already"),
        (f"{SECRET}\nuser kim admin secret", "users:2: the hash is not of the form"),
        (f"{SECRET}\nuser kim admin {HASH[:-4]}", "users:2: the hash is cut short or changed"),
        (f"{SECRET}\nuser kim admin {HASH.replace('16384', '1024')}", "users:2: N of the hash"),
        (f"{SECRET}\nuser kim admin {HASH.replace('16384', '16385')}", "users:2: N of the hash"),
        (f"{SECRET}\nuser kim admin {HASH.replace('16384', '999999999')}", "users:2: N, r and p"),
        (f"{SECRET}\nuser kim admin {HASH.replace(':8:', ':64:')}", "users:2: r of the hash"),
    ],
)  # fmt: skip
def test_a_problem_of_the_file_has_its_line(text: str, problem: str) -> None:
    """And what to do; no part of a hash or a secret is told."""
    with pytest.raises(ConfigError) as caught:
        parse(text, PLACE)
    assert str(caught.value).startswith(problem)
    assert caught.value.hint
    assert HASH.split(":")[5] not in str(caught.value)
    assert "A" * 43 not in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    """One a line."""
    with pytest.raises(ConfigError) as caught:
        parse(f"secret x!\nuser kim boss {HASH}\nnonsense\n", PLACE)
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["1", "2", "3"]


@pytest.mark.parametrize("mode", [0o400, 0o440])
def test_a_file_as_systemd_hands_it_over_is_read(tmp_path: Path, mode: int) -> None:
    """The service's own (systemd 252), or root's with an ACL, which shows as the group's (257)."""
    path = tmp_path / "users"
    path.write_text(SECRET)
    path.chmod(mode)
    assert load(path).accounts == {}


def test_a_file_that_is_missing_open_too_long_or_no_text_is_refused(tmp_path: Path) -> None:
    """Each with what to do about it."""
    path = tmp_path / "users"
    with pytest.raises(ConfigError, match="there is no users file") as caught:
        load(path)
    assert "edge-dashboard user add" in caught.value.hint
    path.write_text(SECRET)
    path.chmod(0o604)
    with pytest.raises(ConfigError, match="everybody on this machine") as caught:
        load(path)
    assert caught.value.hint == f"chmod 600 {path}"
    path.chmod(0o600)
    assert load(path).accounts == {}
    path.write_bytes(SECRET.encode() + b"\nuser \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"users:2: not UTF-8"):
        load(path)
    path.write_text("#" * 300_000)
    with pytest.raises(ConfigError, match="longer than 256000 bytes"):
        load(path)
    with pytest.raises(ConfigError, match="not a file"):
        load(tmp_path)


def test_a_change_leaves_a_file_for_its_owner_only(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask, nothing left beside it, a link is followed."""
    (tmp_path / "real").mkdir()
    path = tmp_path / "users"
    path.symlink_to(tmp_path / "real/users")
    before = os.umask(0)
    try:
        change(path, lambda file: file)
    finally:
        os.umask(before)
    assert path.is_symlink()
    assert (tmp_path / "real/users").stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in (tmp_path / "real").iterdir()] == ["users"]
    assert len(load(path).secret) == 32


def test_a_change_keeps_the_secret(tmp_path: Path) -> None:
    """Adding a user does not end the others' sessions."""
    path = tmp_path / "users"
    add(path, "kim")
    secret = load(path).secret
    add(path, "lee")
    assert load(path).secret == secret
    assert list(load(path).accounts) == ["kim", "lee"]


def test_a_change_that_fails_writes_nothing(tmp_path: Path) -> None:
    """Neither when the edit raises nor when the disk does."""
    path = tmp_path / "users"
    add(path)
    before = path.read_bytes()

    def refuse(_: UsersFile) -> UsersFile:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        change(path, refuse)
    with pytest.raises(ConfigError, match="can't be written: No such file"):
        change(tmp_path / "missing/users", lambda file: file)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["password", "users"]


def test_changes_at_the_same_time_lose_none(tmp_path: Path) -> None:
    """Each waits for the one before it."""
    path = tmp_path / "users"
    stored = PasswordHash.decoy()
    with ThreadPoolExecutor(8) as threads:
        for number in range(40):
            account = Account(f"user{number}", "viewer", stored)
            threads.submit(change, path, methodcaller("with_account", account))
    assert len(load(path).accounts) == 40


def test_a_running_dashboard_sees_a_change_within_a_second(tmp_path: Path) -> None:
    """It looks once a second at most, however often it is asked."""
    path, clock = tmp_path / "users", FakeClock()
    add(path, "kim")
    users = Users(path, monotonic=clock)
    add(path, "lee")
    assert users.file is not None
    assert list(users.file.accounts) == ["kim"]
    clock.now_s += LOOK_INTERVAL_S
    assert list(users.file.accounts) == ["kim", "lee"]
    assert users.file is users.file, "an unchanged file is not read again"


def test_a_file_that_becomes_wrong_lets_nobody_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Until it is right again; the log says so once."""
    path, clock = tmp_path / "users", FakeClock()
    add(path)
    good = path.read_bytes()
    users = Users(path, monotonic=clock)
    for wrong in (b"nonsense\n", None):
        caplog.clear()
        path.unlink() if wrong is None else path.write_bytes(wrong)
        for _ in range(3):
            clock.now_s += LOOK_INTERVAL_S
            assert users.file is None
        assert [record.levelno for record in caplog.records] == [logging.ERROR]
    path.write_bytes(good)
    path.chmod(0o600)
    clock.now_s += LOOK_INTERVAL_S
    assert users.file is not None


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\n", "x" * 65, "<b>", "a:b", "\udc80"])
def test_names_that_are_not_allowed(name: str) -> None:
    """They must fit a word of the file and any log line."""
    with pytest.raises(ConfigError, match="user name"):
        check_name(name)


def test_an_unknown_user_costs_as_much_as_the_costliest_known() -> None:
    """Else the time of the answer would tell who exists."""
    costly = PasswordHash.decoy(2 * SCRYPT_N)
    file = UsersFile(b"", {"a": Account("a", "viewer", PasswordHash.decoy())})
    assert file.decoy().n == SCRYPT_N
    assert file.with_account(Account("b", "viewer", costly)).decoy().n == 2 * SCRYPT_N
    assert file.without("a").decoy().n == SCRYPT_N


# The command


def test_add_list_password_remove(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The life of a user, told on standard output; the password is never shown."""
    path = tmp_path / "users"
    add(path, "kim", "admin")
    add(path, "이영희")
    first = load(path).accounts["kim"].password
    assert first.matches("correct horse")
    (tmp_path / "password").write_text("battery staple\r\n")
    user("password", "kim", "--password-file", str(tmp_path / "password"), users_file=path)
    second = load(path).accounts["kim"]
    assert second.password.matches("battery staple")
    assert second.password.fingerprint != first.fingerprint
    assert second.role == "admin"
    capsys.readouterr()
    user("list", users_file=path)
    assert capsys.readouterr().out == "kim  admin\n이영희  viewer\n"
    user("list", "--json", users_file=path)
    assert json.loads(capsys.readouterr().out)[0] == {"name": "kim", "role": "admin"}
    user("remove", "kim", users_file=path)
    user("remove", "이영희", users_file=path)
    out = capsys.readouterr().out
    assert "removed kim" in out
    assert out.count("no user is left") == 1


def test_the_settings_name_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`dashboard.users_file` serves unless the option says otherwise; one of both must."""
    path = tmp_path / "users"
    add(path)
    assert f"set dashboard.users_file to {path}" in capsys.readouterr().out
    assert user("list", users_file=None, configured=path) == 0
    with pytest.raises(ConfigError, match="no users file given") as caught:
        user("list", users_file=None)
    assert "dashboard.users_file" in caught.value.hint


def test_what_the_command_refuses(tmp_path: Path) -> None:
    """A user twice, a user who is not there, a password too short; nothing is changed by it."""
    path = tmp_path / "users"
    with pytest.raises(ConfigError, match="there is no users file"):
        user("remove", "kim", users_file=path)
    with pytest.raises(ConfigError, match="7 characters"):
        add(path, password="1234567")
    assert not path.exists()
    add(path)
    with pytest.raises(ConfigError, match="there is a user kim already") as caught:
        add(path)
    assert "edge-dashboard user password kim" in caught.value.hint
    for action in ("remove", "password"):
        with pytest.raises(ConfigError, match="there is no user lee"):
            user(action, "lee", users_file=path)
    with pytest.raises(ConfigError, match="can't be read"):
        user("add", "lee", "--password-file", str(tmp_path / "none"), users_file=path)


def test_the_password_comes_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For scripts: `--password-file -`; without a terminal nothing is asked."""
    path = tmp_path / "users"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("비밀번호 열두글자\n".encode())))
    with pytest.raises(ConfigError, match="no terminal") as caught:
        user("add", "kim", users_file=path)
    assert "--password-file -" in caught.value.hint
    user("add", "kim", "--password-file", "-", users_file=path)
    assert load(path).accounts["kim"].password.matches("비밀번호 열두글자")


def test_the_terminal_is_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password mistyped once is not taken."""
    path = tmp_path / "users"
    answers = iter(["correct horse", "correct hrose", "correct horse", "correct horse"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _: next(answers))
    with pytest.raises(ConfigError, match="differ"):
        user("add", "kim", users_file=path)
    assert not path.exists()
    user("add", "kim", users_file=path)
    assert load(path).accounts["kim"].password.matches("correct horse")


# Where it may listen


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LocalHost", True),
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("::ffff:0.0.0.0", False),
        ("192.168.0.10", False),
        ("10.0.0.1", False),
        ("fe80::1", False),
        ("127.1", False),
        ("2130706433", False),
        ("0x7f000001", False),
        ("edge.local", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("raspberrypi", False),
    ],
)
def test_loopback_is_what_can_be_proven(
    host: str,
    expected: bool,
    tmp_path: Path,
) -> None:
    """Everything else needs users, and the refusal names the command."""
    assert is_loopback(host) is expected
    if expected:
        assert check_exposure(host, None) is None
    else:
        with pytest.raises(ConfigError, match="without a password") as caught:
            check_exposure(host, None)
        assert "edge-dashboard user add" in caught.value.hint
    add(tmp_path / "users")
    assert check_exposure(host, tmp_path / "users") is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_users_file_without_users_starts_nowhere(host: str, tmp_path: Path) -> None:
    """Whoever names a file wants users, on loopback too."""
    path = tmp_path / "users"
    with pytest.raises(ConfigError, match="there is no users file"):
        check_exposure(host, path)
    change(path, lambda file: file)
    with pytest.raises(ConfigError, match="no user in it"):
        check_exposure(host, path)
