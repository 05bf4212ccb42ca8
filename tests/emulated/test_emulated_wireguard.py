"""linux/wireguard_kernel.py and the real thing: two hosts, and an interface of the kernel's WireGuard on each."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address

import pytest

from re6st.core.transport.wireguard_uapi import Address, LinkConfig, LinkState
from re6st.keys.wireguard import new_keys
from re6st.linux.rtnetlink import Netlink
from re6st.linux.wireguard import WireGuardError, bring_up
from re6st.linux.wireguard_kernel import KernelWireGuard
from testbed import Bed, wait_until
from testbed.host import Host

SOON = 60
"""Seconds, under emulation."""
NAME = "re6stnet1"
MTU = 1420


class End:
    """One end of a link, on a host."""

    def __init__(self, host: Host, port: int, address: str) -> None:
        self.host = host
        self.port = port
        self.address = IPv6Address(address)
        self.secret, self.public = new_keys()
        self.netlink = host.namespace.call(Netlink)
        self.wireguard = host.namespace.call(lambda: KernelWireGuard(self.netlink))
        self.device = asyncio.run(self.wireguard.make(NAME))

    def configure(self, peer: bytes, endpoint: tuple[Address, int] | None = None, keepalive: int = 0) -> None:
        config = LinkConfig(self.secret, self.port, peer, endpoint, keepalive)
        self.host.namespace.call(lambda: asyncio.run(self.device.configure(config)))

    def bring_up(self) -> None:
        self.host.namespace.call(lambda: bring_up(self.netlink, NAME, self.address, MTU))

    def state(self) -> LinkState:
        return asyncio.run(self.device.state())

    def reaches(self, other: End, size: int = 100) -> bool:
        """Whether packets of so many bytes, whole, go there and back."""
        ping = ["ping", "-6", "-n", "-q", "-c", "1", "-W", "2", "-M", "do", "-s", str(size - 48)]
        return self.host.run([*ping, f"{other.address}%{NAME}"], check=False).returncode == 0

    def close(self) -> None:
        asyncio.run(self.device.remove())
        self.wireguard.close()
        self.netlink.close()


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    with Bed() as bed:
        yield bed.host("client"), bed.host("server")


@pytest.fixture
def ends(hosts: tuple[Host, Host]) -> Iterator[tuple[End, End]]:
    client, server = End(hosts[0], 51001, "fe80::1"), End(hosts[1], 51002, "fe80::2")
    yield client, server
    client.close()
    server.close()


def where(end: End, version: int = 4) -> tuple[Address, int]:
    return ip_address(end.host.address if version == 4 else end.host.ipv6 or ""), end.port


def connect(client: End, server: End, version: int = 4, keepalive: int = 25) -> None:
    """As a node does: the server waits, the client dials."""
    server.configure(client.public)
    server.bring_up()
    client.bring_up()
    client.configure(server.public, where(server, version), keepalive)
    wait_until(lambda: client.state().handshake and server.state().handshake, SOON, "a handshake")


@pytest.mark.parametrize("version", [4, 6])
def test_a_client_that_dials_and_a_server_that_waits_have_a_link(ends: tuple[End, End], version: int) -> None:
    client, server = ends
    before = server.state()
    assert before == LinkState()
    connect(client, server, version)
    assert (client.state().port, client.state().peer) == (client.port, server.public)
    assert (server.state().port, server.state().peer) == (server.port, client.public)
    assert client.state().endpoint == where(server, version)
    assert server.state().endpoint == where(client, version), "nobody told it where the client is"
    received = server.state().received
    assert client.reaches(server, MTU)
    assert server.reaches(client, MTU)
    assert not client.reaches(server, MTU + 1)
    assert server.state().received >= received + 2 * MTU
    assert client.state().sent >= 2 * MTU
    index = client.host.namespace.call(lambda: socket.if_nametoindex(NAME))
    assert [each.address for each in client.netlink.addresses() if each.index == index] == [client.address]


def test_keys_are_changed_in_place(ends: tuple[End, End]) -> None:
    client, server = ends
    connect(client, server)
    first = server.state().handshake
    for each in ends:
        each.secret, each.public = new_keys()
    server.configure(client.public)
    assert server.state().handshake is None, "not with the new peer"
    assert not client.reaches(server), "with the old keys"
    client.configure(server.public, where(server), 25)
    wait_until(lambda: (server.state().handshake or 0) > (first or 0), SOON, "another handshake")
    assert client.reaches(server)


def test_no_packet_is_refused_while_keys_are_changed(ends: tuple[End, End]) -> None:
    """Programs would be told that nobody can be reached, for want of a key."""
    client, server = ends
    connect(client, server)
    refused = set[int]()
    done = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as own:
            while not done.is_set():
                try:
                    own.sendto(b"", (str(server.address), 7000, 0, socket.if_nametoindex(NAME)))
                except OSError as error:
                    refused.add(error.errno or 0)

    sending = [threading.Thread(target=lambda: client.host.namespace.call(send)) for _ in range(2)]
    for each in sending:
        each.start()
    for _ in range(30):
        client.configure(new_keys()[1], where(server), 25)
    done.set()
    for each in sending:
        each.join()
    assert refused == set()


def test_the_same_configuration_again_begins_another_handshake(ends: tuple[End, End]) -> None:
    client, server = ends
    connect(client, server)
    first = client.state().handshake or 0
    wait_until(lambda: client.state().received, SOON, "packets")
    client.configure(server.public, where(server), 25)
    wait_until(lambda: (client.state().handshake or 0) > first, SOON, "another handshake")
    assert client.reaches(server)


def test_a_server_follows_a_client_to_another_address(ends: tuple[End, End]) -> None:
    client, server = ends
    connect(client, server)
    old = client.host.address
    client.host.readdress("10.0.9.9")
    try:
        assert client.reaches(server)
        assert server.state().endpoint == (ip_address("10.0.9.9"), client.port)
    finally:
        client.host.readdress(old)


def test_a_port_that_somebody_has_is_an_error(ends: tuple[End, End]) -> None:
    client, server = ends
    with client.host.namespace.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taken:
        taken.bind(("", client.port))
        for _ in ("down", "up"):
            with pytest.raises(WireGuardError) as error:
                client.configure(server.public)
            assert error.value.errno == errno.EADDRINUSE
            assert client.state().peer == b"", "nothing was set"
            client.bring_up()
    client.configure(server.public)
    assert client.state().port == client.port


def test_a_port_of_another_link_is_an_error(ends: tuple[End, End]) -> None:
    client, server = ends
    client.configure(server.public)
    client.bring_up()
    other = asyncio.run(client.wireguard.make("re6stnet2"))
    try:
        config = LinkConfig(client.secret, client.port, server.public)
        with pytest.raises(WireGuardError) as error:
            client.host.namespace.call(lambda: asyncio.run(other.configure(config)))
        assert error.value.errno == errno.EADDRINUSE
    finally:
        asyncio.run(other.remove())


def test_the_next_daemon_goes_on_with_the_link(ends: tuple[End, End]) -> None:
    client, server = ends
    connect(client, server)
    client.wireguard.close()
    client.wireguard = client.host.namespace.call(lambda: KernelWireGuard(client.netlink))
    client.device = client.wireguard.found(NAME, None)
    assert (client.state().peer, client.state().port) == (server.public, client.port)
    assert server.reaches(client)


def test_what_is_no_wireguard_is_not_gone_on_with(ends: tuple[End, End]) -> None:
    client, _ = ends
    for name, process in (("eth0", None), ("nowhere", None), (NAME, (1, NAME))):
        with pytest.raises(WireGuardError) as error:
            client.wireguard.found(name, process)
        assert error.value.errno == errno.ENODEV


def test_a_name_that_is_taken_is_an_error(ends: tuple[End, End]) -> None:
    with pytest.raises(WireGuardError) as error:
        asyncio.run(ends[0].wireguard.make(NAME))
    assert error.value.errno == errno.EEXIST


def test_an_interface_is_removed_and_one_that_is_gone_is_an_error(ends: tuple[End, End]) -> None:
    client, server = ends
    asyncio.run(client.device.remove())
    assert NAME not in client.host.interfaces()
    with pytest.raises(WireGuardError) as error:
        client.state()
    assert error.value.errno == errno.ENODEV
    with pytest.raises(WireGuardError):
        client.configure(server.public)
    asyncio.run(client.device.remove())  # again, which is no error
