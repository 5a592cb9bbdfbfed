"""Errors in Korean: every text of the code that can be one has its Korean, and nothing is lost.

The English texts are read out of the code's syntax trees and out of the SQL, and cut into pieces
as they are at run time. tests/unit/test_korean.py does the same for the problems of a map.
"""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.korean import OWN, in_korean, with_korean_throughout
from edge_agent.address_map import MapError, load
from edge_agent.protocols import load as protocol
from edge_agent.reload.reloader import _in_short
from edge_agent.status.figures import MapStatus
from edge_agent.status.verdict import problems_of
from edge_agent.text.catalogue import JOINT, JOINTS_MAX, PLACE, Catalogue, Entry, Pieces
from edge_agent.text.korean import ERRORS, error_in_korean, in_both
from edge_agent.text.korean.system import SYSTEM
from tests.unit.test_korean import (
    ENGLISH,
    HANGUL,
    PARTICLE,
    ROOT,
    is_prose,
    is_silent,
    name_of,
    structure,
    template_of,
)
from tests.unit.test_testcases_map import FOLDERS

ALL: Final = ("",)
"""Every text of a module."""
SOURCES: Final = {
    "edge_agent/protocols/modbus.py": ALL,
    "edge_agent/protocols/modbus_rtu.py": ALL,
    "edge_agent/protocols/modbus_serial.py": ALL,
    "edge_agent/protocols/modbus_socket.py": ALL,
    "edge_agent/protocols/modbus_wire.py": ALL,
    "edge_agent/protocols/mqtt.py": ("read", "refusal"),
    "edge_agent/protocols/mqtt_link.py": ALL,
    "edge_agent/protocols/mqtt_syntax.py": ("decode", "number", "_kind", "picker", "time_ms"),
    "edge_agent/protocols/opcua.py": ALL,
    "edge_agent/protocols/opcua_client.py": ALL,
    "edge_agent/protocols/opcua_credentials.py": ALL,
    "edge_agent/protocols/opcua_wire.py": ALL,
    "edge_agent/protocols/s7.py": ALL,
    "edge_agent/protocols/simulated.py": ("read",),
    "edge_agent/pipeline/poller.py": ("__init__", "_disconnected", "_read", "_ask"),
    "edge_agent/pipeline/reader.py": ("problem",),
    "edge_agent/pipeline/delivery.py": ("_failed",),
    "edge_agent/pipeline/upkeep.py": ("_failed",),
    "edge_agent/pipeline/ingest.py": ("__init__", "_subscribe"),
    "edge_agent/pipeline/ingest_decoder.py": ALL,
    "edge_agent/pipeline/ingested.py": ALL,
    "edge_agent/sinks/influx.py": ("_transient", "_write"),
    "edge_agent/sinks/mqtt.py": (),
    "edge_agent/sinks/mqtt_publisher.py": ALL,
    "edge_agent/sinks/mqtt_window.py": ("reason_in_words", "answer"),
    "edge_agent/sinks/postgres.py": (),
    "edge_agent/sinks/store.py": (),
    "edge_agent/store/reader.py": (),
    "edge_agent/postgres/connection.py": (
        *("translated_errors", "_plain", "_hint", "check_server"),
    ),
    "edge_agent/postgres/database.py": (),
    "remote/state.py": ALL,
    "remote/checks.py": ("publication_traps", "subscription_traps", "lost_slot_problem"),
    "remote/ends.py": ("unfit", "same_server", "clock_problem"),
    "dashboard/live/feed.py": (),
    "dashboard/data/postgres.py": ("_connection",),
    "dashboard/data/store.py": (),
    "dashboard/services.py": ("__init__", "_remote_client"),
    "dashboard/chart.py": ("__post_init__",),
    "dashboard/api.py": ("_which", "_whole"),
}
"""Where errors come from, with the functions that say nothing else. Of every module here also its
constants for people, what its errors say, and what it calls that which it was doing."""
SQL: Final = ("085_health.sql", "postgres/080_health.sql", "timescale/080_health.sql")

RAISED: Final = re.compile(
    "(Transient|Device|Refused|SilentUnit|DamagedReply|OS|FileNotFound|Timeout)Error"
)
"""Others are told at the start, on a terminal."""
FOR_PEOPLE: Final = re.compile(r"_?([A-Z]+_)*(HINTS?|REASONS|GONE|STUCK|NOT_READ|REFUSED_BEFORE)")
DOING: Final = {"translated_errors", "errors", "_connection"}
"""What these are given says what was being done."""

