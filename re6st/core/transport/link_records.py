"""What a node notes of a WireGuard link, so that the next daemon goes on with it (noded/takeover.py).

It holds the secret key of our end: a file of it is for its owner only.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from re6st.core.prefix import Prefix
from re6st.core.transport import wireguard_links
from re6st.core.transport.records import RecordError
from re6st.core.transport.wireguard_links import WireGuardLink
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint, format_addresses, parse_addresses


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Whose certificate is at the other end: its serial number, and the number of the node in it."""

    serial: int | None
    number: int | None
    until: float | None = None
    """When the certificate ends, in seconds since 1970, where that is known."""


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A link that is up. `since`, and `keyed`, when its keys were made, are in seconds since 1970.

    `place` is where the tunnel was dialled whose place it took: that of the peer's server, or, where the peer dialled,
    its own address, with the protocol of our server.
    """

    link: WireGuardLink
    process: tuple[int, str] | None
    """The number and the name of what carries it; None where the kernel does."""
    identity: PeerIdentity
    place: Endpoint | None
    since: float
    keyed: float | None = None
    """None where that is not known: the first version with links did not note it."""
    mark: int = 0
    """What its packets are marked with."""
    lane: int = 0
    """That of a link beside the first one with a peer; 0 for the first one."""

    @property
    def peer(self) -> Prefix:
        return self.link.peer

    @property
    def protocol(self) -> TunnelProtocol | None:
        """Of the tunnel whose place it took."""
        return None if self.place is None else self.place.protocol


def encode(record: LinkRecord) -> bytes:
    """The text of a record. An older version, which knows one link with each peer, reads none of further ones."""
    return json.dumps(
        {
            "further_link" if record.lane else "link": wireguard_links.encode(record.link).decode("ascii"),
            "process": record.process,
            "serial": record.identity.serial,
            "number": record.identity.number,
            "place": "" if record.place is None else format_addresses([record.place]),
            "since": record.since,
            "keyed": record.keyed,
            "until": record.identity.until,
            "mark": record.mark,
            "lane": record.lane,
        }
    ).encode()


def decode(data: bytes) -> LinkRecord:
    """The record that a text holds. Raises RecordError."""
    try:
        fields = json.loads(data)
        lane = _integer(fields.get("lane", 0))
        link = fields["further_link" if lane else "link"]
        process, place = fields["process"], parse_addresses(str(fields["place"]), anywhere=True)
        return LinkRecord(
            wireguard_links.decode(str(link).encode()),
            None if process is None else (_integer(process[0]), str(process[1])),
            PeerIdentity(_optional(fields["serial"]), _optional(fields["number"]), _moment(fields.get("until"))),
            place[0] if place else None,
            float(fields["since"]),
            _moment(fields.get("keyed")),
            _integer(fields.get("mark", 0)),
            lane,
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        # Without its text, which may hold what was read.
        raise RecordError(f"not a note of a WireGuard link: {type(error).__name__}") from None


def _optional(value: object) -> int | None:
    return None if value is None else _integer(value)


def _moment(value: object) -> float | None:
    """Seconds since 1970, where there are any."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise RecordError("a time that is none")
    return float(value)


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RecordError("a number that is none")
    return value
