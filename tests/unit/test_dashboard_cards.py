"""The dashboard's cards by `dashboard.yaml`: order, titles, main tags and gauges."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from dashboard.live.cards import ArrangedFeed, arrange, parse_cards
from dashboard.live.plant import Device, Layout, LiveTag, Look
from edge_agent.errors import ConfigError
from edge_agent.generate.cards import render_cards
from edge_agent.model import TagKey
from tests.integration.generated import make_subject, nasty_tags

TAGS = tuple(
    LiveTag(TagKey("A1", device, name), lo=lo, hi=hi)
    for device, name, lo, hi in (
        ("FAN02", "SPEED", None, None),
        ("PUMP01", "PRESS", 1.0, 4.0),
        ("PUMP01", "FLOW", 10.0, 80.0),
        ("TANK07", "LEVEL", None, None),
    )
)
LAYOUT = Layout(
    "one",
    (
        Device("A1", "L1", "FAN02", (0,), 0),
        Device("A1", "L1", "PUMP01", (1, 2), 1),
        Device("A1", "L2", "TANK07", (3,), 3),
    ),
    TAGS,
)


def arranged(text: str) -> dict[str, Device]:
    """The layout's devices by name, in order, under a file's cards."""
    found = arrange(LAYOUT, parse_cards(f"version: 1\ncards:\n{text}", "x.yaml"))
    assert found.tags is LAYOUT.tags
    assert found.name != LAYOUT.name
    return {device.device: device for device in found.devices}


def test_cards_come_in_the_files_order_and_the_rest_behind_them() -> None:
    """A device without a card is never hidden."""
    assert list(arranged("  A1/TANK07: {}\n  A1/FAN02: {}\n")) == ["TANK07", "FAN02", "PUMP01"]


def test_a_card_chooses_title_main_tag_and_gauge() -> None:
    """Each by itself; what it does not say stays as it was."""
    pump = arranged("  A1/PUMP01: {title: Main, main: FLOW, gauge: {lo: 0, hi: 100}}\n")["PUMP01"]
    assert (pump.title, pump.main, pump.gauge) == ("Main", 2, (0.0, 100.0))
    assert pump.positions == (1, 2)
    plain = arranged("  A1/PUMP01: {}\n")["PUMP01"]
    assert (plain.title, plain.main, plain.gauge) == ("", 1, None)


@pytest.mark.parametrize(
    "card",
    [
        "{main: GONE}",
        "{main: [1]}",
        "{gauge: {lo: 4, hi: 1}}",
        "{gauge: {lo: .nan, hi: 1}}",
        "{gauge: {lo: 0, hi: .inf}}",
        "{gauge: {lo: true, hi: 2}}",
        "{gauge: {lo: 1.0, hi: 4.0}}",
        "{gauge: 7}",
        "{title: PUMP01}",
        "[1]",
        "null",
    ],
)
def test_what_means_nothing_changes_nothing(card: str) -> None:
    """A tag that the device has not got, ends that are none, ends that are the limits anyway."""
    assert arranged(f"  A1/PUMP01: {card}\n")["PUMP01"] == LAYOUT.devices[1]


def test_a_long_title_is_cut() -> None:
    """No card has room for it, and that is no mistake in the file."""
    title = arranged(f"  A1/PUMP01: {{title: {'x' * 300}}}\n")["PUMP01"].title
    assert title == "x" * 199 + "…"


def test_the_generated_file_is_understood(tmp_path: Path) -> None:
    """Names with quotes and all."""
    subject = make_subject(tmp_path, nasty_tags())
    cards = parse_cards(render_cards(subject).text, "dashboard.yaml").cards
    assert list(cards) == ["/".join(key) for key in subject.devices]
    assert cards["A1/PUMP01"].main == "PRESS"


@pytest.mark.parametrize("text", ["", "version: 1", "cards: [1]", "cards: {a: *x}", "{"])
def test_another_file_is_refused(text: str) -> None:
    """With its name."""
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        parse_cards(text, "x.yaml")


class KeptFeed:
    """The same look each time."""

    interval_s = 1.0

    async def look(self) -> Look:
        """All is well."""
        return Look(LAYOUT, 0, (1.0,) * 4, (0,) * 4, "gggg")


async def test_the_file_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A change shows with the next look; a file that can't be used changes nothing and is told
    once; one that is made later is taken."""
    path = tmp_path / "dashboard.yaml"
    feed = ArrangedFeed(KeptFeed(), path)
    seen: list[str] = []

    async def first(text: str | None) -> str:
        if text is not None:
            path.write_text(text)
            os.utime(path, ns=(0, len(seen) + 1))
        look = await feed.look()
        seen.append(look.layout.name)
        return look.layout.devices[0].device

    with caplog.at_level(logging.INFO):
        assert await first(None) == "FAN02"
        assert await first(None) == "FAN02"
        assert await first("version: 1\ncards: {A1/TANK07: {}}") == "TANK07"
        assert await first("version: 1\ncards: {A1/PUMP01: {}}") == "PUMP01"
        assert await first("cards: {") == "PUMP01"
        assert await first(None) == "PUMP01"
        assert await first("version: 1\ncards: {A1/TANK07: {}}") == "TANK07"
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2
    assert "No such file" in caplog.text
    assert len(set(seen)) == 3


async def test_what_is_wrong_is_told_and_the_rest_shows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the rules of `edge-agent generate`, once, each with its line; a tag that is not there."""
    path = tmp_path / "dashboard.yaml"
    path.write_text(
        "version: 1\ncards:\n  A1/TANK07: {title: [3], colour: red, main: NOPE}\n"
        "  A1/PUMP01: {title: Main, gauge: {lo: 9, hi: 1}}\n  A1/XX: 5\n"
    )
    feed = ArrangedFeed(KeptFeed(), path)
    with caplog.at_level(logging.INFO):
        devices = (await feed.look()).layout.devices
        assert [device.device for device in devices] == ["TANK07", "PUMP01", "FAN02"]
        assert devices[1].title == "Main"
        told = [record.message for record in caplog.records]
        await feed.look()
        assert [record.message for record in caplog.records] == told
        path.write_text("version: 1\ncards: {}\n")
        await feed.look()
    for part in (
        "line 3, cards.A1/TANK07.title: found a list",
        "line 3, cards.A1/TANK07.colour: unknown",
        "line 4, cards.A1/PUMP01.gauge.hi: 1 is not above lo, 9",
        "line 5, cards.A1/XX: found 5",
        "cards.A1/TANK07.main: the device has no tag 'NOPE'",
    ):
        assert sum(part in line for line in told) == 1
    assert len(told) == 5
    assert caplog.records[-1].message == "cards: back"


async def test_a_file_full_of_mistakes_does_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten lines, and how many more there are."""
    path = tmp_path / "dashboard.yaml"
    path.write_text("version: 1\ncards:\n" + "".join(f"  A1/D{n}: 5\n" for n in range(25)))
    await ArrangedFeed(KeptFeed(), path).look()
    assert len(caplog.records) == 11
    assert "15 more problems" in caplog.text


async def test_a_look_without_a_change_has_the_same_layout(tmp_path: Path) -> None:
    """So that nothing is drawn anew."""
    path = tmp_path / "dashboard.yaml"
    path.write_text("version: 1\ncards: {A1/TANK07: {}}")
    feed = ArrangedFeed(KeptFeed(), path)
    assert (await feed.look()).layout is (await feed.look()).layout
