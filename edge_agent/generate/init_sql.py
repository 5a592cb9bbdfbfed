"""`init.sql`: what `edge-agent db init` does, for psql, and the map's rows in `admin`.

`init-postgres.sql` and `init-timescale.sql` are whole: the files of `sql/` in order, in one
transaction, recorded as `db init` records them, so that it finds nothing left to do. `init.sql`
asks the server and includes one of the two.
"""

from __future__ import annotations

import json
from typing import Any, Final

from edge_agent.address_map.writer import to_records
from edge_agent.generate.quoting import sql_literal
from edge_agent.generate.subject import Rendered, Subject
from edge_agent.generate.templating import render
from edge_agent.postgres.database import DATABASE_SETTINGS, DAYS_AHEAD, SCHEMA_LOCK_TIMEOUT_S
from edge_agent.postgres.sql_files import queries, schema_files

AUTHOR: Final = "edge-agent generate"
"""Of the map's version in `admin.address_map_version`."""


def render_choice(subject: Subject) -> Rendered:
    """The file that includes the right one of the others."""
    return Rendered(render("init.sql", header=subject.header))


def render_flavour(flavour: str, subject: Subject) -> Rendered:
    """Schema, settings and map for one flavour."""
    files = [
        {"name": file.name, "text": file.text, "record": _filled("schema_record", file)}
        for file in schema_files(flavour)
    ]
    settings = [getattr(subject.settings.postgres, key) for key in DATABASE_SETTINGS]
    text = render(
        "init-flavour.sql",
        header=subject.header,
        flavour=flavour,
        devices=_devices(subject),
        lock_timeout_s=SCHEMA_LOCK_TIMEOUT_S,
        lock=queries()["schema_lock"],
        files=files,
        owner_role=queries()["owner_role"],
        settings_write=_numbered("settings_write", settings),
        settings_apply=queries()["settings_apply"],
        partitions_ahead=_numbered("partitions_ahead", [DAYS_AHEAD]),
        sha256=subject.found.sha256,
        author=AUTHOR,
        agent_id=subject.settings.agent.id,
        rows=_rows(subject),
    )
    return Rendered(text)


def _filled(query: str, file: Any) -> str:
    """A named statement with a file's name and hash in place of $1 and $2."""
    text = queries()[query]
    return text.replace("$1", sql_literal(file.name)).replace("$2", sql_literal(file.sha256))


def _numbered(query: str, values: list[int]) -> str:
    """A named statement with whole numbers in place of its parameters."""
    text = queries()[query]
    for number, value in enumerate(values, 1):
        text = text.replace(f"${number}", str(int(value)))
    return text


def _devices(subject: Subject) -> list[dict[str, Any]]:
    found = [
        {"name": "/".join(key), "line": tags[0].line, "tags": len(tags), "conn": tags[0].conn}
        for key, tags in subject.devices.items()
    ]
    return sorted(found, key=lambda device: str(device["name"]))


def _rows(subject: Subject) -> str:
    """The map's rows as `admin.record_map` takes them: each column by name, as text."""
    rows = to_records(subject.found.tags)
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f"[\n{lines}\n]"
