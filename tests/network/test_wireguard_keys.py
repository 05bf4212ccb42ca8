"""The keys of WireGuard links change while packets pass, by the real wireguard-go."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from re6st.core.prefix import Prefix
from re6st.linux.wireguard_go import WireGuardGo
from testbed import Bed, Network, Node, wait_until
from testbed.links import WITH_WIREGUARD, all_are_links
from testbed.network import ROOT
from testbed.pings import Pinger
from tests.link_machine import LinkMachine
from tests.network.test_wireguard import FORMS, log_of, openvpn_clients, wait_links

SOON = 20
KEY_LIFE = 2.5
PACE, PINGS = 0.005, 3000
CHANGES = 4
"""That there are at least while all pings are sent."""
LOST = 20.0
"""Pings that a change of keys may cost, on average: those between the two changes of its ends, a way there and back."""

pytestmark = pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="no wireguard-go")


@pytest.fixture
def machines() -> Iterator[list[LinkMachine]]:
    by_prefix: dict[Prefix, LinkMachine] = {}
    with Bed() as bed:
        two = [LinkMachine(bed.host(f"machine{number}"), number, by_prefix, WireGuardGo, KEY_LIFE) for number in (1, 2)]
        for each in two:
            each.start()
        yield two
        for each in two:
            each.end()
            assert sorted(each.host.interfaces()) == ["eth0", "lo"]


def test_pings_pass_while_keys_change(machines: list[LinkMachine]) -> None:
    one, two = machines
    one.open(two)
    wait_until(lambda: one.link(two) and two.link(one), SOON, "their link is up")
    keys: set[bytes] = set()

    def seen() -> int:
        link = one.link(two)
        assert link is not None, [*one.gone, *two.gone]
        keys.add(link.own.terms.key)
        return len(keys)

    argv = ["ping", "-6", "-n", "-q", "-i", str(PACE), "-c", str(PINGS), "-W", "1", one.target(two)]
    pinging = one.host.start(argv, "ping.log")
    wait_until(lambda: seen() and pinging.poll() is not None, 10 * PINGS * PACE, "all pings are sent")
    said = (one.host.log / "ping.log").read_text()
    assert not one.gone + two.gone
    found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    assert found, said
    sent, received = int(found[1]), int(found[2])
    changes = len(keys) - 1
    print(f"{changes} changes of keys, {sent - received} of {sent} pings lost")
    assert changes >= CHANGES
    assert sent - received <= LOST * changes


SHORT_LIFE = """
from re6st.core.transport.wireguard_state import LinkSettings

LinkSettings.__init__.__defaults__ = (1420, 6.0)
"""
"""Has a program of Python change keys each few seconds, when it is its sitecustomize.py."""
GAP = 0.5
"""Seconds in which a change of keys may let nothing pass; usually it is one ping, if any."""


def test_two_nodes_with_no_other_way_to_each_other_change_the_keys_of_their_link(bed: Bed, tmp_path: Path) -> None:
    """What they say of it goes by the link itself."""
    (tmp_path / "sitecustomize.py").write_text(SHORT_LIFE)
    network = Network(bed, 2, node_options=[*WITH_WIREGUARD, "-v", "3"])
    for node in network.nodes:
        node.wrapper = ["env", f"PYTHONPATH={tmp_path}:{ROOT}"]
    network.start()
    network.wait_connected(FORMS)
    one, two = network.nodes
    wait_links(network, bed, one, two)
    wait_until(lambda: not openvpn_clients(one) + openvpn_clients(two), 20, "no OpenVPN client is left", bed.tails)

    def changes(node: Node) -> int:
        return log_of(node).count("has other keys")

    with Pinger(one.host, two.address, PACE).running() as pinger, Pinger(two.host, one.address, PACE).running() as back:
        before = changes(one), changes(two)
        wait_until(
            lambda: min(changes(one) - before[0], changes(two) - before[1]) >= CHANGES, 120, "changes", bed.tails
        )
    print(f"{changes(one) - before[0]} changes of keys: {pinger}; back: {back}")
    assert all_are_links(one, two)
    assert "no WireGuard link" not in log_of(one) + log_of(two)
    assert max(pinger.longest, back.longest) < GAP
