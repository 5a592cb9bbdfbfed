"""What becomes of single things in the files of other systems, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from edge_agent import cli, protocols
from edge_agent.address_map import load
from edge_agent.errors import ConfigError
from edge_agent.importers import Defaults, Imported, Outcome, base, convert, kind_of
from edge_agent.importers.addresses import s7_address
from edge_agent.importers.base import duration_ms, number, printable, whole
from edge_agent.importers.scaling import linear
from edge_agent.model import ByteOrder, Tag, ValueType

TCP = Defaults(conn="tcp://10.0.0.5")


def telegraf(text: str) -> Imported:
    """A configuration of Telegraf, imported."""
    return convert(text.encode(), Defaults(), protocols.load, "telegraf")


def nodered(*nodes: Mapping[str, object]) -> Imported:
    """A flow, imported; a client with the id `c` is part of it."""
    client = {"id": "c", "type": "modbus-client", "name": "PLC", "clienttype": "tcp"}
    client |= {"tcpHost": "10.0.0.5", "tcpPort": "502", "unit_id": "9"}
    return convert(json.dumps([client, *nodes]).encode(), Defaults(), protocols.load, "nodered")


def kepware(*rows: str, header: str = "", defaults: Defaults = TCP) -> Imported:
    """Rows of a Kepware export, imported."""
    header = header or "Tag Name,Address,Data Type,Client Access,Scan Rate"
    return convert("\n".join([header, *rows]).encode(), defaults, protocols.load, "kepware")


def ignition(document: object, defaults: Defaults = TCP) -> Imported:
    """A tag export, imported."""
    return convert(json.dumps(document).encode(), defaults, protocols.load, "ignition")


def opc(name: str, path: str, **more: object) -> dict[str, object]:
    """An OPC tag of Ignition."""
    tag = {"name": name, "tagType": "AtomicTag", "valueSource": "opc", "opcItemPath": path}
    return {**tag, "dataType": "Float4", **more}


def only(imported: Imported) -> Tag:
    """The one tag of a file."""
    (tag,) = imported.tags
    return tag


def reasons(imported: Imported, outcome: Outcome) -> list[str]:
    """What and why, of the findings with one outcome."""
    return [f"{one.what}: {one.reason}" for one in imported.findings if one.outcome is outcome]


# -- all kinds ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('[[inputs.modbus]]\n  name = "a"\n', "telegraf"),
        ("# no inputs yet\n[agent]\n", "telegraf"),
        ('[{"id": "1", "type": "tab"}]', "nodered"),
        ('{"rev": "x", "flows": [{"id": "1", "type": "tab"}]}', "nodered"),
        ('{"tags": []}', "ignition"),
        ('{"name": "", "tagType": "Provider"}', "ignition"),
        ("Tag Name,Address,Data Type\n", "kepware"),
        ('"Tag Name";"Address";"Data Type"\n', "kepware"),
        ("group,name,address,attribute,type\n", "neuron"),
    ],
)
def test_a_kind_is_known_by_its_contents(text: str, kind: str) -> None:
    """Whatever the file is called."""
    assert kind_of(text.encode()) == kind
    assert kind_of(b"\xef\xbb\xbf" + text.encode()) == kind


@pytest.mark.parametrize(
    "text", ["", "hello", "{}", "[]", "a,b\n1,2", "[[other]]", '{"tags"', "\0"]
)
def test_what_is_no_kind_is_refused_with_the_ones_there_are(text: str) -> None:
    """Nothing is taken for what it is not."""
    with pytest.raises(ConfigError):
        kind_of(text.encode())


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("telegraf", "[[inputs.modbus]\n"),
        ("telegraf", "a = " + "[" * 5_000),
        ("telegraf", "a = " + "1" * 5_000),
        ("nodered", '[{"id": 1,'),
        ("nodered", "{}"),
        ("ignition", "[" * 5_000),
        ("ignition", "[1, 2]"),
        ("kepware", "Name,Value\n"),
        ("neuron", "Name,Value\n"),
        ("neuron", "PK\x03\x04 this is no workbook"),
    ],
)
def test_a_file_that_is_not_of_its_kind_is_an_error(kind: str, text: str) -> None:
    """With a sentence, whatever is wrong with it."""
    with pytest.raises(ConfigError, match=r"\w+ \w+"):
        convert(text.encode(), Defaults(), protocols.load, kind)


def test_names_become_valid_and_distinct() -> None:
    """What a topic may not have is replaced, equal names get numbers, and the report says so."""
    rows = [f'"{name}",4000{at},Word' for at, name in enumerate(["a/b", "a_b", "a+b", "$x"], 1)]
    imported = kepware(*rows)
    assert [tag.tag for tag in imported.tags] == ["a_b", "a_b_2", "a_b_3", "x"]
    changed = reasons(imported, Outcome.CHANGED)
    assert "a/b: tag 'a/b' is not a name: a_b" in changed
    assert "a_b: is called a_b_2: DEVICE has another tag a_b" in changed
    assert len(changed) == 5


def test_numbered_names_stay_within_their_length() -> None:
    """Also where the name itself is as long as may be."""
    name = "n" * 200
    imported = kepware(*(f"{name},4000{at},Word" for at in range(1, 4)))
    assert [len(tag.tag) for tag in imported.tags] == [128, 128, 128]
    assert len({tag.tag for tag in imported.tags}) == 3


def test_a_device_in_two_lines_is_two_devices() -> None:
    """A device belongs to one line, and two machines must not become one."""
    imported = ignition(
        {
            "tags": [
                {"name": line, "tags": [{"name": "Pump", "tags": [opc("P", "[D]HRF1")]}]}
                for line in ("North", "South")
            ]
        }
    )
    assert [(tag.line, tag.device) for tag in imported.tags] == [
        ("North", "Pump"),
        ("South", "South_Pump"),
    ]


def test_what_the_protocol_refuses_costs_one_row() -> None:
    """The map's own check has the last word, row by row."""
    imported = kepware("good,40001,Word", "beyond,465537,Word", "bit,40001.16,Boolean")
    assert only(imported).tag == "good"
    assert [one.what for one in imported.findings if one.outcome is Outcome.LEFT_OUT] == [
        "beyond",
        "bit",
    ]
    assert any("is out of range" in one.reason for one in imported.findings)


