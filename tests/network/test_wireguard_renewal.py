"""A WireGuard link goes on when its peer renews its certificate, and the earlier one is revoked."""

from __future__ import annotations

import shutil
import time
from datetime import timedelta

import pytest

from re6st import cert
from re6st.core.transport.link_records import LinkRecord
from re6st.core.tunnel_protocols import Role
from testbed import Bed, Network, wait_until
from testbed.ageing import shorten
from testbed.links import all_are_links, link_record
from testbed.network import environment, program
from testbed.pings import Pinger
from tests.network.test_wireguard import FORMS, PACE
from tests.network.test_wireguard_roles import LASTS, OPTIONS, wait_for_links_alone

pytestmark = pytest.mark.skipif(shutil.which("wireguard-go") is None, reason="no wireguard-go")


def test_who_renews_its_certificate_keeps_its_link_when_the_earlier_one_is_revoked(bed: Bed) -> None:
    network = Network(bed, 2, node_options=OPTIONS)
    network.start()
    network.wait_connected(FORMS)
    one, two = network.nodes
    wait_for_links_alone(network, bed, one, two)

    def known() -> LinkRecord:
        """What the other one noted of the link."""
        return next(note for role in Role if (note := link_record(one, two, role)) is not None)

    before = known()
    shorten(network, two, timedelta(days=20))  # the registry renews none that is not near its end
    with Pinger(one.host, two.address, PACE).running() as pinger:
        done = two.host.run([*program("conf"), "renew", "--force", "-d", str(two.host.etc)], env=environment())
        print(done.stdout)
        serial = cert.load_pem((two.host.etc / "cert.crt").read_bytes()).serial_number
        assert serial != before.identity.serial
        wait_until(lambda: known().identity.serial == serial, 30, "the other end knows the new one", bed.tails)
        assert known().identity.until != before.identity.until
        network.call("revoke", f"cn_or_serial={before.identity.serial}")
        refused = one.host.run_directory / "revoked" / str(before.identity.serial)
        wait_until(refused.exists, 30, "the revocation is there", bed.tails)
        end = time.monotonic() + LASTS
        wait_until(lambda: time.monotonic() > end, 20, "the link stays", bed.tails)
    print(pinger)
    assert all_are_links(one, two)
    assert known().link.number == before.link.number
    assert pinger.lost == 0
