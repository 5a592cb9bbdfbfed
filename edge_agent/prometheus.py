"""The text that Prometheus scrapes, from figures that are collected when it asks."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def scrape_text(families: Iterable[Metric]) -> bytes:
    """These families in the text format 0.0.4. Raises ``ValueError`` if two have one name."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(families))
    return generate_latest(registry)


class _Once(Collector):
    """Hands one set of families to a registry."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families
