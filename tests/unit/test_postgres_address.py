"""The database address: what is accepted, and that no secret of it is ever shown; named SQL."""

from __future__ import annotations

import asyncio
import re

import asyncpg
import pytest

from edge_agent.errors import ConfigError, TransientError
from edge_agent.postgres.connection import Dsn, connect, translated_errors
from edge_agent.postgres.sql_files import FLAVOURS, folder, queries, schema_files
from tests.servers import free_port

SECRET = "s3cr3t-w0rd"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://agent:{SECRET}@db.plant:5432/plc",
        f"postgres://agent:{SECRET}@[::1]:5432/plc?sslmode=verify-full&sslrootcert=/ca.pem",
        f"postgresql://agent@h1:5432,h2:5433/plc?password={SECRET}",
        f"postgresql:///plc?host=/run/postgresql&sslpassword={SECRET}",
    ],
)
def test_good_addresses_show_no_secret(text: str) -> None:
    """repr and redacted messages have user, host and database only."""
    dsn = Dsn(text)
    assert dsn.reveal() == text
    assert SECRET not in repr(dsn)
    assert SECRET not in dsn.redact(f"cannot use {text}")
    assert repr(dsn).endswith("/plc")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"agent:{SECRET}@db/plc", "must begin with postgresql://"),
        (f"host=db password={SECRET}", "must begin with postgresql://"),
        (f"postgresql://agent:{SECRET}/x@db/plc", "port must be a number"),
        (f"postgresql://agent:x@db:{SECRET}/plc", "port must be a number"),
        (f"postgresql://agent:{SECRET}@db:70000/plc", "port must be a number"),
        (f"postgresql://agent:{SECRET}@[::1/plc", "not a URL"),
        (f"postgresql://agent:{SECRET}@db/plc?sslmode=yes", "sslmode must be one of"),
        (f"postgresql://agent:{SECRET}@db/plc?connect_timeout=5", "connect_timeout"),
    ],
)
def test_bad_addresses_say_what_is_allowed(text: str, problem: str) -> None:
    """The message has an example to copy and never quotes what may be the password."""
    with pytest.raises(ConfigError, match=re.escape(problem)) as caught:
        Dsn(text)
    assert "postgresql://USER:PASSWORD@HOST" in str(caught.value)
    assert SECRET not in f"{caught.value} {caught.value.hint}"
    assert caught.value.__cause__ is None


def test_errors_are_translated_without_the_password() -> None:
    """Whatever the library says, the secret in it is starred out and the cause is kept."""
    dsn = Dsn(f"postgresql://agent:{SECRET}@db/plc")
    with (
        pytest.raises(TransientError, match=r"agent@db/plc: connect: bad \*\*\*") as caught,
        translated_errors(dsn, "connect"),
    ):
        raise asyncpg.InterfaceError(f"bad {SECRET}")
    assert isinstance(caught.value.__cause__, asyncpg.InterfaceError)


async def test_what_the_network_refuses_is_said_plainly() -> None:
    """Without numbers of errors and names of calls, and with what to look at."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for address, text, hint in (
        (f"agent@127.0.0.1:{free_port()}", "Connection refused", "is PostgreSQL running"),
        ("agent:p@ss@127.0.0.1", "not known|resol", "%40"),
        (f"agent@127.0.0.1:{port}", "the server closed the connection", ""),
    ):
        dsn = Dsn(f"postgresql://{address}/plc")
        with pytest.raises(TransientError, match=text) as caught, translated_errors(dsn, "connect"):
            await connect(dsn, "test")
        assert hint in caught.value.hint
        assert "Errno" not in str(caught.value)
    server.close()


def test_other_errors_pass() -> None:
    """A bug is not a transient error."""
    with pytest.raises(KeyError), translated_errors(Dsn("postgresql://db/plc"), "connect"):
        raise KeyError("bug")


def test_every_named_query_is_used_and_every_used_one_is_named() -> None:
    """queries.sql and those who use it agree."""
    packages = [folder().parent / name for name in ("edge_agent", "remote", "dashboard", "bench")]
    source = "\n".join(
        path.read_text()
        for each in packages
        for path in each.rglob("*.py")
        if ".web" not in path.parts
    )
    asked_for = set(re.findall(r'queries\(\)\["(\w+)"\]', source))
    assert asked_for <= set(queries())
    assert set(queries()) <= set(re.findall(r'"(\w+)"', source)), "nobody asks for these"


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_schema_files_come_in_the_order_of_their_numbers(flavour: str) -> None:
    """Common files and the flavour's are one sequence."""
    names = [file.name.rpartition("/")[2] for file in schema_files(flavour)]
    assert names == sorted(names)
    assert len({name[:3] for name in names}) == len(names)
    assert names[0] == "010_roles.sql"
