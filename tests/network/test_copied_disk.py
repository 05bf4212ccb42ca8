"""A machine whose disk was copied: both copies run, and those who see it say so, with what it takes to find them."""

from __future__ import annotations

import shutil

from testbed import Bed, Network, Node, wait_until
from testbed.network import environment, program

FORMS = 90
SAID = 60
"""Seconds; usual: 5."""


def status(node: Node) -> str:
    argv = [*program("status"), "--control", str(node.host.run_directory / "control.sock")]
    return node.host.run(argv, check=False, env=environment()).stdout


def test_two_machines_with_one_certificate_are_named_with_their_addresses(bed: Bed) -> None:
    # One server, for which they contend: of several each may hold others at once, and only the registry sees both.
    network = Network(bed, 2)
    network.start()
    network.wait_connected(FORMS)
    *servers, original = network.nodes
    twin = Node(bed.host("twin"))
    twin.options = ["--ip", twin.host.address]
    shutil.copytree(original.host.etc, twin.host.etc, dirs_exist_ok=True)
    twin.start()
    places = " and ".join(sorted((original.host.address, twin.host.address)))
    text = f"two machines have the certificate of {original.prefix.cn}: they connect from {places} in turn"

    def named() -> list[Node]:
        return [node for node in servers if text in (node.host.log / "re6stnet.log").read_text()]

    wait_until(named, SAID, "a server names both", bed.tails)
    for node in named():
        assert text in status(node)
        assert "health: ok" not in status(node)

    def told() -> list[Node]:
        own = "another machine has our certificate too ("
        return [node for node in (original, twin) if own in (node.host.log / "re6stnet.log").read_text()]

    wait_until(told, SAID, "one of the two says it itself", bed.tails)
    for node in told():
        assert "another machine has our certificate too (" in status(node)
