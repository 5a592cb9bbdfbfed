"""Names of other systems become names of the map: valid, near to what they were, and distinct."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.address_map.cells import NAME_CHARS_MAX, name
from edge_agent.importers.names import DistinctNames, numbered, valid_name


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("Pump", "Pump"),
        ("Line 1.Pump/2", "Line 1.Pump_2"),
        ("$SYS.#+", "SYS.__"),
        ("$ $a", "_a"),
        ("펌프", "펌프"),
        ("e\u0301", "é"),
        ("a\tb\u200b", "a_b_"),
        ("a b\ufffdc", "a b_c"),
        (" a ", "a"),
        ("x" * 200, "x" * 128),
        ("$", ""),
        ("", ""),
    ],
)
def test_what_a_name_may_not_have_is_replaced(text: str, made: str) -> None:
    """An underscore stands for it; spaces within stay."""
    assert valid_name(text) == made


@given(st.text())
def test_every_name_that_is_made_is_taken_by_the_map(text: str) -> None:
    """Whatever the text; a name that is valid stays as it is."""
    made = valid_name(text)
    assert not made or name(made) == made
    assert valid_name(made) == made


def test_numbers_go_within_the_length() -> None:
    """The end of a long name makes room."""
    assert list(islice(numbered("a"), 2)) == ["a_2", "a_3"]
    assert list(islice(numbered("x" * NAME_CHARS_MAX), 1)) == ["x" * (NAME_CHARS_MAX - 2) + "_2"]


def test_a_name_is_given_once_within_a_scope() -> None:
    """Others that are offered come before numbers, and a number that somebody has is left out."""
    names = DistinctNames()
    assert [names.take("pump", "speed") for _ in range(3)] == ["speed", "speed_2", "speed_3"]
    assert names.take("pump", "speed", "motor.speed") == "motor.speed"
    assert names.take("pump", "speed", "motor.speed") == "speed_4"
    assert names.take("pump", "speed_5") == "speed_5"
    assert names.take("pump", "speed") == "speed_6"
    assert names.take("fan", "speed") == "speed"
