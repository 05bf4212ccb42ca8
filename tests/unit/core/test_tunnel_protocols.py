"""A protocol of a tunnel: its fields, and its names, which others tell us and are told again."""

from __future__ import annotations

import json

import pytest

from re6st.core.tunnel_protocols import SERVED, Transport, TunnelProtocol, named
from re6st.core.wire.datagrams import format_addresses, parse_addresses


@pytest.mark.parametrize(
    ("name", "transport", "family", "served"),
    [
        ("udp", Transport.UDP, 4, "udp"),
        ("udp4", Transport.UDP, 4, "udp"),
        ("tcp", Transport.TCP, 4, "tcp"),
        ("tcp4", Transport.TCP, 4, "tcp"),
        ("udp6", Transport.UDP, 6, "udp6"),
        ("tcp6", Transport.TCP, 6, "tcp6"),
    ],
)
def test_a_name_has_a_transport_a_family_and_a_server(
    name: str, transport: Transport, family: int, served: str
) -> None:
    protocol = TunnelProtocol(name)
    assert (protocol.transport, protocol.family, protocol.served) == (transport, family, served)
    assert protocol.served in SERVED
    assert parse_addresses(f"192.0.2.1,1194,{name}")[0].protocol is protocol


@pytest.mark.parametrize("protocol", TunnelProtocol)
def test_who_tells_a_name_is_told_the_same_again(protocol: TunnelProtocol) -> None:
    told = f"192.0.2.1,1194,{protocol}"
    assert format_addresses(parse_addresses(told)) == told
    assert json.dumps({"protocol": protocol}) == f'{{"protocol": "{protocol.value}"}}'


@pytest.mark.parametrize("text", ["", "UDP", "udp5", "tcp4-server", "wireguard", " udp"])
def test_what_is_no_protocol_is_none(text: str) -> None:
    assert named(text) is None
    assert parse_addresses(f"192.0.2.1,1194,{text}") == ()