def test_the_report_is_in_the_order_of_the_file() -> None:
    """Whoever finds out: the reader, the names or the map's check."""
    imported = kepware("a/1,40001,Word", "b,40002,String", "c,465537,Word", "d/4,40004,Word")
    lines = [one.place.line for one in imported.findings if one.place.line]
    assert lines == [2, 3, 4, 5]


def test_the_report_says_nothing_that_a_terminal_obeys() -> None:
    """Names in a file may hold control characters; a report shows them as text."""
    imported = kepware('"a\x1b[31m",40001,String')
    (finding,) = [one for one in imported.findings if one.outcome is Outcome.LEFT_OUT]
    assert finding.what == "a\\x1b[31m"
    assert printable("x" * 10_000).endswith("…")


@pytest.mark.parametrize("period", ["100", "90000000"])
def test_periods_come_into_bounds(period: str) -> None:
    """And the report says the old and the new one."""
    imported = kepware(f"a,40001,Word,RO,{period}")
    assert only(imported).period_ms in {200, 86_400_000}
    assert any("its period of" in reason for reason in reasons(imported, Outcome.CHANGED))


def test_an_unused_connection_is_said() -> None:
    """The file says another for that device."""
    document = '[[inputs.modbus]]\n  name = "PLC"\n  controller = "tcp://10.0.0.1:502"\n'
    document += (
        '  holding_registers = [{name="a", byte_order="AB", data_type="UINT16", address=[0]}]'
    )
    imported = convert(document.encode(), TCP, protocols.load, "telegraf")
    assert [str(one.place) for one in imported.findings if one.outcome is Outcome.LEFT_OUT] == [
        "--conn"
    ]


def test_a_connection_for_a_device_that_the_file_has_not_got_is_refused() -> None:
    """With the names that it has, each as the option would take it."""
    defaults = Defaults(conns={"Chanel1.Dev": "tcp://10.0.0.1"}, conn="tcp://10.0.0.5")
    with pytest.raises(
        ConfigError, match=r"no device Chanel1\.Dev in the file; there are Channel1"
    ):
        kepware("Channel1.Dev.a,40001,Word", "Channel1.Dev.b,40002,String", defaults=defaults)
    with pytest.raises(ConfigError, match="no device METER in the file; its rows name no devices"):
        kepware("a,40001,Word", defaults=Defaults(conns={"METER": "tcp://h"}))
    tags = {"tags": [opc("y", "[D]HR2", opcServer="S")]}
    with pytest.raises(ConfigError, match="no device METER in the file; there are D, S"):
        ignition(tags, defaults=Defaults(conns={"METER": "tcp://h"}))
    many = [f"D{n}.a,40001,Word" for n in range(50)]
    with pytest.raises(ConfigError, match=r"D19 and 30 more$"):
        kepware(*many, defaults=Defaults(conns={"METER": "tcp://h"}))
    rows = "group,name,address,attribute,type,node\ng1,a,1!40001,Read,INT16,plc-1\n"
    with pytest.raises(ConfigError, match="there are plc-1, g1"):
        convert(rows.encode(), Defaults(conns={"METER": "tcp://h"}), protocols.load, "neuron")


