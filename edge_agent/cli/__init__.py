"""The command `edge-agent`. `main.py` knows the commands, the other modules are one each."""

from edge_agent.cli.main import main

__all__ = ["main"]
