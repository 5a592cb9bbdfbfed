"""The framing of Modbus TCP: the MBAP header.

It trusts little, since a pipeline must never invent a value:

* Frames are cut from one buffer that lives as long as the connection. The half of a reply that
  arrives after its request was given up is still recognised as that reply's half.
* A reply counts only under its request's transaction id. Replies to requests that were given up
  are dropped; an id that was never sent means that the two sides are out of step.
* Bytes that are no Modbus TCP frame end the connection: after them nothing can be told apart.
* A connection that ends fails the waiting request at once.

Source: Modbus Messaging on TCP/IP Implementation Guide 1.0b, section 3.1.3.
"""

from __future__ import annotations

import asyncio
from struct import Struct
from typing import Final

from edge_agent.protocols.base import WallClock
from edge_agent.protocols.modbus_syntax import ModbusConn
from edge_agent.protocols.modbus_wire import SHOWN_BYTES_MAX, Answer, Channel, Request, Wire

STALE_REQUESTS_MAX: Final = 1_000
"""How many requests ago a dropped reply may have been asked for; at one a second, 16 minutes."""
TRANSACTION_IDS: Final = 65_535
"""They count from 1 to here and start again. 0 is never sent: some servers put it into all."""

_MBAP: Final = Struct(">HHHB")
HEADER_BYTES: Final = _MBAP.size
"""With the unit id; the PDU follows."""
_LENGTH_MIN, _LENGTH_MAX = 3, 254
"""MBAP length: unit id and a PDU of 2 to 253 bytes."""
FRAME_BYTES_MAX: Final = 260
"""Header and PDU; so much is kept of what is no frame."""


class MbapWire(Wire):
    """Modbus TCP on one connection."""

    def __init__(self, conn: ModbusConn, channel: Channel, now_ms: WallClock) -> None:
        super().__init__(conn, channel, now_ms)
        self.last_id = 0
        """Transaction id of the newest request."""

    async def ask(self, request: Request) -> Answer:
        """Send a request and wait for the reply with its transaction id."""
        waiting = await self._turn()
        self.last_id = self.last_id % TRANSACTION_IDS + 1
        header = _MBAP.pack(self.last_id, 0, len(request.pdu) + 1, request.unit_id)
        try:
            async with asyncio.timeout(self._timeout_s):
                self._write(header + request.pdu)
                return await waiting
        finally:
            self._rest()

    def received(self, data: bytes) -> None:
        """Cut complete frames from what has arrived, and hand the awaited one over."""
        received = self._received
        received += data
        while len(received) >= _MBAP.size and self._ended is None:
            transaction_id, protocol_id, length, unit_id = _MBAP.unpack_from(received)
            if protocol_id != 0 or not _LENGTH_MIN <= length <= _LENGTH_MAX:
                self.heard = bytes(received[:FRAME_BYTES_MAX])
                shown = received[:SHOWN_BYTES_MAX].hex(" ")
                self.give_up(f"not a Modbus TCP reply: it begins with {shown}")
                return
            end = _MBAP.size - 1 + length
            if len(received) < end:
                return
            frame = bytes(received[:end])
            del received[:end]
            self._accept(transaction_id, unit_id, frame)

    def _accept(self, transaction_id: int, unit_id: int, frame: bytes) -> None:
        asked = self.last_id
        if transaction_id != asked:
            age = (asked - transaction_id) % TRANSACTION_IDS
            if transaction_id == 0 or age > STALE_REQUESTS_MAX:
                self.heard = frame
                self.give_up(f"transaction {transaction_id} answered, {asked} was asked")
        elif self._waiting is not None and not self._waiting.done():
            self.heard = frame
            self._waiting.set_result(Answer(self._now_ms(), unit_id, frame[_MBAP.size :]))
