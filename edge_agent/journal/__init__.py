"""The journal: the append-only queue on disk between the PLCs and every sink.

Nothing is handed to any sink before the commit that holds it is durable. All guarantees of the
product follow from that one rule, and this package is where it is kept.

Guarantees
----------
1. A sample is *taken* when the commit that holds it returns. Commits are grouped: one per
   `commit_interval_ms`, with WAL and ``synchronous=FULL``, so that a taken sample survives
   kill -9 and power loss. (NORMAL lost 7 % of the acknowledged rows in a simulated power cut.)
2. Per sink, always: ``taken - base = delivered + pending + quarantined + lost``. ``base`` is what
   had been taken before that sink was first configured. Every lost sample stands in the ledger.
3. The database file never grows past `journal_bytes_max` (SQLite's ``max_page_count``); the WAL
   beside it stays near ``WAL_PAGES_MAX``. A full journal can always be drained, see below.
4. A damaged file is set aside, never deleted, and what it holds is carried over into a new file
   as far as its checksums allow.

Not guaranteed: what was read but not yet committed when the power fails (at most the commit
interval; more only while the disk refuses to write).

Layout on disk: ``journal.db`` (SQLite)
---------------------------------------
``state``       one row: format, journal_id, last sequence, taken. The journal_id is random per
                file, so that a fresh file never meets an old cursor at a destination.
``series``      id -> site, line, device, tag, unit. Interned here, so that a changed address map
                never makes an old entry unreadable. Only grows.
``entry``       sequence, time range, sample count, checksum, and one blob of packed columns
                (`entry.py`). ``sinks`` is NULL, or names the only sinks it is still meant for.
``cursor``      per sink: acknowledged sequence, and the counters of guarantee 2.
``ledger``      what was lost: sink, series, first and last time, count, reason. Losses that
                follow each other within ``LEDGER_GAP_MS`` share a row.
``quarantine``  samples that a sink refused for good, with its reason, at most
                ``QUARANTINE_ROWS_MAX``; older ones move to the ledger.

Every row carries a CRC-32 over all that it says.

Who does what
-------------
`journal.py`  the asyncio side: collects samples in columns, commits them in one worker thread
              (`worker.py`), keeps the newest entries in memory for sinks that keep up.
`file.py`     the file itself: synchronous, used by one thread at a time. Every change of state is
              one SQLite transaction. It is made of `entries.py` (entries and series), `books.py`
              (cursors, ledger, quarantine) and `room.py` (pages, policies, ballast).
`opening.py`  how that file is opened, and made.
`lock.py`     holds it for one process.
`opener.py`   opens it, or what a salvage makes of a damaged one, and looks what of the entries in
              memory it has.
`entry.py`    the blob. Pure.
`progress.py` whether an opening or a recovery gets on, and how far it is.
`piecewise.py` a file of which the disk can't read every part.
`pages.py`    a SQLite file's pages and rows, read without SQLite's help.
`wal.py`      the little of SQLite's WAL that must be known here. Pure.
`salvage.py`  reads rows out of a damaged file without SQLite's help, and builds a new one.

Invariants
----------
* Sequences only grow, a salvage keeps those of its entries, and each opening begins a new range of
  them: should the newest commits be lost with the WAL, no sequence that a destination may know is
  given out again.
* Entry ``s`` is pending for a sink when ``s > cursor.sequence`` and the entry is meant for that
  sink. An entry that every sink's cursor has passed is deleted with the next commit.
* A sink's acknowledgement is written with the next commit, without an fsync of its own. A crash
  in between delivers that batch again; each sink says what a repetition does.
* A series is on disk no later than the first entry that names it.
* An entry that a sink has claimed (it is being delivered, or its acknowledgement is not written
  yet) is neither dropped nor thinned: otherwise it could end both delivered and in the ledger.

When it is full
---------------
Free pages below ``Room.low_water`` trigger the policy, which frees ``1 / RECLAIM_FRACTION`` of the
file at a time: `drop_oldest` deletes the oldest unclaimed entries; `thin` first halves the rate of
the oldest unclaimed entries again and again (up to ``THIN_LEVEL_MAX`` times) and only then drops;
`stop` refuses new samples, and the pollers stop reading until sinks have made room. A commit that
does not fit is made in parts, acknowledgements first; where the ledger or the quarantine would take
more room than there is, they say less, and count the same (`books.py`).
When the *disk* is full before the journal is, even a DELETE can fail, since it needs room in the
WAL. Therefore a ballast file of ``BALLAST_BYTES`` stands beside the journal: it is given up, the
present size becomes the limit, and the policy applies. The ballast comes back, and the limit
with it, once the disk has room again. If the disk refuses all the same, samples wait in memory up
to ``PENDING_SAMPLES_MAX`` and then the pollers stop reading: what is not read is not lost.

When it is damaged
------------------
Damage is found by SQLite (a page that is malformed or can't be read), by a checksum, by a WAL that
the disk can't read after some tries, or by frames in it that SQLite passes over: it drops in
silence all that follows a damaged one. `salvage.py` then reads every table page of the file and its
WAL, takes each row whose checksum holds, and a new file with a new journal_id is built beside it,
made durable, and renamed into place after the damaged one was renamed to
``journal.db.damaged-<UTC time>``. A crash at any point of this starts it again or finds
it done: until the new file is whole the damaged one is not touched, and what there is of the new
one is thrown away, so that it needs no WAL and never stands there twice. While a recovery advances,
the watchdog is fed and the start may take its time (`progress.py`): one that is ended begins anew.
A stop gives up the one of a start, and waits for the one of a running journal.
A WAL of which a part can't be read may hide which version of a page is the newest: then rows are
taken from all of them. It is kept as it is, under another name where it can't be copied, so that
whoever can read it later finds all; where the file system has no hard links, a copy with zeros in
those parts is kept, ``journal.db.damaged-<UTC time>-wal-holes``.
A page or a piece that the disk can't read has three tries with pauses between, the whole recovery
a minute of them: a disturbed bus costs nothing, and a dying disk does not hold it up for ever.
What was pending and could not be recovered goes to the ledger, for every sink. Entries that a sink
had already acknowledged are not handed to it again as long as its cursor is readable. An entry that
is in memory still, since nobody knew whether its commit stands, is looked for in the new file: what
is not there whole is not lost but committed anew.
If the disk refuses the new file, samples wait in memory and it is tried again with each commit; if
it has no room for all of it, the newest entries stay in the damaged file and stand in the ledger.

A failed write makes the file be read anew, and a WAL is always written again before it is believed:
after a failed fsync the kernel shows what the disk never got. A missing WAL, or one cut short,
can't be told from one that ended there: those commits are lost without a trace, as is the newest
one where an unreadable part of the WAL was all that told of it; the log says how large that was.
"""

from edge_agent.journal.books import LedgerRow, Quarantined, SinkTotals
from edge_agent.journal.journal import Journal
from edge_agent.journal.room import Policy

__all__ = ["Journal", "LedgerRow", "Policy", "Quarantined", "SinkTotals"]
