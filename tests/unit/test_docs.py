"""Documentation as a tested artefact: what the product offers stands in docs/ and README.md."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import pytest

from edge_agent import cli, protocols
from edge_agent.generate.renderers import RENDERERS
from edge_agent.model import AddressSyntax, ValueType, locate
from edge_agent.pipeline.reader import Quality
from edge_agent.status.exposition import METRICS
from edge_agent.status.figures import AgentStatus, LiveValues, Loss
from edge_agent.status.frames import BlockFrames, ExchangeStatus, IncidentStatus

command_line = import_module("edge_agent.cli.main")  # the package has a function of that name
dashboard_line = import_module("dashboard.cli")
remote_line = import_module("remote.cli")
remote_metrics = import_module("remote.exposition").METRICS

ROOT = Path(__file__).parents[2]
EDGE_AGENT = ROOT / "edge_agent"
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *(ROOT / folder / "README.md" for folder in ("bench", "deploy/pigsty", "edge_agent/protocols")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
API = "".join((ROOT / f"dashboard/{name}.py").read_text() for name in ("api", "map_routes"))
DASHBOARD = (ROOT / "docs/dashboard.md").read_text()
GENERATE = (ROOT / "docs/generate.md").read_text()
REMOTE = (ROOT / "docs/remote.md").read_text()


def options(parser: argparse.ArgumentParser, prefix: str) -> Iterator[tuple[str, str]]:
    """Every command and option, as (command, word)."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield f"{prefix} {name}", f"{prefix} {name}"
                yield from options(child, f"{prefix} {name}")
        else:
            for word in action.option_strings:
                if word.startswith("--") and word != "--help":
                    yield prefix, word


def test_the_entry_point_is_the_documented_one() -> None:
    """`edge-agent` runs `edge_agent.cli:main`."""
    assert cli.main is command_line.main


@pytest.mark.parametrize(
    ("command", "word"),
    sorted(set(options(command_line._parser(list(command_line.COMMANDS)), "edge-agent"))),
)
def test_every_command_and_option_is_documented(command: str, word: str) -> None:
    """Each stands below the heading of its command, or before them all if others have it too."""
    before, *parts = re.split(r"(?m)^### (edge-agent.*)$", OPERATIONS.partition("## Commands")[2])
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    own = [name for name in sections if name.startswith((f"{command} ", f"{command}\n"))] or [
        name for name in sections if name.startswith(" ".join(command.split()[:2]))
    ]
    assert own, f"no heading of {command}"
    told = "".join(f"{name}\n{sections[name]}" for name in own)
    if word in {"--config", "--data-dir", "--http", "--version"}:
        told = before
    assert word.removeprefix(command).strip() in told, f"{command}: {word}"


@pytest.mark.parametrize("command", sorted(remote_line.COMMANDS))
def test_every_command_and_option_of_edge_remote_is_documented(command: str) -> None:
    """Each has a heading in remote.md and is explained below it, common options before them."""
    _, *parts = re.split(r"(?m)^### edge-remote (\w+)", REMOTE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    assert command in sections
    before = REMOTE.partition("## Commands")[2].partition("### ")[0]
    words = {word for _, word in options(remote_line.parser([command]), "edge-remote")}
    wanted = {word for word in words if word.startswith("--")}
    assert wanted
    assert not [word for word in wanted if word not in before + sections[command]]


@pytest.mark.parametrize(
    ("command", "word"), sorted(set(options(dashboard_line.parser(), "edge-dashboard")))
)
def test_every_command_and_option_of_edge_dashboard_is_documented(command: str, word: str) -> None:
    """It stands in dashboard.md."""
    assert word in DASHBOARD, command


@pytest.mark.parametrize("route", re.findall(r'Route\("([^"]+)"', API))
def test_every_route_of_the_dashboard_is_documented(route: str) -> None:
    """So does every route of its API."""
    assert route in DASHBOARD


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_every_metric_is_documented(metric: str) -> None:
    """Its name stands in operations.md."""
    assert metric in OPERATIONS


@pytest.mark.parametrize("metric", sorted(remote_metrics))
def test_every_metric_of_edge_remote_is_documented(metric: str) -> None:
    """Its name stands in remote.md."""
    assert f"`{metric}`" in REMOTE or f"`{metric}_total`" in REMOTE


@pytest.mark.parametrize(
    ("title", "module"),
    [("## HTTP", "status/http_server.py"), ("### The control interface", "control.py")],
)
def test_every_route_is_documented(title: str, module: str) -> None:
    """Each that the agent serves stands in the table below the title, and no other."""
    table = OPERATIONS.partition(f"{title}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| `")]
    told = {
        route.partition("?")[0]
        for row in rows
        for route in re.findall(r"`(?:[A-Z]+ )?(/.*?)`", row)
    }
    served = re.findall(r'add_(?:get|post)\(r?"([^"]+)"', (EDGE_AGENT / module).read_text())
    assert served
    assert told == {re.sub(r"\{.*\}", "N", route) for route in served}


def shape(kind: Any) -> Any:
    """Which keys a value of this type has as JSON, in order; None where it has none of its own."""
    if is_typeddict(kind):
        return {name: shape(of) for name, of in get_type_hints(kind).items()}
    inside = [found for of in get_args(kind) if (found := shape(of)) is not None]
    if not inside:
        return None
    return [inside[0]] if get_origin(kind) is list else inside[0]


