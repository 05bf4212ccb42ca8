"""The names of our tunnel interfaces (wire.md 8.4): how they are made, and what one says.

A server has one for its protocol, `re6stnet-udp`; client tunnels have numbers, `re6stnet1`; the one tunnel of --client
has neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from re6st.core.tunnel_protocols import SERVED, Role, TunnelProtocol

PREFIX = "re6stnet"
"""What all begin with, for rules that have patterns of names."""

_NAME = re.compile(rf"{PREFIX}(?:([0-9]{{0,7}})|-([a-z0-9]+))", re.ASCII)
"""The kernel takes 15 characters."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A tunnel interface: a server's has a `protocol`, a client tunnel's a `number`, that of --client has none."""

    number: int | None = None
    protocol: TunnelProtocol | None = None

    @property
    def role(self) -> Role:
        """Which end of its tunnels we are."""
        return Role.CLIENT if self.protocol is None else Role.SERVER

    @property
    def is_sole(self) -> bool:
        """Whether it is that of --client. Its name is the program's, too."""
        return self.number is None and self.protocol is None

    def __str__(self) -> str:
        return f"{PREFIX}-{self.protocol}" if self.protocol else f"{PREFIX}{'' if self.number is None else self.number}"


SOLE = str(Interface())
"""Of the one tunnel of --client."""


def server(protocol: TunnelProtocol) -> str:
    """The interface of a server."""
    return str(Interface(protocol=protocol.served))


def client(number: int) -> str:
    """The interface of a client tunnel, from 1."""
    return str(Interface(number))


def parse(name: str) -> Interface | None:
    """What a name says; None for an interface that is not ours."""
    if (found := _NAME.fullmatch(name)) is None:
        return None
    number, protocol = found.groups()
    if protocol is None:
        return Interface(int(number) if number else None)
    return Interface(protocol=TunnelProtocol(protocol)) if protocol in SERVED else None


def is_ours(name: str) -> bool:
    """Whether a tunnel interface of ours may have this name."""
    return parse(name) is not None
