"""A way to a host that carries smaller packets than its card does: as PPPoE, or another tunnel, on its uplink.

A router stands between the host and the switch, which nobody sees but by its ICMP: that a packet is too big, and how
large one may be (RFC 1191, RFC 4443 section 3.2).
"""

from __future__ import annotations

import json

from testbed.host import Host
from testbed.namespace import Namespace, command

SILENT = "icmp type destination-unreachable drop; icmpv6 type packet-too-big drop;"


class NarrowWay:
    """The way to a host, both directions. `tells` False: what is too big vanishes without a word (a black hole)."""

    def __init__(self, host: Host, mtu: int, *, tells: bool = True) -> None:
        self._host = host
        self._router = router = Namespace(host.bed.name, f"{host.name}-way")
        port = host.ports["eth0"]
        port.switch.ip(f"link set dev {port.name} netns {router.full_name}")
        router.ip(f"link set dev {port.name} name in")
        port.switch.ip(
            f"link add name {port.name} type veth peer name out netns {router.full_name}",
            f"link set dev {port.name} master {port.bridge} up",
        )
        for interface in ("in", "out"):
            router.sysctl(
                {
                    f"net/ipv6/conf/{interface}/accept_dad": 0,
                    f"net/ipv4/conf/{interface}/proxy_arp": 1,
                    f"net/ipv6/conf/{interface}/proxy_ndp": 1,
                    f"net/ipv4/neigh/{interface}/proxy_delay": 0,
                    f"net/ipv6/neigh/{interface}/proxy_delay": 0,
                }
            )
        router.sysctl({"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1})
        # Addresses of its own, to speak with.
        number = host.address.rpartition(".")[2]
        router.ip(
            "link set in up",
            "link set out up",
            f"address add 10.0.254.{number}/32 dev out",
            f"address add fd00::fe:{number}/128 dev out",
        )
        if host.ipv6 is not None:
            asked = ("ip", "-n", router.full_name, "-json", "-6", "address", "show", "dev", "in", "scope", "link")
            (shown,) = json.loads(command(*asked))
            router.ip(f"neigh add proxy {host.ipv6} dev out")
            next_hop = shown["addr_info"][0]["local"]
            host.namespace.ip("route del fd00::/64 dev eth0", f"route add fd00::/64 via {next_hop} dev eth0")
        if not tells:
            rules = f"table inet way {{ chain out {{ type filter hook output priority 0; {SILENT} }}; }}"
            command("ip", "netns", "exec", router.full_name, "nft", rules)
        self.carries(mtu)

    def carries(self, mtu: int) -> None:
        """From now on packets of `mtu` bytes pass, and no larger ones."""
        host = self._host
        # Locked, since forwarding goes by what an interface carries otherwise.
        self._router.ip(
            f"route replace 10.0.0.0/16 dev out mtu lock {mtu}",
            f"route replace {host.address}/32 dev in mtu lock {mtu}",
        )
        if host.ipv6 is not None:
            self._router.ip(
                f"route replace fd00::/64 dev out mtu lock {mtu}",
                f"route replace {host.ipv6}/128 dev in mtu lock {mtu}",
            )
