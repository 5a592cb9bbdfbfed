"""Values as text of other languages. Pure.

Each function gives a whole literal with its quotes, so that a template can't forget them. What no
quoting can save (a line break in a format that has lines) raises ``ConfigError``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from edge_agent.errors import ConfigError

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_IN_GRAFANA: Final = re.compile(r"[$\[\\]")


def toml_string(text: str) -> str:
    """A TOML basic string; also safe from Telegraf, which looks for ``$NAME`` before it parses."""
    # JSON's escapes are TOML's, but for DEL, which TOML wants escaped and JSON does not.
    quoted = json.dumps(text, ensure_ascii=False)
    return _CONTROL.sub(_escaped, quoted).replace("$", "\\u0024")


def toml_lines(text: str) -> str:
    """Some lines as a TOML multi-line basic string, likewise."""
    lines = [toml_string(line)[1:-1] for line in text.splitlines()]
    return '"""\n' + "\n".join(lines) + '\n"""'


def yaml_string(text: str) -> str:
    """A YAML double-quoted scalar; JSON's strings are that."""
    return _CONTROL.sub(_escaped, json.dumps(text, ensure_ascii=False))


def yaml_value(value: float | str | None) -> str:
    """A YAML scalar: a string, a number or null."""
    return yaml_string(value) if isinstance(value, str) else json.dumps(value)


def json_value(value: object) -> str:
    """JSON on one line, which is JavaScript too."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def sql_literal(text: str) -> str:
    """An SQL string; backslashes mean themselves (standard_conforming_strings)."""
    if "\0" in text:
        raise ConfigError("a null character can't stand in SQL")
    return "'" + text.replace("'", "''") + "'"


def grafana_literal(text: str) -> str:
    """An SQL string in a Grafana query: ``$name`` and ``[[name]]`` are Grafana's own before it."""
    if not _IN_GRAFANA.search(text):
        return sql_literal(text)
    escaped = _IN_GRAFANA.sub(lambda found: f"\\{ord(found[0]):04X}", text)
    return "U&" + sql_literal(escaped)


def promql_string(text: str) -> str:
    """A PromQL string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def prometheus_text(text: str) -> str:
    """Text within an annotation, where ``{{`` would begin an expression."""
    return text.replace("{{", '{{ "{{" }}')


def starlark_string(text: str) -> str:
    """A Starlark string; what is not ASCII stands as it is."""
    return _CONTROL.sub(_escaped, json.dumps(text, ensure_ascii=False))


def one_line(text: str) -> str:
    """Text for a format in which a value ends with its line."""
    if found := _CONTROL.search(text):
        raise ConfigError(
            f"{text!r} holds the control character U+{ord(found[0]):04X}, which can't stand in a"
            " configuration file; delete it"
        )
    return text


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


FILTERS: Final[Mapping[str, object]] = {
    "toml": toml_string,
    "toml_lines": toml_lines,
    "yaml": yaml_value,
    "json": json_value,
    "sql": sql_literal,
    "starlark": starlark_string,
    "one_line": one_line,
}
"""Of the templates."""