def test_a_file_cannot_make_rows_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Types within types multiply; the bound is an error with advice."""
    types = [
        {
            "name": "T0",
            "tagType": "UdtType",
            "tags": [opc(f"m{at}", "ns=2;s=x") for at in range(20)],
        }
    ]
    for at in range(1, 8):
        inner = [
            {"name": f"i{n}", "tagType": "UdtInstance", "typeId": f"T{at - 1}"} for n in range(20)
        ]
        types.append({"name": f"T{at}", "tagType": "UdtType", "tags": inner})
    bomb = {"tags": [*types, {"name": "x", "tagType": "UdtInstance", "typeId": "T7"}]}
    monkeypatch.setattr(base, "ENTRIES_MAX", 1_000)
    with pytest.raises(ConfigError, match="more than 1,000 rows"):
        ignition(bomb, Defaults(conn="opc.tcp://h:4840"))


# -- helpers -----------------------------------------------------------------------------------


def test_values_of_untyped_documents() -> None:
    """A number may be written as text; what is none is none."""
    assert number("1e3") == 1_000
    assert number("1e400") is None
    assert number("0x10") is None
    assert number("1" * 5_000) is None
    assert number(True) is None
    assert whole("7.0") == 7
    assert whole("7.5") is None
    assert duration_ms("1m30s") == 90_000
    assert duration_ms("250ms") == 250
    assert duration_ms(5) == 5_000
    assert duration_ms("soon") is None


@pytest.mark.parametrize(
    ("raw", "scaled", "expected"),
    [
        ((0, 32767), (0, 3276.7), (0.1, 0)),
        ((0, 10), (0, 100), (10, 0)),
        ((4, 20), (0, 16), (1, -4)),
        ((819, 4095), (0, 10), (0.00305250305250305, -2.5)),
        ((0, 100), (100, 0), (-1, 100)),
    ],
)
def test_ranges_become_scale_and_offset(
    raw: Sequence[float], scaled: Sequence[float], expected: tuple[float, float]
) -> None:
    """Without the digits that float64 cannot hold; the ends of the range come out again."""
    scale, offset = linear(raw, scaled)
    assert (scale, offset) == expected
    assert raw[1] * scale + offset == pytest.approx(scaled[1], abs=1e-9)


@pytest.mark.parametrize(
    ("raw", "scaled"), [((1, 1), (0, 1)), ((0, 1), (2, 2)), ((None, 1), (0, 1))]
)
def test_ranges_that_say_nothing_are_refused(
    raw: Sequence[float | None], scaled: Sequence[float | None]
) -> None:
    """A scale of 0 would make all values the same."""
    with pytest.raises(ValueError, match="range"):
        linear(raw, scaled)


@pytest.mark.parametrize(
    ("written", "declared", "expected"),
    [
        ("DB1,REAL4", ValueType.FLOAT32, ("DB1.4", ValueType.FLOAT32)),
        ("DB1.DBW2", ValueType.INT16, ("DB1.2", ValueType.INT16)),
        ("DB1.DBW2", None, ("DB1.2", ValueType.UINT16)),
        ("DB1,X0.3", None, ("DB1.DBX0.3", ValueType.BOOL)),
        ("MX51.4", ValueType.BOOL, ("M51.4", ValueType.BOOL)),
        ("F2.1", None, ("M2.1", ValueType.BOOL)),
        ("O3", ValueType.UINT16, ("Q3", ValueType.UINT16)),
        ("%IW4", None, ("I4", ValueType.UINT16)),
        ("DB1,DINT8", ValueType.FLOAT32, ("DB1.8", ValueType.FLOAT32)),
        ("DB1,INT8", ValueType.FLOAT64, ("DB1.8", ValueType.INT16)),
    ],
)
def test_s7_addresses(
    written: str, declared: ValueType | None, expected: tuple[str, ValueType]
) -> None:
    """The declared type counts where it is as wide as the address says."""
    assert s7_address(written, declared) == expected
    protocols.load("s7").parse_address(*expected)


@pytest.mark.parametrize(
    "written", ["T1", "C4", "DB1,STRING4.10", "DB1,W2.3", "DB1", "M", "", "DB1,Q3"]
)
def test_s7_addresses_that_are_no_values(written: str) -> None:
    """Times, texts and bits of words are said not to be."""
    with pytest.raises(ValueError, match=r"S7|bit"):
        s7_address(written, None)


# -- Telegraf ----------------------------------------------------------------------------------

PLUGIN = '[[inputs.modbus]]\nname = "D"\nslave_id = 1\ncontroller = "tcp://h:502"\n'


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ('data_type="INT8L", byte_order="AB"', (ValueType.INT8, ByteOrder.ABCD)),
        ('data_type="INT8H", byte_order="AB"', (ValueType.INT8, ByteOrder.BADC)),
        ('data_type="UINT8L", byte_order="BA"', (ValueType.UINT8, ByteOrder.BADC)),
        ('data_type="UINT8H", byte_order="BA"', (ValueType.UINT8, ByteOrder.ABCD)),
        ('data_type="INT16", byte_order="BA"', (ValueType.INT16, ByteOrder.DCBA)),
        ('data_type="FLOAT16-IEEE", byte_order="AB"', (ValueType.FLOAT16, ByteOrder.ABCD)),
        ('data_type="FLOAT32", byte_order="AB"', (ValueType.UINT16, ByteOrder.ABCD)),
    ],
)
def test_telegraf_types_of_one_register(field: str, expected: tuple[ValueType, ByteOrder]) -> None:
    """The byte that Telegraf reads is the byte that the agent reads."""
    tag = only(telegraf(f'{PLUGIN}holding_registers = [{{name="x", address=[7], {field}}}]'))
    assert (tag.type, tag.byte_order, tag.address) == (*expected, "hr:7")


@pytest.mark.parametrize(
    ("written", "order"),
    [
        ("ABCDEFGH", ByteOrder.ABCD),
        ("HGFEDCBA", ByteOrder.DCBA),
        ("BADCFEHG", ByteOrder.BADC),
        ("GHEFCDAB", ByteOrder.CDAB),
        ("CDAB", ByteOrder.CDAB),
    ],
)
def test_telegraf_byte_orders(written: str, order: ByteOrder) -> None:
    """Also those with eight letters."""
    field = f'name="x", data_type="FLOAT64-IEEE", address=[0,1,2,3], byte_order="{written}"'
    assert only(telegraf(f"{PLUGIN}holding_registers = [{{{field}}}]")).byte_order is order


@pytest.mark.parametrize(
    ("settings", "conn"),
    [
        ('controller = "tcp://[fd00::5]:502"', "tcp://[fd00::5]:502"),
        ('controller = "tcp://h"', "tcp://h:502"),
        ('controller = "tcp://h:4001"\ntransmission_mode = "RTUoverTCP"', "rtu+tcp://h:4001"),
        ('controller = "file:///dev/ttyS0"', "rtu:///dev/ttyS0?baudrate=9600&parity=N"),
        (
            'controller = "file:///dev/a b"\nparity = "E"\nbaud_rate = 19200\nstop_bits = 2',
            "rtu:///dev/a%20b?baudrate=19200&parity=E&stopbits=2",
        ),
        ('controller = "tcp://h:1"\ntimeout = "500ms"', "tcp://h:1?timeout_ms=500"),
    ],
)
def test_telegraf_controllers(settings: str, conn: str) -> None:
    """Each becomes a connection that the agent takes."""
    text = f"[[inputs.modbus]]\n{settings}\ncoils = [{{name='x', address=[0]}}]"
    assert only(telegraf(text)).conn == conn


@pytest.mark.parametrize(
    "settings",
    [
        'controller = ""',
        'controller = "udp://h:1"',
        'controller = "tcp://h:99999999"',
        'controller = "file://COM1"',
        'controller = "tcp://h:1"\ntransmission_mode = "ASCIIoverTCP"',
        'controller = "file:///dev/ttyS0"\ndata_bits = 7',
        'controller = "file:///dev/ttyS0"\nparity = "mark"',
        'controller = "tcp://h:1"\nconfiguration_type = "dream"',
    ],
)
def test_telegraf_plugins_that_are_left_out(settings: str) -> None:
    """One finding for the plugin, none for each field."""
    imported = telegraf(f"[[inputs.modbus]]\n{settings}\ncoils = [{{name='x', address=[0]}}]")
    assert not imported.tags
    assert len(imported.findings) == 1


def test_telegraf_counts_intervals_from_the_plugin_up() -> None:
    """The plugin's own, the agent's, or none."""
    fields = 'controller="tcp://h:1"\ncoils=[{name="x",address=[0]}]\n'
    assert only(telegraf(f"[[inputs.modbus]]\n{fields}")).period_ms == 1_000
    both = f'[agent]\ninterval="10s"\n[[inputs.modbus]]\n{fields}'
    assert only(telegraf(both)).period_ms == 10_000
    assert only(telegraf(f'{both}interval="1h"\n')).period_ms == 3_600_000


def test_telegraf_tags_fill_the_columns() -> None:
    """One metric per tag, as people lay them out for a database with these labels."""
    text = (
        '[[inputs.modbus]]\ncontroller="tcp://h:1"\nconfiguration_type="metric"\n'
        '[[inputs.modbus.metric]]\nslave_id=4\nfields=[{address=9,name="value",type="INT16"}]\n'
        '[inputs.modbus.metric.tags]\nsite="A1"\nline="L1"\ndevice="P"\ntag="PRESS"\nunit="bar"\n'
        '[[processors.starlark]]\nsource="x"\n'
    )
    imported = telegraf(text)
    tag = only(imported)
    assert (tag.key, tag.line, tag.unit, tag.unit_id) == (("A1", "P", "PRESS"), "L1", "bar", 4)
    assert reasons(imported, Outcome.IN_PART)[0].startswith("starlark: not applied")


def test_telegraf_secrets_stay_where_they_are() -> None:
    """No password of a configuration stands in the map or in the report."""
    text = (
        '[[inputs.opcua]]\nendpoint="opc.tcp://h:4840"\nauth_method="UserName"\n'
        'username="u"\npassword="hunter2"\nnodes=[{name="x",namespace="1",identifier_type="s",'
        'identifier="a"}]'
    )
    imported = telegraf(text)
    assert "password_env=OPCUA_PASSWORD" in only(imported).conn
    assert "hunter2" not in repr(imported)


# -- Node-RED ----------------------------------------------------------------------------------


def read_node(**more: object) -> dict[str, object]:
    """A modbus-read node."""
    node = {"id": "r", "type": "modbus-read", "name": "v", "server": "c", "adr": "5"}
    node |= {"dataType": "HoldingRegister", "quantity": "1", "rate": "1", "rateUnit": "s"}
    return {**node, **more}


@pytest.mark.parametrize(
    ("kind", "address", "value_type"),
    [
        ("Coil", "co:5", ValueType.BOOL),
        ("Input", "di:5", ValueType.BOOL),
        ("HoldingRegister", "hr:5", ValueType.UINT16),
        ("InputRegister", "ir:5", ValueType.UINT16),
    ],
)
def test_nodered_areas(kind: str, address: str, value_type: ValueType) -> None:
    """Addresses count from 0 there and here; a unit that the node lacks is the client's."""
    tag = only(nodered(read_node(dataType=kind, unitid="")))
    assert (tag.address, tag.type, tag.unit_id) == (address, value_type, 9)


