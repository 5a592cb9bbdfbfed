"""One connection to an OPC UA server, from its first byte to its end.

asyncua (1.1) speaks the protocol, in the form that `opcua_client.py` gives it. It is contained:

* A connection that ends fails every waiting request at once, with the reason.
* Whatever asyncua, asyncio or cryptography raise becomes a ``TransientError``, or a ``DeviceError``
  where the server refused a request on a session that goes on (`translated`).
* `close` ends every task that was started and every socket that was opened, in any state.

A link is opened once. The server's certificate is compared where one is pinned, else any is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from asyncua import ua
from asyncua.crypto import security_policies, uacrypto
from cryptography import x509

from edge_agent.errors import DeviceError, EdgeAgentError, FaultError, TransientError, contained
from edge_agent.protocols.opcua_client import APPLICATION_URI, SessionClient, sentence
from edge_agent.protocols.opcua_credentials import Credentials, load_credentials
from edge_agent.protocols.opcua_syntax import NodeRef, OpcuaConn
from edge_agent.protocols.opcua_wire import Published

T = TypeVar("T")

CLOSE_TIMEOUT_S: Final = 1.0
"""For telling the server that the session ends; one that is mute forgets it by itself."""
NODES_PER_REQUEST_MAX: Final = 1_000
"""Where a server states no limit of its own, or a larger one."""
NOTIFICATIONS_MAX: Final = 5_000
"""Of one answer; the rest comes with the next one, at once."""
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


class Link:
    """One session and its subscriptions."""

    def __init__(self, conn: OpcuaConn) -> None:
        self.conn = conn
        self.read_max = NODES_PER_REQUEST_MAX
        self.monitor_max = NODES_PER_REQUEST_MAX
        self.browse_max = NODES_PER_REQUEST_MAX
        self._client = SessionClient(str(conn), timeout=conn.timeout_ms / 1000)
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
                    return sentence(error)
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
        raise TransientError(f"{conn}: {sentence(error)}") from error
    except FaultError as fault:
        cause = fault.__cause__ or fault
        ended = link.ended if link is not None else None
        text = ended if ended is not None and isinstance(cause, OSError) else sentence(cause)
        if getattr(cause, "code", None) in _BLOCK_ONLY:
            raise DeviceError(f"{conn}: {text}") from cause
        raise TransientError(f"{conn}: {text}") from cause


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
