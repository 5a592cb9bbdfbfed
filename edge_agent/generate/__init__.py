"""Files for other programs, made from an address map: what `edge-agent generate` writes.

The same map and settings give the same bytes: nothing here looks at a clock, a host or a random
number, and ids are hashes of what they name. Rows are sorted first, so that their order in the map
matters in two places only: the hash in the header, and `dashboard.yaml`, whose cards come in map
order.

`subject.py` is what all files are made from, `renderers.py` the list of them, one small module a
kind. Text with few values in it is a template (`templates/`, through `templating.py`); every value
passes a quoting filter of `quoting.py` on its way, because names may hold quotes, backslashes and
`$`. JSON is built as data. `files.py` compares with what is there and writes; `merge.py` carries
edits of `dashboard.yaml` over.
"""

GENERATOR_VERSION = 1
"""Goes up when the same map gives other files."""
