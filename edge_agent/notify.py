"""Telling systemd how we are: sd_notify(3), without a library.

Outside systemd, where `$NOTIFY_SOCKET` is not set, all of it does nothing.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

STATUS_CHARS_MAX = 500
"""One line for `systemctl status`; a datagram that is too long would be dropped as a whole."""


class Notifier:
    """One service's line to its manager.

    No call blocks or raises: a manager that doesn't listen must not stop the daemon. Each returns
    whether the message was handed over.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        pid: int | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        # '@' stands for the zero byte of Linux's abstract names.
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._monotonic_ns = monotonic_ns
        self.watchdog_interval_s = _watchdog_interval_s(
            environ, os.getpid() if pid is None else pid
        )
        """How often `watchdog` must be called at least, twice within the limit; None for never."""

    def ready(self, status: str = "") -> bool:
        """Start-up is done, or a reload."""
        return self._send("READY=1", *_status(status))

    def extend_start(self, seconds: float, status: str = "") -> bool:
        """The start advances and takes longer: it may go on for so long from now, until `ready`."""
        return self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", *_status(status))

    def watchdog(self) -> bool:
        """Still alive. To be called only while work really advances."""
        return self._send("WATCHDOG=1")

    def status(self, text: str) -> bool:
        """Free text for `systemctl status`."""
        return self._send(*_status(text))

    def reloading(self) -> bool:
        """A reload has begun; `ready` ends it. systemd asks for the time with it."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ns() // 1_000}")

    def stopping(self, status: str = "") -> bool:
        """Shutdown has begun."""
        return self._send("STOPPING=1", *_status(status))

    def _send(self, *assignments: str) -> bool:
        if not self._address or not assignments:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.setblocking(False)
                line.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            return False
        return True


def _status(text: str) -> tuple[str, ...]:
    # A line break would begin another assignment.
    line = " ".join(text.split())[:STATUS_CHARS_MAX]
    return (f"STATUS={line}",) if line else ()


def _watchdog_interval_s(environ: Mapping[str, str], pid: int) -> float | None:
    """Half of what systemd allows between two signs of life, as sd_watchdog_enabled(3) advises."""
    limit_us, watched = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not limit_us.isascii() or not limit_us.isdigit() or int(limit_us) == 0:
        return None
    return None if watched and watched != str(pid) else int(limit_us) / 2e6
