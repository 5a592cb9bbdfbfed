"""PostgreSQL through TLS, with SCRAM passwords and client certificates, and what goes wrong there.

The server has an authority's certificate for 127.0.0.1, and takes the login roles `secured` (by
password) and `certified` (by client certificate) through TLS only.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.errors import TransientError
from edge_agent.postgres import database
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.postgres import PostgresSink
from tests.integration.plc_database import Cluster, expected_rows, now_ms, scans
from tests.servers import Postgres
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

PASSWORD = "s3cret/word"
JOURNAL = JournalIdentity("edge-1", "journal-1")
HBA = """
local   all all                    trust
host    all postgres  127.0.0.1/32 trust
hostssl all secured   127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
"""


class Secured:
    """The server and its certificates."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        self.certificates = certificates
        self.server = Postgres(
            folder / "server", settings=["fsync=off", "ssl=on", "ssl_ca_file=root.crt"]
        )
        self._data = self.server.folder / "data"
        (self._data / "pg_hba.conf").write_text(HBA)
        self._put("ca.pem", "root.crt")
        self.present("right")
        self.server.start()
        asyncio.run(self._prepare())

    async def _prepare(self) -> None:
        await database.init(self.server.dsn())
        async with Cluster.connected(self.server.dsn()) as connection:
            await connection.execute(
                f"CREATE ROLE secured LOGIN PASSWORD '{PASSWORD}' IN ROLE ingest;"
                "CREATE ROLE certified LOGIN IN ROLE ingest"
            )

    def _put(self, name: str, place: str) -> None:
        shutil.copy(self.certificates / name, self._data / place)
        (self._data / place).chmod(0o600)
        shutil.chown(self._data / place, self._data.stat().st_uid)

    def present(self, name: str) -> None:
        """Choose the server's certificate."""
        self._put(f"{name}.pem", "server.crt")
        self._put(f"{name}.key", "server.key")

    async def replace(self, name: str) -> None:
        """The same while it runs; returns when new connections see it."""
        wanted = (self.certificates / f"{name}.pem").read_text()
        self.present(name)
        async with Cluster.connected(self.server.dsn()) as connection:
            await connection.execute("SELECT pg_reload_conf()")

        async def is_seen() -> bool:
            return await asyncio.to_thread(self._seen) == wanted

        await until(is_seen, f"the certificate {name}", every_s=0.02)

    def _seen(self) -> str:
        """The certificate that the server shows, in PEM."""
        address = f"127.0.0.1:{self.server.port}"
        shown = subprocess.run(
            ["openssl", "s_client", "-starttls", "postgres", "-connect", address],
            input=b"",
            capture_output=True,
            check=False,
        ).stdout.decode()
        _, begin, rest = shown.partition("-----BEGIN CERTIFICATE-----\n")
        body, end, _ = rest.partition("-----END CERTIFICATE-----\n")
        return begin + body + end

    def dsn(self, user: str = "secured", host: str = "127.0.0.1", **options: str) -> str:
        """A dsn that verifies the server in full, but for what the options say."""
        login = "secured:s3cret%2Fword" if user == "secured" else user
        wanted = {"sslmode": "verify-full", "sslrootcert": str(self.certificates / "ca.pem")}
        query = "&".join(f"{key}={value}" for key, value in (wanted | options).items())
        return f"postgresql://{login}@{host}:{self.server.port}/postgres?{query}"

    def key(self, certificate: str = "certified.pem", key: str = "certified.key") -> dict[str, str]:
        """The options that name a client's certificate."""
        folder = self.certificates
        return {"sslcert": str(folder / certificate), "sslkey": str(folder / key)}


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Iterator[Secured]:
    secured = Secured(tmp_path_factory.mktemp("tls"), certificates)
    yield secured
    secured.server.stop()


# --- what works --------------------------------------------------------------------------------


async def deliver(secured: Secured, dsn: str) -> tuple[str, str]:
    """Deliver a batch; how the server sees the connection that it came by: user, TLS version."""
    sent = scans(1, now_ms(), 3)
    async with Cluster.connected(secured.server.dsn()) as connection:
        await connection.execute("TRUNCATE plc_raw, plc_cursor")
        sink = PostgresSink(agent_id="edge-1", dsn=dsn)
        await sink.open(JOURNAL)
        try:
            assert await sink.deliver([sent]) == 0
            seen = await connection.fetchrow(
                "SELECT usename, version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                " WHERE ssl AND application_name = 'edge-agent edge-1'"
            )
        finally:
            await sink.close()
        values = await connection.fetch("SELECT value FROM plc_raw")
    assert sorted(row[0] for row in values) == sorted(expected_rows([sent]).values())
    return seen["usename"], seen["version"]


async def test_delivery_with_a_password(secured: Secured) -> None:
    """The server is verified in full, and the password is a SCRAM one."""
    assert await deliver(secured, secured.dsn()) == ("secured", "TLSv1.3")
    async with Cluster.connected(secured.server.dsn()) as connection:
        stored = await connection.fetchval(
            "SELECT rolpassword FROM pg_authid WHERE rolname = 'secured'"
        )
    assert stored.startswith("SCRAM-SHA-256$")


