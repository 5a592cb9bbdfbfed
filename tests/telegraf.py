"""The requests that Telegraf's Modbus input sends with ``optimization = "max_insert"``.

After `groupFieldsToRequests` and `optimizeGroupWithinLimits` in influxdata/telegraf,
plugins/inputs/modbus/request.go, and `process` in configuration_metric.go beside it (August 2026):
fields are grouped by unit and register type, sorted by address and, at one address, the longest
first; groups of neighbours are joined to one list, which is cut where the hole to the field before
is larger than `optimization_max_register_fill`, or the request would grow too long. The period is
that of the plugin's instance.

Told as it is: a hole counts from the field before, however far a longer one reached; a field that
lies inside another one counts in full towards the length. Left out: a value that ends at the last
register, 65535, is refused there.
"""

from __future__ import annotations

from collections.abc import Iterable

FILL_DEFAULT = 50
"""`optimization_max_register_fill`, registers or bits."""


def max_insert(fields: Iterable[tuple[int, int]], *, fill: int, size_max: int) -> list[int]:
    """Addresses of the requests for fields of one unit and register type, (address, length)."""
    ordered = sorted(fields, key=lambda field: (field[0], -field[1]))
    starts: list[int] = []
    length = end_before = 0
    for address, width in ordered:
        hole = max(address - end_before, 0)
        if not starts or hole > fill or length + hole + width > size_max:
            starts.append(address)
        length = address + width - starts[-1]
        end_before = address + width
    return starts
