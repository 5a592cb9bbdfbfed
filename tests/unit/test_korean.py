"""The problems of a map in Korean: nothing is missing, nothing is left over, nothing is lost.

The English texts are read out of the code's syntax trees, as templates: what a f-string puts in is
``{}``, or ``{!r}`` where it is quoted. The catalogues have the same templates with names.
"""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.map_korean import REFUSALS, state_with_korean, with_korean
from edge_agent import address_map, protocols
from edge_agent.address_map import MapError
from edge_agent.address_map.cells import ALLOWED
from edge_agent.address_map.korean import ENTRIES, to_korean
from edge_agent.control_client import SOCKET
from edge_agent.model import ValueType
from edge_agent.reload.reloader import _in_short
from edge_agent.text.catalogue import PLACE, Catalogue, Entry
from tests.unit import (
    test_address_map,
    test_modbus_syntax,
    test_mqtt_syntax,
    test_opcua_syntax,
    test_s7_syntax,
)
from tests.unit.test_testcases_map import FOLDERS

ROOT = Path(__file__).parents[2]
ABOUT_MAPS = sorted(
    {
        *(ROOT / "edge_agent/address_map").glob("*.py"),
        *(ROOT / "edge_agent/protocols").glob("*_syntax.py"),
        ROOT / "edge_agent/protocols/__init__.py",
        ROOT / "edge_agent/protocols/simulated.py",
        ROOT / "edge_agent/model.py",
    }
    - {ROOT / "edge_agent/address_map/problems.py"}  # it only puts problems together
)
"""Every text in these modules is for who writes a map, but those in..."""
NOT_ABOUT_MAPS = {
    ("mqtt_syntax.py", function) for function in ("decode", "number", "_kind", "picker", "time_ms")
} | {("simulated.py", function) for function in ("connect", "read")}
"""...these functions, which are about values."""
COMPOSED = {
    "{}=FILE and {}=FILE",
    "{}/control.sock: {}",
    "Permission denied",
    "Read-only file system",
    "No space left on device",
    "none",
}
"""Texts that no single f-string makes, the system's own words, or one word alone."""

WHOLE_MODULES = (
    "edge_agent/control_client.py",
    "edge_agent/reload/map_versions.py",
    "dashboard/maps.py",
)
ERRORS_ONLY = (
    "edge_agent/control.py",
    "edge_agent/reload/reloader.py",
    "dashboard/map_routes.py",
)
"""What is refused on the page of the address map comes from these."""

SPEAKERS = {"Problem", "ValueError"}
"""Besides our errors, whose names all end alike."""
HANGUL = re.compile("[가-힣]")
PARTICLE = re.compile(r"\}['\")]*\(?(을|를|이|가|은|는|와|과|으|로|으로)(?![가-힣])")
"""One whose form the sound before it decides, behind a value."""
ENGLISH = re.compile(
    r"(?<![\w/.'\"-])[a-z]{2,} [a-z]{2,} [a-z]{2,}(?![a-z-])|allowed|expected|for example|or empty"
)
"""Three English words that nobody has translated, not a command; or one of those that recur."""
OF_PYTHON = re.compile(
    "encoding with 'idna' codec failed|Port could not be cast|Port out of range|base64"
)
"""What Python's own libraries say of a cell stands in a message as it is."""


class Text(NamedTuple):
    """A text of the code, as a template without names, and its place.

    ``is_spoken``: it is an error's message as it stands, so it is a part of none.
    """

    template: str
    place: str
    is_spoken: bool


# --- completeness


def template_of(node: ast.expr) -> str:
    """What a literal or a f-string says. Values side by side are one."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr)
    pieces = [
        str(piece.value)
        if isinstance(piece, ast.Constant)
        else "{!r}"
        if isinstance(piece, ast.FormattedValue) and piece.conversion == ord("r")
        else "{}"
        for piece in node.values
    ]
    return re.sub(r"(\{\}){2,}", "{}", "".join(pieces))


def is_prose(template: str) -> bool:
    """Whether there are words: letters, and a space."""
    words = re.sub(r"\{(!r)?\}", "", template)
    return " " in words and bool(re.search("[a-z]", words))


def name_of(node: ast.Call) -> str:
    """The last part of what is called."""
    return ast.unparse(node.func).rpartition(".")[2]


def says_something(node: ast.Call) -> bool:
    """Whether a call's last argument is a text for people."""
    return name_of(node) in SPEAKERS or name_of(node).endswith("Error")


