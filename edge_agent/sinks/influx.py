"""InfluxDB 2 (and whatever else takes its writes): line protocol over HTTP.

Guarantee: at least once. A sample is identified by its series and its time in milliseconds, and
writing it again overwrites it with itself, so in effect exactly once.

A refused request says little about which of its lines was bad, and how much of the rest was
stored differs between InfluxDB's versions. So the lines are found by halving the request: each
half is written again, which costs nothing but time, until the bad lines stand alone.
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

import orjson
from aiohttp import ClientError, ClientTimeout
from influxdb_client.client.influxdb_client_async import InfluxDBClientAsync
from influxdb_client.rest import ApiException

from edge_agent.errors import RejectedRow, RejectedRows, TransientError
from edge_agent.model import Batch, Series
from edge_agent.sinks.base import JournalIdentity
from edge_agent.sinks.per_series import PerSeries

LINES_PER_REQUEST_MAX = 5_000
"""InfluxData's recommended request size; larger ones gain nothing."""

BODY_BYTES_MAX = 1_000_000
"""Below nginx's default body limit and below 1 MiB, where aiohttp warns of a blocked loop."""

BODY_BYTES_MIN = 10_000
"""The limit that 413 answers teach never falls below this; a line is about 100 bytes."""

ISOLATION_REQUESTS_MAX = 1_000
"""Requests spent on finding the bad lines of one request; about 70 scattered lines in 5,000."""

REASON_CHARS_MAX = 300
"""A server may quote a whole line in its answer; the reason stands in a table beside each row."""

# Control characters have no escape in line protocol. Their Unicode pictures keep names apart.
_CONTROLS: Final = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
_MEASUREMENT: Final = _CONTROLS | {ord(","): r"\,", ord(" "): r"\ "}
_LABEL: Final = _MEASUREMENT | {ord("="): r"\="}

# A message like one of these is about lines; any other 400 may be about the request as a whole.
_ABOUT_LINES: Final = re.compile(
    r"partial write|unable to parse|field type|retention policy|schema|\bline \d|line protocol",
    re.IGNORECASE,
)
# Counts what was not stored, at least: shards are written in parallel and one of them answers.
_DROPPED: Final = re.compile(r"\bdropped=(\d+)\b")


