"""A thousand routes at once: every node learns them and goes on, and repeats them less often from then on."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from re6st.service.run_names import CONTROL_SOCKET
from testbed import Bed, Network, wait_until
from testbed.control import ask
from testbed.network import NETWORK
from testbed.routes import FIRST, announce, destinations

FORMS = LEARNS = 90
CALMS = 300
"""babel is given the settings of a larger network one to three minutes after it has grown, and not by all at once."""
ROUTES = 1000
LAN = "lan"


def test_a_thousand_routes_come_at_once(bed: Bed, record_property: Callable[[str, object], None]) -> None:
    network = Network(bed, 2, registry_options=["--client-count", "1"])
    entrance, node = network.nodes
    helper = bed.host("helper")
    bed.segment(LAN, entrance.host, helper)
    entrance.options += ["-i", LAN]
    network.start()
    network.wait_connected(FORMS)
    announce(helper, entrance, LAN, ROUTES)
    wait_until(lambda: destinations(node) > ROUTES, LEARNS, "the routes come through the tunnel", bed.tails)

    def calmer() -> bool:
        try:
            text = (node.host.run_directory / "babeld.conf").read_text()
        except OSError:  # written anew
            return False
        return "update-interval 1 " not in text and destinations(node) > ROUTES

    # Its babeld is not followed any more then, but read now and then, and when the kernel tells of a change.
    gone = next(islice(NETWORK.subnets(new_prefix=64), FIRST, None))

    def is_shown() -> bool:
        shown = ask(node.host.run_directory / CONTROL_SOCKET, "routes", limit=1000)["routes"]
        return any(each["destination"] == str(gone) for each in shown)

    wait_until(is_shown, LEARNS, "status shows a route", bed.tails)
    began = time.monotonic()
    helper.ip("route", "del", "unreachable", str(gone), "proto", "static")
    wait_until(lambda: not is_shown(), LEARNS, "status shows that it has gone", bed.tails)
    record_property("gone_s", round(time.monotonic() - began, 2))
    helper.ip("route", "add", "unreachable", str(gone), "proto", "static")
    wait_until(is_shown, LEARNS, "status shows that it is back", bed.tails)
    wait_until(calmer, CALMS, "babel repeats them less often", bed.tails)
    network.wait_connected(FORMS)
    for each in network.nodes:
        assert "babeld ended" not in (each.host.log / "re6stnet.log").read_text(), bed.tails()
    assert node.process is not None
    with open(f"/proc/{node.process.pid}/status") as file:
        size = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    record_property("rss_kib", size)
    assert size < 100_000, "usually half of that"
