"""The mesh as one node sees it: its neighbours, and which nodes it reaches through whom (re6st-status graph).

It is made from the answers of a control socket (docs/control.md). A node sees no farther than the next hop:
`re6st-registry topology` shows how the nodes behind it are connected with each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from re6st.core.words import plural
from re6st.view.dot import Attributes, digraph
from re6st.view.screen import Line, Span, fold, line
from re6st.view.status_tables import cost, milliseconds

Answer = Mapping[str, Any]
Record = dict[str, Any]


def neighbourhood(
    own: str, neighbours: Iterable[Answer], tunnels: Iterable[Answer], routes: Iterable[Answer]
) -> Record:
    """`nodes`, each with its `state` (`own`, `neighbour` or `behind`), and `edges` between them.

    An edge to a neighbour is a `link`, with babel's cost and round-trip time. An edge from a neighbour to another node
    is a `route`: there may be any number of nodes between its ends, and `cost` is the metric of the whole route from
    here.
    """
    states = {(t["peer"], t["interface"]): t for t in tunnels}
    edges: list[Record] = []
    near: dict[str, None] = {}
    for each in neighbours:
        peer = each["peer"]
        if peer is None:
            continue
        near[peer] = None
        tunnel = states.get((peer, each["interface"]))
        edges.append(
            {
                "from": own,
                "to": peer,
                "kind": "link",
                "cost": each["cost"],
                "rtt_ms": each["rtt_ms"],
                "interface": each["interface"],
                "direction": tunnel["direction"] if tunnel else None,
                "routes": each["routes"],
            }
        )
    used = {r["peer"]: r for r in routes if r["in_use"] and r["peer"] not in (None, own) and not r["source"]}
    for peer, route in used.items():
        if route["via"] not in (None, peer):
            edges.append({"from": route["via"], "to": peer, "kind": "route", "cost": route["metric"], "rtt_ms": None})
    behind = [peer for peer in used if peer not in near]
    states_of = {own: "own", **dict.fromkeys(near, "neighbour"), **dict.fromkeys(behind, "behind")}
    return {"own": own, "nodes": [{"cn": cn, "state": state} for cn, state in states_of.items()], "edges": edges}


def dot(graph: Record) -> str:
    """For Graphviz."""
    colours = {"own": "gold3", "neighbour": "forestgreen", "behind": "steelblue"}
    return digraph(
        ((node["cn"], {"color": colours[node["state"]]}) for node in graph["nodes"]),
        ((edge["from"], edge["to"], _drawn(edge)) for edge in graph["edges"]),
    )


def _drawn(edge: Answer) -> Attributes:
    words = cost(edge["cost"]) + (f", {milliseconds(edge['rtt_ms'])}" if edge["rtt_ms"] is not None else "")
    return {"style": "solid" if edge["kind"] == "link" else "dashed", "label": words}


def lines_of(graph: Record, width: int | None) -> list[Line]:
    """For people: our neighbours, beginning with the one through which most nodes are reached, and for each the nodes
    behind it.
    """
    links = [edge for edge in graph["edges"] if edge["kind"] == "link"]
    behind: dict[str, list[str]] = {}
    for edge in graph["edges"]:
        if edge["kind"] == "route":
            behind.setdefault(edge["from"], []).append(edge["to"])
    lines = [line(Span(graph["own"], "bold"), f", {plural(len({e['to'] for e in links}), 'neighbour')}")]
    told: set[str] = set()
    for edge in sorted(links, key=lambda e: (-len(behind.get(e["to"], ())), e["cost"])):
        peer = edge["to"]
        lines.append(line("  ", Span(peer, "good"), f"  {_link_words(edge)}"))
        farther = [] if peer in told else behind.get(peer, [])
        told.add(peer)
        if farther:
            lines += fold(f"      {plural(len(farther), 'node')}: ", farther, width)
    lost = [node["cn"] for node in graph["nodes"] if node["state"] == "behind"]
    lost = [cn for cn in lost if not any(cn in peers for peer, peers in behind.items() if peer in told)]
    if lost:
        lines += fold("  by a next hop that is not known: ", lost, width)
    return lines


def _link_words(edge: Answer) -> str:
    way = {"out": "our tunnel", "in": "its tunnel", None: "link"}[edge["direction"]]
    words: Sequence[str] = (
        f"{way} on {edge['interface']}",
        f"cost {cost(edge['cost'])}",
        *((f"RTT {milliseconds(edge['rtt_ms'])}",) if edge["rtt_ms"] is not None else ()),
    )
    return ", ".join(words)
