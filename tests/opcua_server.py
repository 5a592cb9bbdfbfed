"""OPC UA servers as processes: asyncua's own, and node-opcua, which this project did not write.

Both have the same nodes (``NODES``), the same users, and the certificate that the test gives them.
A test changes values as an operator, over OPC UA (`operator`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.npm import NodeServer
from tests.servers import Server

ROOT = Path(__file__).parent.parent

NAMESPACE = "http://example.org/plc"
USER, PASSWORD = "operator", "sesam öffne dich"

NODES: Mapping[str, tuple[str, Any]] = {
    "Pump.Pressure": ("Double", 12.5),
    "Pump.Speed": ("Int16", -2),
    "Pump.Count": ("UInt32", 4_000_000_000),
    "Pump.Running": ("Boolean", True),
    "Pump.Stopped": ("Boolean", False),
    "Pump.Name": ("String", "P-101"),
    "Tank.Level": ("Float", 0.5),
    "Tank.Total": ("Int64", -5_000_000_000),
}
"""String identifiers in `NAMESPACE`, with type and first value; the part before the dot is an
object. Every node may be written."""


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Ticking:
    """Nodes `Tick.0` and so on, all set to the next whole number each interval."""

    count: int
    interval_ms: int
    type: str = "Double"

    @property
    def options(self) -> dict[str, Any]:
        return {"count": self.count, "type": self.type, "intervalMs": self.interval_ms}


def identity(folder: Path, name: str, *, days: int = 10) -> Identity:
    """Make a self-signed certificate for OPC UA (Part 6, 6.2.2), ``urn:NAME`` its URI."""
    folder.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names = [x509.UniformResourceIdentifier(f"urn:{name}"), x509.DNSName("localhost")]
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=True,
        data_encipherment=True, key_agreement=False, key_cert_sign=True, crl_sign=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(usage, critical=False)
        .add_extension(
            x509.ExtendedKeyUsage(
                [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH, x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    made = Identity(folder / f"{name}.pem", folder / f"{name}.key.pem")
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made


class _OpcuaServer(Server):
    """What the two servers have in common."""

    def __init__(
        self,
        folder: Path,
        *,
        identity: Identity | None = None,
        users: Mapping[str, str] | None = None,
        user_certificate: Path | None = None,
        extra: int = 0,
        ticking: Ticking | None = None,
    ) -> None:
        """With ``users`` nobody else may log in; ``extra`` more nodes are `Extra.0` and so on.

        Only node-opcua has ``ticking`` nodes, and then none of its tight limits.
        """
        super().__init__(folder)
        self._options = {
            "identity": [str(identity.certificate), str(identity.key)] if identity else None,
            "users": dict(users) if users else None,
            "user_certificate": str(user_certificate) if user_certificate else None,
            "ticking": ticking.options if ticking else None,
        }
        self.nodes = dict(NODES) | {f"Extra.{n}": ("Int32", n) for n in range(extra)}

    @property
    def conn(self) -> str:
        """Address for a map's `conn` column."""
        return f"opc.tcp://127.0.0.1:{self.port}"

    def options(self) -> Mapping[str, Any]:
        """What the server's process is told."""
        return {**self._options, "port": self.port, "nodes": self.nodes}


class AsyncuaServer(_OpcuaServer):
    """asyncua's own server."""

    def command(self) -> Sequence[str]:
        path = self.folder / "options.json"
        path.write_text(json.dumps(self.options()))
        # The server's working folder is its own, the package is imported from here.
        return ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", __name__, str(path)]


class NodeOpcuaServer(_OpcuaServer, NodeServer):
    """node-opcua's server. Its object Control has two methods: Forget closes all other
    sessions, AddLate makes the node ``Control.Late`` with 1.5 in it."""

    scripts = Path(__file__).parent / "node_opcua"


class Operator:
    """Somebody else at the same server, who writes values."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def write(self, name: str, *values: ua.DataValue) -> None:
        """Write values to a node, one after the other in one request."""
        request = ua.WriteParameters()
        index = await self.client.get_namespace_index(NAMESPACE)
        request.NodesToWrite = [
            ua.WriteValue(
                NodeId_=ua.NodeId(name, index),
                AttributeId=ua.AttributeIds.Value,
                Value=value,
            )
            for value in values
        ]
        for result in await self.client.uaclient.write(request):
            result.check()

    async def call(self, method: str) -> None:
        """Call a method of the object Control."""
        index = await self.client.get_namespace_index(NAMESPACE)
        node = self.client.get_node(ua.NodeId("Control", index))
        await node.call_method(ua.NodeId(f"Control.{method}", index))


def data_value(name: str, value: Any, at: datetime | None = None, status: int = 0) -> ua.DataValue:
    """A value of a node's own type with source time stamp and status."""
    kind = ua.VariantType[NODES[name][0]]
    return ua.DataValue(ua.Variant(value, kind), ua.StatusCode(status), SourceTimestamp=at)


@asynccontextmanager
async def operator(server: _OpcuaServer) -> AsyncIterator[Operator]:
    """Connect as an anonymous operator."""
    client = Client(server.conn, timeout=10)
    async with client:
        yield Operator(client)


class _Users:
    """Who may log in."""

    def __init__(self, users: Mapping[str, str], certificate: bytes | None) -> None:
        self._users = users
        self._certificate = certificate

    def get_user(
        self,
        iserver: Any,
        username: str | None = None,
        password: str | None = None,
        certificate: bytes | None = None,
    ) -> Any:
        from asyncua.server.user_managers import User, UserRole

        user = User(role=UserRole.User)
        if username is not None:
            return user if self._users.get(username) == password else None
        return user if certificate is not None and certificate == self._certificate else None


async def _serve(options: Mapping[str, Any]) -> None:
    """asyncua's server, until the process is ended."""
    import asyncua
    from asyncua.crypto import uacrypto

    users = None
    tokens = [ua.AnonymousIdentityToken]
    if options["users"] is not None:
        certificate = None
        if options["user_certificate"]:
            certificate = uacrypto.der_from_x509(
                await uacrypto.load_certificate(options["user_certificate"], "pem")
            )
        users = _Users(options["users"], certificate)
        tokens = [ua.UserNameIdentityToken, ua.X509IdentityToken]
    server = asyncua.Server(user_manager=users)
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{options['port']}")
    if options["identity"]:
        certificate_file, key_file = options["identity"]
        await server.load_certificate(certificate_file, "pem")
        await server.load_private_key(key_file, None, "pem")
        server.set_security_policy(
            [
                ua.SecurityPolicyType.NoSecurity,
                ua.SecurityPolicyType.Basic256Sha256_Sign,
                ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
            ]
        )
    else:
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    server.set_identity_tokens(tokens)
    await _add_nodes(server, options["nodes"])
    async with server:
        await asyncio.Event().wait()


async def _add_nodes(server: Any, nodes: Mapping[str, tuple[str, Any]]) -> None:
    index = await server.register_namespace(NAMESPACE)
    objects: dict[str, Any] = {}
    for name, (kind, value) in nodes.items():
        owner, _, short = name.partition(".")
        if owner not in objects:
            objects[owner] = await server.nodes.objects.add_object(
                ua.NodeId(owner, index), ua.QualifiedName(owner, index)
            )
            # A way back up: whoever walks along must not walk in circles.
            await objects[owner].add_reference(server.nodes.objects, ua.ObjectIds.HasComponent)
        variable = await objects[owner].add_variable(
            ua.NodeId(name, index), ua.QualifiedName(short, index), value, ua.VariantType[kind]
        )
        await variable.set_writable()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(_serve(json.loads(Path(sys.argv[1]).read_text())))
