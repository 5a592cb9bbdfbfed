"""One word, one meaning: names that docs/glossary.md rules out do not come back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.product import PRODUCT, ROOT, relative

RULED_OUT = {
    "datapoint": "sample",
    "reading": "sample",
    "readings": "sample or value",
    "slave": "connection or unit",
    "slaves": "connection or unit",
    "plugin": "driver",
    "connector": "driver",
    "queue": "journal",
    "queues": "journal",
}
FOREIGN = {
    *("queue_size", "QueueSize"),  # OPC UA, of a monitored item
    *("pause_reading", "resume_reading"),  # asyncio, of a transport
    *("OriginPlugin", "LaterPlugin"),  # Reflex, of its base class
}
"""Words of libraries, for what is theirs."""
GLOSSARY = ROOT / "docs/glossary.md"
KOREAN = dict(
    re.findall(
        r"^\|[^|]*\| ([^|]+) \| ([^|]*[가-힣][^|]*) \|$", GLOSSARY.read_text("utf-8"), re.MULTILINE
    )
)
"""What is ruled out in Korean, by what to say."""
SAID_IN_KOREAN = [
    *PRODUCT,
    *sorted((ROOT / "dashboard/elements").glob("*.js")),
    ROOT / "README.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if path != GLOSSARY),
]


def names_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name that a module gives, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr


def words_of(name: str) -> set[str]:
    """`queueLength` and `queue_length` are two words each."""
    return set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))


@pytest.mark.parametrize("path", PRODUCT, ids=relative)
def test_names_use_the_words_of_the_glossary(path: Path) -> None:
    """A reader guesses the meaning from the word."""
    given = [(0, path.stem), *names_in(ast.parse(path.read_text()))]
    wrong = [
        f"line {line}: {name}: say {RULED_OUT[word]}"
        for line, name in given
        if name not in FOREIGN
        for word in words_of(name) & RULED_OUT.keys()
    ]
    assert not wrong


def test_korean_texts_use_the_words_of_the_glossary() -> None:
    """Who reads one word on a page and another in an error takes them for two things."""
    assert len(KOREAN) > 5
    wrong = [
        f"{relative(path)}:{number}: {ruled_out}: say {word}"
        for path in SAID_IN_KOREAN
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for word, ruled_out in KOREAN.items()
        if ruled_out in line
    ]
    assert wrong == []
