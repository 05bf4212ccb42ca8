"""Names of our tunnel interfaces (wire.md 8.4): this module makes and reads them.

The interface of a server is named after its protocol, `re6stnet-udp`. Those of client tunnels have numbers,
`re6stnet1`. The only tunnel of --client has neither.
That of a WireGuard link that we opened is `re6stnet-wg1`, of one that a peer opened `re6stnet-wgs1`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from re6st.core.tunnel_protocols import SERVED, Role, TunnelProtocol

PREFIX = "re6stnet"
"""How all names begin, for rules that match names by a pattern."""

LINKS = range(1, 961)
"""Numbers of WireGuard links."""
FURTHER_LINKS = range(961, 970)
"""The same of those beside the first one with a peer."""
_LINK = {Role.CLIENT: "wg", Role.SERVER: "wgs"}
_ROLES = {word: role for role, word in _LINK.items()}
_NAME = re.compile(rf"{PREFIX}(?:([0-9]{{0,7}})|-(wgs?)([1-9][0-9]{{0,2}})|-([a-z0-9]+))", re.ASCII)
"""The kernel allows 15 characters."""
KEPT = 2000
"""Names that are read once: the same few are asked for many times a second."""
_UNFINISHED = re.compile(r"r6[0-9a-f]{8}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Interface:
    """A tunnel interface: that of a server has a `protocol`, that of a client tunnel a `number`, that of --client
    neither. That of a WireGuard link has a number, and `link` says at which end of it we are.
    """

    number: int | None = None
    protocol: TunnelProtocol | None = None
    link: Role | None = None

    @property
    def role(self) -> Role:
        """At which end of its tunnels we are."""
        return self.link or (Role.CLIENT if self.protocol is None else Role.SERVER)

    @property
    def is_sole(self) -> bool:
        """Whether it is the tunnel of --client. Its name is that of the program, too."""
        return self.number is None and self.protocol is None

    def __str__(self) -> str:
        if self.link is not None:
            return f"{PREFIX}-{_LINK[self.link]}{self.number}"
        return f"{PREFIX}-{self.protocol}" if self.protocol else f"{PREFIX}{'' if self.number is None else self.number}"


SOLE = str(Interface())
"""The name of the only tunnel of --client."""


def server(protocol: TunnelProtocol) -> str:
    """The name of a server's interface."""
    return str(Interface(protocol=protocol.served))


def client(number: int) -> str:
    """The name of a client tunnel's interface. Numbers begin at 1."""
    return str(Interface(number))


def link(role: Role, number: int) -> str:
    """The interface of a WireGuard link at that end, from 1."""
    return str(Interface(number, link=role))


@lru_cache(KEPT)
def parse(name: str) -> Interface | None:
    """The interface that a name stands for; None if the name is not one of ours."""
    if (found := _NAME.fullmatch(name)) is None:
        return None
    number, end, link_number, protocol = found.groups()
    if end is not None:
        return Interface(int(link_number), link=_ROLES[end])
    if protocol is None:
        return Interface(int(number) if number else None)
    return Interface(protocol=TunnelProtocol(protocol)) if protocol in SERVED else None


def is_ours(name: str) -> bool:
    """Whether one of our tunnel interfaces may have this name."""
    return parse(name) is not None


def unfinished(chance: bytes) -> str:
    """The name by which wireguard-go makes an interface, which gets its own name then; of four bytes."""
    return f"r6{chance.hex()}"


def is_unfinished(name: str) -> bool:
    """Whether it is such a name: who was killed in between leaves one."""
    return _UNFINISHED.fullmatch(name) is not None


def is_link(name: str) -> bool:
    """Whether it is one of a WireGuard link."""
    found = parse(name)
    return found is not None and found.link is not None
