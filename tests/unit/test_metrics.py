"""Counting: histograms as Prometheus has them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.metrics import SECONDS, ConnectionCounters, Histogram, SinkCounters


def test_a_value_counts_in_the_first_bucket_that_holds_it() -> None:
    """Bounds are inclusive, as `le` says; what is above all of them is still counted."""
    histogram = Histogram([1.0, 2.0])
    for value in (0.5, 1.0, 1.5, 2.0, 99.0):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.count == 5
    assert histogram.sum == 104.0


def test_an_empty_histogram_has_no_quantile() -> None:
    """None is not zero seconds."""
    assert Histogram().quantile(0.99) is None


@given(st.lists(st.floats(0, 100), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_the_bucket_of_the_exact_one(values: list[float], share: float) -> None:
    """The bound is the smallest that is not below the exact quantile."""
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    bounds = (*SECONDS, math.inf)
    assert histogram.quantile(share) == next(bound for bound in bounds if bound >= exact)


def test_many_of_one_kind_are_counted_at_once() -> None:
    """A batch's samples share their age."""
    histogram = Histogram([1.0])
    histogram.observe(0.5, 1000)
    assert (histogram.count, histogram.sum) == (1000, 500.0)


@pytest.mark.parametrize("make", [ConnectionCounters, SinkCounters])
def test_counters_are_not_shared(make: type[ConnectionCounters | SinkCounters]) -> None:
    """Every connection and every sink has its own."""
    first, second = make(), make()
    for name in ("errors", "failures", "late", "lag"):
        if hasattr(first, name):
            assert getattr(first, name) is not getattr(second, name)