PLACES: Final = {
    *(
        "{} to {}",
        "from {} to {}",
        "{} unit {}",
        "bytes {} to {}",
        "byte {}",
        "broker {}:{}",
        "postgres {}",
    ),
    *("store {}", "{} (0x{})", "unit {} {} {}..{}", "{} ({})"),
}
"""Where something is stays as it is: no template could tell it from a sentence."""
TOGETHER: Final = {
    "no answer within {} s{}": ["no answer within {} s"],
    " to each of {} requests": ["no answer within {} s to each of {} requests"],
    " (and {} more)": [],
    "topic {}{}": ["topic {}"],
    "run `{}`": ["run `edge-agent db init`", "run `edge-remote setup`"],
    "the edge keeps WAL for a remote that is away{}": [
        "the edge keeps WAL for a remote that is away",
    ],
    ", and its slot is lost in {} hours at the present rate": [
        (
            "the edge keeps WAL for a remote that is away, and its slot is lost in {} hours at the"
            " present rate"
        ),
    ],
    "{}, then `GRANT ingest TO {user}`": [
        "run `edge-agent db init --dsn OWNER_DSN`, then `GRANT {} TO {}`",
    ],
    "run `edge-agent db init --dsn OWNER_DSN`, then `GRANT viewer TO {}`": [],
    "create the database (ENCODING 'UTF8'), then {}": [
        "create the database (ENCODING 'UTF8'), then run `edge-agent db init --dsn OWNER_DSN`",
    ],
    " (Retry-After": [],
    "`ALTER SYSTEM SET wal_level = 'logical'` on this server, then restart it (restart, not"
    " reload)": [],
    "db init": [],
    "db status": [],
}
"""Pieces that are put together again, and what comes of them; some of it is no error."""
OTHERS: Final = {structure(entry.english) for entry in SYSTEM} | {
    *("database or disk is full", "database is locked", "disk I/O error"),
    *("unable to open database file", "attempt to write a readonly database"),
    *("connect", "deliver", "upkeep", "health", "minutes", "newest", "not open"),
}
"""Words of the system and of libraries, or one alone."""

SAME: Final = {
    *("[Errno {number}] {reason!t}", "{reason!t} ({code})"),
    *("/ % as %40 %3A %2F %25", "1 to {most}", "a {kind}"),
}
"""Entries whose Korean has no word of Korean."""


class Piece(NamedTuple):
    """A piece of a text in the code, without names, and its place."""

    template: str
    place: str


# --- completeness


def texts_in(node: ast.AST, functions: tuple[str, ...], *, inside: bool) -> Iterator[ast.expr]:
    """Every text that can be told: in the functions, of our errors, in constants for people."""
    for child in ast.iter_child_nodes(node):
        if is_silent(child):
            continue
        heard = inside
        match child:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                heard = inside or name in functions
            case ast.Call() if RAISED.fullmatch(name_of(child)) or name_of(child) in DOING:
                heard = True
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                heard = inside or bool(FOR_PEOPLE.fullmatch(name))
            case ast.Assert():
                continue
        if isinstance(child, ast.JoinedStr) or (
            isinstance(child, ast.Constant) and isinstance(child.value, str)
        ):
            if heard:
                yield cast("ast.expr", child)
            for piece in getattr(child, "values", ()):
                if isinstance(piece, ast.FormattedValue):
                    yield from texts_in(piece, functions, inside=heard)
            continue
        yield from texts_in(child, functions, inside=heard)


def pieces_of_code() -> Iterator[Piece]:
    """Those of all modules."""
    for name, functions in SOURCES.items():
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        for node in texts_in(tree, functions, inside=functions is ALL):
            for piece in JOINT.split(template_of(node))[::2]:
                yield Piece(piece, f"{name}:{node.lineno}")


def pieces_of_sql() -> Iterator[Piece]:
    """Those of what a database says of itself."""
    for name in SQL:
        text = (ROOT / "sql" / name).read_text(encoding="utf-8")
        for literal in literals_of(re.sub(r"--.*|\$x\$.*\$x\$", "", text)):
            if len(re.findall("[a-z]+ ", literal)) > 2 or is_job(literal):
                for piece in JOINT.split(literal.replace("%s", "{}"))[::2]:
                    yield Piece(piece, f"sql/{name}")


def is_job(literal: str) -> bool:
    """A background job as TimescaleDB's checks name it."""
    return bool(re.fullmatch("(refresh|compression) of plc_[a-z0-9]+", literal))


