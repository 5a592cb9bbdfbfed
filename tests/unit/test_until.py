"""A test that waits in vain says for what."""

from __future__ import annotations

import asyncio

import pytest

from tests.waiting import until


async def test_it_ends_as_soon_as_something_is_so() -> None:
    """Also what has to be awaited; others work meanwhile."""
    seen: list[int] = []
    asyncio.get_running_loop().call_soon(seen.append, 1)
    await until(lambda: seen)
    asyncio.get_running_loop().call_soon(seen.append, 2)

    async def is_there() -> bool:
        return 2 in seen

    await until(is_there)


async def test_what_never_comes_is_named_as_the_test_has_it() -> None:
    """Or in the words of the test."""
    held: list[int] = []
    with pytest.raises(TimeoutError, match=r"not within 0 s: await until\(lambda: len\(held\) > 3"):
        await until(lambda: len(held) > 3, within_s=0)
    with pytest.raises(TimeoutError, match=r"not within 0 s: a fourth one$"):
        await until(lambda: len(held) > 3, "a fourth one", within_s=0)


async def test_an_answer_that_never_comes_ends_too() -> None:
    """Whoever is asked may not answer at all."""
    with pytest.raises(TimeoutError, match="an answer"):
        await until(asyncio.Event().wait, "an answer", within_s=0)
