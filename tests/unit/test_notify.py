"""sd_notify, heard on a Unix socket as systemd hears it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.notify import STATUS_CHARS_MAX, Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A listening manager and what it puts into $NOTIFY_SOCKET."""
    name = f"{tmp_path}/notify" if request.param == "path" else f"@{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        listener.setblocking(False)
        yield listener, name


def test_every_message_is_heard_word_for_word(manager: tuple[socket.socket, str]) -> None:
    """Over a path and over an abstract name; one datagram for each call."""
    listener, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name}, monotonic_ns=lambda: 12_345_678)
    assert notifier.ready("80 tags, 3 connections")
    assert notifier.extend_start(60.5, "34 %")
    assert notifier.watchdog()
    assert notifier.status("펌프 1 is away")
    assert notifier.reloading()
    assert notifier.stopping()
    assert [listener.recv(4_096).decode() for _ in range(6)] == [
        "READY=1\nSTATUS=80 tags, 3 connections",
        "EXTEND_TIMEOUT_USEC=60500000\nSTATUS=34 %",
        "WATCHDOG=1",
        "STATUS=펌프 1 is away",
        "RELOADING=1\nMONOTONIC_USEC=12345",
        "STOPPING=1",
    ]


def test_a_status_stays_one_short_line(manager: tuple[socket.socket, str]) -> None:
    """Text from elsewhere can't smuggle in a message of its own."""
    listener, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.status("broken\nSTOPPING=1\r\n")
    notifier.status("x" * 10_000)
    assert listener.recv(65_536) == b"STATUS=broken STOPPING=1"
    assert listener.recv(65_536) == b"STATUS=" + b"x" * STATUS_CHARS_MAX
    assert not notifier.status("  ")


def test_without_a_manager_nothing_happens(tmp_path: Path) -> None:
    """No socket named, none there, a name no socket can have: said by the result alone."""
    for name in (None, "", str(tmp_path / "none"), "/" + "x" * 300, "@" + "x" * 300):
        notifier = Notifier({} if name is None else {"NOTIFY_SOCKET": name})
        assert not notifier.ready("up")
        assert not notifier.watchdog()
        assert notifier.watchdog_interval_s is None


def test_a_manager_that_does_not_listen_does_not_block_us(tmp_path: Path) -> None:
    """Its full queue costs messages, not time."""
    name = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name)
        notifier = Notifier({"NOTIFY_SOCKET": name})
        assert not all(notifier.watchdog() for _ in range(10_000))


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_twice_within_its_limit(
    environ: dict[str, str], interval_s: float | None
) -> None:
    """Only where there is one, and only by the process that it watches."""
    assert Notifier(environ, pid=77).watchdog_interval_s == interval_s