def is_silent(node: ast.AST) -> bool:
    """What tells the author of a map nothing: docstrings, patterns, comparisons, log lines.

    Columns that a map need not have are never said to be missing.
    """
    match node:
        case ast.AnnAssign(target=ast.Name(id="OPTIONAL_COLUMNS")):
            return True
        case ast.Expr(value=ast.Constant()) | ast.Compare():
            return True
        case ast.Call(func=ast.Attribute(value=ast.Name(id="re" | "log"))):
            return True
        case ast.Call(func=ast.Attribute(attr="startswith")):
            return True
        case ast.Attribute(value=ast.Constant(), attr="join"):
            return True
    return False


def texts_of(path: Path) -> Iterator[Text]:
    """Every text in a module."""

    def walk(node: ast.AST, spoken: ast.AST | None = None) -> Iterator[Text]:
        for child in ast.iter_child_nodes(node):
            if is_silent(child):
                continue
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and (
                (path.name, child.name) in NOT_ABOUT_MAPS
            ):
                continue
            is_string = isinstance(child, ast.Constant) and isinstance(child.value, str)
            if is_string or isinstance(child, ast.JoinedStr):
                assert isinstance(child, ast.expr)
                template = template_of(child)
                if is_prose(template) or (child is spoken and template):
                    place = f"{path.relative_to(ROOT)}:{child.lineno}"
                    yield Text(template, place, child is spoken)
            if isinstance(child, ast.JoinedStr):
                for piece in child.values:
                    if isinstance(piece, ast.FormattedValue):
                        yield from walk(piece)
            elif isinstance(child, ast.Call) and says_something(child) and child.args:
                yield from walk(child, child.args[-1])
            else:
                yield from walk(child)

    return walk(ast.parse(path.read_text(encoding="utf-8")))


def errors_of(path: Path) -> Iterator[Text]:
    """Every text that a module gives to one of our errors, as its message or as its hint."""
    for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and name_of(call).endswith("Error"):
            for node in (*call.args, *(one.value for one in call.keywords)):
                if isinstance(node, ast.JoinedStr | ast.Constant) and is_prose(template_of(node)):
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    yield Text(template_of(node), place, is_spoken=True)


def structure(english: str) -> str:
    """An entry's template without names."""
    return PLACE.sub(lambda place: "{!r}" if place[2] == "!r" else "{}", english)


def texts_about_maps() -> list[Text]:
    """All of them."""
    return [text for path in ABOUT_MAPS for text in texts_of(path)]


def texts_of_refusals() -> list[Text]:
    """What the routes below /api/map say besides a map's problems."""
    return [
        *(
            text
            for name in WHOLE_MODULES
            for text in texts_of(ROOT / name)
            if is_prose(text.template)  # the others are a path and the system's own words
        ),
        *(text for name in ERRORS_ONLY for text in errors_of(ROOT / name)),
    ]


CATALOGUES = [
    pytest.param(ENTRIES, texts_about_maps(), id="problems"),
    pytest.param(REFUSALS, texts_of_refusals(), id="refusals"),
]


@pytest.mark.parametrize(("entries", "texts"), CATALOGUES)
def test_every_text_has_its_korean(entries: tuple[Entry, ...], texts: list[Text]) -> None:
    """Whoever adds a message finds here what the catalogue lacks, and where it comes from."""
    assert len(texts) > 20
    known = {structure(entry.english): entry for entry in entries}
    missing = [one for one in texts if one.template not in known]
    assert not missing, "without Korean:\n" + "\n".join(
        f"{place}: add Entry({text!r}, ...)" for text, place, _ in missing
    )
    assert not [one for one in texts if one.is_spoken and known[one.template].is_part]


@pytest.mark.parametrize(("entries", "texts"), CATALOGUES)
def test_no_entry_is_left_over(entries: tuple[Entry, ...], texts: list[Text]) -> None:
    """Nor does a text stand twice."""
    said = {text.template for text in texts} | COMPOSED
    found = [structure(entry.english) for entry in entries]
    assert not [text for text in found if text not in said], "nothing in the code says this"
    assert len(found) == len(set(found))


