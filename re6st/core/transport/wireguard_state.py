"""What an end of WireGuard links keeps of each, how long things take, and what it has done: for wireguard_agreement.py.

All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_links import OwnEnd, WireGuardLink
from re6st.core.tunnel_protocols import Role
from re6st.core.wire.wireguard import Message, Reason, Terms

RESEND_FIRST, RESEND_LAST = 0.5, 4.0
"""Seconds until a message without an answer is sent again, doubled each time."""
PROPOSE_TIME = 5.0
"""Seconds that a proposal may stay without an answer."""
MAKE_TIME = 10.0
"""Seconds in which an interface is made, at most."""
DIAL_TIME = 5.0
"""Seconds until a link without a handshake is given up. It is dialled after RESEND_FIRST again, since WireGuard itself
waits for 5 s; then after twice as long each time, as each begins a new handshake, and the answer to the last one may be
on a long way."""
ACCEPTED_TIME = PROPOSE_TIME + MAKE_TIME + DIAL_TIME + 3.0
"""Seconds that a server waits for the client's handshake."""
CHECK_TIME, CHECK_AGAIN = 30.0, 5.0
"""Seconds without anything from a link until its other end is asked whether it has it, and until it is asked again."""
DEAD_TIME = 90.0
"""Seconds without anything from a link until it is ended. Routes have left it long before (core/mesh/closing.py)."""
KEY_LIFE, LIVES = 86400.0, 2
"""Seconds until the client changes the keys of a link. After LIVES times that either end ends it: whose certificate
expired gets no session, and so no other keys."""
CHANGE_DELAY, CHANGE_MARGIN = 0.1, 0.03
"""Seconds from the server's word that it changes its keys until it does: what is said of it may go by the link itself.
The client changes as much later as the server may be late, and no more: what comes with other keys is dropped."""
CHANGE_DIAL = 0.1
"""Seconds until a client that changed its keys dials again, doubled each time: the server was later still."""
CHANGE_TIME = 5.0
"""Seconds from the acceptance until a client changes its keys in any case: it has confirmed four times, and the
server's word may be lost. A server keeps its new key CHANGE_KEPT seconds."""
CHANGE_KEPT = PROPOSE_TIME + CHANGE_TIME + 5.0
CHANGE_AGAIN = 600.0
"""Seconds until a change that was refused, or not answered, is tried again."""
SETTLE_TIME = DEAD_TIME + CHECK_AGAIN + ACCEPTED_TIME
PAUSES = {Reason.FULL: 60.0, Reason.UNAVAILABLE: 60.0, Reason.NO_ANSWER: 60.0}
PAUSE = 300.0
"""Seconds in which no link to a peer is opened after one did not come up, for that reason or another one."""
PORT_PAUSE = 60.0
"""Seconds in which a port is not used that somebody else had."""
RENUMBERINGS = 3
"""How often a proposal gets a greater number, as the peer has a later link."""
PROPOSALS = 0.1, 8.0, 50.0, 100.0
"""Proposals a second, and at once, that are taken from one peer and from all: each makes a key and an interface, has
babel look, and is told in the log. Who starts anew sends one, or four where they get lost."""
PEERS_LIMIT = 1024
"""Peers of whom we remember that no link came up; also links of which we tell the end (wireguard_endings.py)."""


Item = TypeVar("Item")


class LinkPhase(Enum):
    """How far a link is at this end."""

    PROPOSED = "proposed"
    MAKING = "making"
    """Our interface is being made."""
    ACCEPTED = "accepted"
    """At a server: its interface is there, nothing has come by it yet."""
    DIALLED = "dialled"
    """At a client, the same."""
    UP = "up"


NEXT: dict[LinkPhase | None, frozenset[LinkPhase]] = {
    None: frozenset({LinkPhase.PROPOSED, LinkPhase.MAKING, LinkPhase.UP}),
    LinkPhase.PROPOSED: frozenset({LinkPhase.MAKING}),
    LinkPhase.MAKING: frozenset({LinkPhase.ACCEPTED, LinkPhase.DIALLED}),
    LinkPhase.ACCEPTED: frozenset({LinkPhase.UP}),
    LinkPhase.DIALLED: frozenset({LinkPhase.UP}),
    LinkPhase.UP: frozenset(),
}
"""What a phase may be followed by; None: by a link that there was none of. Every one may be followed by none."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """What was made for one link, or one change of its keys, by chance; `clock` is milliseconds since 1970."""

    own: OwnEnd
    """Its port and MTU are not meant."""
    clock: int


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Of this node; they may be other ones for later links."""

    ports: Sequence[int]
    """Where we listen, a port for each link."""
    interfaces: Sequence[str]
    """Those of a server, one for each client: how many there are is how many clients there may be."""
    mtu: int = 1420
    key_life: float = KEY_LIFE


