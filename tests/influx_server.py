"""InfluxDB for tests: parser and storage of Debian's InfluxDB 1 behind InfluxDB 2's write API."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.servers import Server, answers, free_port

REQUEST_TIMEOUT_S = 20.0

CONFIG = """
reporting-disabled = true
bind-address = "127.0.0.1:{rpc_port}"
[meta]
dir = "{folder}/meta"
[data]
dir = "{folder}/data"
wal-dir = "{folder}/wal"
query-log-enabled = false
max-values-per-tag = {values_per_tag_max}
[monitor]
store-enabled = false
[http]
bind-address = "127.0.0.1:{port}"
log-enabled = false
max-body-size = {body_bytes_max}
"""


class Influxd(Server):
    """Debian's InfluxDB 1."""

    def __init__(self, folder: Path, *, body_bytes_max: int, values_per_tag_max: int) -> None:
        super().__init__(folder)
        self.rpc_port = free_port()
        self.body_bytes_max = body_bytes_max
        self.values_per_tag_max = values_per_tag_max

    def command(self) -> Sequence[str]:
        path = self.folder / "influxdb.conf"
        path.write_text(CONFIG.format_map(vars(self)))
        binary = shutil.which("influxd")
        if binary is None:
            raise RuntimeError("influxd is not installed; run `make test` once, it installs it")
        return [binary, "-config", str(path)]

    def ready(self) -> bool:
        return answers(self.port)


class Influx(Server):
    """What an InfluxDB 2 with one bucket looks like from outside; `pid` is the API's process."""

    def __init__(
        self, folder: Path, *, body_bytes_max: int = 25_000_000, values_per_tag_max: int = 0
    ) -> None:
        super().__init__(folder)
        self.backend = Influxd(
            folder / "influxd",
            body_bytes_max=body_bytes_max,
            values_per_tag_max=values_per_tag_max,
        )
        self.token = "token-of-the-test"
        self.org = "plant"
        self.bucket = "edge"

    @property
    def url(self) -> str:
        """Address for the agent's settings."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def backend_url(self) -> str:
        """Address of the InfluxDB 1 behind, for queries."""
        return f"http://127.0.0.1:{self.backend.port}"

    def command(self) -> Sequence[str]:
        shim = Path(__file__).with_name("influx_shim.py")
        options = ["--port", str(self.port), "--backend", self.backend_url,
                   "--token", self.token, "--org", self.org]  # fmt: skip
        return [sys.executable, str(shim), *options]

    def start(self) -> Self:
        """Start both; the bucket exists afterwards."""
        self.backend.start()
        self.execute(f'CREATE DATABASE "{self.bucket}"')
        return super().start()

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End both and wait."""
        super().stop(sig)
        self.backend.stop(sig)

    def execute(self, statement: str) -> list[dict[str, Any]]:
        """Run one InfluxQL statement; its series, as InfluxDB returns them."""
        query = urllib.parse.urlencode({"q": statement, "db": self.bucket, "epoch": "ms"})
        answer = json.loads(self._call(f"{self.backend_url}/query", query.encode()))
        result = answer["results"][0]
        if "error" in result:
            raise RuntimeError(f"{statement}: {result['error']}")
        series: list[dict[str, Any]] = result.get("series", [])
        return series

    def query(self, q: str) -> list[dict[str, Any]]:
        """Rows of a SELECT, each a dict of column to value; labels of a GROUP BY included."""
        return [
            {**series.get("tags", {}), **dict(zip(series["columns"], row, strict=True))}
            for series in self.execute(q)
            for row in series["values"]
        ]

    def write_lines(self, lines: str) -> None:
        """Write line protocol behind the agent's back, times in milliseconds."""
        query = urllib.parse.urlencode({"db": self.bucket, "precision": "ms"})
        self._call(f"{self.backend_url}/write?{query}", lines.encode())

    def refuse(
        self, status: int, message: str, headers: Mapping[str, str] | None = None, times: int = 1
    ) -> None:
        """Let the next `times` writes fail as a proxy or a rate limiter in front would."""
        wish = {"status": status, "message": message, "headers": headers or {}, "times": times}
        self._call(f"{self.url}/shim/refuse", json.dumps(wish).encode())

    def writes(self) -> int:
        """How many write requests have come since the start."""
        return int(self._call(f"{self.url}/shim/writes"))

    @staticmethod
    def _call(url: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(url, data=body)
        if body is not None:
            request.add_header("Content-Type", "application/x-www-form-urlencoded")
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as response:
            answer: bytes = response.read()
        return answer
