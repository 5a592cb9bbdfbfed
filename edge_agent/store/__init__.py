"""The embedded store: a history in one SQLite file, for who has no database at all.

`sinks/store.py` writes it; `upkeep.py`, `fold.py` and `packing.py` keep it in order; `reader.py`
reads it from any process, and `search.py` finds the rows for it; `layout.py` says what the bytes
mean. This page is the design.

What it promises
----------------
1. A batch is delivered when its commit is durable (WAL, ``synchronous=FULL``), exactly once: the
   journal cursor is written by the same transaction, and what lies at or below it is skipped.
2. A series has one value per millisecond. If the same time comes twice, the later one wins.
3. Minute and hour rows are what their samples say, in whatever order the samples came. (The one
   exception: a repeated time whose raw sample has expired can't be recognised and counts twice.)
4. A second process may read at any time. It never waits for the writer, nor the writer for it.
5. The file has a hard size (``bytes_max``).

Tables
------
======== ==========================================================================================
series   id, site, line, device, tag, unit: ids of the store's own. A journal's ids mean nothing in
         the next journal, so they are translated on the way in.
cursor   per agent and journal: the last sequence number taken.
tail     one blob per batch, columns as they came. Appending is all that a delivery does.
raw      one blob per series and minute (a *slice*): times and values, strictly ascending.
minute   per series and minute: average, least, greatest and last value, time of the last, count.
hour     the same per hour.
packed   per series and closed hour: the hour's minute rows (but for the time of the last) once
         more, as one blob of columns with a checksum. For who reads days of a few series.
unpacked hours whose minute rows have changed and that are not packed yet.
latest   per series, the newest sample that has left the tail.
state    one row: the store's random id, and how far the fold under way has come.
======== ==========================================================================================

The key of raw, minute, hour and packed is one integer, the *slot*: bucket number times 2**24 plus
series id. New rows therefore go to the end of each table and expired ones leave from its beginning:
SQLite writes few pages, which is what a memory card lives by. One series over a time range is a
seek per bucket: 4 us of a PC's core per row read. But a series' minutes lie one to a page: a week
of them is 10,000 pages from all over the file, seconds from a memory card. Packed it is 168 blobs,
two or more to a page.

Folding
-------
Once a minute has closed, its part of the tail is *folded*: samples are grouped by series and
minute, merged with the slice that may be there already (late samples), and slice, minute, hour and
latest are written. The fold takes a prefix of the tail, so that "the later one wins" holds. A batch
whose times lie in the future (a device with a wrong clock) would hold up that prefix: whatever has
been in the tail for two closings is folded too, minute closed or not.

A fold is one transaction cut into steps (``SLICES_PER_STEP``, ``SAMPLES_PER_STEP``), so that no
delivery waits long behind it. Each step commits, with its rows, how many slices are done; the tail
rows go with the last step. After a crash the fold starts again from the same tail rows, groups them
to the same slices in the same order, and goes on behind those that were done. Nothing is applied
twice.

A slice may have expired or been shed while its minute row is still there. This shows without any
bookkeeping: the minute row counts more samples than the slice holds. Late samples are then combined
with the row by weight. What a minute gained is combined into its hour in the same way; only a
*changed* value (promise 2) makes the hour be computed anew from its minutes, if the counts say that
all of them are still there.

Invariant: where a slice is, its minute row is; where a minute row is, its hour row is. So slices
are deleted first and hour rows last.

Packing
-------
Invariant: a packed hour is its minute rows, all of them, bit by bit. A reader that finds one needs
no look at the rows; where it finds none, the rows count.

Triggers on ``minute`` hold it, in the transaction that touches a row: whoever writes a minute row
deletes its hour's blob and notes the hour in ``unpacked``; whoever deletes one deletes the blob. An
hour is never packed and noted; one that has lost some of its minutes may be neither. (The fold does
not write the blob itself: it would have to read an hour to change a minute, and write 2 kB for each
late sample.) The triggers lie in the file, and so bind a version of the agent that has never heard
of packed hours. That is why the format's number is the same: an older version may go on with the
file of a newer one, and back. Hours that an older version wrote before there were triggers stay
unpacked.

When an hour has been over for a while (``PACKING_GRACE_MS``), upkeep packs what is noted: behind
the fold, in steps that commit (``HOURS_PER_STEP``) and rounds that let the next fold have its turn
(``HOURS_PER_ROUND_MAX``). A step writes its blobs and takes their hours off the list, so a crash
loses nothing. Expiry and shedding know nothing of it: the first minute row of an hour that goes
takes the blob with it.

Retention and size
------------------
raw_hours, minute_days, and ten years for hours, in steps of ``ROWS_PER_STEP``. Expiry trusts the
wall clock only after an hour without a jump: one wrong clock must not erase a season. At nine
tenths of ``bytes_max`` the oldest slices are shed before their time, then (with one hour of raw
left) the oldest minutes. Freed pages are used again; when a quarter of the file is free it shrinks.
The tail holds what two minutes bring.

Cost, measured by bench/store_write.py: 0.4 us of a PC's core to append a sample, and about 24 us to
fold a slice, of which the triggers take 1; packing adds 2.6. In all that is 0.8 us a sample at a
period of 200 ms, 1.1 at 1 s and 2.8 at 5 s. A sample takes 4 to 10 bytes in its slice, a minute or
hour row about 50, a packed hour 1.4 to 2 kB. Of 3,000 series, an hour's blobs are 6 MB in 60 steps.

When things go wrong
--------------------
* kill -9, power loss: SQLite rolls back to the last commit; the runner hands the rest again.
* Disk full, file locked by another writer, I/O error: ``TransientError``; the journal holds the
  data and the runner comes back.
* A failed fsync: whoever opens the file next writes its WAL again before the cursor in it is
  believed, since the kernel shows what the disk never got. So does each start of the agent.
* File damaged (SQLite says so): it is renamed to ``store.db.damaged-<UTC time>`` with its WAL, an
  ERROR line says so, and a new store is begun. A damaged blob in a sound file (checksum) costs only
  itself: its slice or batch is left out with an ERROR line; for a packed hour its rows are read.
* File deleted or replaced under the agent: noticed at the next delivery, and a new one begun.
* File of an unknown format: left alone, ``TransientError`` that says what to do.
"""
