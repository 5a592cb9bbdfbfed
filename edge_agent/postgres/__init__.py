"""PostgreSQL and TimescaleDB: how they are reached, made and kept.

`connection.py`  an address, how it is opened, what its errors mean here.
`database.py`    the schema out of `sql/` and its versions, settings and upkeep: `edge-agent db`.
`flavours.py`    with TimescaleDB, or without any extension.
`health.py`      what the database says of itself.
`sql_files.py`   the files of `sql/` and the named queries.
`columns.py`     whole columns out of a query's result. Pure.

The sink that delivers samples is `sinks/postgres.py`.
"""
