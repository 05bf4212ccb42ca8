"""Neighbour discovery tells the hardware address of who has chosen another link-local address."""

from __future__ import annotations

import contextlib
from ipaddress import IPv6Address

from re6st.core.routing.babel_lines import NextHop
from re6st.linux.hardware import Hardware
from re6st.linux.rtnetlink import Netlink
from testbed import Bed, wait_until

CHOSEN = IPv6Address("fe80::1")


def test_a_neighbour_is_known_by_its_hardware_address_whatever_it_calls_itself(bed: Bed) -> None:
    here, there = bed.host("here"), bed.host("there")
    there.namespace.ip(f"address add {CHOSEN}/64 dev eth0 nodad")
    hop = NextHop(CHOSEN, "eth0")
    with contextlib.closing(here.namespace.call(Netlink)) as netlink:
        hardware = Hardware(netlink)

        def found() -> str:
            here.namespace.call(lambda: hardware.find([hop]))
            return hardware[hop]

        mac = wait_until(found, 10, "the neighbour answers")
    assert f"link/ether {mac} " in there.ip("link", "show", "dev", "eth0")
