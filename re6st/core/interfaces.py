"""Names of our tunnel interfaces (wire.md 8.4): this module makes and reads them.

The interface of a server is named after its protocol, `re6stnet-udp`. Those of client tunnels have numbers,
`re6stnet1`. The only tunnel of --client has neither.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from re6st.core.tunnel_protocols import SERVED, Role, TunnelProtocol

PREFIX = "re6stnet"
"""How all names begin, for rules that match names by a pattern."""

_NAME = re.compile(rf"{PREFIX}(?:([0-9]{{0,7}})|-([a-z0-9]+))", re.ASCII)
"""The kernel allows 15 characters."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A tunnel interface: that of a server has a `protocol`, that of a client tunnel a `number`, that of --client
    neither.
    """

    number: int | None = None
    protocol: TunnelProtocol | None = None

    @property
    def role(self) -> Role:
        """At which end of its tunnels we are."""
        return Role.CLIENT if self.protocol is None else Role.SERVER

    @property
    def is_sole(self) -> bool:
        """Whether it is the tunnel of --client. Its name is that of the program, too."""
        return self.number is None and self.protocol is None

    def __str__(self) -> str:
        return f"{PREFIX}-{self.protocol}" if self.protocol else f"{PREFIX}{'' if self.number is None else self.number}"


SOLE = str(Interface())
"""The name of the only tunnel of --client."""


def server(protocol: TunnelProtocol) -> str:
    """The name of a server's interface."""
    return str(Interface(protocol=protocol.served))


def client(number: int) -> str:
    """The name of a client tunnel's interface. Numbers begin at 1."""
    return str(Interface(number))


def parse(name: str) -> Interface | None:
    """The interface that a name stands for; None if the name is not one of ours."""
    if (found := _NAME.fullmatch(name)) is None:
        return None
    number, protocol = found.groups()
    if protocol is None:
        return Interface(int(number) if number else None)
    return Interface(protocol=TunnelProtocol(protocol)) if protocol in SERVED else None


def is_ours(name: str) -> bool:
    """Whether one of our tunnel interfaces may have this name."""
    return parse(name) is not None
