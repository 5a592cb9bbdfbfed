"""What to make of the agent's figures: what is wrong, and one line that says where data stops.

Works on the plain structures of `figures.py` alone.

**Two languages.** A sentence here is put together of figures: stops, problems, examples. No pattern
finds its way back from the finished English one, so each phrase stands here in both languages side
by side (`Bilingual`), and whole sentences come out in both. That is why it is the agent that tells
`verdict_ko` beside `verdict`: it alone has the figures each second, and whoever shows the sentence
need not know how it is made. The errors in it were made elsewhere, in English; `in_both` finds
what is known of them in Korean. Whoever shows such an error by itself finds it in the same place
(`edge_agent/text/korean/`), as the dashboard does for those of databases, which no agent tells.

Commands, logs and the old keys of `/status` have the English one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edge_agent.status.figures import (
    AgentStatus,
    ConnectionStatus,
    IngestStatus,
    JournalStatus,
    MapStatus,
    SinkStatus,
    UpkeepStatus,
)
from edge_agent.text.bilingual import Bilingual
from edge_agent.text.counts import counted
from edge_agent.text.korean import in_both

LAG_WARNING_S = 30.0
"""A sink that is further behind than this is said to be catching up."""
UPKEEP_WARNING_S = 180.0
"""Three rounds: one that fails while a sink comes back is no news."""


def problems_of(
    sinks: Iterable[SinkStatus],
    upkeep: Iterable[UpkeepStatus],
    ingest: IngestStatus | None,
    address_map: MapStatus,
    now_ms: int,
) -> Iterator[Bilingual]:
    """What is wrong although polled data flows, each with what to do."""
    if address_map["error"]:
        error = _map_error(address_map, address_map["error"])
        yield Bilingual(
            f"the address map in the file is not the one that runs: {error.english}",
            f"파일의 주소 맵이 실행 중인 맵과 다릅니다: {error.korean}",
        )
    if ingest is not None:
        yield from _problems_of_ingest(ingest, now_ms)
    for sink in sinks:
        if sink["refused"]:
            yield Bilingual(
                f"{sink['name']} has refused {counted(sink['refused'], 'sample')} since the agent"
                " started: `edge-agent journal export quarantine` shows them",
                f"{sink['name']}: 에이전트를 시작한 뒤 거부된 샘플 {sink['refused']:,}개."
                " `edge-agent journal export quarantine` 명령으로 확인하세요",
            )
    for chore in upkeep:
        if chore["error"] and chore["failing_s"] > UPKEEP_WARNING_S:
            error = in_both(chore["error"])
            failing_s = f"{chore['failing_s']:.0f}"
            yield Bilingual(
                f"{chore['name']}: no upkeep for {failing_s} s: {error.english}",
                f"{chore['name']}: {failing_s}초째 데이터베이스 정비를 못 하고 있습니다:"
                f" {error.korean}",
            )
        for check in chore["checks"]:
            if check["problem"]:
                problem = in_both(check["problem"])
                yield Bilingual(
                    f"{chore['name']}: {problem.english}", f"{chore['name']}: {problem.korean}"
                )


def _map_error(address_map: MapStatus, english: str) -> Bilingual:
    # As large a catalogue as all others together: only for who has written a wrong map.
    from edge_agent.address_map.korean import file_in_korean

    korean = file_in_korean(address_map["path"], address_map["problems"], english)
    return in_both(english) if korean is None else Bilingual(english, korean)


def _problems_of_ingest(ingest: IngestStatus, now_ms: int) -> Iterator[Bilingual]:
    if ingest["error"] and ingest["error_since_ms"] is not None:
        error = in_both(ingest["error"])
        down_s = f"{(now_ms - ingest['error_since_ms']) / 1000:.0f}"
        yield Bilingual(
            f"ingest: nothing is taken in for {down_s} s: {error.english}",
            f"수집(ingest): {down_s}초째 메시지를 받지 못하고 있습니다: {error.korean}",
        )
    elif ingest["refused"]:
        (topic, refusal), *others = ingest["refused"].items()
        reason = in_both(refusal)
        more = f" (and {len(others)} more)" if others else ""
        more_ko = f" (외 {len(others)}건)" if others else ""
        yield Bilingual(
            f"ingest: the broker refuses the subscription {topic}: {reason.english}{more};"
            " check mqtt.ingest_topics, and the broker's rights for mqtt.username",
            f"수집(ingest): 브로커가 구독을 거부함({topic}): {reason.korean}{more_ko}."
            " mqtt.ingest_topics와, 브로커에서 mqtt.username의 권한을 확인하세요",
        )
    if ingest["over_series_max"]:
        yield Bilingual(
            f"ingest: {counted(ingest['over_series_max'], 'message')} of new series left out since"
            f" the agent started, there are {ingest['series']} already: narrow mqtt.ingest_topics",
            f"수집(ingest): 시리즈가 이미 {ingest['series']}개라서 새 시리즈의 메시지"
            f" {ingest['over_series_max']:,}개를 받지 않았습니다(에이전트를 시작한 뒤)."
            " mqtt.ingest_topics의 범위를 좁히세요",
        )


def notices_of(ingest: IngestStatus | None) -> Iterator[Bilingual]:
    """What others do wrong, or what is over: worth knowing, and no reason for an alarm."""
    if ingest is None:
        return
    last = ingest["last_not_understood"]
    if last is not None:
        problem = in_both(last["problem"])
        yield Bilingual(
            f"ingest: {counted(ingest['not_understood'], 'message')} not understood,"
            f" the last one on topic {last['topic']}: {problem.english}",
            f"수집(ingest): 해석할 수 없는 메시지 {ingest['not_understood']:,}개,"
            f" 마지막 토픽 {last['topic']}: {problem.korean}",
        )
    if ingest["overflowed"]:
        yield Bilingual(
            f"ingest: {counted(ingest['overflowed'], 'message')} of QoS 0 dropped while the journal"
            " took none: publish with QoS 1",
            f"수집(ingest): 저널이 받지 못하는 동안 버려진 QoS 0 메시지 {ingest['overflowed']:,}개."
            " QoS 1로 발행하세요",
        )


def verdict(
    connections: Sequence[ConnectionStatus],
    journal: JournalStatus,
    sinks: Sequence[SinkStatus],
    problems: Sequence[Bilingual],
    notices: Sequence[Bilingual],
    now_ms: int,
) -> tuple[bool, Bilingual]:
    """Whether all is well, and one line that says where the data stops if it is not."""
    stops = [
        *_stops_at_plcs(connections),
        *_stops_at_journal(journal),
        *(_stop_at_sink(sink, sink["error"], now_ms) for sink in sinks if sink["error"]),
    ]
    if stops:
        english = "; and at ".join(stop.english for stop in stops)
        korean = " / ".join(stop.korean for stop in stops)
        return False, Bilingual(f"Data stops at {english}", f"데이터가 멈춘 곳: {korean}")
    behind = [sink for sink in sinks if sink["lag_s"] > LAG_WARNING_S]
    if behind:
        late = Bilingual.joined(", ", map(_behind, behind))
        return False, Bilingual(f"Catching up: {late.english}", f"따라잡는 중: {late.korean}")
    bad = _bad_tags(connections)
    if problems:
        return False, _flows_but(problems, bad, sum(one["tags"] for one in connections))
    return True, _well(connections, sinks, bad, notices)


def flows(status: AgentStatus) -> bool:
    """Whether data gets through everywhere and in time, whatever else may be wrong."""
    return not (
        _stops_at_plcs(status["connections"])
        or _stops_at_journal(status["journal"])
        or any(sink["error"] or sink["lag_s"] > LAG_WARNING_S for sink in status["sinks"])
    )


def _flows_but(problems: Sequence[Bilingual], bad: Bilingual | None, tags: int) -> Bilingual:
    """The first problem, and how much else is wrong."""
    first, others = problems[0], len(problems) - 1
    more = f" (and {counted(others, 'more problem')})" if others else ""
    more_ko = f" (외 {others}건)" if others else ""
    found = Bilingual(
        f"Data flows, but {first.english}{more}",
        f"데이터는 흐르지만 확인이 필요합니다: {first.korean}{more_ko}",
    )
    if bad is None:
        return found
    return Bilingual(
        f"{found.english}; of {counted(tags, 'tag')} {bad.english}",
        f"{found.korean}; 태그 {tags:,}개 중 {bad.korean}",
    )


def _well(
    connections: Sequence[ConnectionStatus],
    sinks: Sequence[SinkStatus],
    bad: Bilingual | None,
    notices: Sequence[Bilingual],
) -> Bilingual:
    """What it is that flows, and what is worth knowing although all is well."""
    tags = sum(connection["tags"] for connection in connections)
    good = sum(connection["tags_good"] for connection in connections)
    notes = [] if bad is None else [bad]
    if kept := sum(sink["quarantined"] for sink in sinks):
        notes.append(
            Bilingual(
                f"{counted(kept, 'sample')} of earlier in quarantine",
                f"예전에 격리된 샘플 {kept:,}개",
            )
        )
    notes += notices
    which = f"{good:,} of {counted(tags, 'tag')}" if good < tags else counted(tags, "tag")
    which_ko = f"태그 {tags:,}개 중 {good:,}개" if good < tags else f"태그 {tags:,}개"
    flow = "flows" if good == 1 else "flow"
    names = ", ".join(sink["name"] for sink in sinks)
    text = Bilingual(
        f"{which} on {counted(len(connections), 'connection')} {flow} to {names or 'no sink'}",
        f"연결 {len(connections):,}개의 {which_ko} → {names or '싱크 없음'}",
    )
    if notes:
        return Bilingual.joined("; ", [text, *notes])
    return Bilingual(f"All well: {text.english}", f"모두 정상입니다: {text.korean}")


def _bad_tags(connections: Sequence[ConnectionStatus]) -> Bilingual | None:
    """How many are not good, and one of them with its error; None while all are."""
    count = sum(connection["tags"] - connection["tags_good"] for connection in connections)
    if not count:
        return None
    text = Bilingual(
        f"{count:,} {'is' if count == 1 else 'are'} bad or not read yet",
        f"{count:,}개는 읽기 실패이거나 아직 읽지 않음",
    )
    examples = [one["bad_tag"] for one in connections if one["bad_tag"] is not None]
    if not examples:
        return text
    one = next((example for example in examples if example["quality"] == "bad"), examples[0])
    name = f"{one['site']}/{one['device']}/{one['tag']}"
    error = in_both(str(one["error"]))
    return Bilingual(
        f"{text.english}{':' if count == 1 else ', among them'} {name} ({error.english})",
        f"{text.korean}{':' if count == 1 else ', 예:'} {name} ({error.korean})",
    )


def _stops_at_plcs(connections: Sequence[ConnectionStatus]) -> list[Bilingual]:
    down = [connection for connection in connections if not connection["connected"]]
    if down and len(down) == len(connections):
        why = _why_down(down[0])
        return [
            Bilingual(
                f"the PLCs: no connection is up; {why.english}",
                f"모든 PLC(연결된 곳 없음): {why.korean}",
            )
        ]
    unreadable = [
        connection
        for connection in connections
        if connection["connected"] and connection["scans"] and not connection["tags_good"]
    ]
    return [
        *map(_why_down, down),
        *(
            Bilingual(
                f"{connection['conn']}: none of its tags can be read",
                f"{connection['conn']}: 읽히는 태그가 하나도 없음",
            )
            for connection in unreadable
        ),
    ]


def _why_down(connection: ConnectionStatus) -> Bilingual:
    """The connection, once, with its error; a driver's error names it already."""
    place = f"{connection['conn']}: "
    error = in_both((connection["error"] or "not connected yet").removeprefix(place))
    return Bilingual(place + error.english, place + error.korean)


