"""Log lines: one each, in a form that people or programs read, and never a traceback."""

from __future__ import annotations

import json
import logging
import re
import sys

import pytest

from edge_agent import logs

log = logging.getLogger("edge_agent.test")


def fail() -> None:
    raise ValueError("line one\nline two")


def written(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert not out, "data goes to standard output, logs do not"
    return err.splitlines()


def test_a_line_is_key_value(capsys: pytest.CaptureFixture[str]) -> None:
    """UTC time with milliseconds, level and message."""
    logs.setup("keyvalue", "info")
    log.warning("mqtt: %s", "연결 실패")
    (line,) = written(capsys)
    assert re.fullmatch(
        r'ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00 level=warning msg="mqtt: 연결 실패"', line
    )


def test_nothing_breaks_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A device's answer can't forge a second line, a field, or a terminal's colours."""
    logs.setup("keyvalue", "info")
    log.info("%s", 'a\nb\rc\x1b[31md"e\\f\x85g\u2028h\x00')
    (line,) = written(capsys)
    assert line.endswith(r'''msg="a; b\x0dc\x1b[31md'e\\f\x85g\x2028h\x00"''')


def test_an_exception_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Kind, text and the place where it came from."""
    logs.setup("keyvalue", "info")
    try:
        fail()
    except ValueError:
        log.exception("task failed")
    (line,) = written(capsys)
    assert re.search(r'cause="ValueError: line one; line two \(test_logs\.py:\d+ in fail\)"$', line)


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line; text that is no text does not break it."""
    logs.setup("json", "debug")
    log.debug("file %s", "\udcff.csv")
    try:
        fail()
    except ValueError:
        log.exception("task failed")
    first, second = (json.loads(line) for line in written(capsys))
    assert (first["level"], first["logger"]) == ("debug", "edge_agent.test")
    assert first["msg"] == r"file \udcff.csv"
    assert second["cause"].startswith("ValueError: line one\nline two (test_logs.py:")


@pytest.mark.parametrize(
    ("log_format", "stream", "with_time"),
    [("auto", "8:1", False), ("auto", None, True), ("keyvalue", "8:1", True)],
)
def test_journald_writes_the_time_itself(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    log_format: str,
    stream: str | None,
    with_time: bool,
) -> None:
    """Under systemd a line has no time of its own, unless it is asked for."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if stream is not None:
        monkeypatch.setenv("JOURNAL_STREAM", stream)
    logs.setup(log_format, "info")
    log.info("hello")
    (line,) = written(capsys)
    assert line.startswith("ts=") == with_time


def test_levels_and_loud_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    """What is below the level stays away, and so do libraries whose errors we report ourselves."""
    logs.setup("keyvalue", "warning")
    log.info("no")
    logging.getLogger("pymodbus.logging").error("no")
    logging.getLogger("asyncio").error("no")
    log.error("yes")
    assert [line.rpartition("level=")[2] for line in written(capsys)] == ['error msg="yes"']


def test_setup_twice_writes_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The last one counts."""
    logs.setup("keyvalue", "info")
    logs.setup("json", "info")
    log.info("once")
    (line,) = written(capsys)
    assert json.loads(line)["msg"] == "once"
    assert logging.getLogger().handlers[0].stream is sys.stderr  # type: ignore[attr-defined]
