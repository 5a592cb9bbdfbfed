"""How good the data of each tag is: figures over a range of time, a verdict, a report.

`figures.py` folds samples into figures of constant size, `judge.py` makes findings of them,
`report.py` and `page.py` tell them, `map_findings.py` looks at a map alone; these are pure.
`collect.py` brings the samples in, out of `store_source.py` or `postgres_source.py`. What each
figure means, for those who read them, stands in docs/quality.md. This page is the design.

**One definition, three sources.** The figures are computed by one fold, from times and values, and
not by each source's own SQL: the same rows give the same report on the embedded store, on
PostgreSQL and on TimescaleDB, because nothing else looks at them. The price is that a database
sends its samples (16 bytes each) instead of a few figures.

**Bounded memory.** A day of 3,000 tags each second is 259 million samples. They come for a few tags
and a window of time at once (`SAMPLES_PER_READ`), and each window is folded before the next one is
asked for. A fold keeps counters, the longest gaps, and a histogram whose bins are fixed, so that
neither their number nor a figure depends on how the range was cut: folding a range in one piece or
in many gives the same figures. The exact median of all periods would need all of them; a bin is a
millisecond wide up to 64, then 1/32 of its place, so that a percentile is at most 3 % too high.

**What is late.** Neither the store nor plc_raw keeps when a sample arrived: only when it was read.
So *late* is said of the scan, by the sample's own time: it came more than half a period after it
was due, and was not so long in coming that it is a gap. How far behind a sink is says
`edge-agent status`.

**Tags that are recorded by change.** With a deadband or a heartbeat, silence means "unchanged" for
up to `heartbeat_ms`, and one scan more until that is noticed. So what is expected of them is a
sample in each piece of heartbeat_ms + 3 periods, and periods are not judged.

**What has expired.** Where samples are gone, minutes tell how many there were, and their least and
greatest value: coverage as exactly as from samples, gaps to the minute, out of range by the minute,
periods not at all. The range then begins with a whole minute.
"""
