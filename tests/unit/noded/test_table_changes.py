"""What follows from a change of babel's table, in which order."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import IPv6Address, IPv6Network
from types import SimpleNamespace
from typing import Any

import pytest

from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.babel_lines import NextHop, Route, Table
from re6st.core.routing.survey import Survey
from re6st.noded.table_changes import TableChanges

NETWORK = IPv6Network("2001:db8:42::/48")
HOP = NextHop(IPv6Address("fe80::1"), "re6stnet1")


class Node:
    """A guard, a packet filter and a policy that reaches the registry's node once it sees anybody."""

    def __init__(self) -> None:
        self.connected = False
        self.calls: list[object] = []

    def look(self) -> None:
        self.calls.append("look")

    def follow(self, table: Table) -> None:
        self.calls.append(table)

    def ask_for_shares(self) -> Any:
        return SimpleNamespace(follow=lambda: self.calls.append("shares"))

    async def lead_outside(self, exits: frozenset[NextHop]) -> None:
        self.calls.append(exits)

    def event(self, event: policy.Event) -> None:
        assert isinstance(event, policy.Surveyed)
        self.calls.append(event.survey)
        self.connected = bool(event.survey.peers)


def test_liars_are_looked_for_and_packets_let_through_before_the_policy_decides(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    node, table = Node(), Table()
    table.routes["1"] = Route("", IPv6Network("::/0"), NETWORK, True, 96, 0, HOP, "r1")
    changes = TableChanges(NETWORK, node, node, node, node, node.ask_for_shares())
    alone, seen = Survey(), Survey(peers=frozenset((Prefix(2, 16),)))

    async def steps() -> None:
        for each in (seen, seen, alone):
            await changes.follow(table, each)

    asyncio.run(steps())
    exits = frozenset((HOP,))
    assert node.calls == [*("look", table, "shares", exits, seen) * 2, "look", table, "shares", exits, alone]
    assert caplog.messages == ["connected to the network", "the registry's node cannot be reached"]


def test_nobody_is_called_a_liar_for_what_the_table_said_before() -> None:
    """While babeld's news are not read, an interface may have got another peer."""
    node, table = Node(), Table()
    changes = TableChanges(NETWORK, node, node, node, node, node.ask_for_shares())
    asyncio.run(changes.follow(table, Survey(running=False, late=True)))
    assert "look" not in node.calls
    asyncio.run(changes.follow(table, Survey()))
    assert node.calls.count("look") == 1
