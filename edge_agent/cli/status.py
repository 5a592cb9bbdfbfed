"""`edge-agent status`: where is my data? One line, then each stage with count, age and lag."""

from __future__ import annotations

import argparse
import http.client
from typing import Any

import orjson
from rich.console import Console

from edge_agent.cli import tables
from edge_agent.errors import ConfigError, TransientError
from edge_agent.settings import Settings

TIMEOUT_S = 5.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--json", action="store_true", help="everything, for programs")


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Ask the running agent; exit code 1 if data does not flow."""
    address = settings.agent.http_address
    if address is None:
        raise ConfigError("agent.http is off, so there is nobody to ask", hint="set agent.http")
    status = fetch(*address)
    if options.json:
        print(orjson.dumps(status, option=orjson.OPT_INDENT_2).decode())
    else:
        console = Console(highlight=False)
        console.print(status["verdict"], style="green" if status["well"] else "bold red")
        for problem in status["problems"]:
            console.print(f"problem: {problem}", style="red", markup=False)
        console.print(tables.stages(status, None))
        console.print(tables.devices(status))
    return 0 if status["well"] else 1


def fetch(host: str, port: int) -> dict[str, Any]:
    """A running agent's status. Raises ``TransientError`` if nobody answers."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/status")
        body = connection.getresponse().read()
        status: dict[str, Any] = orjson.loads(body)
    except (OSError, UnicodeError, http.client.HTTPException, orjson.JSONDecodeError) as error:
        raise TransientError(
            f"no agent answers on {host}:{port}: {error}",
            hint="is it running? systemctl status edge-agent; --http tells where to ask",
        ) from error
    finally:
        connection.close()
    return status
