"""What to make of the agent's figures: what is wrong, and one line that says where data stops.

Works on the plain structures of `figures.py` alone.
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
from edge_agent.text.counts import counted

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
) -> Iterator[str]:
    """What is wrong although polled data flows, each with what to do."""
    if address_map["error"]:
        yield f"the address map in the file is not the one that runs: {address_map['error']}"
    if ingest is not None:
        yield from _problems_of_ingest(ingest, now_ms)
    for sink in sinks:
        if sink["refused"]:
            yield (
                f"{sink['name']} has refused {counted(sink['refused'], 'sample')} since the agent"
                " started: `edge-agent journal export quarantine` shows them"
            )
    for chore in upkeep:
        if chore["error"] and chore["failing_s"] > UPKEEP_WARNING_S:
            yield f"{chore['name']}: no upkeep for {chore['failing_s']:.0f} s: {chore['error']}"
        for check in chore["checks"]:
            if check["problem"]:
                yield f"{chore['name']}: {check['problem']}"


def _problems_of_ingest(ingest: IngestStatus, now_ms: int) -> Iterator[str]:
    if ingest["error"] and ingest["error_since_ms"] is not None:
        down_s = (now_ms - ingest["error_since_ms"]) / 1000
        yield f"ingest: nothing is taken in for {down_s:.0f} s: {ingest['error']}"
    elif ingest["refused"]:
        (topic, reason), *others = ingest["refused"].items()
        more = f" (and {len(others)} more)" if others else ""
        yield (
            f"ingest: the broker refuses the subscription {topic}: {reason}{more};"
            " check mqtt.ingest_topics, and the broker's rights for mqtt.username"
        )
    if ingest["over_series_max"]:
        yield (
            f"ingest: {counted(ingest['over_series_max'], 'message')} of new series left out since"
            f" the agent started, there are {ingest['series']} already: narrow mqtt.ingest_topics"
        )


def notices_of(ingest: IngestStatus | None) -> Iterator[str]:
    """What others do wrong, or what is over: worth knowing, and no reason for an alarm."""
    if ingest is None:
        return
    last = ingest["last_not_understood"]
    if last is not None:
        yield (
            f"ingest: {counted(ingest['not_understood'], 'message')} not understood,"
            f" the last one on topic {last['topic']}: {last['problem']}"
        )
    if ingest["overflowed"]:
        yield (
            f"ingest: {counted(ingest['overflowed'], 'message')} of QoS 0 dropped while the journal"
            " took none: publish with QoS 1"
        )


def verdict(
    connections: Sequence[ConnectionStatus],
    journal: JournalStatus,
    sinks: Sequence[SinkStatus],
    problems: Sequence[str],
    notices: Sequence[str],
    now_ms: int,
) -> tuple[bool, str]:
    """Whether all is well, and one line that says where the data stops if it is not."""
    stops = [
        *_stops_at_plcs(connections),
        *_stops_at_journal(journal),
        *(_stop_at_sink(sink, now_ms) for sink in sinks if sink["error"]),
    ]
    if stops:
        return False, "Data stops at " + "; and at ".join(stops)
    behind = [sink for sink in sinks if sink["lag_s"] > LAG_WARNING_S]
    if behind:
        late = [f"{sink['name']} is {sink['lag_s']:.0f} s behind" for sink in behind]
        return False, f"Catching up: {', '.join(late)}"
    tags = sum(connection["tags"] for connection in connections)
    good = sum(connection["tags_good"] for connection in connections)
    if problems:
        more = f" (and {counted(len(problems) - 1, 'more problem')})" if problems[1:] else ""
        bad = f"; of {counted(tags, 'tag')} {_bad_tags(connections)}" if good < tags else ""
        return False, f"Data flows, but {problems[0]}{more}{bad}"
    notes = [f"; {_bad_tags(connections)}"] if good < tags else []
    if kept := sum(sink["quarantined"] for sink in sinks):
        notes.append(f"; {counted(kept, 'sample')} of earlier in quarantine")
    notes += [f"; {notice}" for notice in notices]
    which = f"{good:,} of {counted(tags, 'tag')}" if good < tags else counted(tags, "tag")
    flow = "flows" if good == 1 else "flow"
    targets = ", ".join(sink["name"] for sink in sinks) or "no sink"
    text = f"{which} on {counted(len(connections), 'connection')} {flow} to {targets}"
    return True, f"{text}{''.join(notes)}" if notes else f"All well: {text}"


def flows(status: AgentStatus) -> bool:
    """Whether data gets through everywhere and in time, whatever else may be wrong."""
    return not (
        _stops_at_plcs(status["connections"])
        or _stops_at_journal(status["journal"])
        or any(sink["error"] or sink["lag_s"] > LAG_WARNING_S for sink in status["sinks"])
    )


def _bad_tags(connections: Sequence[ConnectionStatus]) -> str:
    """How many are not good, and one of them with its error."""
    count = sum(connection["tags"] - connection["tags_good"] for connection in connections)
    examples = [one["bad_tag"] for one in connections if one["bad_tag"] is not None]
    text = f"{count:,} {'is' if count == 1 else 'are'} bad or not read yet"
    if not examples:
        return text
    one = next((example for example in examples if example["quality"] == "bad"), examples[0])
    name = f"{one['site']}/{one['device']}/{one['tag']}"
    return f"{text}{':' if count == 1 else ', among them'} {name} ({one['error']})"


def _stops_at_plcs(connections: Sequence[ConnectionStatus]) -> list[str]:
    down = [connection for connection in connections if not connection["connected"]]
    if down and len(down) == len(connections):
        return [f"the PLCs: no connection is up; {_why_down(down[0])}"]
    unreadable = [
        connection
        for connection in connections
        if connection["connected"] and connection["scans"] and not connection["tags_good"]
    ]
    return [
        *map(_why_down, down),
        *(f"{connection['conn']}: none of its tags can be read" for connection in unreadable),
    ]


def _why_down(connection: ConnectionStatus) -> str:
    """The connection, once, with its error; a driver's error names it already."""
    place = f"{connection['conn']}: "
    return place + (connection["error"] or "not connected yet").removeprefix(place)


def _stops_at_journal(journal: JournalStatus) -> list[str]:
    if journal["full"]:
        return ["the journal: it is full, reading of the PLCs is paused"]
    if journal["disk_full"] or journal["commit_failures"]:
        return ["the journal: the disk refuses to write; free some space"]
    return []


def _stop_at_sink(sink: SinkStatus, now_ms: int) -> str:
    down_s = (now_ms - (sink["error_since_ms"] or now_ms)) / 1000
    waiting = f"{counted(sink['pending'], 'sample')} {'waits' if sink['pending'] == 1 else 'wait'}"
    return f"{sink['name']} for {down_s:.0f} s ({waiting} in the journal): {sink['error']}"
