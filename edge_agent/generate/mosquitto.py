"""`mosquitto.conf` and `acl`: a broker on which everybody may do what they must, and no more."""

from __future__ import annotations

import math
from typing import Final

from edge_agent.generate.subject import Rendered, Subject, per_second
from edge_agent.generate.templating import render
from edge_agent.model import Series
from edge_agent.sinks.message import status_topic_of, topic_of

FOLDER: Final = "/etc/mosquitto"
"""Where both files go, and the passwords and certificates that people add."""
ABSENCE_S: Final = 600
"""So long a subscriber with a persistent session may be away and miss nothing."""
QUEUED_MIN: Final = 1_000
"""Mosquitto's own default of `max_queued_messages`."""
READERS: Final = ("reader", "telegraf")


def render_conf(subject: Subject) -> Rendered:
    """The broker's settings."""
    _, port, tls = subject.broker
    messages_per_s = per_second(tag.period_ms for tag in subject.tags)
    text = render(
        "mosquitto.conf",
        header=subject.header,
        folder=FOLDER,
        port=port,
        tls=tls,
        messages_per_s=math.ceil(messages_per_s),
        absence_s=ABSENCE_S,
        queued_max=max(QUEUED_MIN, math.ceil(messages_per_s * ABSENCE_S)),
    )
    return Rendered(text)


def render_acl(subject: Subject) -> Rendered:
    """Who may publish and read what. Nobody else may anything."""
    topics = []
    for site, device in sorted(subject.devices):
        series = Series(site, "", device, "tag", "")
        # Names hold no wildcard and no slash, so the topic of any tag ends with that tag.
        topics.append(topic_of(series).decode().removesuffix("tag") + "+")
        topics.append(status_topic_of(site, device).decode())
    text = render(
        "acl",
        header=subject.header,
        user=subject.agent_user,
        agent_id=subject.settings.agent.id,
        topics=topics,
        ingest_topics=subject.settings.mqtt.ingest_topics,
        readers=[name for name in READERS if name != subject.agent_user],
    )
    return Rendered(text)
