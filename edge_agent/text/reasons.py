"""Why the system refused something, as people know it. Pure."""

from __future__ import annotations

import os
import re
import ssl
from typing import Final

_NUMBER: Final = re.compile(r"\[Errno -?\d+\] ")


def reason_of(error: BaseException) -> str:
    """An error's reason without class, number and address: ``Connection refused``.

    TLS has numbers of its own, which mean something else to the system: its texts stay.
    """
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno:
        text = os.strerror(error.errno) if error.errno > 0 else error.strerror
        if text:
            return text
    return _NUMBER.sub("", str(error)) or type(error).__name__