@pytest.mark.parametrize("quantity", ["0", "126", "many", ""])
def test_nodered_quantities_that_no_request_has(quantity: str) -> None:
    """They are left out, not shortened."""
    imported = nodered(read_node(quantity=quantity))
    assert not imported.tags
    assert len(reasons(imported, Outcome.LEFT_OUT)) == 1


@pytest.mark.parametrize(
    ("item", "swap", "address", "value_type", "order"),
    [
        ({"type": "uint8", "offset": 0}, "", "hr:5", ValueType.UINT8, ByteOrder.BADC),
        ({"type": "uint8", "offset": 1}, "", "hr:5", ValueType.UINT8, ByteOrder.ABCD),
        ({"type": "int8", "offset": 0}, "swap16", "hr:5", ValueType.INT8, ByteOrder.ABCD),
        ({"type": "int16le", "offset": 2}, "", "hr:6", ValueType.INT16, ByteOrder.DCBA),
        ({"type": "floatle", "offset": 0}, "swap16", "hr:5", ValueType.FLOAT32, ByteOrder.CDAB),
        ({"type": "doublebe", "offset": 0}, "swap16", "hr:5", ValueType.FLOAT64, ByteOrder.BADC),
        (
            {"type": "bool", "offset": 0, "offsetbit": 0},
            "",
            "hr:5.8",
            ValueType.BOOL,
            ByteOrder.ABCD,
        ),
        (
            {"type": "bool", "offset": 3, "offsetbit": 7},
            "",
            "hr:6.7",
            ValueType.BOOL,
            ByteOrder.ABCD,
        ),
    ],
)
def test_nodered_parser_items(
    item: dict[str, object], swap: str, address: str, value_type: ValueType, order: ByteOrder
) -> None:
    """Bytes of a reply become registers, bits and byte orders."""
    parser = {"id": "p", "type": "buffer-parser", "data": "payload", "swap1": swap}
    parser["items"] = [{"name": "x", "length": 1, **item}]  # type: ignore[assignment]
    tag = only(nodered(read_node(quantity="4", wires=[[], ["p"]]), parser))
    assert (tag.address, tag.type, tag.byte_order) == (address, value_type, order)


