"""One connection to PostgreSQL: its address, how it is opened, and what its errors mean here.

The sink, the upkeep and `db init` stand on this. Statements are never prepared under a name and
nothing is expected to outlive a transaction, so a pgbouncer in between is harmless.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import asyncpg

from edge_agent.errors import ConfigError, TransientError
from edge_agent.postgres.sql_files import queries
from edge_agent.text.reasons import reason_of

CONNECT_TIMEOUT_S = 10.0
"""A server that is starting up refuses at once; a far one answers within a few seconds."""
COMMAND_TIMEOUT_S = 30.0
"""The largest batch takes about a second on a Raspberry Pi's SD card."""
CLOSE_TIMEOUT_S = 2.0
"""Closing is politeness: the server notices by itself."""

SERVER_VERSION_MIN = 140_000
"""14.0: the oldest that has date_bin and trim_array, which sql/ uses."""

_EXAMPLE = "postgresql://USER:PASSWORD@HOST:5432/DATABASE?sslmode=verify-full&sslrootcert=FILE"
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_LIBPQ_ONLY = frozenset(
    {"connect_timeout", "keepalives", "keepalives_idle", "channel_binding", "gssencmode"}
)
_INIT_HINT = "run `edge-agent db init --dsn OWNER_DSN`"

# What a person should do, by the server's SQLSTATE or its class.
_HINTS = {
    "42P01": _INIT_HINT,
    "42883": _INIT_HINT,
    "42703": _INIT_HINT,
    "3F000": _INIT_HINT,
    "42501": f"{_INIT_HINT}, then `GRANT ingest TO {{user}}`",
    "28P01": "check the user and the password of the dsn",
    "28000": "check user, sslmode, sslcert and sslkey of the dsn, and the server's pg_hba.conf",
    "3D000": f"create the database (ENCODING 'UTF8'), then {_INIT_HINT}",
    "42704": "a parameter of the dsn that the server does not know? remove it",
    "53100": "the server's disk is full: free space on it",
    "53300": "the server has no connection left: raise max_connections",
    "23514": "a day's partition is missing; `edge-agent db status --dsn OWNER_DSN` lists them",
    "55P03": "another session holds a lock; try again when it has finished",
}

_TLS_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_TLS_HINT = "sslrootcert, sslcert and sslkey of the dsn must be PEM files that belong together"
_AUTHORITY_HINT = (
    "sslrootcert of the dsn must name the authority that signed the server's certificate"
)
_VALIDITY_HINT = "renew the server's certificate, or set this machine's clock"
_NAME_HINT = "write the dsn's host as the server's certificate has it (subjectAltName)"
_UNTRUSTED_HINT = "does the server know the authority that signed sslcert? its log says more"
# By OpenSSL's X509_V_ERR_*.
_CERTIFICATE_HINTS = {
    **dict.fromkeys((9, 10), _VALIDITY_HINT),
    **dict.fromkeys((2, 18, 19, 20, 21), _AUTHORITY_HINT),
    **dict.fromkeys((62, 64), _NAME_HINT),
}
# By OpenSSL's reason; a key without its password is only "PEM lib" to it, and has no reason.
_TLS_HINTS = {
    "KEY_VALUES_MISMATCH": "sslcert and sslkey of the dsn do not belong together",
    "TLSV1_ALERT_UNKNOWN_CA": _UNTRUSTED_HINT,
    None: f"{_TLS_HINT}; an encrypted sslkey needs sslpassword",
}


