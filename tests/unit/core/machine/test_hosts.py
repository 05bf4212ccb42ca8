"""Where peers cannot have us send packets to."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import Any

import pytest

from re6st.core.machine.hosts import is_usable, is_usable_host
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint, parse_addresses
from re6st.noded.name_lookup import addresses_of

BAD = [
    "127.0.0.1",
    "127.255.0.9",
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "224.0.0.251",
    "239.1.1.1",
    "255.255.255.255",
    "240.0.0.1",
    "::",
    "::1",
    "fe80::1",
    "ff02::1",
    "ff0e::1",
    "fec0::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::127.0.0.1",
    "::8.8.8.8",
    "64:ff9b::127.0.0.1",
    "64:ff9b::169.254.169.254",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "2001:0:7f00:1::1",
]
GOOD = [
    "8.8.8.8",
    "10.0.0.1",
    "192.168.0.1",
    "172.16.0.1",
    "100.64.0.1",
    "192.0.2.1",
    "2600::1",
    "fd00::1",
    "2001:db8::1",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]


@pytest.mark.parametrize("text", BAD)
def test_no_server_is_at(text: str) -> None:
    assert not is_usable(ip_address(text))
    assert parse_addresses(f"{text},1194,udp;{text},1194,tcp6") == ()


@pytest.mark.parametrize("text", GOOD)
def test_a_server_can_be_at(text: str) -> None:
    assert is_usable(ip_address(text))
    assert parse_addresses(f"{text},1194,udp") == (Endpoint(text, 1194, TunnelProtocol.UDP),)


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "localhost.localdomain",
        "ip6-localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0x7f.1",
        "127.0.0.1.",
        "1.2.3.04",
        "256.1.1.1",
        "::1%lo",
        "1::2::3",
    ],
)
def test_a_name_that_means_this_machine_or_hides_a_number_is_none(name: str) -> None:
    assert not is_usable_host(name)
    assert parse_addresses(f"{name},1194,tcp") == ()


@pytest.mark.parametrize("name", ["example.org", "a.b.c", "node7", "1a.example", "example.0xyz"])
def test_names(name: str) -> None:
    assert is_usable_host(name)


def test_the_users_own_words_are_taken_as_they_are() -> None:
    assert parse_addresses("127.0.0.1,443,tcp", anywhere=True) == (Endpoint("127.0.0.1", 443, TunnelProtocol.TCP),)


def test_a_name_of_a_peer_is_looked_up_and_left_out_where_it_means_us(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"evil.example": ["127.0.0.1", "169.254.169.254"], "good.example": ["127.0.0.1", "192.0.2.9"]}

    async def look_up(host: str, port: int, **_: object) -> list[Any]:
        if host not in known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, 2, 17, "", (address, port)) for address in known[host]]

    async def run() -> tuple[Endpoint, ...]:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up)
        told = parse_addresses("evil.example,1194,udp;good.example,1194,tcp;gone.example,1,tcp;192.0.2.1,1194,udp")
        return await addresses_of(told)

    assert asyncio.run(run()) == (
        Endpoint("192.0.2.9", 1194, TunnelProtocol.TCP),
        Endpoint("192.0.2.1", 1194, TunnelProtocol.UDP),
    )
