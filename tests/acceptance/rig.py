"""One test's plant with every destination on, and the evidence that it leaves.

The agent runs as a user starts it. At the end `Rig.evidence` reads what each destination holds
and what the journal's own command says, and `Evidence` holds the one against the other.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from edge_agent import address_map
from edge_agent.journal import Quarantined
from edge_agent.journal.books import LedgerRow
from edge_agent.journal.entries import Entry, samples_of
from edge_agent.journal.file import JournalFile
from edge_agent.model import Series, Tag
from edge_agent.simulator.signals import matches
from edge_agent.store.reader import StoreReader
from tests.acceptance.recorder import Recorder, Sample
from tests.influx_server import Influx
from tests.integration.plc_database import Cluster
from tests.plant import Agent, Simulator, settle
from tests.servers import Mosquitto, wait_until

Key = tuple[str, str, str]
"""Site, device and tag."""

SINKS = ("mqtt", "postgres", "influx", "store")
SHUTDOWN_TIMEOUT_S = 15
"""With every sink up a stop takes a second, on a busy machine some more."""
HASTY_TIMEOUT_S = 4
"""For tests that stop the agent while a server is away, which takes all of it."""
FLUSH_S = 2.5
"""What may be on its way to a sink that keeps up: a flush interval of 1 s, commits, a scan."""
FLOW_TIMEOUT_S = 60.0
LATE_MS = 1_100
"""How old a value may be: a request may wait 1 s for its answer, and a value stands for 50 ms."""

BROKER = """
allow_anonymous true
persistence true
persistence_location {folder}/
max_queued_messages 0
"""


@dataclass
class Servers:
    """What all tests share: each gets a database and a bucket of its own."""

    cluster: Cluster
    influx: Influx
    bucket: int = 0

    def fresh_bucket(self) -> str:
        """Name of a bucket that nobody has used."""
        self.bucket += 1
        self.influx.bucket = f"edge_{self.bucket}"
        self.influx.execute(f'CREATE DATABASE "{self.influx.bucket}"')
        return self.influx.bucket


class Rig:
    """Entered, the broker, the recorder and the PLCs run; the agent waits for `agent.start`."""

    def __init__(
        self,
        folder: Path,
        servers: Servers,
        tags: list[Tag],
        *,
        journal: str = "",
        broker: str = "",
        data_dir: Path | None = None,
        environ: Mapping[str, str] | None = None,
        plcs: Sequence[Sequence[Tag]] | None = None,
        database_port: Callable[[int], int] = lambda port: port,
        shutdown_timeout_s: int = SHUTDOWN_TIMEOUT_S,
    ) -> None:
        """``plcs`` are the tags of each simulator; by default there is one, for all of them.

        ``database_port`` may put something between the agent and the database's port.
        """
        self.folder = folder
        self.shutdown_timeout_s = shutdown_timeout_s
        self.tags = tags
        self.cluster, self.influx = servers.cluster, servers.influx
        self.database = asyncio.run(self.cluster.fresh())
        self.bucket = servers.fresh_bucket()
        (folder / "mosquitto").mkdir()
        config = BROKER.format(folder=folder / "mosquitto") + broker
        self.broker = Mosquitto(folder / "mosquitto", config)
        shares = [tags] if plcs is None else plcs
        self.plcs = [Simulator(folder / f"plc{n}", share) for n, share in enumerate(shares)]
        self.map_path = folder / "address_map.csv"
        address_map.write(self.map_path, tags)
        self.agent = Agent(folder / "agent", self.map_path, data_dir=data_dir, environ=environ)
        self.recorder = Recorder(self.broker.port)
        port = database_port(self.cluster.server.port)
        influx = (
            f'[influx]\nurl = "{self.influx.url}"\ntoken = "{self.influx.token}"\n'
            f'org = "{self.influx.org}"\nbucket = "{self.bucket}"'
        )
        self.agent.configure(
            [
                f"[journal]\n{journal}",
                f'[mqtt]\nurl = "{self.broker.url}"',
                f'[postgres]\ndsn = "postgresql://agent@127.0.0.1:{port}/{self.database}"',
                influx,
                "[store]\nenabled = true",
            ],
            agent=f"shutdown_timeout_s = {shutdown_timeout_s}",
        )
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.broker)
            stack.enter_context(self.recorder)
            for plc in self.plcs:
                stack.enter_context(plc)
            stack.callback(self.agent.stop, signal.SIGKILL)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- driving it -----------------------------------------------------------------------------

    @property
    def rate(self) -> float:
        """Samples per second that the map asks for."""
        return sum(1000 / tag.period_ms for tag in self.tags)

    def run_for(self, seconds: float) -> None:
        """Let the plant work."""
        time.sleep(seconds)

    def settle(self) -> dict[str, Any]:
        """Wait until every sink keeps up; the last status."""
        return settle(self.agent, round(self.rate * FLUSH_S))

    @staticmethod
    def now_ms() -> int:
        """The wall clock, in milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000

    def wait_taken(self, samples: int) -> None:
        """Wait until the journal has taken so many more samples than now."""
        before = self.taken
        wait_until(lambda: self.taken >= before + samples, f"{samples} samples", FLOW_TIMEOUT_S)

    @property
    def taken(self) -> int:
        """Samples taken, as the running agent says; 0 while it does not answer."""
        status = self.agent.status()
        return int(status["journal"]["taken"]) if status else 0

    def sink(self, name: str) -> dict[str, Any]:
        """A sink's figures, as the running agent says."""
        status = self.agent.status()
        assert status is not None, "the agent does not answer"
        found: dict[str, Any] = next(sink for sink in status["sinks"] if sink["name"] == name)
        return found

    def connected(self, plc: Simulator) -> bool:
        """Whether the agent is connected to all of a simulator's PLCs, by its own word."""
        status = self.agent.status()
        assert status is not None, "the agent does not answer"
        states = {row["conn"]: row["connected"] for row in status["connections"]}
        return all(states[tag.conn] for tag in plc.tags)

    def persist_session(self) -> None:
        """Have the broker write the recorder's session down now, so that it survives a kill."""
        os.kill(self.broker.pid, signal.SIGUSR1)
        saved = self.folder / "mosquitto" / "mosquitto.db"
        wait_until(saved.exists, "the broker's persistence file")

    def stop_orderly(self) -> None:
        """End the agent as systemd does: it must exit 0 in time, by itself, without a traceback."""
        started = time.monotonic()
        self.agent.stop()
        took_s = time.monotonic() - started
        assert self.agent.exit_code == 0, self.agent.log()[-3000:]
        assert took_s < self.shutdown_timeout_s + 5, f"the agent took {took_s:.1f} s to stop"
        assert "Traceback" not in self.agent.log(), self.agent.log()[-3000:]

    # -- reading it -----------------------------------------------------------------------------

    def evidence(self) -> Evidence:
        """Everything that the ended agent has left, everywhere."""
        self.recorder.finish()
        books = self.agent.journal()
        path = self.agent.data_dir / "journal.db"
        with closing(JournalFile(path, bytes_max=2_000_000_000, read_only=True)) as journal:
            return Evidence(
                tags={tag.key: tag for tag in self.tags},
                books=books,
                sinks={row["sink"]: row for row in books["sinks"]},
                series=dict(journal.series),
                ledger=journal.ledger(),
                quarantine=journal.quarantine(),
                waiting=list(journal.export()),
                found={
                    "mqtt": Counter(self.recorder.samples()),
                    "postgres": asyncio.run(self._rows()),
                    "influx": self._points(),
                    "store": self._stored(),
                },
            )

    async def _rows(self) -> Counter[Sample]:
        async with self.cluster.connected(
            self.cluster.server.dsn(database=self.database)
        ) as connection:
            rows = await connection.fetch(
                "SELECT site, device, tag, (extract(epoch FROM ts) * 1000)::bigint, value "
                "FROM plc_raw"
            )
        return Counter(tuple(row) for row in rows)

    def _points(self) -> Counter[Sample]:
        self.influx.bucket = self.bucket
        found: Counter[Sample] = Counter()
        for series in self.influx.execute('SELECT value FROM plc GROUP BY site, device, "tag"'):
            labels = series["tags"]
            names = labels["site"], labels["device"], labels["tag"]
            found.update((*names, ts_ms, float(value)) for ts_ms, value in series["values"])
        return found

    def _stored(self) -> Counter[Sample]:
        reader = StoreReader(self.agent.data_dir / "store.db")
        found: Counter[Sample] = Counter()
        for series in reader.series():
            times, values = reader.raw(series, 0, 1 << 42)
            names = series.site, series.device, series.tag
            found.update((*names, ts_ms, value) for ts_ms, value in zip(times, values, strict=True))
        return found