@pytest.mark.parametrize("entry", [*ENTRIES, *REFUSALS], ids=lambda entry: entry.english[:60])
def test_an_entry_loses_no_value(entry: Entry) -> None:
    """A text made after the template is found, and its Korean has every value of it."""
    names = [name for name, _ in PLACE.findall(entry.english)]
    assert sorted(names) == sorted(name for name, _ in PLACE.findall(entry.korean))
    kinds = dict(PLACE.findall(entry.english))
    assert set(kinds.values()) <= {"", "!r", "!t"}
    assert not any(kind for _, kind in PLACE.findall(entry.korean))
    assert "}{" not in entry.english, "nobody could tell where the first value ends"
    values = {name: f"({place}) 값" for place, name in enumerate(names)}
    values |= {name: repr(values[name]) for name in names if kinds[name] == "!r"}
    values |= {name: "1 byte" for name in names if kinds[name] == "!t"}
    text = PLACE.sub(lambda place: values[place[1]], entry.english)
    whole = Entry("{part!t}", "{part}")
    found = Catalogue([*ENTRIES, *REFUSALS, whole]).korean(text)
    assert found is not None
    expected = {"1바이트" if kinds[name] == "!t" else values[name] for name in names}
    assert not [value for value in expected if value not in found], found


@pytest.mark.parametrize("entry", [*ENTRIES, *REFUSALS], ids=lambda entry: entry.english[:60])
def test_no_particle_hangs_on_a_value(entry: Entry) -> None:
    """을 or 를 would have to suit a sound that nobody knows; the Korean has no English left."""
    assert not PARTICLE.search(entry.korean)
    assert not ENGLISH.search(PLACE.sub("", entry.korean))


def texts_of_pages() -> Iterator[Text]:
    """Every Korean text of the dashboard's elements and of the verdict."""
    for path in sorted((ROOT / "dashboard/elements").glob("*.js")):
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for literal in re.findall(r'"((?:[^"\\]|\\.)*)"', text):
                yield Text(literal, f"{path.name}:{line}", is_spoken=True)
    path = ROOT / "edge_agent/status/verdict.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield Text(template_of(node), f"{path.name}:{node.lineno}", is_spoken=True)


def test_no_particle_hangs_on_a_value_of_a_page() -> None:
    """Nor one for each sound, as in 을(를) and (으)로."""
    texts = [text for text in texts_of_pages() if HANGUL.search(text.template)]
    assert sum("{}" in text.template for text in texts) > 50
    assert [text for text in texts if PARTICLE.search(text.template)] == []


@pytest.mark.parametrize(
    ("korean", "hangs"),
    [
        *[(f"{{}}{particle} 적용", True) for particle in ("을", "을(를)", "(으)로", "'이", '"와')],
        *[
            (f"{{}}{plain}", False)
            for plain in ("에 있음", "부터", "개는 없음", " 가능", ": 이 행")
        ],
    ],
)
def test_what_hangs_on_a_value(korean: str, hangs: bool) -> None:
    """A particle whose form the value's last sound decides; no word that only starts like one."""
    assert bool(PARTICLE.search(korean)) is hangs


# --- what wrong maps give


def cases_of(function: Any) -> Iterator[tuple[Any, ...]]:
    """The cases of a parametrised test."""
    for mark in function.pytestmark:
        for case in mark.args[1]:
            yield case if isinstance(case, tuple) else (case,)


def wrong_syntax() -> Iterator[tuple[str, str]]:
    """Protocol and `conn` or address cell, of everything that the protocols' tests refuse."""
    sources: list[tuple[str, str, Any]] = [
        ("modbus", "conn", test_modbus_syntax.test_bad_conn),
        ("modbus", "address", test_modbus_syntax.test_bad_address),
        ("modbus", "address", test_modbus_syntax.test_bad_zero_based_address),
        ("s7", "conn", test_s7_syntax.test_bad_conn),
        ("s7", "address", test_s7_syntax.test_bad_address),
        ("opcua", "conn", test_opcua_syntax.test_what_is_no_conn_is_a_value_error),
        ("opcua", "conn", test_opcua_syntax.test_a_password_in_the_map_is_refused_and_not_repeated),
        ("opcua", "address", test_opcua_syntax.test_what_is_no_node_id_is_a_value_error),
        ("mqtt", "conn", test_mqtt_syntax.test_a_wrong_conn_says_what_is_allowed),
        ("mqtt", "address", test_mqtt_syntax.test_a_wrong_address_says_what_is_allowed),
    ]
    for protocol, column, function in sources:
        syntax = protocols.load(protocol)
        for cell, *rest in cases_of(function):
            if column == "conn":
                yield cell, refusal(syntax.parse_conn, cell)
            else:
                value_type = next((one for one in rest if isinstance(one, ValueType)), None)
                yield cell, refusal(syntax.parse_address, cell, value_type or ValueType.INT16)


def refusal(parse: Any, *given: object) -> str:
    """What is said of a wrong cell; of one that is right on this connection, nothing."""
    try:
        parse(*given)
    except ValueError as error:
        return str(error)
    return ""


