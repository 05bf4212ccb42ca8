"""Who sent packets that were dropped for their source, in words for the log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from re6st.core.prefix import Prefix
from re6st.noded.packet_filter import Sender

NAMED = 5
"""Clients of one server that are named where it is not known who of them has the hardware address."""

log = logging.getLogger(__name__)


def accuse(senders: Iterable[Sender], suspects: Callable[[str, str], Sequence[Prefix]]) -> None:
    """Log from whom they came: `suspects` are those who may have that hardware address on that interface."""
    for sender in senders:
        peers = [peer.cn for peer in suspects(sender.interface, sender.hardware_address)]
        who = " or ".join((*peers[:NAMED], *(("another client",) if len(peers) > NAMED else ()))) or "nobody known"
        log.warning(
            "dropped %s packets with a forged source, which came by %s%s from %s: it sent"
            " them, or forwarded what another node forged. Revoke the node that forges: re6st-registry revoke",
            sender.packets,
            sender.interface,
            f" ({sender.hardware_address})" if sender.hardware_address else "",
            who,
        )
