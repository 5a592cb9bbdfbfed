"""Where the dashboard may be seen: on loopback by everybody on the machine, else by users only."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from dashboard.auth.users import HINT_ADD, Users
from edge_agent.errors import ConfigError


def check_exposure(host: str, users_file: Path | None) -> Users | None:
    """The users who may look at a dashboard that listens on ``host``; None: everybody, on loopback.

    A users file counts on loopback too, where a reverse proxy may stand in front. Raises
    ``ConfigError`` if the file is wrong, or if there are no users and the host can't be proven to
    be loopback; "0.0.0.0", "::", "" and names other than "localhost" can't.
    """
    if users_file is None:
        if is_loopback(host):
            return None
        raise ConfigError(
            f"the dashboard would answer anybody on {host or 'every address'}, without a password",
            hint=f"{HINT_ADD} --users-file FILE, then dashboard.users_file = FILE; "
            "or look at it from this machine only: --host 127.0.0.1",
        )
    users = Users(users_file)
    if users.file is None or not users.file.accounts:
        raise ConfigError(f"{users_file}: no user in it, so nobody could sign in", hint=HINT_ADD)
    return users


def is_loopback(host: str) -> bool:
    """Whether this name or address is surely this machine alone; brackets around IPv6 are allowed.

    "localhost" is (RFC 6761, 6.3); no other name is looked up, since it may mean another
    address the next time.
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
