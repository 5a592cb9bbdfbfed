"""The columns of an address map, in the order in which a new map is written."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

REQUIRED_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "site": "plant or building; part of the topic and of the primary key",
        "line": "production line of the device; one device belongs to one line",
        "device": "the machine a dashboard shows as one card",
        "tag": "name of the value; unique within its site and device",
        "protocol": "how the device is read, for example modbus",
        "conn": "socket or serial line, for example tcp://10.0.0.5:502; devices may share it",
        "unit_id": "the device's number on its connection, 0 to 255; empty means 1",
        "address": "where the value lies, in the protocol's own syntax",
        "type": "how the raw value is laid out, for example FLOAT32",
        "scale": "value = raw x scale + offset; empty means 1",
        "offset": "added after scaling, in the value's unit; empty means 0",
        "period_ms": "how often the value is read, in milliseconds, from 200",
        "unit": "engineering unit of the value; may be empty",
        "hi": "highest normal value, in the value's unit; empty means no limit",
        "lo": "lowest normal value, in the value's unit; empty means no limit",
    }
)

OPTIONAL_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "byte_order": "order of the value's bytes on the wire; empty means ABCD",
        "deadband": "a value is recorded when it has moved by more than this; empty means 0",
        "precision": "digits after the decimal point that are kept; empty means all it has",
        "heartbeat_ms": "record an unchanged value at least this often, in milliseconds",
        "enabled": "false leaves the row out; empty means true",
        "description": "free text for people",
    }
)

COLUMNS_VERSION = 1
"""Of this set of columns. It grows when a column is added, which is then optional: files of older
versions keep working. A column is never renamed, removed or given another meaning."""

COLUMNS: tuple[str, ...] = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
