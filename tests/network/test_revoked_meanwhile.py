"""Who is revoked while a daemon is away is cut off by the next one, which goes on with all other tunnels."""

from __future__ import annotations

import pytest

from testbed import Bed, Network, wait_until
from testbed.network import Tunnel
from tests.network.test_revocation import CUT, FORMS


@pytest.mark.parametrize("role", ["client", "server"])
def test_who_is_revoked_while_a_daemon_is_away_is_cut_off_by_the_next_one(bed: Bed, role: str) -> None:
    """At once, though the tunnel lives on meanwhile: its keys change an hour later only."""
    network = Network(bed, 3)
    _, node, revoked = network.nodes
    (revoked if role == "client" else node).options += ["--max-clients", "0"]
    network.start()
    network.wait_connected(FORMS)
    wanted = Tunnel(revoked, node) if role == "client" else Tunnel(node, revoked)
    wait_until(lambda: wanted in network.tunnels(), FORMS, f"it is a {role}", bed.tails)
    for each in (node, revoked):
        each.kill()
    network.call("revoke", f"cn_or_serial={revoked.prefix.cn}")
    assert wanted in network.tunnels(), "no daemon is there to cut it off"
    network.forget(node)  # so that it begins with the list of now, and there is no news of it
    node.start()
    words = f"cutting off {revoked.prefix}, whom" if role == "client" else f"closing the tunnel to {revoked.prefix}"
    wait_until(lambda: words in (node.host.log / "re6stnet.log").read_text(), CUT, "it is cut off", bed.tails)
    wait_until(lambda: wanted not in network.tunnels(), CUT, "there is no tunnel", bed.tails)
