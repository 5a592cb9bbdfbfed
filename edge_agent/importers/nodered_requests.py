"""What messages tell a flex-getter to read, as far as it stands in plain numbers. Pure.

A message's payload is ``{fc, unitid, address, quantity}``. It is made by an inject node (JSON), a
change node (JSON) or a function node (JavaScript), of which literal objects and assignments of
literals are taken; whatever is computed is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from edge_agent.importers.base import table, tables, text, whole
from edge_agent.importers.nodered_flow import Flow

FUNCTION_CHARS_MAX: Final = 200_000
"""Of a function node's text that is searched; people write some hundred."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a node reads: ``area`` as the map writes it, cells counted from 0."""

    area: str
    unit_id: int | None
    address: int
    quantity: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A payload for a flex-getter."""

    function: int
    unit_id: int | None
    address: int
    quantity: int


Source = Mapping[str, object]


def requests_of(
    flow: Flow, getter: Source
) -> tuple[list[tuple[Source, Asked]], list[tuple[Source, str]]]:
    """Payloads that reach a getter, by the node that makes them; and nodes that can't be read."""
    requests: list[tuple[Source, Asked]] = []
    problems: list[tuple[Source, str]] = []
    for node in flow.before(getter):
        if flow.disabled(node):
            continue
        for payload in _payloads(node):
            try:
                requests.append((node, _asked(payload)))
            except ValueError as error:
                problems.append((node, str(error)))
    return requests, problems


def _payloads(node: Source) -> Iterator[Mapping[str, object]]:
    """Objects with `fc` that a node puts into messages; a number that is computed is a text."""
    kind = text(node.get("type"))
    if kind == "inject":
        listed = [(node.get("payload"), node.get("payloadType"))]
        listed += [(one.get("v"), one.get("vt")) for one in tables(node.get("props"))]
    elif kind == "change":
        listed = [(rule.get("to"), rule.get("tot")) for rule in tables(node.get("rules"))]
    elif kind == "function":
        yield from _literals(text(node.get("func"))[:FUNCTION_CHARS_MAX])
        return
    else:
        return
    for value, value_type in listed:
        if value_type != "json" or not isinstance(value, str):
            continue
        try:
            payload = table(orjson.loads(value))
        except orjson.JSONDecodeError:
            continue
        if "fc" in payload:
            yield payload


def _asked(payload: Mapping[str, object]) -> Asked:
    numbers: dict[str, int | None] = {}
    for key in ("fc", "unitid", "address", "quantity"):
        given = payload.get(key)
        numbers[key] = whole(given)
        if given not in (None, "") and numbers[key] is None:
            raise ValueError(f"{key} is computed: {text(given)}")
    function, address = numbers["fc"], numbers["address"]
    if function is None or address is None:
        raise ValueError("fc or address is not said in plain numbers")
    quantity = numbers["quantity"]
    return Asked(function, numbers["unitid"], address, 1 if quantity is None else quantity)


_COMMENT: Final = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_OBJECT: Final = re.compile(r"\{[^{}]*\}")
_PAIR: Final = re.compile(r"""['"]?\b(fc|unitid|address|quantity)\b['"]?\s*:\s*([^,}\n]+)""")
_ASSIGNED: Final = re.compile(r"\.(fc|unitid|address|quantity)\s*=(?!=)\s*([^;\n]+)")


def _literals(code: str) -> Iterator[Mapping[str, object]]:
    """Payloads in JavaScript: objects with `fc`, or what is assigned to a payload's fields."""
    plain = _COMMENT.sub("", code)
    payloads = [_numbers(_PAIR.findall(found)) for found in _OBJECT.findall(plain)]
    payloads = [payload for payload in payloads if "fc" in payload]
    if not payloads:
        assigned = _ASSIGNED.findall(plain)
        if len({key for key, _ in assigned}) == len(assigned):  # each once: no branches
            payloads = [payload for payload in [_numbers(assigned)] if "fc" in payload]
    yield from payloads


def _numbers(pairs: list[tuple[str, str]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for key, code in pairs:
        plain = code.strip().strip("'\"")
        is_hex = re.fullmatch("0[xX][0-9a-fA-F]{1,4}", plain)
        values[key] = int(plain, 16) if is_hex else plain
    return values
