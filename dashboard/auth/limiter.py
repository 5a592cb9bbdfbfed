"""How often somebody may try to sign in. Pure: time is a parameter, in seconds of any clock.

Each user name and each client address has some free tries; each further one must wait, twice as
long each time. A try counts as failed from its beginning, so that many at once gain nothing; a
success gives the address its try back and forgets the name's failures. The address's other failures
stay: else somebody with an account of his own could clear them at will.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

FREE_TRIES: Final = 5
"""A person who mistypes; also a shift's people behind one proxy."""

FIRST_WAIT_S: Final = 10.0
"""The wait after the last free try; it doubles with each failure."""

NAME_WAIT_S_MAX: Final = 60.0
"""Short, since whoever guesses makes the user wait too: still 1,440 guesses a day at most."""

ADDRESS_WAIT_S_MAX: Final = 900.0
"""Long, since it is the guesser who waits."""

FORGET_S: Final = 3_600.0
"""Failures are forgotten after this time without another; longer than every wait."""

KEYS_MAX: Final = 4_096
"""Names and addresses remembered, each; below 1 MB. The one longest without a failure goes first.
Filling it takes thousands of addresses, each of which has to wait."""

IPV6_PREFIX: Final = 64
"""One subscriber or one LAN segment (RFC 4291): the rest of an address is free to choose."""


@dataclass(slots=True)
class _Failures:
    count: int
    last_s: float


class _Book:
    """Failures by key."""

    def __init__(self, wait_s_max: float) -> None:
        self._wait_s_max = wait_s_max
        self._failures: dict[str, _Failures] = {}

    def __len__(self) -> int:
        return len(self._failures)

    def wait_s(self, key: str, now_s: float) -> float:
        failures = self._failures.get(key)
        if failures is None or failures.count < FREE_TRIES:
            return 0.0
        # 2**10 first waits exceed every bound, and a float must not overflow.
        doublings = min(failures.count - FREE_TRIES, 10)
        wait_s = min(FIRST_WAIT_S * 2.0**doublings, self._wait_s_max)
        return max(failures.last_s + wait_s - now_s, 0.0)

    def add(self, key: str, now_s: float) -> None:
        failures = self._failures.pop(key, None)
        count = failures.count if failures and now_s - failures.last_s < FORGET_S else 0
        # Behind all others: a dict keeps the order in which keys came.
        self._failures[key] = _Failures(count + 1, now_s)
        if len(self._failures) > KEYS_MAX:
            del self._failures[next(iter(self._failures))]

    def take_back(self, key: str) -> None:
        failures = self._failures.get(key)
        if failures is not None:
            failures.count -= 1
            if failures.count <= 0:
                del self._failures[key]

    def forget(self, key: str) -> None:
        self._failures.pop(key, None)


class Limiter:
    """Counts tries by user name and by client address; in memory, bounded by `KEYS_MAX`."""

    def __init__(self) -> None:
        self._names = _Book(NAME_WAIT_S_MAX)
        self._addresses = _Book(ADDRESS_WAIT_S_MAX)

    def admit(self, name: str, address: str, now_s: float) -> float:
        """0.0: go on, and it counts as a failure until `succeeded`. Else the seconds to wait.

        A refused try is not counted: waiting patiently always ends.
        """
        network = address_key(address)
        wait_s = max(self._names.wait_s(name, now_s), self._addresses.wait_s(network, now_s))
        if wait_s <= 0:
            self._names.add(name, now_s)
            self._addresses.add(network, now_s)
        return wait_s

    def succeeded(self, name: str, address: str) -> None:
        """The try that was admitted was right."""
        self._names.forget(name)
        self._addresses.take_back(address_key(address))


def address_key(address: str) -> str:
    """What stands for a client: its IPv4 address, or its IPv6 network; other text as it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(parsed), IPV6_PREFIX), strict=False))
    return str(parsed)
