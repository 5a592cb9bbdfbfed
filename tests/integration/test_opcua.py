"""OPC UA against two real servers: asyncua's, and node-opcua, which this project did not write.

Each is a process of its own; an operator at the same server writes the values.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asyncua import ua

from edge_agent.errors import TransientError
from edge_agent.model import AddressSyntax, ValueType
from edge_agent.planner import Block, plan
from edge_agent.protocols import opcua, opcua_client
from edge_agent.protocols.base import Reply
from edge_agent.protocols.opcua import OpcuaDriver
from tests.opcua_server import (
    NAMESPACE,
    NODES,
    PASSWORD,
    USER,
    AsyncuaServer,
    Identity,
    NodeOpcuaServer,
    Operator,
    data_value,
    identity,
    operator,
)
from tests.tags import plain_tag

# uvloop's transports differ from asyncio's in what they raise and when; the agent runs on uvloop.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

ONE_LOOP = pytest.mark.asyncio(loop_factories=["uvloop"])
"""For tests whose point is not the transport: servers take seconds to start."""

AnyServer = AsyncuaServer | NodeOpcuaServer
KINDS: dict[str, type[AnyServer]] = {"asyncua": AsyncuaServer, "node-opcua": NodeOpcuaServer}

PERIOD_MS = 200
WITHIN_S = 10.0
"""When something is given up that must happen: generous, for a busy machine."""
LOOK_S = 0.02
NUMBERS = {name: float(value) for name, (kind, value) in NODES.items() if kind != "String"}
LONG_AGO = datetime(2024, 5, 6, 7, 8, 9, 123_000, tzinfo=UTC)
BAD, UNCERTAIN = ua.StatusCodes.BadSensorFailure, ua.StatusCodes.UncertainSensorNotAccurate


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def syntax(_: str) -> type[AddressSyntax]:
    return OpcuaDriver


def block_of(conn: str, names: Sequence[str], period_ms: int = PERIOD_MS) -> Block:
    """One block of tags that are called like their nodes."""
    tags = [
        plain_tag(
            name,
            protocol="opcua",
            conn=conn,
            address=name if "=" in name else f"nsu={NAMESPACE};s={name}",
            type=ValueType.FLOAT64,
            period_ms=period_ms,
        )
        for name in names
    ]
    [connection] = plan(tags, syntax)
    [block] = connection.scan_classes[0].blocks
    return block


@dataclass
class Line:
    """A connected driver with one block, and all that it has said."""

    driver: OpcuaDriver
    block: Block
    samples: list[tuple[str, int, float]] = field(default_factory=list)
    """Tag, time and value, in the order of the replies."""

    async def read(self) -> Sequence[Reply]:
        async with asyncio.timeout(self.driver.timeout_s):
            replies = await self.driver.read(self.block)
        for reply in replies:
            places = range(len(self.block.tags)) if reply.positions is None else reply.positions
            self.samples += [
                (self.block.tags[place].tag, reply.ts_ms, value)
                for place, value in zip(places, reply.values, strict=True)
            ]
        return replies

    async def until(self, condition: Callable[[], bool], every_s: float = LOOK_S) -> None:
        """Read until something holds."""
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < deadline, f"not within {WITHIN_S} s: {self.samples[-20:]}"
            await asyncio.sleep(every_s)
            await self.read()

    def of(self, name: str) -> list[float]:
        """Values of a tag, oldest first."""
        return [value for tag, _, value in self.samples if tag == name]

    def newest(self) -> dict[str, float]:
        return {tag: value for tag, _, value in self.samples}

    async def until_known(self) -> None:
        """Read until every tag has been heard of."""
        await self.until(lambda: len(self.newest()) == len(self.block.tags))


@asynccontextmanager
async def connected(conn: str, names: Sequence[str] = tuple(NUMBERS)) -> AsyncIterator[Line]:
    line = Line(OpcuaDriver(conn, now_ms=now_ms), block_of(conn, names))
    before = asyncio.all_tasks()
    await line.driver.connect()
    try:
        yield line
    finally:
        await line.driver.close()
        left = asyncio.all_tasks() - before
        assert not left, "no task outlives close()"


@pytest.fixture(scope="module", params=KINDS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AnyServer]:
    with KINDS[request.param](tmp_path_factory.mktemp("opcua")) as running:
        yield running


@pytest.fixture(params=["subscribe", "poll"])
def conn(request: pytest.FixtureRequest, server: AnyServer) -> str:
    return f"{server.conn}?mode={request.param}"


async def reset(writer: Operator) -> None:
    for name in NUMBERS:
        await writer.write(name, data_value(name, NODES[name][1]))


@pytest.fixture
async def writer(server: AnyServer) -> AsyncIterator[Operator]:
    """An operator; all values are as they were at the start, before and after."""
    async with operator(server) as somebody:
        await reset(somebody)
        yield somebody
        await reset(somebody)


# Values.


async def test_values_are_those_of_the_server(conn: str, writer: Operator) -> None:
    """Every numeric type and Boolean, and what is written later."""
    async with connected(conn) as line:
        await line.until_known()
        assert line.newest() == NUMBERS
        await writer.write("Pump.Pressure", data_value("Pump.Pressure", -1.25e-7))
        await writer.write("Pump.Running", data_value("Pump.Running", False))
        await line.until(lambda: line.of("Pump.Pressure")[-1] == -1.25e-7)
        await line.until(lambda: line.of("Pump.Running")[-1] == 0.0)
        assert line.of("Pump.Speed")[-1] == -2


async def test_a_sample_has_its_sources_time(conn: str, writer: Operator) -> None:
    """Not that of its arrival."""
    await writer.write("Tank.Level", data_value("Tank.Level", 0.25, LONG_AGO))
    async with connected(conn, ["Tank.Level"]) as line:
        await line.until_known()
        assert line.samples[0] == ("Tank.Level", milliseconds(LONG_AGO), 0.25)


@pytest.mark.parametrize(
    "stamp", [datetime(1970, 1, 1, 0, 5, tzinfo=UTC), datetime(2099, 1, 1, tzinfo=UTC)]
)
async def test_a_clock_that_was_never_set_gives_no_time(
    conn: str, writer: Operator, stamp: datetime
) -> None:
    """The server's time stamp counts then, or the time of arrival."""
    before = now_ms()
    await writer.write("Tank.Level", data_value("Tank.Level", 0.25, stamp))
    async with connected(conn, ["Tank.Level"]) as line:
        await line.until_known()
        name, ts_ms, value = line.samples[0]
        assert (name, value) == ("Tank.Level", 0.25)
        assert before - 60_000 <= ts_ms <= now_ms()


