"""Whether this machine and the servers of its peers have a version of IP in common."""

from __future__ import annotations

from collections.abc import Iterable

from re6st.core.machine.hosts import Ip
from re6st.core.wire.datagrams import Endpoint


def nothing_in_common(uplinks: Iterable[Ip], servers: Iterable[Endpoint]) -> str | None:
    """What is missing, and on which side, in words; None where there is a common one, or nothing is known.

    `uplinks` are the addresses of this machine that lead outside, `servers` those of peers.
    """
    own = {ip.version for ip in uplinks if not (ip.is_loopback or ip.is_link_local)}
    offered = {server.protocol.family for server in servers}
    if not own or not offered or own & offered:
        return None
    (here,), (there,) = own, offered
    return (
        f"this machine has IPv{here} only, and the servers of all peers that it knows have IPv{there} only: no tunnel"
        f" can be opened. Have one of them listen on IPv{here} (it does so by default, where it has such an address),"
        f" or give this machine IPv{there}"
    )