def wrong_maps() -> Iterator[bytes]:
    """Files with the wrong maps of other tests, byte for byte."""
    for folder in FOLDERS:
        (path,) = folder.glob("address_map.*")
        yield path.read_bytes()
    for column, value, _ in test_address_map.CELLS:
        yield test_address_map.text({column: value}).encode("utf-8", "replace")
    for content, _ in cases_of(test_address_map.test_not_a_map):
        yield content
    for column in address_map.COLUMNS:
        yield test_address_map.text({column: " "}).encode()
        rest = [name for name in address_map.REQUIRED_COLUMNS if name != column]
        yield test_address_map.text({}, columns=rest).encode()
    yield b"site,line,,hi,hi,Tag,xyz\na,b,c\n" + b"1,2,3,4,5,6,7,8\n"
    yield b'site\n"' + b"x,\n" * 50_000
    yield b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    yield b"PK\x03\x04"
    yield test_address_map.text({"protocol": "nobus"}, {"line": "L2"}, {"conn": "h"}).encode()


def messages() -> list[tuple[str, str]]:
    """A cell, or "", and what is said of it."""
    found = [(cell, text) for cell, text in wrong_syntax() if text]
    for data in wrong_maps():
        try:
            address_map.parse(Path("map.csv"), data, protocols.load)
        except MapError as error:
            found += [(problem.value or "", problem.message) for problem in error.problems]
    return found


def test_every_problem_of_wrong_maps_is_korean() -> None:
    """With its numbers and the cell that it quotes, and no English sentence in it."""
    found = messages()
    texts = [to_korean(message) or "" for _, message in found]
    assert len({message for _, message in found}) > 250
    for (cell, message), korean in zip(found, texts, strict=True):
        assert HANGUL.search(korean), message
        assert set(re.findall("[0-9]+", message)) <= set(re.findall("[0-9]+", korean)), korean
        assert repr(cell) not in message or repr(cell) in korean
        if not OF_PYTHON.search(message):
            assert not ENGLISH.search(korean), korean


def test_most_entries_are_met_by_wrong_maps() -> None:
    """The corpus is broad: seven in ten of the texts occur in it, whole or as a part."""
    texts = [message for _, message in messages()]
    met = 0
    for entry in ENTRIES:
        longest = max(PLACE.sub("\0", entry.english).split("\0"), key=len)
        met += any(longest in text for text in texts)
    assert met > 0.7 * len(ENTRIES), f"{met} of {len(ENTRIES)}"


RTU_TCP = "expected rtu+tcp://HOST:PORT, for example rtu+tcp://10.0.0.5:4001"
RTU_TCP_KO = "형식: rtu+tcp://HOST:PORT, 예: rtu+tcp://10.0.0.5:4001"
BOTH_QUOTES = repr("""it's has no port; "x" has no port; """)


@pytest.mark.parametrize(
    ("message", "korean"),
    [
        ("not a whole number", "정수가 아닙니다"),
        ("not a whole number; write 500", "정수가 아닙니다. 이렇게 쓰세요: 500"),
        (
            f"below 200; allowed: {ALLOWED['unit_id']}",
            "200보다 작습니다. 허용: 0~255의 정수, 비우면 1",
        ),
        # a name that looks like a text of ours is a name
        (
            "a name has no space before or after it; write 1 to 2",
            "이름 앞뒤에 공백이 있습니다. 이렇게 쓰세요: 1 to 2",
        ),
        # a quoted value ends with its quote, whatever is in it
        (f"{BOTH_QUOTES} has no port; {RTU_TCP}", f"포트가 없습니다: {BOTH_QUOTES}. {RTU_TCP_KO}"),
        ("'a' has no port; not ours", "포트가 없습니다: 'a'. not ours"),
        # an entry without words of its own is about texts of ours only
        (
            f"'a': X is no Y; {RTU_TCP}",
            f"연결 주소를 해석할 수 없습니다: 'a': X is no Y. {RTU_TCP_KO}",
        ),
        ("'a': no such rack; try another", None),
        # the system's reason, where it has Korean
        ("the file can't be read: Permission denied", "파일을 읽을 수 없습니다: 권한 없음"),
        ("the file can't be read: Is a pipe", "파일을 읽을 수 없습니다: Is a pipe"),
        ("expected a number for FLOAT32", None),
        ("", None),
    ],
)
def test_korean(message: str, korean: str | None) -> None:
    """A message as a whole, its parts, values as they are; None for what nobody knows here."""
    assert to_korean(message) == korean