class Dsn:
    """A database address. Checked when made, without I/O; printing it shows no secret.

    Raises ``ConfigError``. What is wrong is said without quoting the text, whose password may
    stand anywhere if it was not escaped.
    """

    __slots__ = ("_database", "_files", "_host", "_secrets", "_text", "user")

    def __init__(self, text: str) -> None:
        try:
            parts = urlsplit(text)
            options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=False))
        except ValueError:
            raise _wrong("it is not a URL") from None
        if parts.scheme not in ("postgresql", "postgres"):
            raise _wrong("it must begin with postgresql://")
        login, _, self._host = parts.netloc.rpartition("@")
        self.user, _, password = login.partition(":")
        for host in self._host.split(","):
            _, bracket, port = host.rpartition("]") if "]" in host else host.rpartition(":")
            port = port.lstrip(":")
            if bracket and port and not (port.isascii() and port.isdigit() and int(port) < 65536):
                raise _wrong("the port must be a number from 1 to 65535")
        if (mode := options.get("sslmode", "prefer")) not in _SSL_MODES:
            raise _wrong(f"sslmode must be one of {', '.join(_SSL_MODES)}, not {mode!r}")
        if unknown := sorted(_LIBPQ_ONLY & options.keys()):
            raise _wrong(f"the parameter {unknown[0]} is not supported; remove it")
        self._text = text
        self._database = parts.path.lstrip("/")
        self._files = tuple((key, options[key]) for key in _TLS_FILES if key in options)
        self._secrets = tuple(
            secret
            for secret in (password, options.get("password"), options.get("sslpassword"))
            if secret
        )

    def reveal(self) -> str:
        """The whole text, for connecting only."""
        return self._text

    @property
    def has_certificate(self) -> bool:
        """Whether it logs in with a client certificate."""
        return any(key == "sslcert" for key, _ in self._files)

    def unreadable_files(self) -> list[str]:
        """The files named for TLS that this process can't read now, as `sslkey=/path`."""
        return [f"{key}={path}" for key, path in self._files if not os.access(path, os.R_OK)]

    def redact(self, text: str) -> str:
        """``text`` without this address's secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def __repr__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"postgresql://{user}{self._host}/{self._database}"


def _wrong(problem: str) -> ConfigError:
    return ConfigError(
        f"postgres dsn: {problem}; write {_EXAMPLE}",
        hint="in user and password, write / @ : # ? % as %2F %40 %3A %23 %3F %25",
    )


@contextmanager
def translated_errors(dsn: Dsn, doing: str) -> Iterator[None]:
    """Turn whatever the library, the server or the network raises into ``TransientError``."""
    try:
        yield
    except TimeoutError as error:
        raise TransientError(
            f"postgres {dsn}: {doing}: no answer in time",
            hint="is the server overloaded, or the network cut?",
        ) from error
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
    ) as error:
        code = getattr(error, "sqlstate", None)
        text = dsn.redact(_plain(error)) or type(error).__name__
        raise TransientError(
            f"postgres {dsn}: {doing}: {text}" + (f" ({code})" if code else ""),
            hint=_hint(error, dsn),
        ) from error


def _plain(error: Exception) -> str:
    """The message as people know it."""
    match error:
        case asyncpg.ClientConfigurationError():
            return str(error.args[0])  # without the library's own hint
        case ConnectionRefusedError() | socket.gaierror() if error.errno:
            return reason_of(error)
        case ConnectionError() if "connection_lost" in str(error):
            return "the server closed the connection"
    return str(error)


def _hint(error: Exception, dsn: Dsn) -> str:
    match error:
        case ConnectionRefusedError():
            return "is PostgreSQL running, and are host and port right?"
        case socket.gaierror():
            return "is the host right? In a password write @ : / % as %40 %3A %2F %25"
        case ssl.SSLCertVerificationError():
            return _CERTIFICATE_HINTS.get(error.verify_code, "")
        case ssl.SSLError():
            return _TLS_HINTS.get(error.reason, _TLS_HINT)
        case asyncpg.ConnectionDoesNotExistError() if dsn.has_certificate:
            return _UNTRUSTED_HINT  # TLS 1.3: the server refuses a certificate after the handshake
        case FileNotFoundError() | PermissionError() if files := dsn.unreadable_files():
            return f"this user must be able to read {', '.join(files)}"
        case asyncpg.ClientConfigurationError() if "root certificate" in str(error):
            return _AUTHORITY_HINT
    hint = _HINTS.get(getattr(error, "sqlstate", None) or "", "")
    return hint.format(user=dsn.user or "USER")


async def connect(
    dsn: Dsn, application_name: str, command_timeout_s: float = COMMAND_TIMEOUT_S
) -> Any:
    """Open one connection (an ``asyncpg.Connection``); the library's errors, within 10 s."""
    connection = await asyncpg.connect(
        dsn.reveal(),
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        statement_cache_size=0,
        server_settings={"application_name": application_name},
    )
    try:
        await connection.execute(queries()["session_settings"])
    except BaseException:
        connection.terminate()
        raise
    return connection


async def check_server(connection: Any) -> None:
    """Raise ``TransientError`` for a server or database that can't hold the samples."""
    facts = await connection.fetchrow(queries()["server_facts"])
    if facts["version_num"] < SERVER_VERSION_MIN:
        raise TransientError(
            f"postgres: server version {facts['version']} is too old", hint="14 or newer"
        )
    if facts["encoding"] != "UTF8":
        raise TransientError(
            f"postgres: the database's encoding is {facts['encoding']}; it can't store every name",
            hint="create it with ENCODING 'UTF8' TEMPLATE template0",
        )


async def disconnect(connection: Any) -> None:
    """Close it, kindly if the server answers at once. Never raises, but for cancellation."""
    try:
        await connection.close(timeout=CLOSE_TIMEOUT_S)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        connection.terminate()
    except BaseException:
        connection.terminate()
        raise


@asynccontextmanager
async def transaction(connection: Any) -> AsyncIterator[None]:
    """Commit at the end, roll back on an error of the server's.

    Anything else (the wire, a timeout, cancellation) drops the connection at once, which rolls
    back too and waits for nobody.
    """
    try:
        await connection.execute("BEGIN")
        try:
            yield
        except asyncpg.PostgresError:
            if not connection.is_closed():
                await connection.execute("ROLLBACK")
            raise
        await connection.execute("COMMIT")
    except asyncpg.PostgresError:
        raise
    except BaseException:
        connection.terminate()
        raise
