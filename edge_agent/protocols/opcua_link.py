"""One connection to an OPC UA server, from its first byte to its end.

asyncua (1.1) speaks the protocol. It is contained here, since its own way of failing does not suit
a daemon: requests wait out their timeout on a connection that has ended, errors are logged and then
forgotten, tasks outlive a connect that was cancelled, and each of its layers raises exceptions of
its own. So:

* A connection that ends fails every waiting request at once, with the reason (`_Protocol`).
* The publish loop is ours (`_UaClient`): what can't be understood ends the connection, instead of
  being left out without a word. Its watchdog only keeps the session: an answer a second from
  each server would be noise, and the caller watches the subscriptions.
* Whatever asyncua, asyncio or cryptography raise becomes a ``TransientError``, or a ``DeviceError``
  where the server refused a request on a session that goes on (`translated`).
* `close` ends every task that was started and every socket that was opened, in any state.

A link is opened once. The server's certificate is compared where one is pinned, else any is taken.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from asyncua import Client, ua
from asyncua.client.ua_client import UaClient, UASocketProtocol
from asyncua.common.shortcuts import Shortcuts
from asyncua.crypto import security_policies, uacrypto
from cryptography import x509

from edge_agent.errors import DeviceError, EdgeAgentError, FaultError, TransientError, contained
from edge_agent.protocols.opcua_syntax import NodeRef, OpcuaConn
from edge_agent.protocols.opcua_wire import Published, published, status_name

# It logs what it raises, and more; our errors say the same, once. Even CRITICAL is used.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)

log = logging.getLogger("edge_agent.protocols.opcua")

T = TypeVar("T")

CLOSE_TIMEOUT_S: Final = 1.0
"""For telling the server that the session ends; one that is mute forgets it by itself."""
SESSION_TIMEOUT_MS: Final = 60_000
"""How long a server keeps the session of an agent that vanished."""
SESSION_USED_PART: Final = 0.4
"""A session is used at least twice within its timeout."""
CHANNEL_LIFETIME_MS: Final = 3_600_000
"""Of the keys of a secure channel; they are renewed after three quarters of it."""
NODES_PER_REQUEST_MAX: Final = 1_000
"""Where a server states no limit of its own, or a larger one."""
NOTIFICATIONS_MAX: Final = 5_000
"""Of one answer; the rest comes with the next one, at once."""
SECRET_BYTES_MAX: Final = 65_536
"""Passwords, certificates and keys are far smaller; a larger file is another one by mistake."""

APPLICATION_URI: Final = "urn:edge-agent"
"""What the agent calls itself where no certificate of its own says so."""

_NAMESPACES: Final = ua.NodeId(ua.ObjectIds.Server_NamespaceArray)
_READ_LIMIT: Final = ua.NodeId(
    ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead
)
_MONITOR_LIMIT: Final = ua.NodeId(
    ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall
)
_BROWSE_LIMIT: Final = ua.NodeId(
    ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse
)

_BLOCK_ONLY: Final = frozenset(
    {
        ua.StatusCodes.BadTooManyOperations,
        ua.StatusCodes.BadTooManyMonitoredItems,
        ua.StatusCodes.BadTooManySubscriptions,
        ua.StatusCodes.BadRequestTooLarge,
        ua.StatusCodes.BadResponseTooLarge,
        ua.StatusCodes.BadEncodingLimitsExceeded,
        ua.StatusCodes.BadServiceUnsupported,
        ua.StatusCodes.BadOutOfMemory,
        ua.StatusCodes.BadResourceUnavailable,
    }
)
"""Refusals after which the session goes on."""

_HINTS: Final = {
    ua.StatusCodes.BadUserAccessDenied: "check user, password or user_certificate in `conn`",
    ua.StatusCodes.BadIdentityTokenRejected: "check user, password or user_certificate in `conn`",
    ua.StatusCodes.BadIdentityTokenInvalid: "the server takes no such login; see its settings",
    ua.StatusCodes.BadSecurityChecksFailed: "make the server trust the agent's certificate",
    ua.StatusCodes.BadCertificateUntrusted: "make the server trust the agent's certificate",
    ua.StatusCodes.BadCertificateInvalid: "check the certificate named in `conn`",
    ua.StatusCodes.BadCertificateTimeInvalid: "the certificate has expired, or a clock is wrong",
    ua.StatusCodes.BadCertificateUriInvalid: "the certificate has no subjectAltName with a URI",
    ua.StatusCodes.BadSecurityPolicyRejected: "the server has no such security; see its settings",
    ua.StatusCodes.BadSecurityModeRejected: "the server has no such security_mode",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the files and the variable of a `conn` hold. Printing it shows no secret."""

    password: str | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    server_certificate: bytes | None = field(default=None, repr=False)
    user_certificate: bytes | None = field(default=None, repr=False)
    user_key: bytes | None = field(default=None, repr=False)


