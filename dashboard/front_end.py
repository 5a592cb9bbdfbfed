"""What happens to Reflex's build on its way into the wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reflex.plugins import Plugin

from edge_agent.errors import ConfigError

PLACEHOLDER = "//origin.invalid"
"""The host of `api_url` in rxconfig.py; no name in .invalid ever exists (RFC 2606)."""


class OriginPlugin(Plugin):
    """Makes the pages talk to the host they came from.

    Reflex bakes the address of its backend into the bundle. Which address people type is not
    known when the wheel is built, so the baked one is replaced by the page's own origin.
    """

    def post_build(self, **context: Any) -> None:
        """Rewrite the one file that has the address. Raises ``ConfigError`` if it is not there."""
        static_dir: Path = context["static_dir"]
        found = [
            path
            for path in sorted(static_dir.rglob("*.js"))
            if PLACEHOLDER in path.read_text(encoding="utf-8")
        ]
        if len(found) != 1:
            raise ConfigError(
                f"{PLACEHOLDER} stands in {len(found)} files of the front end, not in one",
                hint="this version of Reflex bakes addresses in another way: see OriginPlugin",
            )
        (path,) = found
        path.write_text(_with_origin(path.read_text(encoding="utf-8")), encoding="utf-8")


def _with_origin(text: str) -> str:
    """``text`` with every address a page's own: `"ws://origin.invalid/x"` is read at run time."""
    for quote in ('"', "'", "`"):
        text = text.replace(
            f"{quote}http:{PLACEHOLDER}", f"globalThis.location.origin+{quote}"
        ).replace(
            f"{quote}ws:{PLACEHOLDER}",
            f'globalThis.location.origin.replace(/^http/,"ws")+{quote}',
        )
    if PLACEHOLDER in text:
        raise ConfigError(f"{PLACEHOLDER} stands in the front end in a form that is not known")
    return text
