"""The users file: who may look, in which role.

One user a line, for people to read and for `edge-dashboard user` to change::

    secret  <32 random bytes, base64url>
    user    kim  admin   scrypt:16384:8:1:<salt>:<key>
    user    lee  viewer  scrypt:16384:8:1:<salt>:<key>

``#`` begins a comment at the start of a line. The secret signs the session cookies; it is made
with the file, so that nothing is written at run time. The file is replaced as a whole: a power cut
leaves the old or the new one.

While the dashboard runs it looks at the file at most once a second. A file that has become wrong
lets nobody in until it is right again: what it says now nobody knows, and the user who was just
being removed must not stay.
"""

from __future__ import annotations

import logging
import re
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from dashboard.auth.passwords import PasswordHash, from_base64, normalised, to_base64
from edge_agent.errors import ConfigError

log = logging.getLogger(__name__)

Role = Literal["viewer", "admin"]

ROLES: Final[Mapping[str, Role]] = {"viewer": "viewer", "admin": "admin"}
"""A viewer looks; what an admin may do besides is for each route to say."""

NAME_CHARS_MAX: Final = 64
"""As long as a tag's or an agent's name; it stands in every session cookie."""

FILE_BYTES_MAX: Final = 256_000
"""Some 1,500 users; it is read on the event loop, which takes a few ms."""

LOOK_INTERVAL_S: Final = 1.0
"""How long a removed user may go on at most; one stat a second costs nothing."""

SECRET_BYTES: Final = 32
"""As long as the key of HMAC-SHA256 should be (RFC 2104)."""

HINT_ADD: Final = "edge-dashboard user add NAME --role admin"

HEADER: Final = """\
# Users of edge-dashboard, one a line: user NAME ROLE HASH. Keep this file secret.
# Change it with `edge-dashboard user`. A running dashboard sees the change within a second;
# one that gets the file by systemd's LoadCredential= sees it when it is started again.
"""

_NAME = re.compile(rf"[\w.@-]{{1,{NAME_CHARS_MAX}}}")


@dataclass(frozen=True, slots=True)
class User:
    """Who a request comes from; without users everybody is the nameless admin."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Account:
    """One line of the file."""

    name: str
    role: Role
    password: PasswordHash

    @property
    def user(self) -> User:
        """What the pages may know of it."""
        return User(self.name, self.role)


@dataclass(frozen=True, slots=True)
class UsersFile:
    """The file's content; never changed, only replaced."""

    secret: bytes = field(repr=False)
    accounts: Mapping[str, Account]

    def with_account(self, account: Account) -> UsersFile:
        """The same with this account added, or in the place of that of its name."""
        return UsersFile(self.secret, {**self.accounts, account.name: account})

    def without(self, name: str) -> UsersFile:
        """The same without this user. Raises ``KeyError`` if there is none."""
        accounts = dict(self.accounts)
        del accounts[name]
        return UsersFile(self.secret, accounts)

    def decoy(self) -> PasswordHash:
        """What to compare an unknown user's password with: as costly as the costliest here."""
        if not self.accounts:
            return PasswordHash.decoy()
        hashes = (account.password for account in self.accounts.values())
        costliest = max(hashes, key=lambda password: password.n * password.p)
        return PasswordHash.decoy(costliest.n, costliest.p)

    def text(self) -> str:
        """What `parse` reads."""
        width = max((len(name) for name in self.accounts), default=0)
        lines = [
            f"user    {account.name:<{width}}  {account.role:<6}  {account.password.text()}\n"
            for account in self.accounts.values()
        ]
        return f"{HEADER}secret  {to_base64(self.secret)}\n{''.join(lines)}"


class Users:
    """The users file of a running dashboard, read again when it changes."""

    def __init__(self, path: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Read the file. Raises ``ConfigError`` if it is missing or wrong."""
        self._path = path
        self._monotonic = monotonic
        self._seen = _signature(path)
        self._looked_s = monotonic()
        self._file: UsersFile | None = load(path)

    @property
    def file(self) -> UsersFile | None:
        """What the file says, at most `LOOK_INTERVAL_S` ago; None while it can't be used."""
        now_s = self._monotonic()
        if now_s - self._looked_s >= LOOK_INTERVAL_S:
            self._looked_s = now_s
            # The signature first: a change between the two steps is seen at the next look.
            signature = _signature(self._path)
            if signature != self._seen:
                self._seen = signature
                self._read()
        return self._file

    def _read(self) -> None:
        try:
            self._file = load(self._path)
        except ConfigError as error:
            self._file = None
            log.error("nobody can sign in or go on: %s", error)  # noqa: TRY400
        else:
            log.info("users file read again: %s, %d users", self._path, len(self._file.accounts))


def check_name(name: str) -> str:
    """A user's name, normalised. Raises ``ConfigError`` that says what is allowed."""
    name = normalised(name)
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"user name {name!r}: 1 to {NAME_CHARS_MAX} letters, digits, '.', '_', '-' or '@'"
        )
    return name


def load(path: Path) -> UsersFile:
    """Read and check the file. Raises ``ConfigError`` with every problem, one a line."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path}: the users file is not a file")
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no users file", hint=HINT_ADD) from error
    except OSError as error:
        raise ConfigError(
            f"{path}: the users file can't be read: {error.strerror}",
            hint="it must belong to the user that edge-dashboard runs as; "
            'as a service: LoadCredential=users:FILE, and users_file = "users"',
        ) from error
    if status.st_mode & stat.S_IRWXO:
        raise ConfigError(
            f"{path}: everybody on this machine may read or change the users file",
            hint=f"chmod 600 {path}",
        )
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: longer than {FILE_BYTES_MAX} bytes; no users file is")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from error
    return parse(text, path)


def parse(text: str, path: Path) -> UsersFile:
    """The file's content; ``path`` is for messages. Raises ``ConfigError`` with every problem."""
    accounts: dict[str, Account] = {}
    lines: dict[str, int] = {}
    secret: bytes | None = None
    problems: list[str] = []
    for number, line in enumerate(text.removeprefix("\N{BYTE ORDER MARK}").splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            match words:
                case ["secret", value] if secret is None:
                    secret = _secret(value)
                case ["secret", *_]:
                    raise ValueError("there must be one secret, and nothing behind it")  # noqa: TRY301
                case ["user", name, role, password]:
                    account = _account(name, role, password)
                    if account.name in accounts:
                        raise ValueError(  # noqa: TRY301
                            f"user {account.name} stands in line {lines[account.name]} already"
                        )
                    accounts[account.name] = account
                    lines[account.name] = number
                case _:
                    raise ValueError("expected `user NAME ROLE HASH`")  # noqa: TRY301
        except (ValueError, ConfigError) as error:
            problems.append(f"{path}:{number}: {error}")
    if secret is None and not problems:
        problems.append(f"{path}: no line `secret ...`")
    if secret is None or problems:
        raise ConfigError(
            "\n".join(problems),
            hint="remove the line and add the user again: edge-dashboard user add NAME; "
            "without a secret, move the file away first",
        )
    return UsersFile(secret, accounts)


def _secret(text: str) -> bytes:
    secret = from_base64(text)
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"the secret must have {SECRET_BYTES} bytes")
    return secret


def _account(name: str, role: str, password: str) -> Account:
    if role not in ROLES:
        raise ValueError(f"role {role!r}: allowed are {' and '.join(ROLES)}")
    return Account(check_name(name), ROLES[role], PasswordHash.parse(password))


def _signature(path: Path) -> tuple[int, int, int, int] | None:
    """Differs after each change; None where there is no file to look at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode
