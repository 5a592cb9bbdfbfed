"""Logs on standard error: key=value lines for people, JSON for machines. Never a traceback."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime

import orjson

QUIET = ("pymodbus", "aiohttp", "asyncio", "influxdb_client", "Rx", "urllib3")
"""Libraries that log what their caller reports anyway."""


def setup(log_format: str, level: str) -> None:
    """Send the program's log to standard error.

    ``log_format`` is "keyvalue", "json" or "auto"; auto leaves the time to journald where that
    reads the stream, and writes it otherwise.
    """
    handler = logging.StreamHandler(sys.stderr)
    with_time = log_format != "auto" or "JOURNAL_STREAM" not in os.environ
    handler.setFormatter(_Json() if log_format == "json" else _KeyValue(with_time=with_time))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _time_text(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _cause(record: logging.LogRecord) -> str | None:
    """An exception in one line; where it came from only if someone debugs."""
    if not record.exc_info or record.exc_info[1] is None:
        return None
    error = record.exc_info[1]
    text = f"{type(error).__name__}: {error}"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is not None:
        code = trace.tb_frame.f_code
        text += f" ({code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} in {code.co_name})"
    return text


class _KeyValue(logging.Formatter):
    def __init__(self, *, with_time: bool) -> None:
        super().__init__()
        self._with_time = with_time

    def format(self, record: logging.LogRecord) -> str:
        time = f"ts={_time_text(record)} " if self._with_time else ""
        line = f"{time}level={record.levelname.lower()} msg={_quoted(record.getMessage())}"
        cause = _cause(record)
        return f"{line} cause={_quoted(cause)}" if cause else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "ts": _time_text(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        cause = _cause(record)
        if cause:
            fields["cause"] = cause
        # A file name may hold bytes that are no text; orjson refuses those.
        safe = {
            name: text.encode(errors="backslashreplace").decode() for name, text in fields.items()
        }
        return orjson.dumps(safe).decode()


def _quoted(text: str) -> str:
    """One line, in quotes. Control characters are shown, not sent to a terminal."""
    return '"' + text.translate(_SHOWN) + '"'


_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
_SHOWN = {code: f"\\x{code:02x}" for code in _CONTROLS} | {
    ord("\n"): "; ",
    ord('"'): "'",
    ord("\\"): r"\\",
}
