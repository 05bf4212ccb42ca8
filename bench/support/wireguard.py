"""WireGuard alone, by wireguard-go: a link between each two neighbours of a chain, and routes from end to end.

The program is told by its own socket what to do, so that wg(8) is not needed.
"""

from __future__ import annotations

import secrets
import socket
from ipaddress import IPv6Address
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bench.support.chain import Chain
from testbed import BedError, Host, wait_until

SOCKETS = Path("/var/run/wireguard")
"""Of all namespaces of the machine: names of interfaces must differ."""
PORT = 51820
MTU = 1420
STARTS = 10.0
MOST_SAID = 65536


def addresses(chain: Chain) -> dict[Host, IPv6Address]:
    """The address of each host inside, one for all its links."""
    return {host: IPv6Address(f"fd02::{number:x}") for number, host in enumerate(chain.hosts, 1)}


def route(chain: Chain, ways: dict[tuple[Host, Host], str]) -> dict[Host, IPv6Address]:
    """Have the hosts forward along the chain; `ways` is by what one reaches its neighbour: an end of a route."""
    own = addresses(chain)
    for position, host in enumerate(chain.hosts):
        host.namespace.sysctl({"net/ipv6/conf/all/forwarding": 1})
        lines = [f"address add {own[host]}/128 dev lo"]
        for other_position, other in enumerate(chain.hosts):
            if other is not host:
                step = 1 if other_position > position else -1
                next_hop = chain.hosts[position + step]
                lines.append(f"route add {own[other]} {ways[host, next_hop]} src {own[host]}")
        host.namespace.ip(*lines)
    return own


def link(program: Path, first: Host, second: Host, port: int) -> tuple[str, str]:
    """A link between two hosts: the names of its interfaces. Raises BedError, AssertionError."""
    keys = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    names = f"r6b{secrets.token_hex(4)}", f"r6b{secrets.token_hex(4)}"
    for here, there, name, own, its in ((first, second, names[0], *keys), (second, first, names[1], *keys[::-1])):
        process = here.start([program, "--foreground", name], "wireguard-go.log")
        path = SOCKETS / f"{name}.sock"
        wait_until(
            lambda: path.exists() or process.poll() is not None,  # noqa: B023
            STARTS,
            f"wireguard-go on {here.name}",
            here.bed.tails,
        )
        request = {
            "private_key": own.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()).hex(),
            "listen_port": port,
            "public_key": its.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
            "endpoint": f"{there.address}:{port}",
            "allowed_ip": "::/0",
        }
        _ask(path, "set=1\n" + "".join(f"{key}={value}\n" for key, value in request.items()) + "\n")
        here.namespace.ip(f"link set {name} mtu {MTU} up")
    return names


def _ask(path: Path, request: str) -> None:
    with socket.socket(socket.AF_UNIX) as own:
        own.settimeout(STARTS)
        try:
            own.connect(str(path))
            own.sendall(request.encode())
            said = own.recv(MOST_SAID).decode(errors="replace")
        except OSError as error:
            raise BedError(f"wireguard-go: {path}: {error}") from None
    if "errno=0\n" not in said:
        raise BedError(f"wireguard-go: {path}: {said.strip()}")
