"""One device: its chart, its figures, its newest rows. The URL says which, and what is shown."""

from __future__ import annotations

from typing import Any

import reflex as rx

from dashboard.components import elements
from dashboard.components.frame import frame

FIRST_CHART = r"""
if (location.pathname.startsWith("/detail")) try {
  const asked = new URLSearchParams(location.search);
  const [site, device, source] = ["site", "device", "source"].map((name) => asked.get(name));
  const tags = [...new Set(asked.getAll("tag"))].slice(0, 6);
  const [, count, unit] = /^([1-9]\d{0,4})([mhd])$/.exec(asked.get("range") ?? "24h") ?? [];
  const length = count * { m: 60000, h: 3600000, d: 86400000 }[unit];
  const to = Number.parseInt(asked.get("to") ?? "", 10) || Date.now();
  const from = Number.parseInt(asked.get("from") ?? "", 10) || to - length;
  if (site && device && tags.length && from < to) {
    const query = new URLSearchParams({ site, device });
    for (const tag of tags) query.append("tag", tag);
    query.append("from", from);
    query.append("to", to);
    const url = `/api/chart?${source ? `source=${encodeURIComponent(source)}&` : ""}${query}`;
    const response = fetch(url);
    response.catch(() => {});
    globalThis.firstChart = { url, from, to, response };
  }
} catch {}
"""
"""Asks for the chart before any of our scripts is there; `elements/watched.js` takes the answer if
it is what it would ask itself. It saves the time in which the scripts are loaded. In the head of
every page: further down it would wait for the style sheets."""


def page() -> Any:
    """`/detail/?site=A1&device=PUMP01&tag=PRESS&range=7d`"""
    return frame(
        rx.el.div(
            rx.el.div(elements.player(), elements.about(), class_name="watch"),
            elements.rows(),
            class_name="detail",
        ),
        script="detail",
    )
