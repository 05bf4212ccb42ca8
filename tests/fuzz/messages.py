"""Fuzzed: what nodes say to each other: datagrams on UDP port 326, and certificates, lists and routes in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from ipaddress import IPv6Network
from typing import cast

from cryptography.hazmat.primitives import serialization

from re6st import cert
from re6st.core.prefix import Prefix, PrefixError, address
from re6st.core.wire import datagrams, peer_crypto, sessions
from re6st.keys import pki
from re6st.registryd.mesh_view import parse_topology
from tests.fuzz.keys import Crypto
from tests.fuzz.target import Target, vector


@cache
def _identities() -> tuple[cert.Trust, list[cert.Identity]]:
    """The CA and the nodes of the vectors."""
    pki = vector("pki")
    trust = cert.Trust(cert.load_pem(pki["ca_crt"].encode()))
    nodes = [
        cert.Identity(trust, cert.load_pem(each["crt"].encode()), cert.load_private_key(each["key"].encode()))
        for each in pki["nodes"]
    ]
    return trust, nodes


def _split(data: bytes, most: int) -> Iterator[bytes]:
    """Several messages out of one input: each has two bytes of length before it."""
    for _ in range(most):
        if len(data) < 2:
            return
        length = int.from_bytes(data[:2])
        yield data[2 : 2 + length]
        data = data[2 + length :]


def join(*messages: bytes) -> bytes:
    """The inverse of `_split`."""
    return b"".join(len(each).to_bytes(2) + each for each in messages)


def datagram(data: bytes) -> None:
    for numbered in (True, False):
        with contextlib.suppress(datagrams.WireError):
            datagrams.decode(data, numbered=numbered)


def session(data: bytes) -> None:
    """A node is sent datagrams in a row, by two peers: its state stays one that it can work with."""
    network = IPv6Network("2001:db8:42::/48")
    secrets = iter(range(1, 1 << 20))
    state = sessions.Sessions(
        network,
        cast(peer_crypto.Crypto, Crypto(Prefix(1, 16))),
        10,
        b"\0",
        lambda: next(secrets).to_bytes(sessions.SECRET_LENGTH),
    )
    now = 100.0
    for message in _split(data, 24):
        now += (message[0] & 15) / 4 if message else 0
        peer = Prefix(2 + (message[0] >> 7 if message else 0), 16)
        try:
            outputs = state.receive((address(network, peer), datagrams.PORT), message[1:], now)
        except datagrams.WireError:
            continue
        for output in outputs:
            if isinstance(output, sessions.Message):
                state.answer(output, b"", now)
        state.retry(now)


def certificate(data: bytes) -> None:
    """A certificate that a stranger sends."""
    trust, _ = _identities()
    try:
        found = cert.load_der(data)
        cert.prefix_of_cert(found)
        cert.number_of_cert(found)
        cert.key_of_cert(found)
        trust.check_strict(found, pki.begin_of(found))
    except (cert.CertError, PrefixError, ValueError):
        pass


def request(data: bytes) -> None:
    """A certificate request (CSR) in PEM form."""
    with contextlib.suppress(cert.CertError):
        made = cert.load_request(data)
        cert.subject_for(made.subject, 3, Prefix(3, 16))


def addresses(data: bytes) -> None:
    found = datagrams.parse_addresses(data.decode("utf-8", "replace"))
    assert len(found) <= datagrams.ADDRESSES_LIMIT
    assert datagrams.parse_addresses(datagrams.format_addresses(found)) == found


def topology(data: bytes) -> None:
    parse_topology(data)


# --- what they take ---


def _session_seeds() -> tuple[bytes, ...]:
    other = Prefix(2, 16).value.to_bytes(2)
    own = Prefix(1, 16).value.to_bytes(2)
    secret = (1 << 19).to_bytes(sessions.SECRET_LENGTH)
    greeting = datagrams.encode_hello0(datagrams.Hello0(other))
    asked = datagrams.encode_hello0(datagrams.Hello0(other, own * 10, 10))
    hello = datagrams.encode_hello(datagrams.Hello(secret, secret, 10))
    said = [datagrams.encode_data(number, bytes([number % 6]), secret) for number in (3, 4, 5)]
    return (
        join(*(b"\1" + each for each in (greeting, hello, *said))),
        join(*(b"\1" + each for each in (asked, hello, said[0], said[0], asked))),
    )


def _request() -> bytes:
    return cert.new_request(_identities()[1][0].key).public_bytes(serialization.Encoding.PEM)


TARGETS = {
    "datagram": Target(datagram, tuple(bytes.fromhex(step["datagram"]) for step in vector("peer_session")["steps"])),
    "session": Target(session, _session_seeds()),
    "certificate": Target(certificate, tuple(cert.to_der(each.cert) for each in _identities()[1])),
    "request": Target(request, (_request(),)),
    "addresses": Target(addresses, (b"192.0.2.1,1194,udp;2001:db8::1,1194,tcp6,FR", b"host.example,1194,tcp")),
    "topology": Target(topology, (b"2 1/16 2/16 3/16", b"0")),
}
