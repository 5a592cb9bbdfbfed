"""`dashboard.yaml`: a card per device, to be edited by hand.

Cards and groups are mappings by name; their order in the file is the order on the page, so that it
is changed by moving lines and a merge never compares numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_agent.cards_file import FORM_VERSION
from edge_agent.generate.subject import Rendered, Subject
from edge_agent.generate.templating import render
from edge_agent.model import Tag, ValueType

Card = dict[str, Any]


def render_cards(subject: Subject) -> Rendered:
    """The file as it is without anybody's edits."""
    return render_with(subject, {})


def render_with(subject: Subject, mains: Mapping[str, str]) -> Rendered:
    """The same with main tags by card that somebody chose: gauges follow them.

    A choice that the device has no tag for is left aside.
    """
    cards = {
        "/".join(key): _card(tags, mains.get("/".join(key)))
        for key, tags in subject.devices.items()
    }
    groups = {_group(tags[0]): tags[0].line for tags in subject.devices.values()}
    text = render(
        "dashboard.yaml",
        header=subject.header,
        form_version=FORM_VERSION,
        groups=groups,
        cards=cards,
    )
    return Rendered(text)


def _group(tag: Tag) -> str:
    return f"{tag.site}/{tag.line}"


def _card(tags: Sequence[Tag], chosen: str | None) -> Card:
    main = next((tag for tag in tags if tag.tag == chosen), None) or _main(tags)
    return {
        "title": tags[0].device,
        "group": _group(tags[0]),
        "main": main.tag,
        "gauge": {"lo": main.lo, "hi": main.hi},
    }


def _main(tags: Sequence[Tag]) -> Tag:
    """The first tag with both limits; else the first number; else the first."""
    numbers = [tag for tag in tags if tag.type is not ValueType.BOOL]
    limited = [tag for tag in numbers if tag.lo is not None and tag.hi is not None]
    return next(iter(limited or numbers or tags))
