"""Ignition's tag export: JSON of folders, tags, user-defined types (UDTs) and instances. Pure.

Sources: Ignition 8.1 and 8.3, "Tag Properties", "Modbus Addressing", "Siemens". An OPC tag names a
server and a path in it. Where `--conn` is an OPC UA server, the path is the address as it stands.
Where it is a PLC, the path is that of Ignition's own drivers, ``ns=1;s=[Device]HR1``: the
designator says area and type, and the number counts from 1. Limits are the engineering range.

The innermost folder is the device, the one around it the line, those around that the site. An
instance of a type is a device, and folders within it are parts of a tag's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from edge_agent.codec import WIDTHS
from edge_agent.errors import ConfigError
from edge_agent.importers.addresses import BIT_PREFIXES, protocol_of, s7_address
from edge_agent.importers.base import (
    DEPTH_MAX,
    Defaults,
    Found,
    Place,
    Row,
    number,
    tables,
    text,
)
from edge_agent.importers.documents import parse_json
from edge_agent.importers.ignition_types import Parameters, Types, bound
from edge_agent.importers.scaling import linear
from edge_agent.model import ValueType

_TYPES: Final[Mapping[str, ValueType]] = {
    "Boolean": ValueType.BOOL,
    "Int1": ValueType.INT8,
    "Int2": ValueType.INT16,
    "Int4": ValueType.INT32,
    "Int8": ValueType.INT64,
    "Float4": ValueType.FLOAT32,
    "Float8": ValueType.FLOAT64,
}
DATA_TYPE_DEFAULT: Final = "Int4"
"""Of a tag whose export names none."""

_AREAS: Final = {"C": "co", "DI": "di", "IR": "ir", "HR": "hr"}
_DESIGNATORS: Final[Mapping[str, ValueType]] = {
    "": ValueType.INT16,
    "US": ValueType.UINT16,
    "I": ValueType.INT32,
    "UI": ValueType.UINT32,
    "I_64": ValueType.INT64,
    "UI_64": ValueType.UINT64,
    "F": ValueType.FLOAT32,
    "D": ValueType.FLOAT64,
    "BCD": ValueType.BCD16,
    "BCD_32": ValueType.BCD32,
}
"""What follows HR or IR, and how the register is read."""
_ITEM: Final = re.compile(
    r"(?:ns=1;s=|nsu=urn:inductiveautomation:ignition:opcua:server;s=)?"
    r"\[(?P<device>[^\]]+)\](?P<address>.*)",
    re.DOTALL,
)
_MODBUS: Final = re.compile(
    r"(?:(?P<unit>[0-9]{1,3})\.)?(?P<area>HR|IR|DI|C)(?P<kind>[A-Z]*(?:_(?:32|64))?)"
    r"(?P<number>[0-9]{1,6})(?:\.(?P<bit>[0-9]{1,2}))?"
)


def looks_like(document: object) -> bool:
    """Whether a JSON document is a tag export."""
    return any("tags" in one or "tagType" in one for one in tables(document))


def read(data: bytes, defaults: Defaults) -> Found:
    """All OPC tags of an export. Raises ``ConfigError``."""
    document = parse_json(data)
    if not looks_like(document):
        raise ConfigError("not a tag export of Ignition: no tags and no tagType in it")
    roots = tables(document)
    found = Found()
    walk = _Walk(Types.of(roots), defaults, found)
    for at, root in enumerate(roots):
        name = text(root.get("name"))
        path = () if len(roots) == 1 else (f"[{at}]",)
        walk.visit(root, Parents(path, (name,) if name else ()))
    walk.report_settings()
    return found


@dataclass(frozen=True, slots=True)
class Parents:
    """Where a tag stands: JSON path, folders, and the instances around it.

    ``device_at`` is how many folders there are down to the outermost instance, 0 outside of any.
    """

    path: Sequence[str] = ()
    folders: Sequence[str] = ()
    root_instance: str = ""
    device_at: int = 0
    parameters: Parameters = field(default_factory=dict)
    types: Sequence[str] = ()

    def inside(self, step: str, folder: str) -> Parents:
        """One level further down."""
        folders = (*self.folders, folder) if folder else self.folders
        return replace(self, path=(*self.path, step), folders=folders)

    @property
    def place(self) -> Place:
        """As the report names it: the JSON path, and the tag's own path."""
        own = "/".join(self.folders)
        return Place(".".join(self.path).replace(".[", "[") + (f" ({own})" if own else ""))


