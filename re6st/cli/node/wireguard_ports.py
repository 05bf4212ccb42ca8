"""The option --wireguard-ports of re6stnet."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from re6st.cli.options import OptionParser
from re6st.core.tunnel_protocols import Transport, TunnelProtocol
from re6st.noded.settings import WIREGUARD_PORTS

DEFAULT = f"{WIREGUARD_PORTS[0]}-{WIREGUARD_PORTS[-1]}"


def add_option(group: argparse._ArgumentGroup) -> None:
    """The option --wireguard-ports."""
    group.add_argument(
        "--wireguard-ports",
        metavar="FIRST-LAST",
        default=DEFAULT,
        help="UDP ports of WireGuard links, one for each (default: %(default)s)",
    )


def ports_of(p: OptionParser, text: str, servers: Sequence[tuple[int, TunnelProtocol]]) -> range:
    """They are told to others, and must be none of a server."""
    found = WIREGUARD_PORTS if text == DEFAULT else _parsed(p, text)
    for port, protocol in servers:
        if port in found and protocol.transport is Transport.UDP:
            p.error(f"argument --wireguard-ports: {text} contains port {port}, which is that of the server {protocol}")
    return found


def _parsed(p: OptionParser, text: str) -> range:
    from re6st.core.wire.wireguard import PORTS  # most nodes have no use for it

    first, dash, last = text.partition("-")
    numbers = [int(each) for each in (first, last) if each.isascii() and each.isdigit() and len(each) < 6]
    if not dash or len(numbers) != 2 or numbers[0] > numbers[1]:
        p.error(f"argument --wireguard-ports: {text!r} is not of the form FIRST-LAST, such as 21194-21449")
    found = range(numbers[0], numbers[1] + 1)
    if found[0] not in PORTS or found[-1] not in PORTS:
        p.error(f"argument --wireguard-ports: {text} has ports outside {PORTS[0]}-{PORTS[-1]}")
    return found