def load_credentials(conn: OpcuaConn) -> Credentials:
    """Read what `conn` names. Blocks; raises ``TransientError``, since a file may come yet.

    A relative name means the file of that name in `$CREDENTIALS_DIRECTORY` (systemd) if there is
    one, else it counts from the working folder.
    """
    password = None
    if conn.password_env is not None:
        password = os.environ.get(conn.password_env)
        if not password:
            raise TransientError(f"{conn}: the variable {conn.password_env} is not set")
    elif conn.password_file is not None:
        content = _read(conn, "password_file", conn.password_file)
        try:
            password = content.decode("utf-8-sig").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise TransientError(f"{conn}: password_file is not UTF-8 text") from error
    files = {
        name: _read(conn, name, path)
        for name in ("certificate", "key", "server_certificate", "user_certificate", "user_key")
        if (path := getattr(conn, name)) is not None
    }
    return Credentials(password, **files)


def _read(conn: OpcuaConn, option: str, name: str) -> bytes:
    path = Path(name)
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if credentials and not path.is_absolute() and (Path(credentials) / path).is_file():
        path = Path(credentials) / path
    try:
        if path.exists() and not path.is_file():
            raise TransientError(f"{conn}: {option}: {path} is not a regular file")
        with path.open("rb") as file:
            content = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise TransientError(f"{conn}: {option}: {path}: {error.strerror}") from error
    if not 0 < len(content) <= SECRET_BYTES_MAX:
        raise TransientError(
            f"{conn}: {option}: {path} has {len(content)} bytes or more;"
            f" allowed: 1 to {SECRET_BYTES_MAX}"
        )
    return content


class Link:
    """One session and its subscriptions."""

    def __init__(self, conn: OpcuaConn) -> None:
        self.conn = conn
        self.read_max = NODES_PER_REQUEST_MAX
        self.monitor_max = NODES_PER_REQUEST_MAX
        self.browse_max = NODES_PER_REQUEST_MAX
        self._client = _Client(str(conn), timeout=conn.timeout_ms / 1000)
        self._namespaces: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._active = False

    async def open(self) -> None:
        """Connect, secure, log in, and ask for namespaces and limits. Bounded by the caller."""
        with translated(self.conn, self):
            credentials = await asyncio.to_thread(load_credentials, self.conn)
            await self._secure(credentials)
            await self._log_in(credentials)
            client = self._client
            await client.connect()
            self._active = True
            values = await client.uaclient.read_attributes(
                [_NAMESPACES, _READ_LIMIT, _MONITOR_LIMIT, _BROWSE_LIMIT], ua.AttributeIds.Value
            )
            names, read_max, monitor_max, browse_max = (data.Value.Value for data in values)
            self._namespaces = list(names or ())
            self.read_max = _limit(read_max)
            self.monitor_max = _limit(monitor_max)
            self.browse_max = _limit(browse_max)

    async def _secure(self, credentials: Credentials) -> None:
        if self.conn.security == "None":
            return
        assert credentials.certificate is not None, "parse_conn sees to it"
        certificate = _certificate(credentials.certificate)
        self._client.application_uri = _application_uri(certificate)
        await self._client.set_security(
            security_policies.SecurityPolicyBasic256Sha256,
            certificate=_content(credentials.certificate),
            private_key=_content(credentials.key),
            server_certificate=_content(credentials.server_certificate),
            mode=ua.MessageSecurityMode[str(self.conn.security_mode)],
        )

    async def _log_in(self, credentials: Credentials) -> None:
        client = self._client
        if self.conn.user is not None:
            client.set_user(self.conn.user)
            client.set_password(credentials.password)
        elif credentials.user_certificate is not None:
            client.user_certificate = _certificate(credentials.user_certificate)
            key = _content(credentials.user_key)
            client.user_private_key = await uacrypto.load_private_key(
                key.path_or_content, extension=key.extension
            )

    def node_id(self, ref: NodeRef) -> Any:
        """A node id with the namespace's index at this server; None if it has no such namespace."""
        namespace = ref.namespace
        if isinstance(namespace, str):
            if namespace not in self._namespaces:
                return None
            namespace = self._namespaces.index(namespace)
        return ua.NodeId(ref.identifier, namespace)

    def namespace_uri(self, index: int) -> str | None:
        """A namespace's URI; None where the server has not stated one."""
        return self._namespaces[index] if index < len(self._namespaces) else None

    async def request(self, request: Any, response: type[Any]) -> Any:
        """Send a request and wait for the answer, however long. Cancelling it is harmless."""

        def decode(data: Any) -> Any:
            answer = ua.ua_binary.struct_from_binary(response, data)
            answer.ResponseHeader.ServiceResult.check()
            return answer

        return await self.exchange(request, decode)

    async def exchange(self, request: Any, decode: Callable[[Any], T]) -> T:
        """The same for an answer that is decoded by ``decode``."""
        protocol = self._client.uaclient.last_protocol
        ended = self.ended
        if protocol is None or ended is not None:  # a request on it would wait for ever
            raise TransientError(f"{self.conn}: {ended or 'closed'}")
        with translated(self.conn, self):
            return decode(await protocol.send_request(request, timeout=0))

    async def subscribe(self, params: Any, hand_over: Callable[[Published], None]) -> Any:
        """Create a subscription; ``hand_over`` gets each of its answers, in order."""
        with translated(self.conn, self):
            return await self._client.uaclient.create_subscription(params, hand_over)

    async def unsubscribe(self, subscription_id: int) -> None:
        """Delete a subscription."""
        with translated(self.conn, self):
            await self._client.uaclient.delete_subscriptions([subscription_id])

    def start(self, work: Any, name: str) -> asyncio.Task[Any]:
        """Run something that ends with the link at the latest."""
        task = asyncio.create_task(work, name=f"edge[{self.conn}].{name}")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it is told; a link that is closed has nobody

    @property
    def ended(self) -> str | None:
        """Why the connection is of no more use; None while it is."""
        protocol = self._client.uaclient.last_protocol
        if protocol is not None and protocol.ended is not None:
            return str(protocol.ended)
        for task in self._client.background():
            if task.done() and not task.cancelled():
                error = task.exception()
                if error is not None:
                    return _sentence(error)
        return None

    async def close(self) -> None:
        """End the session, every task and every socket. Never raises; also twice."""
        client = self._client
        uaclient = client.uaclient
        client.stop()
        tasks = [*self._tasks, *client.background()]
        try:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._active and self.ended is None:
                await self._say_goodbye()
        finally:
            self._active = False
            for protocol in uaclient.protocols:
                protocol.abort()
        await asyncio.sleep(0)  # transports close their sockets on the loop's next turn

    async def _say_goodbye(self) -> None:
        with suppress(EdgeAgentError, TimeoutError), contained("close"):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._client.uaclient.close_session(True)
                await self._client.close_secure_channel()


