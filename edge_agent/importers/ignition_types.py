"""Ignition's user-defined types: members, inheritance, and parameters that are filled in. Pure.

An instance names its type by `typeId`, a path below the folder `_types_`, and holds only what
differs from it: a member with the same name overrides the type's. A type may have a parent type. A
property is a value, or ``{"bindType": "parameter", "binding": "...{Name}..."}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.importers.base import DEPTH_MAX, table, tables, text

Node = Mapping[str, object]
Parameters = Mapping[str, str]

_PARAMETER: Final = re.compile(r"\{([^{}]+)\}")
_ARITHMETIC: Final = re.compile(r"([+-])([0-9]{1,9})")
BINDINGS_MAX: Final = 8
"""Parameters whose value names a parameter, and so on."""
TEXT_CHARS_MAX: Final = 4_096
"""Of a property once its parameters are filled in; they could double each other without end."""


def bound(value: object, parameters: Parameters) -> str:
    """A property's text with its parameters filled in; those that nobody gives stay in braces.

    ``{Base+1}`` adds to a number, as Ignition does.
    """
    filled = text(table(value).get("binding") if isinstance(value, dict) else value)
    for _ in range(BINDINGS_MAX):
        before = filled
        filled = _PARAMETER.sub(lambda match: _parameter(match[1], parameters), filled)
        if filled == before or len(filled) > TEXT_CHARS_MAX:
            break
    return filled[:TEXT_CHARS_MAX]


def _parameter(name: str, parameters: Parameters) -> str:
    if name in parameters:
        return parameters[name][:TEXT_CHARS_MAX]
    base = re.split("[+-]", name)[0].strip()
    steps = name[len(name.split("+")[0].split("-")[0]) :].replace(" ", "")
    start = parameters.get(base, "")
    if re.fullmatch("-?[0-9]{1,9}", start) and re.fullmatch("([+-][0-9]{1,9})+", steps):
        total = sum(int(sign + digits) for sign, digits in _ARITHMETIC.findall(steps))
        return str(int(start) + total)
    return f"{{{name}}}"


@dataclass(frozen=True, slots=True)
class Types:
    """The types of an export by their path."""

    by_path: Mapping[str, Node]

    @classmethod
    def of(cls, roots: Sequence[Node]) -> Types:
        """Every type in a document, by its path below `_types_` or below the export's root."""
        return cls({path: node for root in roots for path, node in _types_in(root, (), 0)})

    def find(self, type_id: str) -> Node | None:
        """A type by its `typeId`, whole or by its last name."""
        plain = re.sub(r"^(\[[^\]]*\])?(_types_/)?", "", type_id)
        found = self.by_path.get(plain)
        return self.by_path.get(plain.rpartition("/")[2]) if found is None else found

    def lineage(self, found: Node | None) -> list[Node]:
        """A type behind its parent types, the oldest first."""
        line: list[Node] = []
        while found is not None and len(line) < DEPTH_MAX and found not in line:
            line.append(found)
            parent = text(found.get("typeId"))
            found = self.find(parent) if parent else None
        return line[::-1]

    def instance(self, found: Node | None, node: Node) -> Node:
        """An instance with all members of its type, overridden by its own."""
        merged: Node = {}
        for one in (*self.lineage(found), node):
            merged = _merge(merged, one, 0)
        return merged

    def parameters(self, found: Node | None, node: Node, outer: Parameters) -> dict[str, str]:
        """The parameters of an instance; a value may name a parameter of the instance around it."""
        given: dict[str, str] = {}
        for one in (*self.lineage(found), node):
            for name, value in _pairs(one.get("parameters")):
                own = table(value).get("value", value if not isinstance(value, dict) else "")
                given[name] = bound(own, outer)
        return given


def _pairs(parameters: object) -> Iterator[tuple[str, object]]:
    """Parameters by name; old exports have a list of them."""
    if isinstance(parameters, dict):
        yield from parameters.items()
    for one in tables(parameters) if isinstance(parameters, list) else []:
        yield text(one.get("name")), one.get("value")


def _types_in(node: Node, folders: tuple[str, ...], depth: int) -> Iterator[tuple[str, Node]]:
    if depth > DEPTH_MAX:
        return
    for child in (node, *tables(node.get("tags"))) if depth == 0 else tables(node.get("tags")):
        name = text(child.get("name"))
        if text(child.get("tagType")) == "UdtType":
            yield "/".join((*folders, name)), child
        elif child is not node:
            inner = () if name == "_types_" else (*folders, name)
            yield from _types_in(child, inner, depth + 1)


def _merge(base: Node, over: Node, depth: int) -> Node:
    """Properties of both, the second ones first; members are merged by name."""
    merged = {**base, **over}
    if depth > DEPTH_MAX:
        return merged
    members = {text(one.get("name")): one for one in tables(base.get("tags"))}
    for one in tables(over.get("tags")):
        name = text(one.get("name"))
        members[name] = _merge(members[name], one, depth + 1) if name in members else one
    if members:
        merged["tags"] = list(members.values())
    return merged
