"""The mesh as one node sees it, for people and for Graphviz."""

from __future__ import annotations

import re
from typing import Any

from re6st.view.neighbourhood import dot, lines_of, neighbourhood
from re6st.view.screen import paint


def neighbour(peer: str | None, interface: str, cost: int, rtt: float | None = None) -> dict[str, Any]:
    return {"peer": peer, "interface": interface, "cost": cost, "rtt_ms": rtt, "routes": 2}


def route(peer: str | None, via: str | None, metric: int, source: str | None = None) -> dict[str, Any]:
    return {"peer": peer, "via": via, "metric": metric, "source": source, "in_use": True}


NEIGHBOURS = [
    neighbour("4/16", "re6stnet1", 96, 18.5),
    neighbour("7/16", "re6stnet-tcp", 130),
    neighbour("7/16", "eth0", 200),
    neighbour(None, "re6stnet2", 65535),
]
TUNNELS = [
    {"peer": "4/16", "interface": "re6stnet1", "direction": "out"},
    {"peer": "7/16", "interface": "re6stnet-tcp", "direction": "in"},
]
ROUTES = [
    route("4/16", "4/16", 96),
    route("7/16", "7/16", 130),
    route("8/16", "7/16", 230),
    route("9/16", "7/16", 240),
    route("10/16", None, 300),
    route(None, "4/16", 128, "2001:db8:42::/48"),
    route("9/16", "4/16", 500, "2001:db8:42::/48"),
]
GRAPH = neighbourhood("1/16", NEIGHBOURS, TUNNELS, ROUTES)
SHOWN = """\
1/16, 2 neighbours
  7/16  its tunnel on re6stnet-tcp, cost 130
      2 nodes: 8/16, 9/16
  7/16  link on eth0, cost 200
  4/16  our tunnel on re6stnet1, cost 96, RTT 18 ms
  by a next hop that is not known: 10/16"""


def test_who_is_reached_by_whom() -> None:
    assert {node["cn"]: node["state"] for node in GRAPH["nodes"]} == {
        "1/16": "own",
        **dict.fromkeys(("4/16", "7/16"), "neighbour"),
        **dict.fromkeys(("8/16", "9/16", "10/16"), "behind"),
    }
    assert [(edge["from"], edge["to"], edge["kind"]) for edge in GRAPH["edges"]] == [
        ("1/16", "4/16", "link"),
        ("1/16", "7/16", "link"),
        ("1/16", "7/16", "link"),
        ("7/16", "8/16", "route"),
        ("7/16", "9/16", "route"),
    ]
    assert "\n".join(paint(lines_of(GRAPH, 80), width=80)) == SHOWN


def test_dot() -> None:
    text = dot(GRAPH)
    assert text.splitlines()[0] == "digraph re6st {"
    assert '  "1/16" -> "4/16" [style=solid, label="96, 18 ms"];' in text
    assert '  "7/16" -> "8/16" [style=dashed, label="230"];' in text


def test_dot_is_of_nodes_and_edges_alone() -> None:
    """As Graphviz reads it: names in quotes, attributes in brackets, a semicolon behind each statement."""
    statement = re.compile(r'  "[^"]+"( -> "[^"]+")? \[\w+=("[^"]*"|\w+)(, \w+=("[^"]*"|\w+))*\];')
    first, *statements, last = dot(GRAPH).splitlines()
    assert (first, last) == ("digraph re6st {", "}")
    assert [each for each in statements if not statement.fullmatch(each)] == []
    assert len(statements) == 6 + 5


def test_a_node_alone() -> None:
    alone = neighbourhood("1/16", [], [], [])
    assert paint(lines_of(alone, 80)) == ["1/16, 0 neighbours"]
    assert dot(alone) == 'digraph re6st {\n  "1/16" [color=gold3];\n}\n'