@dataclass
class Evidence:
    """What the destinations hold, and what the journal says of it."""

    tags: dict[Key, Tag]
    books: dict[str, Any]
    sinks: dict[str, dict[str, Any]]
    series: dict[int, Series]
    ledger: list[LedgerRow]
    quarantine: list[tuple[str, Quarantined]]
    waiting: list[Entry]
    found: dict[str, Counter[Sample]]

    @cached_property
    def sets(self) -> dict[str, set[Sample]]:
        """Per sink the samples that it holds."""
        return {sink: set(samples) for sink, samples in self.found.items()}

    @property
    def taken(self) -> int:
        """Samples taken since the journal was made."""
        return int(self.books["taken"])

    def check_books(self) -> None:
        """Guarantee 6, per sink; what waits is counted in the entries themselves."""
        assert set(self.sinks) == set(SINKS)
        for sink, row in self.sinks.items():
            accounted = row["delivered"] + row["pending"] + row["quarantined"] + row["lost"]
            assert self.taken - row["base"] == accounted, (sink, self.taken, row)
            lost = sum(loss.samples for loss in self.ledger if loss.sink == sink)
            assert row["lost"] == lost, (sink, row, self.ledger)
            refused = sum(owner == sink for owner, _ in self.quarantine)
            assert row["quarantined"] == refused, (sink, row)

    def check_rows(self, unconfirmed_max: int = 0) -> None:
        """Each sink holds exactly what it has acknowledged, and nothing twice.

        ``unconfirmed_max`` where samples are lost on purpose: what a sink had taken when its
        server went, without a word to the agent, may stand in the ledger all the same.
        """
        for sink, samples in self.sets.items():
            unconfirmed = len(samples) - self.sinks[sink]["delivered"]
            assert 0 <= unconfirmed <= unconfirmed_max, (sink, unconfirmed, self.sinks[sink])
            keys = {sample[:4] for sample in samples}
            assert len(keys) == len(samples), f"{sink}: two values of one tag and time"
        assert max(self.found["postgres"].values(), default=1) == 1, "a row twice"

    def check_values(self, samples: Iterable[Sample] | None = None) -> None:
        """Every value is what the PLC had to answer at that time."""
        wanted = set().union(*self.sets.values()) if samples is None else samples
        wrong = [
            sample
            for sample in wanted
            if not matches(self.tags[sample[:3]], sample[3], sample[4], late_ms=LATE_MS)
        ]
        assert not wrong, f"{len(wrong)} values the PLC never had, first {wrong[:3]}"

    def check_equal(self) -> None:
        """All sinks hold the same samples, which are all that were taken; nothing waits."""
        for sink, row in self.sinks.items():
            assert (row["pending"], row["quarantined"], row["lost"]) == (0, 0, 0), (sink, row)
        first = self.sets["postgres"]
        assert first, "no sample at all"
        for sink, samples in self.sets.items():
            missing, extra = first - samples, samples - first
            assert not missing, f"{sink} lacks {len(missing)}, first {sorted(missing)[:3]}"
            assert not extra, f"only {sink} has {len(extra)}, first {sorted(extra)[:3]}"
        assert len(first) == self.taken

    def check_all(self) -> None:
        """What holds after every fault that loses nothing."""
        self.check_books()
        self.check_equal()
        self.check_rows()
        self.check_values()

    def losses(self, sink: str, reason: str) -> dict[Key, int]:
        """The ledger's samples per tag; every loss must have this reason and name its tag."""
        found: Counter[Key] = Counter()
        for loss in self.ledger:
            if loss.sink == sink:
                assert loss.reason == reason
                assert loss.series_id is not None
                found[self._key(loss.series_id)] += loss.samples
        return dict(found)

    def refused(self, sink: str) -> dict[Sample, str]:
        """The samples in a sink's quarantine, with the reasons."""
        return {
            (*self._key(sample.series_id), sample.ts_ms, sample.value): sample.reason
            for owner, sample in self.quarantine
            if owner == sink
        }

    def waiting_for(self, sink: str) -> set[Sample]:
        """The samples in the journal that a sink is yet to get."""
        return {
            (*self._key(series_id), ts_ms, value)
            for entry in self.waiting
            if entry.batch.sequence > self.sinks[sink]["sequence"] and entry.meant_for(sink)
            for ts_ms, series_id, value in samples_of(entry.batch)
        }

    def _key(self, series_id: int) -> Key:
        series = self.series[series_id]
        return series.site, series.device, series.tag

    def loss_spans(self, sink: str) -> dict[Key, tuple[int, int]]:
        """Per tag the first and the last time in the ledger."""
        found: dict[Key, tuple[int, int]] = {}
        for loss in self.ledger:
            if loss.sink == sink:
                assert loss.series_id is not None
                assert loss.first_ts_ms is not None
                assert loss.last_ts_ms is not None
                key = self._key(loss.series_id)
                first, last = found.get(key, (loss.first_ts_ms, loss.last_ts_ms))
                found[key] = min(first, loss.first_ts_ms), max(last, loss.last_ts_ms)
        return found

    def times_ms(self, sink: str | None = None) -> dict[Key, list[int]]:
        """Per tag the times of the samples that a sink holds, or any of them, in order."""
        samples = set().union(*self.sets.values()) if sink is None else self.sets[sink]
        times: dict[Key, list[int]] = defaultdict(list)
        for site, device, tag, ts_ms, _ in sorted(samples):
            times[site, device, tag].append(ts_ms)
        return times

    def gaps_ms(self, sink: str | None = None) -> dict[Key, int]:
        """Per tag the longest time between two samples that a sink holds, or any of them."""
        return {
            key: max(b - a for a, b in pairwise(times))
            for key, times in self.times_ms(sink).items()
            if len(times) > 1
        }
