"""Machines joined in memory, with keys that are plays on words, for tests of what nodes send each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from re6st.core.prefix import Prefix, address, control_address
from re6st.core.wire.datagrams import (
    PORT,
    Code,
    WireError,
)
from re6st.core.wire.peer_crypto import PeerCertificate
from re6st.core.wire.sessions import (
    Datagram,
    Message,
    Output,
    Sessions,
)

NETWORK = IPv6Network("2001:db8:42::/48")
A, B, C = Prefix(0, 16), Prefix(1, 16), Prefix(2, 16)


def source(prefix: Prefix) -> tuple[IPv6Address, int]:
    return address(NETWORK, prefix), PORT


# --- machines joined in memory, with keys that are plays on words ---


@dataclass(frozen=True)
class PlayCertificate:
    prefix: Prefix
    serial: int
    until: float = 4e9

    @property
    def der(self) -> bytes:
        return f"certificate of {self.prefix.cn} number {self.serial:4}".encode()

    @property
    def fingerprint(self) -> bytes:
        return f"fingerprint {self.prefix.cn:8}"[:20].encode()


class PlayCrypto:
    def __init__(self, certificate: PlayCertificate) -> None:
        self.own = certificate
        self.prefix, self.der, self.fingerprint = certificate.prefix, certificate.der, certificate.fingerprint
        self.bad: set[int] = set()
        self.admitted = 0
        self.offers = 0
        self.read_offers = 0
        self.forged: set[bytes] = set()
        """Certificates whose signature is wrong."""

    def read(self, der: bytes) -> PeerCertificate:
        try:
            head, _, cn, _, serial = der.decode().split()
            certificate = PlayCertificate(Prefix.from_cn(cn), int(serial))
        except (ValueError, UnicodeError):
            raise WireError("no certificate") from None
        if head != "certificate" or certificate.serial in self.bad or certificate.der != der:
            raise WireError("not accepted")
        return certificate

    def admit(self, certificate: PeerCertificate) -> None:
        self.admitted += 1
        if certificate.der in self.forged:
            raise WireError("not signed by our CA")

    def still_good(self, certificate: PeerCertificate) -> bool:
        return certificate.serial not in self.bad

    def encrypt(self, certificate: PeerCertificate, data: bytes) -> bytes:
        return f"{certificate.prefix.cn:>10}".encode() + data

    def decrypt(self, data: bytes) -> bytes:
        self.read_offers += 1
        if data[:10] != f"{self.prefix.cn:>10}".encode():
            raise WireError("not for us")
        return data[10:]

    def sign(self, data: bytes) -> bytes:
        self.offers += 1
        return f"{self.prefix.cn:>10}".encode() + data[::-1][:20]

    def verify(self, certificate: PeerCertificate, signature: bytes, data: bytes) -> bool:
        return signature == f"{certificate.prefix.cn:>10}".encode() + data[::-1][:20]


@dataclass
class World:
    """Machines, and the datagrams under way; what each machine was told is kept."""

    machines: dict[Prefix, Sessions] = field(default_factory=dict)
    told: dict[Prefix, list[Output]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    now: float = 1000.0
    secrets: Iterator[bytes] = field(default_factory=lambda: (n.to_bytes(8) + bytes(12) for n in range(1, 1 << 30)))
    lose: Callable[[Prefix, bytes], bool] = lambda _to, _data: False
    answers: dict[int, bytes] = field(default_factory=dict)

    def add(self, prefix: Prefix) -> Sessions:
        crypto = PlayCrypto(PlayCertificate(prefix, prefix.value + 1))
        self.machines[prefix] = Sessions(NETWORK, crypto, 10, b"\0", lambda: next(self.secrets))
        self.told.setdefault(prefix, [])
        return self.machines[prefix]

    def carry(self, sender: Prefix, outputs: list[Output]) -> int:
        """Deliver what a machine sends, and what comes of it, to the end; how many datagrams that took."""
        pending, count = [(sender, output) for output in outputs], 0
        while pending:
            sender, output = pending.pop(0)
            if not isinstance(output, Datagram):
                self.told[sender].append(output)
                if isinstance(output, Message):
                    answer = self.answers.get(output.code) if not output.payload else None
                    more = self.machines[sender].answer(output, answer, self.now)
                    pending += [(sender, item) for item in more]
                continue
            count += 1
            assert count < 100, "an endless exchange"
            receiver = next(
                p for p in self.machines if output.address in (address(NETWORK, p), control_address(NETWORK, p))
            )
            if self.lose(receiver, output.data):
                continue
            try:
                more = self.machines[receiver].receive(source(sender), output.data, self.now)
            except WireError as error:
                self.refused.append(str(error))
            else:
                pending += [(receiver, item) for item in more]
        return count

    def send(self, sender: Prefix, receiver: Prefix, payload: bytes) -> int:
        return self.carry(sender, self.machines[sender].send(receiver, payload, self.now))

    def messages(self, prefix: Prefix, code: Code) -> list[Message]:
        return [output for output in self.told[prefix] if isinstance(output, Message) and output.code == code]

    def connected(self, one: Prefix, other: Prefix) -> bool:
        return self.machines[one].connected(other, self.now) and self.machines[other].connected(one, self.now)


# --- what others try ---


def established(world: World) -> None:
    world.send(A, B, bytes([Code.SOFTWARE]))
    assert world.connected(A, B)
