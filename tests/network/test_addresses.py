"""Where a node can be reached: addresses given, learned, dead, changing (wire.md 8.1, 10.4, 10.5)."""

from __future__ import annotations

import time

import pytest

from testbed import Bed, Host, Network, wait_until

FORMS = 90


def drop_everything(host: Host) -> None:
    """What is sent to this host is lost without a word, as behind most firewalls."""
    host.run(
        ["nft", "add table inet silent; add chain inet silent in { type filter hook input priority 0; policy drop; }"]
    )


@pytest.mark.parametrize("kind", ["silent", "refusing"])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_dead_addresses_of_a_peer_cost_little(bed: Bed, protocol: str, kind: str) -> None:
    network = Network(bed, 2, node_options=["--disable-proto", "none", "--pp", "1194", protocol])
    dead = [bed.host(f"dead{number}") for number in range(2)]
    if kind == "silent":
        for host in dead:
            drop_everything(host)
    first, second = network.nodes
    first.options[:0] = [word for host in dead for word in ("--ip", host.address)]
    network.create()
    network.enrol()
    first.start()
    wait_until(lambda: first.babel().routes or first.pids("openvpn"), 30, "the first node runs", bed.tails)
    second.start()
    began = time.monotonic()
    network.wait_connected(FORMS)
    print(f"{protocol}, {kind}: connected after {time.monotonic() - began:.1f} s")
