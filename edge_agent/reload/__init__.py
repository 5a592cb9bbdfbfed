"""The running address map: how another one takes its place, and what became of those before.

`reloader.py`      when a changed file is taken, and by whom it may be written.
`map_versions.py`  every map that was applied, on the disk.
`difference.py`    what lies between two maps and between their plans. Pure.
`preview.py`       the same as plain data, with what it costs, before it is applied. Pure.

The connections themselves change over in `pipeline/pollers.py`; who asks from outside comes through
`control.py`.
"""
