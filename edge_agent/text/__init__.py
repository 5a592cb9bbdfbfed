"""What people write, and how things are told to them. Pure, but for `yaml_text.read_text`.

`selection.py`  devices and tags as they are named on a command line.
`durations.py`  spans of time: `1h30m`.
`counts.py`     numbers with their nouns: `1 tag`, `1,082 tags`.
`reasons.py`    why the system refused something: `Connection refused`.
`bilingual.py`  a text in English and in Korean.
`catalogue.py`  English texts with their Korean, and how a message finds its own.
`korean/`       why something fails, in Korean.
`yaml_text.py`  YAML that people edit, with its lines; its file is read here too.
"""
