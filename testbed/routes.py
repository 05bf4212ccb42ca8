"""A neighbour that announces many routes, as the nodes of a large network would: a babeld on a segment."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from testbed.host import Host
from testbed.network import NETWORK, Node

FIRST = 0x1000
"""Of the subnets that are announced; those of the nodes are below."""


def announce(helper: Host, neighbour: Node, interface: str, count: int, already: int = 0) -> None:
    """Have `helper` announce routes to so many subnets on a segment that it shares with a node, which runs; so many of
    them it announces `already`.
    """
    subnets = islice(NETWORK.subnets(new_prefix=64), FIRST + already, FIRST + count)
    helper.namespace.ip(*(f"route add unreachable {subnet} proto static" for subnet in subnets))
    if already:
        return
    key = re.findall(r"key id sign .*", (neighbour.host.run_directory / "babeld.conf").read_text())[0]
    argv: list[str | Path] = ["babeld", "-S", helper.state / "babeld", "-I", ""]
    timing = "default hello-interval 0.25 update-interval 4 key sign"
    for statement in (key, timing, "redistribute proto 4", "redistribute local deny", "redistribute deny"):
        argv += ["-C", statement]
    helper.start([*argv, interface], "babeld.log")


def destinations(node: Node) -> int:
    """How many subnets its babeld knows a route to."""
    return len({route.destination for route in node.babel().routes.values()})
