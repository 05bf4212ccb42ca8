"""Who sent packets that were dropped for their source, in words for the log."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from re6st.core.report import Link
from re6st.packet_filter import Sender

NAMED = 5
"""Clients of one server that are named; the hardware address tells them apart (`ip neigh`), if it is theirs."""

log = logging.getLogger(__name__)


def accuse(senders: Iterable[Sender], links: Iterable[Link]) -> None:
    """Log from whom they came: by the interface of a tunnel, there is one; by that of a server, one of its clients."""
    found = tuple(links)
    for sender in senders:
        peers = [link.peer.cn for link in found if link.interface == sender.interface]
        who = " or ".join((*peers[:NAMED], *(("another client",) if len(peers) > NAMED else ()))) or "nobody known"
        log.warning(
            "%s packets with a source that they cannot have came by %s (%s) from %s, and were dropped:"
            " it sent them, or did not drop them itself. Throw out who forges: re6st-registry revoke",
            sender.packets,
            sender.interface,
            sender.hardware_address,
            who,
        )
