"""What is kept of a device's traffic: the last requests and replies, and those of each incident.

`/frames` serves it as JSON, `edge-agent status --frames` prints it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from edge_agent.pipeline.poller import ConnectionPoller
from edge_agent.pipeline.reader import place_of
from edge_agent.pipeline.recorder import Exchange
from edge_agent.text.selection import names_of, normal


class ExchangeStatus(TypedDict):
    """One request and what came back, in hexadecimal."""

    ts_ms: int
    request: str
    reply: str
    error: str | None


class IncidentStatus(TypedDict):
    """Tags that turned from good to bad, and the exchanges that led to it."""

    ts_ms: int
    tags: list[str]
    exchanges: list[ExchangeStatus]


class BlockFrames(TypedDict):
    """What is kept of one block's traffic, oldest first."""

    conn: str
    block: str
    tags: list[str]
    exchanges: list[ExchangeStatus]
    incidents: list[IncidentStatus]


def frames_of(pollers: Iterable[ConnectionPoller], word: str) -> list[BlockFrames]:
    """The traffic of all blocks that read what a word names (`selection`); none if it is nothing.

    Without a site in it that is the devices of this name of all sites.
    """
    wanted = normal(word)
    return [
        BlockFrames(
            conn=poller.name,
            block=place_of(reader.block),
            tags=tags,
            exchanges=[_exchange(one) for one in reader.recorder.exchanges],
            incidents=[
                IncidentStatus(
                    ts_ms=incident.ts_ms,
                    tags=list(incident.tags),
                    exchanges=[_exchange(one) for one in incident.exchanges],
                )
                for incident in reader.recorder.incidents
            ],
        )
        for poller in pollers
        for readers in poller.readers
        for reader in readers
        if (tags := [tag.tag for tag in reader.block.tags if wanted in names_of(tag.key)])
    ]


def _exchange(one: Exchange) -> ExchangeStatus:
    return ExchangeStatus(
        ts_ms=one.ts_ms,
        request=one.frames.request.hex(" "),
        reply=one.frames.reply.hex(" "),
        error=one.error,
    )
