"""Names and addresses that are replaced: all of them, each by the same, and nothing else."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest

from re6st.view.pseudonyms import Pseudonyms

NETWORK = IPv6Network("2001:db8:42::/48")
NAMES = {"re6st.example.com": "registry-host", "CN=Example mesh, O=us": "CA", "mars": "this-host"}


@pytest.fixture
def pseudonyms() -> Pseudonyms:
    found = Pseudonyms(NETWORK, NAMES)
    found.learn("120/16")
    found.learn("4/16")
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tunnel to 4/16 is up", "tunnel to node-2 is up"),
        ('"cn": "120/16", "peer": "9/16"', '"cn": "node-1", "peer": "node-3"'),
        ("2001:db8:42:4::1 2001:db8:42:4::/64", "node-2-address node-2-subnet"),
        ("2001:db8:42:78::1: No route to host", "node-1-address: No route to host"),
        ("2001:db8:42:4::77", "node-2-other-1"),
        ("2001:db8:42:9::1 2001:db8:42:9::/64", "inside-1 inside-2/64"),
        ("network 2001:db8:42::/48", "network network/48"),
        ("alice@example.org, Alice@example.org", "email-1, email-1"),
        ("bob@localhost", "email-1"),
        ("198.51.100.7:1194 8.8.8.8 8.8.8.8.", "ipv4-private-1:1194 ipv4-1 ipv4-1."),
        ("10.42.0.0/16", "ipv4-private-1/16"),
        ("[2a00::1]:1194/tcp6", "[ipv6-1]:1194/tcp6"),
        ("fe80::1%eth0", "ipv6-link-1%eth0"),
        ("link/ether 02:42:ac:11:00:02 brd", "link/ether mac-1 brd"),
        ("sha256:" + "3f" * 32, "sha256:digest-1"),
        ("http://re6st.example.com:8000/ RE6ST.example.com", "http://registry-host:8000/ registry-host"),
        ("CN=Example mesh, O=us", "CA"),
        ("mars marsh on-mars", "this-host marsh on-mars"),
    ],
)
def test_what_is_replaced(text: str, expected: str, pseudonyms: Pseudonyms) -> None:
    assert pseudonyms.apply(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T17:02:11Z INFO re6st.node: up 3 d, 1194/udp, 12:34:56, babeld 1.12.1, HTTP/1.1 200",
        "127.0.0.1 ::1 :: 0.0.0.0 255.255.255.255",
        "999.1.1.1 1:2:3 reach ffff 5/200 77777777777777777777/16",
        "http://there/1/2 name@ @file",
    ],
)
def test_what_is_not(text: str, pseudonyms: Pseudonyms) -> None:
    assert pseudonyms.apply(text) == text


def test_the_same_is_replaced_by_the_same(pseudonyms: Pseudonyms) -> None:
    first = pseudonyms.apply("8.8.8.8 9/16 a@b.c")
    assert pseudonyms.apply("a@b.c 9/16 8.8.8.8") == " ".join(reversed(first.split()))


def test_no_address_is_left_in_any_text(pseudonyms: Pseudonyms) -> None:
    chance = random.Random(7)
    for _ in range(300):
        four = IPv4Address(0x0B000000 + chance.getrandbits(28))
        six = IPv6Address(chance.getrandbits(128) & ~(0xFFFF << chance.randrange(0, 112)))
        before, behind = chance.choice([" ", "(", '"', "=", "to "]), chance.choice([" ", ")", '"', ",", ": x", "/64"])
        text = f"{before}{six}{behind} {before}{four}{behind.replace('/64', '/24')}"
        shown = pseudonyms.apply(text)
        assert str(six) not in shown, text
        assert str(four) not in shown, text


def test_without_a_network() -> None:
    assert Pseudonyms().apply("2001:db8:42:4::1 is 4/16") == "ipv6-private-1 is node-1"
