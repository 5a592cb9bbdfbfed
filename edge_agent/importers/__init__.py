"""An address map out of the configuration of another system. Pure.

One module per kind of file reads what the file says and yields rows; it never guesses in silence.
What a file does not say is taken from the command line or assumed, and what the agent has no word
for is left out: each time a finding says where, what, what became of it and why. `assemble` then
makes the rows a map that passes the map's own check as a whole, so a bad row costs one row.

**Kinds** are told apart by contents, never by names. **Files are untrusted**: every value of a
document is asked for its type, recursion and the number of rows are bounded, texts are made
printable before a report shows them, and no file names another one that would be opened. Secrets
are not carried over.

**Places.** A table has lines; a workbook has cells; TOML and JSON have paths, as their parsers give
no lines; Node-RED has node ids, which its editor finds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

from edge_agent.errors import ConfigError
from edge_agent.importers import ignition, kepware, neuron, nodered, telegraf
from edge_agent.importers.assemble import Imported, assemble
from edge_agent.importers.base import OUTCOMES, Defaults, Finding, Found, Outcome
from edge_agent.importers.documents import ZIP, decode, find_sheet, parse_json
from edge_agent.model import AddressSyntax

__all__ = [
    "KINDS",
    "OUTCOMES",
    "Defaults",
    "Finding",
    "Imported",
    "Outcome",
    "convert",
    "kind_of",
]

KINDS: Final[Mapping[str, Callable[[bytes, Defaults], Found]]] = MappingProxyType(
    {
        "telegraf": telegraf.read,
        "nodered": nodered.read,
        "kepware": kepware.read,
        "neuron": neuron.read,
        "ignition": ignition.read,
    }
)
"""The importers by the name that `--from` takes."""

_TELEGRAF: Final = re.compile(r"(?m)^\s*\[\[?\s*(inputs|outputs|agent|global_tags)\s*[.\]]")


def convert(
    data: bytes,
    defaults: Defaults,
    syntax: Callable[[str], type[AddressSyntax]],
    kind: str | None = None,
) -> Imported:
    """The tags of a file and what could not be carried over; without a ``kind`` it is found out.

    ``syntax`` gives a protocol's address syntax by name, as for `address_map.load`. Raises
    ``ConfigError`` if the file as a whole can't be read.
    """
    kind = kind_of(data) if kind is None else kind
    return assemble(kind, KINDS[kind](data, defaults), defaults, syntax)


def kind_of(data: bytes) -> str:
    """What a file is, by its contents. Raises ``ConfigError`` if it is none of the kinds."""
    text = "" if data.startswith(ZIP) else decode(data)
    if _TELEGRAF.search(text):
        return "telegraf"
    if text.lstrip()[:1] in ("[", "{"):
        document = parse_json(data)
        if nodered.nodes_of(document):
            return "nodered"
        if ignition.looks_like(document):
            return "ignition"
    else:
        for kind, columns in (("kepware", kepware.COLUMNS), ("neuron", neuron.COLUMNS)):
            with suppress(ConfigError):
                if find_sheet(data, columns) is not None:
                    return kind
    raise ConfigError(
        "this is not recognised as a file of Telegraf, Node-RED, Kepware, Neuron or Ignition",
        hint=f"docs/import.md says which files are read; --from {'|'.join(KINDS)} names the kind",
    )
