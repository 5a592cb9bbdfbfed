"""docs/architecture.md and docs/bounds.md say what the code does."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from edge_agent import errors
from edge_agent.errors import DeviceError, EdgeAgentError, TransientError
from edge_agent.protocols.base import Driver
from edge_agent.sinks import Destination
from edge_agent.sinks.base import DeviceTeller, RefusalKeeper, Sink

ROOT = Path(__file__).parents[2]
PACKAGES = ("edge_agent", "dashboard", "remote")
PACKAGE = ROOT / "edge_agent"
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
BOUNDS = (ROOT / "docs/bounds.md").read_text()
WRITE_A_DRIVER = (ROOT / "docs/write-a-driver.md").read_text()
APART = {"cli", "simulator"}
"""Their tasks are in processes of their own."""
FOR_TESTS = {"protocols/conformance.py"}
"""What it waits for is no bound of the agent."""
NO_BOUNDS = {"heap.py: M_ARENA_MAX"}
"""glibc's number of a parameter."""
NAMED_ELSEWHERE = {"ingest.name": "mqtt.ingest", "name": None}
"""Names of tasks that are no text where the task is started; None for what another call names."""
ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, EdgeAgentError) and kind is not EdgeAgentError
]


def section(page: str, title: str) -> str:
    """What stands below a heading, down to the next one of its rank."""
    rank = title.split()[0]
    assert f"\n{title}\n" in page
    return page.partition(f"\n{title}\n")[2].partition(f"\n{rank} ")[0]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of a text's tables."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|--"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def spans(cell: str) -> list[str]:
    return re.findall("`([^`]+)`", cell)


# -- modules ------------------------------------------------------------------------------------


def test_every_module_is_in_the_table_of_layers() -> None:
    """Whatever lies in the package itself, and each module of the pipeline."""
    named = {
        word.rstrip("/").removesuffix(".py") for row in rows(section(ARCHITECTURE, "## Layers"))
        for word in spans(row[0])
    }  # fmt: skip
    named |= {f"pipeline/{name}" for name in named}
    there = {
        str(path.relative_to(PACKAGE).with_suffix(""))
        for folder in (PACKAGE, PACKAGE / "pipeline")
        for path in folder.iterdir()
        if path.suffix in {"", ".py"} and not path.name.startswith("_")
    }
    assert sorted(there - named - {"pipeline"}) == []


def test_the_journal_is_imported_as_a_package() -> None:
    """Decision 5: its modules are its own, but for the command that is its own tool."""
    others = [
        str(path.relative_to(ROOT))
        for folder in PACKAGES
        for path in (ROOT / folder).rglob("*.py")
        if PACKAGE / "journal" not in path.parents
        and re.search(r"(?m)^\s*(from|import) edge_agent\.journal\.", path.read_text())
    ]
    assert others == ["edge_agent/cli/journal.py"]


def test_the_files_that_it_names_exist() -> None:
    """Each is there, in some folder of the tree; NAME stands for what is yet to come."""
    folders = ("edge_agent", "dashboard", "remote", "tests", "sql", "docs", "examples", "systemd")
    there = {
        str(Path(folder, name).relative_to(ROOT))
        for part in folders
        for folder, _, names in os.walk(ROOT / part)
        if "node_modules" not in folder
        for name in names
    }
    found = re.findall(r"`([\w/]+\.(?:py|md|js|sql|toml))`", ARCHITECTURE)
    named = {name for name in found if "NAME" not in name}
    assert len(named) > 100
    assert sorted(n for n in named if not any(f"/{path}".endswith(f"/{n}") for path in there)) == []


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_class_of_errors_is_documented(kind: type[EdgeAgentError]) -> None:
    """What the caller does; one that a driver raises stands in write-a-driver.md too."""
    assert f"`{kind.__name__}`" in section(ARCHITECTURE, "## Layers")
    if issubclass(kind, (DeviceError, TransientError)):
        promises = section(WRITE_A_DRIVER, "## What every member promises")
        assert f"\n| `{kind.__name__}`" in promises


# -- tasks and threads --------------------------------------------------------------------------


@cache
def modules() -> list[ast.Module]:
    """Those whose tasks are the agent's."""
    return [
        ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in APART
    ]


def names_of_tasks() -> Iterator[str]:
    """Of every task that is started with a name; `{}` is what differs from task to task."""
    for node in (node for module in modules() for node in ast.walk(module)):
        match node:
            case ast.Call(func=ast.Attribute(attr="_start"), args=[name, _]):
                yield from written(name)
            case ast.Call(
                func=ast.Attribute(attr="create_task"), keywords=[ast.keyword("name", name)]
            ):
                yield from written(name)
            case ast.Call(func=ast.Attribute(attr="start", value=ast.Attribute(attr="_link")),
                          args=[_, ast.Constant(str(what))]):  # fmt: skip
                yield f"edge[{{}}].{what}"


def written(name: ast.expr) -> Iterator[str]:
    """A name as it stands in the code."""
    match name:
        case ast.Constant(str(text)):
            yield text
        case ast.JoinedStr(values):
            text = "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in values)
            if text != "edge[{}].{}":  # what an OPC UA link starts is named by who asks it to
                yield text
        case _:
            found = NAMED_ELSEWHERE[ast.unparse(name)]
            if found is not None:
                yield found


