"""The PostgreSQL sink against a real server: exactly once, whatever happens in between."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge_agent.clock import DAY_MS
from edge_agent.errors import ConfigError, RejectedRows, TransientError
from edge_agent.journal import Journal
from edge_agent.model import Batch, Series
from edge_agent.pipeline.delivery import DeliveryRunner
from edge_agent.postgres import database
from edge_agent.sinks.base import JournalIdentity, Pace
from edge_agent.sinks.postgres import PostgresSink
from tests import journals
from tests.integration.plc_database import (
    SERIES,
    Cluster,
    CuttingProxy,
    Database,
    batch,
    expected_rows,
    now_ms,
    scans,
)
from tests.servers import wait_until

JOURNAL = JournalIdentity("edge-1", "journal-1")


@asynccontextmanager
async def opened(
    dsn: str, journal: JournalIdentity = JOURNAL, command_timeout_s: float = 30.0
) -> AsyncIterator[PostgresSink]:
    """A sink that is open within the block."""
    sink = PostgresSink(agent_id="edge-1", dsn=dsn, command_timeout_s=command_timeout_s)
    await sink.open(journal)
    try:
        yield sink
    finally:
        await sink.close()


async def deliver_until_taken(sink: PostgresSink, batches: list[Batch]) -> int:
    """What the delivery runner does after a TransientError; returns the attempts it took."""
    for attempt in range(1, 11):
        try:
            await sink.open(JOURNAL)
            await sink.deliver(batches)
        except TransientError:
            await sink.close()
            await asyncio.sleep(0.05)
        else:
            return attempt
    raise AssertionError("not delivered in ten attempts")


async def test_values_arrive_exactly(db: Database) -> None:
    """Every column of every sample arrives as it was, the extremes of float64 and text included."""
    start = now_ms()
    values = [0.0, -0.0, 5e-324, -1.7976931348623157e308, 0.1, 2**53 + 1.0, -273.15]
    samples = [(start + i, 1 + i % 3, value) for i, value in enumerate(values)]
    async with opened(db.dsn()) as sink:
        assert await sink.deliver([batch(1, samples)]) == 0
    rows = await db.query(
        "SELECT (extract(epoch FROM ts) * 1000)::bigint, site, line, device, tag, value, unit"
        " FROM plc_raw ORDER BY ts"
    )
    assert [(row[0], row[5].hex()) for row in rows] == [(ts, v.hex()) for ts, _, v in samples]
    assert [Series._make([*row[1:5], row[6]]) for row in rows] == [SERIES[s] for _, s, _ in samples]


async def test_a_batch_handed_again_is_not_written_again(db: Database) -> None:
    """Batches at or below the cursor are skipped, within a connection and across a new one."""
    batches = [scans(n, now_ms() + n * 1000, 4) for n in (1, 2, 3)]
    async with opened(db.dsn()) as sink:
        assert await sink.deliver(batches[:2]) == 0
        assert await sink.deliver(batches) == 0
        assert await sink.deliver([]) == 0
    async with opened(db.dsn()) as sink:
        assert await sink.deliver(batches) == 0
    assert await db.rows() == expected_rows(batches)


async def test_a_fresh_journal_never_meets_an_old_cursor(db: Database) -> None:
    """The same sequence numbers of another journal are other batches."""
    first, second = scans(1, now_ms(), 3), scans(1, now_ms() + 60_000, 3)
    async with opened(db.dsn()) as sink:
        await sink.deliver([first])
    async with opened(db.dsn(), JournalIdentity("edge-1", "journal-2")) as sink:
        await sink.deliver([second])
    assert await db.rows() == expected_rows([first, second])


async def test_cut_at_every_kind_of_byte(db: Database) -> None:
    """Whatever byte of a delivery is the last to pass, the rows are there exactly once after it.

    The wire is cut in both directions: evenly over the whole delivery, and at each of the last
    bytes, where the COMMIT and its answer travel.
    """
    start, number, delivered = now_ms(), 0, []
    taken_unseen = taken_later = 0

    def next_batches() -> list[Batch]:
        nonlocal number
        number += 2
        return [scans(n, start + n * 20_000, 40) for n in (number - 1, number)]

    async with CuttingProxy(db.cluster.server.port) as proxy:
        sink = PostgresSink(
            agent_id="edge-1", dsn=f"postgresql://agent@127.0.0.1:{proxy.port}/{db.name}"
        )
        for _ in range(2):  # the second one measures a delivery to a day that is known
            await sink.open(JOURNAL)
            proxy.arm()
            delivered += (batches := next_batches())
            await sink.deliver(batches)
        sent, received = proxy.sent, proxy.received
        assert sent > 8_000
        positions: list[tuple[float, float]] = [
            *((at, float("inf")) for at in range(1, sent - 24, sent // 24)),
            *((at, float("inf")) for at in range(sent - 24, sent + 1)),
            *((float("inf"), at) for at in range(1, received - 18, received // 24)),
            *((float("inf"), at) for at in range(received - 18, received)),
        ]
        for sent_max, received_max in positions:
            batches = next_batches()
            await sink.open(JOURNAL)
            proxy.arm(sent_max, received_max)
            with pytest.raises(TransientError):
                await sink.deliver(batches)
            proxy.arm()
            before = await db.query("SELECT sequence FROM plc_cursor")
            if before[0][0] == batches[-1].sequence:
                taken_unseen += 1
            else:
                taken_later += 1
            await deliver_until_taken(sink, batches)
            delivered += batches
        await sink.close()
    assert await db.rows() == expected_rows(delivered)
    assert taken_unseen > 10, "no cut came between the commit and its answer"
    assert taken_later > 40


async def test_server_killed_and_restarted(tmp_path_factory: pytest.TempPathFactory) -> None:
    """kill -9 of the server while batches flow: after its recovery nothing is lost or doubled."""
    cluster = await asyncio.to_thread(Cluster, tmp_path_factory.mktemp("killed"))
    try:
        db = Database(cluster, await cluster.fresh())
        batches = [scans(n, now_ms() + n * 1000, 5) for n in range(1, 200)]
        sink = PostgresSink(agent_id="edge-1", dsn=db.dsn())
        await sink.open(JOURNAL)
        acknowledged = 0

        async def flow() -> None:
            nonlocal acknowledged
            for each in batches:
                await sink.deliver([each])
                acknowledged += 1

        flowing = asyncio.create_task(flow())
        while acknowledged < 20:
            await asyncio.sleep(0.005)
        await asyncio.to_thread(cluster.server.stop, signal.SIGKILL)
        with pytest.raises(TransientError):
            await flowing
        assert acknowledged < len(batches)
        started = time.monotonic()
        with pytest.raises(TransientError, match="Connection refused"):
            await sink.open(JOURNAL)
        assert time.monotonic() - started < 2
        await asyncio.to_thread(_start_again, cluster)
        await deliver_until_taken(sink, batches[acknowledged:])
        await sink.close()
        assert await db.rows() == expected_rows(batches)
    finally:
        cluster.server.stop()


def _start_again(cluster: Cluster) -> None:
    """The killed server's children need a moment to notice that they are orphans."""

    def started() -> bool:
        try:
            cluster.server.start()
        except RuntimeError:
            cluster.server.stop()
            return False
        return True

    wait_until(started, "restart after kill -9")


