"""A node with two lines: what others send to it comes by both once one is full, and goes on when one dies."""

from __future__ import annotations

import pytest

from re6st.core.machine import handing_rules, incoming_rules, share_numbers
from testbed import Bed, Node, wait_until
from testbed.flows import Flows
from tests.network.test_full_lines import FAST, FORMS, MBITS, SECONDS, SLOW, WARM, rules, start
from tests.network.test_status import answer

LONG = 5 * SECONDS


def handed(node: Node) -> int:
    """How many packets went by the line that their receiver wished, by another neighbour of it or by its own link."""
    found = answer(node, "uplinks")["handing"]
    return int(found["handed_packets"]) + int(found["home_packets"])


def both_are_used(node: Node) -> bool:
    """Whether both lines are nearly full of what comes in: nobody sends before all connections are open."""
    lines = answer(node, "uplinks")["incoming"]["lines"]
    return len(lines) == 2 and all(each["received_mbits"] > 0.8 * MBITS for each in lines.values())


@pytest.mark.parametrize("number", [0, 1])
def test_many_connections_come_by_both_lines_and_go_on_when_one_dies(bed: Bed, number: int) -> None:
    lined, network, node = start(bed, (FAST, SLOW))
    peer, others = network.nodes[1], network.nodes[:-1]
    assert not any(handed(each) for each in others)

    def comes_by_both() -> bool:
        """It may take some seconds until neighbours know each other, and tell that they are ready."""
        both = Flows(peer.host, node.host, node.address, count=16, seconds=SECONDS).run()
        print(f"16 connections: {both.mbits(WARM):.1f} Mbit/s of twice {MBITS}")
        return both.mbits(WARM) > 1.2 * MBITS

    wait_until(comes_by_both, FORMS, "more comes in than one line carries", bed.tails)
    assert any(handed(each) for each in others)

    flows = Flows(peer.host, node.host, node.address, count=16, seconds=LONG)
    flows.start()
    wait_until(lambda: both_are_used(node), LONG - 2 * SECONDS, "both lines are used", bed.tails)
    lined.cut(number)
    result = flows.result()
    print(
        f"a line died: longest stall {result.stall:.2f} s, {result.ended} ended, at last {result.mbits(LONG - 4):.1f}"
    )
    assert not result.ended
    assert result.mbits(LONG - 4) > 0.5 * MBITS
    assert result.stall < 30
    lined.restore(number)
    for each in (node, *others):
        assert each.stop() == 0
        assert not any(table in rules(each) for table in (handing_rules.TABLE, incoming_rules.TABLE))
        assert f"{share_numbers.HOME_PRIORITY}:" not in each.host.ip("-6", "rule")
    assert node.traces() == []


def test_one_connection_comes_by_the_line_that_carries_most(bed: Bed) -> None:
    _, network, node = start(bed, (FAST, SLOW))
    peer = network.nodes[1]
    one = Flows(peer.host, node.host, node.address, count=1, seconds=SECONDS).run()
    print(f"one connection: {one.mbits(WARM):.1f} Mbit/s of {MBITS}, longest stall {one.stall:.2f} s")
    assert one.mbits(WARM) > 0.7 * MBITS, bed.tails()
