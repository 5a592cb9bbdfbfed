"""The login limiter: free tries, waits that double, bounded memory."""

from __future__ import annotations

import pytest

from dashboard.auth import limiter
from dashboard.auth.limiter import Limiter, address_key


def fail(limits: Limiter, times: int, name: str = "kim", address: str = "10.0.0.1") -> list[float]:
    """Fail this often, each time as soon as it is allowed; the waits."""
    now_s, waits = 1_000.0, []
    for _ in range(times):
        wait_s = limits.admit(name, address, now_s)
        waits.append(wait_s)
        if wait_s:
            now_s += wait_s
            assert limits.admit(name, address, now_s) == 0
    return waits


def test_free_tries_and_then_waits_that_double() -> None:
    """Five tries cost nothing; then 10, 20, 40 s, up to the longest wait of an address."""
    limits = Limiter()
    waits = [fail(limits, 1, name=f"name{number}")[0] for number in range(5)]
    assert waits == [0, 0, 0, 0, 0]
    now_s, waits = 1_000.0, []
    for number in range(10):
        wait_s = limits.admit(f"other{number}", "10.0.0.1", now_s)
        waits.append(wait_s)
        now_s += wait_s
        assert limits.admit(f"other{number}", "10.0.0.1", now_s) == 0
    assert waits == [10, 20, 40, 80, 160, 320, 640, 900, 900, 900]


def test_a_name_waits_whatever_the_address() -> None:
    """Guessing at one user from many addresses is slow too, but never for longer than a minute."""
    limits = Limiter()
    now_s = 0.0
    for number in range(30):
        wait_s = limits.admit("kim", f"10.0.0.{number}", now_s)
        assert wait_s <= limiter.NAME_WAIT_S_MAX
        now_s += wait_s
        if wait_s:
            assert limits.admit("kim", f"10.0.0.{number}", now_s) == 0
    assert limits.admit("kim", "10.1.1.1", now_s) == limiter.NAME_WAIT_S_MAX
    assert limits.admit("lee", "10.1.1.1", now_s) == 0


def test_tries_that_run_at_the_same_time_count() -> None:
    """Each counts from its beginning: a burst gets no more than the free tries."""
    limits = Limiter()
    admitted = [limits.admit("kim", "10.0.0.1", 5.0) == 0 for _ in range(100)]
    assert admitted == [True] * limiter.FREE_TRIES + [False] * (100 - limiter.FREE_TRIES)


def test_a_refused_try_does_not_prolong_the_wait() -> None:
    """Whoever keeps clicking waits no longer for it."""
    limits = Limiter()
    fail(limits, limiter.FREE_TRIES)
    assert limits.admit("kim", "10.0.0.1", 1_004.0) == 6
    assert limits.admit("kim", "10.0.0.1", 1_009.0) == 1
    assert limits.admit("kim", "10.0.0.1", 1_010.0) == 0


def test_a_success_forgets_the_name_and_not_the_address() -> None:
    """A user begins anew; an address that has an account can't clear its other failures."""
    limits = Limiter()
    for _ in range(3):
        assert limits.admit("kim", "10.0.0.1", 0.0) == 0
    assert limits.admit("kim", "10.0.0.1", 0.0) == 0
    limits.succeeded("kim", "10.0.0.1")
    for _ in range(limiter.FREE_TRIES):
        assert limits.admit("kim", "10.0.0.2", 0.0) == 0
    assert limits.admit("admin", "10.0.0.1", 0.0) == 0
    assert limits.admit("admin", "10.0.0.1", 0.0) == 0
    assert limits.admit("admin", "10.0.0.1", 0.0) == limiter.FIRST_WAIT_S


def test_users_behind_one_address_who_make_no_mistake_never_wait() -> None:
    """A proxy's address does not fill up by good sign-ins."""
    limits = Limiter()
    for _ in range(100):
        assert limits.admit("kim", "10.0.0.1", 0.0) == 0
        limits.succeeded("kim", "10.0.0.1")
    assert len(limits._names) == len(limits._addresses) == 0


def test_failures_are_forgotten_after_an_hour() -> None:
    """Yesterday's mistakes cost nothing today."""
    limits = Limiter()
    fail(limits, limiter.FREE_TRIES)
    later_s = 1_000.0 + limiter.FORGET_S
    for _ in range(limiter.FREE_TRIES):
        assert limits.admit("kim", "10.0.0.1", later_s) == 0
    assert limits.admit("kim", "10.0.0.1", later_s) > 0


def test_memory_is_bounded_and_the_longest_quiet_goes_first() -> None:
    """However many names and addresses come, the newest are remembered."""
    limits = Limiter()
    fail(limits, limiter.FREE_TRIES, name="old", address="192.0.2.1")
    for number in range(limiter.KEYS_MAX - 1):
        limits.admit(f"name{number}", f"10.1.{number >> 8}.{number & 255}", 1_001.0)
    assert limits.admit("old", "192.0.2.2", 1_001.0) > 0, "still remembered"
    limits.admit("one more", "192.0.2.3", 1_001.0)
    assert limits.admit("old", "192.0.2.2", 1_001.0) == 0, "gone: it was the oldest"
    assert len(limits._names) == len(limits._addresses) == limiter.KEYS_MAX


def test_who_goes_on_guessing_is_not_forgotten() -> None:
    """The last failure counts, not the first: nobody gets out of it by filling the memory."""
    limits = Limiter()
    fail(limits, limiter.FREE_TRIES, name="kim", address="192.0.2.1")
    for number in range(limiter.KEYS_MAX - 1):
        limits.admit(f"name{number}", f"10.1.{number >> 8}.{number & 255}", 1_001.0)
    assert limits.admit("kim", "192.0.2.1", 1_020.0) == 0
    limits.admit("one more", "192.0.2.3", 1_021.0)
    assert limits.admit("kim", "192.0.2.1", 1_021.0) == 2 * limiter.FIRST_WAIT_S - 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "", True),
        ("unix:", "10.0.0.1", False),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, *, same: bool) -> None:
    """An IPv6 client has a whole network to choose from; IPv4 may come in IPv6's clothes."""
    assert (address_key(one) == address_key(other)) is same
