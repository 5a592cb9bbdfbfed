"""The parts of `edge-remote` that need no server: addresses, verifiers, verdicts, printed steps."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import make_mocked_request
from pydantic import SecretStr
from rich.console import Console

from edge_agent.errors import ConfigError
from edge_agent.postgres.health import HealthCheck
from edge_agent.settings import RemoteSettings, Settings
from remote.ends import clock_problem
from remote.exposition import exposition
from remote.login import masked, password_in, scram_verifier, subscription_address, verifies
from remote.serve import Service
from remote.state import ReplicationStatus, judged
from remote.status import line, show

NOW = datetime(2025, 8, 17, 12, tzinfo=UTC)


def settings(edge_dsn: str, subscription_dsn: str | None = None) -> RemoteSettings:
    return RemoteSettings(
        edge_dsn=SecretStr(edge_dsn),
        subscription_dsn=SecretStr(subscription_dsn) if subscription_dsn else None,
    )


@pytest.mark.parametrize(
    ("edge_dsn", "subscription_dsn", "expected"),
    [
        (
            "postgresql://boss:pw@pi:5433/plc?sslmode=verify-full&sslrootcert=/ca.crt",
            None,
            "postgresql://rep:p%2Fw@pi:5433/plc?sslmode=verify-full&sslrootcert=%2Fca.crt&",
        ),
        (
            "postgresql://boss@localhost/plc?search_path=x",
            "postgresql://[fd00::2]:5432/plc?sslmode=require",
            "postgresql://rep:p%2Fw@[fd00::2]:5432/plc?sslmode=require&",
        ),
        (
            "postgresql://boss@a,b/plc?search_path=x",
            None,
            "postgresql://rep:p%2Fw@a,b/plc?",
        ),
    ],
)
def test_the_subscriptions_address(
    edge_dsn: str, subscription_dsn: str | None, expected: str
) -> None:
    """Host, database and TLS of the setting, the login of its own, and nothing libpq refuses."""
    found = subscription_address(settings(edge_dsn, subscription_dsn), "rep", "p/w")
    assert found.startswith(expected + "connect_timeout=10&")
    assert "search_path" not in found
    assert password_in(found) == "p/w"
    assert masked(found) == found.replace("p%2Fw", "***")


@pytest.mark.parametrize(
    ("edge_dsn", "subscription_dsn", "words"),
    [
        ("postgresql:///plc", None, "names no host"),
        ("postgresql://pi/plc", "postgresql://me@pi/plc", "names a user"),
    ],
)
def test_an_address_that_can_not_serve(
    edge_dsn: str, subscription_dsn: str | None, words: str
) -> None:
    """What is wrong and what to write."""
    with pytest.raises(ConfigError, match=words) as caught:
        subscription_address(settings(edge_dsn, subscription_dsn), "rep", "pw")
    assert caught.value.hint


def test_a_verifier_as_postgresql_makes_it() -> None:
    """Keys of RFC 7677's example, in PostgreSQL's form."""
    stored = (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
        "$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        ":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )
    assert verifies(stored, "pencil")
    assert not verifies(stored, "pen")
    assert not verifies("md5c0ffee", "pencil")
    assert not verifies(None, "pencil")
    assert scram_verifier("pencil") != scram_verifier("pencil"), "a salt of its own each time"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            {"slot_active": False, "wal_status": "extended", "wal_budget_hours": 2.5},
            "its slot is lost in 2.5 hours",
        ),
        ({"slot_active": False, "wal_status": "reserved"}, "a remote that is away"),
        ({"slot_active": True, "wal_status": "unreserved"}, "limit is spent"),
        ({"lag_s": 61.0}, "61 s behind"),
        ({"copied": False, "sync_errors": 3}, "failed 3 times"),
        ({"refused_rows": 2}, "plc_refused"),
        ({"edge_health": (HealthCheck("c", "o", 1.0, "do this"),)}, "edge: do this"),
        ({"remote_health": (HealthCheck("c", "o", 1.0, "do that"),)}, "remote: do that"),
    ],
)
def test_what_is_a_problem(facts: dict[str, Any], words: str) -> None:
    """Each figure that is wrong gives one sentence."""
    problems = judged(ReplicationStatus("edge", NOW, **facts))
    assert len(problems) == 1
    assert words in problems[0]


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"slot_active": True, "wal_status": "extended", "lag_s": 59.0, "copied": True},
        {"apply_errors": 7, "sync_errors": 7, "copied": True, "refused_rows": 0},
        {"slot_active": False, "wal_status": "lost"},  # said by itself, with what to do
    ],
)
def test_what_is_none(facts: dict[str, Any]) -> None:
    """Errors that are past, and what is not known, are no problem."""
    assert judged(ReplicationStatus("edge", NOW, **facts)) == []


@pytest.mark.parametrize(
    ("skew_s", "words"),
    [(4.9, None), (-4.9, None), (6.0, "clock of the edge"), (-6.0, "clock of the remote")],
)
def test_a_clock_that_is_wrong(skew_s: float, words: str | None) -> None:
    """The one that is ahead is named."""
    problem = clock_problem(skew_s)
    assert problem is None if words is None else problem and words in problem


def test_what_is_unknown_is_left_out() -> None:
    """A metric without a value would lie; JSON says null."""
    status = ReplicationStatus("edge", NOW, lag_s=0.25)
    text = exposition(status, {"look": 2}, None).decode()
    assert 'edge_remote_lag_seconds{name="edge"} 0.25' in text
    assert 'edge_remote_failures_total{chore="look"} 2.0' in text
    assert "edge_remote_slot_active" not in text
    assert orjson.loads(line(status))["slot_active"] is None


def test_settings_that_are_refused() -> None:
    """A name that no slot can have, and a password that clients would read differently."""
    for key, value in (("name", "Edge-1"), ("name", ""), ("rep_password", SecretStr("short"))):
        with pytest.raises(ValueError, match=key):
            RemoteSettings.model_validate({key: value})


async def test_serve_tells_the_newest_look() -> None:
    """As `status --json` prints it; before the first look, that there is none."""
    remote = {"edge_dsn": "postgresql://pi/plc", "remote_dsn": "postgresql://far/plc"}
    service = Service(Settings.model_validate({"remote": remote}))
    request = make_mocked_request("GET", "/status")
    before = await service._status(request)
    assert before.status == 503
    assert orjson.loads(before.text or "")["error"]
    check = HealthCheck("slot_wal_bytes", "plc_edge", 1.5, "do this")
    service.status = ReplicationStatus("edge", NOW, edge_newest=NOW, edge_health=(check,))
    answer = await service._status(request)
    assert answer.content_type == "application/json"
    assert answer.text == line(service.status)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_verdict_is_printed_for_people(*, terminal: bool) -> None:
    """The figures and each problem; in a pipe it is one line, however long."""
    output = io.StringIO()
    problem = "slot plc_edge: [invalid] " + "do this " * 20 + "at last"
    status = ReplicationStatus("edge", NOW, lag_s=1.5, problems=[problem])
    show(status, Console(file=output, width=60, force_terminal=terminal))
    told = output.getvalue()
    assert "1.50 s" in told
    assert "[invalid]" in told
    assert "at last" in told
    assert (f"problem       {problem}\n" in told) is not terminal
