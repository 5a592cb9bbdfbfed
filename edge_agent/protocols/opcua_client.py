"""asyncua's client, so that it suits a daemon.

Its own way of failing does not: requests wait out their timeout on a connection that has ended,
what can't be understood is left out without a word, errors are logged and then forgotten. So:

* A connection that ends fails every waiting request at once, with the reason (`SocketProtocol`).
* The publish loop is ours (`SocketClient`): what can't be understood ends the connection.
* Its watchdog only keeps the session (`SessionClient`): an answer a second from each server would
  be noise, and the caller watches the subscriptions.
* Its exceptions, and those of the libraries below it, are put into words (`sentence`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from asyncua import Client, ua
from asyncua.client.ua_client import UaClient, UASocketProtocol
from asyncua.common.shortcuts import Shortcuts
from asyncua.crypto import security_policies, uacrypto

from edge_agent.protocols.opcua_wire import published, status_name
from edge_agent.text.reasons import reason_of

# It logs what it raises, and more; our errors say the same, once. Even CRITICAL is used.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)

log = logging.getLogger("edge_agent.protocols.opcua")

SESSION_TIMEOUT_MS: Final = 60_000
"""How long a server keeps the session of an agent that vanished."""
SESSION_USED_PART: Final = 0.4
"""A session is used at least twice within its timeout."""
CHANNEL_LIFETIME_MS: Final = 3_600_000
"""Of the keys of a secure channel; they are renewed after three quarters of it."""

APPLICATION_URI: Final = "urn:edge-agent"
"""What the agent calls itself where no certificate of its own says so."""

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


class SocketProtocol(UASocketProtocol):  # type: ignore[misc]  # asyncua is not typed
    """The receiving side of one socket; its end is everybody's end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ended: str | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.ended is None:
            self.ended = "closed by the server" if exc is None else sentence(exc)
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
            self.ended = sentence(ua.UaStatusCodeError(msg.Error.value))
        super()._process_received_message(msg)

    def abort(self) -> None:
        """Close at once, whatever is still to be sent."""
        if self.ended is None:
            self.ended = "closed"
        if self.transport is not None:
            self.transport.abort()


class SocketClient(UaClient):  # type: ignore[misc]
    """Knows every socket that it opened, and publishes to the last."""

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self.protocols: list[SocketProtocol] = []

    @property
    def publish_task(self) -> asyncio.Task[None] | None:
        task: asyncio.Task[None] | None = self._publish_task
        return task

    @property
    def last_protocol(self) -> SocketProtocol | None:
        return self.protocols[-1] if self.protocols else None

    def _make_protocol(self) -> SocketProtocol:
        self.protocol = SocketProtocol(self._timeout, security_policy=self.security_policy)
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


class SessionClient(Client):  # type: ignore[misc]
    """The part that makes sessions, with our receiving side."""

    def __init__(self, url: str, timeout: float) -> None:
        super().__init__(url, timeout)
        self.name = self.description = "edge-agent"
        self.application_uri = APPLICATION_URI
        self.product_uri = APPLICATION_URI
        self.session_timeout = SESSION_TIMEOUT_MS
        self.secure_channel_timeout = CHANNEL_LIFETIME_MS
        self.uaclient = SocketClient(timeout)
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


def sentence(error: BaseException) -> str:
    """An exception in words, whichever library it is from."""
    if isinstance(error, ua.UaStatusCodeError):
        hint = _HINTS.get(error.code)
        text = f"the server refused: {status_name(error.code)}"
        return f"{text}; {hint}" if hint else text
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        return reason_of(error)
    if isinstance(error, uacrypto.InvalidSignature):
        return "the server's signature is wrong: it has not the key of the certificate it shows"
    text = str(error)
    if text.startswith("No matching endpoints"):
        return "the server has no endpoint with this security and security_mode"
    if text == "Server certificate mismatch":
        return "the server shows another certificate than the one named in `conn`"
    if isinstance(error, ua.UaError) and error.__cause__ is not None:
        return sentence(error.__cause__)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
