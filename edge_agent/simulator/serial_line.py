"""A serial line that simulated PLCs listen on: a real port, or a pseudo terminal in its place.

Where the path of a `conn` exists it is opened with the settings of that `conn`, and locked as the
agent locks it. Where it does not, a pseudo terminal is made, with a symbolic link to it at that
path, which is removed at the end. A pseudo terminal has no baud rate and no parity: bytes arrive
at once, and who opens it must ask for parity N. A link that a killed process left is replaced if it
leads nowhere; if its pseudo terminal's number was given to another one meanwhile, it is a line
that exists.

The line is one client, from the start to the end. What its receiver does not take is lost, as on a
wire: nothing waits for a client that does not read.
"""

from __future__ import annotations

import asyncio
import os
import select
import termios
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import serial  # type: ignore[import-untyped]

from edge_agent.errors import TransientError
from edge_agent.protocols.modbus_syntax import ModbusConn
from edge_agent.simulator.client import Client
from edge_agent.simulator.framing import Rtu
from edge_agent.simulator.listener import Listener

READ_BYTES_MAX: Final = 4_096
"""What the kernel keeps of a line."""


def refusal(conn: ModbusConn) -> str | None:
    """Why nothing can listen on a line; None if something can, as far as is known."""
    path = Path(conn.path)
    if path.exists():
        return None
    stand_in = f"{conn} does not exist, and no pseudo terminal can be in its place"
    if conn.parity != "N":
        return f"{stand_in}: it has no parity; write parity=N into the conn"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"{stand_in}: {path.parent} is not a folder that this user may write to"
    return None


class SerialListener(Listener):
    """The units on a serial line."""

    def __init__(self, conn: ModbusConn, now_ms: Callable[[], int]) -> None:
        super().__init__(Rtu(conn.character_s), now_ms)
        self.path = Path(conn.path)
        self._conn = conn
        self._line: _Line | None = None

    @property
    def place(self) -> dict[str, object]:
        """The path."""
        return {"path": str(self.path)}

    async def start(self) -> None:
        """Open the port or make one.

        Raises ``TransientError`` if it is no serial port, in use, or can't be made.
        """
        client = Client(self, self._clients)
        try:
            end: _Port | _PseudoTerminal
            end = _Port(self._conn) if self.path.exists() else _PseudoTerminal(self.path)
        except (OSError, ValueError, termios.error) as error:
            raise TransientError(
                f"cannot listen on {self._conn}: {error}",
                hint="a conn whose path does not exist, in a folder that may be written to, gets a"
                " pseudo terminal: rtu:///tmp/line1?parity=N",
            ) from error
        self._line = _Line(end, client)
        client.connection_made(self._line)

    async def stop(self) -> None:
        """Close the line, and remove what was made for it."""
        line, self._line = self._line, None
        if line is not None:
            line.abort()

    def drop(self) -> None:
        """Nothing: a line has no connection that could be closed."""


class _Port:
    """A port that exists. Raises ``OSError`` or ``ValueError``."""

    def __init__(self, conn: ModbusConn) -> None:
        self._port = serial.Serial(
            conn.path,
            baudrate=conn.baudrate,
            bytesize=conn.bytesize,
            parity=conn.parity,
            stopbits=conn.stopbits,
            timeout=0,
            write_timeout=0,
            exclusive=True,
        )
        self.descriptor: int = self._port.fileno()

    def close(self) -> None:
        """Close it, and throw away what was not sent."""
        with suppress(OSError, termios.error):
            self._port.reset_output_buffer()
        with suppress(OSError):
            self._port.close()


class _PseudoTerminal:
    """A pseudo terminal and the link to it. Raises ``OSError``."""

    def __init__(self, link: Path) -> None:
        # The far end stays open here too: else the near one fails whenever nobody has it open.
        self.descriptor, self._far = os.openpty()
        try:
            tty.setraw(self._far)
            os.set_blocking(self.descriptor, False)
            self._link, self._target = link, os.ttyname(self._far)
            with suppress(FileNotFoundError):
                if link.is_symlink():
                    link.unlink()
            link.symlink_to(self._target)
        except (OSError, termios.error):
            self._close_ends()
            raise

    def close(self) -> None:
        """Close it, and remove the link if it is still this one's."""
        with suppress(OSError):
            if self._link.readlink() == Path(self._target):
                self._link.unlink()
        self._close_ends()

    def _close_ends(self) -> None:
        os.close(self.descriptor)
        os.close(self._far)


class _Line(asyncio.Transport):
    """An open line, for its client."""

    def __init__(self, end: _Port | _PseudoTerminal, client: Client) -> None:
        super().__init__()
        self._end = end
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self.resume_reading()

    def is_closing(self) -> bool:
        return self._closed

    def pause_reading(self) -> None:
        if not self._closed:
            self._loop.remove_reader(self._end.descriptor)

    def resume_reading(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._end.descriptor, self._readable)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closed:
            return
        try:
            os.write(self._end.descriptor, data)
        except BlockingIOError:
            return  # nobody takes it
        except OSError as error:
            self._lose(error)

    def close(self) -> None:
        self._lose(None)

    def abort(self) -> None:
        self._lose(None)

    def _readable(self) -> None:
        try:
            data = os.read(self._end.descriptor, READ_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if data:
            self._client.data_received(data)
        elif _hung_up(self._end.descriptor):
            self._lose(None)

    def _lose(self, error: OSError | None) -> None:
        """End it, once; with an error where an adapter was pulled out."""
        if self._closed:
            return
        self.pause_reading()
        self._closed = True
        self._end.close()
        self._client.connection_lost(error)


def _hung_up(descriptor: int) -> bool:
    """Whether the other side of a line is gone: reading nothing alone does not say it."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))
