"""babeld's text protocol: the lines of wire.md 9.5, and lines that are none."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from re6st.core.routing import babel_lines
from re6st.core.routing.babel_lines import (
    DRAINED,
    INFINITY,
    LINE_LIMIT,
    BabelInterface,
    Line,
    LineError,
    Neighbour,
    News,
    NextHop,
    OtherEntry,
    Reply,
    Route,
    Table,
    Verb,
    parse,
    parse_reply,
)

FE80 = IPv6Address("fe80::3cb3:c7ff:fe1d:47a8")
NEIGHBOUR = (
    "add neighbour 55f0c6ed81a0 address fe80::3cb3:c7ff:fe1d:47a8 if re6stnet1 reach ff00 ureach 0000 rxcost 96 "
    "txcost 100 rtt 0.200 rttcost 0 cost 97"
)
ROUTE = (
    "add route 55f0c6ed9410 prefix 2001:db8:42:b::/64 from ::/0 installed yes id a8:e2:88:40:b9:88:04:42 metric 96 "
    "refmetric 0 via fe80::3cb3:c7ff:fe1d:47a8 if re6stnet1"
)


def entry(line: str) -> babel_lines.Entry:
    parsed = parse(line)
    assert parsed is not None
    return parsed.entry


def test_interfaces() -> None:
    up = "add interface re6stnet1 up true ipv6 fe80::ec9b:3dff:fe36:5bf6 ipv4 10.42.1.1"
    assert parse(up) == Line(Verb.ADD, "re6stnet1", BabelInterface("re6stnet1", True))
    assert entry("change interface re6stnet2 up false") == BabelInterface("re6stnet2", False)


def test_neighbours_with_and_without_rtt() -> None:
    assert parse(NEIGHBOUR) == Line(
        Verb.ADD, "55f0c6ed81a0", Neighbour("55f0c6ed81a0", FE80, "re6stnet1", 0xFF00, 96, 100, 97, 0.2)
    )
    silent = entry(NEIGHBOUR.replace(" rtt 0.200 rttcost 0", "").replace("cost 97", f"cost {INFINITY}"))
    assert isinstance(silent, Neighbour)
    assert (silent.rtt, silent.cost) == (None, INFINITY)


def test_routes() -> None:
    route = entry(ROUTE)
    assert route == Route(
        "55f0c6ed9410",
        IPv6Network("2001:db8:42:b::/64"),
        IPv6Network("::/0"),
        True,
        96,
        0,
        NextHop(FE80, "re6stnet1"),
        "a8:e2:88:40:b9:88:04:42",
    )
    assert isinstance(route, Route)
    assert route.usable
    default = entry(ROUTE.replace("2001:db8:42:b::/64 from ::/0", "::/0 from 2001:db8:42::/48"))
    assert isinstance(default, Route)
    assert default.source == IPv6Network("2001:db8:42::/48")
    for other in (ROUTE.replace("installed yes", "installed no"), ROUTE.replace("metric 96 ref", "metric 65535 ref")):
        unused = entry(other)
        assert isinstance(unused, Route)
        assert not unused.usable


def test_words_are_read_by_name_not_by_place() -> None:
    turned = "add route 1 if x via fe80::1 refmetric 3 metric 4 id a from ::/0 new thing installed no prefix 2001::/16"
    assert entry(turned) == Route(
        "1",
        IPv6Network("2001::/16"),
        IPv6Network("::/0"),
        False,
        4,
        3,
        NextHop(IPv6Address("fe80::1"), "x"),
        "a",
    )


@pytest.mark.parametrize(
    "line",
    [
        "add xroute 2001:db8:42:a::/64-::/0 prefix 2001:db8:42:a::/64 from ::/0 metric 0",
        "add xroute ::/0-2001:db8:42::/48 prefix ::/0 from 2001:db8:42::/48 metric 0",
        "add xroute 10.42.1.0/24-0.0.0.0/0 prefix 10.42.1.0/24 from 0.0.0.0/0 metric 0",
    ],
)
def test_what_is_not_kept(line: str) -> None:
    assert isinstance(entry(line), OtherEntry)
    table = Table()
    assert table.feed(line) is None
    assert (table.interfaces, table.neighbours, table.routes, table.ipv4_routes) == ({}, {}, {}, {})


ROUTE4 = (
    "route 558c prefix 10.42.2.0/24 from 0.0.0.0/0 installed yes id f8:2e:16:25:a7:12:3b:bb metric {} refmetric {}"
    " via fe80::3cb3:c7ff:fe1d:47a8 if re6stnet1"
)


def test_routes_of_ipv4_are_kept_apart_and_tell_who_claims_what() -> None:
    table = Table()
    table.feed(f"add {ROUTE4.format(96, 0)}")
    assert table.routes == {}
    kept = table.ipv4_routes["558c"]
    hop = NextHop(IPv6Address("fe80::3cb3:c7ff:fe1d:47a8"), "re6stnet1")
    assert (kept.destination, kept.refmetric, kept.via) == (IPv4Network("10.42.2.0/24"), 0, hop)
    news = News(table)
    news.add(f"change {ROUTE4.format(97, 1)}")
    assert news.take(late=False) == [], "a metric that changed is not urgent, as of IPv6"
    for ident, text in news.metrics().items():
        assert table.measure(ident, text)
    assert (table.ipv4_routes["558c"].metric, table.ipv4_routes["558c"].refmetric) == (97, 1)
    other = Table()
    other.take(table)
    assert other.ipv4_routes == table.ipv4_routes
    table.feed(f"flush {ROUTE4.format(97, 1)}")
    assert table.ipv4_routes == {}
    with pytest.raises(LineError):
        table.feed(f"add {ROUTE4.format(96, 0)}".replace("10.42.2.0/24", "10.42.2.1/24"))


@pytest.mark.parametrize(
    ("old", "new", "usable"), [("yes", "yes", True), ("yes", "no", False), ("metric 96", "metric 65535", False)]
)
def test_which_ipv4_routes_can_be_used(old: str, new: str, usable: bool) -> None:
    table = Table()
    assert table.feed(f"add {ROUTE4.format(96, 0)}".replace(old, new))
    assert [route.usable for route in table.ipv4_routes.values()] == [usable]


@pytest.mark.parametrize("line", ["BABEL 1.0", "version babeld-1.12.1", "host beacon", "my-id 02:00:00:00:00:00:00:01"])
def test_greeting(line: str) -> None:
    assert parse(line) is None
    assert parse_reply(line) is None


def test_replies() -> None:
    assert [parse_reply(line) for line in ("ok", "no No such interface", "no", "bad")] == [
        Reply.OK,
        Reply.NO,
        Reply.NO,
        Reply.BAD,
    ]
    assert parse_reply("okay") is None
    assert parse_reply("") is None
    assert parse_reply(ROUTE) is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "add",
        "add route",
        "add route 1",
        "add tunnel 1 up true",
        "remove interface x up true",
        ROUTE + " more",
        ROUTE.replace("metric 96 ", ""),
        ROUTE.replace("metric 96", "metric 65536"),
        ROUTE.replace("metric 96", "metric -1"),
        ROUTE.replace("metric 96", "metric 9_6"),
        ROUTE.replace("metric 96", "metric ٣"),
        ROUTE.replace("2001:db8:42:b::/64", "2001:db8:42:b::1/64"),
        ROUTE.replace("2001:db8:42:b::/64", "2001:db8:42:b::/129"),
        ROUTE.replace("via fe80::3cb3:c7ff:fe1d:47a8", "via 10.0.0.1"),
        NEIGHBOUR.replace("reach ff00", "reach xyz"),
        NEIGHBOUR.replace("reach ff00", "reach -1"),
        NEIGHBOUR.replace("rtt 0.200", "rtt nan"),
        NEIGHBOUR.replace("rtt 0.200", "rtt inf"),
        NEIGHBOUR.replace("rtt 0.200", "rtt -1.0"),
        NEIGHBOUR.replace("re6stnet1", "x" * LINE_LIMIT),
    ],
)
def test_lines_that_cannot_be_read_change_nothing(line: str) -> None:
    table = Table()
    with pytest.raises(LineError) as raised:
        table.feed(line)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000
    assert (table.interfaces, table.neighbours, table.routes) == ({}, {}, {})


WORDS = st.sampled_from(
    [
        *("add", "change", "flush", "route", "neighbour", "interface", "xroute", "prefix", "from", "installed", "yes"),
        *("metric", "refmetric", "via", "if", "address", "reach", "rxcost", "txcost", "cost", "rtt", "up", "true"),
        *("::/0", "fe80::1", "2001:db8::/32", "10.0.0.0/8", "96", "65535", "ff00", "x", "1.5", "nan", "no"),
    ]
)


@given(st.text(max_size=200) | st.lists(WORDS, max_size=24).map(" ".join))
@example("add interface x up")
@example("add route 1 prefix")
def test_any_line_is_read_or_refused(line: str) -> None:
    table = Table()
    try:
        table.feed(line)
    except LineError:
        assert (table.interfaces, table.neighbours, table.routes) == ({}, {}, {})
    parse_reply(line)


@given(st.lists(st.tuples(st.sampled_from(["add", "change", "flush"]), st.integers(0, 3), st.integers(0, 3))))
def test_the_table_holds_what_was_said_last(said: list[tuple[str, int, int]]) -> None:
    table, expected = Table(), dict[str, int]()
    for verb, ident, metric in said:
        line = ROUTE.replace("add", verb).replace("55f0c6ed9410", str(ident)).replace("metric 96", f"metric {metric}")
        changed = table.feed(line)
        before = dict(expected)
        if verb == "flush":
            expected.pop(str(ident), None)
        else:
            expected[str(ident)] = metric
        assert (changed is not None) == (before != expected), "a line that changes nothing is no news"
    assert {ident: route.metric for ident, route in table.routes.items()} == expected


def test_of_two_neighbours_with_one_address_the_cheaper_one_counts() -> None:
    """After a flush 1.12.1 keeps the old one beside the new one until it ages out (wire.md 9.5)."""
    table = Table()
    table.feed(NEIGHBOUR)
    table.feed(NEIGHBOUR.replace("55f0c6ed81a0", "aaaa").replace("cost 97", "cost 65535"))
    found = table.neighbour_at(NextHop(FE80, "re6stnet1"))
    assert found is not None
    assert found.cost == 97
    assert table.neighbour_at(NextHop(FE80, "re6stnet2")) is None


def test_a_restart_of_babeld_clears_the_table() -> None:
    table = Table()
    for line in (NEIGHBOUR, ROUTE, "add interface x up true"):
        assert table.feed(line) is not None
    table.clear()
    assert (table.interfaces, table.neighbours, table.routes) == ({}, {}, {})


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(babel_lines, "ENTRY_LIMIT", 3)
    table = Table()
    for number in range(3):
        table.feed(ROUTE.replace("55f0c6ed9410", str(number)))
    with pytest.raises(LineError, match="more than 3"):
        table.feed(ROUTE)
    assert table.feed(ROUTE.replace("55f0c6ed9410", "1").replace("metric 96", "metric 97")), "what is there may change"
    assert len(table.routes) == 3


# --- news that can wait ---


def route_line(verb: str, ident: str = "a1", installed: str = "yes", metric: int = 96, prefix: str = "b") -> str:
    return (
        f"{verb} route {ident} prefix 2001:db8:42:{prefix}::/64 from ::/0 installed {installed} "
        f"id a8:e2:88:40:b9:88:04:42 metric {metric} refmetric 0 via fe80::1 if re6stnet1"
    )


def neighbour_line(verb: str, cost: int = 96, ident: str = "f1") -> str:
    return (
        f"{verb} neighbour {ident} address fe80::1 if re6stnet1 reach ffff ureach 0000 rxcost 96 txcost 96 cost {cost}"
    )


def test_another_round_trip_time_is_kept_and_changes_nothing() -> None:
    """Each hello brings one, and those who follow the table have much to look at."""
    table = Table()
    assert table.feed(f"add {NEIGHBOUR.partition(' ')[2]}")
    assert table.feed(f"change {NEIGHBOUR.partition(' ')[2]}".replace("rtt 0.200", "rtt 0.300")) is None
    assert [each.rtt for each in table.neighbours.values()] == [0.3]


@pytest.mark.parametrize(
    ("line", "urgent"),
    [
        (route_line("change", metric=97), False),
        (route_line("change", installed="no"), True),
        (route_line("change", metric=DRAINED - 1), False),
        (route_line("change", metric=DRAINED), True),
        (route_line("change", metric=65535), True),
        (route_line("flush"), True),
        (route_line("add", ident="a2"), True),
        (route_line("change", ident="a2"), True),
        (neighbour_line("change", cost=200), False),
        (neighbour_line("change", cost=65535), True),
        (neighbour_line("change", ident="f2"), True),
        ("change interface re6stnet1 up false", True),
        ("change route a1", True),
    ],
)
def test_only_another_metric_can_wait(line: str, urgent: bool) -> None:
    table = Table()
    for known in (route_line("add"), neighbour_line("add")):
        table.feed(known)
    news = News(table)
    news.add(line)
    assert len(news) == 1
    assert news.take(late=False) == ([line] if urgent else [])
    late = news.take(late=True)
    if " metric " in line and not urgent:
        assert (late, news.metrics()) == ([], {"a1": line.partition(" metric ")[2]})
    else:
        assert late == ([] if urgent else [line])
    assert len(news) == 0


def test_of_each_entry_the_last_news_count() -> None:
    table = Table()
    table.feed(route_line("add"))
    news = News(table)
    news.add(route_line("change", metric=97))
    news.add(route_line("change", metric=98))
    assert len(news) == 1
    news.add(route_line("flush"))
    news.add(route_line("add", metric=99))
    news.add(route_line("change", metric=100))
    assert news.take(late=False) == [route_line("change", metric=100)]
    assert len(news) == 0
    for metric in (101, 102):
        news.add(route_line("change", metric=metric))
    (ident, text), *others = news.metrics().items()
    assert (table.measure(ident, text), others) == (True, [])
    assert table.routes["a1"].metric == 102
    assert not table.measure(ident, text), "it is known"
    assert not table.measure("a2", text), "a route that is gone"
    for text in ("", "9 refmetric", "x refmetric 0 via fe80::1 if x", "9 refmetric -1 via fe80::1 if x"):
        with pytest.raises(LineError):
            table.measure(ident, text)
    for line in ("", "change", "change route"):
        with pytest.raises(LineError):
            news.add(line)


def test_a_line_that_says_again_what_is_known_is_no_news() -> None:
    table = Table()
    table.feed(route_line("add"))
    news = News(table)
    for metric, told in ((97, "97"), (97, ""), (96, "96"), (97, "97"), (97, "")):
        news.add(route_line("change", metric=metric))
        assert [text.partition(" ")[0] for text in news.metrics().values()] == ([told] if told else [])
    for line in (route_line("flush"), route_line("add", metric=96)):
        news.add(line)
        assert news.take(late=False) == [line]
        table.feed(line)
    news.add(route_line("change", metric=97))
    assert list(news.metrics()) == ["a1"], "the last line of a route that has gone says nothing of the one that came"


def test_a_way_that_is_about_to_be_lost_is_known_at_once_however_often_its_metric_was_told() -> None:
    """Who drains another one looks whether there is still this one."""
    table = Table()
    table.feed(route_line("add"))
    news = News(table)
    for metric in (97, 98, DRAINED // 2):
        news.add(route_line("change", metric=metric))
    assert news.take(late=False) == []
    line = route_line("change", metric=DRAINED)
    news.add(line)
    assert news.take(late=False) == [line]
    table.feed(line)
    news.add(route_line("change", metric=DRAINED + 1))
    assert news.take(late=False) == [], "no news"


@given(
    st.lists(
        st.tuples(
            *(st.sampled_from(x) for x in (("add", "change", "flush"), "abc", ("yes", "no"), (96, 97, DRAINED, 65535)))
        )
    )
)
def test_news_in_two_parts_say_the_same_as_the_lines_in_order(told: list[tuple[str, str, str, int]]) -> None:
    lines = [route_line(*each, prefix=each[1]) for each in told]
    plain, slow = Table(), Table()
    news = News(slow)
    for number, line in enumerate(lines):
        plain.feed(line)
        news.add(line)
        for each in news.take(late=number % 5 == 4) if number % 2 else ():
            slow.feed(each)
        for route in news.metrics().items() if number % 5 == 4 else ():
            slow.measure(*route)
    for each in news.take(late=True):
        slow.feed(each)
    for route in news.metrics().items():
        slow.measure(*route)
    assert slow.routes == plain.routes
