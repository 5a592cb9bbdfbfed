"""What the files and the variable that an OPC UA `conn` names hold."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_agent.errors import TransientError
from edge_agent.protocols.opcua_syntax import OpcuaConn

SECRET_BYTES_MAX: Final = 65_536
"""Passwords, certificates and keys are far smaller; a larger file is another one by mistake."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the files and the variable of a `conn` hold. Printing it shows no secret."""

    password: str | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    server_certificate: bytes | None = field(default=None, repr=False)
    user_certificate: bytes | None = field(default=None, repr=False)
    user_key: bytes | None = field(default=None, repr=False)


def load_credentials(conn: OpcuaConn) -> Credentials:
    """Read what `conn` names. Blocks; raises ``TransientError``, since a file may come yet.

    A relative name means the file of that name in `$CREDENTIALS_DIRECTORY` (systemd) if there is
    one, else it counts from the working folder.
    """
    password = None
    if conn.password_env is not None:
        password = os.environ.get(conn.password_env)
        if not password:
            raise TransientError(f"{conn}: the variable {conn.password_env} is not set")
    elif conn.password_file is not None:
        content = _read(conn, "password_file", conn.password_file)
        try:
            password = content.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise TransientError(f"{conn}: password_file is not UTF-8 text") from error
    files = {
        name: _read(conn, name, path)
        for name in ("certificate", "key", "server_certificate", "user_certificate", "user_key")
        if (path := getattr(conn, name)) is not None
    }
    return Credentials(password, **files)


def _read(conn: OpcuaConn, option: str, name: str) -> bytes:
    path = Path(name)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and not path.is_absolute() and (Path(credentials) / path).is_file():
        path = Path(credentials) / path
    try:
        if path.exists() and not path.is_file():
            raise TransientError(f"{conn}: {option}: {path} is not a regular file")
        with path.open("rb") as file:
            content = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise TransientError(f"{conn}: {option}: {path}: {error.strerror}") from error
    if not 0 < len(content) <= SECRET_BYTES_MAX:
        raise TransientError(
            f"{conn}: {option}: {path} has {len(content)} bytes or more;"
            f" allowed: 1 to {SECRET_BYTES_MAX}"
        )
    return content
