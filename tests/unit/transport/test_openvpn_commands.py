"""OpenVPN's command lines (wire.md 8.1 to 8.3)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from re6st.core.tunnel_protocols import SERVED, TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.transport import openvpn
from re6st.transport.openvpn import client_command, server_command
from tests.unit.openvpn_play import ONE, A, made


def test_the_command_line_of_a_server() -> None:
    assert server_command(made(Path("/run/x")), "re6stnet-udp", 1194, TunnelProtocol.UDP, 20, Path("/var/dh.pem")) == [
        "/usr/sbin/openvpn",
        *("--dev-type", "tap", "--dev", "re6stnet-udp", "--persist-tun", "--persist-key"),
        *("--script-security", "1", "--management-hold", "--ping", "15"),
        *("--management", "/run/x/re6stnet-udp.sock", "unix"),
        *("--ca", "ca.crt", "--cert", "cert.crt", "--key", "cert.key"),
        *("--crl-verify", "/run/x/revoked", "dir", "--verb", "0"),
        *("--tun-mtu", "1348", "--mtu-disc", "yes", "--mtu-disc", "no"),
        *("--tls-server", "--mode", "server", "--dh", "/var/dh.pem"),
        *("--port", "1194", "--proto", "udp4", "--max-clients", "4096"),
        *("--management-client-auth", "--auth-user-pass-optional", "--hand-window", "30"),
        *("--ping-exit", "60", "--connect-freq-initial", "100000", "10", "--verb", "4"),
    ]


def test_a_server_may_serve_both_families_on_one_port() -> None:
    def protocol(name: TunnelProtocol, *, both: bool) -> str:
        command = server_command(made(Path("/run/x")), f"re6stnet-{name}", 1194, name, 20, None, both_families=both)
        return command[command.index("--proto") + 1]

    assert protocol(TunnelProtocol.TCP, both=True) == "tcp6-server", "OpenVPN binds :: for both"
    assert protocol(TunnelProtocol.TCP, both=False) == "tcp4-server"
    assert protocol(TunnelProtocol.UDP, both=True) == "udp4", "its packets have another size in each family"


def test_the_command_line_of_a_client() -> None:
    settings = made(Path("/run/x"), encrypt=False, log=Path("/log"))
    assert client_command(settings, "re6stnet3", A, ONE) == [
        "/usr/sbin/openvpn",
        *("--dev-type", "tap", "--dev", "re6stnet3", "--persist-tun", "--persist-key"),
        *("--script-security", "1", "--management-hold", "--ping", "15"),
        *("--management", "/run/x/re6stnet3.sock", "unix"),
        *("--ca", "ca.crt", "--cert", "cert.crt", "--key", "cert.key"),
        *("--crl-verify", "/run/x/revoked", "dir", "--verb", "3"),
        *("--cipher", "none", "--data-ciphers", "none:AES-256-GCM", "--data-ciphers-fallback", "none"),
        *("--socket-flags", "TCP_NODELAY"),
        *("--nobind", "--client", "--remote", "192.0.2.1", "1194", "tcp4", "--verify-x509-name", "1/16", "name"),
        *("--resolv-retry", "0", "--connect-retry", "1", "--connect-retry-max", "3", "--connect-timeout", "5"),
        *("--tls-exit", "--remap-usr1", "SIGTERM", "--management-up-down"),
        *("--ping-exit", "60", "--route-noexec", "--ifconfig-noexec", "--verb", "4"),
        *openvpn.pull_filters(),
    ]


def test_packets_of_a_client_are_marked_for_its_uplink() -> None:
    """In decimal: OpenVPN reads no other numbers."""
    settings = made(Path("/run/x"))
    marked = client_command(settings, "re6stnet3", A, ONE, mark=0x20)
    assert marked[marked.index("--mark") + 1] == "32"
    assert "--mark" not in client_command(settings, "re6stnet3", A, ONE)


def obeyed(pushed: str, extra: tuple[str, ...] = ()) -> bool:
    """Whether a client takes an option from its server: the first filter that matches says so (openvpn(8))."""
    command = client_command(replace(made(Path("/run/x")), extra=extra), "re6stnet3", A, ONE)
    filters = [command[place + 1 : place + 3] for place, word in enumerate(command) if word == "--pull-filter"]
    return next(action == "accept" for action, start in filters if pushed.startswith(start))


@pytest.mark.parametrize(
    "pushed",
    [
        "setenv-safe external_ip 192.0.2.7",
        "setenv-safe twin 192.0.2.8",
        *("ping 15", "ping-exit 60", "peer-id 0", "cipher AES-256-GCM", "tun-mtu 1500"),
        *("key-derivation tls-ekm", "protocol-flags cc-exit tls-ekm dyn-tls-crypt", "push-continuation 2"),
    ],
)
def test_a_client_takes_from_a_server_what_the_tunnel_needs(pushed: str) -> None:
    assert obeyed(pushed)


@pytest.mark.parametrize(
    "pushed",
    [
        *("route 8.8.8.0 255.255.255.0", "route-ipv6 2000::/3", "redirect-gateway def1", "route-gateway 10.9.0.1"),
        *("ifconfig 10.9.0.2 255.255.255.0", "ifconfig-ipv6 2001:db8::1/64 2001:db8::2", "topology subnet"),
        *("dhcp-option DNS 192.0.2.1", "block-ipv6", "setenv-safe external_ipv6 x", "setenv x y"),
        *("inactive 1", "ping-restart 9", "compress lz4", "comp-lzo yes", "auth-token x", "echo x", "verb 11"),
        *("sndbuf 1", "socket-flags TCP_NODELAY", "persist-tun", "shaper 100", "explicit-exit-notify 3", "what-comes"),
    ],
)
def test_a_client_obeys_a_server_in_nothing_else(pushed: str) -> None:
    assert not obeyed(pushed)


def test_the_user_may_have_more_or_less_of_it_obeyed() -> None:
    extra = ("--pull-filter", "accept", "route 10.", "--pull-filter", "ignore", "tun-mtu ")
    assert obeyed("route 10.1.0.0 255.255.0.0", extra)
    assert not obeyed("route 8.8.8.0 255.255.255.0", extra)
    assert not obeyed("tun-mtu 1400", extra)


def test_a_given_server_may_be_any_node_of_the_network() -> None:
    settings = made(Path("/run/x"))
    named, any_node = (client_command(settings, "re6stnet", peer, ONE) for peer in (A, None))
    place = named.index("--verify-x509-name")
    assert any_node == named[:place] + named[place + 3 :]


@pytest.mark.parametrize(
    ("protocol", "encrypt", "mtu"),
    [
        (TunnelProtocol.UDP, True, "1348"),
        (TunnelProtocol.UDP4, True, "1348"),
        (TunnelProtocol.UDP, False, "1372"),
        (TunnelProtocol.UDP6, True, "1366"),
        (TunnelProtocol.UDP6, False, "1390"),
        (TunnelProtocol.TCP, True, None),
        (TunnelProtocol.TCP6, False, None),
    ],
)
def test_both_sides_agree_on_the_mtu(protocol: TunnelProtocol, encrypt: bool, mtu: str | None) -> None:
    settings = made(Path("/r"), encrypt=encrypt)
    client = client_command(settings, "x", A, Endpoint("h", 1, protocol))
    commands = [client]
    if protocol in SERVED:
        commands.append(server_command(settings, "x", 1, protocol, 1, None))
    for command in commands:
        assert ("--tun-mtu" in command) == (mtu is not None) == ("--mtu-disc" in command)
        assert mtu is None or command[command.index("--tun-mtu") + 1] == mtu
        assert ("--cipher" in command) == (not encrypt)


def test_over_udp_the_last_word_is_that_packets_may_be_fragmented() -> None:
    for protocol in (TunnelProtocol.UDP, TunnelProtocol.UDP4, TunnelProtocol.UDP6):
        commands = [client_command(made(Path("/r")), "x", A, Endpoint("h", 1, protocol))]
        if protocol in SERVED:
            commands.append(server_command(made(Path("/r")), "x", 1, protocol, 1, None))
        for command in commands:
            said = [value for option, value in pairwise(command) if option == "--mtu-disc"]
            assert said[-1] == "no"
    assert "--mtu-disc" not in client_command(made(Path("/r")), "x", A, Endpoint("h", 1, TunnelProtocol.TCP))


def test_protocols_are_named_as_openvpn_names_them() -> None:
    settings = made(Path("/r"))

    def proto(command: list[str], option: str, place: int) -> str:
        return command[command.index(option) + place]

    assert [proto(client_command(settings, "x", A, Endpoint("h", 1, p)), "--remote", 3) for p in TunnelProtocol] == [
        "udp4",
        "tcp4",
        "udp4",
        "tcp4",
        "udp6",
        "tcp6",
    ]
    servers = {p: proto(server_command(settings, "x", 1, p, 1, None), "--proto", 1) for p in SERVED}
    assert servers == {"udp": "udp4", "tcp": "tcp4-server", "udp6": "udp6", "tcp6": "tcp6-server"}
    assert proto(server_command(settings, "x", 1, TunnelProtocol.TCP, 1, None), "--dh", 1) == "none"
