"""A tunnel that has become bad is given up for another one, well before its turn."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from re6st.core.mesh.closing import SETTLE_TIME
from re6st.service.run_names import CONTROL_SOCKET
from testbed import Bed, Network, wait_until
from testbed.control import ask
from testbed.network import Node, Tunnel
from testbed.pings import Pinger

NODES = 7
"""More than a node with two tunnels is next to."""
FORMS = 60
SLOW = 0.2
"""Seconds that a packet takes on the bad way."""
SOON = 120
"""Seconds; it is watched for half a minute, then drained."""


def replaced(tunnel: Tunnel) -> bool:
    text = (tunnel.client.host.log / "re6stnet.log").read_text()
    return re.search(rf"closing the tunnel to {tunnel.server.prefix}: replaced", text) is not None


def known_to_be_good(tunnel: Tunnel) -> bool:
    """Whether both tunnels of its client have been up long enough to become bad."""
    found = ask(tunnel.client.host.run_directory / CONTROL_SOCKET, "tunnels")["tunnels"]
    ours = [each["up_seconds"] for each in found if each["direction"] == "out" and each["state"] == "up"]
    return len(ours) == 2 and min(ours) > SETTLE_TIME + 2


def spare(network: Network) -> Tunnel | None:
    """A good tunnel whose ends have others, and whose client has somebody else to meet."""
    near: dict[Node, set[Node]] = {node: set() for node in network.nodes}
    tunnels = sorted(network.tunnels(), key=lambda each: (each.client.name, each.server.name))
    for tunnel in tunnels:
        near[tunnel.client].add(tunnel.server)
        near[tunnel.server].add(tunnel.client)
    fit = (t for t in tunnels if len(near[t.server]) > 2 and 2 < len(near[t.client]) < NODES - 1)
    return next(filter(known_to_be_good, fit), None)


def test_a_tunnel_that_became_bad_is_replaced(bed: Bed, record_property: Callable[[str, object], None]) -> None:
    network = Network(bed, NODES, registry_options=["--client-count", "2"])
    network.start()
    network.wait_connected(FORMS)
    found: list[Tunnel] = []

    def ready() -> bool:
        found[:] = filter(None, [spare(network)])
        return bool(found)

    wait_until(ready, FORMS, "the mesh has its shape", bed.tails)
    (tunnel,) = found
    with Pinger(tunnel.client.host, tunnel.server.address).running() as pinger:
        tunnel.client.host.delay(tunnel.server.host, SLOW)
        began = time.monotonic()
        wait_until(lambda: replaced(tunnel), SOON, "the bad tunnel is replaced", bed.tails)
        took = time.monotonic() - began
    record_property("worn", f"replaced after {took:.1f} s, {pinger}")
    assert pinger.longest < 5, "as a rule no ping is lost"
