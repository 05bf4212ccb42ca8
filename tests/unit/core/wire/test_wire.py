from __future__ import annotations

import hmac
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st import cert
from re6st.core.machine.hosts import is_usable_host
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import (
    ADDRESS_TEXT_LIMIT,
    ADDRESSES_LIMIT,
    DATAGRAM_LIMIT,
    SEALED,
    Code,
    Data,
    Endpoint,
    Hello,
    Hello0,
    Sealed,
    WireError,
    check_data,
    decode,
    encode_data,
    encode_hello,
    encode_hello0,
    format_addresses,
    parse_addresses,
)
from re6st.core.wire.integers import LIMIT

SECRETS = st.binary(min_size=20, max_size=20)
PROTOCOL_NUMBERS = st.integers(0, LIMIT - 1)


def read(datagram: bytes) -> Hello0 | Hello | Data | Sealed:
    """Decode, and check that encoding gives the same bytes."""
    packet = decode(datagram)
    match packet:
        case Hello0():
            assert encode_hello0(packet) == datagram
        case Hello():
            assert encode_hello(packet) == datagram
        case Data():
            assert packet.number.to_bytes(4) + packet.payload + packet.mac == datagram
    return packet


def test_peer_session_vector(vector: Callable[[str], Any], nodes: dict[str, cert.Identity]) -> None:
    session = vector("peer_session")
    a, b = nodes[session["a"]], nodes[session["b"]]
    packets = [read(bytes.fromhex(step["datagram"])) for step in session["steps"]]
    assert [step["who"][0] for step in session["steps"]] == list("ABABABA")

    greeting, invitation, hello, *data = packets
    assert greeting == Hello0(a.der)
    assert invitation == Hello0(b.der, a.fingerprint, session["protocol"])
    assert isinstance(hello, Hello)
    assert hello.protocol == session["protocol"]
    secret = bytes.fromhex(session["steps"][2]["secret"])
    assert cert.verify(a.cert, hello.signature, hello.ciphertext)
    assert cert.decrypt(b.key, hello.ciphertext) == secret
    assert cert.sign(a.key, hello.ciphertext) == hello.signature

    assert len(data) == 4
    for packet, step, number in zip(data, session["steps"][3:], (3, 3, 4, 4), strict=True):
        assert isinstance(packet, Data)
        assert packet.payload == bytes.fromhex(step["payload"])
        assert packet.number == number
        assert check_data(packet, secret)
        assert not check_data(packet, secret[:-1] + bytes([secret[-1] ^ 1]))
        assert encode_data(number, packet.payload, secret) == bytes.fromhex(step["datagram"])
    version, request, answer, acknowledgement = (packet.payload for packet in data if isinstance(packet, Data))
    assert (version[0], request, acknowledgement) == (Code.VERSION, bytes([Code.ADDRESS]), b"")
    assert a.verify_version(version[1:2], version[2:])
    assert answer[0] == Code.ADDRESS
    text = answer[1:].decode()
    assert parse_addresses(text) == (
        Endpoint("10.9.0.2", 1194, TunnelProtocol.TCP),
        Endpoint("10.9.0.2", 1194, TunnelProtocol.UDP),
    )
    assert format_addresses(parse_addresses(text)) == text


@given(st.binary(min_size=1, max_size=800))
def test_hello0_round_trip(certificate: bytes) -> None:
    assert read(encode_hello0(Hello0(certificate))) == Hello0(certificate)


@given(st.binary(min_size=1, max_size=800), st.binary(min_size=20, max_size=20), PROTOCOL_NUMBERS)
def test_hello0_with_fingerprint_round_trip(certificate: bytes, fingerprint: bytes, protocol: int) -> None:
    packet = Hello0(certificate, fingerprint, protocol)
    assert read(encode_hello0(packet)) == packet
    old = Hello0(certificate, fingerprint)
    assert decode(encode_hello0(old), numbered=False) == old


@given(st.integers(1, 600).flatmap(lambda n: st.tuples(*[st.binary(min_size=n, max_size=n)] * 2)), PROTOCOL_NUMBERS)
def test_hello_round_trip(halves: tuple[bytes, bytes], protocol: int) -> None:
    packet = Hello(*halves, protocol)
    assert read(encode_hello(packet)) == packet
    old = Hello(*halves, None)
    assert decode(encode_hello(old), numbered=False) == old


