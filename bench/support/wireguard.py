"""WireGuard alone: a link between each two neighbours of a chain, and routes from end to end.

wireguard-go is told by its own socket what to do, the kernel's by wg(8).
"""

from __future__ import annotations

import base64
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
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
        lines = [f"address add {own[host]}/128 dev lo nodad"]
        for other_position, other in enumerate(chain.hosts):
            if other is not host:
                step = 1 if other_position > position else -1
                next_hop = chain.hosts[position + step]
                lines.append(f"route add {own[other]} {ways[host, next_hop]} src {own[host]}")
        host.namespace.ip(*lines)
    return own


@dataclass(frozen=True)
class End:
    """One end of a link: its interface and its key, and the other's key and host."""

    host: Host
    interface: str
    key: X25519PrivateKey
    other: Host
    its_key: X25519PrivateKey
    port: int

    @property
    def settings(self) -> dict[str, str]:
        """As wireguard-go's socket names them."""
        return {
            "private_key": self.key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()).hex(),
            "listen_port": str(self.port),
            "public_key": self.its_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
            "endpoint": f"{self.other.address}:{self.port}",
            "allowed_ip": "::/0",
        }


def link(make: Callable[[End], None], first: Host, second: Host, port: int) -> tuple[str, str]:
    """A link between two hosts, whose ends `make` makes: the names of its interfaces.

    Raises BedError, AssertionError.
    """
    keys = X25519PrivateKey.generate(), X25519PrivateKey.generate()
    names = f"r6b{secrets.token_hex(4)}", f"r6b{secrets.token_hex(4)}"
    for end in (
        End(first, names[0], keys[0], second, keys[1], port),
        End(second, names[1], keys[1], first, keys[0], port),
    ):
        make(end)
        end.host.namespace.ip(f"link set {end.interface} mtu {MTU} up")
    return names


def by_program(program: Path, end: End) -> None:
    """An end that wireguard-go makes."""
    process = end.host.start([program, "--foreground", end.interface], "wireguard-go.log")
    path = SOCKETS / f"{end.interface}.sock"
    there = lambda: path.exists() or process.poll() is not None  # noqa: E731
    wait_until(there, STARTS, f"wireguard-go on {end.host.name}", end.host.bed.tails)
    _ask(path, "set=1\n" + "".join(f"{key}={value}\n" for key, value in end.settings.items()) + "\n")


def by_kernel(tool: Path, end: End) -> None:
    """An end that the kernel makes; `tool` is wg(8)."""
    end.host.namespace.ip(f"link add {end.interface} type wireguard")
    settings = end.settings
    file = end.host.etc / f"{end.interface}.key"
    file.write_text(_base64(settings["private_key"]))
    own: list[str | Path] = ["private-key", file, "listen-port", settings["listen_port"]]
    peer = ["peer", _base64(settings["public_key"]), "endpoint", settings["endpoint"]]
    end.host.run([tool, "set", end.interface, *own, *peer, "allowed-ips", settings["allowed_ip"]])


def _base64(key: str) -> str:
    return base64.b64encode(bytes.fromhex(key)).decode()


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
