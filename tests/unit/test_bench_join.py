"""Where the time goes while a node joins: what is made of logs and of what babelds tell."""

from __future__ import annotations

from typing import Any, cast

from bench.report import TABLES, steps
from bench.support import join_steps
from bench.support.join_steps import BabelWords, durations, moments
from re6st.core.prefix import Prefix
from testbed import Node

HOST = cast(Any, type("Nowhere", (), {"name": "node"})())
LOG = [
    (10.4, "the program is loaded"),
    (10.5, "this node is 3/16"),
    (10.6, "AskBootstrap()"),
    (10.7, "tunnel to 1/16 at 10.0.0.1: OpenVPN says AUTH"),
    (10.8, "tunnel to 1/16 at 10.0.0.1 is up, on re6stnet1"),
]


def words(number: int, *told: tuple[float, str]) -> BabelWords:
    node = Node(HOST)
    node.prefix = Prefix(number, 16)
    return BabelWords(node, list(told))


def neighbour(ident: str, address: str, interface: str, cost: int) -> str:
    return f"add neighbour {ident} address {address} if {interface} reach 8000 rxcost 96 txcost 96 cost {cost}"


def route(ident: str, number: int, metric: int, interface: str) -> str:
    prefix = f"2001:db8:42:{number}::/64"
    tail = f"metric {metric} refmetric 0 via fe80::9 if {interface}"
    return f"add route {ident} prefix {prefix} from ::/0 installed yes id 01:02:03:04:05:06:07:08 {tail}"


def test_each_step_ends_when_its_last_sign_came() -> None:
    other = words(
        1,
        (9.0, neighbour("1", "fe80::2", "re6stnet-tcp", 96)),
        (11.0, neighbour("2", "fe80::3", "re6stnet-tcp", 96)),
        (11.2, route("1", 3, 65535, "re6stnet-tcp")),
        (11.3, route("1", 3, 96, "re6stnet-tcp")),
    )
    ours = words(
        3,
        (10.85, "add interface re6stnet1 up true"),
        (10.9, neighbour("1", "fe80::1", "re6stnet1", 384)),
        (11.4, route("1", 1, 96, "re6stnet1")),
    )
    found = moments(10.0, LOG, ours, [other], 11.5)
    rounded = {name: round(at, 2) for name, at in found.items()}
    assert rounded == {
        join_steps.PROGRAM: 0.4,
        join_steps.KEYS: 0.5,
        join_steps.ASKED: 0.6,
        join_steps.SPEAKS: 0.7,
        join_steps.UP: 0.8,
        join_steps.USED: 0.85,
        join_steps.HEARD: 1.0,
        join_steps.KNOWN: 1.3,
        join_steps.KNOWS: 1.4,
        join_steps.ANSWERED: 1.5,
    }, "what nobody told of is left out"


def test_what_was_done_before_the_step_before_took_no_time() -> None:
    assert durations({"a": 1.0, "b": 0.5, "c": 1.25}) == {"a": 1.0, "b": 0.0, "c": 0.25}


def test_the_table_has_the_medians() -> None:
    figures = {"done_ms": {"one": [1, 2, 9], "two": [5, 6, 7]}, "took_ms": {"one": [1, 2, 9], "two": [4, 4, 4]}}
    lines = steps(figures).splitlines()
    assert lines[2:] == ["| one | 2 | 2 |", "| two | 4 | 6 |"]
    assert TABLES["steps"] == ("steps", steps)
