"""Babel's keys change while the network runs (wire.md 5.4): whoever talks through it does not notice."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from re6st.core.routing.babel_keys import SWITCH_TIME
from re6st.core.wire.params import Parameters
from re6st.noded.peer_cache import Cache
from testbed import Bed, Network, Node, Pinger, wait_until

FORMS = 90
LONGEST_GAP = 2.0
"""Seconds without an answer that count as a loss; there is none usually, and a restart of babeld takes longer."""


def parameters(node: Node) -> Parameters:
    """What a node remembers of the network."""
    cache = Cache(node.host.state / "cache.db")
    try:
        found = cache.load_parameters()
        assert found is not None
        return found
    finally:
        cache.close(keep=cache.addresses)


def test_all_phases_of_a_rotation_lose_nothing(bed: Bed, record_property: Callable[[str, object], None]) -> None:
    network = Network(bed, 3)
    network.start()
    network.wait_connected(FORMS)
    babelds = {node: node.pids("babeld") for node in network.nodes}
    old = parameters(network.nodes[1])
    assert old.babel_hmac_sign

    def reached(version: bytes) -> bool:
        return all(parameters(node).version > version for node in network.nodes)

    def switched() -> bool:
        logs = [node.host.log / "re6stnet.log" for node in network.nodes]
        return all("babeld signs with the new key now" in log.read_text() for log in logs)

    pinger = Pinger(network.nodes[1].host, network.nodes[2].address)
    with pinger.running():
        for phase in ("announced", "in use", "alone"):
            version = parameters(network.nodes[1]).version
            network.call("updateHMAC")
            wait_until(lambda: reached(version), 60, f"all nodes know that the key is {phase}", bed.tails)  # noqa: B023
            if phase == "in use":
                wait_until(switched, SWITCH_TIME + 30, "all nodes sign with the new key", bed.tails)
            # Long enough for babel to lose a link whose ends do not agree.
            end = time.monotonic() + 8
            wait_until(lambda: time.monotonic() > end, 20, "babel would have noticed")  # noqa: B023
    new = parameters(network.nodes[1])
    assert new.babel_hmac_sign not in (None, old.babel_hmac_sign)
    assert new.babel_hmac_accept is None
    assert {node: node.pids("babeld") for node in network.nodes} == babelds, "no babeld was restarted"
    print(pinger)
    record_property("pings", str(pinger))
    assert pinger.longest < LONGEST_GAP, str(pinger)


def test_a_wrong_key_is_let_in_by_nobody(bed: Bed) -> None:
    """While a key is being changed too, babel takes nothing that is not signed."""
    network = Network(bed, 2)
    network.start()
    network.wait_connected(FORMS)
    network.call("updateHMAC")
    wait_until(
        lambda: all(parameters(node).babel_hmac_accept for node in network.nodes), 60, "the first step", bed.tails
    )
    for node in network.nodes:
        assert "accept-bad-signatures" not in (node.host.run_directory / "babeld.conf").read_text()


@pytest.mark.parametrize("phases", [1, 3], ids=["one step", "all of it"])
def test_a_node_that_was_down_meanwhile_comes_back(bed: Bed, phases: int) -> None:
    network = Network(bed, 4)
    network.start()
    network.wait_connected(FORMS)
    *others, absent = network.nodes
    assert absent.stop() == 0
    for _ in range(phases):
        version = parameters(others[1]).version
        network.call("updateHMAC")
        wait_until(lambda: all(parameters(n).version > version for n in others), 60, "the others know", bed.tails)  # noqa: B023
    if phases > 1:
        key = parameters(others[1]).babel_hmac_sign
        assert key
        assert key.hex() not in (absent.host.state / "cache.db").read_bytes().decode("latin-1")
    absent.start()
    network.wait_connected(FORMS)
