"""Which type and byte order a value has, which cells of a device answer, and a map's cells. Pure.

**Interpretations.** The registers of a row are decoded under every type that fits into them, in
every byte order, and scaled as the map says. Each has a grade: 2 if it lies inside lo..hi, 1 if the
map gives no limits to hold it against or it lies outside them, 0 if it is no number or absurd. Most
of the bit patterns of a float are absurd (a wrong byte order gives 1e-38 as readily as 1e30), and
the small ones of them lie inside 0..100: so what is absurd is never inside, and what is tiny beside
the limits has grade 1.

**The verdict.** The map's own setting stays unless another has a higher grade. Among those that
have, the one nearest to the map's wins: another byte order of the same type (what goes wrong most
often), then another sign, then another type of the same width, then another width, then the rare
types. A verdict is *clear*, so that it may be written, if

* with limits: the winner is inside them, and the map's own value is absurd, or tiny where 0 is
  outside, or so far outside that it is no alarm: a tank that is too full must not get another type
  for it. A winner of another type needs limits that few of that type's values would meet;
* without limits: the map's own value is absurd, and the winner is another byte order of its type;
* and no other setting as near and of the same grade reads another value.

One look at one value proves little, so whatever is not clear is told and left alone.

**A scan.** All of the range is asked once, coarsely, before the first refused block is looked into
and before a bound on requests can end the scan; a refused block is then halved, and its halves if
need be, down to single cells. Of several units, one that keeps silent at its first request is given
up; one that has answered, and the only one, may be silent a few times, since some devices leave an
illegal address unanswered. Every cell ends up in exactly one of found, missing and left.

**Cells of a file.** The text is split as the map's reader splits it, but with places; the delimiter
is the one under which every row has the cells that the reader saw. Only the characters of the
changed cells are replaced, and the new file is read back: its tags must be those expected.
"""
