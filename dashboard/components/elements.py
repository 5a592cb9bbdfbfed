"""The custom elements of `elements/` as Reflex components.

Each draws its own inside. React is told that the inside is an empty text, so that it never looks
at it: neither when it takes over the page that was painted before it was up, nor later.
"""

from __future__ import annotations

from typing import Any

from reflex_components_core.el.element import Element


class _Drawn(Element):  # type: ignore[misc]  # Reflex's components have no types
    """An element that draws itself."""

    @classmethod
    def create(cls, *children: Any, **props: Any) -> Any:
        """The component; it has no children of React's."""
        if children:
            raise ValueError("a custom element draws its own inside")
        attributes = {"dangerouslySetInnerHTML": {"__html": ""}, **props.pop("custom_attrs", {})}
        return super().create(custom_attrs=attributes, **props)


class Search(_Drawn):
    """The search field; what is typed stands in the URL."""

    tag = "plc-search"


class Preferences(_Drawn):
    """Language, theme, and the source where there is more than one."""

    tag = "plc-preferences"


class Banner(_Drawn):
    """What is broken, and how old is what is shown."""

    tag = "plc-banner"


class Alarms(_Drawn):
    """What is out of limits now, since when, how far."""

    tag = "plc-alarms"


class Chips(_Drawn):
    """Filters with their counts."""

    tag = "plc-chips"


class Grid(_Drawn):
    """A card per device."""

    tag = "plc-grid"


class Player(_Drawn):
    """The chart of a device with its controls."""

    tag = "plc-player"


class About(_Drawn):
    """A device's name, its tags to choose from, and key figures."""

    tag = "plc-about"


class Rows(_Drawn):
    """The newest rows of a device."""

    tag = "plc-rows"


class Pipeline(_Drawn):
    """How the agent, its sinks and the databases are."""

    tag = "plc-system"


class AddressMap(_Drawn):
    """The running address map, its versions, and how another one takes its place."""

    tag = "plc-map"


class Form(Element):  # type: ignore[misc]
    """A form that the browser sends itself; Reflex's own waits for an event handler instead."""

    tag = "form"


class Anchor(Element):  # type: ignore[misc]
    """A link within the page; Reflex's own would lead React Router to another one."""

    tag = "a"


form, anchor = Form.create, Anchor.create
search, preferences, banner = Search.create, Preferences.create, Banner.create
alarms, chips, grid = Alarms.create, Chips.create, Grid.create
player, about, rows = Player.create, About.create, Rows.create
pipeline, address_map = Pipeline.create, AddressMap.create
