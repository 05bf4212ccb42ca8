"""Node-to-node datagrams, UDP port 326: handshake, data, message codes, address lists (wire.md section 6).

Only bytes and values here; the state of the peers is in sessions.py.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Network, ip_address

from re6st.core.machine.hosts import is_usable_host
from re6st.core.tunnel_protocols import TunnelProtocol, named
from re6st.core.wire.integers import pack_integer, unpack_integer

PORT = 326
RELAYED = 0x80
DATAGRAM_LIMIT = 8192
"""Two RSA-8192 blocks, or a certificate; longer datagrams are nobody's."""
MAC_LENGTH = 20


class Code(IntEnum):
    """First byte of a message (wire.md 6.5)."""

    VERSION = 0
    ADDRESS = 1
    ASK_CLOSE = 2
    ALLOW_CLOSE = 3
    SOFTWARE = 4
    TOPOLOGY = 5
    LOG = 7
    OFFER = 120
    """Ours only (seals.py). The deployed software acknowledges codes that it does not know."""
    WIREGUARD = 121
    """Ours only, to peers that announced it (wireguard.py)."""
    LINES = 122
    """Ours only, to peers that announced it (lines.py)."""
    REGION = 123
    """Ours only, in networks of regions (region_questions.py)."""
    FURTHER_LINKS = 124
    """Ours only, to peers that announced it (further_links.py)."""


class WireError(ValueError):
    """A datagram or an address list that is not of the protocol, or not from whom it claims."""


# --- address lists (wire.md 6.6) ---

_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,252}|::[A-Fa-f0-9.:]{0,39}", re.ASCII)
ADDRESSES_LIMIT = 32
ADDRESS_TEXT_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node's OpenVPN server listens. `host` is an address or a name."""

    host: str
    port: int
    protocol: TunnelProtocol
    country: str = ""

    def __str__(self) -> str:
        return ",".join((self.host, str(self.port), self.protocol, *([self.country] if self.country else ())))


def parse_addresses(text: str, *, anywhere: bool = False) -> tuple[Endpoint, ...]:
    """The endpoints of an address list; entries that are none are left out, so this raises nothing.

    Nor is there a server of somebody else at a loopback, link-local or multicast address (core/machine/hosts.py);
    `anywhere`: the list is the user's own.
    """
    endpoints = []
    for entry in text[:ADDRESS_TEXT_LIMIT].split(";")[:ADDRESSES_LIMIT]:
        fields = entry.split(",")
        protocol = named(fields[2]) if len(fields) > 2 else None
        if protocol is None or not _HOST.fullmatch(fields[0]):
            continue
        if not (anywhere or is_usable_host(fields[0])):
            continue
        port, country = fields[1], fields[3] if len(fields) > 3 else ""
        if not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
            continue
        if not (country.isascii() and country.isalnum() and len(country) < 9):
            country = ""
        endpoints.append(Endpoint(fields[0], int(port), protocol, country))
    return tuple(dict.fromkeys(endpoints))


def outside(endpoints: Iterable[Endpoint], network: IPv6Network | None) -> tuple[Endpoint, ...]:
    """The endpoints that are not inside re6st's own network: a tunnel there would be one in a tunnel."""
    return tuple(endpoint for endpoint in endpoints if network is None or not _is_inside(endpoint.host, network))


def _is_inside(host: str, network: IPv6Network) -> bool:
    try:
        return ip_address(host) in network
    except ValueError:  # a name
        return False


def format_addresses(endpoints: Iterable[Endpoint]) -> str:
    """The inverse of `parse_addresses`."""
    return ";".join(map(str, endpoints))


# --- datagrams (wire.md 6.1) ---


@dataclass(frozen=True, slots=True)
class Hello0:
    """A certificate, and the fingerprint of the receiver's if the sender knows it. `protocol` is None in type 0."""

    certificate: bytes
    fingerprint: bytes | None = None
    protocol: int | None = None


@dataclass(frozen=True, slots=True)
class Hello:
    """A secret encrypted to the receiver, signed by the sender."""

    ciphertext: bytes
    signature: bytes
    protocol: int | None


@dataclass(frozen=True, slots=True)
class Data:
    number: int
    payload: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """A message of a sealed session (seals.py)."""

    number: int
    data: bytes


SEALED = 1 << 31
"""In the number of a sealed message. Numbers of others, one for each message of a session, never get there."""


def encode_hello0(packet: Hello0) -> bytes:
    if packet.fingerprint is None:
        return bytes(4) + packet.certificate
    protocol = b"" if packet.protocol is None else pack_integer(packet.protocol)
    return b"\0\0\0\1" + protocol + packet.fingerprint + packet.certificate


def encode_hello(packet: Hello) -> bytes:
    protocol = b"" if packet.protocol is None else pack_integer(packet.protocol)
    return b"\0\0\0\2" + protocol + packet.ciphertext + packet.signature


def encode_data(number: int, payload: bytes, secret: bytes) -> bytes:
    message = number.to_bytes(4) + payload
    return message + hmac.digest(secret, message, "sha1")


def check_data(packet: Data, secret: bytes) -> bool:
    """Whether the packet was made with this secret."""
    return hmac.compare_digest(packet.mac, hmac.digest(secret, packet.number.to_bytes(4) + packet.payload, "sha1"))


def decode(datagram: bytes, *, numbered: bool = True) -> Hello0 | Hello | Data | Sealed:
    """The packet in a datagram. Raises WireError.

    `numbered` False reads the handshake packets of protocol 0, which had no protocol number (wire.md 6.3, old format).
    """
    if not 4 < len(datagram) <= DATAGRAM_LIMIT:
        raise WireError(f"datagram of {len(datagram)} bytes")
    number, rest = int.from_bytes(datagram[:4]), datagram[4:]
    if number == 0:
        return Hello0(rest)
    if number & SEALED:
        return Sealed(number, rest)
    if number > 2:
        if len(rest) < MAC_LENGTH:
            raise WireError("data packet cut short")
        return Data(number, rest[:-MAC_LENGTH], rest[-MAC_LENGTH:])
    protocol: int | None = None
    if numbered:
        try:
            protocol, rest = unpack_integer(rest)
        except ValueError as error:
            raise WireError(str(error)) from None
    if number == 1:
        if len(rest) <= MAC_LENGTH:
            raise WireError("hello0 cut short")
        return Hello0(rest[MAC_LENGTH:], rest[:MAC_LENGTH], protocol)
    if len(rest) < 2 or len(rest) % 2:
        raise WireError("hello is not made of two halves")
    half = len(rest) // 2
    return Hello(rest[:half], rest[half:], protocol)
