"""A connection to an MQTT 5 broker that receives: the one place that knows aiomqtt.

Its errors are translated here. Three things it does differently from what one would expect:

* Its ``async for`` makes a task per message. Messages are taken from the queue's ``put_nowait``
  instead, which is the library's own way to replace the queue; the iterator only tells the end.
* Connecting blocks a thread, and cancelling it leaves that thread behind, which then connects all
  the same. So a connection that was given up is waited for in the background and closed.
* After a failed CONNECT or TLS handshake, or an end that it did not ask for, paho's socket can stay
  open.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, TypeVar, cast

import aiomqtt
from aiomqtt import Message
from paho.mqtt import client as paho_client
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_agent.errors import TransientError
from edge_agent.protocols.mqtt_syntax import MqttConn
from edge_agent.text.reasons import reason_of

__all__ = ["LOGIN_HINT", "Link", "Message", "Take", "property_of"]

# It logs each lost connection, with a traceback at times; our errors say the same, once.
_LIBRARY_LOG: Final = logging.getLogger(f"{__name__}.library")
_LIBRARY_LOG.setLevel(logging.CRITICAL + 1)

RECEIVE_MAX: Final = 1_000
"""Messages that the broker may send before the first is acknowledged; Mosquitto sends 20."""
PACKET_BYTES_MAX: Final = 262_144
"""A larger message is no value, and the broker is asked to keep it to itself."""
CLOSE_TIMEOUT_S: Final = 0.5
"""For the broker to take a farewell."""

LOGIN_HINT: Final = "check user= and password_file= in `conn`, and the broker's rights for them"
FILES_HINT: Final = (
    "check password_file, ca, cert and key in `conn`: PEM, readable, key not encrypted"
)

Take = Callable[[Message], None]
T = TypeVar("T")


def property_of(message: Message, name: str) -> str | None:
    """The value of a user property (MQTT 5.0, 3.3.2.3.7), the first of its name; None without."""
    pairs: Sequence[tuple[str, str]] = getattr(message.properties, "UserProperty", ())
    return next((value for known, value in pairs if known == name), None)


class _Direct(asyncio.Queue[Message]):
    """The library's queue, which holds nothing: it hands each message on as it comes."""

    def __init__(self, take: Take, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._take = take

    def put_nowait(self, item: Message) -> None:
        self._take(item)


_background: set[asyncio.Task[None]] = set()
"""Connections that were given up and are closed once they have come about."""


class Link:
    """One connection to a broker, from connect to its end. Never opened twice."""

    def __init__(self, client: aiomqtt.Client, conn: MqttConn) -> None:
        self._client = client
        self._conn = conn
        self._watch = asyncio.create_task(self._until_lost(), name=f"{conn}.watch")

    @classmethod
    async def open(
        cls,
        conn: MqttConn,
        take: Take,
        *,
        client_id: str,
        password: str | None = None,
        session_expiry_s: int = 0,
        receive_max: int = RECEIVE_MAX,
        manual_acknowledge: bool = False,
        login_hint: str = LOGIN_HINT,
        files_hint: str = FILES_HINT,
    ) -> Self:
        """Connect and log in. ``take`` gets each message as it arrives, and must not raise.

        With ``session_expiry_s`` the broker keeps subscriptions, and messages that were not
        acknowledged, for so long. With ``manual_acknowledge`` each message of QoS 1 waits for
        `acknowledge`, else it is acknowledged once ``take`` has it. ``password`` comes before the
        one in `conn`'s file. Raises ``TransientError``; the hints say where login and files can be
        corrected, if that is not a map's `conn`.
        """
        timeout_s = conn.timeout_ms / 1000
        if conn.tls or conn.password_file is not None:
            tls, kept = await asyncio.to_thread(_secrets, conn, files_hint)
            password = password if password is not None else kept
        else:
            tls = None
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = PACKET_BYTES_MAX
        properties.SessionExpiryInterval = session_expiry_s
        properties.ReceiveMaximum = receive_max
        client = aiomqtt.Client(
            conn.host,
            conn.port,
            username=conn.user,
            password=password,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V5,
            queue_type=cast("type[asyncio.Queue[Message]]", partial(_Direct, take)),
            clean_start=session_expiry_s == 0,
            keepalive=conn.keepalive_s,
            timeout=timeout_s,
            properties=properties,
            tls_context=tls,
            logger=_LIBRARY_LOG,
        )
        paho = _paho(client)
        paho.connect_timeout = timeout_s
        paho.manual_ack_set(manual_acknowledge)
        await _enter(client, conn, tls, login_hint)
        return cls(client, conn)

    def check(self) -> None:
        """Raises ``TransientError`` with the reason if the connection has ended."""
        if self._watch.done():
            raise TransientError(f"{self._conn}: {self._watch.result()}")

    def when_lost(self, call: Callable[[], None]) -> None:
        """Have something called when the connection ends."""
        self._watch.add_done_callback(lambda _: call())

    async def subscribe(
        self, filters: Sequence[str], *, retained_once: bool = False
    ) -> list[str | None]:
        """Subscribe with QoS 1; for each filter why the broker refuses it, or None.

        With ``retained_once`` retained messages come only if the session has no such subscription
        yet. Raises ``TransientError``.
        """
        handling = (
            SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
            if retained_once
            else SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
        )
        options = SubscribeOptions(qos=1, retainHandling=handling)
        codes = await self._ask(self._client.subscribe([(text, options) for text in filters]))
        return [str(code) if _value(code) >= _REFUSED_MIN else None for code in codes]

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """End subscriptions. Raises ``TransientError``."""
        await self._ask(self._client.unsubscribe(list(filters)))

    async def _ask(self, request: Coroutine[object, object, T]) -> T:
        """Wait for the broker's answer, but not for one that is gone, as the library would."""
        asking = asyncio.ensure_future(request)
        try:
            await asyncio.wait([asking, self._watch], return_when=asyncio.FIRST_COMPLETED)
            self.check()
            return asking.result()
        except (aiomqtt.MqttError, OSError, ValueError) as error:
            raise TransientError(f"{self._conn}: {_reason(error)}") from error
        finally:
            asking.cancel()

    def acknowledge(self, packet_ids: Iterable[int]) -> None:
        """Acknowledge messages of QoS 1, in the order in which they came.

        On a connection that has ended it does nothing: they come again.
        """
        paho = _paho(self._client)
        if paho.socket() is not None:
            for packet_id in packet_ids:
                paho.ack(packet_id, 1)

    async def close(self) -> None:
        """Say good-bye and hang up. Never raises; takes a bounded time; twice is fine."""
        self._watch.cancel()
        await asyncio.wait([self._watch])
        await _leave(self._client)

    async def _until_lost(self) -> str:
        """The reason why the connection ended."""
        try:
            async for _ in self._client.messages:
                pass  # the queue holds nothing, see `_Direct`
        except aiomqtt.MqttError as error:
            cause = error.__cause__
            return "the broker ended the connection: " + _reason(cause or error)
        return "the connection ended"


_REFUSED_MIN: Final = 128
"""MQTT 5.0, 2.4: reason codes from here on are errors."""


def _value(code: object) -> int:
    return code if isinstance(code, int) else int(getattr(code, "value", _REFUSED_MIN))


async def _enter(client: aiomqtt.Client, conn: MqttConn, tls: _Tls | None, login_hint: str) -> None:
    """Connect within the time, and leave nothing behind where that fails."""
    timeout_s = conn.timeout_ms / 1000
    entering = asyncio.ensure_future(client.__aenter__())
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(entering)
    except TimeoutError as error:
        _in_background(_give_up(client, entering, tls))
        raise TransientError(f"{conn}: no answer within {timeout_s:g} s") from error
    except asyncio.CancelledError:
        _in_background(_give_up(client, entering, tls))
        raise
    except (aiomqtt.MqttError, OSError, ValueError) as error:
        await _leave(client, tls)
        hint = login_hint if isinstance(error, aiomqtt.MqttCodeError) else ""
        raise TransientError(f"{conn}: {_reason(error)}", hint=hint) from error


def _in_background(work: Coroutine[object, object, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)


async def _give_up(
    client: aiomqtt.Client, entering: asyncio.Future[aiomqtt.Client], tls: _Tls | None
) -> None:
    await asyncio.wait([entering])
    if not entering.cancelled():
        entering.exception()
    await _leave(client, tls)


async def _leave(client: aiomqtt.Client, tls: _Tls | None = None) -> None:
    client.timeout = CLOSE_TIMEOUT_S
    with suppress(aiomqtt.MqttError, OSError, ValueError):
        await client.__aexit__(None, None, None)
    _paho(client)._sock_close()  # noqa: SLF001  (does nothing if it is closed; nothing else does it)
    if tls is not None:
        tls.close_last()


def _paho(client: aiomqtt.Client) -> paho_client.Client:
    return client._client  # noqa: SLF001


class _Tls(ssl.SSLContext):
    """Remembers its newest socket: paho forgets it, open, where the handshake fails."""

    _last: ssl.SSLSocket | None = None

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        self._last = super().wrap_socket(*arguments, **options)
        return self._last

    def close_last(self) -> None:
        """For an attempt that failed."""
        if self._last is not None:
            self._last.close()


def _secrets(conn: MqttConn, files_hint: str) -> tuple[_Tls | None, str | None]:
    """TLS and password, from the files that ``conn`` names. Raises ``TransientError``."""
    try:
        password = None
        if conn.password_file is not None:
            password = Path(conn.password_file).read_text().rstrip("\r\n")
        if not conn.tls:
            return None, password
        context = _Tls(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and host name
        if conn.ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(conn.ca)
        if conn.cert is not None:
            # An empty password makes an encrypted key an error; without it OpenSSL asks on the
            # terminal and waits.
            context.load_cert_chain(conn.cert, conn.key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise TransientError(f"{conn}: cannot load a file: {error}", hint=files_hint) from error
    return context, password


def _reason(error: BaseException) -> str:
    """An error's reason without the noise of its class and numbers."""
    return re.sub(r"^\[code:-?\d+\] ", "", reason_of(error))
