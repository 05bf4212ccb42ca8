"""A thousand routes at once: every node learns them and goes on, and repeats them less often from then on."""

from __future__ import annotations

from collections.abc import Callable

from testbed import Bed, Network, wait_until
from testbed.routes import announce, destinations

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

    wait_until(calmer, CALMS, "babel repeats them less often", bed.tails)
    network.wait_connected(FORMS)
    for each in network.nodes:
        assert "babeld ended" not in (each.host.log / "re6stnet.log").read_text(), bed.tails()
    assert node.process is not None
    with open(f"/proc/{node.process.pid}/status") as file:
        size = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
    record_property("rss_kib", size)
    assert size < 100_000, "usually half of that"
