"""re6st-status ping, trace and wait: whether a node answers, and through which nodes the route to it leads."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from ipaddress import IPv6Address
from typing import Any

from re6st.cli.status import icmp
from re6st.cli.status.output import HEALTHY, PROGRAM, UNHEALTHY, end, print_json
from re6st.cli.terminal import show
from re6st.core.routing.planes import CS1, ECN_BITS
from re6st.service.control_client import NodeConnection, RequestRefused
from re6st.view import status_text as text
from re6st.view.screen import Span, line
from re6st.view.status_tables import milliseconds

SILENT_LIMIT = 4
"""After so many hops in a row without an answer, no farther one answers either."""


ASKED_LIMIT = 4
"""Number of nodes that `wait` sends an echo request, and the seconds for each to answer."""
PATIENCE = 1.0


def silence(connection: NodeConnection, known: Mapping[str, Any], *, only_registry: bool) -> str:
    """Why packets do not reach others yet, though babel has routes; empty if a node answers through the mesh.

    Others learn the route to us later than we learn the route to them. Raises RequestRefused, Trouble.
    """
    registry = known["registry"]["cn"]
    others = [] if only_registry else [each["peer"] for each in connection.ask("routes", limit=ASKED_LIMIT)["routes"]]
    asked = [cn for cn in dict.fromkeys((registry, *others)) if cn not in (None, known["cn"])]
    if not asked:
        return ""  # this is the registry's node, which reaches itself
    for node in connection.ask("names", peers=asked)["names"].values():
        if node is not None and icmp.answers(IPv6Address(node["address"]), PATIENCE):
            return ""
    return f"no answer through the mesh yet (from {', '.join(asked)})"


def ping(connection: NodeConnection, options: argparse.Namespace) -> int:
    """Echo requests. Raises RequestRefused, Trouble."""
    node = _find(connection, options.peer)
    times: list[float | None] = []
    if not options.json:
        show([line(f"echo requests to {node['peer']} at {node['address']}")])
    try:
        for number in range(options.count):
            started = time.monotonic()
            seconds = icmp.ping(IPv6Address(node["address"]), options.timeout)
            times.append(None if seconds is None else round(seconds * 1000, 3))
            if not options.json:
                answer = milliseconds(times[-1]) if seconds is not None else f"no answer in {options.timeout} s"
                show([line(f"{number + 1:>3}  ", Span(answer, "" if seconds is not None else "warning"))])
            if number + 1 < options.count:
                time.sleep(max(0.0, min(1.0, options.timeout) - (time.monotonic() - started)))
    except icmp.ProbeError as error:
        end(options, f"{error}. {_known_way(connection, node)}", UNHEALTHY)
    answered = any(each is not None for each in times)
    if options.json:
        print_json({**node, "milliseconds": times})
    else:
        show([text.ping_summary(times)])
        if not answered:
            show([line(_known_way(connection, node))])
    return HEALTHY if answered else UNHEALTHY


def trace(connection: NodeConnection, options: argparse.Namespace) -> int:
    """The nodes along the route, and along that of bulk traffic. Raises RequestRefused, Trouble."""
    node = _find(connection, options.peer)
    if not options.json:
        show([line(f"the route to {node['peer']} at {node['address']}")])
    found = _trace(connection, node, options, 0)
    bulk = None
    if connection.ask("status").get("bulk", {}).get("active"):
        if not options.json:
            show([(), line("the route of bulk traffic (class CS1)")])
        bulk = _trace(connection, node, options, CS1 << ECN_BITS)
    if options.json:
        print_json({**node, **found, "bulk": bulk})
    return HEALTHY if found["reached"] else UNHEALTHY


def _trace(
    connection: NodeConnection, node: Mapping[str, Any], options: argparse.Namespace, traffic_class: int
) -> dict[str, Any]:
    """The hops, which are shown as they answer unless as JSON, and whether the last one is the node."""
    hops: list[dict[str, Any]] = []
    reached, refusal = False, ""
    try:
        for hop in icmp.trace(IPv6Address(node["address"]), options.timeout, traffic_class=traffic_class):
            reached, refusal = hop.reached, hop.refusal
            hops.append(
                {
                    "hop": hop.number,
                    "peer": _name(connection, hop.address),
                    "address": str(hop.address) if hop.address else None,
                    "ms": round(hop.seconds * 1000, 3) if hop.seconds is not None else None,
                }
            )
            if not options.json:
                show([text.hop_line(hops[-1])])
            if [each["address"] for each in hops[-SILENT_LIMIT:]] == [None] * SILENT_LIMIT:
                break
    except icmp.ProbeError as error:
        end(options, f"{error}. {_known_way(connection, node)}", UNHEALTHY)
    found = {"hops": hops, "reached": reached, "refusal": refusal}
    if options.json:
        return found
    if reached:
        show([line(Span(f"reached in {len(hops)} hop{'s' if len(hops) > 1 else ''}", "good"))])
    else:
        show([line(Span(f"not reached{f': {refusal}' if refusal else ''}", "bad")), line(_known_way(connection, node))])
    return found


def _find(connection: NodeConnection, target: str) -> Mapping[str, Any]:
    """The node that the user means. Raises RequestRefused."""
    node: Mapping[str, Any] | None = connection.ask("names", peers=[target])["names"][target]
    if node is None:
        raise RequestRefused(f"{target}: no node is known to have this address", UNHEALTHY)
    return node


def _name(connection: NodeConnection, address: IPv6Address | None) -> str | None:
    """The CN of a node that answered; None for an address outside re6st."""
    if address is None:
        return None
    try:
        found = connection.ask("names", peers=[str(address)])["names"][str(address)]
    except RequestRefused:
        return None
    return None if found is None else str(found["peer"])


def _known_way(connection: NodeConnection, node: Mapping[str, Any]) -> str:
    """What babel knows about the route to a node that does not answer."""
    try:
        ways = connection.ask("why", peer=node["peer"])["routes"]
    except RequestRefused:
        return f"Babel knows no route to {node['peer']}: it is down, cut off, or was never there."
    used = next((way for way in ways if way["in_use"]), None)
    if used is None:
        return f"Babel uses no route to {node['peer']}: see {PROGRAM} why {node['peer']}."
    return f"Babel has a route, via {used['via'] or used['address']} on {used['interface']}: see {PROGRAM} trace."