async def test_delivery_with_a_client_certificate(secured: Secured) -> None:
    """The certificate's name is the user; a key of its own password is opened with it."""
    plain = secured.dsn("certified", **secured.key())
    assert await deliver(secured, plain) == ("certified", "TLSv1.3")
    locked = secured.dsn("certified", **secured.key(key="locked.key"), sslpassword="x")
    assert await deliver(secured, locked) == ("certified", "TLSv1.3")


async def test_upkeep_and_status(secured: Secured) -> None:
    """Everything that takes a dsn takes this one."""
    assert (await database.Upkeep(agent_id="edge-1", dsn=secured.dsn()).run()).minutes_left == 0
    status = await database.status(
        f"{secured.server.dsn()}?sslmode=verify-full&sslrootcert={secured.certificates}/ca.pem"
    )
    assert not status.problems


# --- what does not -----------------------------------------------------------------------------


def sockets() -> int:
    """How many this process has open."""
    return sum(link.is_socket() for link in Path("/proc/self/fd").iterdir())


async def refusal(dsn: str) -> TransientError:
    """The error with which a sink of this dsn does not open, leaving no socket behind."""
    before = sockets()
    sink = PostgresSink(agent_id="edge-1", dsn=dsn)
    try:
        with pytest.raises(TransientError) as caught:
            await sink.open(JOURNAL)
    finally:
        await sink.close()
    async with asyncio.timeout(5):
        while sockets() > before:  # the farewell of TLS takes a moment
            await asyncio.sleep(0.01)
    assert "s3cret" not in f"{caught.value}{caught.value.hint}"
    assert "\n" not in str(caught.value)
    return caught.value


REFUSALS: dict[str, tuple[Callable[[Secured], str], str, str]] = {
    "an authority that did not sign the server's certificate": (
        lambda s: s.dsn(sslrootcert=str(s.certificates / "other-ca.pem")),
        "certificate verify failed",
        "sslrootcert of the dsn must name the authority",
    ),
    "no authority": (
        lambda s: s.dsn().partition("&sslrootcert")[0],
        "root certificate file",
        "sslrootcert of the dsn must name the authority",
    ),
    "an authority that is not there": (
        lambda s: s.dsn(sslrootcert="/nowhere/ca.pem"),
        "No such file",
        "this user must be able to read sslrootcert=/nowhere/ca.pem",
    ),
    "an authority that is no certificate": (
        lambda s: s.dsn(sslrootcert=str(s.certificates / "ca.key")),
        "(?i)no certificate",
        "must be PEM files",
    ),
    "a host that the certificate does not name": (
        lambda s: s.dsn(host="localhost"),
        "not valid for 'localhost'",
        "write the dsn's host as the server's certificate has it",
    ),
    "no TLS where the server wants it": (
        lambda s: s.dsn(sslmode="disable"),
        r"no encryption \(28000\)",
        "check user, sslmode",
    ),
    "a wrong password": (
        lambda s: s.dsn().replace("s3cret", "s3cret-not"),
        r"password authentication failed .*28P01",
        "check the user and the password",
    ),
    "no client certificate": (
        lambda s: s.dsn("certified"),
        "valid client certificate",
        "sslcert and sslkey",
    ),
    "another user's client certificate": (
        lambda s: s.dsn("certified", **s.key("right.pem", "right.key")),
        "certificate authentication failed",
        "sslcert and sslkey",
    ),
    "a client certificate of an authority that the server does not know": (
        lambda s: s.dsn("certified", **s.key("other-ca.pem", "other-ca.key")),
        "(?i)unknown.ca|connection was closed",
        "does the server know the authority that signed sslcert?",
    ),
    "a key of another certificate": (
        lambda s: s.dsn("certified", **s.key("right.pem", "certified.key")),
        "key values mismatch",
        "do not belong together",
    ),
    "a key whose password is not given": (
        lambda s: s.dsn("certified", **s.key(key="locked.key")),
        "PEM",
        "needs sslpassword",
    ),
    "a key that is not there": (
        lambda s: s.dsn("certified", **s.key(key="none.key")),
        "No such file",
        "none.key",
    ),
}


@pytest.mark.parametrize("case", list(REFUSALS))
async def test_a_refusal_says_what_to_do(secured: Secured, case: str) -> None:
    """In one line, with a hint, and without the password."""
    make_dsn, message, hint = REFUSALS[case]
    error = await refusal(make_dsn(secured))
    assert re.search(message, str(error)), error
    assert hint in error.hint


@pytest.mark.parametrize(
    ("certificate", "message", "hint"),
    [
        ("expired", "certificate has expired", "renew the server's certificate"),
        ("elsewhere", "not valid for '127.0.0.1'", "as the server's certificate has it"),
    ],
)
async def test_the_servers_certificate_is_wrong(
    secured: Secured, certificate: str, message: str, hint: str
) -> None:
    """Nothing is delivered to it, until it has the right one again."""
    await secured.replace(certificate)
    try:
        error = await refusal(secured.dsn())
    finally:
        await secured.replace("right")
    assert message in str(error)
    assert hint in error.hint
    assert await deliver(secured, secured.dsn()) == ("secured", "TLSv1.3")