@pytest.mark.parametrize(
    "item",
    [
        {"type": "string"},
        {"type": "uint16be", "offset": 1},
        {"type": "uint32be", "offset": 6},
        {"type": "uint16be", "offset": -2},
        {"type": "uint16be", "mask": "0xF"},
        {"type": "uint16be", "scale": ">10"},
        {"type": "bool", "offset": 8},
    ],
)
def test_nodered_parser_items_that_are_no_values(item: dict[str, object]) -> None:
    """They are left out, each with its reason."""
    parser = {"id": "p", "type": "buffer-parser", "items": [{"name": "x", **item}]}
    imported = nodered(read_node(quantity="4", wires=[["p"]]), parser)
    assert not imported.tags
    assert reasons(imported, Outcome.LEFT_OUT)[0].startswith("x: ")


@pytest.mark.parametrize(
    ("code", "address"),
    [
        ("msg.payload = {fc: 3, unitid: 2, address: 10, quantity: 1};", "hr:10"),
        ("msg.payload = {'fc': 4, 'unitid': 2, 'address': 0x0A, 'quantity': 1};", "ir:10"),
        ('msg.payload = {"fc":"1","unitid":"2","address":"10","quantity":"1"}', "co:10"),
        ("msg.payload.fc = 2;\nmsg.payload.unitid = 2;\nmsg.payload.address = 10;", "di:10"),
        ("// {fc: 1, address: 1}\nreturn {payload: {fc: 3, unitid: 2, address: 10}}", "hr:10"),
    ],
)
def test_nodered_functions_with_literals(code: str, address: str) -> None:
    """What a function node says in plain numbers is carried over."""
    function = {"id": "f", "type": "function", "name": "ask", "func": code, "wires": [["g"]]}
    getter = {"id": "g", "type": "modbus-flex-getter", "name": "got", "server": "c"}
    tag = only(nodered(function, getter))
    assert (tag.address, tag.unit_id) == (address, 2)


