"""Reflex's own configuration; it looks for a file of this name in the folder it is run in."""

import reflex as rx
from reflex.constants import StateManagerMode
from reflex.plugins import SitemapPlugin

from dashboard.front_end import LaterPlugin, OriginPlugin

config = rx.Config(
    app_name="dashboard",
    app_module_import="dashboard.app",
    # The bundle asks for the websocket where the page came from, see OriginPlugin.
    api_url="http://origin.invalid",
    deploy_url=None,
    cors_allowed_origins=[],
    telemetry_enabled=False,
    state_manager_mode=StateManagerMode.MEMORY,
    show_built_with_reflex=False,
    frontend_compression_formats=[],
    frontend_packages=["uplot@1.6.32"],
    plugins=[OriginPlugin(), LaterPlugin()],
    disable_plugins=[SitemapPlugin],
)
