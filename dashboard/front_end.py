"""What happens to Reflex's build on its way into the wheel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from reflex.plugins import Plugin

from edge_agent.errors import ConfigError

PLACEHOLDER = "//origin.invalid"
"""The host of `api_url` in rxconfig.py; no name in .invalid ever exists (RFC 2606)."""

PAINTED = """
await globalThis.firstSnapshot?.message;
await new Promise((painted) => {
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(painted)));
  setTimeout(painted, 1000);
});
"""
"""Cards are made as soon as the first snapshot is here. A page in the background never paints."""
_PRELOAD = re.compile(r'<link rel="modulepreload"[^>]*>')
_START = re.compile(r'(<script type="module"[^>]*>)(import ".*?)(</script>)', re.DOTALL)
_IMPORT = re.compile(r'^\s*import (?:\* as (\w+) from )?(".*?");', re.MULTILINE)


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


class LaterPlugin(Plugin):
    """Makes React start when what the page is opened for has been painted.

    A browser compiles the modules of a page before it runs a line of it: of the time to the first
    card a third was spent on React, which only takes over the links and small choices.
    """

    def post_build(self, **context: Any) -> None:
        """Rewrite all pages. Raises ``ConfigError`` for one that starts in another way."""
        static_dir: Path = context["static_dir"]
        for path in sorted(static_dir.rglob("*.html")):
            text = _PRELOAD.sub("", path.read_text(encoding="utf-8"))
            text, starts = _START.subn(_start_later, text)
            if starts != 1 or 'import "' in text or ' from "' in text:
                raise ConfigError(
                    f"{path.name} starts React in a way that is not known",
                    hint="this version of React Router writes other pages: see LaterPlugin",
                )
            path.write_text(text, encoding="utf-8")


def _start_later(found: re.Match[str]) -> str:
    """The script that starts React, its imports made at run time, after the first paint."""
    opening, script, closing = found.groups()

    def at_run_time(one: re.Match[str]) -> str:
        name, path = one.groups()
        return f"{f'const {name} = ' if name else ''}await import({path});"

    return f"{opening}{PAINTED}{_IMPORT.sub(at_run_time, script)}{closing}"
