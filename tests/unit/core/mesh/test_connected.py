"""Who reaches a registry's node, of whichever registry, is in the network."""

from __future__ import annotations

from itertools import pairwise

from re6st.core.mesh.events import AskBootstrap, BootstrapAnswered, EnsureSession
from re6st.core.prefix import Prefix
from tests.unit.mesh_policy import PEERS, Driver, near

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


def test_a_part_with_another_registrys_node_asks_for_somebody_of_the_rest_and_seldom_later() -> None:
    """The line between two sites is cut, each with a registry's node: each takes itself for connected."""
    node = Driver(registry=FIRST, other_registries=(SECOND,))
    times = list[int]()
    actions = node.sees(PEERS[0], SECOND, **near(PEERS[0]))
    for second in range(7200):
        if AskBootstrap() in actions:
            times.append(second)
            node.tell(BootstrapAnswered(None))
        assert EnsureSession(FIRST) not in actions
        actions = node.wait(1)
    assert node.mesh.connected
    assert times[0] < 60
    assert 10 < len(times) < 30
    later = [after - before for before, after in pairwise(times)][-5:]
    assert min(later) > 400


def test_a_part_that_loses_the_other_registrys_node_asks_soon_again() -> None:
    node = Driver(registry=FIRST, other_registries=(SECOND,))
    node.sees(PEERS[0], SECOND, **near(PEERS[0]))
    for _ in range(3600):
        if AskBootstrap() in node.wait(1):
            node.tell(BootstrapAnswered(None))
    node.sees(PEERS[0], **near(PEERS[0]))
    assert AskBootstrap() in node.wait(90)