class InfluxSink:
    """Writes samples as `measurement,labels value=... time`, one label per part of the series."""

    name = "influx"

    def __init__(
        self,
        *,
        url: str,
        token: str,
        org: str,
        bucket: str,
        measurement: str = "plc",
        timeout_s: float = 10.0,
    ) -> None:
        """Take the settings (`InfluxSettings` has checked them); no I/O."""
        self._url = url.rstrip("/")
        self._token = token
        self._org, self._bucket = org, bucket
        self._measurement = _escape(measurement, _MEASUREMENT)
        self._timeout_s = timeout_s
        self._body_bytes_max = BODY_BYTES_MAX
        self._client: InfluxDBClientAsync | None = None
        self._heads = self._no_heads()

    def __repr__(self) -> str:
        return f"InfluxSink(url={self._url!r}, org={self._org!r}, bucket={self._bucket!r})"

    async def open(self, journal: JournalIdentity) -> None:  # noqa: ARG002  (the interface's)
        """Connect, and check token, organization and bucket by a write of no lines."""
        await self.close()
        self._heads = self._no_heads()  # another journal may give its series other ids
        self._client = InfluxDBClientAsync(
            url=self._url,
            token=self._token,
            org=self._org,
            timeout=ClientTimeout(total=self._timeout_s),
            connection_pool_maxsize=1,
            # aiohttp turns a redirected POST into a GET, which would look like a success.
            allow_redirects=False,
        )
        try:
            # InfluxDB 2 looks at the body last: it refuses an empty one only if all else is right.
            await self._post(b"")
        except BaseException:
            await self.close()
            raise

    async def deliver(self, batches: Sequence[Batch]) -> int:
        """Write all samples; see `Sink`. InfluxDB doesn't tell what it already had: always 0."""
        rendered = _Rendered()
        for batch in batches:
            rendered.append(batch, self._heads.lookup(batch.series_ids, batch.series))
        reasons: dict[int, str] = {}
        for start in range(0, len(rendered.lines), LINES_PER_REQUEST_MAX):
            stop = min(start + LINES_PER_REQUEST_MAX, len(rendered.lines))
            reasons |= await self._write(rendered, range(start, stop))
        if reasons:
            raise RejectedRows(
                [RejectedRow(*rendered.origin(i), reasons[i]) for i in sorted(reasons)]
            )
        return 0

    def _no_heads(self) -> PerSeries:
        return PerSeries(partial(render_head, self._measurement))

    async def close(self) -> None:
        """Release the connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()  # type: ignore[no-untyped-call]  # the library's

    async def _write(self, rendered: _Rendered, positions: Sequence[int]) -> dict[int, str]:
        """Write these lines; returns the reason for each one that was refused for good."""
        lines = rendered.lines
        reasons: dict[int, str] = {}
        any_accepted = any_about_lines = False
        pending = [positions]
        requests_left = ISOLATION_REQUESTS_MAX
        while pending:
            part = pending.pop()
            body = b"".join([lines[i] for i in part])
            if len(body) > self._body_bytes_max and len(part) > 1:
                pending += reversed(_halves(part))
                continue
            refusal = await self._post(body)
            requests_left -= 1
            if refusal is None:
                any_accepted = True
                continue
            any_about_lines |= refusal.about_lines
            if refusal.too_large:
                smaller = min(self._body_bytes_max, len(body)) // 2
                self._body_bytes_max = max(BODY_BYTES_MIN, smaller)
            if len(part) == 1 or refusal.dropped_count >= len(part):
                reasons |= dict.fromkeys(part, refusal.reason)
            elif refusal.too_large:
                pending += reversed(_halves(part))
            elif requests_left <= 0:
                reason = f"one or more of {len(part)} lines, not told apart: {refusal.reason}"
                reasons |= dict.fromkeys(part, reason)
            else:
                # What is wrong with one sample is often wrong with its series: keep them together.
                pending += reversed(_halves(sorted(part, key=rendered.series_ids.__getitem__)))
        if reasons and not any_accepted and not any_about_lines:
            # Nothing but refusals, none of them about a line: to quarantine all would be a loss.
            raise TransientError(
                f"{self._url} refuses every write: {next(iter(reasons.values()))}",
                hint=f"check [influx] org ({self._org!r}) and bucket ({self._bucket!r})",
            )
        return reasons

    async def _post(self, body: bytes) -> _Refusal | None:
        """Make one write request; returns why its content was refused, or None if it was taken."""
        if self._client is None:
            raise TransientError("influx sink is not open")
        try:
            taken = await self._client.write_api().write(
                bucket=self._bucket,
                org=self._org,
                record=body,
                write_precision="ms",  # type: ignore[arg-type]  # the library's own are str too
            )
        except ApiException as error:
            refusal = _refusal(error)
            if refusal is None:
                raise self._transient(error) from error
            return refusal
        except TimeoutError as error:
            raise TransientError(
                f"{self._url}: no answer to a write within {self._timeout_s:g} s"
            ) from error
        except ClientError as error:
            raise TransientError(f"{self._url}: {str(error) or type(error).__name__}") from error
        if not taken:
            raise TransientError(
                f"{self._url}: the answer to a write is not InfluxDB's (204 expected)",
                hint="check [influx] url: it must lead to InfluxDB itself",
            )
        return None

    def _transient(self, error: ApiException) -> TransientError:
        text = f"{self._url} answered {error.status}: {_message(error)}"
        if error.retry_after:  # seconds, or a date
            text += f" (Retry-After: {str(error.retry_after)[:REASON_CHARS_MAX]})"
        hints = {
            401: "check [influx] token (or token_file)",
            403: f"the token of [influx] must be allowed to write to bucket {self._bucket!r}",
            404: f"check [influx] url, org ({self._org!r}) and bucket ({self._bucket!r})",
        }
        if error.status in range(300, 400):
            return TransientError(text, hint="check [influx] url: redirects are not followed")
        return TransientError(text, hint=hints.get(error.status, ""))


def render_head(measurement: str, series: Series) -> bytes:
    """A series' constant part of a line, up to the value; ``measurement`` is already escaped.

    Labels come sorted by name, as InfluxDB stores them; it allows no empty label, so such a one is
    left out.
    """
    labels = sorted(series._asdict().items())
    parts = [f"{name}={_escape(value, _LABEL)}" for name, value in labels if value]
    return (",".join([measurement, *parts]) + " value=").encode()


def _escape(name: str, table: Mapping[int, str]) -> str:
    escaped = name.translate(table)
    # A backslash at the end would escape the separator that follows; there is no escape for it.
    return escaped[:-1] + "\N{FULLWIDTH REVERSE SOLIDUS}" if escaped.endswith("\\") else escaped


class _Rendered:
    """The lines of some batches in one list, and where each came from."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.series_ids: array[int] = array("I")
        self._sequences: list[int] = []
        self._starts: list[int] = []

    def append(self, batch: Batch, heads: Sequence[bytes]) -> None:
        """Render a batch; ``heads`` are its samples' own."""
        self._sequences.append(batch.sequence)
        self._starts.append(len(self.lines))
        self.series_ids.extend(batch.series_ids)
        # One call formats all values, with as many digits as each needs and no more.
        values = orjson.dumps(batch.values.tolist())[1:-1].split(b",")
        pairs = zip(heads, values, strict=False)
        for ts_ms, count in batch.runs:
            tail = b" %d\n" % ts_ms
            self.lines += [head + value + tail for head, value in islice(pairs, count)]

    def origin(self, position: int) -> tuple[int, int]:
        """Sequence of the batch and index in it."""
        batch = bisect_right(self._starts, position) - 1
        return self._sequences[batch], position - self._starts[batch]


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The server's word that a request's content can't be stored, now or later."""

    reason: str
    about_lines: bool
    dropped_count: int
    too_large: bool


def _refusal(error: ApiException) -> _Refusal | None:
    """What an answer says about the lines, or None if it is about something else."""
    message = _message(error)
    if error.status == 413:
        return _Refusal(message, about_lines=True, dropped_count=0, too_large=True)
    if error.status not in (400, 422):
        return None
    # A text that doesn't parse is quoted in the message, so no count can be read from it.
    counts = [] if "unable to parse" in message else _DROPPED.findall(message)
    return _Refusal(
        reason=message,
        about_lines=_ABOUT_LINES.search(message) is not None,
        dropped_count=int(counts[-1]) if counts else 0,
        too_large=False,
    )


def _message(error: ApiException) -> str:
    """The server's own words: InfluxDB 2 says `message`, 1 and 3 say `error`, 3 also which line."""
    text = (error.body or b"").decode(errors="replace")
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        text = str(answer.get("message") or answer.get("error") or text)
        details = answer.get("data")
        if isinstance(details, list) and details and isinstance(details[0], dict):
            text = f"{text}: {details[0].get('error_message', '')}"
    text = " ".join(text.split()) or str(error.reason)
    if len(text) > REASON_CHARS_MAX:  # what is wrong stands at the end, behind the quoted line
        half = REASON_CHARS_MAX // 2
        text = f"{text[:half]} ... {text[-half:]}"
    return text


def _halves(part: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    middle = len(part) // 2
    return part[:middle], part[middle:]
