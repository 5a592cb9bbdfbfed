"""glibc's allocator, told to give large buffers back (mallopt(3)); elsewhere nothing happens.

By itself it makes an arena for each thread, and takes to keeping larger and larger buffers once it
has seen one: what a map of many rows or a chart took for a moment would be kept for good.
"""

from __future__ import annotations

import ctypes
from typing import Final

M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
"""glibc's numbers of these parameters (malloc.h)."""
MAPPED_BYTES_MIN: Final = 131_072
"""glibc's own value at the start, which would otherwise grow."""
ARENAS_MAX: Final = 2
"""One for the event loop, one for the threads that wait for disk and network."""


def keep_small() -> None:
    """To be called before the first thread is started."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS_MAX)
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
