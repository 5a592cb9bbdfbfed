"""The address map is edited again and again under full load: nobody else notices.

Sixteen connections are never touched. On four others tags are added, changed and removed, further
connections come and go, and now and then the file is broken.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from edge_agent import address_map
from edge_agent.model import Tag
from edge_agent.simulator import rebind
from tests.acceptance.conftest import MakeRig
from tests.acceptance.rig import Rig
from tests.plant import make_tags
from tests.servers import wait_until

CONNECTIONS, TAGS_PER_CONNECTION = 20, 50
TOUCHED = 4
SPARE_CONNECTIONS = 3
SPARE_PER_CONNECTION = 10
"""Of the connections that are touched, this many tags are in the map only at times."""
SOON_S = 5.0
"""How long a new tag may take; in `make test`, on a machine that does other things too, thrice."""
APPLIED_S = 15.0
"""Not what is measured here: a file with fewer rows is waited for longer."""
EARLY_MS = 20
"""A gap that is shorter than two periods by no more than this has left a scan out."""
SEED = 20_261_129


class Editor:
    """Edits the map at random, one step at a time, and waits until the agent has it."""

    def __init__(
        self, rig: Rig, steady: Sequence[Tag], spare: Sequence[Tag], soon_s: float
    ) -> None:
        self.rig = rig
        self.soon_s = soon_s
        self.tags = [*steady, *spare[::2]]
        self.edits = 0
        self.edited = {tag.key for tag in spare}
        self.slowest_s: dict[str, float] = dict.fromkeys(("agent", "mqtt", "postgres"), 0.0)
        self._spare = {tag.key: tag for tag in spare}
        self._random = random.Random(SEED)
        self._steps: Sequence[Callable[[], None]] = (
            *(self.add, self.change, self.remove, self.rollback, self.spoil),
        )

    def step(self) -> None:
        """One edit; every kind comes up in turn."""
        self._steps[self.edits % len(self._steps)]()
        self.edits += 1

    def add(self) -> None:
        """Rows that were not there; on every destination within the time."""
        here = {tag.key for tag in self.tags}
        new = self._some([tag for key, tag in self._spare.items() if key not in here])
        since_ms = self.rig.now_ms()
        seen = len(self.rig.recorder.messages)
        started = time.monotonic()
        self._write([*self.tags, *new])
        self._applied(started)
        for tag in new:
            self._timed("mqtt", started, partial(self._published, tag, seen))
            self._timed("postgres", started, partial(self._stored, tag, since_ms))
        assert time.monotonic() - started < self.soon_s, f"edit {self.edits}"

    def change(self) -> None:
        """A limit, a unit, a text: the PLC's values stay what they are."""
        chosen = {tag.key for tag in self._some(self._present())}
        text = f"edit {self.edits}"
        self._apply(
            [
                replace(tag, hi=float(1000 + self.edits), unit=f"u{self.edits}", description=text)
                if tag.key in chosen
                else tag
                for tag in self.tags
            ]
        )

    def remove(self) -> None:
        """Rows that were there; the others are left as they are."""
        chosen = {tag.key for tag in self._some(self._present())}
        self._apply([tag for tag in self.tags if tag.key not in chosen])

    def rollback(self) -> None:
        """Two versions back: what was removed just now is there again."""
        started = time.monotonic()
        version = int(self._map()["version"]) - 2
        done = self.rig.agent.run_command("map", "rollback", str(version))
        assert done.returncode == 0, done.stderr
        self.tags = list(address_map.load(self.rig.map_path).tags)
        self._applied(started)

    def spoil(self) -> None:
        """A file that is wrong: what runs stays, and the next edit heals it."""
        good = self.rig.map_path.read_bytes()
        self.rig.map_path.write_bytes(good + b"A1,L1,half a row")
        wait_until(lambda: self._map()["error"] is not None, "the error", APPLIED_S)
        assert self._map()["problems"]
        self.rig.map_path.write_bytes(good)
        wait_until(lambda: self._map()["error"] is None, "no error", APPLIED_S)

    def _present(self) -> list[Tag]:
        return [tag for tag in self.tags if tag.key in self._spare]

    def _some(self, tags: Sequence[Tag]) -> list[Tag]:
        return self._random.sample(list(tags), min(len(tags), 5))

    def _apply(self, tags: Sequence[Tag]) -> None:
        started = time.monotonic()
        self._write(tags)
        self._applied(started)

    def _write(self, tags: Sequence[Tag]) -> None:
        self.tags = list(tags)
        address_map.write(self.rig.map_path, self.tags)

    def _applied(self, started: float) -> None:
        wanted = address_map.load(self.rig.map_path).sha256
        self._timed("agent", started, lambda: self._map()["sha256"] == wanted)

    def _timed(self, where: str, started: float, condition: Callable[[], bool]) -> None:
        wait_until(condition, f"edit {self.edits} at {where}", APPLIED_S)
        self.slowest_s[where] = max(self.slowest_s[where], time.monotonic() - started)

    def _map(self) -> dict[str, Any]:
        status = self.rig.agent.status()
        assert status is not None
        found: dict[str, Any] = status["map"]
        return found

    def _published(self, tag: Tag, seen: int) -> bool:
        topic = f"plc/{'/'.join(tag.key)}".encode()
        return any(found == topic for found, _ in self.rig.recorder.messages[seen:])

    def _stored(self, tag: Tag, since_ms: int) -> bool:
        async def count() -> int:
            dsn = self.rig.cluster.server.dsn(database=self.rig.database)
            async with self.rig.cluster.connected(dsn) as connection:
                found = await connection.fetchval(
                    "SELECT count(*) FROM plc_raw WHERE site = $1 AND device = $2 AND tag = $3"
                    " AND ts >= to_timestamp($4 / 1000.0)",
                    *(*tag.key, since_ms),
                )
                return int(found)

        return asyncio.run(count()) > 0


