"""Nodes with prefixes of several lengths in one network (wire.md 1.1, 1.2, 4.2)."""

from __future__ import annotations

import json
import re

from testbed import Bed, Network, Node, ping, wait_until

FORMS = 90
LENGTHS = (16, 16, 32, 80)
"""Bits of the prefixes in a /48: subnets of 64, 64, 80 and 128 bits."""


def source(node: Node, target: Node) -> str:
    found = re.search(r" src (\S+)", node.host.ip("-6", "route", "get", str(target.address)))
    return found[1] if found else ""


def test_subnets_of_any_length_are_reachable(bed: Bed) -> None:
    network = Network(bed, 1 + len(LENGTHS))
    network.create()
    first, *others = network.nodes
    first.enrol(network.url, network.fingerprint)
    for node, length in zip(others, LENGTHS, strict=True):
        node.enrol(network.url, network.fingerprint, "--token", network.invite(length))
    assert [node.prefix.length for node in others] == list(LENGTHS)
    *_, wide, single = others
    assert str(wide.address) == f"{wide.subnet.network_address}1", "the last bit of its subnet"
    assert single.address == single.subnet.network_address, "all there is"

    # What a user gives to the machine out of its subnet is reachable too, and is left alone when the node starts.
    extra = wide.subnet.network_address + 0x42
    wide.host.namespace.ip(f"address add {extra}/128 dev lo")
    for node in network.nodes:
        node.start()
    network.wait_connected(FORMS)
    for node in others:
        assert f"inet6 {node.address}/{node.subnet.prefixlen} " in node.host.ip("-6", "address", "show", "dev", "lo")
        assert source(node, first) == str(node.address)
        assert source(first, node) == str(first.address)
    assert ping(single.host, extra) is not None

    def versions() -> bool:
        """The control messages of section 6 reach everybody too."""
        answers = json.loads(network.call("versions"))
        return {node.prefix.bits for node in network.nodes} == set(answers) and all(answers.values())

    wait_until(versions, 60, "the registry hears from all", bed.tails)
    for node in others:
        assert node.stop() == 0
        assert [trace for trace in node.traces() if str(extra) not in trace] == []
    assert str(extra) in wide.host.ip("-6", "address", "show", "dev", "lo")
