"""Who is logged in."""

from __future__ import annotations

import reflex as rx

from dashboard import current


class Session(rx.State):
    """The user of this browser; the name is empty where the dashboard is open to everybody."""

    name: str = ""
    role: str = ""

    @rx.event
    def load(self) -> None:
        """Look into the session cookie, which came with the websocket's handshake."""
        user = current.user_of(self.router.headers.cookie)
        self.name, self.role = (user.name, user.role) if user else ("", "")
