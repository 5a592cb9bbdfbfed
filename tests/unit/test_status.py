"""The verdict: one line that says where the data stops."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import pytest

from edge_agent.errors import TransientError
from edge_agent.pipeline.upkeep import UpkeepRunner
from edge_agent.postgres.health import HealthCheck
from edge_agent.status.figures import (
    HEALTH_FRESH_S,
    ConnectionStatus,
    IngestStatus,
    JournalStatus,
    MapStatus,
    SinkStatus,
    upkeep_status,
)
from edge_agent.status.verdict import (
    LAG_WARNING_S,
    UPKEEP_WARNING_S,
    notices_of,
    problems_of,
    verdict,
)
from edge_agent.text.bilingual import Bilingual

NOW_MS = 1_755_432_000_000


def english(texts: Iterable[Bilingual]) -> list[str]:
    """What commands and logs have of them."""
    return [text.english for text in texts]


def make_connection(conn: str = "tcp://a", **fields: Any) -> ConnectionStatus:
    """A connection that is well."""
    well = {"conn": conn, "connected": True, "error": None, "tags": 5, "tags_good": 5, "scans": 9}
    return cast("ConnectionStatus", well | {"bad_tag": None} | fields)


def bad_tag(tag: str = "FLOW", quality: str = "bad", error: str = "no answer") -> dict[str, str]:
    """A tag that is not good."""
    return {"site": "A1", "device": "PUMP01", "tag": tag, "quality": quality, "error": error}


def down(conn: str = "tcp://a", error: str = "Connection refused") -> ConnectionStatus:
    return make_connection(conn, connected=False, error=error, tags_good=0)


def make_journal(**fields: Any) -> JournalStatus:
    """A journal that is well."""
    return cast("JournalStatus", {"full": False, "disk_full": False, "commit_failures": 0} | fields)


WELL_MAP = cast("MapStatus", {"error": None})


def make_sink(name: str = "mqtt", **fields: Any) -> SinkStatus:
    """A sink that is well."""
    well = {"name": name, "error": None, "error_since_ms": None, "pending": 0, "lag_s": 0.0}
    return cast("SinkStatus", well | {"quarantined": 0, "refused": 0} | fields)


def failing(name: str = "mqtt", **fields: Any) -> SinkStatus:
    fields = {"error_since_ms": NOW_MS - 90_000, "pending": 1200} | fields
    return make_sink(name, error="Connection refused", **fields)


CASES = {
    "all well": (
        [make_connection(), make_connection("tcp://b")],
        make_journal(),
        [make_sink(), make_sink("store")],
        True,
        "All well: 10 tags on 2 connections flow to mqtt, store",
    ),
    "one of each": (
        [make_connection(tags=1, tags_good=1)],
        make_journal(),
        [make_sink()],
        True,
        "All well: 1 tag on 1 connection flows to mqtt",
    ),
    "nothing to deliver to": (
        [make_connection()],
        make_journal(),
        [],
        True,
        "All well: 5 tags on 1 connection flow to no sink",
    ),
    "some tags bad": (
        [make_connection(tags_good=3, bad_tag=bad_tag())],
        make_journal(),
        [make_sink()],
        True,
        (
            "3 of 5 tags on 1 connection flow to mqtt; 2 are bad or not read yet, among them"
            " A1/PUMP01/FLOW (no answer)"
        ),
    ),
    "a bad tag is named before one that is not read yet": (
        [
            make_connection(tags_good=4, bad_tag=bad_tag("LEVEL", "stale", "not read yet")),
            make_connection("tcp://b", tags_good=4, bad_tag=bad_tag()),
        ],
        make_journal(),
        [make_sink()],
        True,
        (
            "8 of 10 tags on 2 connections flow to mqtt; 2 are bad or not read yet, among them"
            " A1/PUMP01/FLOW (no answer)"
        ),
    ),
    "one tag bad": (
        [make_connection(tags_good=4, bad_tag=bad_tag())],
        make_journal(),
        [make_sink()],
        True,
        (
            "4 of 5 tags on 1 connection flow to mqtt; 1 is bad or not read yet:"
            " A1/PUMP01/FLOW (no answer)"
        ),
    ),
    "every connection down": (
        [down(), down("tcp://b", "No route to host")],
        make_journal(),
        [make_sink()],
        False,
        "Data stops at the PLCs: no connection is up; tcp://a: Connection refused",
    ),
    "one connection down": (
        [make_connection(), down("tcp://b")],
        make_journal(),
        [make_sink()],
        False,
        "Data stops at tcp://b: Connection refused",
    ),
    "two connections down": (
        [make_connection(), down("tcp://b", "No route to host"), down("tcp://c")],
        make_journal(),
        [make_sink()],
        False,
        "Data stops at tcp://b: No route to host; and at tcp://c: Connection refused",
    ),
    "a connection without a single good tag": (
        [make_connection(tags_good=0)],
        make_journal(),
        [make_sink()],
        False,
        "Data stops at tcp://a: none of its tags can be read",
    ),
    "a connection that has just begun": (
        [make_connection(tags_good=0, scans=0, bad_tag=bad_tag("T", "stale", "not read yet"))],
        make_journal(),
        [make_sink()],
        True,
        (
            "0 of 5 tags on 1 connection flow to mqtt; 5 are bad or not read yet, among them"
            " A1/PUMP01/T (not read yet)"
        ),
    ),
    "journal full": (
        [make_connection()],
        make_journal(full=True),
        [make_sink()],
        False,
        "Data stops at the journal: it is full, reading of the PLCs is paused",
    ),
    "disk full": (
        [make_connection()],
        make_journal(disk_full=True),
        [make_sink()],
        False,
        "Data stops at the journal: the disk refuses to write; free some space",
    ),
    "commits fail": (
        [make_connection()],
        make_journal(commit_failures=3),
        [make_sink()],
        False,
        "Data stops at the journal: the disk refuses to write; free some space",
    ),
    "a sink down": (
        [make_connection()],
        make_journal(),
        [make_sink("store"), failing()],
        False,
        "Data stops at mqtt for 90 s (1,200 samples wait in the journal): Connection refused",
    ),
    "two sinks down, one of them only now": (
        [make_connection()],
        make_journal(),
        [failing(), failing("postgres", error_since_ms=None, pending=1)],
        False,
        (
            "Data stops at mqtt for 90 s (1,200 samples wait in the journal): Connection refused; "
            "and at postgres for 0 s (1 sample waits in the journal): Connection refused"
        ),
    ),
    "a PLC and a sink": (
        [make_connection(), down("tcp://b")],
        make_journal(),
        [failing()],
        False,
        (
            "Data stops at tcp://b: Connection refused; "
            "and at mqtt for 90 s (1,200 samples wait in the journal): Connection refused"
        ),
    ),
    "a sink behind": (
        [make_connection()],
        make_journal(),
        [make_sink(lag_s=LAG_WARNING_S + 12)],
        False,
        "Catching up: mqtt is 42 s behind",
    ),
    "a sink hardly behind": (
        [make_connection()],
        make_journal(),
        [make_sink(lag_s=LAG_WARNING_S)],
        True,
        "All well: 5 tags on 1 connection flow to mqtt",
    ),
    "samples in quarantine from an earlier run": (
        [make_connection()],
        make_journal(),
        [make_sink(quarantined=7), make_sink("store")],
        True,
        "5 tags on 1 connection flow to mqtt, store; 7 samples of earlier in quarantine",
    ),
    "bad tags and a sample in quarantine": (
        [make_connection(tags_good=3, bad_tag=bad_tag())],
        make_journal(),
        [make_sink(quarantined=1)],
        True,
        (
            "3 of 5 tags on 1 connection flow to mqtt; 2 are bad or not read yet, among them"
            " A1/PUMP01/FLOW (no answer); 1 sample of earlier in quarantine"
        ),
    ),
    "samples that are refused": (
        [make_connection()],
        make_journal(),
        [make_sink(quarantined=9, refused=2)],
        False,
        (
            "Data flows, but mqtt has refused 2 samples since the agent started:"
            " `edge-agent journal export quarantine` shows them"
        ),
    ),
    "samples that are refused, and a bad tag": (
        [make_connection(tags_good=4, bad_tag=bad_tag())],
        make_journal(),
        [make_sink(quarantined=9, refused=2)],
        False,
        (
            "Data flows, but mqtt has refused 2 samples since the agent started:"
            " `edge-agent journal export quarantine` shows them;"
            " of 5 tags 1 is bad or not read yet: A1/PUMP01/FLOW (no answer)"
        ),
    ),
    "refused samples and a PLC that is down": (
        [make_connection(), down("tcp://b")],
        make_journal(),
        [make_sink(quarantined=9, refused=2)],
        False,
        "Data stops at tcp://b: Connection refused",
    ),
    "a map without tags": (
        [],
        make_journal(),
        [make_sink()],
        True,
        "All well: 0 tags on 0 connections flow to mqtt",
    ),
}

KOREAN = {
    "all well": "모두 정상입니다: 연결 2개의 태그 10개 → mqtt, store",
    "one of each": "모두 정상입니다: 연결 1개의 태그 1개 → mqtt",
    "nothing to deliver to": "모두 정상입니다: 연결 1개의 태그 5개 → 싱크 없음",
    "some tags bad": (
        "연결 1개의 태그 5개 중 3개 → mqtt; 2개는 읽기 실패이거나 아직 읽지 않음, 예:"
        " A1/PUMP01/FLOW (no answer)"
    ),
    "a bad tag is named before one that is not read yet": (
        "연결 2개의 태그 10개 중 8개 → mqtt; 2개는 읽기 실패이거나 아직 읽지 않음, 예:"
        " A1/PUMP01/FLOW (no answer)"
    ),
    "one tag bad": (
        "연결 1개의 태그 5개 중 4개 → mqtt; 1개는 읽기 실패이거나 아직 읽지 않음:"
        " A1/PUMP01/FLOW (no answer)"
    ),
    "every connection down": "데이터가 멈춘 곳: 모든 PLC(연결된 곳 없음): tcp://a: 연결 거부됨",
    "one connection down": "데이터가 멈춘 곳: tcp://b: 연결 거부됨",
    "two connections down": (
        "데이터가 멈춘 곳: tcp://b: 호스트까지 가는 경로 없음 / tcp://c: 연결 거부됨"
    ),
    "a connection without a single good tag": (
        "데이터가 멈춘 곳: tcp://a: 읽히는 태그가 하나도 없음"
    ),
    "a connection that has just begun": (
        "연결 1개의 태그 5개 중 0개 → mqtt; 5개는 읽기 실패이거나 아직 읽지 않음, 예: A1/PUMP01/T"
        " (아직 읽지 않음)"
    ),
    "journal full": "데이터가 멈춘 곳: 저널: 가득 차서 PLC 읽기를 중단했습니다",
    "disk full": "데이터가 멈춘 곳: 저널: 디스크에 쓸 수 없습니다. 공간을 확보하세요",
    "commits fail": "데이터가 멈춘 곳: 저널: 디스크에 쓸 수 없습니다. 공간을 확보하세요",
    "a sink down": "데이터가 멈춘 곳: mqtt(90초째, 저널에서 대기 중인 샘플 1,200개): 연결 거부됨",
    "two sinks down, one of them only now": (
        "데이터가 멈춘 곳: mqtt(90초째, 저널에서 대기 중인 샘플 1,200개): 연결 거부됨 /"
        " postgres(0초째, 저널에서 대기 중인 샘플 1개): 연결 거부됨"
    ),
    "a PLC and a sink": (
        "데이터가 멈춘 곳: tcp://b: 연결 거부됨 / mqtt(90초째, 저널에서 대기 중인 샘플"
        " 1,200개): 연결 거부됨"
    ),
    "a sink behind": "따라잡는 중: mqtt 42초 지연",
    "a sink hardly behind": "모두 정상입니다: 연결 1개의 태그 5개 → mqtt",
    "samples in quarantine from an earlier run": (
        "연결 1개의 태그 5개 → mqtt, store; 예전에 격리된 샘플 7개"
    ),
    "bad tags and a sample in quarantine": (
        "연결 1개의 태그 5개 중 3개 → mqtt; 2개는 읽기 실패이거나 아직 읽지 않음, 예:"
        " A1/PUMP01/FLOW (no answer); 예전에 격리된 샘플 1개"
    ),
    "samples that are refused": (
        "데이터는 흐르지만 확인이 필요합니다: mqtt: 에이전트를 시작한 뒤 거부된 샘플 2개."
        " `edge-agent journal export quarantine` 명령으로 확인하세요"
    ),
    "samples that are refused, and a bad tag": (
        "데이터는 흐르지만 확인이 필요합니다: mqtt: 에이전트를 시작한 뒤 거부된 샘플 2개."
        " `edge-agent journal export quarantine` 명령으로 확인하세요; 태그 5개 중 1개는"
        " 읽기 실패이거나 아직 읽지 않음: A1/PUMP01/FLOW (no answer)"
    ),
    "refused samples and a PLC that is down": "데이터가 멈춘 곳: tcp://b: 연결 거부됨",
    "a map without tags": "모두 정상입니다: 연결 0개의 태그 0개 → mqtt",
}
"""What it says in Korean, by the same names."""


@pytest.mark.parametrize("case", list(CASES))
def test_the_verdict_names_every_place_where_data_stops(case: str) -> None:
    """In the order in which data flows, with the reason; well only while it flows everywhere."""
    connections, journal, sinks, well, text = CASES[case]
    problems = list(problems_of(sinks, [], None, WELL_MAP, NOW_MS))
    found = verdict(connections, journal, sinks, problems, [], NOW_MS)
    assert found == (well, Bilingual(text, KOREAN[case]))


def test_a_connection_is_named_once() -> None:
    """Errors of drivers begin with it."""
    bad = down(error="tcp://a: Connection refused")
    one = verdict([bad], make_journal(), [], [], [], 0)[1].english
    assert one == "Data stops at the PLCs: no connection is up; tcp://a: Connection refused"
    two = verdict([bad, make_connection("tcp://b")], make_journal(), [], [], [], 0)[1].english
    assert two == "Data stops at tcp://a: Connection refused"


def make_ingest(**fields: Any) -> IngestStatus:
    """Ingest that is well."""
    well: dict[str, Any] = {"connected": True, "error": None, "error_since_ms": None}
    well |= {"refused": {}, "series": 9}
    counts = {"not_understood": 0, "over_series_max": 0, "overflowed": 0}
    return cast("IngestStatus", well | counts | {"last_not_understood": None} | fields)


LAST = {"topic": "plc/A1/X/T", "problem": "value is not a number", "payload": "{", "ts_ms": NOW_MS}
AWAY = "mqtt://b:1883: Connection refused"
INGEST_CASES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "well": ({}, [], []),
    "not connected yet": ({"connected": False, "error": "not connected yet"}, [], []),
    "away": (
        {"connected": False, "error": AWAY, "error_since_ms": NOW_MS - 90_000},
        [f"ingest: nothing is taken in for 90 s: {AWAY}"],
        [],
    ),
    "refused": (
        {"refused": {"plc/#": "Not authorized", "a/#": "Quota exceeded"}},
        [
            (
                "ingest: the broker refuses the subscription plc/#: Not authorized (and 1 more);"
                " check mqtt.ingest_topics, and the broker's rights for mqtt.username"
            )
        ],
        [],
    ),
    "too many series": (
        {"over_series_max": 3, "series": 20_000},
        [
            (
                "ingest: 3 messages of new series left out since the agent started,"
                " there are 20000 already: narrow mqtt.ingest_topics"
            )
        ],
        [],
    ),
    "not understood": (
        {"not_understood": 1, "last_not_understood": LAST},
        [],
        [
            (
                "ingest: 1 message not understood, the last one on topic plc/A1/X/T:"
                " value is not a number"
            )
        ],
    ),
    "overflowed": (
        {"overflowed": 2},
        [],
        ["ingest: 2 messages of QoS 0 dropped while the journal took none: publish with QoS 1"],
    ),
}

INGEST_KOREAN = {
    "away": ["수집(ingest): 90초째 메시지를 받지 못하고 있습니다: mqtt://b:1883: 연결 거부됨"],
    "refused": [
        (
            "수집(ingest): 브로커가 구독을 거부함(plc/#): 권한 없음 (외 1건)."
            " mqtt.ingest_topics와, 브로커에서 mqtt.username의 권한을 확인하세요"
        )
    ],
    "too many series": [
        (
            "수집(ingest): 시리즈가 이미 20000개라서 새 시리즈의 메시지 3개를 받지 않았습니다"
            "(에이전트를 시작한 뒤). mqtt.ingest_topics의 범위를 좁히세요"
        )
    ],
    "not understood": [
        "수집(ingest): 해석할 수 없는 메시지 1개, 마지막 토픽 plc/A1/X/T: value가 숫자가 아님"
    ],
    "overflowed": [
        ("수집(ingest): 저널이 받지 못하는 동안 버려진 QoS 0 메시지 2개. QoS 1로 발행하세요")
    ],
}


@pytest.mark.parametrize("case", list(INGEST_CASES))
def test_what_is_wrong_with_ingest_is_a_problem_or_a_notice(case: str) -> None:
    """A problem is what the operator can end; a notice takes the word "well", not its truth."""
    fields, problems, notices = INGEST_CASES[case]
    ingest = make_ingest(**fields)
    found = list(problems_of([], [], ingest, WELL_MAP, NOW_MS))
    noticed = list(notices_of(ingest))
    assert (english(found), english(noticed)) == (problems, notices)
    assert [one.korean for one in (*found, *noticed)] == INGEST_KOREAN.get(case, [])
    well, text = verdict([make_connection()], make_journal(), [make_sink()], found, noticed, NOW_MS)
    flow = "5 tags on 1 connection flow to mqtt"
    if problems:
        assert (well, text.english) == (False, f"Data flows, but {problems[0]}")
    else:
        said = f"{flow}; {notices[0]}" if notices else f"All well: {flow}"
        assert (well, text.english) == (True, said)


def test_without_ingest_there_is_nothing_to_say_of_it() -> None:
    """It is off unless topics are set."""
    assert list(problems_of([], [], None, WELL_MAP, NOW_MS)) == []
    assert list(notices_of(None)) == []


@dataclass(frozen=True)
class Report:
    """What an upkeep returns that looks at its database."""

    health: tuple[HealthCheck, ...]


class Chore:
    """A database whose upkeep is called by hand, under a clock that is turned by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.runner = UpkeepRunner(
            "postgres", self._upkeep, interval_s=60.0, monotonic=lambda: self.now_s
        )
        self._outcome: object = None

    async def _upkeep(self) -> object:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    async def round(self, outcome: object) -> list[str]:
        """One round that ends like this; the problems it leaves."""
        self._outcome = outcome
        await self.runner.round()
        return self.problems()

    def problems(self) -> list[str]:
        """What is wrong now."""
        found = problems_of([], [upkeep_status(self.runner)], None, WELL_MAP, NOW_MS)
        return english(found)