@pytest.mark.parametrize(
    "code",
    [
        "msg.payload = {fc: 3, unitid: 2, address: msg.start, quantity: 1};",
        "msg.payload = {fc: 3, unitid: 2, address: 100 + 2, quantity: 1};",
        "msg.payload = {fc: msg.fc || 3, unitid: 1, address: 1, quantity: 1};",
        "msg.payload = {fc: 6, unitid: 1, address: 1, value: 5};",
        "msg.payload = {fc: 3};",
        "msg.payload.fc = 3; msg.payload.address = 1; if (x) msg.payload.address = 2;",
        "return msg;",
    ],
)
def test_nodered_functions_that_compute(code: str) -> None:
    """They are reported, and no row is guessed."""
    function = {"id": "f", "type": "function", "name": "ask", "func": code, "wires": [["g"]]}
    getter = {"id": "g", "type": "modbus-flex-getter", "name": "got", "server": "c"}
    imported = nodered(function, getter)
    assert not imported.tags
    assert len(reasons(imported, Outcome.LEFT_OUT)) == 1


def test_nodered_wires_in_a_circle_end() -> None:
    """A flow may lead back to itself; what a node asks is asked once."""
    code = "msg.payload = {fc: 3, unitid: 2, address: 10, quantity: 1};"
    getter = {"id": "g", "type": "modbus-flex-getter", "server": "c", "wires": [["f"], ["g"]]}
    function = {"id": "f", "type": "function", "func": code, "wires": [["g", "f"]]}
    assert only(nodered(getter, function)).address == "hr:10"


# -- Kepware -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("40001", "hr:0"),
        ("400001", "hr:0"),
        ("465536", "hr:65535"),
        ("41", "hr:0"),
        ("401.15", "hr:0.15"),
        ("300010", "ir:9"),
        ("100001", "di:0"),
        ("000001", "co:0"),
        ("H40010", "hr:15"),
        ("h4FFFF", "hr:65534"),
    ],
)
def test_kepware_modbus_addresses(written: str, address: str) -> None:
    """They count from 1, decimal or hexadecimal."""
    kind = "Boolean" if "." in written or address[:2] in {"co", "di"} else "Word"
    assert only(kepware(f"a,{written},{kind}")).address == address