@given(st.integers(3, SEALED - 1), st.binary(max_size=600), SECRETS, SECRETS)
def test_data_round_trip(number: int, payload: bytes, secret: bytes, other: bytes) -> None:
    datagram = encode_data(number, payload, secret)
    packet = read(datagram)
    assert isinstance(packet, Data)
    assert (packet.number, packet.payload) == (number, payload)
    assert packet.mac == hmac.digest(secret, datagram[:-20], "sha1")
    assert check_data(packet, secret)
    assert check_data(packet, other) == (secret == other)


@given(st.binary(max_size=60), SECRETS, st.data())
def test_data_that_was_touched_is_not_believed(payload: bytes, secret: bytes, data: st.DataObject) -> None:
    datagram = bytearray(encode_data(7, payload, secret))
    datagram[data.draw(st.integers(0, len(datagram) - 1))] ^= data.draw(st.integers(1, 255))
    packet = decode(bytes(datagram))
    assert not isinstance(packet, Data) or not check_data(packet, secret)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        bytes(3),
        bytes(4),
        b"\0\0\0\3",
        b"\0\0\0\3" + bytes(19),
        b"\0\0\0\1\x0a" + bytes(20),
        b"\0\0\0\1\xff",
        b"\0\0\0\2\x0a",
        b"\0\0\0\2\x0a" + bytes(511),
        bytes(DATAGRAM_LIMIT + 1),
    ],
    ids=range(10),
)
def test_refuses_what_is_no_datagram_of_ours(datagram: bytes) -> None:
    with pytest.raises(WireError):
        decode(datagram)


def test_a_million_random_bytes() -> None:
    chance = random.Random(5)
    for _ in range(2000):
        kind = chance.choice([b"", *(n.to_bytes(4) for n in range(5))])
        datagram = kind + chance.randbytes(chance.randrange(1000))
        for numbered in (True, False):
            try:
                packet = decode(datagram, numbered=numbered)
            except WireError:
                continue
            assert not isinstance(packet, Data) or not check_data(packet, b"s" * 20)
        for endpoint in parse_addresses(datagram.decode("latin-1")):
            assert 0 < endpoint.port < 65536


# --- address lists ---

HOSTS = (
    st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(str)
    | st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}(\.[a-z]{2,9}){0,3}", fullmatch=True)
)
ENDPOINTS = st.builds(
    Endpoint,
    host=HOSTS.filter(is_usable_host),
    port=st.integers(1, 65535),
    protocol=st.sampled_from(TunnelProtocol),
    country=st.sampled_from(["", "FR", "JP"]),
)


@given(st.lists(ENDPOINTS, unique=True, max_size=20))
def test_address_list_round_trip(endpoints: list[Endpoint]) -> None:
    assert parse_addresses(format_addresses(endpoints)) == tuple(endpoints)


@given(st.text("0123456789abcdefFR.:,;- tcpud6"))
def test_what_was_read_is_read_again(text: str) -> None:
    endpoints = parse_addresses(text)
    assert parse_addresses(format_addresses(endpoints)) == endpoints


def test_bad_entries_are_left_out_and_good_ones_kept() -> None:
    text = (
        "10.0.0.1,1194,tcp;;nonsense;,,;10.0.0.1,0,tcp;10.0.0.1,65536,tcp;10.0.0.1,-1,tcp;10.0.0.1,١,tcp;"
        "10.0.0.1,1,xyz;--up,1,tcp;a b,1,tcp;$(x),1,tcp;a'b,1,udp;"
        "/etc,1,tcp;10.0.0.1\n,1,tcp;2001:db8::1,1194,udp6,FR,more;"
        "::1,5,tcp6;peer.example.org,443,tcp4,F R;10.0.0.1,1194,tcp"
    )
    assert parse_addresses(text) == (
        Endpoint("10.0.0.1", 1194, TunnelProtocol.TCP),
        Endpoint("2001:db8::1", 1194, TunnelProtocol.UDP6, "FR"),
        Endpoint("peer.example.org", 443, TunnelProtocol.TCP4),
    )


def test_address_lists_are_bounded() -> None:
    many = ";".join(f"10.0.{n >> 8}.{n & 255},1194,tcp" for n in range(10_000))
    assert len(parse_addresses(many)) == ADDRESSES_LIMIT
    assert parse_addresses("x" * ADDRESS_TEXT_LIMIT + ",1,tcp") == ()