async def test_rows_that_are_there_already_count_as_duplicates(db: Database) -> None:
    """Rows of another writer, and doubles within the batches, are skipped and counted.

    The first value of a key stays.
    """
    first = scans(1, now_ms(), 10)
    again = batch(2, [(first.runs[0][0], 1, -1.0), (first.runs[0][0] + 1, 1, 7.0)])
    double = batch(3, [(now_ms() + 5000, 2, 1.0)] * 3)
    later = scans(4, now_ms() + 60_000, 2)
    async with opened(db.dsn()) as sink:
        await sink.deliver([first])
        assert await sink.deliver([again, double]) == 3
        assert await sink.deliver([later]) == 0
    assert await db.rows() == expected_rows([first, again, double, later])


async def test_two_agents_on_one_journal(db: Database) -> None:
    """Of two that deliver the same batches at once, one writes; the other is told and skips."""
    batches = [scans(n, now_ms() + n * 10_000, 20) for n in (1, 2)]
    async with opened(db.dsn()) as one, opened(db.dsn()) as other:
        results = await asyncio.gather(
            one.deliver(batches), other.deliver(batches), return_exceptions=True
        )
        assert [type(result) for result in results if result != 0] == [TransientError]
        loser = one if results[0] != 0 else other
        with pytest.raises(TransientError, match="not open"):
            await loser.deliver(batches)
        await loser.open(JOURNAL)
        assert await loser.deliver(batches) == 0
    assert await db.rows() == expected_rows(batches)


