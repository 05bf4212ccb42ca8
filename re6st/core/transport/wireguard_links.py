"""A WireGuard link as one end has it, and the note of it by which the next daemon goes on.

The note holds the secret key of this end: it is for a file that only we read (service/rundir.py), and for nothing else.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from re6st.core import interfaces
from re6st.core.prefix import Prefix
from re6st.core.transport.records import RecordError
from re6st.core.tunnel_protocols import Role
from re6st.core.wire import wireguard
from re6st.core.wire.datagrams import WireError
from re6st.core.wire.wireguard import KEY_LENGTH, Accept, Terms


@dataclass(frozen=True, slots=True)
class OwnEnd:
    """Our terms, and the secret key to the public one in them."""

    secret: bytes = field(repr=False)
    terms: Terms


@dataclass(frozen=True, slots=True)
class WireGuardLink:
    """What both ends have agreed on, and our interface. Who opened it is its client, and dials."""

    peer: Prefix
    number: int
    role: Role
    interface: str
    own: OwnEnd
    theirs: Terms

    @property
    def mtu(self) -> int:
        """Bytes that both ends can have; the path may have less."""
        return min(self.own.terms.mtu, self.theirs.mtu)


def encode(link: WireGuardLink) -> bytes:
    """The note of a link."""
    return json.dumps(
        {
            "peer": link.peer.cn,
            "number": link.number,
            "role": link.role.value,
            "interface": link.interface,
            "secret": link.own.secret.hex(),
            "own": _terms_text(link.own.terms),
            "theirs": _terms_text(link.theirs),
        }
    ).encode()


def decode(data: bytes) -> WireGuardLink:
    """The link of a note, its values checked as those of a peer. Raises RecordError."""
    try:
        fields = json.loads(data)
        secret, interface, number = bytes.fromhex(fields["secret"]), str(fields["interface"]), fields["number"]
        own, theirs = _read_terms(number, fields["own"]), _read_terms(number, fields["theirs"])
        if len(secret) != KEY_LENGTH or not interfaces.is_ours(interface) or isinstance(number, bool):
            raise RecordError("a key, an interface or a number that is none of ours")
        return WireGuardLink(
            Prefix.from_cn(str(fields["peer"])), number, Role(fields["role"]), interface, OwnEnd(secret, own), theirs
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        # Without its text, which may hold what was read.
        raise RecordError(f"not a note of a WireGuard link: {type(error).__name__}") from None


def _terms_text(terms: Terms) -> dict[str, object]:
    return {"key": terms.key.hex(), "port": terms.port, "mtu": terms.mtu, "address": str(terms.address)}


def _read_terms(number: int, fields: dict[str, object]) -> Terms:
    """Raises what `decode` takes for no note."""
    key, port, mtu = bytes.fromhex(str(fields["key"])), fields["port"], fields["mtu"]
    if not isinstance(port, int) or not isinstance(mtu, int) or len(key) != KEY_LENGTH:
        raise RecordError("terms of another form")
    try:
        accept = Accept(number, Terms(key, port, mtu, IPv6Address(str(fields["address"]))))
        if wireguard.decode(wireguard.encode(accept)) != accept:
            raise RecordError("terms that nobody can have")
    except (WireError, struct.error) as error:
        raise RecordError(str(error)) from None
    return accept.terms
