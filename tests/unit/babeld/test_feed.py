"""When babeld's news get into the table: at once, or together with others."""

from __future__ import annotations

import asyncio

import pytest

from re6st.babeld import feed as babel_feed
from re6st.babeld.feed import Feed
from re6st.core.routing.babel_lines import Table
from tests.unit.fake_program import until

ROUTE = (
    "{verb} route {ident} prefix 2001:db8:42:{ident}::/64 from ::/0 installed yes id 00:00:00:00:00:00:00:01"
    " metric {metric} refmetric 0 via fe80::1 if re6stnet1"
)


def route(ident: int, metric: int, verb: str = "change") -> str:
    return ROUTE.format(verb=verb, ident=ident, metric=metric)


def test_what_cannot_wait_is_taken_in_at_once_and_other_metrics_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(babel_feed, "LATE_FIRST", 0.2)
    table = Table()
    changes: list[float] = []

    def metrics() -> list[int]:
        return [each.metric for each in table.routes.values()]

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        news = Feed(table, lambda: changes.append(clock()))
        news.hear([route(1, 100, "add"), route(2, 100, "add")])
        assert changes == [], "not before the lines that are there already have come too"
        await until(lambda: len(changes) == 1)
        assert metrics() == [100, 100]
        for metric in range(101, 111):
            news.hear([route(1, metric), route(2, metric)])
            await asyncio.sleep(0)
        news.hear(["change"])  # what is that?
        await until(lambda: len(changes) == 2)
        assert metrics() == [110, 110]
        assert changes[1] - changes[0] >= 0.19
        news.hear([route(1, 120)])
        news.hear([route(2, 65535)])
        await until(lambda: len(changes) == 3)
        assert metrics() == [110, 65535], "a route that is lost does not wait"
        await until(lambda: len(changes) == 4)
        assert metrics() == [120, 65535]
        news.hear([route(1, 130)])
        news.close()
        await asyncio.sleep(0.25)
        assert metrics() == [120, 65535]

    asyncio.run(main())
    assert len(changes) == 4
