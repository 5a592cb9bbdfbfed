"""A network of our own between two machines' worth of processes, to be cut and made lossy.

A network namespace with one link to the test's own. It needs root, `ip` (iproute2) and `iptables`;
where one is missing the test is skipped and says so. Whatever happens, the namespace goes at the
end, and its link and its firewall rules go with it.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import Postgres

HERE, THERE, PREFIX_BITS = "198.51.100.1", "198.51.100.2", 30
"""Both ends of the link: addresses for documentation (RFC 5737), which no real network has."""
COMMAND_TIMEOUT_S = 20.0

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace that is reached at `THERE`, and reaches this one at `HERE`."""

    name: str
    link: str

    def command(self, words: Sequence[str], user: str | None = None) -> list[str]:
        """The command line that runs ``words`` in it, as ``user``; it keeps the process id."""
        prefix = ["nsenter", f"--net=/run/netns/{self.name}"]
        if user:
            entry = pwd.getpwnam(user)
            prefix += [f"--setuid={entry.pw_uid}", f"--setgid={entry.pw_gid}"]
        return [*prefix, "--", *words]

    @contextmanager
    def cut(self) -> Iterator[None]:
        """The link is down: nothing gets through, and nobody is told."""
        _run("ip", "-n", self.name, "link", "set", self.link, "down")
        try:
            yield
        finally:
            _run("ip", "-n", self.name, "link", "set", self.link, "up")

    @contextmanager
    def lossy(self, share: float) -> Iterator[None]:
        """This share of the packets is lost at random, in both directions."""
        chance = ("-m", "statistic", "--mode", "random", "--probability", str(share))
        rules = [
            ("INPUT", "-i", self.link, *chance, "-j", "DROP"),
            ("OUTPUT", "-o", self.link, *chance, "-j", "DROP"),
        ]
        for rule in rules:
            self._iptables("-A", *rule)
        try:
            yield
        finally:
            for rule in rules:
                self._iptables("-D", *rule)

    def lost(self) -> int:
        """Packets that `lossy` has dropped so far."""
        listing = self._iptables("-nvxL")
        return sum(int(line.split()[0]) for line in listing.splitlines() if " DROP " in line)

    def _iptables(self, *words: str) -> str:
        return _run(*self.command(["iptables", "--wait", *words]))


@contextmanager
def namespace() -> Iterator[Namespace]:
    """A namespace for one test; skips it where none can be made."""
    if os.getuid() != 0:
        pytest.skip("network namespaces need root")
    for tool in ("ip", "iptables", "nsenter"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; `make acceptance` installs it")
    number = next(_numbers)
    space = Namespace(f"plc-{os.getpid()}-{number}", f"plc{os.getpid() % 100_000}b{number}")
    here = space.link.replace("b", "a")
    made = subprocess.run(
        ["ip", "netns", "add", space.name], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"network namespaces are not permitted here: {made.stderr.strip()}")
    try:
        _run("ip", "link", "add", here, "type", "veth", "peer", space.link, "netns", space.name)
        _run("ip", "addr", "add", f"{HERE}/{PREFIX_BITS}", "dev", here)
        _run("ip", "link", "set", here, "up")
        _run("ip", "-n", space.name, "addr", "add", f"{THERE}/{PREFIX_BITS}", "dev", space.link)
        _run("ip", "-n", space.name, "link", "set", space.link, "up")
        _run("ip", "-n", space.name, "link", "set", "lo", "up")
        yield space
    finally:
        # The kernel removes a deleted namespace's link some time later: the address is free now.
        subprocess.run(["ip", "link", "del", here], capture_output=True, check=False)
        _run("ip", "netns", "del", space.name)


class FarPostgres(Postgres):
    """A cluster in a namespace, reached at `THERE` by everybody who is on this link."""

    def __init__(
        self,
        folder: Path,
        space: Namespace,
        settings: Sequence[str] = (),
        *,
        timescale: bool = False,
    ) -> None:
        super().__init__(folder, [*settings, "listen_addresses=*"], timescale=timescale)
        self._space = space
        self._owner, self._user = self._user, None  # nsenter needs root, and then changes to it
        hba = folder / "data" / "pg_hba.conf"
        hba.write_text(f"host all all {HERE}/{PREFIX_BITS} trust\n" + hba.read_text())

    def command(self) -> Sequence[str]:
        """The server, in its namespace."""
        return self._space.command(super().command(), self._owner)

    def ready(self) -> bool:
        """Whether it answers over the link."""
        words = ["-q", "-h", THERE, "-p", str(self.port)]
        return subprocess.run([self.binaries / "pg_isready", *words], check=False).returncode == 0

    def dsn(self, user: str = "postgres", database: str = "postgres") -> str:
        """Address of one of its databases, over the link."""
        return f"postgresql://{user}@{THERE}:{self.port}/{database}"

    def local_dsn(self, user: str = "postgres", database: str = "postgres") -> str:
        """The same for a process in the namespace itself: the cut does not touch it."""
        return super().dsn(user, database)


def _run(*words: str) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=COMMAND_TIMEOUT_S
    )
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
    return done.stdout
