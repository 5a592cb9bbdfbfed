"""What the cursor's row keeps of refused rows: there and back, and what it takes."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import RejectedRow
from edge_agent.model import Batch
from edge_agent.sinks.refusals import decode, encode, refusals_of


def batch(sequence: int, samples: int) -> Batch:
    return Batch(sequence, [(0, samples)], array("I", [1] * samples), array("d", [0] * samples), {})


PLACES = st.tuples(st.integers(1, 5), st.integers(0, 19))


@given(st.dictionaries(PLACES, st.sampled_from(["too high", "압력", '"\\\n']), max_size=40))
def test_every_row_comes_back(refused: dict[tuple[int, int], str]) -> None:
    """With its batch, its position and its reason, in order."""
    rows = [RejectedRow(*place, reason) for place, reason in refused.items()]
    batches = [batch(sequence, 20) for sequence in range(1, 6)]
    found = decode(encode(refusals_of(batches, rows)))
    assert sum(map(len, found)) == len(rows)
    expected = sorted(rows, key=lambda row: (row.sequence, row.index))
    assert [row for each in found for row in each.rows()] == expected


def test_a_whole_hand_over_is_small() -> None:
    """20,000 rows with one reason take six bytes each."""
    rows = [RejectedRow(1 << 40, index, "no" * 100) for index in range(20_000)]
    assert len(encode(refusals_of([batch(1 << 40, 20_000)], rows))) < 130_000


def test_a_batch_with_fewer_samples_is_another() -> None:
    """The full journal has thinned it: positions no longer fit."""
    (refusal,) = refusals_of([batch(1, 5)], [RejectedRow(1, 4, "no")])
    assert refusal.fits(batch(1, 5))
    assert not refusal.fits(batch(1, 3))
