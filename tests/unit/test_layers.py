"""Imports point downwards, and heavy libraries stay where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "edge_agent"
REMOTE = ROOT / "remote"
DASHBOARD = ROOT / "dashboard"

# From the top downwards: a module may import its own layer's package mates and what is below.
# Names that share a line are siblings and do not import each other.
LAYERS = (
    ("cli",),
    ("agent",),
    ("control",),
    ("status",),
    ("pipeline",),
    ("reload",),
    ("simulator", "generate", "startup"),
    ("journal", "protocols", "quality", "sinks"),
    ("store",),
    ("postgres", "probe", "importers"),
    ("codec", "forecast"),
    ("bus_load", "web"),
    ("planner", "normalize", "schedule", "metrics", "logs", "notify", "prometheus"),
    ("address_map", "cards_file", "settings"),
    ("settings_sources", "model", "command_line", "text", "control_client", "output_file"),
    ("clock", "errors", "files", "heap", "progress_bar", "sqlite", "supervisor", "waiting"),
)
REMOTE_LAYERS = (
    ("__main__",),
    ("cli",),
    ("setup", "teardown", "status", "serve", "resync"),
    ("backfill", "gap"),
    ("reconcile", "exposition"),
    ("comparison", "state"),
    ("history", "checks"),
    ("copying", "subscription", "sums"),
    ("steps", "login", "portions"),
    ("ends", "hours"),
    ("waiting",),
)
"""The same for `edge-remote`; the commands stand above what they share."""
DASHBOARD_LAYERS = (
    ("__main__",),
    ("cli",),
    ("serve",),
    ("api", "build"),
    ("services", "app", "static", "map_routes"),
    ("live", "pages", "export", "rxconfig", "maps", "answers"),
    ("chart", "components"),
    ("data", "state", "front_end", "map_korean", "korean"),
    ("current",),
    ("auth",),
)
"""The same for `edge-dashboard`."""
FOR_DASHBOARD = {
    "__version__",
    "address_map",
    "cards_file",
    "clock",
    "command_line",
    "control_client",
    "errors",
    "files",
    "heap",
    "logs",
    "model",
    "notify",
    "postgres.columns",
    "postgres.connection",
    "postgres.health",
    "postgres.sql_files",
    "settings",
    "store",
    "supervisor",
    "text.catalogue",
    "text.counts",
    "text.korean",
    "text.yaml_text",
}
"""What `dashboard` may use of `edge_agent`: nothing of the pipeline; to write, only `files`."""
FOR_REMOTE = {
    "__version__",
    "address_map",
    "command_line",
    "errors",
    "logs",
    "model",
    "notify",
    "postgres",
    "progress_bar",
    "prometheus",
    "settings",
    "web",
}
"""What `remote` may use of `edge_agent`; of a package all, or the module that is named."""
HEAVY = {
    "aiomqtt": {"protocols/mqtt_link.py"},
    "paho": {"protocols/mqtt_link.py"},
    "pymodbus": {"protocols/modbus.py"},
    "asyncpg": {"postgres/connection.py", "postgres/database.py", "sinks/postgres.py"},
    "influxdb_client": {"sinks/influx.py"},
    "mqtt5": {"sinks/mqtt.py", "sinks/mqtt_publisher.py"},
    "openpyxl": {"address_map/workbook.py"},
    "asyncua": {
        "protocols/opcua.py",
        "protocols/opcua_client.py",
        "protocols/opcua_link.py",
        "protocols/opcua_wire.py",
        "protocols/opcua_browse.py",
        "simulator/opcua_listener.py",
        "simulator/opcua_values.py",
    },
    "jinja2": {"generate/templating.py"},
    "ruamel": {"generate/merge.py", "text/yaml_text.py"},
    "serial": {"protocols/modbus_serial.py", "simulator/serial_line.py"},
    "snap7": {"protocols/s7.py"},
    "prometheus_client": {"prometheus.py", "status/exposition.py"},
}


def modules(package: Path = PACKAGE) -> Iterator[tuple[str, str, ast.Module]]:
    """Path within the package, top-level name, and syntax tree of every module."""
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        if inside.parts[0].startswith("."):
            continue  # the front end's workshop
        yield str(inside), inside.parts[0].removesuffix(".py"), ast.parse(path.read_text())


def imports_of(tree: ast.Module) -> Iterator[str]:
    """Every module that is imported anywhere in a file, in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in ("edge_agent", "remote", "dashboard"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


def users_of(library: str) -> set[str]:
    """The modules that import a library, or a part of it."""
    return {
        path
        for path, _, tree in modules()
        if library in {imported.partition(".")[0] for imported in imports_of(tree)}
    }


def rank(name: str, layers: Sequence[Sequence[str]] = LAYERS) -> int:
    """A name's layer, counted from the top."""
    return next(number for number, layer in enumerate(layers) if name in layer)


def test_every_module_has_a_layer() -> None:
    """A new top-level module says where it belongs."""
    known = {name for layer in LAYERS for name in layer}
    assert {name for _, name, _ in modules()} - {"__init__"} == known


def test_imports_point_downwards() -> None:
    """No module imports a sibling or anything above it."""
    wrong = []
    for path, name, tree in modules():
        for imported in imports_of(tree):
            parts = imported.split(".")
            if parts[0] != "edge_agent" or len(parts) < 2 or parts[1] in (name, "__version__"):
                continue
            if name == "__init__":
                continue
            if rank(parts[1]) <= rank(name):
                wrong.append(f"{path} imports {imported}")
    assert not wrong


@pytest.mark.parametrize("package", [REMOTE, DASHBOARD], ids=lambda path: path.name)
def test_the_other_packages_have_layers_too(package: Path) -> None:
    """Every module has its place, and imports what is below it."""
    layers = {REMOTE: REMOTE_LAYERS, DASHBOARD: DASHBOARD_LAYERS}[package]
    assert {name for _, name, _ in modules(package)} - {"__init__"} == {
        name for layer in layers for name in layer
    }
    wrong = [
        f"{path} imports {imported}"
        for path, name, tree in modules(package)
        for imported in imports_of(tree)
        if imported.startswith(f"{package.name}.")
        and (inside := imported.split(".")[1]) != name
        and rank(inside, layers) <= rank(name, layers)
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("package", "allowed"),
    [(REMOTE, FOR_REMOTE), (DASHBOARD, FOR_DASHBOARD)],
    ids=["remote", "dashboard"],
)
def test_the_other_packages_use_little_of_the_agent(package: Path, allowed: set[str]) -> None:
    """Nothing of the pipeline: no driver, no sink, no journal."""
    used = {
        imported.removeprefix("edge_agent.")
        for _, _, tree in modules(package)
        for imported in imports_of(tree)
        if imported.startswith("edge_agent.")
    }
    assert not {name for name in used if not any(_is_in(name, one) for one in allowed)}


def _is_in(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


@pytest.mark.parametrize("outside", ["dashboard", "remote", "tests", "bench"])
def test_the_agent_imports_nobody_outside(outside: str) -> None:
    """The package stands alone."""
    assert not [
        path
        for path, _, tree in modules()
        if outside in {i.split(".")[0] for i in imports_of(tree)}
    ]


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_heavy_libraries_have_a_border(library: str) -> None:
    """Each is imported only by the modules that translate its errors."""
    assert users_of(library) <= HEAVY[library]


def test_the_remote_command_line_starts_without_heavy_libraries() -> None:
    """`edge-remote --help` loads neither a database driver nor an HTTP server."""
    assert not loaded_by("remote.cli") & {"asyncpg", "aiohttp", "rich", "prometheus_client"}


def test_the_command_line_starts_without_heavy_libraries() -> None:
    """`edge-agent --help` and `edge-agent status` load no driver and no sink."""
    loaded = loaded_by("edge_agent.cli.main")
    heavy = {"pymodbus", "asyncpg", "influxdb_client", "mqtt5", "openpyxl", "aiohttp", "snap7"}
    heavy |= {"asyncua", "aiomqtt"}
    assert not loaded & heavy


def test_a_journal_is_looked_at_without_the_agent() -> None:
    """`edge-agent journal` loads no web server and no metrics."""
    assert not loaded_by("edge_agent.cli.journal") & {"aiohttp", "prometheus_client", "asyncpg"}


def test_simulated_modbus_does_without_opc_ua() -> None:
    """Each protocol's simulator is loaded by name when a map has rows of it."""
    assert not loaded_by("edge_agent.simulator.__main__") & {"asyncua", "pymodbus", "snap7"}


def loaded_by(module: str) -> set[str]:
    """Everything, by top-level name, that is in memory once a module is imported."""
    program = f"import sys, {module}; print(*sorted(sys.modules))"
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout
    return {name.split(".")[0] for name in output.split()}