def plant(period_ms: int) -> tuple[list[Tag], list[Tag]]:
    """Tags that are always there, and spare ones that come and go; all on simulated PLCs."""
    count = CONNECTIONS * TAGS_PER_CONNECTION
    spare_count = SPARE_CONNECTIONS * TAGS_PER_CONNECTION
    tags = make_tags(count + spare_count, period_ms, per_connection=TAGS_PER_CONNECTION)
    tags = rebind(tags)
    conns = list(dict.fromkeys(tag.conn for tag in tags))
    spare = [tag for tag in tags if tag.conn in conns[CONNECTIONS:]]
    for conn in conns[:TOUCHED]:
        spare += [tag for tag in tags if tag.conn == conn][::5][:SPARE_PER_CONNECTION]
    keys = {tag.key for tag in spare}
    return [tag for tag in tags if tag.key not in keys], spare


@pytest.mark.parametrize(
    ("edits", "period_ms"), [(10, 1000), pytest.param(50, 200, marks=pytest.mark.long)]
)
def test_edits_under_load(make_rig: MakeRig, edits: int, period_ms: int) -> None:
    """No scan is missed by a tag that was not edited, no sample is lost, and new tags come soon.

    All destinations on; 1,000 samples/s in `make test`, whose machine does other things too, and
    5,000 in `make acceptance`.
    """
    steady, spare = plant(period_ms)
    rig = make_rig([*steady, *spare])
    editor = Editor(rig, steady, spare, SOON_S if edits == 50 else 3 * SOON_S)
    address_map.write(rig.map_path, editor.tags)
    rig.agent.start()
    rig.settle()
    for _ in range(edits):
        editor.step()
    rig.settle()
    rig.stop_orderly()
    evidence = rig.evidence()
    evidence.check_all()
    gaps = evidence.gaps_ms()
    conns = list(dict.fromkeys(tag.conn for tag in [*steady, *spare]))
    untouched = [tag.key for tag in steady if tag.conn not in conns[:TOUCHED]]
    beside = [tag.key for tag in steady if tag.conn in conns[:TOUCHED]]
    print(f"{len(evidence.sets['store'])} samples, slowest {editor.slowest_s}")
    for where, keys in (("untouched connections", untouched), ("beside edits", beside)):
        late = {key: gaps[key] for key in keys if gaps[key] >= 2 * period_ms - EARLY_MS}
        assert not late, f"{where}: {len(late)} tags missed scans, first {list(late.items())[:5]}"
    history = json.loads(rig.agent.run_command("map", "history", "--json").stdout)["versions"]
    kinds = Counter(version["how"].split()[0] for version in history)
    assert kinds == {"start": 1, "file": edits // 5 * 3, "rollback": edits // 5}
