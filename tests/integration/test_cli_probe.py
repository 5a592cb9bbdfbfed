"""`edge-agent probe` against pymodbus's server: what it finds, and what it changes in a map."""

from __future__ import annotations

import argparse
import codecs
import json
import signal
import socketserver
import struct
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent import address_map, protocols
from edge_agent.cli import probe
from edge_agent.command_line import exit_code
from edge_agent.model import ByteOrder, ValueType
from edge_agent.probe import cells
from edge_agent.settings import Settings
from tests.modbus_server import PymodbusServer
from tests.servers import free_port, wait_until

HEADER = (
    "site,line,device,tag,protocol,conn,unit_id,address,type,scale,offset,period_ms,unit,hi,lo"
    ",byte_order,description"
)
Probe = Callable[..., int]


def words_of(code: str, value: float) -> list[int]:
    """A value's registers, most significant first."""
    data = struct.pack(f">{code}", value)
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


HIGH, LOW = words_of("f", 21.4375)
HOLDING = {
    0: [LOW, HIGH],  # CDAB
    2: words_of("f", 55.5),  # ABCD
    4: [0xE803, 7],  # 1000, bytes swapped
    6: [300, 400],
    20: [0x1111] * 5,
    40: [0x2222],
    130: [0x3333] * 3,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PymodbusServer]:
    units = {1: {"holding": HOLDING, "coil": {0: [1, 0] * 8}}, 3: {"holding": {0: [5] * 4}}}
    with PymodbusServer(tmp_path_factory.mktemp("modbus"), units) as running:
        yield running


@pytest.fixture
def run() -> Probe:
    """The command as the command line calls it; returns its exit code."""

    def command(*words: str) -> int:
        parser = argparse.ArgumentParser(prog="edge-agent probe")
        parser.set_defaults(map=None, command="probe")
        probe.arguments(parser)
        options = parser.parse_args(words)
        return exit_code("edge-agent", lambda: probe.run(options, Settings()))

    return command


def row(conn: str, tag: str, address: str, cells: str, *, order: str = "", more: str = "") -> str:
    """One row; ``cells`` are type, scale, offset, period, unit, hi and lo."""
    return f"공장,L1,PUMP01,{tag},modbus,{conn},1,{address},{cells},{order},{more}"


def plant(conn: str) -> list[str]:
    """A map with a wrong byte order, a right one, a wrong type, and a value that means nothing."""
    return [
        HEADER,
        row(conn, "온도", "40001", "FLOAT32,1,0,1000,°C,60,5", order="ABCD", more='"2"" pipe"'),
        row(conn, "PRESS", "40003", "FLOAT32,1,0,1000,bar,100,0", more="펌프"),
        row(conn, "SPEED", "40005", "UINT16,1,0,1000,rpm,1500,500", order='"AB"'),
        row(conn, "LEVEL", "40007", "UINT16,1,0,1000,mm,,"),
    ]


@pytest.fixture
def map_path(server: PymodbusServer, tmp_path: Path) -> Path:
    path = tmp_path / "address_map.csv"
    path.write_text("\n".join(plant(server.conn)) + "\n", encoding="utf-8")
    return path


