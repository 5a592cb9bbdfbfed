"""Documentation as a tested artefact: what the product offers stands in docs/ and README.md."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from edge_agent import cli, protocols
from edge_agent.model import AddressSyntax, ValueType, locate
from edge_agent.pipeline.reader import Quality
from edge_agent.protocols.modbus_syntax import OPTIONS
from edge_agent.status.exposition import METRICS

command_line = import_module("edge_agent.cli.main")  # the package has a function of that name
dashboard_line = import_module("dashboard.cli")
remote_line = import_module("remote.cli")
remote_metrics = import_module("remote.exposition").METRICS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EVERYTHING = "\n".join(page.read_text() for page in PAGES)
OPERATIONS = (ROOT / "docs/operations.md").read_text()
API = "".join((ROOT / f"dashboard/{name}.py").read_text() for name in ("api", "map_routes"))
DASHBOARD = (ROOT / "docs/dashboard.md").read_text()
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
    """A reader finds it, and the words around it."""
    assert word in EVERYTHING, f"{command}: {word} stands in no page"


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
    "route", ["/healthz", "/readyz", "/status", "/values", "/losses", "/metrics"]
)
def test_every_route_is_documented(route: str) -> None:
    """So does every HTTP route."""
    assert route in OPERATIONS


def test_the_message_is_documented() -> None:
    """The seven keys, in order."""
    keys = ["ts", "site", "line", "device", "tag", "value", "unit"]
    assert re.search(".*?".join(f'"{key}":' for key in keys), OPERATIONS)


@pytest.mark.parametrize("quality", list(Quality))
def test_every_quality_is_documented(quality: Quality) -> None:
    """What `good`, `bad` and `stale` mean."""
    assert quality.value in OPERATIONS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that exists."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


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


@pytest.mark.parametrize("option", sorted({name for names in OPTIONS.values() for name in names}))
def test_every_option_of_a_modbus_connection_is_documented(option: str) -> None:
    """It has a row in the table of options, alone or with its twin."""
    page = (ROOT / "edge_agent/protocols/README.md").read_text()
    assert re.search(rf"^\|[^|]*`{option}`[^|]*\| ", page, re.MULTILINE)


def test_the_first_command_stands_at_the_top() -> None:
    """A newcomer meets a line to run before line 20 of the README."""
    first = (ROOT / "README.md").read_text().splitlines()[:20]
    assert any(line.startswith("make ") for line in first)
