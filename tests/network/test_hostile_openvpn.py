"""A member that turns its OpenVPN against others: what it pushes is not obeyed, and it can still be revoked."""

from __future__ import annotations

import string
import sys
import time

import pytest

from testbed import Bed, Network, wait_until

FORMS = 90
CUT = 30
PUSHED = (
    *("route 8.8.8.0 255.255.255.0 10.9.0.1", "redirect-gateway def1", "route-gateway 10.9.0.1", "topology subnet"),
    *("ifconfig 10.9.0.2 255.255.255.0", "ifconfig-ipv6 2001:db8:9::2/64 2001:db8:9::1", "route-ipv6 2000::/3"),
    *("inactive 5", "ping-restart 1", "tun-mtu 68", "dhcp-option DNS 10.9.0.1"),
    *(f"setenv-safe x{number} {'y' * 100}" for number in range(40)),
)
"""More than fits into one message of OpenVPN's."""


@pytest.mark.parametrize(("protocol", "encrypt"), [("udp", True), ("tcp", False)])
def test_a_server_gives_its_clients_neither_routes_nor_addresses(bed: Bed, protocol: str, encrypt: bool) -> None:
    other = "tcp" if protocol == "udp" else "udp"
    options = ["--pp", "1194", protocol, "--disable-proto", other]
    network = Network(bed, 2, registry_options=["--encrypt"] if encrypt else [], node_options=options)
    hostile, node = network.nodes
    hostile.options += ["--client-count", "0"]  # --push is for servers
    for line in PUSHED:
        hostile.options += ["-O--push", f"-O{line}"]
    network.start()
    network.wait_connected(FORMS)
    everything = (node.host.ip("route") + node.host.ip("-6", "route") + node.host.ip("address")).split()
    for trace in ("8.8.8.0/24", "0.0.0.0/1", "128.0.0.0/1", "10.9.0.2/24", "2000::/3", "2001:db8:9::2/64"):
        assert trace not in everything
    assert "mtu 68 " not in node.host.ip("link")
    assert network.tunnels(), "the tunnel works, by what is expected of a push"
    assert len([argv for argv in node.host.processes().values() if "--client" in argv]) == 1


def test_a_client_that_says_much_about_itself_can_still_be_thrown_out(bed: Bed) -> None:
    network = Network(bed, 2)
    node, hostile = network.nodes
    hostile.options += ["--max-clients", "0", "-O--push-peer-info"]  # nobody dials it
    names = [f"{first}{second}" for first in string.ascii_lowercase for second in "0123456789"]
    for name in names[:230]:
        hostile.options += ["-O--setenv", f"-OUV_{name}", "-O", ""]
    network.start()
    network.wait_connected(FORMS)
    hostile.kill()  # so that it does not leave by itself: its OpenVPN and babeld go on
    assert hostile.pids("openvpn")
    network.call("revoke", f"cn_or_serial={hostile.prefix.cn}")
    wait_until(lambda: not hostile.pids("openvpn"), CUT, "its tunnel is cut", bed.tails)
    assert node.pids("openvpn"), "the server goes on"


FLOOD = """
import os, socket, sys, time
sockets = []
for address in sys.argv[2:]:
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.bind((address, 0))
    sockets.append(own)
while True:
    for own in sockets:
        own.sendto(b"\\x38" + os.urandom(8) + bytes(5), (sys.argv[1], 1194))
    time.sleep(0.25)
"""
"""P_CONTROL_HARD_RESET_CLIENT_V2, four a second from each address: fewer than one source may send for ever."""


def test_first_packets_of_many_strangers_keep_no_honest_peer_out(bed: Bed) -> None:
    """OpenVPN itself answers a hundred in ten seconds, whoever sends them."""
    network = Network(bed, 2, node_options=["--pp", "1194", "udp", "--disable-proto", "tcp"])
    first, second = network.nodes
    second.options += ["--max-clients", "0"]  # only the flooded server is there
    stranger = bed.host("stranger")
    addresses = [f"10.0.77.{number}" for number in range(1, 61)]
    for address in addresses:
        stranger.namespace.ip(f"address add {address}/16 dev eth0")
    network.create()
    network.enrol()
    first.start()
    wait_until(lambda: first.pids("openvpn"), FORMS, "the server runs", bed.tails)
    stranger.start([sys.executable, "-c", FLOOD, first.host.address, *addresses], "flood.log")
    time.sleep(3)  # a part of the ten seconds, so that there is nothing left of them
    second.start()
    network.wait_connected(FORMS)