# --- what is to be done ---


@dataclass(frozen=True, slots=True)
class Send:
    """Say this to a peer, if it takes such messages; it is said again if nothing comes of it."""

    peer: Prefix
    message: Message


@dataclass(frozen=True, slots=True)
class Make:
    """Make our interface of a link, then call `made` or `failed`."""

    link: WireGuardLink


@dataclass(frozen=True, slots=True)
class Dial:
    """Have WireGuard begin a handshake at once, with the peer's next address if it has several: `attempt` from 0."""

    link: WireGuardLink
    attempt: int


@dataclass(frozen=True, slots=True)
class Change:
    """Have these keys on an interface, then call `changed`; everything else stays. Done again, it dials again."""

    link: WireGuardLink


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove an interface; it may not be made yet."""

    link: WireGuardLink


@dataclass(frozen=True, slots=True)
class Up:
    """A link is up, or has other keys. It is to be noted for the next daemon."""

    link: WireGuardLink


@dataclass(frozen=True, slots=True)
class Ended:
    """There is no link with a peer any more, or none came up: `was_up` says which. `interface` is free again."""

    peer: Prefix
    role: Role
    interface: str
    reason: Reason
    was_up: bool


Action = Send | Make | Dial | Change | Remove | Up | Ended


# --- state ---


@dataclass(slots=True)
class KeyChange:
    """Keys that a link is to have next. A server waits for the confirmation; so does a client, once it has `theirs`."""

    number: int
    own: OwnEnd
    theirs: Terms | None
    until: float
    resend: float
    wait: float = RESEND_FIRST
    at: float = float("inf")
    """When they are put on our interface."""


@dataclass(slots=True)
class Entry:
    """A link, or an attempt to have one; there is at most one with each peer."""

    peer: Prefix
    number: int
    role: Role
    interface: str
    own: OwnEnd
    theirs: Terms | None = None
    phase: LinkPhase | None = None
    until: float = float("inf")
    """When the phase is given up."""
    resend: float = float("inf")
    """When something is said, or tried, again."""
    wait: float = RESEND_FIRST
    tries: int = 0
    """How often it was given another number, or dialled."""
    heard: float = 0.0
    """When something came in by it last."""
    change_at: float = float("inf")
    """When the client is to change the keys."""
    over_at: float = float("inf")
    """When the link is ended, with keys that were not changed."""
    change: KeyChange | None = None
    changing: bool = False
    """Our interface does not have the keys yet that the link has now."""
    awaited: bool = False
    """Nothing has come in with them."""

    @property
    def link(self) -> WireGuardLink:
        if self.theirs is None:
            raise RuntimeError(f"no link with {self.peer} is agreed on")
        return WireGuardLink(self.peer, self.number, self.role, self.interface, self.own, self.theirs)

    @property
    def latest(self) -> int:
        """The greatest number in use with the peer."""
        return self.number if self.change is None else max(self.number, self.change.number)

    def go(self, phase: LinkPhase, until: float, resend: float) -> None:
        if phase not in NEXT[self.phase]:
            raise RuntimeError(f"a link that is {self.phase} cannot be {phase}")
        self.phase, self.until, self.resend, self.wait = phase, until, resend, RESEND_FIRST


class Pool(Generic[Item]):
    """Which of our ports, or interfaces, a link gets: the one that is unused for longest, as it may still be about to
    go where it was last."""

    def __init__(self) -> None:
        self._released: dict[Item, float] = {}
        """When each was used last; there are as many as we may have."""
        self._taken: OrderedDict[Item, float] = OrderedDict()
        """Those that somebody else has, and until when we believe that."""

    def free(self, items: Iterable[Item], used: Set[Item], now: float) -> Item | None:
        """One of these that is not used."""
        free = [item for item in items if item not in used and now >= self._taken.get(item, now)]
        return min(free, key=lambda item: self._released.get(item, float("-inf")), default=None)

    def release(self, item: Item, now: float) -> None:
        """No link of ours uses it any more."""
        self._released[item] = now

    def is_taken(self, item: Item, now: float) -> None:
        """Somebody else has it."""
        self._taken[item] = now + PORT_PAUSE
        if len(self._taken) > PEERS_LIMIT:
            self._taken.popitem(last=False)


def later_number(own: Prefix, peer: Prefix, clock: int, above: int) -> int:
    """A number for a link that `own` proposes to a peer, greater than another one."""
    return (max(clock, (above >> 1) + 1) << 1) | (own > peer)


def pause_after(reason: Reason) -> float:
    """Seconds in which no link to a peer is opened after one did not come up."""
    return PAUSES.get(reason, PAUSE)
