"""What people write, and how things are told to them. Pure.

`names.py`      names of other systems as sites, devices and tags.
`selection.py`  devices and tags as they are named on a command line.
`durations.py`  spans of time: `1h30m`.
`counts.py`     numbers with their nouns: `1 tag`, `1,082 tags`.
`yaml_text.py`  YAML that people edit, with its lines.
"""
