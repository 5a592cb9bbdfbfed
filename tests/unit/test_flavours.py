"""Which flavour a database gets, by what the server says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from edge_agent.errors import ConfigError
from edge_agent.postgres.flavours import check_flavour, choose_flavour

COMPLETE: dict[str, Any] = {
    "version_num": 150_018,
    "available": "2.28.3",
    "installed": None,
    "schema": None,
    "preloaded": True,
    "license": "timescale",
}
LACKING: list[tuple[dict[str, Any], str, str]] = [
    ({"available": None}, "not installed", "timescaledb-2-postgresql-15"),
    ({"preloaded": False}, "not preloaded", "shared_preload_libraries"),
    ({"available": "2.9.1"}, "2.9.1 is too old", "2.20"),
    ({"installed": "2.9.1"}, "2.9.1 is too old", "2.20"),
    ({"license": "apache"}, "no continuous aggregates", "community"),
    ({"installed": "2.28.3", "schema": "ext"}, "schema ext", "new database"),
]


@pytest.mark.parametrize("wanted", ["auto", "timescale"])
def test_a_complete_server_gets_timescale(wanted: str) -> None:
    """By itself and by name."""
    assert choose_flavour(wanted, (), COMPLETE)[0] == "timescale"


def test_without_extension_if_asked_for() -> None:
    """Nobody has to use TimescaleDB because it is there."""
    assert choose_flavour("postgres", (), COMPLETE)[0] == "postgres"


@pytest.mark.parametrize(("change", "problem", "hint"), LACKING)
def test_what_is_lacking_is_said(change: dict[str, Any], problem: str, hint: str) -> None:
    """Auto does without and gives the reason; asked for by name it is an error with the remedy."""
    flavour, reason = choose_flavour("auto", (), COMPLETE | change)
    assert flavour == "postgres"
    assert problem in reason
    with pytest.raises(ConfigError, match=problem) as caught:
        choose_flavour("timescale", (), COMPLETE | change)
    assert hint in caught.value.hint


@pytest.mark.parametrize("has", ["postgres", "timescale"])
def test_a_database_keeps_what_it_has(has: str) -> None:
    """What the server offers now does not matter any more; the other flavour is refused."""
    applied = ["010_roles.sql", f"{has}/020_tables.sql", "edge/110_outbox.sql"]
    other = "timescale" if has == "postgres" else "postgres"
    for facts in (COMPLETE, COMPLETE | {"preloaded": False}):
        assert choose_flavour("auto", applied, facts)[0] == has
        assert choose_flavour(has, applied, facts)[0] == has
        with pytest.raises(ConfigError, match=f"has the {has} flavour") as caught:
            choose_flavour(other, applied, facts)
        assert "new database" in caught.value.hint


def test_another_word_is_refused() -> None:
    """With the words that are allowed."""
    with pytest.raises(ConfigError, match="oracle") as caught:
        check_flavour("oracle")
    assert "auto, postgres, timescale" in caught.value.hint
