"""`edge-dashboard user`: who may look at the dashboard. A running one sees changes by itself."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path
from typing import Final

import orjson

from dashboard.auth import users
from dashboard.auth.changes import change
from dashboard.auth.passwords import PASSWORD_CHARS_MAX, PasswordHash, check_password
from dashboard.auth.users import ROLES, Account, UsersFile
from edge_agent.errors import ConfigError
from edge_agent.settings import Settings

PASSWORD_BYTES_MAX: Final = 4 * PASSWORD_CHARS_MAX + 2
"""UTF-8 has at most four bytes a character; and the line's end."""

ACTIONS: Final = {
    "add": "add a user; makes the file if there is none",
    "password": "set a password, which ends the user's sessions",
    "remove": "remove a user, which ends the user's sessions",
    "list": "names and roles",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's actions and options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    found = {
        name: actions.add_parser(name, help=summary, description=summary)
        for name, summary in ACTIONS.items()
    }
    for name in ("add", "password", "remove"):
        found[name].add_argument("name", metavar="NAME", help="the user's name")
    found["add"].add_argument(
        "--role",
        choices=tuple(ROLES),
        default="viewer",
        help="what the user may do (default: %(default)s)",
    )
    _password_file(found["add"])
    _password_file(found["password"])
    found["list"].add_argument(
        "--json", action="store_true", help="as one line of JSON, for programs"
    )
    for action in found.values():
        action.add_argument(
            "--users-file",
            type=Path,
            metavar="FILE",
            help="the users file (default: dashboard.users_file)",
        )


def _password_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--password-file",
        metavar="FILE",
        help="read the password from a file, or from standard input for -; else it is asked for",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Do one action; exit code 0. Raises ``ConfigError`` if it can't be done."""
    path = options.users_file or settings.dashboard.users_file
    if path is None:
        raise ConfigError(
            "no users file given", hint="--users-file FILE, or set dashboard.users_file"
        )
    if options.action == "list":
        _list(users.load(path), as_json=options.json)
        return 0
    name = users.check_name(options.name)
    if options.action == "add":
        _add(path, name, options)
        if settings.dashboard.users_file is None:
            print(f"set dashboard.users_file to {path.resolve()}: the dashboard reads it then")
    elif options.action == "password":
        _set_password(path, name, options)
    else:
        _remove(path, name)
    return 0


def _list(file: UsersFile, *, as_json: bool) -> None:
    rows = [{"name": account.name, "role": account.role} for account in file.accounts.values()]
    if as_json:
        print(orjson.dumps(rows).decode())
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:<{width}}  {row['role']}")


def _add(path: Path, name: str, options: argparse.Namespace) -> None:
    def refuse_twice(file: UsersFile) -> None:
        if name in file.accounts:
            raise ConfigError(
                f"{path}: there is a user {name} already",
                hint=f"edge-dashboard user password {name}; for another role, remove and add",
            )

    def edit(file: UsersFile) -> UsersFile:
        refuse_twice(file)
        return file.with_account(Account(name, ROLES[options.role], password))

    if path.exists():
        # Before anybody types a password for nothing.
        refuse_twice(users.load(path))
    password = PasswordHash.of(_password(options.password_file))
    change(path, edit)
    print(f"added {name} ({options.role})")


def _set_password(path: Path, name: str, options: argparse.Namespace) -> None:
    def edit(file: UsersFile) -> UsersFile:
        account = _account(file, name, path)
        return file.with_account(Account(name, account.role, password))

    _account(users.load(path), name, path)
    password = PasswordHash.of(_password(options.password_file))
    change(path, edit)
    print(f"new password for {name}; sessions under the old one are over")


def _remove(path: Path, name: str) -> None:
    def edit(file: UsersFile) -> UsersFile:
        _account(file, name, path)
        return file.without(name)

    users.load(path)
    change(path, edit)
    print(f"removed {name}; the user's sessions end when the dashboard reads the file again")
    if not users.load(path).accounts:
        print("no user is left: nobody can sign in, and the dashboard will not start again")


def _account(file: UsersFile, name: str, path: Path) -> Account:
    account = file.accounts.get(name)
    if account is None:
        raise ConfigError(f"{path}: there is no user {name}", hint="edge-dashboard user list")
    return account


def _password(source: str | None) -> str:
    """A new password from a file, standard input or the terminal, checked."""
    if source is None:
        return _asked()
    try:
        if source == "-":
            data = sys.stdin.buffer.read(PASSWORD_BYTES_MAX + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(PASSWORD_BYTES_MAX + 1)
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"{source}: the password can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source}: the password is not UTF-8") from error
    return check_password(text.removesuffix("\n").removesuffix("\r"))


def _asked() -> str:
    if not sys.stdin.isatty():
        raise ConfigError(
            "there is no terminal to ask for the password",
            hint="--password-file FILE, or --password-file - to read standard input",
        )
    try:
        password = check_password(getpass.getpass("Password: "))
        again = check_password(getpass.getpass("Once more: "))
    except EOFError as error:
        raise ConfigError("no password given") from error
    if password != again:
        raise ConfigError("the two passwords differ")
    return password
