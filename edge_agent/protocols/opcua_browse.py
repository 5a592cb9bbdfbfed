"""Walks a server's Objects folder and finds the variables that a map can read.

Breadth first, many nodes a request. Address spaces have loops and nodes with several parents: each
node is visited once, by the way that was found first. The Server object, which describes the server
itself in hundreds of variables, is left out.

Source: OPC UA Part 4, 5.9 (browsing), Part 5, 8.2 (the standard folders).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua

from edge_agent.errors import TransientError
from edge_agent.model import ValueType
from edge_agent.protocols import opcua_syntax
from edge_agent.protocols.opcua_link import Link, translated
from edge_agent.protocols.opcua_syntax import NodeRef

NODES_PER_BROWSE: Final = 100
"""Nodes whose children one request asks for, where the server allows as many."""
REFERENCES_PER_NODE: Final = 1_000
"""Children of a node in one answer; the others come with the next."""
REQUEST_TIMEOUT_FACTOR: Final = 5
"""Browsing is slower than reading a value: how many times `timeout_ms` a request may take."""

_SERVER: Final = (0, ua.ObjectIds.Server)
_TYPES: Final = {
    ua.VariantType.Boolean: ValueType.BOOL,
    ua.VariantType.SByte: ValueType.INT8,
    ua.VariantType.Byte: ValueType.UINT8,
    ua.VariantType.Int16: ValueType.INT16,
    ua.VariantType.UInt16: ValueType.UINT16,
    ua.VariantType.Int32: ValueType.INT32,
    ua.VariantType.UInt32: ValueType.UINT32,
    ua.VariantType.Int64: ValueType.INT64,
    ua.VariantType.UInt64: ValueType.UINT64,
    ua.VariantType.Float: ValueType.FLOAT32,
    ua.VariantType.Double: ValueType.FLOAT64,
}


@dataclass(frozen=True, slots=True)
class Variable:
    """A number or Boolean of the server: ``path`` are the browse names from Objects downwards.

    ``objects`` of them, from the first on, are objects; the rest are variables.
    """

    node: NodeRef
    path: tuple[str, ...]
    objects: int
    type: ValueType


@dataclass(frozen=True, slots=True)
class Walk:
    """What was found, and whether all of it was looked at."""

    variables: tuple[Variable, ...]
    visited: int
    complete: bool


@dataclass(frozen=True, slots=True)
class _Place:
    node_id: Any
    path: tuple[str, ...] = ()
    objects: int = 0


async def walk(conn: str, *, nodes_max: int, progress: Callable[[int, int, int], None]) -> Walk:
    """Walk the server of a `conn`.

    ``progress`` is told, after each request, how many nodes were visited, how many are known so
    far, and how many variables were found. Raises ``TransientError``, and ``ValueError`` for a
    wrong `conn`.
    """
    parsed = opcua_syntax.parse_conn(conn)
    link = Link(parsed)
    try:
        try:
            async with asyncio.timeout(parsed.timeout_ms / 1000):
                await link.open()
        except TimeoutError as error:
            raise TransientError(
                f"{parsed}: no session within {parsed.timeout_ms / 1000:g} s"
            ) from error
        with translated(parsed, link):
            return await _Walker(link, nodes_max, progress).walk()
    finally:
        await link.close()


class _Walker:
    def __init__(
        self, link: Link, nodes_max: int, progress: Callable[[int, int, int], None]
    ) -> None:
        self._link = link
        self._nodes_max = nodes_max
        self._progress = progress
        self._timeout_s = link.conn.timeout_ms / 1000 * REQUEST_TIMEOUT_FACTOR
        self._seen = {_SERVER}
        self._complete = True
        self._found: list[Variable] = []

    async def walk(self) -> Walk:
        root = ua.NodeId(ua.ObjectIds.ObjectsFolder)
        self._seen.add(_key(root))
        waiting = deque([_Place(root)])
        visited = 0
        while waiting:
            size = min(NODES_PER_BROWSE, self._link.browse_max, len(waiting))
            children, variables = await self._children([waiting.popleft() for _ in range(size)])
            await self._look_at(variables)
            visited += size
            waiting += children
            self._progress(visited, visited + len(waiting), len(self._found))
        return Walk(tuple(self._found), visited, self._complete)

    async def _children(
        self, places: Sequence[_Place]
    ) -> tuple[list[_Place], list[tuple[_Place, Any]]]:
        """New nodes below these, and those of them that are variables."""
        children = []
        variables = []
        for place, reference in await self._references(places):
            node_id = self._local(reference.NodeId)
            if node_id is None or _key(node_id) in self._seen:
                continue
            if len(self._seen) > self._nodes_max:  # the Server object is not counted
                self._complete = False
                break
            self._seen.add(_key(node_id))
            is_variable = reference.NodeClass_ == ua.NodeClass.Variable
            child = _Place(
                node_id,
                (*place.path, str(reference.BrowseName.Name)),
                place.objects + (not is_variable),
            )
            children.append(child)
            if is_variable:
                variables.append((child, child.node_id))
        return children, variables

    async def _references(self, places: Sequence[_Place]) -> list[tuple[_Place, Any]]:
        request = ua.BrowseRequest()
        request.Parameters.RequestedMaxReferencesPerNode = REFERENCES_PER_NODE
        request.Parameters.NodesToBrowse = [_downwards(place.node_id) for place in places]
        answer = await self._ask(request, ua.BrowseResponse)
        found = []
        unfinished = list(zip(places, answer.Results, strict=True))
        while unfinished:
            found += [
                (place, reference)
                for place, result in unfinished
                for reference in result.References or ()
            ]
            unfinished = [pair for pair in unfinished if pair[1].ContinuationPoint]
            if len(found) > self._nodes_max:
                self._complete = self._complete and not unfinished
                break  # the server forgets where it was with the session
            if unfinished:
                more = ua.BrowseNextRequest()
                more.Parameters.ReleaseContinuationPoints = False
                more.Parameters.ContinuationPoints = [
                    result.ContinuationPoint for _, result in unfinished
                ]
                answer = await self._ask(more, ua.BrowseNextResponse)
                results = answer.Parameters.Results
                unfinished = [
                    (place, result) for (place, _), result in zip(unfinished, results, strict=True)
                ]
        return found

    async def _look_at(self, variables: Sequence[tuple[_Place, Any]]) -> None:
        """Keep those whose type a map has, by their value, or by their data type without one."""
        size = max(self._link.read_max // 2, 1)
        for start in range(0, len(variables), size):
            part = variables[start : start + size]
            request = ua.ReadRequest()
            request.Parameters.NodesToRead = [
                ua.ReadValueId(NodeId_=node_id, AttributeId=attribute)
                for _, node_id in part
                for attribute in (ua.AttributeIds.Value, ua.AttributeIds.DataType)
            ]
            answer = await self._ask(request, ua.ReadResponse)
            for place_at, (place, _) in enumerate(part):
                value, data_type = answer.Results[2 * place_at : 2 * place_at + 2]
                kind = _type_of(value, data_type)
                if kind is not None:
                    node = self._ref(place.node_id)
                    self._found.append(Variable(node, place.path, place.objects, kind))

    def _local(self, node_id: Any) -> Any:
        """A reference's target as a plain node id; None if it is at another server."""
        if getattr(node_id, "ServerIndex", 0):
            return None
        uri = getattr(node_id, "NamespaceUri", None)
        return self._link.node_id(NodeRef(uri or node_id.NamespaceIndex, node_id.Identifier))

    def _ref(self, node_id: Any) -> NodeRef:
        """The node by its namespace's URI: a server may number its namespaces anew."""
        index = node_id.NamespaceIndex
        uri = self._link.namespace_uri(index) if index else None
        return NodeRef(uri or index, node_id.Identifier)

    async def _ask(self, request: Any, response: type[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._link.request(request, response)
        except TimeoutError as error:
            raise TransientError(
                f"{self._link.conn}: no answer within {self._timeout_s:g} s"
            ) from error


def _key(node_id: Any) -> tuple[int, object]:
    """A node's identity, however its id was encoded."""
    return node_id.NamespaceIndex, node_id.Identifier


def _downwards(node_id: Any) -> Any:
    description = ua.BrowseDescription()
    description.NodeId = node_id
    description.BrowseDirection = ua.BrowseDirection.Forward
    description.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HierarchicalReferences)
    description.IncludeSubtypes = True
    description.NodeClassMask = ua.NodeClass.Object | ua.NodeClass.Variable
    description.ResultMask = ua.BrowseResultMask.All
    return description


def _type_of(value: Any, data_type: Any) -> ValueType | None:
    if value.StatusCode_ is None or value.StatusCode_.is_good():
        variant = value.Value
        if isinstance(variant.Value, list) or variant.is_array:
            return None
        if variant.Value is not None:
            return _TYPES.get(variant.VariantType)
    named = data_type.Value.Value if data_type.Value is not None else None
    if isinstance(named, ua.NodeId) and named.NamespaceIndex == 0:
        for kind, value_type in _TYPES.items():
            if kind.value == named.Identifier:
                return value_type
    return None
