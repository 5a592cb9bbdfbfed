"""What the database benchmarks share: servers of either flavour, CPU of a whole server, and words
for the machine that figures come from."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers import TIMESCALE_WORKERS, Postgres, timescale_installed

FLAVOURS = ("postgres", "timescale")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def installed_flavours() -> tuple[str, ...]:
    """Those that can be measured here."""
    return FLAVOURS if timescale_installed() else FLAVOURS[:1]


@contextmanager
def server(
    folder: Path, flavour: str, settings: Sequence[str] = (), *, jobs: bool = True
) -> Iterator[Postgres]:
    """A running server with default settings but these; with TimescaleDB if the flavour needs it.

    ``jobs``: its background jobs run, as they do in life.
    """
    timescale = flavour == "timescale"
    workers = TIMESCALE_WORKERS if timescale and jobs else ()
    with Postgres(folder, [*workers, *settings], timescale=timescale) as running:
        yield running


def cluster_cpu_s(running: Postgres) -> float:
    """CPU seconds of all of a server's processes so far, those that have ended included."""
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    return _cpu_s(running.pid, ended=True) + sum(_cpu_s(int(child)) for child in children)


def _cpu_s(pid: int, *, ended: bool = False) -> float:
    """User and system time of a process, with its ended children's if asked; 0 if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, fields[11 : 15 if ended else 13])) / TICKS_PER_S


def machine() -> str:
    """The machine that figures come from."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    return (
        f"{platform.machine()}, {model}, {os.cpu_count()} cores, {memory_kb / 2**20:.0f} GB, "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def versions(running: Postgres, flavour: str) -> str:
    """Which PostgreSQL, and which TimescaleDB if it is used."""
    said = subprocess.run(
        [running.binaries / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if flavour != "timescale":
        return said
    folder = Path("/usr/share/postgresql") / running.binaries.parent.name / "extension"
    control = (folder / "timescaledb.control").read_text().splitlines()
    version = next(line.split("'")[1] for line in control if line.startswith("default_version"))
    return f"{said}, TimescaleDB {version}"
