"""What is shown live: one look at the plant each second, shared by all browsers.

`feed.py` looks (at the agent, or at a history's newest samples), `plant.py` is what was seen,
`judge.py` says how a device is and since when, `bars.py` keeps the last hour of each card, and
`hub.py` puts it together once a second and hands the same bytes to every browser.
"""
