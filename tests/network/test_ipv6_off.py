"""A machine whose owner switched IPv6 off: a node switches it on where it needs it, and says so before."""

from __future__ import annotations

import pytest

from testbed import Bed, Network

FORMS = 120


@pytest.mark.parametrize("name", ["all", "default"])
def test_a_node_starts_where_ipv6_was_switched_off(bed: Bed, name: str) -> None:
    network = Network(bed, 2)
    node = network.nodes[1]
    node.host.namespace.sysctl({f"net/ipv6/conf/{name}/disable_ipv6": 1})
    network.create()
    network.enrol()
    assert f"warning: net.ipv6.conf.{name}.disable_ipv6 is 1" in node.run("--check").stderr
    for each in network.nodes:
        each.start()
    network.wait_connected(FORMS)