async def test_two_journals_with_the_same_samples(db: Database) -> None:
    """Two writers of equal rows, at the same time, end with each row once."""
    batches = [scans(n, now_ms() + n * 10_000, 30) for n in (1, 2)]
    async with (
        opened(db.dsn()) as one,
        opened(db.dsn(), JournalIdentity("edge-2", "journal-2")) as other,
    ):
        duplicates = await asyncio.gather(one.deliver(batches), other.deliver(batches))
    assert sum(duplicates) == sum(map(len, batches))
    assert await db.rows() == expected_rows(batches)


async def test_refused_rows_are_named_and_the_rest_is_kept(db: Database) -> None:
    """A constraint and a trigger of the user's refuse some rows; duplicates mix in.

    Exactly the bad ones are reported, by batch and position, and the next attempt has moved on.
    """
    await db.execute(
        "ALTER TABLE plc_raw ADD CONSTRAINT sane CHECK (value < 1e6);"
        "CREATE FUNCTION no_fan() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        " IF new.device = 'FAN02' AND new.value > 100 THEN RAISE 'fan too fast'; END IF;"
        " RETURN new; END$$;"
        "CREATE TRIGGER no_fan BEFORE INSERT ON plc_raw FOR EACH ROW EXECUTE FUNCTION no_fan()"
    )
    start = now_ms()
    there = batch(1, [(start, 1, 1.0)])
    first = batch(2, [(start, 1, 2.0), (start, 2, 1e7), (start, 3, 50.0)])
    second = batch(3, [(start + 1, 3, 101.0), (start + 1, 1, 3.0), (start + 1, 2, 4.0)])
    async with opened(db.dsn()) as sink:
        await sink.deliver([there])
        with pytest.raises(RejectedRows) as caught:
            await sink.deliver([first, second])
        assert [(row.sequence, row.index) for row in caught.value.rows] == [(2, 1), (3, 0)]
        assert "sane" in caught.value.rows[0].reason
        assert "fan too fast" in caught.value.rows[1].reason
        assert caught.value.duplicates == 1
        assert await sink.deliver([batch(4, [(start + 2, 1, 9.0)])]) == 0
    assert sorted((await db.rows()).values()) == [1.0, 3.0, 4.0, 9.0, 50.0]


def refused_places(error: RejectedRows) -> list[tuple[int, int]]:
    """Batch and position of each refused row."""
    return [(row.sequence, row.index) for row in error.rows]


async def refused_again(sink: PostgresSink, batches: list[Batch]) -> list[tuple[int, int]]:
    """Hand over what is refused in part; which rows are."""
    with pytest.raises(RejectedRows) as caught:
        await sink.deliver(batches)
    return refused_places(caught.value)


async def refuse_high_values(db: Database) -> None:
    """From now on plc_raw takes no value of 1e6 or more."""
    await db.execute("ALTER TABLE plc_raw ADD CONSTRAINT sane CHECK (value < 1e6)")


def partly_refused(first_sequence: int, start_ms: int) -> list[Batch]:
    """Three batches: one row refused by the table, none, and one by it and one for its time."""
    one, two, three = range(first_sequence, first_sequence + 3)
    return [
        batch(one, [(start_ms, 1, 1.0), (start_ms, 2, 1e7)]),
        batch(two, [(start_ms + 1, 1, 2.0)]),
        batch(three, [(0, 1, 3.0), (start_ms + 2, 1, 4.0), (start_ms + 3, 1, 1e7)]),
    ]


async def test_what_was_refused_is_refused_again(db: Database) -> None:
    """Batches that the cursor skips are answered as they were: by this connection and by the next.

    Whatever came in between, however they are cut, and beside batches that are new.
    """
    await refuse_high_values(db)
    start = now_ms()
    one, two, three = partly_refused(1, start)
    four = batch(4, [(start + 4, 1, 1e7), (start + 4, 2, 5.0)])
    async with opened(db.dsn()) as sink:
        with pytest.raises(RejectedRows) as first:
            await sink.deliver([one, two])
        assert await refused_again(sink, [three]) == [(3, 0), (3, 2)]
    async with opened(db.dsn()) as sink:
        with pytest.raises(RejectedRows) as again:
            await sink.deliver([one])
        assert again.value.rows == first.value.rows
        assert await sink.deliver([two]) == 0
        assert await refused_again(sink, [three, four]) == [(3, 0), (3, 2), (4, 0)]
    async with opened(db.dsn()) as sink:
        every = [(1, 1), (3, 0), (3, 2), (4, 0)]
        assert await refused_again(sink, [one, two, three, four]) == every
    assert sorted((await db.rows()).values()) == [1.0, 2.0, 4.0, 5.0]


