"""The login that a subscription uses at the edge: its password, and the address to use it at.

The server is given a SCRAM verifier made here, never the password. The subscription has to hold
the password in clear: PostgreSQL keeps it in a catalog that only superusers read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from edge_agent.errors import ConfigError
from edge_agent.settings import RemoteSettings

SCRAM_ITERATIONS = 4096
"""PostgreSQL's own number; a made-up password has no need of more."""
SALT_BYTES = 16
PASSWORD_BYTES = 24
"""192 bits of chance."""

_KEPT = ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "ssl_min_protocol_version")
# The remote notices within half a minute that a connection is dead, and connects again.
_LIVELINESS = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}


def new_password() -> str:
    """One that nobody will guess."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """What PostgreSQL stores for a password (RFC 5802, RFC 7677; ASCII, so no SASLprep)."""
    salt = os.urandom(SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, SCRAM_ITERATIONS)
    client = hmac.digest(salted, b"Client Key", "sha256")
    stored, server = hashlib.sha256(client).digest(), hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"


def verifies(verifier: str | None, password: str) -> bool:
    """Whether a stored verifier is this password's; False for one that is not ours to read."""
    prefix = f"SCRAM-SHA-256${SCRAM_ITERATIONS}:"
    if verifier is None or not verifier.startswith(prefix):
        return False
    salt = base64.b64decode(verifier.removeprefix(prefix).partition("$")[0])
    return hmac.compare_digest(verifier, scram_verifier(password, salt))


def subscription_address(settings: RemoteSettings, login: str, password: str) -> str:
    """Where the remote's server reaches the edge, with login and password: for libpq.

    Raises ``ConfigError`` if neither remote.subscription_dsn nor remote.edge_dsn says a host.
    """
    given = settings.subscription_dsn or settings.edge_dsn
    parts = urlsplit(given.get_secret_value() if given else "")
    user, _, host = parts.netloc.rpartition("@")
    if settings.subscription_dsn and user:
        raise ConfigError(
            "remote.subscription_dsn names a user",
            hint=f"leave user and password out: the subscription logs in as {login}",
        )
    if not host:
        raise ConfigError(
            "remote.edge_dsn names no host, so the remote's server can't know where the edge is",
            hint="set remote.subscription_dsn = postgresql://EDGE_HOST:5432/DATABASE",
        )
    given_options = dict(parse_qsl(parts.query))
    options = {key: given_options[key] for key in _KEPT if key in given_options} | _LIVELINESS
    where = f"{quote(login, safe='')}:{quote(password, safe='')}@{host}"
    return f"postgresql://{where}{parts.path}?{urlencode(options)}"


def password_in(address: str) -> str | None:
    """The password of an address that `subscription_address` made."""
    login = urlsplit(address).netloc.rpartition("@")[0]
    _, colon, password = login.partition(":")
    return unquote(password) if colon else None


def masked(address: str) -> str:
    """An address for people to read."""
    parts = urlsplit(address)
    login, _, host = parts.netloc.rpartition("@")
    return f"{parts.scheme}://{login.partition(':')[0]}:***@{host}{parts.path}?{parts.query}"
