"""Three ways at once between two nodes: keystrokes take the quick one, a copy the one that carries most."""

from __future__ import annotations

import re
import statistics
import time

from re6st.core.routing.planes import CS1, ECN_BITS
from testbed import Bed, Host, Network, Node, wait_until
from testbed.stream import Stream

FORMS = 120
THIN = 2
"""Mbit/s of the quick way, a fifth of what the copy wants; the slow ones carry what this machine does."""
FAR = 0.03
"""Seconds that the slow ways take, each way."""
CLASS = CS1 << ECN_BITS
"""As OpenSSH sends a copy."""
CALM, BROKEN = 4.0, 8.0
"""Seconds for which the copy is looked at, before and after its way breaks."""


def holds_to(host: Host, mbits: int) -> None:
    """Whatever the host sends is held to this, in Mbit/s."""
    shape = ["tbf", "rate", f"{mbits}mbit", "burst", "6kb", "latency", "100ms"]
    host.run(["tc", "qdisc", "replace", "dev", "eth0", "root", *shape])


def keystrokes(source: Node, target: Node) -> float:
    """The median of round trips of packets without a class, in milliseconds."""
    argv = ["ping", "-6", "-n", "-c", "60", "-i", "0.05", "-W", "2", str(target.address)]
    times = re.findall(r"time=([\d.]+)", source.host.run(argv, check=False, timeout=60).stdout)
    assert len(times) > 50
    return statistics.median(map(float, times))


def sent(relay: Host, target: Host) -> int:
    """Bytes that a relay has sent by the slow way to a host."""
    return int(relay.run(["cat", f"/sys/class/net/slow-{target.name}/statistics/tx_bytes"]).stdout)


def test_a_copy_takes_the_way_that_carries_most_and_leaves_it_when_it_breaks(bed: Bed) -> None:
    options = ["--disable-proto", "none", "--pp", "1194", "udp"]
    network = Network(bed, 5, registry_options=["--planes", "2"], node_options=options)
    quick, a, b, *fat = network.nodes
    a.host.lose(b.host)
    holds_to(quick.host, THIN)
    for relay in fat:
        for end in (a, b):
            end.host.delay(relay.host, FAR / 2)
    network.start()
    network.wait_connected(FORMS)
    both = [(a, b), (b, a)]

    def context() -> str:
        said = [each.host.run(["ip", "-6", "route", "show", "table", "224"], check=False).stdout for each in (a, b)]
        said += [(each.host.run_directory / "re6stnet-plane-throughput.conf").read_text() for each in network.nodes]
        return "\n".join((*said, bed.tails()))

    def by_capacity() -> bool:
        return all(_next(*way) in {_hop(way[0], relay) for relay in fat} for way in both)

    def by_latency() -> bool:
        return all(_next(*way, plane=False) == _hop(way[0], quick) for way in both)

    wait_until(by_capacity, FORMS, "the copy's way leads by a slow relay", context)
    wait_until(by_latency, FORMS, "the way of keystrokes leads by the quick one", context)
    with Stream(a.host, b.host, b.address, CLASS).running() as copy:
        began = time.monotonic()
        meanwhile = keystrokes(a, b)
        time.sleep(max(0.0, began + CALM - time.monotonic()))
        rate = 8 * copy.received / (time.monotonic() - began) / 1e6
        before = {relay: sent(relay.host, b.host) for relay in fat}
        time.sleep(1)
        used = max(fat, key=lambda relay: sent(relay.host, b.host) - before[relay])
        calm, copy.stall = copy.stall, 0.0
        for other in network.nodes:
            if other is not used:
                used.host.lose(other.host)
        time.sleep(BROKEN)
        received = copy.received
        time.sleep(1)
        assert copy.received > received, f"the copy goes on: {copy}\n{context()}"
    print(f"keystrokes {meanwhile:.1f} ms beside a copy of {rate:.0f} Mbit/s; stalls {calm:.2f} s, {copy.stall:.2f} s")
    assert meanwhile < 2000 * FAR, "they have not taken the way of the copy"
    assert rate > 1.5 * THIN, "the copy has not taken that of the keystrokes"
    assert copy.stall < BROKEN / 2


def _next(source: Node, target: Node, *, plane: bool = True) -> str:
    """The next hop of packets to a node."""
    words = ("tos", f"{CS1 << ECN_BITS:#x}") if plane else ()
    shown = source.host.run(["ip", "-6", "route", "get", str(target.address), *words], check=False).stdout
    found = re.search(r"via (\S+) dev (\S+)", shown)
    return " ".join(found.groups()) if found else ""


def _hop(source: Node, peer: Node) -> str:
    """That which is a peer itself."""
    routes = source.babel().routes.values()
    via = next((each.via for each in routes if each.destination == peer.subnet and not each.refmetric), None)
    return "none" if via is None else f"{via.address} {via.interface}"