async def test_what_was_refused_is_forgotten_once_the_journal_has_it(db: Database) -> None:
    """The cursor's row holds no more than what may come again; as a rule that is nothing."""
    await refuse_high_values(db)
    start = now_ms()
    one, two, three = partly_refused(1, start)
    async with opened(db.dsn()) as sink:
        assert await refused_again(sink, [one]) == [(1, 1)]
        sink.settled(0)
        assert await refused_again(sink, [two, three]) == [(3, 0), (3, 2)]
        held = "SELECT jsonb_path_query_array(refused, '$[*][0]')::text FROM plc_cursor"
        assert (await db.query(held))[0][0] == "[1, 3]"
        sink.settled(2)
        assert await sink.deliver([batch(4, [(start + 4, 1, 1.0)])]) == 0
        assert (await db.query(held))[0][0] == "[3]"
        sink.settled(4)
        assert await sink.deliver([batch(5, [(start + 5, 1, 1.0)])]) == 0
        assert (await db.query(held))[0][0] == "[]"


async def test_what_was_refused_of_another_journal_is_another_matter(db: Database) -> None:
    """The same sequences of a fresh journal are other batches, of which nothing is known."""
    await refuse_high_values(db)
    start = now_ms()
    async with opened(db.dsn()) as sink:
        assert await refused_again(sink, [batch(1, [(start, 1, 1e7)])]) == [(1, 0)]
    async with opened(db.dsn(), JournalIdentity("edge-1", "journal-2")) as sink:
        assert await sink.deliver([batch(1, [(start, 1, 1.0)])]) == 0


async def test_a_batch_thinned_meanwhile_is_compared_with_the_table(db: Database) -> None:
    """A full journal halved it after a kill: its positions are others, and no row comes twice."""
    await refuse_high_values(db)
    start = now_ms()
    samples = [(start + n, 1, 1e7 if n % 3 == 0 else float(n)) for n in range(10)]
    async with opened(db.dsn()) as sink:
        assert await refused_again(sink, [batch(1, samples)]) == [(1, n) for n in (0, 3, 6, 9)]
    before = await db.rows()
    thinned, fresh = batch(1, samples[1::2]), batch(2, [(start + 20, 1, 20.0)])
    async with opened(db.dsn()) as sink:
        assert await refused_again(sink, [thinned]) == [(1, 1), (1, 4)]
        assert await refused_again(sink, [thinned, fresh]) == [(1, 1), (1, 4)]
    async with opened(db.dsn()) as sink:
        assert await refused_again(sink, [thinned, fresh]) == [(1, 1), (1, 4)]
    assert await db.rows() == before | expected_rows([fresh])


