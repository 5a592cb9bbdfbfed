"""The dashboard: one card per device, a page per device, and how the agent itself is."""
