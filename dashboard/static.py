"""The built front end, served from memory.

It is a megabyte. What was found at the start is all there is: no request can name another file,
and the disk is not touched again. Each file has an ETag of its content. Names that carry a hash
are kept by browsers for a year, everything else is asked for again and mostly answered with 304.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dashboard.auth.headers import inline_hashes, policy
from edge_agent.errors import ConfigError

WEB = Path(__file__).parent / "web"
"""Where `dashboard.build` puts the front end, and the wheel has it."""
YEAR_S = 31_536_000
HASHED = "/assets/"
"""Vite puts a hash of the content into every name in there."""
TYPES = {".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class File:
    """One file, as it is in the build or as its gzip'ed twin, and the headers of both.

    Browsers take the twin; who does not gets it unpacked, so that nothing is kept twice.
    """

    body: bytes
    is_packed: bool
    headers: Mapping[str, str]


class FrontEnd:
    """An ASGI app for GET and HEAD of the files in a folder; `/x/` is `x/index.html`."""

    def __init__(self, folder: Path) -> None:
        """Read all of it. Raises ``ConfigError`` if it was not built."""
        if not (folder / "index.html").is_file():
            raise ConfigError(
                f"the front end is not in {folder}",
                hint="from a checkout: make dashboard; a wheel brings it",
            )
        self._files: dict[str, File] = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix != ".gz":
                name = f"/{path.relative_to(folder).as_posix()}"
                self._files[name.removesuffix("index.html")] = _read(name, path)
        self._missing = self._files["/404.html"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["method"] not in ("GET", "HEAD"):
            response = Response("only GET is possible here\n", 405, {"Allow": "GET, HEAD"})
            return await response(scope, receive, send)
        path = scope["path"]
        file = self._files.get(path)
        if file is None and f"{path}/" in self._files:
            query = scope["query_string"].decode("latin-1")
            where = f"{path}/?{query}" if query else f"{path}/"
            return await Response(None, 308, {"Location": where})(scope, receive, send)
        response = _response(file or self._missing, dict(scope["headers"]))
        if file is None:
            response.status_code = 404
        return await response(scope, receive, send)


def _read(name: str, path: Path) -> File:
    body = path.read_bytes()
    twin = path.with_name(f"{path.name}.gz")
    kept = f"private, max-age={YEAR_S}, immutable" if name.startswith(HASHED) else "no-cache"
    kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    if kind == "text/html":
        kind = "text/html; charset=utf-8"
    headers = {
        "Content-Type": kind or "application/octet-stream",
        "Cache-Control": kept,
        "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        "Vary": "Accept-Encoding",
    }
    if path.suffix == ".html":
        headers["Content-Security-Policy"] = policy(*inline_hashes(body))
    is_packed = twin.is_file()
    return File(twin.read_bytes() if is_packed else body, is_packed, headers)


def _response(file: File, asked: Mapping[bytes, bytes]) -> Response:
    headers = dict(file.headers)
    if asked.get(b"if-none-match", b"").decode("latin-1") == headers["ETag"]:
        return Response(None, 304, headers)
    if not file.is_packed:
        return Response(file.body, 200, headers)
    if b"gzip" in asked.get(b"accept-encoding", b""):
        return Response(file.body, 200, headers | {"Content-Encoding": "gzip"})
    return Response(gzip.decompress(file.body), 200, headers)
