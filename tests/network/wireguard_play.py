"""Two WireGuard interfaces in the network namespace that this runs in, by wireguard-go: `PROGRAM` is its only argument.

They carry packets, get other keys, are gone on with, and leave nothing behind; or an assertion says what is wrong.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from re6st.core.transport.wireguard_uapi import LinkConfig, LinkState
from re6st.linux.rtnetlink import Netlink
from re6st.linux.wireguard import Device, bring_up
from re6st.linux.wireguard_go import SOCKETS, WireGuardGo

PATIENCE = 20.0
MTU, HEADERS = 1420, 48
PORTS = 51820, 51821
HOME = IPv4Address("127.0.0.1")


@dataclass
class Keys:
    secret: bytes
    public: bytes

    @classmethod
    def make(cls) -> Keys:
        key = X25519PrivateKey.generate()
        secret = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return cls(secret, key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


async def until(device: Device, condition: Callable[[LinkState], bool]) -> LinkState:
    async with asyncio.timeout(PATIENCE):
        while not condition(state := await device.state()):
            await asyncio.sleep(0.02)
    return state


async def packet(sender: tuple[str, str], receiver: tuple[str, str], size: int) -> None:
    """A UDP packet of this size from an address on one interface to an address on the other one."""
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        one, two = (stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) for _ in range(2))
        for own, (address, interface) in ((one, sender), (two, receiver)):
            own.setblocking(False)
            own.bind((address, 7000, 0, socket.if_nametoindex(interface)))
        async with asyncio.timeout(PATIENCE):
            await loop.sock_sendto(one, bytes(size), (receiver[0], 7000, 0, socket.if_nametoindex(sender[1])))
            data, source = await loop.sock_recvfrom(two, 65536)
    assert (len(data), source[0].partition("%")[0]) == (size, sender[0])


async def play(program: str) -> None:
    netlink = Netlink()
    netlink.set_link(socket.if_nametoindex("lo"), up=True)
    made = WireGuardGo(netlink, program)
    client, server = [await made.make(name) for name in ("re6stnet1", "re6stnet2")]
    here, there = ("fe80::1", "re6stnet1"), ("fe80::2", "re6stnet2")
    try:
        for address, name in (here, there):
            bring_up(netlink, name, IPv6Address(address), MTU)
        ours, theirs = Keys.make(), Keys.make()
        dials = LinkConfig(ours.secret, PORTS[0], theirs.public, (HOME, PORTS[1]), keepalive=25)
        await server.configure(LinkConfig(theirs.secret, PORTS[1], ours.public))
        began = asyncio.get_running_loop().time()
        await client.configure(dials)
        await until(client, lambda state: state.handshake is not None)
        state = await until(server, lambda state: state.handshake is not None)
        print(f"first handshake after {asyncio.get_running_loop().time() - began:.3f} s")
        assert state.endpoint == (HOME, PORTS[0]), "the server learns where the client is"
        for size in (1, MTU - HEADERS):
            await packet(here, there, size)
            await packet(there, here, size)
        assert (await server.state()).received > MTU

        # Again, and with other keys at both ends: the server knows from before where the client is.
        await client.configure(dials)
        await packet(here, there, 100)
        ours, theirs = Keys.make(), Keys.make()
        at = (await server.state()).endpoint
        await server.configure(LinkConfig(theirs.secret, PORTS[1], ours.public, at))
        await client.configure(replace(dials, secret=ours.secret, peer=theirs.public))
        await packet(here, there, 100)
        await packet(there, here, 100)
        assert (await client.state()).peer == theirs.public

        found = made.found("re6stnet2", server.process)
        assert (await found.state()).port == PORTS[1]
    finally:
        await client.remove()
        await server.remove()
    async with asyncio.timeout(PATIENCE):
        while {"re6stnet1", "re6stnet2"} & {link.name for link in netlink.links()}:
            await asyncio.sleep(0.02)
    assert not any((SOCKETS / f"{device.process[1]}.sock").exists() for device in (client, server))


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1]))