async def test_a_bad_status_is_nan_and_an_uncertain_one_a_value(
    conn: str, writer: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    """Bad costs the value, is said once by its name, and is over when the value is good again."""
    caplog.set_level(logging.INFO)
    names = ["Pump.Pressure", "Pump.Speed"]
    async with connected(conn, names) as line:
        await line.until_known()
        at = datetime.now(UTC)
        await writer.write("Pump.Pressure", data_value("Pump.Pressure", 3.0, at, status=UNCERTAIN))
        await line.until(lambda: line.of("Pump.Pressure")[-1] == 3.0)
        for _ in range(2):
            await writer.write("Pump.Pressure", data_value("Pump.Pressure", 1.0, status=BAD))
            await line.until(lambda: math.isnan(line.of("Pump.Pressure")[-1]))
            await writer.write("Pump.Pressure", data_value("Pump.Pressure", 4.0))
            await line.until(lambda: line.of("Pump.Pressure")[-1] == 4.0)
        assert line.of("Pump.Speed")[-1] == -2
    said = [record for record in caplog.records if "BadSensorFailure" in record.message]
    assert [record.levelname for record in said].count("WARNING") == 1
    assert "PUMP01/Pump.Pressure" in said[0].message


async def test_a_missing_node_costs_its_own_tag(
    conn: str, writer: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    """By its name, by its number, or by a namespace that the server does not have."""
    missing = ["No.Such", "ns=999;s=Pump.Speed", "nsu=http://nowhere;s=Pump.Speed", "i=99999999"]
    async with connected(conn, [*missing, *NUMBERS]) as line:
        await line.until_known()
        for _ in range(3):
            await line.read()
        for name in missing:
            assert math.isnan(line.newest()[name])
        assert {name: line.newest()[name] for name in NUMBERS} == NUMBERS
    said = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "BadNodeId" in said[0].message
    assert sum(r.message.count("No.Such") > 0 for r in said) == 1


async def test_what_is_no_number_costs_its_own_tag(
    conn: str, writer: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    """Text and arrays are NaN, said once with the type."""
    async with connected(conn, ["Pump.Name", "i=2255", "Pump.Speed"]) as line:
        await line.until_known()
        await line.read()
        assert math.isnan(line.newest()["Pump.Name"])
        assert math.isnan(line.newest()["i=2255"])
        assert line.newest()["Pump.Speed"] == -2
    text = "\n".join(r.message for r in caplog.records if r.levelno >= logging.WARNING)
    assert text.count("the value is a String") == 1
    assert text.count("the value is an array") == 1


async def test_a_number_of_another_kind_of_node_id(conn: str, writer: Operator) -> None:
    """A node of the server's own, by number: its state is 0, running."""
    async with connected(conn, ["i=2259"]) as line:
        await line.until_known()
        assert line.newest() == {"i=2259": 0.0}


# Subscriptions.


async def test_a_burst_between_two_reads_is_complete(server: AnyServer, writer: Operator) -> None:
    """Every change that the server was told arrives, in order and with its own time."""
    line_conn = f"{server.conn}?sampling_ms=0&queue_size=1000"
    async with connected(line_conn, ["Pump.Count", "Pump.Speed"]) as line:
        await line.until_known()
        line.samples.clear()
        start = datetime.now(UTC).replace(microsecond=0)
        changes = [
            data_value("Pump.Count", n, start + timedelta(milliseconds=n)) for n in range(300)
        ]
        for change in changes:
            await writer.write("Pump.Count", change)
        await line.until(lambda: 299.0 in line.of("Pump.Count"))
        arrived = [sample for sample in line.samples if sample[0] == "Pump.Count"][:300]
        assert arrived == [("Pump.Count", milliseconds(start) + n, float(n)) for n in range(300)]


@ONE_LOOP
async def test_a_queue_that_is_too_short_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The newest changes arrive, and the log says that others did not."""
    with NodeOpcuaServer(tmp_path) as server:
        async with (
            operator(server) as writer,
            connected(f"{server.conn}?sampling_ms=0&queue_size=5", ["Pump.Count"]) as line,
        ):
            await line.until_known()
            for n in range(300):
                await writer.write("Pump.Count", data_value("Pump.Count", n))
            await line.until(lambda: 299.0 in line.of("Pump.Count"))
            assert len([v for v in line.of("Pump.Count") if v < 300]) < 300
    assert "the server's queue was full" in caplog.text


@ONE_LOOP
async def test_changes_that_nobody_reads_have_a_bound(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest are kept, and how many were not is said."""
    monkeypatch.setattr(opcua, "CHANGES_MAX", 10)
    with AsyncuaServer(tmp_path) as server:
        async with (
            operator(server) as writer,
            connected(f"{server.conn}?queue_size=1000", ["Pump.Count"]) as line,
        ):
            await line.until_known()
            await writer.write("Pump.Count", *(data_value("Pump.Count", n) for n in range(100)))
            await asyncio.sleep(3 * PERIOD_MS / 1000)  # they arrive, unread
            await line.read()
            assert line.of("Pump.Count")[-10:] == [float(n) for n in range(90, 100)]
    assert "90 changes lost" in caplog.text


@ONE_LOOP
@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_a_node_that_comes_later_is_found(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server refused is asked for again, without a new connection."""
    monkeypatch.setattr(opcua, "REFUSED_RETRY_S", 0.2)
    with NodeOpcuaServer(tmp_path) as server:
        async with (
            operator(server) as somebody,
            connected(f"{server.conn}?mode={mode}", ["Control.Late", "Pump.Speed"]) as line,
        ):
            await line.until_known()
            assert math.isnan(line.newest()["Control.Late"])
            await somebody.call("AddLate")
            period_s = PERIOD_MS / 1000  # so that every read finds something
            await line.until(lambda: line.newest()["Control.Late"] == 1.5, every_s=period_s)
            assert line.newest()["Pump.Speed"] == -2


async def test_what_never_changes_does_not_turn_silent(conn: str, writer: Operator) -> None:
    """A good value is repeated under the server's newer times, never under an older one."""
    async with connected(conn, ["Pump.Speed"]) as line:
        await line.until(lambda: len(line.samples) >= 5)
        assert set(line.of("Pump.Speed")) == {-2.0}
        times = [ts_ms for _, ts_ms, _ in line.samples]
        assert times == sorted(set(times))
        assert abs(times[-1] - now_ms()) < 5_000


async def test_a_block_that_is_forgotten(conn: str, writer: Operator) -> None:
    """Another one goes on; of the old one the server sends nothing any more.

    As when the map changes under a running connection: the new one begins before the old one ends.
    """
    async with connected(conn, ["Pump.Speed", "Tank.Level"]) as line:
        await line.until_known()
        [(_, old)] = line.driver._blocks.values()
        other = Line(line.driver, block_of(conn, ["Tank.Level", "Pump.Count"]))
        await other.until_known()
        await line.read()
        await line.driver.forget(line.block)
        for value in (1.5, 2.5):
            await writer.write("Tank.Level", data_value("Tank.Level", value))
            await other.until(lambda value=value: other.newest()["Tank.Level"] == value)  # type: ignore[misc]
        assert [block for block, _ in line.driver._blocks.values()] == [other.block]
        assert not getattr(old, "_arrived", ())


async def test_reads_of_a_subscription_never_wait(server: AnyServer, writer: Operator) -> None:
    """Once it stands, a read takes what is there, also while the server is stopped."""
    async with connected(server.conn) as line:
        await line.until_known()
        with server.paused():
            await asyncio.sleep(2 * PERIOD_MS / 1000)
            await line.read()
            started = time.monotonic()
            for _ in range(20):
                assert await line.read() == []
            assert time.monotonic() - started < 0.2
        line.samples.clear()
        await line.until_known()


async def test_a_subscription_without_a_sign_of_life_is_given_up(server: AnyServer) -> None:
    """A server that hangs is a connection of no use, however open its socket is."""
    async with connected(f"{server.conn}?timeout_ms=500") as line:
        await line.until_known()
        with server.paused(), pytest.raises(TransientError, match="no sign of life"):
            await line.until(lambda: False)


async def test_the_first_read_may_be_cancelled(server: AnyServer, writer: Operator) -> None:
    """The subscription comes to be none the less, once."""
    async with connected(server.conn) as line:
        with server.paused():
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await line.driver.read(line.block)
        await line.until_known()
        assert line.newest() == NUMBERS


# Servers that go away.


@pytest.fixture(params=KINDS)
def mortal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyServer]:
    with KINDS[request.param](tmp_path) as running:
        yield running


@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_a_server_that_is_killed_and_comes_back(mortal: AnyServer, mode: str) -> None:
    """Its end is noticed at once, and it is read again once it is back, having forgotten all."""
    async with connected(f"{mortal.conn}?mode={mode}") as line:
        await line.until_known()
        mortal.kill()
        started = time.monotonic()
        with pytest.raises(TransientError, match=f"127.0.0.1:{mortal.port}: "):
            await line.until(lambda: False)
        assert time.monotonic() - started < 1.0
        with pytest.raises(TransientError, match="refused"):
            await line.driver.connect()
        with pytest.raises(TransientError, match="not connected"):
            await line.driver.read(line.block)
        mortal.start()
        await line.driver.connect()
        line.samples.clear()
        await line.until_known()
        assert line.newest() == NUMBERS


async def test_a_read_that_waits_fails_with_its_connection(mortal: AnyServer) -> None:
    """At once, with the reason; it does not wait out its timeout."""
    async with connected(f"{mortal.conn}?mode=poll") as line:
        await line.until_known()
        mortal.pause()
        waiting = asyncio.create_task(line.read())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        mortal.kill()
        started = time.monotonic()
        with pytest.raises(TransientError, match=r"closed by the server|reset by peer"):
            await waiting
        assert time.monotonic() - started < 1.0


@ONE_LOOP
@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_a_server_that_forgets_its_sessions(tmp_path: Path, mode: str) -> None:
    """The socket stays open: the next answer is a TransientError, and a new session works."""
    with NodeOpcuaServer(tmp_path) as server:
        async with (
            operator(server) as somebody,
            connected(f"{server.conn}?mode={mode}&timeout_ms=2000") as line,
        ):
            await line.until_known()
            await somebody.call("Forget")
            with pytest.raises(TransientError, match=r"127\.0\.0\.1"):
                await line.until(lambda: False)
            await line.driver.connect()
            line.samples.clear()
            await line.until_known()
            assert line.newest() == NUMBERS


@ONE_LOOP
async def test_what_had_arrived_before_the_end_is_read_first(tmp_path: Path) -> None:
    """A change that reached us is not lost with the connection."""
    with AsyncuaServer(tmp_path) as server:
        async with connected(server.conn, ["Pump.Count"]) as line:
            await line.until_known()
            async with operator(server) as writer:
                await writer.write("Pump.Count", data_value("Pump.Count", 7))
                await asyncio.sleep(3 * PERIOD_MS / 1000)  # it arrives, unread
            server.kill()
            await asyncio.sleep(0.1)  # and so does the end
            await line.read()
            assert line.of("Pump.Count")[-1] == 7.0
            with pytest.raises(TransientError):
                await line.until(lambda: False)


async def test_a_port_where_somebody_else_listens() -> None:
    """Garbage is a TransientError within the timeout, and no task is left."""

    async def answer(reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        await reader.read(10)
        out.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"\xff" * 100)
        out.close()

    stranger = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with stranger:
        port = stranger.sockets[0].getsockname()[1]
        driver = OpcuaDriver(f"opc.tcp://127.0.0.1:{port}?timeout_ms=1000", now_ms=now_ms)
        before = asyncio.all_tasks()
        with pytest.raises(TransientError, match=f"127.0.0.1:{port}: "):
            await driver.connect()
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks() - before) == 0


async def test_a_connect_that_nobody_answers_and_is_cancelled() -> None:
    """It keeps to its timeout, may be cancelled, and leaves no task."""
    with socket.socket() as mute:  # the kernel accepts, nobody answers
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        port = mute.getsockname()[1]
        driver = OpcuaDriver(f"opc.tcp://127.0.0.1:{port}?timeout_ms=100", now_ms=now_ms)
        with pytest.raises(TransientError, match=r"no session within 0\.1 s|no answer in time"):
            await driver.connect()
        driver = OpcuaDriver(f"opc.tcp://127.0.0.1:{port}", now_ms=now_ms)
        attempt = asyncio.create_task(driver.connect())
        await asyncio.sleep(0.05)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await driver.close()


# Security.


@dataclass(frozen=True)
class House:
    """A secured server and who may come in."""

    server: AnyServer
    agent: Identity
    stranger: Identity
    server_identity: Identity
    password_file: Path

    def conn(self, security_mode: str, more: str = "") -> str:
        return (
            f"{self.server.conn}?security=Basic256Sha256&security_mode={security_mode}"
            f"&certificate={self.agent.certificate}&key={self.agent.key}{more}"
        )

    @property
    def user(self) -> str:
        return f"&user={USER}&password_file={self.password_file}"


@pytest.fixture(scope="module", params=KINDS)
def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("secured")
    own, agent, stranger = (identity(folder, name) for name in ("server", "agent", "stranger"))
    password_file = folder / "password"
    password_file.write_text(f"{PASSWORD}\n")
    kind = KINDS[request.param]
    server = kind(
        folder / "run",
        identity=own,
        users={USER: PASSWORD},
        user_certificate=agent.certificate,
    )
    with server:
        yield House(server, agent, stranger, own, password_file)


async def attempt(conn: str) -> None:
    """Connect once, and leave nothing open if that works against expectation."""
    driver = OpcuaDriver(conn, now_ms=now_ms)
    try:
        await driver.connect()
    finally:
        await driver.close()


async def read_all(conn: str) -> None:
    async with connected(conn) as line:
        await line.until_known()
        assert line.newest() == NUMBERS


@pytest.mark.parametrize("security_mode", ["Sign", "SignAndEncrypt"])
@pytest.mark.parametrize("mode", ["subscribe", "poll"])
async def test_user_and_password_over_a_secured_channel(
    house: House, security_mode: str, mode: str
) -> None:
    """Both security modes, with the server's certificate pinned."""
    pinned = f"&server_certificate={house.server_identity.certificate}&mode={mode}"
    await read_all(house.conn(security_mode, house.user + pinned))


@ONE_LOOP
async def test_a_connection_that_is_rarely_used_stays(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys are renewed and the session is kept in time, however long the period is."""
    monkeypatch.setattr(opcua_client, "SESSION_TIMEOUT_MS", 2_000)
    monkeypatch.setattr(opcua_client, "CHANNEL_LIFETIME_MS", 2_000)
    async with connected(house.conn("SignAndEncrypt", f"{house.user}&mode=poll")) as line:
        await line.read()
        await asyncio.sleep(5)  # more than two of each
        line.samples.clear()
        await line.read()
        assert line.newest() == NUMBERS


@ONE_LOOP
@pytest.mark.parametrize("security_mode", ["Sign", "SignAndEncrypt"])
async def test_a_certificate_as_the_user(house: House, security_mode: str) -> None:
    """In place of name and password."""
    user = f"&user_certificate={house.agent.certificate}&user_key={house.agent.key}"
    await read_all(house.conn(security_mode, user))


@ONE_LOOP
async def test_a_password_from_the_environment(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map names the variable; without it, connecting says so."""
    conn = house.conn("Sign", f"&user={USER}&password_env=PLC_PASSWORD")
    with pytest.raises(TransientError, match="variable PLC_PASSWORD is not set"):
        await attempt(conn)
    monkeypatch.setenv("PLC_PASSWORD", PASSWORD)
    await read_all(conn)


@ONE_LOOP
async def test_a_relative_password_file_is_a_systemd_credential(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`LoadCredential=` puts it into a folder of its own."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(house.password_file.parent))
    await read_all(house.conn("Sign", f"&user={USER}&password_file=password"))


@ONE_LOOP
async def test_a_wrong_password(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a TransientError that says what to check, and never shows the password."""
    caplog.set_level(logging.DEBUG)
    (tmp_path / "wrong").write_text("guess-4711")
    conn = house.conn("SignAndEncrypt", f"&user={USER}&password_file={tmp_path / 'wrong'}")
    with pytest.raises(TransientError, match=r"refused: Bad\w+; check user") as caught:
        await attempt(conn)
    assert "guess-4711" not in caplog.text + str(caught.value)


@ONE_LOOP
async def test_nobody_comes_in_without_a_login(house: House) -> None:
    """A server that wants users refuses who has none."""
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:\d+: .*(Bad|refused)"):
        await attempt(house.conn("Sign"))


@ONE_LOOP
async def test_another_server_than_the_pinned_one(house: House) -> None:
    """Who shows another certificate gets no password."""
    pinned = f"&server_certificate={house.stranger.certificate}"
    with pytest.raises(TransientError, match=r"127\.0\.0\.1"):
        await attempt(house.conn("Sign", house.user + pinned))


@ONE_LOOP
@pytest.mark.parametrize(
    ("option", "content", "text"),
    [
        ("password_file", None, "No such file"),
        ("password_file", b"", "allowed: 1 to"),
        ("password_file", b"\xff\xfe", "not UTF-8"),
        ("certificate", b"nonsense", "Error"),
        ("key", b"-----BEGIN nonsense", "Error"),
    ],
)
async def test_files_that_are_not_what_they_should_be(
    house: House, tmp_path: Path, option: str, content: bytes | None, text: str
) -> None:
    """A file that is missing or damaged is a TransientError: it may be put right meanwhile."""
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    options = {
        "certificate": house.agent.certificate, "key": house.agent.key,
        "password_file": house.password_file, option: path,
    }  # fmt: skip
    conn = f"{house.server.conn}?security=Basic256Sha256&user={USER}" + "".join(
        f"&{name}={value}" for name, value in options.items()
    )
    with pytest.raises(TransientError, match=text):
        await attempt(conn)


@ONE_LOOP
@pytest.mark.parametrize("server", ["asyncua"], indirect=True)  # node-opcua always offers it
async def test_security_that_the_server_does_not_have(server: AnyServer, tmp_path: Path) -> None:
    """It says that there is no such endpoint."""
    agent = identity(tmp_path, "agent")
    conn = f"{server.conn}?security=Basic256Sha256&certificate={agent.certificate}&key={agent.key}"
    with pytest.raises(TransientError, match="no endpoint with this security"):
        await attempt(conn)


@contextmanager
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.WARNING)
    yield
    assert not [r for r in caplog.records if r.name.startswith(("asyncua", "asyncio"))]


async def test_the_library_logs_nothing(
    mortal: AnyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """What asyncua would say of a server's death is said by our error, once."""
    with quiet(caplog):
        async with connected(mortal.conn) as line:
            await line.until_known()
            mortal.kill()
            with pytest.raises(TransientError):
                await line.until(lambda: False)