def test_every_task_is_documented() -> None:
    """Its name stands in a table, and what stands there is started."""
    text = section(ARCHITECTURE, "## Tasks and threads").partition("| thread |")[0]
    told = {re.sub(r"\{.*?\}", "{}", name) for row in rows(text) for name in spans(row[0])}
    assert told == set(names_of_tasks())


def test_every_thread_is_documented() -> None:
    """Each pool of threads has its row."""
    table = section(ARCHITECTURE, "## Tasks and threads").partition("| thread |")[2]
    told = {name for row in rows(table) for name in spans(row[0])}
    pools = {
        ast.literal_eval(node.value)
        for module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.keyword) and node.arg == "thread_name_prefix"
    }
    assert pools
    assert told == pools


# -- interfaces ---------------------------------------------------------------------------------


def members(*interfaces: type) -> set[str]:
    """What their classes have, and the optional members that their docstrings name."""
    kinds = {kind for one in interfaces for kind in one.__mro__ if kind.__module__ != "typing"}
    there = {
        name for kind in kinds for name in (*vars(kind), *vars(kind).get("__annotations__", ()))
    }
    told = {name for kind in kinds for name in re.findall("``([a-z_]+)[`(]", kind.__doc__ or "")}
    return {name for name in there | told if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(members(Driver)))
def test_every_member_of_a_driver_is_documented(name: str) -> None:
    """In architecture.md, and where somebody writes one."""
    for page, title in (
        (ARCHITECTURE, "## The Driver interface"),
        (WRITE_A_DRIVER, "## What every member promises"),
    ):
        assert re.search(rf"(?m)^\|.*`{name}[`(]", section(page, title)), title


@pytest.mark.parametrize(
    "name",
    sorted(
        members(Sink, RefusalKeeper, DeviceTeller)
        | {field.name for field in dataclasses.fields(Destination)}
    ),
)
def test_every_member_of_a_sink_is_documented(name: str) -> None:
    """So is what else its `Destination` can say."""
    assert re.search(rf"`{name}[`(]", section(ARCHITECTURE, "## The Sink interface"))


# -- bounds -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Bound:
    """A name and the value that the page gives it, in one of the modules of its row."""

    package: str
    modules: tuple[str, ...]
    name: str
    value: int | float


def bounds() -> Iterator[Bound]:
    """Every bound of the tables; a row without a module is of the one above."""
    for package in PACKAGES:
        where: tuple[str, ...] = ()
        for place, names, values, _ in list(rows(section(BOUNDS, f"## `{package}/`")))[1:]:
            first, *others = spans(place) or where
            folder = first.rpartition("/")[0]
            where = (first, *(o if "/" in o or not folder else f"{folder}/{o}" for o in others))
            numbers = [ast.literal_eval(v.replace(",", "")) for v in re.split("[,;] ", values)]
            for name, value in zip(spans(names), numbers, strict=True):
                yield Bound(package, where, name, value)


@cache
def assigned(path: Path) -> set[str]:
    """The names that a module gives to what it makes."""
    body = ast.parse(path.read_text()).body
    targets = [
        target
        for node in body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return {name.id for t in targets for name in ast.walk(t) if isinstance(name, ast.Name)}


def value_of(path: Path, name: str) -> object:
    """What a module's constant is."""
    module = str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
    return getattr(import_module(module.removesuffix(".__init__")), name)


def is_bound(name: str) -> bool:
    """Whether a constant is one by its name; others may be so by what they do."""
    words = name.split("_")
    return words[0] != "" and ({"MAX", "KEPT"} & {*words} != set() or name.endswith("TIMEOUT_S"))


def problem(bound: Bound) -> str | None:
    """What is not true of it."""
    places = [ROOT / bound.package / module for module in bound.modules]
    found = [place for place in places if place.exists() and bound.name in assigned(place)]
    if not found:
        return f"{bound.name} is in none of {', '.join(bound.modules)}"
    for place in found:
        if (value := value_of(place, bound.name)) != bound.value:
            return f"{place.relative_to(ROOT)}: {bound.name} is {value}"
    return None


def test_the_bounds_are_those_of_the_code() -> None:
    """Each row of docs/bounds.md names a constant of its module, and the value it has there."""
    assert len(list(bounds())) > 300
    assert not [text for bound in bounds() if (text := problem(bound)) is not None]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_bound_is_in_the_table(package: str) -> None:
    """Each number that its name calls one stands in docs/bounds.md."""
    told = {
        (where, one.name) for one in bounds() if one.package == package for where in one.modules
    }
    missing = [
        f"{name}: {constant}"
        for path in (ROOT / package).rglob("*.py")
        if ".web" not in path.parts
        if (name := str(path.relative_to(ROOT / package))) not in FOR_TESTS
        for constant in assigned(path)
        if is_bound(constant) and (name, constant) not in told
        if isinstance(value_of(path, constant), (int, float))
    ]
    assert sorted({*missing} - NO_BOUNDS) == []
