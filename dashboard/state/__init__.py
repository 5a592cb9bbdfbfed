"""What the server remembers of a browser: who is logged in. Nothing that moves, nothing large.

What a page shows stands in its URL; language and theme stand in the browser.
"""
