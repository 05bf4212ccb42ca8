"""The kernel tells of babel's routes and of links, and of no other route."""

from __future__ import annotations

import socket

from re6st.linux import address_monitor
from testbed import Bed

SIZE = 65536
ROUTE = "route {} unreachable 2001:db8:42:a::/64 proto {}"


def told(own: socket.socket) -> bool:
    """Whether there was news since the last call; the kernel sends it before a change is done."""
    found = False
    try:
        while own.recv(SIZE):
            found = True
    except BlockingIOError:
        return found
    return found


def test_routes_of_babel_and_links_are_news_and_other_routes_are_not(bed: Bed) -> None:
    host = bed.host("here")
    with host.namespace.call(address_monitor.open_babel_routes) as own:
        told(own)
        for protocol, is_news in (("babel", True), ("static", False)):
            for verb in ("add", "del"):
                host.namespace.ip(ROUTE.format(verb, protocol))
                assert told(own) is is_news, (verb, protocol)
        host.namespace.ip("link set dev eth0 mtu 1400")
        assert told(own)