def literals_of(sql: str) -> Iterator[str]:
    """Texts in SQL, those that stand in several lines as one; in one that is SQL, its own."""
    for found in re.findall(r"'(?:[^']|'')*'(?:\s*\n\s*'(?:[^']|'')*')*", sql):
        text = re.sub(r"(?<=[^'])'\s*\n\s*'(?=[^'])", "", found)[1:-1].replace("''", "'")
        if re.match("SELECT ", text):
            yield from literals_of(text)
        else:
            yield text


PIECES = [*pieces_of_code(), *pieces_of_sql()]
ENTRIES = (*ERRORS, *OWN)


def is_left(template: str) -> bool:
    """What needs no Korean: commands and code, statements, a range."""
    return bool(
        template in PLACES
        or re.fullmatch("`[^`]*`|(edge-|systemctl )[a-z -]+", template)
        or re.match("ALTER SYSTEM|SELECT ", template)
    )


def test_every_text_has_its_korean() -> None:
    """Whoever adds an error finds here what the catalogue lacks, and where it comes from."""
    assert len(PIECES) > 300
    known = {structure(entry.english) for entry in ENTRIES}
    missing = [
        one
        for one in PIECES
        if is_prose(one.template)
        and one.template not in known | TOGETHER.keys()
        and not is_left(one.template)
    ]
    assert not missing, "without Korean:\n" + "\n".join(
        f"{place}: add Entry({text!r}, ...) to edge_agent/text/korean/" for text, place in missing
    )


def test_no_entry_is_left_over() -> None:
    """Nor does a text stand twice."""
    said = {piece.template for piece in PIECES} | OTHERS
    said |= {made for pieces in TOGETHER.values() for made in pieces}
    found = [structure(entry.english) + "!t" * entry.is_part for entry in ENTRIES]
    assert not [text for text in found if text.removesuffix("!t") not in said], (
        "nothing in the code says this"
    )
    assert len(found) == len(set(found))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.english[:60])
def test_an_entry_loses_no_value(entry: Entry) -> None:
    """A text made after the template is found, and its Korean has every value of it."""
    names = [name for name, _ in PLACE.findall(entry.english)]
    kinds = dict(PLACE.findall(entry.english))
    assert sorted(names) == sorted(name for name, _ in PLACE.findall(entry.korean))
    assert not any(kind for _, kind in PLACE.findall(entry.korean))
    assert "}{" not in entry.english, "nobody could tell where the first value ends"
    assert not JOINT.search(entry.english), "it would be cut in two"
    values = {name: f"({place})값" for place, name in enumerate(names)}
    values |= {name: repr(values[name]) for name in names if kinds[name] == "!r"}
    values |= {name: "Invalid address" for name in names if kinds[name] == "!t"}
    text = PLACE.sub(lambda place: values[place[1]], entry.english)
    found = Catalogue([*ENTRIES, Entry("<{part!t}>", "<{part}>")]).korean(
        f"<{text}>" if entry.is_part else text
    )
    assert found is not None
    expected = {"없는 주소" if kinds[name] == "!t" else values[name] for name in names}
    assert not [value for value in expected if value not in found], found


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.english[:60])
def test_an_entry_is_korean(entry: Entry) -> None:
    """No particle hangs on a value, whose sound nobody knows; no English sentence is left."""
    assert not PARTICLE.search(entry.korean)
    plain = PLACE.sub("", entry.korean)
    assert HANGUL.search(plain) or entry.english in SAME or not is_prose(entry.english)
    quoted = re.compile("`[^`]*`|'[^']*'|\"[^\"]*\"|\\([A-Z][^)]*\\)")
    assert not ENGLISH.search(quoted.sub("", plain))


# --- what is found


AT = "tcp://10.0.0.5:502"
BLOCK = f"{AT} unit 3: holding 0 to 9"
DSN = "postgres postgresql://db/p"
THEIRS = 'relation "plc_raw" does not exist'
LOGIN = "check username and password of [mqtt]"
LOGIN_KO = "[mqtt]의 username과 password를 확인하세요"


