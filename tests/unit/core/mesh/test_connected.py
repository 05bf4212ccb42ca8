"""Who reaches a registry's node, of whichever registry, is in the network."""

from __future__ import annotations

from re6st.core.prefix import Prefix
from tests.unit.mesh_policy import PEERS, Driver

FIRST, SECOND, THIRD = (Prefix(0xFF00 + number, 16) for number in range(3))


def test_any_of_the_registries_nodes_proves_that_we_are_connected() -> None:
    node = Driver(registry=FIRST, other_registries=(SECOND, THIRD))
    node.sees(PEERS[0])
    assert not node.mesh.connected
    assert node.mesh.registry_node == FIRST
    for seen in ([THIRD], [SECOND, THIRD], [FIRST, SECOND, THIRD]):
        node.sees(PEERS[0], *seen)
        assert node.mesh.connected
        assert node.mesh.registry_node == seen[0]
    node.sees(PEERS[0])
    assert not node.mesh.connected


def test_a_node_beside_another_registry_is_connected_while_it_sees_anybody() -> None:
    node = Driver(registry=FIRST)
    own = node.mesh.settings.own
    node = Driver(registry=FIRST, other_registries=(SECOND, own))
    node.sees()
    assert not node.mesh.connected
    node.sees(PEERS[0])
    assert node.mesh.connected
    assert node.mesh.registry_node == own
