"""A serial line: the channel of Modbus RTU.

pyserial sets the port up (in a thread, since a USB adapter may take its time); from then on the
event loop watches its descriptor. Nothing here blocks: reads and writes take what there is and
what fits. The port is locked against every other program that locks it too, since two masters on
one line spoil each other's frames.

A port that vanishes, an adapter that is pulled out, ends the connection at once; opening it again
is the poller's.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import termios
from contextlib import suppress
from typing import Final

import serial  # type: ignore[import-untyped]

from edge_agent.protocols.modbus_syntax import ModbusConn
from edge_agent.protocols.modbus_wire import Receiver, reason

READ_BYTES_MAX: Final = 4_096
"""What the kernel keeps of a line."""
GONE: Final = "the port is gone"
STUCK: Final = "the port does not send; does it wait for a flow control signal?"


class SerialChannel:
    """One opened port. Never opened twice."""

    def __init__(self, conn: ModbusConn) -> None:
        self._conn = conn
        self._loop = asyncio.get_running_loop()
        self._receiver: Receiver | None = None
        self._port: serial.Serial | None = None
        self._unsent = b""

    async def open(self, receiver: Receiver) -> None:
        """Open and set up the port. Raises ``OSError``."""
        opening = asyncio.ensure_future(asyncio.to_thread(_open, self._conn))
        try:
            port = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise
        self._receiver, self._port = receiver, port
        self._loop.add_reader(port.fileno(), self._readable)

    def write(self, data: bytes) -> None:
        """Send what fits now, the rest as there is room.

        A request that is still unsent when the next one comes would be sent too late.
        """
        if self._unsent:
            assert self._receiver is not None
            self._receiver.give_up(STUCK)
            return
        self._unsent = data
        self._writable()

    def close(self) -> None:
        """Close the port, and throw away what was not sent: closing would wait for it."""
        port, self._port = self._port, None
        if port is None:
            return
        self._loop.remove_reader(port.fileno())
        self._loop.remove_writer(port.fileno())
        _close(port)

    def _readable(self) -> None:
        assert self._port is not None
        try:
            data = os.read(self._port.fileno(), READ_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            self._lost(error)
            return
        if data:
            assert self._receiver is not None
            self._receiver.received(data)
        elif _hung_up(self._port.fileno()):
            self._lost(None)

    def _writable(self) -> None:
        if self._port is None or not self._unsent:
            return
        descriptor = self._port.fileno()
        try:
            sent = os.write(descriptor, self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._lost(error)
            return
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(descriptor, self._writable)
        else:
            self._loop.remove_writer(descriptor)

    def _lost(self, error: OSError | None) -> None:
        assert self._receiver is not None
        # EIO is all that a kernel says of an adapter that was pulled out.
        gone = error is None or error.errno in {errno.EIO, errno.ENXIO, errno.ENODEV}
        self._receiver.give_up(GONE if gone else reason(error))


def _open(conn: ModbusConn) -> serial.Serial:
    """Open a port. Raises ``OSError`` with a text for people."""
    try:
        return serial.Serial(
            conn.path,
            baudrate=conn.baudrate,
            bytesize=conn.bytesize,
            parity=conn.parity,
            stopbits=conn.stopbits,
            timeout=0,
            write_timeout=0,
            exclusive=True,
        )
    except serial.SerialException as error:
        cause = error.__context__
        if isinstance(cause, BlockingIOError):
            raise OSError("in use by another connection or program") from error
        if isinstance(cause, termios.error):
            raise OSError("not a serial port") from error
        raise
    except (ValueError, termios.error) as error:
        raise OSError(
            f"the port does not take {conn.baudrate} baud with parity {conn.parity} and"
            f" {conn.stopbits} stop bits (a pseudo terminal takes parity=N only)"
        ) from error


def _close(port: serial.Serial) -> None:
    with suppress(OSError, termios.error):
        port.reset_output_buffer()
    with suppress(OSError):
        port.close()


def _close_unwanted(opening: asyncio.Future[serial.Serial]) -> None:
    """Close a port that was opened after its caller had given up."""
    if not opening.cancelled() and opening.exception() is None:
        _close(opening.result())


def _hung_up(descriptor: int) -> bool:
    """Whether the other side of a line is gone: reading nothing alone does not say it."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))
