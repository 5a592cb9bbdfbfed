"""Messages that others publish, taken in as samples: setting `mqtt.ingest_topics`.

Foreign publishers that speak the seven-key message (`sinks/message.py`) on topics of ours, most
often ``plc/+/+/+``, are stored like polled tags: journal, databases, history. They are not
published again, and what this agent publishes itself is not taken back in.

The way of a message
--------------------
1. `Link` (protocols/mqtt_link.py) hands it over as it arrives. It waits in memory, unacknowledged.
2. `ingest_decoder.py` checks it: seven keys and no other, names and labels as the address map has
   them (`address_map/cells.py`), a finite number or true or false, a ``ts`` with an offset, at most
   an hour ahead and a year old. What is not understood is counted, said once per topic, and done
   with: it would be no better the next time.
3. What the running map polls (site, device and tag) is left out: it is our own message, or one
   that would mix with our own values. The topic alone says it most often, before any decoding.
   So is what we published of a tag that has left the map: see below.
4. A series that is new is written to the book of ingested series, and that is made durable; then
   the sample goes to the journal.
5. When the journal's commit holds it, it is acknowledged to the broker.

What is lost
------------
Nothing that was published with QoS 1 and that the broker keeps for us: the session is persistent
(``SESSION_EXPIRY_S``), and only what the journal has committed is acknowledged. aiomqtt would
acknowledge each message as it hands it over; paho, below it, can leave that to us, and `Link` asks
it to. Killed at any point, the broker delivers again what was not acknowledged: at least once, so
that a sample can come twice. It has the same time then, which PostgreSQL and InfluxDB keep once.
After a lost connection, without a kill, the repetitions are recognised and left out.

What the broker does not keep is lost: its queue for a client that is away or slow is 1,000 messages
in Mosquitto by default (`max_queued_messages`), and QoS 0 is never kept.

How fast
--------
A broker has so many messages unanswered at most: what we allow it (``RECEIVE_MAX``; Mosquitto goes
by that, roughly), or a smaller bound of its own (others: 10 to 100). With a window of 10 and one
commit each 200 ms, that would be 50 messages a second. So a commit is asked for as soon as the
broker seems to wait: when as many messages are unacknowledged as ever were on this connection,
beginning with ``WINDOW_FIRST``. A small window then costs a commit each time that it is full; with
a large one the journal's own rhythm is soon enough, which spares a memory card. Acknowledgements
go in the order of the messages (MQTT 5.0, 4.6), so our own ones wait behind foreign ones.

What comes back
---------------
What is taken in is not published again (`ingested.py`), and what we publish is not taken in: else
one message would go round for ever. The map does not tell our own messages from others': the last
ones of a tag that has left it, or hours of them after an outage of the broker, come when nobody
polls it any more. Their time does not tell it either: a source's clock may be ahead. So, where
`ingest_topics` is set, the MQTT sink marks each message with a user property, the agent's id
(`message.ORIGIN`), which a broker must hand on unaltered (MQTT 5.0, 3.3.2.3.7). That costs the sink
nothing, and who receives it by paho 20 us (decision 18).

The mark alone is not enough: a flow of Node-RED passes user properties on with what it makes of our
values. So a message is our own if it has the mark and its series was ever polled: the journal knows
it, and the book does not say that it has never been ours. Where a mark is lost on the way, as on a
bridge by MQTT 3.1.1 and back, a message is taken in once, as its series is in the book by then.

A series that was ours is another's from an entry on, which is begun for it: the one that collects
now may hold our last samples. While the book is written the journal may number anew, and the map
may begin to poll the series; both are looked at after it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from edge_agent.errors import TransientError
from edge_agent.journal import Journal
from edge_agent.metrics import IngestCounters
from edge_agent.model import Series
from edge_agent.pipeline import ingest_decoder
from edge_agent.pipeline.ingest_decoder import Decoder, Sample, TooManySeriesError
from edge_agent.pipeline.ingested import Ingested, Since
from edge_agent.protocols.mqtt_link import Link, Message, property_of
from edge_agent.protocols.mqtt_syntax import MqttConn
from edge_agent.schedule import Backoff
from edge_agent.settings import MqttSettings
from edge_agent.sinks.message import ORIGIN
from edge_agent.waiting import happens

log = logging.getLogger(__name__)

SESSION_EXPIRY_S: Final = 7 * 86_400
"""How long the broker keeps messages for an agent that is away; its queue is full long before."""
ARRIVED_MAX: Final = 20_000
"""Messages that wait while the journal takes none. More of QoS 0 are dropped and counted. QoS 1 is
held back by the window; but Mosquitto 2.0 sends all that it has queued once one is acknowledged."""
RECEIVE_MAX: Final = 5_000
"""Unacknowledged messages that the broker may have: those of one commit at 25,000/s."""
PER_TURN_MAX: Final = 500
"""Messages decoded in one go: about 5 ms, so that others get their turn."""
WINDOW_FIRST: Final = 10
"""No broker is known to have a smaller window by default."""
TOPICS_SAID_MAX: Final = 1_000
"""Topics that were complained of; of further ones nothing is said, they are counted only."""
SHOWN_BYTES_MAX: Final = 60
"""Of a message that is not understood; enough to recognise it."""
SHOWN_CHARS_MAX: Final = 200
"""Of its topic, and of what is wrong with it, which may quote it."""
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 15.0
"""A broker that returns is noticed within this time."""
IDLE_WAIT_S: Final = 1.0
"""How often a paused or idle task looks at the journal."""
LAST_COMMIT_TIMEOUT_S: Final = 2.0
"""At the end: how long to wait for the commit of what was taken; else it comes again."""
LOGIN_HINT: Final = "check username, password and client certificate of [mqtt]"
FILES_HINT: Final = (
    "check ca_file, cert_file and key_file of [mqtt]: PEM, readable, key not encrypted"
)


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """A message that was not understood, as it can be shown to people."""

    ts_ms: int
    topic: str
    problem: str
    payload: str
    """Its beginning."""


@dataclass(frozen=True, slots=True)
class _Owed:
    """A message that is not acknowledged yet: due once the journal has this entry."""

    packet_id: int
    sequence: int
    sample: Sample | None


class _Run:
    """Samples that follow each other and share a time, on their way to the journal.

    Nothing else may be appended to the journal between the first `add` and `append`.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._ts_ms = 0
        self._ids = array("I")
        self._values: list[float] = []
        self._sequence = 0

    def add(self, sample: Sample) -> int:
        """Add a sample; the entry that will hold it."""
        if sample.ts_ms != self._ts_ms or not self._values:
            self.append()
            self._ts_ms = sample.ts_ms
            self._sequence = self._journal.next_sequence
        self._ids.append(self._journal.intern(sample.series))
        self._values.append(sample.value)
        return self._sequence

    def append(self) -> None:
        """Hand over what there is."""
        if self._values:
            self._journal.append(self._ts_ms, self._ids.tobytes(), self._values)
            self._ids, self._values = array("I"), []


