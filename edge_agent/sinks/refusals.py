"""The rows that plc_raw refused, as the cursor's row keeps them (sql/060_delivery.sql).

Pure: refused rows in, JSON out, and back. Positions of a batch that share a reason share its text:
20,000 refused rows are 0.1 MB; where each has a reason of its own, 1.6 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.errors import RejectedRow
from edge_agent.model import Batch


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was refused of one batch: positions by reason.

    ``samples`` is the number of samples that the batch had.
    """

    sequence: int
    samples: int
    positions: Mapping[str, Sequence[int]]

    def __len__(self) -> int:
        return sum(map(len, self.positions.values()))

    def rows(self) -> list[RejectedRow]:
        """The refused rows in order."""
        reasons = {at: reason for reason, found in self.positions.items() for at in found}
        return [RejectedRow(self.sequence, at, reasons[at]) for at in sorted(reasons)]

    def fits(self, batch: Batch) -> bool:
        """Whether the batch still has the samples it had: a full journal may have thinned it."""
        return len(batch) == self.samples


def refusals_of(batches: Iterable[Batch], rows: Iterable[RejectedRow]) -> list[Refusal]:
    """The refused rows by batch, in the batches' order."""
    found: dict[int, dict[str, list[int]]] = {}
    for row in rows:
        found.setdefault(row.sequence, {}).setdefault(row.reason, []).append(row.index)
    return [
        Refusal(batch.sequence, len(batch), found[batch.sequence])
        for batch in batches
        if batch.sequence in found
    ]


def encode(refusals: Iterable[Refusal]) -> str:
    """As JSON: ``[[sequence, samples, {reason: [position]}]]``."""
    columns = [(each.sequence, each.samples, each.positions) for each in refusals]
    return json.dumps(columns, separators=(",", ":"))


def decode(text: str) -> list[Refusal]:
    """The same, back."""
    columns: list[list[Any]] = json.loads(text)
    return [Refusal(*each) for each in columns]
