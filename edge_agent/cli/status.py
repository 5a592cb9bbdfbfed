"""`edge-agent status`: where is my data? One line, then each stage with count, age and lag."""

from __future__ import annotations

import argparse
import http.client
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlencode

import orjson
from rich.console import Console

from edge_agent.cli import tables
from edge_agent.cli.options import add_json
from edge_agent.cli.tables import clock
from edge_agent.command_line import print_json
from edge_agent.errors import ConfigError, TransientError
from edge_agent.settings import Settings
from edge_agent.text.reasons import reason_of
from edge_agent.text.selection import FORMS, UnknownNameError, selected

TIMEOUT_S = 5.0
MS = "milliseconds"
"""Of a clock that tells one request from the next."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_json(parser)
    parser.add_argument(
        "--frames",
        metavar="DEVICE",
        help=f"its last requests and replies, byte by byte: {FORMS}",
    )


def run(options: argparse.Namespace, settings: Settings) -> int:
    """Ask the running agent; exit code 1 if data does not flow."""
    address = settings.agent.http_address
    if address is None:
        raise ConfigError(
            "agent.http is off, so there is nobody to ask", hint="set agent.http, or --http"
        )
    if options.frames is not None:
        return _show_frames(address, options.frames, as_json=options.json)
    status = fetch(*address)
    if options.json:
        print_json(status)
    else:
        show(status, Console(highlight=False))
    return 0 if status["well"] else 1


def show(status: Mapping[str, Any], console: Console) -> None:
    """The verdict, problems and notices that are not in it, each stage and each device."""
    say = partial(console.print, markup=False, soft_wrap=True)
    verdict = status["verdict"]
    say(verdict, style="green" if status["well"] else "bold red")
    for word, style in (("problem", "red"), ("notice", "yellow")):
        for text in status[f"{word}s"]:
            if text not in verdict:
                say(f"{word}: {text}", style=style)
    tables.stages(status, None).show(console)
    tables.devices(status).show(console)


def _show_frames(address: tuple[str, int], device: str, *, as_json: bool) -> int:
    found = fetch(*address, f"/frames?{urlencode({'device': device})}")
    if "error" in found:
        near = _near(fetch(*address), device)
        hint = f"for example --frames {shlex.quote(near)}" if near else ""
        raise ConfigError(found["error"], hint=hint or "edge-agent status lists the devices")
    if as_json:
        print_json(found)
    else:
        for line in frame_lines(found["blocks"]):
            print(line)
    return 0


def _near(status: Mapping[str, Any], word: str) -> str:
    """A name of the running map like one that it has not got; empty where there is none.

    It is looked for here: among thousands of tags it takes a while, and an agent has other work.
    """
    keys = [
        (device["site"], device["device"], tag["tag"])
        for device in status.get("devices", ())
        for tag in device["tags"]
    ]
    try:
        selected(keys, [word], lambda key: key)
    except UnknownNameError as error:
        return error.near
    return ""


def frame_lines(blocks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What is kept of a device's traffic, for people."""
    for block in blocks:
        yield f"{block['conn']} {block['block']}: {', '.join(block['tags'])}"
        if not block["exchanges"]:
            yield "  nothing kept: not asked yet, or its protocol shows no frames"
        yield from _exchange_lines(block["exchanges"])
        for incident in block["incidents"]:
            yield f"  went bad at {clock(incident['ts_ms'], MS)}: {', '.join(incident['tags'])}"
            yield from _exchange_lines(incident["exchanges"], "    ")


def _exchange_lines(exchanges: Sequence[Mapping[str, Any]], indent: str = "  ") -> Iterator[str]:
    for one in exchanges:
        yield f"{indent}{clock(one['ts_ms'], MS)} {one['error'] or 'good'}"
        yield f"{indent}  sent     {one['request']}"
        yield f"{indent}  received {one['reply'] or 'nothing'}"


def fetch(host: str, port: int, path: str = "/status") -> dict[str, Any]:
    """What a running agent says. Raises ``TransientError`` if nobody answers."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        body = connection.getresponse().read()
        status: dict[str, Any] = orjson.loads(body)
    except (OSError, UnicodeError, http.client.HTTPException, orjson.JSONDecodeError) as error:
        raise TransientError(
            f"no agent answers on {host}:{port}: {reason_of(error)}",
            hint="is it running? systemctl status edge-agent; --http tells where to ask",
        ) from error
    finally:
        connection.close()
    return status