class Ingest:
    """Takes in what is published on some topics, until `stop`. The constructor does no I/O."""

    def __init__(
        self,
        conn: MqttConn,
        topics: Sequence[str],
        journal: Journal,
        book: Ingested,
        *,
        agent_id: str,
        password: str | None,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = IngestCounters()
        self.connected = False
        self.error: str | None = "not connected yet"
        """Why nothing is taken in; None while all is well."""
        self.error_since_ms: int | None = None
        """Of the first failure; None before it, and while all is well."""
        self.topics = tuple(topics)
        self.refused: dict[str, str] = {}
        """The topics whose subscription the broker refuses, and why."""
        self.last_not_understood: NotUnderstood | None = None
        self.beat_at = monotonic()
        """Monotonic time at which it last showed that it is alive, for the watchdog."""
        self._conn = conn
        self._journal = journal
        self._book = book
        self._agent_id = agent_id
        self._client_id = f"edge-agent-{agent_id}-ingest"
        self._password = password
        self._decoder = Decoder(book, now_ms)
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._sessions = 0
        self._arrived: deque[Message] = deque()
        self._overrun = False
        """A message of QoS 1 could not be kept; with a new connection it comes again."""
        self._owed: deque[_Owed] = deque()
        self._repeats: dict[Sample, int] = {}
        """What was owed when a connection was lost, with the entry that holds it."""
        self._generation = -1
        """The journal's that numbers what is owed and what may be repeated."""
        self._window = WINDOW_FIRST
        self._failures = 0
        self._said: set[str] = set()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)

    @property
    def name(self) -> str:
        """As in the name of its task."""
        return "mqtt.ingest"

    @property
    def broker(self) -> str:
        """Its address."""
        return str(self._conn)

    @property
    def timeout_s(self) -> float:
        """How long the broker may take to answer: so long it shows no sign of life."""
        return self._conn.timeout_ms / 1000

    @property
    def waiting(self) -> int:
        """Messages that have arrived and are not done with: not in the journal's commit yet."""
        return len(self._arrived) + len(self._owed)

    @property
    def series(self) -> int:
        """Series that were ever taken in."""
        return len(self._book)

    @property
    def series_max(self) -> int:
        """Further ones are left out."""
        return ingest_decoder.SERIES_MAX

    def stop(self) -> None:
        """Take nothing more; acknowledge what the journal has, then end."""
        self._stopping.set()
        self._wake.set()

    async def run(self) -> None:
        """Take in until `stop`. Never raises because of a broker or a message."""
        ticker = asyncio.create_task(self._tick(), name="ingest.tick")
        try:
            while not self._stopping.is_set():
                self._beat()
                try:
                    if self._journal.accepting:
                        await self._session()
                    else:
                        await happens(self._stopping, IDLE_WAIT_S)
                except TransientError as error:
                    self._failed(error)
                    await happens(self._stopping, self._backoff.next_s())
        finally:
            ticker.cancel()
            await asyncio.wait([ticker])

    def _beat(self) -> None:
        self.beat_at = self._monotonic()

    async def _tick(self) -> None:
        """Each commit, and each second, is a reason to look what can be acknowledged."""
        while True:
            await self._journal.wait(IDLE_WAIT_S)
            self._wake.set()

    async def _session(self) -> None:
        """One connection, from connect to its end or `stop`."""
        self._begin()
        link = await Link.open(
            self._conn,
            partial(self._take, self._sessions),
            client_id=self._client_id,
            password=self._password,
            session_expiry_s=SESSION_EXPIRY_S,
            receive_max=RECEIVE_MAX,
            manual_acknowledge=True,
            login_hint=LOGIN_HINT,
            files_hint=FILES_HINT,
        )
        link.when_lost(self._wake.set)
        self._beat()
        try:
            await self._subscribe(link)
            self._up()
            while not self._stopping.is_set():
                self._beat()
                link.check()
                if self._journal.generation != self._generation:
                    raise TransientError("the journal has been replaced, connecting anew")
                if self._overrun:
                    raise TransientError(f"{self._conn}: the broker sends more than it may")
                self._wake.clear()
                if not await self._take_in():
                    self._acknowledge(link)
                    await self._wake.wait()
                self._acknowledge(link)
            await self._last_acknowledgements(link)
        finally:
            self.connected = False
            await link.close()
            self._begin()

    async def _subscribe(self, link: Link) -> None:
        refusals = await link.subscribe(self.topics, retained_once=True)
        found = zip(self.topics, refusals, strict=True)
        self.refused = {topic: refusal for topic, refusal in found if refusal is not None}
        for topic, refusal in self.refused.items():
            self._say_once(topic, f"the broker refuses the subscription: {refusal}")
        if all(refusals):
            raise TransientError(
                f"{self._conn}: the broker refuses every subscription: {refusals[0]}",
                hint="check mqtt.ingest_topics, and the broker's rights for mqtt.username",
            )

    def _up(self) -> None:
        if self._failures:
            log.info("ingest: %s: takes in again after %d failures", self._conn, self._failures)
        self.counters.connects += 1
        self.connected, self._failures = True, 0
        self.error = self.error_since_ms = None
        self._window = WINDOW_FIRST
        self._backoff.reset()

    def _failed(self, error: TransientError) -> None:
        self.error = f"{error}; {error.hint}" if error.hint else str(error)
        level = logging.DEBUG
        if not self._failures:
            self.error_since_ms = self._now_ms()
            level = logging.WARNING
        self._failures += 1
        log.log(level, "ingest: %s, will try again", self.error)

    def _begin(self) -> None:
        """The connection is gone, and with it every packet id; what is owed comes again."""
        self._sessions += 1
        self._repeats |= {o.sample: o.sequence for o in self._owed if o.sample is not None}
        over = len(self._repeats) - ARRIVED_MAX  # some never came again
        for sample in list(islice(self._repeats, max(over, 0))):
            del self._repeats[sample]
        if self._journal.generation != self._generation:
            self._generation = self._journal.generation
            self._repeats.clear()
        self._owed.clear()
        self._overrun = False
        self._arrived = deque(message for message in self._arrived if message.qos == 0)

    # -- messages -------------------------------------------------------------------------------

    def _take(self, session: int, message: Message) -> None:
        """One message, as it arrives. Never raises."""
        if message.qos and session != self._sessions:
            return  # its packet id means nothing any more; it comes again
        self.counters.messages += 1
        if len(self._arrived) < ARRIVED_MAX:
            self._arrived.append(message)
        elif message.qos == 0:
            self.counters.overflowed += 1
        else:
            self._overrun = True
        self._wake.set()

    async def _take_in(self) -> bool:
        """Bring some messages to the journal; whether there were any."""
        if not self._arrived or not self._journal.accepting:
            return False
        messages = list(islice(self._arrived, PER_TURN_MAX))
        samples = [self._understood(message) for message in messages]
        found = {sample.series for sample in samples if sample is not None}
        if new := sorted(series for series in found if series not in self._book):
            await self._write_down(new)
            samples = [self._not_polled(sample) for sample in samples]
        run = _Run(self._journal)
        for message, sample in zip(messages, samples, strict=True):
            sequence = 0 if sample is None else self._append(sample, run)
            if message.qos:
                self._owed.append(_Owed(message.mid, sequence, sample))
            self._arrived.popleft()
        run.append()
        return True

    async def _write_down(self, new: Sequence[Series]) -> None:
        """Have the book say that series are another's from now on."""
        ours = [s for s in new if self._journal.knows(s) or s in self._book.series]
        if not ours:
            await asyncio.to_thread(self._book.add, new)
            return
        generation = -1
        while self._journal.generation != generation:  # it numbers anew since
            generation = self._journal.generation
            since = Since(self._journal.journal_id, self._journal.begin_entry())
            await asyncio.to_thread(self._book.add, new, dict.fromkeys(ours, since))

    def _not_polled(self, sample: Sample | None) -> Sample | None:
        """The sample, unless the map has begun to poll it since it was looked at."""
        if sample is None:
            return None
        if self._book.is_polled(sample.series.key):
            self.counters.own += 1
            return None
        return sample

    def _append(self, sample: Sample, run: _Run) -> int:
        """Hand a sample to the journal; the entry that will hold it."""
        if self._repeats and (sequence := self._repeats.pop(sample, None)) is not None:
            self.counters.repeated += 1
            return sequence
        self.counters.samples += 1
        return run.add(sample)

    def _understood(self, message: Message) -> Sample | None:
        topic = message.topic.value
        levels = topic.split("/")
        if levels[0] == "plc" and self._book.is_polled(tuple(levels[1:])):
            self.counters.own += 1
            return None
        try:
            sample = self._decoder.sample(message.payload)
        except ValueError as error:
            self.counters.not_understood += 1
            shown = message.payload[:SHOWN_BYTES_MAX].decode(errors="replace")
            self.last_not_understood = NotUnderstood(
                self._now_ms(), _shown(topic), _shown(str(error)), _shown(shown)
            )
            self._say_once(topic, f"message not understood: {error}; payload={shown!r}")
            return None
        except TooManySeriesError:
            self.counters.over_series_max += 1
            if self.counters.over_series_max == 1:
                log.warning(
                    "ingest: more than %d series, new ones are left out (said once);"
                    " topic=%s; narrow mqtt.ingest_topics",
                    self.series_max,
                    topic,
                )
            return None
        if sample is None or self._is_own(message, sample.series):
            self.counters.own += 1
            return None
        return sample

    def _is_own(self, message: Message, series: Series) -> bool:
        """Whether we have published it, of a tag that the map does not have any more."""
        if property_of(message, ORIGIN) != self._agent_id or not self._journal.knows(series):
            return False
        since = self._book.since(series)
        return since is None or since.sequence > 0

    def _say_once(self, topic: str, text: str) -> None:
        level = logging.DEBUG
        if topic not in self._said and len(self._said) < TOPICS_SAID_MAX:
            self._said.add(topic)
            level = logging.WARNING
        log.log(level, "ingest: topic %s: %s (said once per topic)", topic, text)

    # -- acknowledgements -----------------------------------------------------------------------

    def _acknowledge(self, link: Link) -> None:
        """Acknowledge what is durable, and ask for a commit if the broker seems to wait for it."""
        if self._journal.generation != self._generation:
            return
        durable = self._journal.last_sequence
        due: list[int] = []
        while self._owed and self._owed[0].sequence <= durable:
            due.append(self._owed.popleft().packet_id)
        link.acknowledge(due)
        if len(self._owed) >= self._window:
            self._window = len(self._owed)
            self._journal.commit_soon()

    async def _last_acknowledgements(self, link: Link) -> None:
        """Wait for the commit of what was taken, but not for long: else it comes again."""
        try:
            async with asyncio.timeout(LAST_COMMIT_TIMEOUT_S):
                while self._owed and self._journal.generation == self._generation:
                    self._journal.commit_soon()
                    self._wake.clear()
                    await self._wake.wait()
                    link.check()
                    self._acknowledge(link)
                # Hanging up on a broker that is still sending resets the connection, and what it
                # had not read is lost. Its answer to this says that it has read all before it.
                await link.subscribe(self.topics, retained_once=True)
        except TimeoutError:
            log.warning("ingest: ends with %d messages not committed yet", len(self._owed))


def _shown(text: str) -> str:
    """What a stranger wrote, short and safe for a terminal."""
    short = text[:SHOWN_CHARS_MAX]
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in short)


def from_settings(
    settings: MqttSettings,
    journal: Journal,
    book: Ingested,
    *,
    agent_id: str,
    now_ms: Callable[[], int],
    monotonic: Callable[[], float] = time.monotonic,
) -> Ingest:
    """What takes in by these settings, which name a broker and topics."""
    assert settings.broker is not None
    conn = MqttConn(
        *settings.broker,
        user=settings.username,
        ca=_text(settings.ca_file),
        cert=_text(settings.cert_file),
        key=_text(settings.key_file),
    )
    password = settings.password
    return Ingest(
        conn,
        settings.ingest_topics,
        journal,
        book,
        agent_id=agent_id,
        password=password.get_secret_value() if password is not None else None,
        now_ms=now_ms,
        monotonic=monotonic,
    )


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