def _stops_at_journal(journal: JournalStatus) -> list[Bilingual]:
    if journal["full"]:
        return [
            Bilingual(
                "the journal: it is full, reading of the PLCs is paused",
                "저널: 가득 차서 PLC 읽기를 중단했습니다",
            )
        ]
    if journal["disk_full"] or journal["commit_failures"]:
        return [
            Bilingual(
                "the journal: the disk refuses to write; free some space",
                "저널: 디스크에 쓸 수 없습니다. 공간을 확보하세요",
            )
        ]
    return []


def _stop_at_sink(sink: SinkStatus, failure: str, now_ms: int) -> Bilingual:
    down_s = f"{(now_ms - (sink['error_since_ms'] or now_ms)) / 1000:.0f}"
    waiting = f"{counted(sink['pending'], 'sample')} {'waits' if sink['pending'] == 1 else 'wait'}"
    error = in_both(failure)
    return Bilingual(
        f"{sink['name']} for {down_s} s ({waiting} in the journal): {error.english}",
        f"{sink['name']}({down_s}초째, 저널에서 대기 중인 샘플 {sink['pending']:,}개):"
        f" {error.korean}",
    )


def _behind(sink: SinkStatus) -> Bilingual:
    lag_s = f"{sink['lag_s']:.0f}"
    return Bilingual(f"{sink['name']} is {lag_s} s behind", f"{sink['name']} {lag_s}초 지연")
