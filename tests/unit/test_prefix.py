from __future__ import annotations

import random
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from re6st.core.prefix import (
    MAX_LENGTH,
    Prefix,
    PrefixError,
    address,
    address_bits,
    control_address,
    ipv4_address,
    ipv4_subnet,
    network_of_serial,
    prefix_of,
    serial_of_network,
    subnet,
)

BITS = st.text("01", max_size=MAX_LENGTH)


@st.composite
def networks(draw: st.DrawFn, longest: int = MAX_LENGTH) -> IPv6Network:
    length = draw(st.integers(1, longest))
    value = draw(st.integers(0, (1 << length) - 1))
    return IPv6Network((value << MAX_LENGTH - length, length))


@st.composite
def places(draw: st.DrawFn) -> tuple[IPv6Network, Prefix]:
    """A network and a prefix that fits into it."""
    network = draw(networks(MAX_LENGTH - 1))
    return network, Prefix.from_bits(draw(st.text("01", min_size=1, max_size=MAX_LENGTH - network.prefixlen)))


def test_addressing_vectors(vector: Callable[[str], Any]) -> None:
    entries = vector("addressing")
    assert len(entries) > 20
    for entry in entries:
        network, prefix = IPv6Network(entry["network"]), Prefix.from_cn(entry["cn"])
        assert serial_of_network(network) == int(entry["ca_serial"], 16)
        assert network_of_serial(int(entry["ca_serial"], 16)) == network
        assert prefix.bits == entry["prefix"]
        assert Prefix.from_bits(entry["prefix"]).cn == entry["cn"]
        assert subnet(network, prefix) == IPv6Network(entry["subnet"])
        assert prefix_of(network, IPv6Network(entry["subnet"])) == prefix
        assert address(network, prefix) == IPv6Address(entry["address"])
        bits = address_bits(network, IPv6Address(entry["address"]))
        assert bits is not None
        assert prefix.contains(bits)


@given(BITS)
def test_bits_and_cn_round_trip(bits: str) -> None:
    prefix = Prefix.from_bits(bits)
    assert prefix.bits == bits
    assert Prefix.from_cn(prefix.cn) == prefix
    assert prefix.length == len(bits)


def test_length_matters() -> None:
    assert Prefix.from_bits("1") != Prefix.from_bits("01")
    assert Prefix.from_cn("0/16") != Prefix.from_cn("0/15")


@given(st.lists(BITS))
def test_prefixes_sort_as_their_bit_strings(many: list[str]) -> None:
    assert [p.bits for p in sorted(map(Prefix.from_bits, many))] == sorted(many)


@given(BITS, BITS)
def test_contains_is_starts_with(one: str, other: str) -> None:
    assert Prefix.from_bits(one).contains(Prefix.from_bits(other)) == other.startswith(one)
    assert Prefix.from_bits(one).contains(Prefix.from_bits((one + other)[:MAX_LENGTH]))


@given(st.text("01", min_size=1, max_size=MAX_LENGTH - 1))
def test_tree(bits: str) -> None:
    prefix = Prefix.from_bits(bits)
    assert [prefix.child(0).bits, prefix.child(1).bits] == [bits + "0", bits + "1"]
    assert prefix.child(0).parent == prefix.child(1).parent == prefix
    assert prefix.child(0).sibling == prefix.child(1)
    assert prefix.sibling.sibling == prefix


@given(networks())
def test_network_serial_round_trip(network: IPv6Network) -> None:
    assert network_of_serial(serial_of_network(network)) == network


@given(places())
def test_subnet_holds_its_addresses(place: tuple[IPv6Network, Prefix]) -> None:
    network, prefix = place
    net = subnet(network, prefix)
    assert net.subnet_of(network)
    assert net.prefixlen == network.prefixlen + prefix.length
    assert prefix_of(network, net) == prefix
    assert control_address(network, prefix) == net.network_address
    assert address(network, prefix) in net
    assert int(address(network, prefix)) & 1 or net.prefixlen == MAX_LENGTH
    bits = address_bits(network, address(network, prefix))
    assert bits is not None
    assert prefix.contains(bits)


def test_outside_the_network() -> None:
    network = IPv6Network("2001:db8:42::/48")
    assert address_bits(network, IPv6Address("2001:db8:43::1")) is None
    assert prefix_of(network, IPv6Network("2001:db8::/32")) is None
    assert prefix_of(network, network) is None
    with pytest.raises(PrefixError):
        subnet(network, Prefix(0, 81))


@pytest.mark.parametrize(
    "cn",
    [
        *("", "/", "1", "1/", "/1", "2/1", "65536/16", "-1/16", "+1/16", "01/16", "1/016", "0/129", "1/16/1", " 1/16"),
        *("1/16\n", "1_0/16", "١/16", "1.0/16", "0x1/16", f"{1 << 128}/128", "9" * 5000 + "/128"),
    ],
)
def test_refuses_a_bad_cn(cn: str) -> None:
    with pytest.raises(PrefixError) as error:
        Prefix.from_cn(cn)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("bits", ["2", "0 1", "0b1", "٠", "0\n", "1" * 129, "-1", "1_1"])
def test_refuses_bad_bits(bits: str) -> None:
    with pytest.raises(PrefixError):
        Prefix.from_bits(bits)


@pytest.mark.parametrize("serial", [0, 1, -5, 1 << 129, 1 << 4096])
def test_refuses_a_ca_serial_without_network(serial: int) -> None:
    with pytest.raises(PrefixError):
        network_of_serial(serial)


def test_random_text_raises_only_its_own_error() -> None:
    chance = random.Random(1)
    alphabet = "0123456789/01 -\n"
    for _ in range(50_000):
        text = "".join(chance.choices(alphabet, k=chance.randrange(20)))
        for read in (Prefix.from_cn, Prefix.from_bits):
            try:
                prefix = read(text)
            except PrefixError:
                continue
            assert text in (prefix.cn, prefix.bits)


def test_ipv4_subnets() -> None:
    network = IPv4Network("10.42.0.0/16")
    assert ipv4_subnet(network, 8, 3) == IPv4Network("10.42.3.0/24")
    assert ipv4_subnet(network, 8, 255) == IPv4Network("10.42.255.0/24")
    assert ipv4_subnet(network, 8, 256) is None
    assert ipv4_subnet(network, 17, 3) is None
    assert ipv4_subnet(IPv4Network("10.0.0.0/24"), 9, 0) is None
    assert ipv4_subnet(network, 16, 5) == IPv4Network("10.42.0.5/32")
    assert str(ipv4_address(IPv4Network("10.42.3.0/24"))) == "10.42.3.1"
    assert str(ipv4_address(IPv4Network("10.42.3.4/30"))) == "10.42.3.5"
    assert str(ipv4_address(IPv4Network("10.42.3.4/31"))) == "10.42.3.4"
    assert str(ipv4_address(IPv4Network("10.42.3.4/32"))) == "10.42.3.4"


@given(st.integers(0, 32), st.integers(-1, 33), st.integers(-1, 1 << 17))
def test_ipv4_subnets_lie_inside_and_apart(length: int, extra: int, number: int) -> None:
    network = IPv4Network((0, length))
    first, second = ipv4_subnet(network, extra, number), ipv4_subnet(network, extra, number + 1)
    if first is not None:
        assert first.subnet_of(network)
        assert ipv4_address(first) in first
        assert second is None or not first.overlaps(second)
