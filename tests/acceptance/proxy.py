"""A TCP proxy in front of the database that cuts the agent's connection where it hurts."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from enum import Enum
from typing import Self

READ_BYTES = 1 << 16
TIMEOUT_S = 0.2
COPY, COMMIT = b"COPY", b"COMMIT"


class Cut(Enum):
    """Where a connection is cut: at the COMMIT that follows a COPY."""

    BEFORE_COMMIT = "the COMMIT never arrives"
    AFTER_COMMIT = "the COMMIT arrives, its answer does not"


class CuttingProxy:
    """Forwards loopback connections to a port. Works in threads of its own while it is entered."""

    def __init__(self, target_port: int) -> None:
        self.cuts = 0
        """Connections cut so far."""
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT_S)
        self.port = int(self._listener.getsockname()[1])
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._place: Cut | int | None = None

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def arm(self, place: Cut | int) -> None:
        """Cut once: after so many more bytes to the database, or at a COMMIT after a COPY."""
        with self._lock:
            self._place = place

    def has_cut(self, times: int) -> bool:
        """Whether it has cut so often."""
        return self.cuts >= times

    def _accept(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                near, _ = self._listener.accept()
                thread = threading.Thread(target=self._carry, args=(near,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _carry(self, near: socket.socket) -> None:
        """Carry one connection; both ends are closed at the end."""
        with near, suppress(OSError):
            far = socket.create_connection(("127.0.0.1", self._target_port))
            with far:
                back = threading.Thread(target=self._pump_back, args=(far, near), daemon=True)
                back.start()
                self._pump(near, far)
                for end in (near, far):
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                back.join()

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        """From the agent to the database, until the connection ends or is cut."""
        near.settimeout(TIMEOUT_S)
        copied = False
        while not self._closing.is_set():
            try:
                data = near.recv(READ_BYTES)
            except TimeoutError:
                continue
            if not data:
                return
            copied |= COPY in data
            passed = self._passed(data, copied=copied)
            if passed is None:
                far.sendall(data)
                continue
            if passed < len(data):
                far.sendall(data[:passed])
            else:
                self._commit_unheard(near, far, data)
            self.cuts += 1
            return

    def _passed(self, data: bytes, *, copied: bool) -> int | None:
        """How many of these bytes to pass on before the cut; None: no cut now."""
        with self._lock:
            place = self._place
            if place is None:
                return None
            if isinstance(place, int):
                if place >= len(data):
                    self._place = place - len(data)
                    return None
                self._place = None
                return place
            if not copied or COMMIT not in data:
                return None
            self._place = None
            return 0 if place is Cut.BEFORE_COMMIT else len(data)

    def _commit_unheard(self, near: socket.socket, far: socket.socket, data: bytes) -> None:
        """Cut the agent off first, then let the database have its COMMIT."""
        near.shutdown(socket.SHUT_RDWR)
        far.sendall(data)
        # A graceful end: the database reads the COMMIT before it sees that nobody listens.
        far.shutdown(socket.SHUT_WR)

    def _pump_back(self, far: socket.socket, near: socket.socket) -> None:
        """From the database to the agent."""
        with suppress(OSError):
            while data := far.recv(READ_BYTES):
                with suppress(OSError):
                    near.sendall(data)
        with suppress(OSError):
            near.shutdown(socket.SHUT_RDWR)