def test_kepware_values_of_several_registers_have_the_first_word_low() -> None:
    """As Kepware has it by default; the report says that it is assumed."""
    imported = kepware("a,40001,Float", "b,40003,Word")
    assert [tag.byte_order for tag in imported.tags] == [ByteOrder.CDAB, ByteOrder.ABCD]
    assert any("First word low" in reason for reason in reasons(imported, Outcome.ASSUMED))


def test_kepware_without_a_connection_carries_nothing() -> None:
    """The export does not say it, and a row without one is no row."""
    imported = kepware("a,40001,Word", defaults=Defaults())
    assert not imported.tags
    assert "give --conn" in imported.findings[0].reason


def test_kepware_encodings(tmp_path: Path) -> None:
    """An export of a Western or a Korean Windows is read as it was meant."""
    header = "Tag Name,Address,Data Type,Eng Units,Description\n"
    western = convert((header + "a,40001,Word,°C,\n").encode("cp1252"), TCP, protocols.load)
    korean = convert((header + "압력,40001,Word,,펌프\n").encode("cp949"), TCP, protocols.load)
    wide = convert((header + "압력,40001,Word,°C,\n").encode("utf-16"), TCP, protocols.load)
    assert only(western).unit == only(wide).unit == "°C"
    assert only(korean).tag == only(wide).tag == "압력"


# -- Ignition ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "address", "value_type", "unit_id"),
    [
        ("ns=1;s=[D]HR1", "hr:0", ValueType.INT16, 1),
        ("[D]HRUS10", "hr:9", ValueType.UINT16, 1),
        ("ns=1;s=[D]5.IRF3", "ir:2", ValueType.FLOAT32, 5),
        ("ns=1;s=[D]HRUI_64100", "hr:99", ValueType.UINT64, 1),
        ("ns=1;s=[D]HRBCD_3220", "hr:19", ValueType.BCD32, 1),
        ("ns=1;s=[D]HRD1", "hr:0", ValueType.FLOAT64, 1),
        ("ns=1;s=[D]HR7.12", "hr:6.12", ValueType.BOOL, 1),
        ("ns=1;s=[D]2.DI8", "di:7", ValueType.BOOL, 2),
        ("ns=1;s=[D]C1", "co:0", ValueType.BOOL, 1),
    ],
)
def test_ignition_modbus_paths(
    path: str, address: str, value_type: ValueType, unit_id: int
) -> None:
    """The designator says area and type, whatever the tag's own dataType."""
    tag = only(ignition({"tags": [opc("x", path)]}))
    assert (tag.address, tag.type, tag.unit_id) == (address, value_type, unit_id)


def test_ignition_limits_and_deadband() -> None:
    """The engineering range becomes hi and lo; an absolute deadband is one here too."""
    tag = only(ignition(opc("x", "[D]HRF1", engLow=-5, engHigh=5, deadband=0.25, engUnit="m")))
    assert (tag.lo, tag.hi, tag.deadband, tag.unit) == (-5, 5, 0.25, "m")
    upside_down = ignition(opc("x", "[D]HRF1", engLow=5, engHigh=5))
    assert only(upside_down).hi is None
    assert reasons(upside_down, Outcome.IN_PART) == ["x: its limits: 5 is not above 5"]


def test_ignition_parameters_that_name_each_other_end() -> None:
    """Neither a circle nor a doubling is followed without end."""
    types = {"name": "T", "tagType": "UdtType", "tags": [opc("x", "ns=2;s={A}")]}
    for parameters in ({"A": "{B}", "B": "{A}"}, {"A": "{A}{A}{A}{A}"}):
        instance = {"name": "i", "tagType": "UdtInstance", "typeId": "T", "parameters": parameters}
        imported = ignition({"tags": [types, instance]}, Defaults(conn="opc.tcp://h:4840"))
        assert not imported.tags
        assert len(reasons(imported, Outcome.LEFT_OUT)[0]) < 600


def test_ignition_folders_too_deep_are_left_out() -> None:
    """A tree that no person made is reported, and the rest is carried over."""
    tree: dict[str, object] = opc("x", "[D]HR1")
    for at in range(200):
        tree = {"name": f"f{at}", "tagType": "Folder", "tags": [tree]}
    imported = ignition({"tags": [opc("y", "[D]HR2"), tree]})
    assert only(imported).tag == "y"
    assert any("deep" in reason for reason in reasons(imported, Outcome.LEFT_OUT))


# -- the command -------------------------------------------------------------------------------

ROWS = "Tag Name,Address,Data Type\na,40001,Word\nb,40002,String\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An export with one tag that is carried over and one that is not."""
    path = tmp_path / "PUMP7.csv"
    path.write_text(ROWS)
    return path


