"""One dump of babeld after another, taken into a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.routing import babel_lines
from re6st.core.routing.babel_lines import DRAINED, INFINITY, Table
from re6st.core.routing.table_dump import TableDump

INTERFACE = "add interface re6stnet1 up true ipv6 fe80::1"
XROUTE = "add xroute 2001:db8:42:a::/64-::/0 prefix 2001:db8:42:a::/64 from ::/0 metric 0"


def neighbour(ident: str = "f1", cost: int = 96, rtt: str = "0.200") -> str:
    return (
        f"add neighbour {ident} address fe80::1 if re6stnet1 reach ffff ureach 0000 rxcost 96 txcost 96 "
        f"rtt {rtt} rttcost 0 cost {cost}"
    )


def route(ident: int, metric: int = 96, installed: str = "yes", prefix: str = "2001:db8:42:b::/64") -> str:
    source = "::/0" if ":" in prefix else "0.0.0.0/0"
    return (
        f"add route {ident:x} prefix {prefix} from {source} installed {installed} "
        f"id a8:e2:88:40:b9:88:04:42 metric {metric} refmetric 0 via fe80::1 if re6stnet1"
    )


def taken(dump: TableDump, *lines: str) -> bool:
    """Whether that was news."""
    assert dump.add(lines) == []
    news, errors = dump.end()
    assert errors == []
    return news


def content(table: Table) -> tuple[object, ...]:
    return table.interfaces, table.neighbours, table.routes, table.ipv4_routes


def test_what_a_dump_names_is_there_and_what_the_next_one_does_not_name_is_gone() -> None:
    table = Table()
    dump = TableDump(table)
    everything = (INTERFACE, neighbour(), XROUTE, route(1), route(2), route(3, prefix="10.42.2.0/24"))
    assert taken(dump, *everything)
    assert table.size == 5
    assert not taken(dump, *everything)
    assert taken(dump, INTERFACE, neighbour(), XROUTE, route(2))
    assert (list(table.routes), list(table.ipv4_routes), table.size) == (["2"], [], 3)
    assert taken(dump)
    assert table.size == 0


@pytest.mark.parametrize(
    ("now", "news"),
    [
        (route(1), False),
        (route(1, metric=DRAINED - 1), False),
        (route(1, metric=DRAINED), True),
        (route(1, metric=INFINITY), True),
        (route(1, installed="no"), True),
        (route(1, prefix="2001:db8:42:c::/64"), True),
        (route(1, prefix="10.42.2.0/24"), True),
        (route(1).replace("via fe80::1", "via fe80::2"), True),
        (route(1).replace("from ::/0", "from 2001:db8:42::/48"), True),
        (route(1).replace("id a8", "id a9"), True),
    ],
)
def test_another_metric_is_kept_and_is_no_news(now: str, news: bool) -> None:
    table, fresh = Table(), Table()
    dump = TableDump(table)
    taken(dump, route(1), route(2))
    assert taken(dump, now, route(2)) is news
    taken(TableDump(fresh), now, route(2))
    assert content(table) == content(fresh)


@pytest.mark.parametrize(
    ("now", "news"),
    [
        ((INTERFACE, neighbour(cost=200)), False),
        ((INTERFACE, neighbour(cost=INFINITY)), True),
        ((INTERFACE,), True),
        ((INTERFACE, neighbour(), neighbour("f2")), True),
        ((INTERFACE.replace("true", "false"), neighbour()), True),
    ],
)
def test_who_comes_goes_or_is_lost_is_news(now: tuple[str, ...], news: bool) -> None:
    dump = TableDump(Table())
    taken(dump, INTERFACE, neighbour())
    assert taken(dump, *now) is news


def test_nothing_is_taken_in_before_the_end_and_nothing_of_a_dump_that_broke_off() -> None:
    table = Table()
    dump = TableDump(table)
    taken(dump, route(1), route(2))
    dump.add([route(1, installed="no"), route(3)])
    assert list(table.routes) == ["1", "2"]
    assert table.routes["1"].installed
    dump.drop()
    assert not taken(dump, route(1), route(2))
    assert list(table.routes) == ["1", "2"]


def test_a_round_trip_time_is_kept_and_is_no_news() -> None:
    table = Table()
    dump = TableDump(table)
    taken(dump, neighbour())
    assert not taken(dump, neighbour(rtt="0.300"))
    assert [each.rtt for each in table.neighbours.values()] == [0.3]


def test_a_line_that_cannot_be_read_costs_that_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(babel_lines, "ENTRY_LIMIT", 2)
    table = Table()
    dump = TableDump(table)
    errors = dump.add(["add route 1", route(1), "nonsense", route(2)])
    assert len(errors) == 2
    assert dump.end() == (True, [])
    dump.add([route(1), route(2), route(3)])
    news, errors = dump.end()
    assert (news, len(errors), list(table.routes)) == (False, 1, ["1", "2"])


LINES = st.one_of(
    st.builds(
        route,
        st.integers(0, 4),
        st.sampled_from([96, 97, 65535]),
        st.sampled_from(["yes", "no"]),
        st.sampled_from(["2001:db8:42:b::/64", "2001:db8:42:c::/64", "10.42.2.0/24"]),
    ),
    st.builds(neighbour, st.sampled_from(["f1", "f2"]), st.sampled_from([96, 200])),
    st.just(INTERFACE),
)
DUMPS = st.lists(st.lists(LINES, unique_by=lambda line: tuple(line.split(" ")[1:3]), max_size=6), max_size=6)


@given(DUMPS)
def test_the_table_is_that_of_the_last_dump(told: list[list[str]]) -> None:
    table = Table()
    dump = TableDump(table)
    for lines in told:
        before = [set(each) for each in (table.interfaces, table.neighbours, table.routes, table.ipv4_routes)]
        news = taken(dump, *lines)
        fresh = Table()
        for line in lines:
            fresh.feed(line)
        assert content(table) == content(fresh)
        after = [set(each) for each in (table.interfaces, table.neighbours, table.routes, table.ipv4_routes)]
        assert news or before == after
