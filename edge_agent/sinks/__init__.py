"""The sinks that the settings ask for.

A sink is on when its address is set. Its module, and with it its library, is loaded only then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_agent.sinks.base import DeviceTeller, Pace, RefusalKeeper, Sink

if TYPE_CHECKING:
    from edge_agent.settings import Settings

STORE_UPKEEP_INTERVAL_S = 10.0
DATABASE_UPKEEP_INTERVAL_S = 60.0


@dataclass(frozen=True, slots=True)
class Destination:
    """A sink, how it likes to be fed, and the chore that keeps it in shape, if it has one."""

    sink: Sink
    pace: Pace = field(default_factory=Pace)
    upkeep: Callable[[], Awaitable[object]] | None = None
    upkeep_interval_s: float = DATABASE_UPKEEP_INTERVAL_S
    teller: DeviceTeller | None = None
    """The same sink, where it can also say how devices are."""
    keeper: RefusalKeeper | None = None
    """The same sink, where it keeps what was refused."""
    record_map: Callable[[str, str, bytes], Awaitable[None]] | None = None
    """Keeps the versions of the address map too: hash, author, and rows as a JSON array."""
    has_ingested: bool = False
    """Ingested samples came from there, so that they are not delivered to it."""


def configured(settings: Settings) -> list[Destination]:
    """Every destination that is on. Raises ``ConfigError`` for a dsn that can't be one."""
    builders = (_mqtt, _postgres, _influx, _store)
    return [found for build in builders if (found := build(settings)) is not None]


def _mqtt(settings: Settings) -> Destination | None:
    broker = settings.mqtt.broker
    if broker is None:
        return None
    from edge_agent.sinks.mqtt import MqttSink

    password = settings.mqtt.password
    sink = MqttSink(
        agent_id=settings.agent.id,
        broker=broker,
        username=settings.mqtt.username,
        password=password.get_secret_value() if password else None,
        ca_file=settings.mqtt.ca_file,
        cert_file=settings.mqtt.cert_file,
        key_file=settings.mqtt.key_file,
        is_marked=bool(settings.mqtt.ingest_topics),
    )
    return Destination(sink, teller=sink, has_ingested=True)


def _postgres(settings: Settings) -> Destination | None:
    if settings.postgres.dsn is None:
        return None
    from edge_agent.postgres.database import Upkeep
    from edge_agent.sinks.postgres import PostgresSink

    dsn, agent_id = settings.postgres.dsn.get_secret_value(), settings.agent.id
    upkeep = Upkeep(agent_id=agent_id, dsn=dsn)
    sink = PostgresSink(agent_id=agent_id, dsn=dsn)
    return Destination(
        sink,
        Pace(settings.postgres.batch_max, settings.postgres.flush_interval_ms / 1000),
        upkeep.run,
        keeper=sink,
        record_map=upkeep.record_map,
    )


def _influx(settings: Settings) -> Destination | None:
    influx = settings.influx
    if influx.url is None:
        return None
    from edge_agent.sinks.influx import InfluxSink

    assert influx.token is not None, "the settings check this"
    assert influx.org is not None, "the settings check this"
    assert influx.bucket is not None, "the settings check this"
    sink = InfluxSink(
        url=influx.url,
        token=influx.token.get_secret_value(),
        org=influx.org,
        bucket=influx.bucket,
        measurement=influx.measurement,
    )
    return Destination(sink, Pace(flush_interval_s=influx.flush_interval_ms / 1000))


def _store(settings: Settings) -> Destination | None:
    if not settings.store_enabled:
        return None
    from edge_agent.sinks.store import StoreSink

    sink = StoreSink(
        settings.agent.store_path,
        raw_hours=settings.store.raw_hours,
        minute_days=settings.store.minute_days,
    )
    return Destination(sink, upkeep=sink.maintain, upkeep_interval_s=STORE_UPKEEP_INTERVAL_S)
