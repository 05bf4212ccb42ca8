"""A second re6st network on a machine: refused beside the first one, at home in a network namespace of its own."""

from __future__ import annotations

from ipaddress import IPv6Network
from pathlib import Path

import pytest

from testbed import Bed, Host, Network, Pinger
from testbed.network import environment

FORMS = 90
LONGEST_GAP = 2.0
"""Seconds without an answer that count as a loss; there is none usually."""
OTHER = IPv6Network("2001:db8:43::/48")


def kernel(host: Host) -> list[str]:
    """Links, addresses, routes, nftables (not what it counts) and programs of a host."""
    commands = (
        ["ip", "-brief", "link"],
        ["ip", "-brief", "address"],
        ["ip", "-6", "route", "show", "table", "all"],
        ["ip", "-4", "route", "show", "table", "all"],
        ["nft", "--stateless", "list", "ruleset"],
    )
    return [*(host.run(words).stdout for words in commands), str(sorted(host.processes().items()))]


def files(directory: Path) -> dict[str, bytes | None]:
    """What is in the files below a directory; None for a socket. Logs grow, and are left out."""
    found = [path for path in directory.rglob("*") if not path.is_dir() and path.suffix not in (".log", ".out")]
    return {str(path): path.read_bytes() if path.is_file() else None for path in found}


@pytest.mark.parametrize("shared", [[], ["--state"], ["--run"], ["--state", "--run"]], ids="+".join)
def test_beside_the_first_one_it_is_refused(bed: Bed, shared: list[str]) -> None:
    network = Network(bed, 2)
    network.start()
    other = Network(bed, hosts=[bed.host("second")], network=OTHER)
    other.create()
    other.enrol()
    network.wait_connected(FORMS)
    first, second = network.nodes[1], other.nodes[0]
    # As if it were just draining a tunnel.
    first.host.run(["nft", "add table inet re6stnet"])

    places = {"--state": first.host.state, "--run": first.host.run_directory}
    options = [word for name in shared for word in (name, str(places[name]))]
    pinger = Pinger(network.nodes[0].host, first.address)
    with pinger.running():
        for _ in range(3):  # the first one lives on, and may write to its files just then: not each time
            before = kernel(first.host), files(first.host.directory)
            done = first.host.run(second.command(*options), check=False, env=environment(), cwd=second.host.etc)
            assert done.returncode > 0
            assert done.stderr.startswith("re6stnet: ")
            assert done.stderr.count("\n") == 1, done.stderr
            assert str(first.host.run_directory) in done.stderr if "--run" in shared else "udp/326" in done.stderr
            if (kernel(first.host), files(first.host.directory)) == before:
                break
        else:
            pytest.fail("it changes what is the first one's")
    assert pinger.sent
    assert pinger.longest < LONGEST_GAP, str(pinger)
    network.check_alive()


def test_in_a_namespace_of_its_own_both_live_at_once(bed: Bed) -> None:
    machine = bed.router("machine")
    network = Network(bed, hosts=[bed.host("a"), machine.outside])
    network.start()
    network.wait_connected(FORMS)
    pinger = Pinger(network.nodes[0].host, network.nodes[1].address)
    with pinger.running():
        other = Network(bed, hosts=[bed.host("b"), machine.host("container")], network=OTHER)
        inner = other.nodes[1]
        inner.options = ["--ip", "any"]
        other.start()
        other.wait_connected(FORMS)
        network.wait_connected(FORMS)
        assert inner.stop() == 0
        assert inner.traces() == []
    assert pinger.longest < LONGEST_GAP, str(pinger)
    assert network.nodes[1].stop() == 0
    inner.start()
    other.wait_connected(FORMS)
