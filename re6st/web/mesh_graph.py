"""The graph of the mesh as records for the page: what to draw, and the same as a table, as DOT and as SVG."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from re6st.core.prefix import Prefix
from re6st.registryd.listings import Record, iso
from re6st.registryd.records import NodeName
from re6st.view.dot import digraph
from re6st.web.graph import cuts, rings, undirected
from re6st.web.watch import Picture

NODES_LIMIT = 1000
"""Number of nodes in a drawing; those that are online come first."""
SVG_RADIUS = 480.0


def graph_record(picture: Picture, names: Iterable[NodeName], total: int) -> Record:
    """What is drawn: nodes with their state, and tunnels as pairs of indices of nodes.

    A node is the registry's, `direct` (it has a tunnel with the registry's node), `indirect`, `offline` or `unknown`.

    `cut`: without this node, or this tunnel, the mesh falls apart.
    """
    known = {name.prefix: name for name in names}
    order = sorted(known, key=lambda prefix: (picture.is_online(prefix) is not True, prefix.bits))
    # From here on nodes are numbers: in a network of 10,000 nodes, comparing prefixes takes most of the time.
    places = {prefix: index for index, prefix in enumerate(order)}
    alive = [picture.is_online(prefix) is not False for prefix in order]
    pairs = [(places[a], places[b]) for a, b in picture.tunnels if a in places and b in places]
    graph = undirected((index for index, each in enumerate(alive) if each), pairs)
    found = cuts(graph)
    own = places.get(picture.own) if picture.own else None
    own_peers = set(graph.get(own, ())) if own is not None else set()
    nodes = [
        {
            "cn": prefix.cn,
            "name": known[prefix].name,
            "email": known[prefix].email or None,
            "version": known[prefix].software or None,
            "state": _state(picture, prefix, index in own_peers),
            "tunnels": len(graph.get(index, ())),
            "cut": index in found.vertices,
        }
        for index, prefix in enumerate(order[:NODES_LIMIT])
    ]
    edges = [
        {"from": a, "to": b, "alive": alive[a] and alive[b], "cut": (a, b) in found.edges}
        for a, b in sorted(pairs)
        if a < NODES_LIMIT and b < NODES_LIMIT
    ]
    return {
        "revision": picture.revision,
        "looked": iso(picture.looked),
        "crawled": iso(picture.crawled),
        "routes_known": picture.online is not None,
        "total": total,
        "nodes": nodes,
        "tunnels": edges,
    }


def peers_of(picture: Picture, prefix: Prefix) -> list[tuple[Prefix, bool]]:
    """The nodes with which a node has tunnels, and whether it opened them itself."""
    opened = {(server, True) for client, server in picture.tunnels if client == prefix}
    return sorted(opened | {(client, False) for client, server in picture.tunnels if server == prefix})


def tunnel_count(picture: Picture) -> int | None:
    """Tunnels between nodes that are both online; None: no node was asked yet."""
    if picture.crawled is None:
        return None
    online = picture.online
    return sum(online is None or (a in online and b in online) for a, b in picture.tunnels)


def dot(record: Record) -> str:
    """The graph for Graphviz."""
    colours = {"offline": "gray", "unknown": "gray", "direct": "forestgreen", "indirect": "steelblue"}
    names = [node["cn"] for node in record["nodes"]]

    def style(tunnel: Record) -> str:
        return "dotted" if not tunnel["alive"] else "dashed" if tunnel["cut"] else "solid"

    return digraph(
        ((node["cn"], _look(node, colours.get(node["state"], "gold3"))) for node in record["nodes"]),
        ((names[each["from"]], names[each["to"]], {"style": style(each)}) for each in record["tunnels"]),
    )


def svg_shapes(record: Record) -> dict[str, list[dict[str, Any]]]:
    """Circles and lines of a drawing, in rings around the registry's node, at most SVG_RADIUS from the middle."""
    nodes = record["nodes"]
    if not nodes:
        return {"circles": [], "lines": []}
    graph = undirected(range(len(nodes)), ((edge["from"], edge["to"]) for edge in record["tunnels"]))
    root = next((index for index, node in enumerate(nodes) if node["state"] == "registry"), 0)
    places = {
        index: (round(SVG_RADIUS * x, 1), round(SVG_RADIUS * y, 1)) for index, (x, y) in rings(graph, root).items()
    }
    size = 9 if len(nodes) < 60 else 6 if len(nodes) < 250 else 4
    circles = [
        {"x": places[index][0], "y": places[index][1], "r": size, "labelled": len(nodes) <= 60, **node}
        for index, node in enumerate(nodes)
    ]
    lines = [{"a": places[edge["from"]], "b": places[edge["to"]], **edge} for edge in record["tunnels"]]
    return {"circles": circles, "lines": lines}


def _look(node: Record, colour: str) -> dict[str, str]:
    """The attributes of a node for Graphviz, which writes its CN where there is no label."""
    label = {"label": f"{node['cn']} {node['name']}"} if node["name"] else {}
    return {"color": colour, **label}


def _state(picture: Picture, prefix: Prefix, is_own_peer: bool) -> str:
    if prefix == picture.own:
        return "registry"
    online = picture.is_online(prefix)
    if online is None:
        return "unknown"
    if not online:
        return "offline"
    return "direct" if is_own_peer else "indirect"