@given(st.text() | st.lists(st.sampled_from([entry.english for entry in ENTRIES])).map(" ".join))
def test_any_text(text: str) -> None:
    """Is found or not; what is found says something in Korean, or is a range."""
    korean = to_korean(text)
    assert korean is None or HANGUL.search(korean) or "~" in korean or "=FILE" in korean


def test_a_page_of_problems_takes_no_time() -> None:
    """1,000 problems that were never seen before, and 1,000 that were made to be slow."""
    common = [
        line
        for n in range(200)
        for line in (
            f"'40001.{n + 16}': bit {n + 16}; allowed: 0 to 15",
            f"not a type; write T{n}; allowed: BOOL, INT16",
            f"not above lo, which is {n}; exchange the two",
            f"'/' is not allowed in a name; write a-{n}",
            f"'h{n}' has no port; {RTU_TCP}",
        )
    ]
    assert seconds(common) < 0.5
    nearly = [
        first + "".join(piece * (1_000 // len(piece)) for piece in rest) + "!"
        for entry in ENTRIES
        for first, *rest in [PLACE.sub("\0", entry.english).strip("\0").split("\0")]
    ]
    assert seconds(nearly) < 1
    values = [
        f"{n}{piece * 100}!" for piece in ("to ", "; allowed: ", "='", "\\") for n in range(99)
    ]
    assert seconds(values) < 1


def seconds(texts: Iterable[str]) -> float:
    """CPU time of a fresh catalogue for all of them."""
    catalogue = Catalogue(ENTRIES)
    start = time.process_time()
    for text in texts:
        catalogue.korean(text)
    return time.process_time() - start


# --- what the dashboard adds


@pytest.mark.parametrize(
    "folder",
    [folder for folder in FOLDERS if (folder / "error.txt").exists()],
    ids=lambda folder: folder.name,
)
def test_why_the_file_is_not_what_runs(folder: Path) -> None:
    """The sentence about the whole file has the place and the Korean of the first problem."""
    (path,) = folder.glob("address_map.*")
    with pytest.raises(MapError) as caught:
        address_map.load(path, protocols.load)
    problems = caught.value.problems
    told = [problem.as_dict() for problem in problems]
    state = {"path": str(path), "error": _in_short(path, problems), "problems": told}
    found = state_with_korean(state)
    assert [one["message_ko"] for one in found["problems"]] == [
        to_korean(one.message) for one in problems
    ]
    assert found["problems"][0]["message_ko"] in found["error_ko"]
    assert found["error_ko"].startswith(f"{path}: {problems[0].line}행")
    more = len(problems) - 1
    assert (f"(외 {more}건: edge-agent check --map {path})" in found["error_ko"]) == bool(more)
    assert not ENGLISH.search(found["error_ko"])


@pytest.mark.parametrize(
    ("error", "korean"),
    [
        (
            f"/data/{SOCKET}: Permission denied",
            "에이전트의 소켓에 접근할 수 없습니다: /data/control.sock: 권한 없음",
        ),
        (
            "/a/m.csv: can't be written: Permission denied",
            "파일에 쓸 수 없습니다: /a/m.csv: 권한 없음",
        ),
        ("version 3: /a/3.csv: Permission denied", "버전 3: /a/3.csv: 권한 없음"),
        (
            "/a/m.csv: can't be read: File too large",
            "파일을 읽을 수 없습니다: /a/m.csv: File too large",
        ),
        (
            "there is no version 1 of the map; there are none",
            "맵의 버전 1: 없는 버전입니다. 있는 버전: 없음",
        ),
        ("/a/m.csv: Permission denied", None),
    ],
)
def test_what_the_system_says(error: str, korean: str | None) -> None:
    """Each refusal has its own entry, whatever the system's reason; that of the socket too."""
    assert with_korean({"error": error}, "error")["error_ko"] == korean


def test_what_has_no_korean_stays_english() -> None:
    """A message of a driver that somebody else wrote, and a state without trouble."""
    theirs = {"line": 2, "column": "conn", "value": "x", "message": "expected a rack"}
    state = {"path": "m.csv", "error": "m.csv: line 2, ...", "problems": [theirs]}
    found = state_with_korean(state)
    assert found["error_ko"] is found["problems"][0]["message_ko"] is None
    assert state_with_korean({**state, "error": None, "problems": []})["error_ko"] is None
    assert with_korean({"error": "?", "hint": ""}, "error", "hint") == {
        "error": "?",
        "hint": "",
        "error_ko": None,
        "hint_ko": None,
    }
