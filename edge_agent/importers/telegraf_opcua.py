"""Telegraf's `inputs.opcua` and `inputs.opcua_listener`: nodes, and groups of nodes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from edge_agent.importers.addresses import host_of
from edge_agent.importers.base import Found, Place, Row, duration_ms, table, tables, text
from edge_agent.importers.telegraf_tags import Labels, interval_ms, report_filters
from edge_agent.model import ValueType

PASSWORD_ENV: Final = "OPCUA_PASSWORD"  # noqa: S105  (the name of a variable)
"""Where a connection finds the password that is not carried over."""

REQUEST_TIMEOUT_MS_DEFAULT: Final = 5_000
_TIMEOUT_MS: Final = (100, 60_000)


def read(
    section: Mapping[str, object],
    path: str,
    common: Labels,
    interval: float | None,
    found: Found,
    *,
    poll: bool,
) -> None:
    """Carry over every node of a section."""
    place = Place(path)
    endpoint = text(section.get("endpoint"))
    if not endpoint.startswith("opc.tcp://"):
        found.left_out(place, endpoint, "endpoint; carried over is opc.tcp://HOST:PORT/PATH")
        return
    report_filters(section, place, found)
    conn = _conn(section, endpoint, place, found, poll=poll)
    period_ms = interval_ms(section.get("interval")) or interval
    if not poll:
        period_ms = interval_ms(section.get("subscription_interval")) or period_ms
    labels = Labels.of(table(section.get("tags")), common, Place(f"{path}.tags"), found)
    nodes = _Nodes(conn, period_ms, found)
    rows_before = len(found.rows)
    name = text(section.get("name"))
    nodes.read(section, path, {}, labels, name or host_of(endpoint))
    for key in ("group", "groups"):
        for at, group in enumerate(tables(section.get(key))):
            group_path = f"{path}.{key}[{at}]"
            own = _tags(group, labels, group_path, found)
            group_name = text(group.get("name")) or name or host_of(endpoint)
            nodes.read(group, group_path, group, own, group_name)
    if len(found.rows) > rows_before:
        reason = "types are the server's own; FLOAT64 stands for all of them"
        found.assumed(place, "type", reason)


def _conn(
    section: Mapping[str, object], endpoint: str, place: Place, found: Found, *, poll: bool
) -> str:
    options = ["mode=poll"] if poll else []
    timeout_ms = duration_ms(section.get("request_timeout"))
    if timeout_ms and timeout_ms != REQUEST_TIMEOUT_MS_DEFAULT:
        given = round(min(max(timeout_ms, _TIMEOUT_MS[0]), _TIMEOUT_MS[1]))
        options.append(f"timeout_ms={given}")
    policy = text(section.get("security_policy")) or "auto"
    files = [text(section.get(key)) for key in ("certificate", "private_key")]
    if policy == "Basic256Sha256" and all(files):
        options += [
            f"security={policy}",
            f"certificate={quote(files[0])}",
            f"key={quote(files[1])}",
        ]
        mode = text(section.get("security_mode"))
        if mode in {"Sign", "SignAndEncrypt"}:
            options.append(f"security_mode={mode}")
    elif policy == "auto":
        reason = "auto: not encrypted; add security, certificate and key to conn"
        found.assumed(place, "security_policy", reason)
    elif policy != "None":
        reason = f"{policy} without the agent's own certificate, or not spoken: not encrypted"
        found.in_part(place, "security_policy", reason)
    method = text(section.get("auth_method"))
    user = text(section.get("username"))
    if method == "UserName" and user and not user.startswith("@{"):
        options += [f"user={quote(user, safe='')}", f"password_env={PASSWORD_ENV}"]
        reason = f"no secret is carried over; the agent looks for it in {PASSWORD_ENV}"
        found.changed(place, "password", reason)
    elif method not in {"", "Anonymous"}:
        found.in_part(place, "auth_method", f"{method}: the connection logs in as nobody")
    return endpoint + ("?" + "&".join(options) if options else "")


def _tags(group: Mapping[str, object], outer: Labels, path: str, found: Found) -> Labels:
    """Labels from `default_tags`, or from the pairs of the old `tags`."""
    tags = dict(table(group.get("default_tags")))
    pairs = group.get("tags")
    for pair in pairs if isinstance(pairs, list) else []:
        if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str):
            tags[pair[0]] = pair[1]
    return Labels.of(tags, outer, Place(f"{path}.default_tags"), found) if tags else outer


@dataclass(slots=True)
class _Nodes:
    conn: str
    period_ms: float | None
    found: Found

    def read(
        self,
        holder: Mapping[str, object],
        path: str,
        group: Mapping[str, object],
        labels: Labels,
        device: str,
    ) -> None:
        """The `nodes` of a section or of a group, which gives them defaults."""
        for at, node in enumerate(tables(holder.get("nodes"))):
            node_path = f"{path}.nodes[{at}]"
            place = Place(node_path)
            name = text(node.get("name")) or text(node.get("field_name"))
            address = _address(node, group)
            if not name or not address:
                missing = "a name" if address else "namespace, identifier_type and identifier"
                self.found.left_out(place, name or address, f"the node lacks {missing}")
                continue
            own = _tags(node, labels, node_path, self.found).named(device)
            self.found.add(
                Row(
                    place=place,
                    site=own.site,
                    line=own.line,
                    device=own.device,
                    tag=own.tag or name,
                    long_tag=f"{own.tag or device}.{name}",
                    unit=own.unit,
                    protocol="opcua",
                    conn=self.conn,
                    address=address,
                    type=ValueType.FLOAT64,
                    period_ms=self.period_ms,
                )
            )


def _address(node: Mapping[str, object], group: Mapping[str, object]) -> str:
    """A node id; empty if a part of it is given nowhere."""
    whole_id = text(node.get("id"))
    if whole_id:
        return whole_id
    kind = text(node.get("identifier_type")) or text(group.get("identifier_type"))
    identifier = text(node.get("identifier"))
    uri = text(node.get("namespace_uri")) or text(group.get("namespace_uri"))
    index = text(node.get("namespace")) or text(group.get("namespace"))
    if not kind or not identifier or not (uri or index):
        return ""
    space = f"nsu={quote(uri, safe=':/')}" if uri and not index else f"ns={index}"
    return f"{kind}={identifier}" if space == "ns=0" else f"{space};{kind}={identifier}"
