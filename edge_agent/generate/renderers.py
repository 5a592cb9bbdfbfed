"""Every generated file, by name. The next one goes here: a module, and a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from edge_agent.generate.cards import render_cards
from edge_agent.generate.grafana import render_dashboard
from edge_agent.generate.init_sql import render_choice, render_flavour
from edge_agent.generate.mosquitto import render_acl, render_conf
from edge_agent.generate.nodered import render_flow
from edge_agent.generate.prometheus_rules import render_rules
from edge_agent.generate.subject import Rendered, Subject
from edge_agent.generate.telegraf import render_modbus, render_mqtt

DASHBOARD: Final = "dashboard.yaml"
"""The one file that people edit."""

RENDERERS: Final[Mapping[str, Callable[[Subject], Rendered]]] = MappingProxyType(
    {
        "nodered.flow.json": render_flow,
        "telegraf.toml": render_mqtt,
        "telegraf-modbus.toml": render_modbus,
        "init.sql": render_choice,
        "init-postgres.sql": partial(render_flavour, "postgres"),
        "init-timescale.sql": partial(render_flavour, "timescale"),
        DASHBOARD: render_cards,
        "mosquitto.conf": render_conf,
        "acl": render_acl,
        "prometheus-rules.yml": render_rules,
        "grafana-dashboard.json": render_dashboard,
    }
)