def run(source: Path, *words: str) -> int:
    """`edge-agent import`, with the map beside the source."""
    out = [] if "--out" in words else ["--out", str(source.with_name("out.csv"))]
    return cli.main(["import", str(source), *out, *words])


def test_the_command_writes_the_map_and_reports(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table on standard error, nothing on standard output; the device is the file's name."""
    assert run(source, "--conn", "tcp://10.0.0.5", "--site", "A1", "--line", "L1") == 0
    (tag,) = load(source.with_name("out.csv"), protocols.load).tags
    assert tag.key == ("A1", "PUMP7", "a")
    output = capsys.readouterr()
    assert output.out == ""
    assert "line 3" in output.err
    assert "1 row from" in output.err


def test_the_command_never_replaces_a_map_unasked(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only with --force."""
    out = source.with_name("out.csv")
    out.write_text("mine")
    assert run(source, "--conn", "tcp://10.0.0.5") == 2
    assert "is there already" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert run(source, "--conn", "tcp://10.0.0.5", "--force") == 0
    assert out.read_text() != "mine"


def test_the_command_writes_no_map_under_another_kind_of_name(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A workbook's name on a CSV file would be opened by nothing."""
    out = source.with_name("out.xlsx")
    assert run(source, "--conn", "tcp://10.0.0.5", "--out", str(out)) == 2
    assert f"--out {out}: a map is written as .csv" in capsys.readouterr().err
    assert not out.exists()


def test_nothing_carried_over_is_exit_code_2(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No map is written, and the report says what every row lacks."""
    assert run(source, "--json") == 2
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["rows"] == 0
    assert {finding["outcome"] for finding in report["findings"]} == {"left out"}
    assert not source.with_name("out.csv").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--conn", "10.0.0.5"),
        ("--conn", "tcp://10.0.0.5:0"),
        ("--conn", "A=opc.tcp://h?password=x"),
        ("--site", "a/b"),
        ("--device", ""),
        ("--line", "x" * 200),
        ("--conn", "tcp://10.0.0.5", "--conn", "tcp://10.0.0.6"),
        ("--conn", "D=tcp://10.0.0.5", "--conn", "D=tcp://10.0.0.6"),
    ],
)
def test_wrong_options_are_said_before_anything_is_read(
    source: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2, and no map."""
    assert run(source, *words) == 2
    assert words[0] in capsys.readouterr().err
    assert not source.with_name("out.csv").exists()


@pytest.mark.parametrize("option", ["--out", "--site", "--unit-id", "--period-ms", "--from"])
def test_an_option_that_is_given_twice_is_refused(
    source: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last one would win in silence."""
    value = {"--from": "kepware", "--period-ms": "500"}.get(option, "7")
    with pytest.raises(SystemExit) as caught:
        run(source, "--conn", "tcp://h", option, value, option, value)
    assert caught.value.code == 2
    assert f"{option} is given twice" in capsys.readouterr().err


def test_the_file_that_is_imported_is_never_written_over(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not with --force either, and not by another name of it."""
    link = source.with_name("link.csv")
    link.symlink_to(source)
    for out in (source, link):
        words = ["import", str(source), "--out", str(out), "--force", "--conn", "tcp://h"]
        assert cli.main(words) == 2
        assert "is a file that this command reads" in capsys.readouterr().err
    assert source.read_text() == ROWS


@pytest.mark.parametrize("command", ["import", "browse"])
def test_a_map_that_cannot_be_written_is_said_first(
    source: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a server is asked; with a hint and exit code 2."""
    what = [str(source), "--conn", "tcp://h"] if command == "import" else ["opc.tcp://127.0.0.1:1"]
    for out, problem in (
        (source.parent / "none/a.csv", "there is no folder"),
        (source / "a.csv", "there is no folder"),
        (source.parent, "written as .csv"),
        (source.with_name("a.xlsx"), "written as .csv"),
    ):
        assert cli.main([command, *what, "--out", str(out)]) == 2
        told = capsys.readouterr().err
        assert problem in told
        assert ("hint: name a file in a folder" in told) is (problem == "there is no folder")
    (source.parent / "folder.csv").mkdir()
    assert cli.main([command, *what, "--out", str(source.parent / "folder.csv"), "--force"]) == 2
    assert "is a folder" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is none, or it is a folder."""
    for path in (tmp_path / "none.toml", tmp_path):
        assert run(path) == 2
        assert str(path) in capsys.readouterr().err


def test_a_given_kind_is_believed(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--from says what a file is, and the error says what that kind lacks in it."""
    assert run(source, "--from", "neuron", "--conn", "tcp://h") == 2
    assert "Neuron" in capsys.readouterr().err
