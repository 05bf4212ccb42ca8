"""A path that swallows large packets without a word: tunnels over TCP go on, and so does what is in them."""

from __future__ import annotations

import json
import time

import pytest

from testbed import Bed, Host, Network, Node, ping, wait_until
from testbed.network import environment, program
from testbed.pings import Pinger
from testbed.stream import Stream

FORMS = 90
PASSES = 1300
"""Bytes of the largest IP packet that gets through."""
BUSY = 15.0
PAUSE = 5.0
"""Seconds without an answer that are bearable; usually none are."""


def swallow(host: Host, protocol: str = "tcp") -> None:
    """Drop what is larger, as a broken router on the way would."""
    host.ip("link", "set", "eth0", "gso_max_segs", "1")
    rule = f'iifname "eth0" meta l4proto {protocol} meta length > {PASSES} drop'
    host.run(["nft", f"table inet path {{ chain in {{ type filter hook input priority -200; {rule}; }}; }}"])


def netcheck(node: Node) -> dict[str, object]:
    control = str(node.host.run_directory / "control.sock")
    argv = [*program("status"), "--control", control, "netcheck", "--json"]
    found: dict[str, object] = json.loads(node.host.run(argv, check=False, env=environment(), timeout=120).stdout)
    return found


@pytest.mark.parametrize("larger", [1400, 1500])
def test_large_packets_do_not_stop_a_tunnel_over_tcp(bed: Bed, larger: int) -> None:
    network = Network(bed, 2)
    for node in network.nodes:
        swallow(node.host)
    network.start()  # the registry's answers are large as well
    network.wait_connected(FORMS)
    one, other = network.nodes
    with Pinger(one.host, other.address).running() as pinger:
        for source, target in ((one, other), (other, one)):
            wait_until(
                lambda: ping(source.host, target.address, size=larger) is not None,  # noqa: B023
                FORMS,
                f"an answer to {larger} bytes",
                bed.tails,
            )
        with Stream(other.host, one.host, one.address).running() as stream:
            time.sleep(BUSY)
        found: list[dict[str, object]] = []

        def passed() -> bool:
            found.append(netcheck(one))
            return "packets of full size pass on 1 tunnel" in str(found[-1])

        wait_until(passed, FORMS, "netcheck finds that large packets pass", bed.tails)
        assert found[-1]["verdict"] != "fail"
    assert pinger.longest < PAUSE, str(pinger)
    assert stream.received > 1_000_000, str(stream)
    assert not stream.broken
    assert stream.stall < PAUSE, str(stream)


def test_netcheck_names_a_tunnel_over_udp_that_loses_large_packets(bed: Bed) -> None:
    """Small ones pass, so that babel sees nothing."""
    network = Network(bed, 2, node_options=["--disable-proto", "none", "--pp", "1194", "udp"])
    network.start()
    network.wait_connected(FORMS)
    one, other = network.nodes

    def told() -> list[tuple[str, str]]:
        found = json.loads(json.dumps(netcheck(one)["findings"]))
        return [(each["level"], each["text"]) for each in found if each["about"] == "large packets"]

    good = [("ok", "packets of full size pass on 1 tunnel")]
    wait_until(lambda: told() == good, FORMS, "large packets pass", bed.tails)
    for node in network.nodes:
        swallow(node.host, "udp")
    ((level, text),) = wait_until(
        lambda: [each for each in told() if each not in good], FORMS, "it is named", bed.tails
    )
    assert level == "warn"
    assert text.startswith(f"tunnel with {other.prefix} (udp, {other.host.address}): packets of 13")
    assert text.endswith(" bytes vanish, those of 64 pass: the path swallows large ones")
    wait_until(lambda: ping(one.host, other.address) is not None, FORMS, "small ones pass", bed.tails)