WELL = HealthCheck("slot_active", "plc_edge", 1.0, None)
LOST = HealthCheck(
    "slot_wal_bytes", "plc_edge", 5e9, "the slot plc_edge is lost: run `edge-remote resync`"
)
BEHIND = HealthCheck("rollup_lag_seconds", "plc_1m", 900.0, "plc_1m is 15 minutes behind")


async def test_the_verdict_is_not_all_well_when_the_database_has_a_problem() -> None:
    """The first problem is told with the name of the destination, the others are counted."""
    chore = Chore()
    assert await chore.round(Report((WELL,))) == []
    problems = await chore.round(Report((WELL, LOST, BEHIND)))
    assert problems == [f"postgres: {LOST.problem}", f"postgres: {BEHIND.problem}"]
    connections, journal, sinks = [make_connection()], make_journal(), [make_sink("postgres")]
    found = list(problems_of([], [upkeep_status(chore.runner)], None, WELL_MAP, NOW_MS))
    assert verdict(connections, journal, sinks, found, [], NOW_MS) == (
        False,
        Bilingual(
            f"Data flows, but postgres: {LOST.problem} (and 1 more problem)",
            "데이터는 흐르지만 확인이 필요합니다: postgres: 슬롯이 무효화됨: plc_edge:"
            " `edge-remote resync` 명령을 실행하세요 (외 1건)",
        ),
    )
    assert await chore.round(Report((WELL,))) == []