def test_every_interpretation_is_shown_and_the_right_one_named(
    map_path: Path, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raw registers in hex, each type and byte order, marks, and a verdict with its reason."""
    before = map_path.read_bytes()
    assert run("--map", str(map_path), "PUMP01/온도") == 0
    out = capsys.readouterr().out
    assert f"registers {LOW:04X} {HIGH:04X}" in out
    assert "21.4375 * !" in out
    assert "FLOAT32 CDAB is most plausible: 21.4375 is inside 5..60" in out
    assert "PRESS" not in out
    assert "\x1b" not in out, "no colours in a pipe"
    decomposed = unicodedata.normalize("NFD", "공장/PUMP01/온도")
    for word in (decomposed, "공장/PUMP01/온도"):
        assert run("--map", str(map_path), word) == 0
        assert capsys.readouterr().out == out
    assert map_path.read_bytes() == before, "interpretation changes nothing"


def test_a_row_of_one_register_shows_the_next_one_too(
    map_path: Path, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """A 16-bit row may be half a value: the 32-bit interpretations stand beside."""
    assert run("--map", str(map_path), "PUMP01/LEVEL", "--json") == 0
    [found] = json.loads(capsys.readouterr().out)["rows"]
    assert found["registers"] == ["012C", "0190"]
    values = {(r["type"], r["byte_order"]): r["value"] for r in found["interpretations"]}
    assert values["UINT16", "AB"] == 300
    assert values["UINT16", "BA"] == 0x2C01
    assert values["UINT32", "ABCD"] == 300 << 16 | 400
    assert values["UINT32", "CDAB"] == 400 << 16 | 300
    assert found["best"] == {"type": "UINT16", "byte_order": "AB"}
    assert found["clear"] is False


ENCODINGS = {
    "utf-8": ("utf-8", b""),
    "utf-8 with mark": ("utf-8", codecs.BOM_UTF8),
    "utf-16": ("utf-16-le", codecs.BOM_UTF16_LE),
    "utf-16 big": ("utf-16-be", codecs.BOM_UTF16_BE),
    "cp949": ("cp949", b""),
}


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_writing_changes_the_cells_and_no_other_byte(
    server: PymodbusServer,
    tmp_path: Path,
    run: Probe,
    capsys: pytest.CaptureFixture[str],
    encoding: str,
    delimiter: str,
    line_end: str,
) -> None:
    """Mark, encoding, line ends, delimiter, quotes and spaces of the file stay byte for byte."""
    codec, mark = ENCODINGS[encoding]
    lines = plant(server.conn)
    lines.insert(1, "")
    lines[3] = lines[3].replace("펌프", '"펌프,\n둘째 줄"')
    text = line_end.join(lines) + line_end
    text = text.replace(",", delimiter)
    path = tmp_path / "map.csv"
    before = mark + text.encode(codec)
    path.write_bytes(before)
    assert run("--map", str(path), "--write") == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "2 cells changed" in out
    assert "PUMP01/온도: byte_order ABCD -> CDAB" in out
    assert "PUMP01/SPEED: byte_order AB -> BA" in out
    expected = text.replace(f"{delimiter}ABCD{delimiter}", f"{delimiter}CDAB{delimiter}")
    expected = expected.replace('"AB"', '"BA"')
    assert path.read_bytes() == mark + expected.encode(codec)
    tags = {tag.tag: tag for tag in address_map.load(path, protocols.load).tags}
    assert tags["온도"].byte_order is ByteOrder.CDAB
    assert tags["PRESS"].byte_order is ByteOrder.ABCD
    assert run("--map", str(path), "--write") == 0
    assert "nothing changed" in capsys.readouterr().out, "a second time there is nothing to do"
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.csv"]


def test_a_type_is_found_and_an_empty_order_filled(
    server: PymodbusServer, tmp_path: Path, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """An integer that is a float in swapped registers: both cells of the row are written."""
    path = tmp_path / "map.csv"
    text = "\n".join([HEADER, row(server.conn, "T", "40001", "int32,1,0,1000,°C,60,5")])
    path.write_text(text)
    assert run("--map", str(path), "--write") == 0
    out = capsys.readouterr().out
    assert "type int32 -> FLOAT32" in out
    assert "byte_order empty -> CDAB" in out
    expected = text.replace("int32", "FLOAT32").replace("60,5,,", "60,5,CDAB,")
    assert path.read_text() == expected
    [tag] = address_map.load(path, protocols.load).tags
    assert (tag.type, tag.byte_order) == (ValueType.FLOAT32, ByteOrder.CDAB)


def test_numbers_that_count_from_0(
    server: PymodbusServer, tmp_path: Path, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """With zero_based in `conn` 40000 is the first register, for rows, --write and --scan."""
    conn = f"{server.conn}?zero_based=true"
    path = tmp_path / "map.csv"
    lines = [
        HEADER,
        row(conn, "TEMP", "40000", "FLOAT32,1,0,1000,°C,60,5"),
        row(conn, "PRESS", "40002", "FLOAT32,1,0,1000,bar,100,0"),
        row(conn, "COIL", "00000", "BOOL,,,1000,,,"),
    ]
    path.write_text("\n".join(lines))
    assert run("--map", str(path), "--json", "--write") == 0
    report = json.loads(capsys.readouterr().out)
    temp, press, coil = report["rows"]
    assert temp["registers"] == [f"{LOW:04X}", f"{HIGH:04X}"]
    assert (press["value"], coil["value"]) == (55.5, 1)
    [change] = report["changes"]
    assert (change["line"], change["column"], change["after"]) == (2, "byte_order", "CDAB")
    lines[1] = lines[1].replace("60,5,,", "60,5,CDAB,")
    assert path.read_text() == "\n".join(lines)
    assert run(conn, "--scan", "40000-40007,00000", "--pause-ms", "0", "--json") == 0
    [unit] = json.loads(capsys.readouterr().out)["units"]
    assert [found["range"] for found in unit["found"]] == ["co:0", "hr:0-7"]


def test_a_neighbour_that_counts_from_0_is_one(
    server: PymodbusServer, tmp_path: Path, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row whose next register is another row's is not made two registers wide."""
    conn = f"{server.conn}?zero_based=true"
    path = tmp_path / "map.csv"
    alone = [HEADER, row(conn, "PRESS", "40002", "UINT16,1,0,1000,bar,100,0")]
    beside = [*alone, row(conn, "NEXT", "40003", "UINT16,1,0,1000,,,")]
    widest = []
    for lines in (alone, beside):
        path.write_text("\n".join(lines))
        assert run("--map", str(path), "--json") == 0
        widest.append(json.loads(capsys.readouterr().out)["rows"][0]["best"]["type"])
    assert widest[0] == "FLOAT32"
    assert widest[1] != "FLOAT32"


def test_a_map_without_the_column_is_left_alone(
    server: PymodbusServer, tmp_path: Path, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """Adding a column would change every line: that is the person's to do."""
    path = tmp_path / "map.csv"
    text = "\n".join(line.rsplit(",", 2)[0] for line in plant(server.conn)[:2])
    path.write_text(text)
    assert run("--map", str(path), "--write") == 0
    assert "no column byte_order" in capsys.readouterr().out
    assert path.read_text() == text


def test_a_workbook_is_refused_before_anything_is_read(
    tmp_path: Path, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--write` on a workbook: a sentence, exit code 2, nothing changed."""
    from openpyxl import Workbook

    path = tmp_path / "map.xlsx"
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for line in plant("tcp://127.0.0.1:1")[::2][:1] + plant("tcp://127.0.0.1:1")[2:3]:
        sheet.append(line.split(","))
    book.save(path)
    before = path.read_bytes()
    assert run("--map", str(path), "--write") == 2
    assert "workbook (.xlsx)" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_scan_finds_the_ranges_between_the_holes(
    server: PymodbusServer, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """All that answers, with its values, and nothing else."""
    words = (server.conn, "--unit", "1", "--scan", "hr:0-200,co:0-15", "--pause-ms", "0")
    assert run(*words, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    [unit] = report["units"]
    assert {found["range"]: found["values"] for found in unit["found"]} == {
        "co:0-15": [1, 0] * 8,
        "hr:0-7": [cell for start in (0, 2, 4, 6) for cell in HOLDING[start]],
        "hr:20-24": HOLDING[20],
        "hr:40": HOLDING[40],
        "hr:130-132": HOLDING[130],
    }
    assert unit["missing"] == ["hr:8-19", "hr:25-39", "hr:41-129", "hr:133-200"]
    assert unit["unknown"] == []
    assert report["requests"] < 2 * 201
    assert run(*words) == 0
    out = capsys.readouterr().out
    assert "  hr:20-24\n    hr:20     1111 1111 1111 1111 1111\n" in out


def test_a_scan_keeps_its_bound(
    server: PymodbusServer, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was not asked for want of requests is named."""
    words = (server.conn, "--scan", "40001-40201", "--requests-max", "20", "--json")
    run(*words)
    report = json.loads(capsys.readouterr().out)
    assert report["requests"] == 20
    [unit] = report["units"]
    assert unit["unknown"]
    assert "--requests-max 20" in unit["given_up"]


def test_units_are_scanned(
    server: PymodbusServer, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of several units those that answer are found; the others cost a few requests each."""
    words = (server.conn, "--unit", "1-6", "--scan", "hr:0-3", "--pause-ms", "0")
    assert run(*words, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    found = {unit["unit_id"]: unit["found"] for unit in report["units"] if unit["found"]}
    assert [cells["values"] for cells in found[3]] == [[5, 5, 5, 5]]
    assert sorted(found) == [1, 3]
    assert run(*words) == 0
    assert "nothing from unit 2, 4-6: " in capsys.readouterr().out


def test_a_dead_device_costs_only_itself(
    server: PymodbusServer, map_path: Path, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its rows say why, the others are read; exit code 1. A scan of it says so too."""
    away = f"tcp://127.0.0.1:{free_port()}"
    with map_path.open("a", encoding="utf-8") as file:
        file.write(row(away, "AWAY", "40001", "UINT16,1,0,1000,,,") + "\n")
        file.write(row(server.conn, "HOLE", "40101", "UINT16,1,0,1000,,,") + "\n")
    assert run("--map", str(map_path)) == 1
    out = capsys.readouterr().out
    assert out.count("not read: ") == 2
    assert f"not read: {away}: " in out
    assert "holding 100: exception 2" in out
    assert "21.4375" in out
    assert run(away, "--scan", "hr:0-9") == 1
    assert away in capsys.readouterr().err


class Listener(socketserver.BaseRequestHandler):
    """Accepts, counts requests, and never answers; a rude one closes at each request."""

    rude = False
    requests = 0

    def handle(self) -> None:
        while self.request.recv(1024):
            type(self).requests += 1
            if self.rude:
                return


@contextmanager
def listening(*, rude: bool) -> Iterator[tuple[type[Listener], str]]:
    """A device that accepts connections and does not answer."""
    handler = type("OneListener", (Listener,), {"rude": rude})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield handler, f"tcp://127.0.0.1:{listener.server_address[1]}?timeout_ms=50"
        finally:  # a test that fails must not keep the run from its end
            listener.shutdown()
            thread.join()


def test_a_silent_unit_is_asked_once(
    tmp_path: Path, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hundred rows of a dead unit cost one timeout; so does each unit of a scan of many."""
    with listening(rude=False) as (device, conn):
        path = tmp_path / "map.csv"
        lines = [row(conn, f"T{n}", f"hr:{n}", "UINT16,1,0,1000,,,") for n in range(100)]
        path.write_text("\n".join([HEADER, *lines]))
        assert run("--map", str(path), "--write") == 1
        out = capsys.readouterr().out
        assert out.count("not read: ") == 100
        assert "no answer within 0.05 s" in out
        assert "nothing changed" in out
        assert device.requests == 1
        assert run(conn, "--scan", "hr:0-200", "--unit", "1-5") == 1
        assert "nothing from unit 1-5: " in capsys.readouterr().out
        assert device.requests == 1 + 5


def test_a_device_that_hangs_up_ends_a_scan_within_its_bound(
    run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each hang-up counts as a refusal of that block; the connection is made anew."""
    with listening(rude=True) as (device, conn):
        words = (conn, "--scan", "hr:0-9", "--pause-ms", "0", "--json")
        assert run(*words) == 1
        report = json.loads(capsys.readouterr().out)
        assert report["requests"] == device.requests == 19
        assert report["units"][0]["missing"] == ["hr:0-9"]
        assert run(*words, "--requests-max", "5") == 1
        assert json.loads(capsys.readouterr().out)["requests"] == 5


def test_ctrl_c_shows_what_was_found() -> None:
    """A long scan may be ended at any time; what it found was worth the time."""
    program = (
        "import argparse, sys; from edge_agent.cli import probe;"
        "from edge_agent.command_line import exit_code; from edge_agent.settings import Settings;"
        "parser = argparse.ArgumentParser(); parser.set_defaults(map=None);"
        "probe.arguments(parser); options = parser.parse_args(sys.argv[1:]);"
        "sys.exit(exit_code('edge-agent', lambda: probe.run(options, Settings())))"
    )
    with listening(rude=False) as (device, conn):
        words = (conn.replace("=50", "=60000"), "--scan", "hr:0-9")
        with subprocess.Popen(
            [sys.executable, "-c", program, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                wait_until(lambda: device.requests == 1, "the first request")
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=20)
            finally:
                process.kill()
    assert process.returncode == 1
    assert "nothing is known of hr:0-9: interrupted" in out
    assert "interrupted" in err
    assert "Traceback" not in err


def test_a_map_that_changes_meanwhile_is_left_alone(
    map_path: Path, run: Probe, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody saves the file in an editor while the device is read: theirs stays."""
    rewrite = cells.rewrite

    def saved_meanwhile(data: bytes, wanted: Any) -> Any:
        map_path.write_bytes(data + b"\n")
        return rewrite(data, wanted)

    before = map_path.read_bytes()
    monkeypatch.setattr(cells, "rewrite", saved_meanwhile)
    assert run("--map", str(map_path), "--write") == 2
    assert "was changed meanwhile" in capsys.readouterr().err
    assert map_path.read_bytes() == before + b"\n"


def test_a_wrong_map_is_told_for_programs_too(
    tmp_path: Path, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `check --json` does."""
    path = tmp_path / "map.csv"
    path.write_text(f"{HEADER}\n")
    assert run("--map", str(path), "--json") == 2
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_coils_bits_and_other_protocols_give_their_value(
    server: PymodbusServer, tmp_path: Path, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no choice of settings there is a value and no verdict."""
    path = tmp_path / "map.csv"
    lines = [
        HEADER,
        row(server.conn, "COIL", "00001", "BOOL,,,1000,,,"),
        row(server.conn, "BIT", "40005.3", "BOOL,,,1000,,,"),
        row("sim://a", "SIM", "7", "FLOAT32,,,1000,,,").replace("modbus", "simulated"),
    ]
    path.write_text("\n".join(lines))
    assert run("--map", str(path), "--json") == 0
    coil, bit, sim = json.loads(capsys.readouterr().out)["rows"]
    assert (coil["value"], bit["value"]) == (1, 0)
    assert 0 <= sim["value"] <= 100
    assert not any(found["interpretations"] for found in (coil, bit, sim))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no address map given"),
        (("--map", "nowhere.csv"), "no such file"),
        (("tcp://h",), "which cells of tcp://h"),
        (("--scan", "hr:0-9"), "a scan takes one connection"),
        (("tcp://h", "tcp://g", "--scan", "hr:0-9"), "a scan takes one connection"),
        (("opc.tcp://h", "--scan", "hr:0-9"), "is not a Modbus connection"),
        (("tcp://h", "--scan", "hr:0-9", "--write"), "--write is for rows"),
        (("--unit", "3", "PUMP01"), "--unit is for --scan"),
        (("tcp://h", "--scan", "hr:9-0"), "--scan: 'hr:9-0': a range ends in the area"),
        (("tcp://h", "--scan", "hr:0-70000"), "out of range; allowed: 0 to 65535"),
        (("tcp://h", "--scan", "everything"), "'everything' is no range; expected hr:0-200"),
        (("tcp://h", "--scan", "40001-30009"), "in which it begins"),
        (("tcp://h", "--scan", "40000-40009"), "`conn` needs ?zero_based=true"),
        (("tcp://h?zero_based=true", "--scan", "465536"), "allowed: 40000 to 49999, 400000 to"),
    ],
)
def test_wrong_words_are_told(
    run: Probe, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    """Exit code 2 and a sentence."""
    assert run(*words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--unit", "9-1"), "expected a unit"),
        (("--unit", "256"), "expected a unit"),
        (("--pause-ms", "-1"), "allowed: 0 to 10000"),
        (("--requests-max", "0"), "allowed: 1 to"),
    ],
)
def test_wrong_options_are_told(
    run: Probe, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    """argparse's own way: exit code 2 and what is allowed."""
    with pytest.raises(SystemExit) as end:
        run("tcp://h", *words)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_row_that_is_not_there_is_told(
    map_path: Path, run: Probe, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the nearest name."""
    assert run("--map", str(map_path), "PUMP01/PRES") == 2
    err = capsys.readouterr().err
    assert "'PUMP01/PRES'" in err
    assert "PUMP01/PRESS" in err
