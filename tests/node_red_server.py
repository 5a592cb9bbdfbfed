"""Node-RED with a flow, as a process: headless, with a user folder of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.npm import NODE, install
from tests.servers import Server

PACKAGES = Path(__file__).parent / "node_red"
"""Node-RED and node-red-contrib-modbus by a committed lock.

node-red-contrib-modbus wants a fork of modbus-serial that no registry has; the lock puts the
original in its place.
"""


class NodeRed(Server):
    """It runs a flow file from its start on."""

    def __init__(self, folder: Path, flow: Path) -> None:
        super().__init__(folder)
        self.flow = flow

    def command(self) -> Sequence[str]:
        user_folder = self.folder / "user"
        user_folder.mkdir(exist_ok=True)
        (user_folder / "flows.json").write_bytes(self.flow.read_bytes())
        settings = {
            "uiHost": "127.0.0.1",
            "uiPort": self.port,
            "userDir": str(user_folder),
            "flowFile": "flows.json",
            "credentialSecret": False,
            "disableEditor": True,
            "telemetry": {"enabled": False, "updateNotification": False},
            "logging": {"console": {"level": "info", "metrics": False, "audit": False}},
        }
        path = self.folder / "settings.js"
        path.write_text(f"module.exports = {json.dumps(settings)}")
        red = PACKAGES / "node_modules" / "node-red" / "red.js"
        return [str(NODE), str(red), "--settings", str(path), "--userDir", str(user_folder)]

    def ready(self) -> bool:
        """It listens before its flow runs."""
        return "Started flows" in self.log()

    def log(self) -> str:
        """Everything that it has said."""
        return (self.folder / "server.log").read_text(errors="replace")

    def start(self) -> Self:
        """Install its packages where they are missing, and start."""
        install(PACKAGES)
        return super().start()
