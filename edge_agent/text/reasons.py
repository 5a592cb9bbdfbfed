"""Why the system refused something, as people know it. Pure."""

from __future__ import annotations

import os
import re
import ssl
from typing import Final

_NUMBER: Final = re.compile(r"\[Errno (-?\d+)\] ")
_SEVERAL: Final = "Multiple exceptions: "
"""A name had several addresses, and each failed in its own way (asyncio and uvloop)."""


def reason_of(error: BaseException) -> str:
    """An error's reason without class, number and address: ``Connection refused``.

    TLS has numbers of its own, which mean something else to the system: its texts stay. Where
    each address of a name failed, the reasons stand side by side, each once: ``Network is
    unreachable; Connection refused``.
    """
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno:
        text = os.strerror(error.errno) if error.errno > 0 else error.strerror
        if text:
            return text
    text = str(error)
    if text.startswith(_SEVERAL) and (numbers := _NUMBER.findall(text)):
        return "; ".join(dict.fromkeys(os.strerror(int(number)) for number in numbers))
    return _NUMBER.sub("", text) or type(error).__name__