async def test_too_much_that_was_refused_waits_for_the_journal(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past REFUSED_MAX nothing new is taken until the journal has it; what comes again is."""
    monkeypatch.setattr("edge_agent.sinks.postgres.REFUSED_MAX", 2)
    await refuse_high_values(db)
    start = now_ms()
    one, two, three = partly_refused(1, start)
    later = batch(4, [(start + 9, 1, 9.0)])
    async with opened(db.dsn()) as sink:
        await refused_again(sink, [one])
        await refused_again(sink, [two, three])
        with pytest.raises(TransientError, match="3 refused rows wait") as caught:
            await sink.deliver([later])
        assert "journal's disk" in caught.value.hint
    async with opened(db.dsn()) as sink:
        assert await refused_again(sink, [one, two]) == [(1, 1)]
        sink.settled(1)
        assert await refused_again(sink, [three, later]) == [(3, 0), (3, 2)]
    assert sorted((await db.rows()).values()) == [1.0, 2.0, 4.0, 9.0]


async def test_refused_rows_and_the_lost_answer_of_a_commit(db: Database) -> None:
    """Cut at each of the last bytes of both directions: the rows are refused all the same."""
    await refuse_high_values(db)
    handed = taken_unseen = taken_later = 0
    # As many digits each time, also where the server quotes a time: the bytes are counted.
    number, start = 101, now_ms() // 10 * 10 + 1

    def next_batches() -> list[Batch]:
        nonlocal number, handed
        number, handed = number + 3, handed + 1
        return partly_refused(number - 3, start + number * 10)

    async with CuttingProxy(db.cluster.server.port) as proxy:
        sink = PostgresSink(
            agent_id="edge-1", dsn=f"postgresql://agent@127.0.0.1:{proxy.port}/{db.name}"
        )
        for _ in range(2):  # the second one measures a delivery to a day that is known
            batches = next_batches()
            await sink.open(JOURNAL)
            sink.settled(batches[0].sequence - 1)
            proxy.arm()
            await refused_again(sink, batches)
        sent, received = proxy.sent, proxy.received
        for sent_max, received_max in [
            *((at, float("inf")) for at in range(sent - 12, sent + 1, 2)),
            *((float("inf"), at) for at in range(received - 18, received, 2)),
        ]:
            batches = next_batches()
            await sink.open(JOURNAL)
            sink.settled(batches[0].sequence - 1)
            proxy.arm(sent_max, received_max)
            with pytest.raises(TransientError):
                await sink.deliver(batches)
            proxy.arm()
            reached = (await db.query("SELECT sequence FROM plc_cursor"))[0][0]
            if reached == batches[-1].sequence:
                taken_unseen += 1
            else:
                taken_later += 1
            await sink.open(JOURNAL)
            first = batches[0].sequence
            expected = [(first, 1), (first + 2, 0), (first + 2, 2)]
            assert await refused_again(sink, batches) == expected
        await sink.close()
    assert len(await db.rows()) == 3 * handed
    assert taken_unseen > 5, "no cut came between the commit and its answer"
    assert taken_later > 2


@pytest.mark.parametrize("samples_max", [1, 20_000])
async def test_the_books_are_right_after_a_kill(
    db: Database, tmp_path: Path, samples_max: int
) -> None:
    """Killed between the server's COMMITs and the journal's: refused rows are in quarantine.

    In one hand-over and in ten: none of them is in the journal's books before its next commit.
    """
    await refuse_high_values(db)
    journal = await journals.opened(tmp_path / "journal.db", ["postgres"])
    ids = array("I", [journal.intern(SERIES[1]), journal.intern(SERIES[2])]).tobytes()
    start = now_ms()
    for n in range(10):
        journal.append(start + n, ids, [1.0, 1e7])
        assert await journals.commit(journal)
    await _drain(journal, db, samples_max)
    assert journal.totals()["postgres"].quarantined == 10
    journals.abandon(journal)
    journal = await journals.opened(tmp_path / "journal.db", ["postgres"])
    assert journal.totals()["postgres"].delivered == 0
    await _drain(journal, db, samples_max)
    assert await journals.commit(journal)
    books = journal.totals()["postgres"]
    await journal.close()
    assert (books.delivered, books.quarantined, books.lost) == (10, 10, 0)
    assert len(await db.rows()) == 10


async def _drain(journal: Journal, db: Database, samples_max: int) -> None:
    """Deliver what there is; the journal does not commit meanwhile."""
    sink = PostgresSink(agent_id="edge-1", dsn=db.dsn())
    runner = DeliveryRunner(
        sink, journal, agent_id="edge-1", pace=Pace(samples_max), now_ms=now_ms, keeper=sink
    )
    running = asyncio.create_task(runner.run())
    assert await runner.drained(30)
    running.cancel()
    await asyncio.wait([running])


async def test_a_database_without_the_refusals_says_what_to_run(db: Database) -> None:
    """One of an older version is not delivered to; `db init` adds the column, and all goes on."""
    await db.execute(
        "ALTER TABLE plc_cursor DROP COLUMN refused;"
        "UPDATE schema_version SET sha256 = '' WHERE name = '060_delivery.sql'"
    )
    delivered = [scans(1, now_ms(), 2)]
    with pytest.raises(TransientError, match="refused") as caught:
        async with opened(db.dsn()):
            pass
    assert "edge-agent db init" in caught.value.hint
    assert (await database.init(db.owner_dsn)).applied == ("060_delivery.sql",)
    async with opened(db.dsn()) as sink:
        assert await sink.deliver(delivered) == 0
    assert await db.rows() == expected_rows(delivered)


async def test_many_refused_rows_are_found_within_seconds(db: Database) -> None:
    """Half of 3,000 rows refused is the worst case for halving, and takes a moment only."""
    await db.execute("ALTER TABLE plc_raw ADD CONSTRAINT even CHECK (value::bigint % 2 = 0)")
    samples = [(now_ms() + i, 1, float(i)) for i in range(3000)]
    started = time.monotonic()
    async with opened(db.dsn()) as sink:
        with pytest.raises(RejectedRows) as caught:
            await sink.deliver([batch(1, samples)])
    assert [row.index for row in caught.value.rows] == list(range(1, 3000, 2))
    assert len(await db.rows()) == 1500
    assert time.monotonic() - started < 10


async def test_texts_that_cannot_be_stored(db: Database) -> None:
    """A NUL character, a lone surrogate and a name too long for the index reject their rows."""
    series = {
        **SERIES,
        4: Series("A1", "L1", "NUL\0", "T", ""),
        5: Series("A1", "L1", "HALF\ud800", "T", ""),
        6: Series("A1", "L1", "LONG", secrets.token_hex(8000), ""),
    }
    samples = [(now_ms(), series_id, 1.0) for series_id in (4, 1, 5, 2, 6, 3)]
    async with opened(db.dsn()) as sink:
        with pytest.raises(RejectedRows) as caught:
            await sink.deliver([batch(1, samples, series)])
    reasons = {row.index: row.reason for row in caught.value.rows}
    assert reasons.keys() == {0, 2, 4}
    assert "NUL" in reasons[0]
    assert "surrogate" in reasons[2]
    assert "54000" in reasons[4]
    async with opened(db.dsn()) as sink:
        with pytest.raises(RejectedRows) as again:
            await sink.deliver([batch(1, samples, series)])
    assert again.value.rows == caught.value.rows
    assert len(await db.rows()) == 3


async def test_late_rows_find_their_day(db: Database) -> None:
    """Rows of days without a partition, a year ago or days ahead, are written like any other."""
    days = (-1000, -365, -40, -1, 0, 1, 6)
    late = batch(1, [(now_ms() + day * DAY_MS, 1, float(day)) for day in days])
    async with opened(db.dsn()) as sink:
        assert await sink.deliver([late]) == 0
    assert await db.rows() == expected_rows([late])


async def test_a_clock_far_off_is_refused(db: Database) -> None:
    """Times of 1970, of 2100 and beyond every calendar reject their rows and make no partition."""
    good = now_ms()
    samples = [(0, 1, 1.0), (good, 1, 2.0), (4_102_444_800_000, 2, 3.0), (2**62, 3, 4.0)]
    async with opened(db.dsn()) as sink:
        with pytest.raises(RejectedRows, match="clock") as caught:
            await sink.deliver([batch(1, samples), batch(2, [(-(2**62), 1, 1.0)])])
        assert [(row.sequence, row.index) for row in caught.value.rows] == [
            (1, 0), (1, 2), (1, 3), (2, 0),
        ]  # fmt: skip
        assert await sink.deliver([batch(3, [(good + 1, 1, 1.0)])]) == 0
    assert list((await db.rows()).values()) == [2.0, 1.0]


async def test_a_partition_dropped_meanwhile_is_made_again(db: Database) -> None:
    """Retention takes a day that the sink has written to: the runner's next attempt succeeds.

    Where partitions need not be made (*timescale*), this very attempt does.
    """
    old = now_ms() - 200 * DAY_MS
    late = [batch(2, [(old + 1, 1, 2.0)])]
    async with opened(db.dsn()) as sink:
        await sink.deliver([batch(1, [(old, 1, 1.0)])])
        if db.cluster.flavour == "timescale":
            await db.execute("CALL plc_expire(0, '{}')")
            assert await db.rows() == {}
            assert await sink.deliver(late) == 0
        else:
            await db.execute("DELETE FROM plc_dirty")
            assert (await db.query("SELECT * FROM plc_retention()", user="agent"))[0][0] == 1
            with pytest.raises(TransientError, match="no partition"):
                await sink.deliver(late)
            assert await deliver_until_taken(sink, late) == 1
    assert list((await db.rows()).values()) == [2.0]


async def test_missing_schema_privilege_database_and_password(
    cluster: Cluster, db: Database
) -> None:
    """Each thing that an operator forgot is a TransientError whose hint says what to run."""
    await cluster.fresh()
    cases = [
        (cluster.server.dsn("agent"), "plc_cursor", "edge-agent db init"),
        (db.dsn("stranger"), "permission denied", "GRANT ingest TO stranger"),
        (cluster.server.dsn("agent", "nowhere"), "does not exist", "create the database"),
        (
            db.dsn("guarded").replace("guarded", "guarded:wr0ng-word"),
            "password authentication failed",
            "check the user and the password",
        ),
    ]
    for dsn, message, hint in cases:
        sink = PostgresSink(agent_id="edge-1", dsn=dsn)
        with pytest.raises(TransientError, match=message) as caught:
            await sink.open(JOURNAL)
        assert hint in caught.value.hint
        assert "wr0ng" not in f"{caught.value} {caught.value.hint} {sink!r}"
        await sink.close()
    async with opened(db.dsn("guarded").replace("guarded", "guarded:s3cret%2Fword")) as sink:
        assert await sink.deliver([scans(1, now_ms(), 2)]) == 0


async def test_a_lost_privilege_stops_delivery_with_a_hint(db: Database) -> None:
    """INSERT revoked while running: nothing is rejected, everything waits for the operator."""
    batches = [scans(1, now_ms(), 5)]
    async with opened(db.dsn()) as sink:
        await db.execute("REVOKE INSERT ON plc_raw FROM ingest")
        with pytest.raises(TransientError, match="permission denied") as caught:
            await sink.deliver(batches)
        assert "GRANT ingest TO agent" in caught.value.hint
        await db.execute("GRANT INSERT ON plc_raw TO ingest")
        assert await deliver_until_taken(sink, batches) == 1
    assert await db.rows() == expected_rows(batches)


async def test_cancellation_is_prompt_on_a_mute_wire(db: Database) -> None:
    """Cancelled while the server is silent: it ends at once, and the same batches go in later."""
    batches = [scans(1, now_ms(), 50)]
    async with CuttingProxy(db.cluster.server.port) as proxy:
        dsn = f"postgresql://agent@127.0.0.1:{proxy.port}/{db.name}"
        async with opened(dsn) as sink:
            proxy.stalled = True
            delivering = asyncio.create_task(sink.deliver(batches))
            await asyncio.sleep(0.1)
            started = time.monotonic()
            delivering.cancel()
            with pytest.raises(asyncio.CancelledError):
                await delivering
            assert time.monotonic() - started < 0.5
            proxy.stalled = False
            assert await deliver_until_taken(sink, batches) == 1
    assert await db.rows() == expected_rows(batches)


async def test_a_mute_server_is_a_transient_error(db: Database) -> None:
    """No answer within the command's time limit ends the attempt, and no later."""
    async with CuttingProxy(db.cluster.server.port) as proxy:
        dsn = f"postgresql://agent@127.0.0.1:{proxy.port}/{db.name}"
        async with opened(dsn, command_timeout_s=0.3) as sink:
            proxy.stalled = True
            started = time.monotonic()
            with pytest.raises(TransientError, match="no answer in time"):
                await sink.deliver([scans(1, now_ms(), 5)])
            assert time.monotonic() - started < 1.5
            await sink.close()
            await sink.close()


async def test_durable_even_where_the_server_is_set_not_to_be(db: Database) -> None:
    """With synchronous_commit off for the database, the sink's transactions still wait."""
    await db.execute(
        f"ALTER DATABASE {db.name} SET synchronous_commit = off;"
        "CREATE TABLE seen (setting text); GRANT INSERT ON seen TO ingest;"
        "CREATE FUNCTION spy() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        " INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END$$;"
        "CREATE TRIGGER spy AFTER INSERT ON plc_raw EXECUTE FUNCTION spy()"
    )
    async with opened(db.dsn()) as sink:
        await sink.deliver([scans(1, now_ms(), 1)])
    assert [row[0] for row in await db.query("SELECT setting FROM seen")] == ["on"]


@pytest.mark.parametrize(
    "dsn", ["", "mysql://h/db", "host=db dbname=plc", "postgresql://h:port/db"]
)
def test_an_impossible_dsn_is_a_config_error(dsn: str) -> None:
    """It is told when the sink is made, before any connection."""
    with pytest.raises(ConfigError, match="postgres dsn"):
        PostgresSink(agent_id="edge-1", dsn=dsn)