@contextmanager
def translated(conn: OpcuaConn, link: Link | None = None) -> Iterator[None]:
    """Turn whatever is raised into a ``TransientError``, or into a ``DeviceError``."""
    try:
        with contained("OPC UA"):
            yield
    except TimeoutError as error:
        raise TransientError(f"{conn}: {_sentence(error)}") from error
    except FaultError as fault:
        cause = fault.__cause__ or fault
        ended = link.ended if link is not None else None
        text = ended if ended is not None and isinstance(cause, OSError) else _sentence(cause)
        if getattr(cause, "code", None) in _BLOCK_ONLY:
            raise DeviceError(f"{conn}: {text}") from cause
        raise TransientError(f"{conn}: {text}") from cause


def _sentence(error: BaseException) -> str:
    """An exception in words, whichever library it is from."""
    if isinstance(error, ua.UaStatusCodeError):
        hint = _HINTS.get(error.code)
        text = f"the server refused: {status_name(error.code)}"
        return f"{text}; {hint}" if hint else text
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        if error.errno is not None and error.errno > 0:
            return os.strerror(error.errno)
        return str(error) or type(error).__name__
    if isinstance(error, uacrypto.InvalidSignature):
        return "the server's signature is wrong: it has not the key of the certificate it shows"
    text = str(error)
    if text.startswith("No matching endpoints"):
        return "the server has no endpoint with this security and security_mode"
    if text == "Server certificate mismatch":
        return "the server shows another certificate than the one named in `conn`"
    if isinstance(error, ua.UaError) and error.__cause__ is not None:
        return _sentence(error.__cause__)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _limit(value: Any) -> int:
    """A server's limit; 0 and nothing mean that it states none."""
    if isinstance(value, int) and 0 < value < NODES_PER_REQUEST_MAX:
        return value
    return NODES_PER_REQUEST_MAX


def _is_pem(content: bytes) -> bool:
    return b"-----BEGIN" in content


def _content(content: bytes | None) -> Any:
    """What asyncua takes for a certificate or a key."""
    if content is None:
        return None
    return uacrypto.CertProperties(content, "pem" if _is_pem(content) else None)


