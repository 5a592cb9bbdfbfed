"""Real servers for tests and benchmarks: each on free ports of loopback, in a folder of its own.

Every server waits until it answers, can be stopped, killed and started again on the same port,
and is ended by process id only.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(
    condition: Callable[[], bool], what: str, timeout_s: float = START_TIMEOUT_S
) -> None:
    """Poll a condition; fail with what was waited for."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.02)


class Server:
    """A process that this test run owns."""

    def __init__(self, folder: Path, *, user: str | None = None) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        # PostgreSQL refuses to run as root: the folder then belongs to the server's own user.
        self._user = user if user and os.getuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)
            for parent in folder.parents:
                if parent.stat().st_uid == os.getuid() and parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o011)

    def command(self) -> Sequence[str]:
        """Command line of the server in the foreground."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it answers now."""
        return answers(self.port)

    def start(self) -> Self:
        """Start it and wait until it answers."""
        assert self._process is None, "already running"
        self._log = (self.folder / "server.log").open("ab")
        command = self.command()
        self._process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            user=self._user,
            start_new_session=True,
        )
        process = self._process

        def up() -> bool:
            if process.poll() is not None:
                log = (self.folder / "server.log").read_text(errors="replace")
                raise RuntimeError(f"{command[0]} ended at once:\n{log[-2000:]}")
            return self.ready()

        try:
            wait_until(up, f"{command[0]} on port {self.port}")
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait. SIGKILL is the unkind way."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(sig)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_TIMEOUT_S)
        if self._log is not None:
            self._log.close()
            self._log = None

    def kill(self) -> None:
        """End it without a word. It may be paused."""
        self.stop(signal.SIGKILL)

    def pause(self) -> None:
        """Answer nothing any more; the kernel still takes connections and requests."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)  # all its threads

    def resume(self) -> None:
        """Answer again, what has been asked meanwhile too."""
        os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Paused for as long as the block runs."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None, "not running"
        return self._process.pid

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class Mosquitto(Server):
    """Mosquitto with a configuration of the caller's, anonymous by default."""

    def __init__(self, folder: Path, config: str = "allow_anonymous true\n") -> None:
        super().__init__(folder)
        self.config = config

    def command(self) -> Sequence[str]:
        path = self.folder / "mosquitto.conf"
        user = "user root\n" if os.getuid() == 0 else ""
        path.write_text(f"listener {self.port} 127.0.0.1\n{user}{self.config}")
        binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        return [binary, "-c", str(path)]

    @property
    def url(self) -> str:
        """Address for the agent's settings."""
        return f"mqtt://127.0.0.1:{self.port}"


def postgres_binaries() -> Path:
    """Folder of the newest PostgreSQL server installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name)
    )
    if not found:
        raise RuntimeError("PostgreSQL is not installed; run `make test` once, it installs it")
    return found[-1]


def timescale_installed() -> bool:
    """Whether the newest PostgreSQL server installed has the extension TimescaleDB."""
    try:
        version = postgres_binaries().parent.name
    except RuntimeError:
        return False
    return Path(f"/usr/share/postgresql/{version}/extension/timescaledb.control").exists()


TIMESCALE_SETTINGS = (
    "shared_preload_libraries=timescaledb",
    "timescaledb.telemetry_level=off",
    # No background jobs: a test runs those it means itself. Who wants them to run by themselves
    # adds TIMESCALE_WORKERS.
    "timescaledb.max_background_workers=0",
)
TIMESCALE_WORKERS = (
    # Each database with the extension keeps one worker, its scheduler, and each running job one.
    "timescaledb.max_background_workers=24",
    "max_worker_processes=40",
)


class Postgres(Server):
    """A fresh PostgreSQL cluster; the superuser is `postgres`, trusted on loopback.

    With ``timescale`` the extension TimescaleDB is preloaded: it can be created in a database. Its
    background jobs run only if ``settings`` has TIMESCALE_WORKERS.
    """

    def __init__(
        self, folder: Path, settings: Sequence[str] = (), *, timescale: bool = False
    ) -> None:
        super().__init__(folder, user="postgres")
        self.settings = (*(TIMESCALE_SETTINGS if timescale else ()), *settings)
        self.binaries = postgres_binaries()
        made = subprocess.run(
            [
                self.binaries / "initdb",
                "--pgdata",
                str(self.folder / "data"),
                "--username",
                "postgres",
                "--auth",
                "trust",
                "--encoding",
                "UTF8",
                "--locale",
                "C.UTF-8",
                "--no-sync",
            ],
            check=False,
            capture_output=True,
            text=True,
            user=self._user,
            cwd=self.folder,
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr[-2000:]}")

    def command(self) -> Sequence[str]:
        options = [
            f"port={self.port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self.folder}",
            "timezone=UTC",
            *self.settings,
        ]
        return [
            str(self.binaries / "postgres"),
            "-D",
            str(self.folder / "data"),
            *(word for option in options for word in ("-c", option)),
        ]

    def ready(self) -> bool:
        return (
            subprocess.run(
                [self.binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)],
                check=False,
            ).returncode
            == 0
        )

    def stop(self, sig: signal.Signals = signal.SIGINT) -> None:
        """Fast shutdown by default: clients are cut off, nothing committed is lost."""
        super().stop(sig)

    def dsn(self, user: str = "postgres", database: str = "postgres") -> str:
        """Address of one of its databases."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"
