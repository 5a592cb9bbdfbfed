"""The journal against plain lists: random life, with crashes, faults and too little room.

The model knows every sample that was appended, in order. After each step the books must balance
for every sink; now and then the whole content is compared: what a sink was handed, what is
pending for it, what is in quarantine and what the ledger says is lost must together be exactly
what was taken, tag by tag.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent.journal import Journal, Policy, Quarantined
from edge_agent.journal.entries import samples_of
from edge_agent.model import Batch
from tests.journals import (
    Feed,
    Sample,
    abandon,
    balanced,
    commit,
    copied,
    counted,
    kept_for,
    loss_per_series,
    opened,
    traced,
)

CPU_S_PER_RUN_MAX = 4.0
STEPS_MAX = 160
BYTES_MAX = 1_000_000


@dataclass
class Side:
    """What the model knows of one sink."""

    handed: dict[float, Sample] = field(default_factory=dict)
    """Acknowledged and written down."""
    quarantined: set[float] = field(default_factory=set)
    waiting: list[tuple[list[Sample], set[float]]] = field(default_factory=list)
    """Acknowledged, but the commit that writes it has not come yet."""
    claimed: list[Batch] = field(default_factory=list)
    was_away: bool = False


class Model:
    """A journal and what must be in it."""

    def __init__(self, folder: Path, seed: int, policy: Policy) -> None:
        self.random = random.Random(seed)
        self.folder = folder
        self.policy = policy
        self.feed = Feed()
        self.path = folder / "0" / "journal.db"
        self.journal: Journal
        self.sides: dict[str, Side] = {"a": Side(), "b": Side()}
        self.sinks = ["a", "b"]
        self.generation = 0

    async def open(self) -> None:
        self.journal = await opened(self.path, self.sinks, bytes_max=BYTES_MAX, policy=self.policy)
        assert self.journal.salvages == 0

    async def append(self) -> None:
        """More often more than one commit's worth than not, while the journal accepts."""
        for _ in range(self.random.randrange(1, 4)):
            if self.journal.accepting:
                self.feed.fill(self.journal, self.random.choice((1, 400, 3000, 6000)))

    async def commit(self) -> None:
        await commit(self.journal)
        for name in self.sinks:
            side = self.sides[name]
            if name not in self.journal._acknowledgements:
                for samples, refused in side.waiting:
                    side.handed |= {sample.value: sample for sample in samples}
                    side.quarantined |= refused
                side.waiting = []

    async def read(self) -> None:
        """A sink reads; it never sees a sample twice, nor one that was not appended."""
        name = self.random.choice(self.sinks)
        side = self.sides[name]
        samples_max = self.random.choice((1, 2000, 12_000))
        side.claimed = await self.journal.read(name, samples_max=samples_max)
        found = traced(side.claimed)
        assert [sample.value for sample in found] == sorted(sample.value for sample in found)
        for sample in found:
            assert self.feed.samples[int(sample.value) - 1] == sample
            assert sample.value not in side.handed
        seen = {sample.value for samples, _ in side.waiting for sample in samples}
        assert not seen.intersection(sample.value for sample in found)

    async def acknowledge(self) -> None:
        """All or the first of what was read, now and then with refused samples."""
        name = self.random.choice(self.sinks)
        side = self.sides[name]
        if not side.claimed:
            return
        batches = side.claimed[: self.random.randrange(1, len(side.claimed) + 1)]
        samples = traced(batches)
        refused = self.random.sample(samples, min(self.random.choice((0, 0, 0, 3)), len(samples)))
        where = {value: id_ for batch in batches for _, id_, value in samples_of(batch)}
        self.journal.acknowledge(
            name,
            batches,
            duplicates=self.random.choice((0, 1)),
            rejected=[
                Quarantined(where[sample.value], sample.ts_ms, sample.value, "refused")
                for sample in refused
            ],
        )
        side.claimed = side.claimed[len(batches) :]
        side.waiting.append((samples, {sample.value for sample in refused}))

    async def release(self) -> None:
        name = self.random.choice(self.sinks)
        self.journal.release(name)
        self.sides[name].claimed = []

    async def crash(self) -> None:
        """The process dies: only what the file and its WAL hold at this moment is left."""
        self.feed.forget_after(self.journal.taken)
        self._forget()
        self.generation += 1
        self.path = copied(self.path, self.folder / str(self.generation))
        abandon(self.journal)
        await self.open()

    async def reopen(self) -> None:
        """An orderly end, perhaps with other sinks afterwards."""
        await self.commit()
        if self.journal.uncommitted or self.journal._acknowledgements:
            return
        self._forget()
        await self.journal.close()
        before = self.sinks
        self.sinks = self.random.choice((["a", "b"], ["a", "b"], ["a"], ["a", "b", "c"]))
        await self.open()
        for name in set(before) - set(self.sinks):
            self.sides[name].was_away = True
        if "c" in self.sinks and "c" not in self.sides:
            self.sides["c"] = Side(was_away=True)

    def _forget(self) -> None:
        for side in self.sides.values():
            side.waiting, side.claimed = [], []

    async def check(self) -> None:
        """The cheap part: the books balance, and the file keeps its size."""
        assert self.journal.taken + self.journal.uncommitted == len(self.feed.samples)
        await balanced(self.journal)
        assert self.path.stat().st_size <= BYTES_MAX

    def compare(self) -> None:
        """The whole content, sample by sample and tag by tag."""
        taken = self.feed.samples[: self.journal.taken]
        for name in self.sinks:
            side = self.sides[name]
            pending = kept_for(self.journal._file, name)
            values = [sample.value for sample in pending]
            assert values == sorted(values)
            assert all(taken[int(sample.value) - 1] == sample for sample in pending)
            assert not side.handed.keys() & set(values)
            totals = self.journal._file.totals[name]
            assert totals.delivered + totals.quarantined == len(side.handed)
            assert {
                row.value for sink, row in self.journal._file.quarantine() if sink == name
            } == side.quarantined
            if not side.was_away:
                known = side.handed.keys() | set(values)
                gone = [sample for sample in taken if sample.value not in known]
                assert loss_per_series(self.journal._file, name) == counted(gone)
                self._compare_times(name, gone)

    def _compare_times(self, name: str, gone: list[Sample]) -> None:
        """The ledger's time range of each tag is that of what was lost."""
        file = self.journal._file
        for series in {sample.series for sample in gone}:
            rows = [
                row
                for row in file.ledger()
                if row.sink == name
                and row.series_id is not None
                and file.series[row.series_id] == series
            ]
            times = [sample.ts_ms for sample in gone if sample.series == series]
            assert min(row.first_ts_ms or 0 for row in rows) == min(times)
            assert max(row.last_ts_ms or 0 for row in rows) == max(times)


STEPS = (
    ("append",) * 6
    + ("commit",) * 8
    + ("read",) * 4
    + ("acknowledge",) * 3
    + (
        "release",
        "crash",
        "reopen",
    )
)


@pytest.mark.parametrize("policy", list(Policy))
async def test_random_life(tmp_path: Path, policy: Policy) -> None:
    """Whatever happens in whatever order, nothing is lost, invented, changed or repeated unseen."""
    model = Model(tmp_path, seed=list(Policy).index(policy) + 1, policy=policy)
    await model.open()
    until = time.process_time() + CPU_S_PER_RUN_MAX
    for step in range(STEPS_MAX):
        name = model.random.choice(STEPS)
        await getattr(model, name)()
        await model.check()
        if step % 25 == 0 or name in ("crash", "reopen"):
            model.compare()
        if time.process_time() > until:
            break
    model.compare()
    assert step > 50, "too slow to say anything"
    await model.commit()
    model._forget()
    await model.journal.close()