@pytest.mark.parametrize(
    ("error", "korean"),
    [
        (f"{AT}: Connection refused", f"{AT}: 연결 거부됨"),
        (
            f"{BLOCK}: no answer within 0.5 s to each of 2 requests",
            f"{BLOCK}: 0.5초 안에 응답 없음(요청 2회 모두)",
        ),
        (f"{BLOCK}: exception 2 ILLEGAL_ADDRESS", f"{BLOCK}: 예외 응답 2 ILLEGAL_ADDRESS"),
        (
            f"{DSN}: connect: Connection refused; raise max_connections",
            f"{DSN}: 연결: 연결 거부됨; max_connections를 늘리세요",
        ),
        (
            f"{DSN}: connect: Network is unreachable; Connection refused; raise max_connections",
            f"{DSN}: 연결: 네트워크에 연결할 수 없음; 연결 거부됨; max_connections를 늘리세요",
        ),
        # what the server says in its own words stays between what we say
        (
            f"{DSN}: deliver: {THEIRS} (42P01); run `edge-agent db init`",
            f"{DSN}: 전달: {THEIRS} (42P01); `edge-agent db init` 명령을 실행하세요",
        ),
        (
            f"broker h:1: refused the connection: not authorized (135): go; {LOGIN}",
            f"broker h:1: 브로커가 연결을 거부함: 권한 없음 (135): go; {LOGIN_KO}",
        ),
        ("s7://h: DB1 byte 3: Invalid address (0x05)", "s7://h: DB1 byte 3: 없는 주소 (0x05)"),
        (
            "store /s.db: [Errno 13] Permission denied: '/s.db'",
            "store /s.db: 권한 없음 [Errno 13]: '/s.db'",
        ),
        ("a rack: nobody knows it; try another", None),
        ("", None),
    ],
)
def test_error_in_korean(error: str, korean: str | None) -> None:
    """What is known of it in Korean, places and foreign words as they are; else None."""
    assert error_in_korean(error) == korean
    assert in_both(error) == (error, korean or error)


@given(st.text() | st.lists(st.sampled_from([one.english for one in ERRORS])).map(": ".join))
def test_any_text(text: str) -> None:
    """Is found or not; what is behind the bound on pieces stays as it is."""
    error_in_korean(text)
    tail = "; not connected" * JOINTS_MAX
    assert (error_in_korean(f"x{tail}; not connected") or "").endswith("; not connected")


def test_an_error_takes_no_time() -> None:
    """A server's long message, and 1,000 errors that were never seen before."""
    pieces = Pieces(ERRORS)
    start = time.process_time()
    pieces.korean("connect: " * 100_000)
    for number in range(1_000):
        pieces.korean(f"{AT}: unit {number} answered; try {number}")
    assert time.process_time() - start < 1


# --- where it stands


def test_the_system_page_has_all_in_korean() -> None:
    """Errors, hints and problems wherever they are, lists too; what comes in Korean is kept."""
    found = with_korean_throughout(
        {
            "verdict": "Data stops",
            "verdict_ko": "멈춤",
            "problems": ["Data stops"],
            "problems_ko": ["멈춤"],
            "connections": [{"conn": AT, "error": f"{AT}: Broken pipe", "errors": {"device": 3}}],
            "upkeep": [{"error": None, "checks": [{"problem": "its last error: theirs"}]}],
            "replication": {"problems": ["run `edge-remote setup`", "theirs"]},
        }
    )
    assert found["verdict_ko"] == "멈춤"
    assert found["problems_ko"] == ["멈춤"]
    assert found["connections"][0] == {
        "conn": AT,
        "error": f"{AT}: Broken pipe",
        "error_ko": f"{AT}: 연결이 끊어짐",
        "errors": {"device": 3},
    }
    chore = found["upkeep"][0]
    assert (chore["error_ko"], chore["checks"][0]["problem_ko"]) == (None, "마지막 오류: theirs")
    assert found["replication"]["problems_ko"] == [
        "`edge-remote setup` 명령을 실행하세요",
        "theirs",
    ]
    assert with_korean_throughout(None) is None
    assert in_korean("") is in_korean(None) is None


@pytest.mark.parametrize(
    "folder",
    [folder for folder in FOLDERS if (folder / "error.txt").exists()],
    ids=lambda folder: folder.name,
)
def test_a_wrong_map_is_a_problem_in_korean(folder: Path) -> None:
    """The file's first problem, with its place, as the page of the map says it."""
    (path,) = folder.glob("address_map.*")
    with pytest.raises(MapError) as caught:
        load(path, protocol)
    problems: list[Any] = [problem.as_dict() for problem in caught.value.problems]
    english = _in_short(path, caught.value.problems)
    state = cast("MapStatus", {"path": str(path), "error": english, "problems": problems})
    (found,) = problems_of([], [], None, state, 0)
    assert found.english.endswith(english)
    start = f"파일의 주소 맵이 실행 중인 맵과 다릅니다: {path}: {problems[0]['line']}행"
    assert found.korean.startswith(start)
    assert not ENGLISH.search(found.korean)
