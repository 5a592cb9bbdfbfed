"""Whatever the file: rows that make a valid map, or reasons that a person can read."""

from __future__ import annotations

import csv
import io
import json

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import protocols
from edge_agent.address_map.check import check
from edge_agent.address_map.row import Syntaxes
from edge_agent.address_map.table import read
from edge_agent.address_map.writer import to_csv
from edge_agent.errors import ConfigError
from edge_agent.importers import KINDS, Defaults, Imported, convert, kind_of

slow_is_fine = settings(deadline=None, max_examples=150)
CONNS = st.sampled_from(["", "tcp://10.0.0.5", "opc.tcp://10.0.0.6:4840", "s7://10.0.0.7"])


def words(text: str) -> st.SearchStrategy[str]:
    """One of some words."""
    return st.sampled_from(text.split())


def import_bytes(data: bytes, kind: str | None, conn: str) -> Imported | ConfigError:
    """What the importers say to a file, after a look at the form of their answer."""
    try:
        imported = convert(data, Defaults(conn=conn), protocols.load, kind)
    except ConfigError as error:
        return error
    orjson.dumps([finding.as_dict() for finding in imported.findings])
    for finding in imported.findings:
        assert finding.reason
        assert f"{finding.place}{finding.what}{finding.reason}".isprintable()
    if imported.tags:
        checked = check(read(to_csv(imported.tags)), Syntaxes(protocols.load))
        assert not checked.problems
        assert tuple(checked.tags) == imported.tags
    return imported


@slow_is_fine
@given(
    st.binary(max_size=1_000),
    st.sampled_from(
        [b"", b"PK\x03\x04", b"\xef\xbb\xbf", b"\xff\xfe", b"[[inputs.modbus]]\n", b"[{"]
    ),
    st.sampled_from([None, *KINDS]),
)
def test_any_bytes(data: bytes, start: bytes, kind: str | None) -> None:
    """Bytes of any kind are imported or refused, under every importer."""
    import_bytes(start + data, kind, "tcp://10.0.0.5")


# Texts that mean something to an importer, beside any others.
WORDS = words(
    """
    modbus-read modbus-client modbus-flex-getter modbus-flex-sequencer modbus-write
    buffer-parser function inject change tab OpcUa-Item OpcUa-Client OpcUa-Endpoint
    HoldingRegister Coil Input tcp ms s read subscribe ns=2;s=a opc.tcp://h:4840 float
    floatbe bool json FC3 AtomicTag Folder UdtType UdtInstance opc memory Linear Absolute
    Float4 Boolean Int2 [D]HR1 [D]HRF1.2 {A} ns=1;s=[D]{A+1} T a b c 1 0 -1 65535 0.1
    tcp://h:502 file:///dev/ttyS0 register request metric holding coil ABCD CDAB BA INT16
    UINT8H FLOAT32-IEEE FIXED BIT 1s {"fc":3,"address":1} UserName auto
    msg.payload={fc:3,unitid:1,address:2,quantity:3}
    """
)
SCALARS = (
    WORDS
    | st.text(max_size=8)
    | st.integers(-2, 70_000)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
)
KEYS = words(
    """
    id type z d wires links server endpoint name topic unitid dataType adr quantity rate
    rateUnit unit_id clienttype tcpHost tcpPort serialPort items offset offsetbit length
    scale mask swap1 data func payload payloadType rules to tot props v vt fc address
    sequences item datatype action time timeUnit repeat useIOFile ioFile path tags tagType
    typeId parameters value valueSource opcItemPath opcServer engUnit engLow engHigh
    scaleMode rawLow rawHigh scaledLow scaledHigh deadband alarms enabled binding bindType
    disabled
    """
)
VALUES = st.recursive(
    SCALARS | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=8),
    max_leaves=30,
)
NODES = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from("abc"), "type": WORDS}, optional={"z": st.sampled_from("abc")}
    ).flatmap(
        lambda node: st.dictionaries(KEYS, VALUES, max_size=12).map(lambda more: {**more, **node})
    ),
    min_size=1,
    max_size=5,
)


@slow_is_fine
@given(NODES, CONNS)
def test_any_flow(nodes: object, conn: str) -> None:
    """Nodes of any kind with any properties, wired to each other anyhow."""
    import_bytes(json.dumps(nodes).encode(), "nodered", conn)


@slow_is_fine
@given(st.dictionaries(KEYS, VALUES, max_size=10), st.lists(VALUES, max_size=5), CONNS)
def test_any_tag_export(more: dict[str, object], tags: object, conn: str) -> None:
    """Folders, types and tags with any properties."""
    import_bytes(json.dumps({**more, "tags": tags}).encode(), "ignition", conn)


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


TOML_KEYS = words(
    """
    name slave_id controller transmission_mode configuration_type timeout interval baud_rate
    parity data_bits stop_bits coils discrete_inputs holding_registers input_registers
    request metric fields register address data_type type byte_order bit scale omit
    measurement tags workarounds nodes group namespace identifier_type identifier
    default_tags endpoint security_policy auth_method username password site line device
    """
)
TOML_VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TOML_KEYS, inner, max_size=8),
    max_leaves=30,
)


@slow_is_fine
@given(
    st.sampled_from(["modbus", "opcua", "opcua_listener"]),
    st.dictionaries(TOML_KEYS, TOML_VALUES, max_size=15),
    st.sampled_from(["tcp://h:502", "file:///dev/ttyS0", "opc.tcp://h:4840"]),
)
def test_any_configuration(kind: str, plugin: dict[str, object], place: str) -> None:
    """Plugins of any settings, with fields of any kind."""
    plugin = {**plugin, "controller": place, "endpoint": place}
    lines = "\n".join(f"{key} = {toml(value)}" for key, value in plugin.items())
    found = import_bytes(f"[[inputs.{kind}]]\n{lines}\n".encode(), None, "")
    assert isinstance(found, Imported), found


CELLS = SCALARS.map(str) | words(
    """
    1!400001 1!400001.3 2!300004#BL 40001 H40001 400001.3 DB1,REAL4 DB1.DBW2 MX0.3 T1 2!a 1!
    Read Write R/W WO Word Float Boolean LBCD FLOAT BIT UINT32 String Linear 100 1e9
    """
)


def table_of(header: str) -> st.SearchStrategy[bytes]:
    """A CSV file with these columns and any cells."""
    columns = header.split(",")

    def text(rows: list[list[str]]) -> bytes:
        lines = io.StringIO()
        csv.writer(lines).writerows([columns, *rows])
        return lines.getvalue().encode("utf-8", "replace")

    row = st.lists(CELLS, max_size=len(columns) + 1)
    return st.lists(row, max_size=6).map(text)


def check_table(kind: str, data: bytes, conn: str) -> None:
    """A table is of its kind, and imported as such."""
    assert kind_of(data) == kind
    found = import_bytes(data, None, conn)
    assert isinstance(found, Imported)


@slow_is_fine
@given(
    table_of(
        "Tag Name,Address,Data Type,Client Access,Scan Rate,Scaling,Raw Low,Raw High,Scaled Low,"
        "Scaled High,Clamp Low,Eng Units,Description,Negate Value"
    ),
    CONNS,
)
def test_any_kepware_table(data: bytes, conn: str) -> None:
    """Any cells below Kepware's header."""
    check_table("kepware", data, conn)


@slow_is_fine
@given(
    table_of("Group,Interval,Name,Address,Attribute,Type,Description,Decimal,Precision,Bias"), CONNS
)
def test_any_neuron_table(data: bytes, conn: str) -> None:
    """Any cells below Neuron's header."""
    check_table("neuron", data, conn)
