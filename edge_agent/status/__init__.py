"""What the agent says of itself; nothing can be changed through it.

`figures.py`      all of it as plain data, and the newest values.
`frames.py`       what a device and its PLC last said to each other.
`verdict.py`      the same in a sentence, with problems and notices. Pure.
`exposition.py`   the same for Prometheus.
`report.py`       all of these, asked of an agent's machinery.
`http_server.py`  the routes on which it is told.
"""
