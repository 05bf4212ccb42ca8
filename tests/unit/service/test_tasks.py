"""Work that follows news, and moments of the wall clock."""

from __future__ import annotations

import asyncio

import pytest

from re6st.service import tasks
from re6st.service.tasks import Latest, news_or_moment
from tests.unit.fake_program import until


def test_of_two_news_at_once_the_newest_has_the_last_word() -> None:
    """As when two versions of the parameters come within milliseconds, and the first waits in the middle."""
    current, in_force, running = 1, [0, 0], 0

    async def run() -> None:
        nonlocal current
        go_on = asyncio.Event()

        async def follow() -> bool:
            nonlocal running
            running += 1
            assert running == 1, "one at a time"
            seen = current
            in_force[0] = seen
            await go_on.wait()
            in_force[1] = seen
            running -= 1
            return True

        latest = Latest(follow)
        task = asyncio.create_task(latest.run())
        latest.news()
        await until(lambda: running == 1)
        current = 2
        latest.news()
        go_on.set()
        await until(lambda: in_force == [2, 2])
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())


def test_what_was_not_done_is_tried_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_FIRST", 0.001)
    tries = 0

    async def run() -> None:
        async def follow() -> bool:
            nonlocal tries
            tries += 1
            return tries == 4

        latest = Latest(follow)
        task = asyncio.create_task(latest.run())
        await asyncio.sleep(0.01)
        assert tries == 0, "there is no news"
        latest.news()
        await until(lambda: tries == 4)
        await asyncio.sleep(0.05)
        assert tries == 4
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())


@pytest.mark.parametrize("jump", [3600.0, 60.0])
def test_a_moment_is_met_also_when_the_clock_jumps(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """A machine that slept, or whose clock was set: no timer has noticed."""
    monkeypatch.setattr(tasks, "LOOK", 0.01)
    wall = 1000.0

    async def run() -> None:
        nonlocal wall
        waiting = asyncio.create_task(news_or_moment(asyncio.Event(), 1060.0, lambda: wall))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        wall -= 500  # and back: then it is later
        await asyncio.sleep(0.05)
        assert not waiting.done()
        wall += 500 + jump
        async with asyncio.timeout(1):
            await waiting

    asyncio.run(run())


def test_news_end_the_wait_for_a_moment() -> None:
    async def run() -> None:
        for at in (None, 2000.0):
            news = asyncio.Event()
            waiting = asyncio.create_task(news_or_moment(news, at, lambda: 1000.0))
            await asyncio.sleep(0)
            news.set()
            async with asyncio.timeout(1):
                await waiting
        await news_or_moment(asyncio.Event(), 1000.0, lambda: 1000.0)

    asyncio.run(run())