def _certificate(content: bytes) -> x509.Certificate:
    if _is_pem(content):
        return x509.load_pem_x509_certificate(content)
    return x509.load_der_x509_certificate(content)


def _application_uri(certificate: x509.Certificate) -> str:
    """The URI that a server compares with the one the agent calls itself (Part 6, 6.2.2)."""
    with suppress(x509.ExtensionNotFound):
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        if uris:
            return uris[0]
    return APPLICATION_URI


class _Protocol(UASocketProtocol):  # type: ignore[misc]  # asyncua is not typed
    """The receiving side of one socket; its end is everybody's end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ended: str | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.ended is None:
            self.ended = "closed by the server" if exc is None else _sentence(exc)
        for waiting in self._callbackmap.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError(self.ended))
                waiting.exception()  # seen: whoever waited may have been cancelled
        self._callbackmap.clear()

    def data_received(self, data: bytes) -> None:
        if self.ended is None:
            super().data_received(data)

    def _process_received_message(self, msg: Any) -> None:
        if isinstance(msg, ua.ErrorMessage) and msg.Error is not None and self.ended is None:
            self.ended = _sentence(ua.UaStatusCodeError(msg.Error.value))
        super()._process_received_message(msg)

    def abort(self) -> None:
        """Close at once, whatever is still to be sent."""
        if self.ended is None:
            self.ended = "closed"
        if self.transport is not None:
            self.transport.abort()


class _UaClient(UaClient):  # type: ignore[misc]
    """Knows every socket that it opened, and publishes to the last."""

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self.protocols: list[_Protocol] = []

    @property
    def publish_task(self) -> asyncio.Task[None] | None:
        task: asyncio.Task[None] | None = self._publish_task
        return task

    @property
    def last_protocol(self) -> _Protocol | None:
        return self.protocols[-1] if self.protocols else None

    def _make_protocol(self) -> _Protocol:
        self.protocol = _Protocol(self._timeout, security_policy=self.security_policy)
        self.protocol.pre_request_hook = self._pre_request_hook
        self.protocols.append(self.protocol)
        return self.protocol

    async def _publish_loop(self) -> None:
        """Ask for the next answer, acknowledge it, hand it over; ends with the first error."""
        request = ua.PublishRequest()
        acknowledgements: Sequence[Any] = ()
        while True:
            request.Parameters.SubscriptionAcknowledgements = acknowledgements
            try:
                answer = published(await self.protocol.send_request(request, timeout=0))
            except ua.uaerrors.BadNoSubscription:
                if self._subscription_callbacks:
                    raise
                return  # the last one was deleted
            hand_over = self._subscription_callbacks.get(answer.subscription_id)
            if hand_over is not None:
                hand_over(answer)
            acknowledgements = ()
            if answer.notified:
                acknowledgements = [
                    ua.SubscriptionAcknowledgement(answer.subscription_id, answer.sequence_number)
                ]


class _Client(Client):  # type: ignore[misc]
    """The part that makes sessions, with our receiving side."""

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(url, timeout)
        self.name = self.description = "edge-agent"
        self.application_uri = APPLICATION_URI
        self.product_uri = APPLICATION_URI
        self.session_timeout = SESSION_TIMEOUT_MS
        self.secure_channel_timeout = CHANNEL_LIFETIME_MS
        self.uaclient = _UaClient(timeout)
        self.uaclient.pre_request_hook = self.check_connection
        self.nodes = Shortcuts(self.uaclient)

    def background(self) -> list[asyncio.Task[Any]]:
        """asyncua's own tasks."""
        tasks = (
            self.uaclient.publish_task,
            self._renew_channel_task,
            self._monitor_server_task,
        )
        return [task for task in tasks if task is not None]

    def stop(self) -> None:
        """Requests no longer ask whether those tasks still run."""
        self._closing = True
        self.uaclient.pre_request_hook = None

    async def _monitor_server_loop(self) -> None:
        """Show the server that the session is used, however rarely it is polled."""
        while True:
            await asyncio.sleep(self.session_timeout / 1000 * SESSION_USED_PART)
            await self.nodes.server_state.read_value()

    def _add_user_auth(self, params: Any, username: str, password: str) -> None:
        policy = self.server_policy(ua.UserTokenType.UserName).SecurityPolicyUri
        open_policy = security_policies.SecurityPolicyNone.URI
        sealed = self.security_policy.Mode == ua.MessageSecurityMode.SignAndEncrypt
        if policy in (None, "", open_policy) and not sealed:
            log.warning(
                "%s: the password of user %s crosses the network in the clear, since the server"
                " asks for it so; use security=Basic256Sha256",
                self.server_url.geturl(),
                username,
            )
        super()._add_user_auth(params, username, password)