async def test_what_the_database_said_long_ago_is_not_shown() -> None:
    """While it is out of reach its last words grow old, and then they are gone, problems too."""
    chore = Chore()
    assert upkeep_status(chore.runner)["health_age_s"] is None, "nothing was said yet"
    await chore.round(Report((LOST,)))
    chore.now_s += HEALTH_FRESH_S
    await chore.round(TransientError("No route to host"))
    aged = upkeep_status(chore.runner)
    assert (aged["health_age_s"], len(aged["checks"])) == (HEALTH_FRESH_S, 1)
    chore.now_s += 1
    stale = upkeep_status(chore.runner)
    assert (stale["health_age_s"], stale["checks"]) == (None, [])
    assert chore.problems() == []
    await chore.round(Report((LOST,)))
    assert upkeep_status(chore.runner)["health_age_s"] == 0


async def test_upkeep_that_fails_for_long_is_a_problem() -> None:
    """With since when and its hint; one failed round is none, and success ends it."""
    chore = Chore()
    refused = TransientError("permission denied", hint="run `edge-agent db init`")
    assert await chore.round(refused) == []
    chore.now_s += UPKEEP_WARNING_S + 1
    assert await chore.round(refused) == [
        "postgres: no upkeep for 181 s: permission denied; run `edge-agent db init`"
    ]
    assert await chore.round(None) == []
    assert upkeep_status(chore.runner)["failing_s"] == 0
    assert await chore.round(TimeoutError()) == [], "a new failure begins anew"