@dataclass(slots=True)
class _Walk:
    types: Types
    defaults: Defaults
    found: Found
    groups: set[str] = field(default_factory=set)
    wide: set[str] = field(default_factory=set)
    """Modbus devices that have values of more than one register."""

    def visit(self, node: Mapping[str, object], parents: Parents) -> None:
        """A folder, type, instance or tag, and what is in it."""
        name = text(node.get("name"))
        kind = text(node.get("tagType")) or ("Folder" if "tags" in node else "AtomicTag")
        if len(parents.folders) > DEPTH_MAX or len(parents.path) > 2 * DEPTH_MAX:
            self.found.left_out(parents.place, name, f"more than {DEPTH_MAX} folders deep")
        elif kind == "UdtType":
            pass  # its instances say where and whether it is read
        elif kind in {"Folder", "Provider"}:
            self._children(node, parents)
        elif kind == "UdtInstance":
            self._instance(node, parents, name)
        elif kind == "AtomicTag":
            self._tag(node, parents, name)
        else:
            self.found.left_out(parents.place, name, f"tagType {kind} is not known")

    def _children(self, node: Mapping[str, object], parents: Parents) -> None:
        for at, child in enumerate(tables(node.get("tags"))):
            self.visit(child, parents.inside(f"tags[{at}]", text(child.get("name"))))

    def _instance(self, node: Mapping[str, object], parents: Parents, name: str) -> None:
        type_id = bound(node.get("typeId"), parents.parameters)
        if type_id in parents.types:
            self.found.left_out(parents.place, name, f"the type {type_id} contains itself")
            return
        if node.get("enabled") is False:
            self.found.left_out(parents.place, name, "the instance is disabled")
            return
        whole_type = self.types.find(type_id)
        if whole_type is None and not tables(node.get("tags")):
            reason = f"its type {type_id} is not in the file; export the folder _types_ with it"
            self.found.left_out(parents.place, name, reason)
            return
        merged = self.types.instance(whole_type, node)
        given = self.types.parameters(whole_type, node, parents.parameters)
        inner = replace(
            parents,
            root_instance=parents.root_instance or name,
            device_at=parents.device_at or len(parents.folders),
            types=(*parents.types, type_id),
            parameters={
                **parents.parameters,
                **given,
                "InstanceName": name,
                "RootInstanceName": parents.root_instance or name,
            },
        )
        self._children(merged, inner)

    def _tag(self, node: Mapping[str, object], parents: Parents, name: str) -> None:
        source = text(node.get("valueSource")) or "memory"
        label = "/".join(parents.folders) or name
        if source != "opc":
            reason = f"valueSource {source}: its value is made in Ignition, not read from a device"
            self.found.left_out(parents.place, label, reason)
            return
        if node.get("enabled") is False:
            self.found.left_out(parents.place, label, "the tag is disabled")
            return
        try:
            row = self._row(node, parents, name, label)
        except ValueError as error:
            self.found.left_out(parents.place, label, str(error))
            return
        self.groups.add(text(node.get("tagGroup")) or "Default")
        self.found.add(row)

    def _row(self, node: Mapping[str, object], parents: Parents, name: str, label: str) -> Row:
        parameters = {
            **parents.parameters,
            "TagName": name,
            "PathToTag": label,
            "PathToParentFolder": "/".join(parents.folders[:-1]),
        }

        def value(key: str) -> str:
            return bound(node.get(key), parameters)

        declared = value("dataType") or DATA_TYPE_DEFAULT
        if declared not in _TYPES:
            raise ValueError(f"dataType {declared}; the agent carries single numbers and BOOL")
        path = value("opcItemPath")
        if not path or "{" in path:
            raise ValueError(f"opcItemPath {path!r} has no value or names no known parameter")
        where = self._where(path, value("opcServer"), _TYPES[declared])
        scale, offset = self._scaling(value)
        deadband = number(value("deadband")) or 0.0
        mode = value("deadbandMode") or "Absolute"
        if deadband and mode != "Absolute":
            if mode != "Off":
                self.found.in_part(parents.place, label, f"its deadband in {mode}")
            deadband = 0.0
        if tables(node.get("alarms")):
            self.found.in_part(parents.place, label, "its alarms; limits are hi and lo")
        folders = parents.folders[:-1]
        split = parents.device_at or len(folders)
        return Row(
            place=parents.place,
            site=".".join(folders[: max(split - 2, 0)]),
            line=folders[split - 2] if split > 1 else "",
            device=folders[split - 1] if split else "",
            tag=".".join((*folders[split:], name)),
            long_tag=".".join(parents.folders),
            protocol=where.protocol,
            conn=where.conn,
            unit_id=where.unit_id,
            address=where.address,
            type=where.type,
            scale=scale,
            offset=offset,
            unit=value("engUnit"),
            lo=number(value("engLow")),
            hi=number(value("engHigh")),
            deadband=max(deadband, 0.0),
            description=value("documentation") or value("tooltip"),
        )

    def _scaling(self, value: Callable[[str], str]) -> tuple[float, float]:
        mode = value("scaleMode") or "Off"
        if mode == "Linear":
            # The lower ends are 0 unless an export says otherwise; it never says the defaults.
            raw, scaled = (
                [number(value(f"{kind}Low") or "0"), number(value(f"{kind}High"))]
                for kind in ("raw", "scaled")
            )
            return linear(raw, scaled)
        if mode != "Off":
            raise ValueError(f"scaleMode {mode}; carried over is Linear")
        return 1.0, 0.0

    def _where(self, path: str, server: str, declared: ValueType) -> _Where:
        """Connection, address and type of an OPC item. Raises ``ValueError``."""
        item = _ITEM.fullmatch(path)
        device = item["device"] if item else ""
        self.found.named(device, server)
        conn = self.defaults.conn_of(device, server) if device else self.defaults.conn_of(server)
        protocol = protocol_of(conn)
        if not conn:
            name = device or server or "NAME"
            raise ValueError(f"no connection is known: give --conn, or --conn {name}=CONN")
        if protocol == "opcua":
            return _Where(protocol, conn, None, path, declared)
        if item is None:
            raise ValueError(f"{path!r} is no path of Ignition's drivers, and {conn} no OPC UA")
        if protocol == "modbus":
            unit_id, address, kind = _modbus(item["address"])
            if WIDTHS[kind] > 1:
                self.wide.add(device)
            return _Where(protocol, conn, unit_id, address, kind)
        if protocol == "s7":
            address, kind = s7_address(item["address"], None)
            return _Where(protocol, conn, None, address, kind)
        raise ValueError(f"items of Ignition are carried over to OPC UA, Modbus and S7, not {conn}")

    def report_settings(self) -> None:
        """Say what stands in the gateway, not in the export."""
        for device in sorted(self.wide):
            reason = "ABCD, unless the gateway has 'Reverse Word Order' for this device"
            self.found.assumed(Place(f"device {device}"), "byte_order", reason)
        for group in sorted(self.groups) if self.defaults.period_ms is None else ():
            self.found.assumed(
                Place(f"tag group {group}"), "period_ms", "its rate is a setting of the gateway"
            )


@dataclass(frozen=True, slots=True)
class _Where:
    protocol: str
    conn: str
    unit_id: int | None
    address: str
    type: ValueType


def _modbus(address: str) -> tuple[int | None, str, ValueType]:
    """`HR1`, `2.HRF100`, `HR5.3` in the map's form. Raises ``ValueError``."""
    match = _MODBUS.fullmatch(address.upper())
    area = _AREAS[match["area"]] if match else ""
    bits = area in BIT_PREFIXES
    if match is None or (match["kind"] and (bits or match["kind"] not in _DESIGNATORS)):
        raise ValueError(
            f"{address!r} is no number of Ignition's Modbus driver, such as HR1, HRF100, 2.C5"
        )
    unit_id = int(match["unit"]) if match["unit"] else None
    first = int(match["number"]) - 1
    if bits:
        return unit_id, f"{area}:{first}", ValueType.BOOL
    if match["bit"] is not None:
        return unit_id, f"{area}:{first}.{match['bit']}", ValueType.BOOL
    return unit_id, f"{area}:{first}", _DESIGNATORS[match["kind"]]
