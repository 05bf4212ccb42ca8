"""What wireguard-go is told, and tells, over its socket: lines of `key=value` (wireguard.com/xplatform).

Both ends of a link have one peer, by which all packets go: routes are babel's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

ANSWER_LIMIT = 1 << 16
"""Bytes of an answer; with one peer it has some 600."""
GET = b"get=1\n\n"
NETWORKS = "::/0", "0.0.0.0/0"
"""What a peer may send, and is sent."""


class UapiError(ValueError):
    """Lines that are no answer; or one that refuses, with its `errno`, which is 0 otherwise."""

    def __init__(self, text: str, errno: int = 0) -> None:
        super().__init__(text)
        self.errno = errno


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """What an interface has: our secret key and port, the peer's key, and where the peer is, if that is known."""

    secret: bytes = field(repr=False)
    port: int
    peer: bytes
    endpoint: tuple[Address, int] | None = None
    keepalive: int = 0
    """Seconds between packets for a NAT; 0: none."""
    mark: int | None = None
    """What packets to the peer are marked with; None: with what they were before."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """What it tells: when the last handshake was (Unix time), where the peer is, and bytes since the peer is known."""

    port: int = 0
    peer: bytes = b""
    handshake: float | None = None
    endpoint: tuple[Address, int] | None = None
    received: int = 0
    sent: int = 0


def request(config: LinkConfig) -> bytes:
    """What sets all of it: the peer is made anew, so that it begins a handshake at once if it is to be dialled."""
    lines = [
        "set=1",
        f"private_key={config.secret.hex()}",
        f"listen_port={config.port}",
        *([] if config.mark is None else [f"fwmark={config.mark}"]),
        "replace_peers=true",
        f"public_key={config.peer.hex()}",
    ]
    if config.endpoint is not None:
        lines.append(f"endpoint={endpoint_text(config.endpoint)}")
    lines += [f"persistent_keepalive_interval={config.keepalive}", *(f"allowed_ip={each}" for each in NETWORKS)]
    return "\n".join(lines).encode() + b"\n\n"


def endpoint_text(endpoint: tuple[Address, int]) -> str:
    """An address and a port as text."""
    host, port = endpoint
    return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"


def read(answer: bytes) -> LinkState:
    """The answer to a request, whichever it was. Raises UapiError, also where the answer is a refusal.

    It says the secret key too, which is passed over.
    """
    port, peer, handshake, endpoint, received, sent = 0, b"", 0.0, None, 0, 0
    refused: int | None = None
    for key, value in _pairs(answer):
        match key:
            case "errno":
                refused = abs(_number(value.removeprefix("-")))
            case "listen_port":
                port = _number(value)
            case "public_key":
                if peer:
                    raise UapiError("an interface with two peers")
                peer = _key(value)
            case "last_handshake_time_sec":
                handshake += _number(value)
            case "last_handshake_time_nsec":
                handshake += _number(value) / 1e9
            case "endpoint":
                endpoint = _endpoint(value)
            case "rx_bytes":
                received = _number(value)
            case "tx_bytes":
                sent = _number(value)
    if refused is None:
        raise UapiError("an answer without its end")
    if refused:
        raise UapiError(f"refused with errno {refused}", refused)
    return LinkState(port, peer, handshake or None, endpoint, received, sent)


def _pairs(answer: bytes) -> Iterator[tuple[str, str]]:
    if len(answer) > ANSWER_LIMIT:
        raise UapiError(f"an answer of {len(answer)} bytes")
    for line in answer.decode("ascii", "replace").splitlines():
        key, _, value = line.partition("=")
        yield key, value


def _number(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise UapiError("a number that is none")
    return int(value)


def _key(value: str) -> bytes:
    try:
        key = bytes.fromhex(value)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise UapiError("a key that is none")
    return key


def _endpoint(value: str) -> tuple[Address, int]:
    host, _, port = value.rpartition(":")
    try:
        ip = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise UapiError("an endpoint that is none") from None
    return ip, _number(port)