def is_like(value: Any, wanted: Any) -> bool:
    """Whether a value has these keys, in this order, wherever it is not null or empty."""
    if isinstance(value, dict) and isinstance(wanted, dict):
        return list(value) == list(wanted) and all(is_like(value[k], wanted[k]) for k in wanted)
    if isinstance(value, list) and isinstance(wanted, list):
        return all(is_like(one, wanted[0]) for one in value)
    return wanted is None or value is None


def test_the_status_is_documented() -> None:
    """Every key of `/status`, in its order, with one of each list."""
    shown = json.loads(OPERATIONS.partition("```json\n")[2].partition("```")[0])
    assert list(shown) == list(get_type_hints(AgentStatus))
    for name, wanted in shape(AgentStatus).items():
        assert is_like(shown[name], wanted), f"{name}: {wanted}"
        assert shown[name] or name.endswith(("problems", "problems_ko")), f"{name}: show one"


@pytest.mark.parametrize(
    ("route", "kinds"),
    [
        ("/values", [LiveValues]),
        ("/losses", [Loss]),
        ("/frames", [BlockFrames, ExchangeStatus, IncidentStatus]),
    ],
)
def test_what_the_other_routes_tell_is_documented(route: str, kinds: list[type]) -> None:
    """Every key of their answers stands in the route's row."""
    [row] = re.findall(rf"(?m)^\| `{route}[?`].*$", OPERATIONS)
    keys = {key for kind in kinds for key in get_type_hints(kind)}
    assert not [key for key in keys if f"`{key}`" not in row]


def test_the_message_is_documented() -> None:
    """The seven keys, in order."""
    keys = ["ts", "site", "line", "device", "tag", "value", "unit"]
    assert re.search(".*?".join(f'"{key}":' for key in keys), OPERATIONS)


@pytest.mark.parametrize("name", RENDERERS)
def test_every_generated_file_is_documented(name: str) -> None:
    """In the list of what a run writes, and in a heading."""
    assert f"\nwritten    {name}\n" in GENERATE
    assert re.search(rf"(?m)^## .*\b{re.escape(name)}(,|$)", GENERATE)


@pytest.mark.parametrize("quality", list(Quality))
def test_every_quality_is_documented(quality: Quality) -> None:
    """What `good`, `bad` and `stale` mean."""
    assert quality.value in OPERATIONS


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings; code blocks have none."""
    text = re.sub(r"(?ms)^ *```.*?^ *```", "", page.read_text())
    titles = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that exists, and a heading in it where it names one."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        if "://" not in target:
            there = page.parent / name if name else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def syntax_rows(page: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Protocol, connections and addresses of each row of a table of what the cells may say."""
    header = "| `protocol` | `conn` | `address` | meaning |\n"
    table = (ROOT / page).read_text().partition(header)[2].partition("\n\n")[0]
    protocol, conns = "", [""]
    for row in table.splitlines()[1:]:
        spans = [re.findall("`([^`]+)`", cell) for cell in row.split("|")[1:4]]
        [protocol] = spans[0] or [protocol]
        conns = [conn for conn in spans[1] if "://" in conn] or conns
        yield protocol, conns, [_filled_in(address) for address in spans[2]]


def _filled_in(address: str) -> str:
    """An address with something in place of the words that stand for it."""
    return address.replace("UUID", "09087e75-8e5e-499b-954f-f2a9603db28a").replace("BASE64", "AQID")


def is_address(syntax: type[AddressSyntax], conn: str, address: str) -> bool:
    """Whether any type may lie there."""
    for value_type in ValueType:
        with suppress(ValueError):
            locate(syntax, conn, address, value_type)
            return True
    return False


@pytest.mark.parametrize("page", ["docs/address-map.md", "edge_agent/protocols/README.md"])
def test_the_tables_of_addresses_are_what_the_parsers_take(page: str) -> None:
    """Every connection that they show is valid, and so is every address on it."""
    shown = list(syntax_rows(page))
    assert {protocol for protocol, _, _ in shown} >= {"modbus", "opcua", "s7", "mqtt"}
    for protocol, conns, addresses in shown:
        for conn in conns:
            protocols.load(protocol).parse_conn(conn)
            for address in addresses:
                assert is_address(protocols.load(protocol), conn, address), (conn, address)


@pytest.mark.parametrize(
    ("protocol", "conn", "title"),
    [
        ("modbus", "tcp://h", "A Modbus `conn`"),
        ("modbus", "tcp+tls://h", "A Modbus `conn`"),
        ("modbus", "rtu:///dev/ttyUSB0", "A Modbus `conn`"),
        ("opcua", "opc.tcp://h", "Options of an OPC UA"),
        ("s7", "s7://h", "Options of an S7"),
        ("mqtt", "mqtts://h", "Options of an MQTT"),
    ],
)
def test_every_option_of_a_connection_is_documented(protocol: str, conn: str, title: str) -> None:
    """What the error about an unknown one allows stands below the title."""
    text = (ROOT / "edge_agent/protocols/README.md").read_text().partition(title)[2]
    below = text.partition("\nOptions of ")[0]
    with pytest.raises(ValueError, match=r"allowed: ([\w, ]+)$") as caught:
        protocols.load(protocol).parse_conn(f"{conn}?nope=1")
    options = str(caught.value).partition("allowed: ")[2].split(", ")
    assert options
    assert not [option for option in options if f"`{option}`" not in below]


def test_the_first_command_stands_at_the_top() -> None:
    """A newcomer meets a line to run before line 20 of the README."""
    first = (ROOT / "README.md").read_text().splitlines()[:20]
    assert any(line.startswith("make ") for line in first)
