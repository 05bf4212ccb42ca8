"""The way to the IPv6 Internet through the network's gateways (--gateway; wire.md 9.3)."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from testbed import Bed, Host, Network, Node, wait_until
from testbed.background import in_background

FORMS = HEALS = 90
PORT = 7
ADDRESS = "2001:db8:ffff::1"


class Internet:
    """A host far away, which tells everybody who asks (UDP) under which address it sees them."""

    def __init__(self, bed: Bed) -> None:
        self.host = bed.host("internet")
        self.host.namespace.ip(f"address add {ADDRESS}/128 dev lo nodad")

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        own = self.host.shared_socket("service", _open)
        own.bind((ADDRESS, PORT))
        own.settimeout(0.2)

        def serve(stop: threading.Event) -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    _, source = own.recvfrom(64)
                    own.sendto(source[0].encode(), source)

        with in_background(serve):
            yield

    def sees(self, host: Host) -> str | None:
        """The address it sees a host under; None if no answer comes."""
        with host.namespace.call(_open) as own, contextlib.suppress(OSError):
            own.settimeout(0.5)
            own.sendto(b"?", (ADDRESS, PORT))
            return own.recv(64).decode()
        return None


def _open() -> socket.socket:
    return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)


@pytest.fixture
def internet(bed: Bed) -> Iterator[Internet]:
    internet = Internet(bed)
    with internet.serving():
        yield internet


def defaults(host: Host) -> list[str]:
    """The IPv6 default routes that are not for the sources inside re6st only."""
    lines = host.ip("-6", "route", "show", "table", "all", "default").splitlines()
    return [line.strip() for line in lines if " from " not in line]


def test_a_node_with_only_ipv4_reaches_the_internet_through_the_gateway(bed: Bed, internet: Internet) -> None:
    gateway, other, inner = hosts = bed.host("gateway"), bed.host("other"), bed.host("inner", ipv6=False)
    for host in (gateway, other):
        host.namespace.ip(f"route add default via {internet.host.ipv6}")
    internet.host.namespace.ip(f"route add 2001:db8:42::/48 via {gateway.ipv6}")
    before = {host: defaults(host) for host in hosts}
    network = Network(bed, hosts=hosts)
    network.nodes[0].options.append("--gateway")
    assert internet.sees(inner) is None
    network.start()
    network.wait_connected(FORMS)

    address = str(network.nodes[2].address)
    wait_until(lambda: internet.sees(inner) == address, 60, "the Internet answers the node without IPv6", bed.tails)
    assert internet.sees(other) == other.ipv6, "whoever has its own way keeps it"
    assert {host: defaults(host) for host in hosts} == before

    assert network.nodes[2].stop() == 0
    assert internet.sees(inner) is None
    assert network.nodes[2].traces() == []
    assert {host: defaults(host) for host in hosts} == before


def cut(gateway: Node) -> None:
    gateway.host.cut()


def kill(gateway: Node) -> None:
    gateway.kill()
    gateway.signal("openvpn")
    gateway.signal("babeld")


def lose_its_way(gateway: Node) -> None:
    gateway.host.ip("-6", "route", "del", "default")


@pytest.mark.parametrize("accident", [cut, kill, lose_its_way], ids=lambda function: function.__name__)
def test_when_the_nearer_gateway_fails_the_other_takes_over(
    bed: Bed, internet: Internet, accident: Callable[[Node], None], record_property: Callable[[str, object], None]
) -> None:
    network = Network(
        bed, hosts=[*(bed.host(name) for name in ("first", "near", "far")), bed.host("inner", ipv6=False)]
    )
    _, near, far, inner = network.nodes
    for gateway in (near, far):
        gateway.options.append("--gateway")
        gateway.host.namespace.ip(f"route add default via {internet.host.ipv6} proto static")
        rule = f"ip6 saddr {network.network} masquerade"
        rules = f"table ip6 site {{ chain out {{ type nat hook postrouting priority 100; {rule}; }}; }}"
        gateway.host.run(["nft", rules])
    far.options += ["-B-C", "-Bdefault rxcost 500"]
    network.start()
    network.wait_connected(FORMS)
    wait_until(lambda: internet.sees(inner.host) == near.host.ipv6, 60, "the nearer gateway is used", bed.tails)
    accident(near)
    start = time.monotonic()
    wait_until(lambda: internet.sees(inner.host) == far.host.ipv6, HEALS, "the other gateway takes over", bed.tails)
    record_property("seconds", round(time.monotonic() - start, 1))
    print(f"{accident.__name__}: {time.monotonic() - start:.1f} s")


def advertise(router: Host) -> None:
    """Send a router advertisement (RFC 4861 section 4.2) that offers a way out."""
    own = router.namespace.call(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
    with own:
        index = router.namespace.call(lambda: socket.if_nametoindex("eth0"))
        own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        lifetime = 1800
        own.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0), ("ff02::1", 0, 0, index))


def test_a_default_route_from_router_advertisements_stays(bed: Bed, internet: Internet) -> None:
    """babeld turns forwarding on, and a router does not listen to advertisements, unless told to."""
    internet.host.namespace.sysctl({"net/ipv6/conf/all/forwarding": 1})
    network = Network(bed, 1)
    host = network.nodes[0].host
    advertise(internet.host)
    wait_until(lambda: "proto ra" in " ".join(defaults(host)), 60, "the host has a default route")
    wait_until(lambda: internet.sees(host) == host.ipv6, 60, "it is used, with the host's address", bed.tails)
    network.start()
    control = host.run_directory / "babeld.ctl"
    wait_until(control.exists, 60, "babeld runs", bed.tails)

    def forwards() -> bool:
        return host.run(["cat", "/proc/sys/net/ipv6/conf/all/forwarding"]).stdout.strip() == "1"

    wait_until(forwards, 60, "the host is a router", bed.tails)
    assert "proto ra" in " ".join(defaults(host))
    assert internet.sees(host) == host.ipv6
    host.ip("-6", "route", "del", "default")
    advertise(internet.host)
    wait_until(lambda: "proto ra" in " ".join(defaults(host)), 60, "the host still listens to advertisements")

    assert network.nodes[0].stop() == 0
    assert "proto ra" in " ".join(defaults(host))
    assert host.run(["cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra"]).stdout.strip() == "1"


def test_no_tunnel_is_opened_through_the_gateway(bed: Bed, internet: Internet) -> None:
    """It would be a tunnel inside re6st, and its own way might lead through it."""
    network = Network(bed, hosts=[bed.host("gateway"), bed.host("only6"), bed.host("inner", ipv6=False)])
    gateway, only6, inner = network.nodes
    gateway.options.append("--gateway")
    gateway.host.namespace.ip(f"route add default via {internet.host.ipv6}")
    only6.options = ["--ip", str(only6.host.ipv6), "--disable-proto", "none", "--pp", "1194", "tcp6"]
    only6.options += ["--client-count", "1"]  # one that leads to the gateway
    inner.options += ["--disable-proto", "none", "--neighbour", "1/16"]
    network.create()
    for node in network.nodes:
        node.enrol(network.url, network.fingerprint)
    for node in network.nodes:
        node.start()
    network.wait_connected(FORMS)
    log = inner.host.log / "re6stnet.log"
    wait_until(lambda: "no route to 1/16 except" in log.read_text(), 60, "the tunnel is not opened", bed.tails)
    assert not any(tunnel.client is inner and tunnel.server is only6 for tunnel in network.tunnels())
