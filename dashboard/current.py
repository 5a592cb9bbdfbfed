"""The running server's parts that Reflex's state classes need; `serve.py` sets them.

Reflex makes state objects itself, so nothing can be handed to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dashboard.auth.guard import Guard
    from dashboard.auth.users import User

guard: Guard | None = None


def user_of(cookie_header: str) -> User | None:
    """The user that a `Cookie` header names, or everybody where there are no users."""
    return guard.user_of(cookie_header) if guard is not None else None
