"""Two nodes that agree on WireGuard links in memory, over a channel that loses, doubles and reorders; with a clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, assert_never

from re6st.core.prefix import Prefix
from re6st.core.transport import wireguard_links
from re6st.core.transport.wireguard_agreement import Agreement
from re6st.core.transport.wireguard_links import OwnEnd, WireGuardLink
from re6st.core.transport.wireguard_state import (
    SETTLE_TIME,
    Action,
    Change,
    Dial,
    Ended,
    Fresh,
    LinkPhase,
    LinkSettings,
    Make,
    Remove,
    Send,
    Up,
)
from re6st.core.wire.wireguard import KEY_LENGTH, Message, Reason, Terms, decode, encode, link_local

A, B = Prefix(1, 16), Prefix(2, 16)
STEP = 0.25
SETTINGS = LinkSettings(range(51820, 51830), ("re6stnet11", "re6stnet12"))


@dataclass
class End:
    """One node: its agreement, the interfaces that are there, and the notes that the next daemon would find."""

    own: Prefix
    agreement: Agreement
    making: dict[str, WireGuardLink] = field(default_factory=dict)
    interfaces: dict[str, WireGuardLink] = field(default_factory=dict)
    notes: dict[Prefix, bytes] = field(default_factory=dict)
    done: list[Action] = field(default_factory=list)

    def ended(self) -> list[Ended]:
        return [action for action in self.done if isinstance(action, Ended)]

    def sent(self) -> list[Message]:
        return [action.message for action in self.done if isinstance(action, Send)]


class World:
    """`passes` says whether packets of WireGuard do; `makes_at_once` whether interfaces are there when asked for."""

    def __init__(self, seed: int = 0, settings: LinkSettings = SETTINGS) -> None:
        self.now = 1000.0
        self.passes = True
        self.makes_at_once = True
        self.in_band = False
        """What they say goes by the link itself, as between nodes that have no other way to each other."""
        self.flying: list[tuple[Prefix, Prefix, bytes]] = []
        self.lose: Callable[[Prefix, Message], bool] = lambda _to, _message: False
        self.secrets: set[bytes] = set()
        self.clock = 1_700_000_000_000
        self.settings = settings
        self._rng = Random(seed)
        self.keyed: dict[Prefix, float] = {}
        """When each noted the keys of now."""
        self.ends: dict[Prefix, End] = {}
        for own in (A, B):
            self.start(own)

    def fresh(self) -> Fresh:
        secret, key = self._rng.randbytes(KEY_LENGTH), self._rng.randbytes(KEY_LENGTH)
        self.secrets.add(secret)
        self.clock += 1
        return Fresh(OwnEnd(secret, Terms(key, 0, 0, link_local(self._rng.getrandbits(63) + 1))), self.clock)

    def start(self, own: Prefix) -> None:
        """Start a node that knows of nothing; nothing of its earlier life is left."""
        self.ends[own] = End(own, Agreement(own, self.settings, self.fresh, lambda _peer: True))

    def take_over(self, own: Prefix) -> None:
        """Start a daemon that goes on with the links of the last one, and removes all others."""
        notes, interfaces = self.ends[own].notes, self.ends[own].interfaces
        self.start(own)
        links = [wireguard_links.decode(note) for note in notes.values()]
        end = self.ends[own]
        end.notes = notes
        end.interfaces = {link.interface: link for link in links if link.interface in interfaces}
        assert set(end.interfaces) == {link.interface for link in links}
        end.agreement.resume([(link, self.keyed[own]) for link in links], self.now)
        self.carry(own, end.agreement.tick(self.now))

    # -- what nodes want --

    def open(self, own: Prefix) -> None:
        self.carry(own, self.ends[own].agreement.open(other(own), "re6stnet1", self.now))

    def close(self, own: Prefix) -> None:
        self.carry(own, self.ends[own].agreement.close(other(own), self.now))

    # -- what happens --

    def lose_next(self, kind: type[Message], times: int) -> None:
        """The next messages of a kind do not arrive."""
        lost = iter([True] * times)
        self.lose = lambda _to, message: isinstance(message, kind) and next(lost, False)

    def carry(self, own: Prefix, actions: list[Action]) -> None:
        """Do what a node wants done, as far as it can be done there."""
        end = self.ends[own]
        for action in actions:
            end.done.append(action)
            match action:
                case Send(peer, message):
                    data = encode(message)
                    assert not any(secret in data for secret in self.secrets), "a secret key is sent"
                    assert peer == other(own)
                    if not self.lose(peer, message):
                        self.flying.append((own, peer, data))
                case Make(link):
                    assert link.interface not in end.making.keys() | end.interfaces.keys(), "an interface made twice"
                    end.making[link.interface] = link
                    if self.makes_at_once:
                        self.make(own, link.interface)
                case Dial(link, _):
                    assert end.interfaces[link.interface] == link
                case Change(link):
                    was = end.interfaces[link.interface]
                    assert (was.peer, was.role, was.mtu) == (link.peer, link.role, link.mtu)
                    assert (was.own.terms.key != link.own.terms.key) == (was != link), "all of it changes, or nothing"
                    end.interfaces[link.interface] = link
                    self.carry(own, end.agreement.changed(link.peer, link.number, self.now))
                case Remove(link):
                    assert (
                        end.making.pop(link.interface, None) or end.interfaces.pop(link.interface)
                    ).peer == link.peer
                case Up(link):
                    end.notes[link.peer] = wireguard_links.encode(link)
                    self.keyed[own] = self.now
                case Ended(peer, _, _, _, was_up):
                    assert (end.notes.pop(peer, None) is not None) == was_up
                case _:
                    assert_never(action)

    def make(self, own: Prefix, interface: str) -> None:
        """An interface that is being made is there."""
        end = self.ends[own]
        if (link := end.making.pop(interface, None)) is not None:
            end.interfaces[interface] = link
            self.carry(own, end.agreement.made(link.peer, link.number, self.now))

    def deliver(self, at: int = 0, *, keep: bool = False) -> None:
        """Have one of the datagrams under way arrive."""
        sender, receiver, data = self.flying[at] if keep else self.flying.pop(at)
        if self.in_band and not self.is_way():
            return
        self.carry(receiver, self.ends[receiver].agreement.received(sender, decode(data), self.now))

    def exchange(self) -> None:
        """Deliver everything, and what comes of it."""
        count = 0
        while self.flying:
            count += 1
            assert count < 100, "an endless exchange"
            self.deliver()

    def traffic(self) -> None:
        """Packets go both ways where both ends have the keys of each other."""
        if self.is_way():
            for own in (A, B):
                self.carry(own, self.ends[own].agreement.heard(other(own), self.now))

    def is_way(self) -> bool:
        """Whether packets pass by the link."""
        ones, others = (self.ends[own].interfaces.values() for own in (A, B))
        return self.passes and any(fits(one, two) for one in ones for two in others)

    def step(self, seconds: float = STEP) -> None:
        """Let time pass; then what is due is done."""
        self.now += seconds
        for own, end in self.ends.items():
            self.carry(own, end.agreement.tick(self.now))
            assert end.agreement.deadline() > self.now

    def run(self, seconds: float) -> None:
        """Let time pass on a channel that works, with traffic."""
        until = self.now + seconds
        while self.now < until:
            self.exchange()
            self.traffic()
            self.exchange()
            self.step()
        self.exchange()

    def attempt(self, own: Prefix, seconds: float) -> None:
        """A node opens a link, and some time passes."""
        self.open(own)
        self.run(seconds)

    def settle(self) -> None:
        self.makes_at_once = True
        for own, end in self.ends.items():
            for interface in list(end.making):
                self.make(own, interface)
        self.run(SETTLE_TIME)

    def agree(self, seconds: float) -> bool:
        """Whether both have the same within a time, in which a change of keys may be under way."""
        until = self.now + seconds
        while not self.same() and self.now < until:
            self.run(1.0)
        return self.same()

    # -- asking --

    def link(self, own: Prefix) -> WireGuardLink | None:
        return self.ends[own].agreement.links.get(other(own))

    def held(self, own: Prefix) -> WireGuardLink:
        """The link that a node has."""
        link = self.link(own)
        assert link is not None
        return link

    def reasons(self, own: Prefix) -> list[Reason]:
        """Of the ends of a node's links."""
        return [ended.reason for ended in self.ends[own].ended()]

    def phase(self, own: Prefix) -> LinkPhase | None:
        return self.ends[own].agreement.phase(other(own))

    def is_linked(self) -> bool:
        """Whether their link is up at both ends, and the same."""
        return self.phase(A) is self.phase(B) is LinkPhase.UP and self.same()

    def check(self) -> None:
        """What is always so."""
        for end in self.ends.values():
            held = [*end.making.values(), *end.interfaces.values()]
            assert len({link.own.terms.port for link in held}) == len(held)
            assert len(held) <= 1, "a link with each peer"
            assert bool(held) == (end.agreement.phase(other(end.own)) not in (None, LinkPhase.PROPOSED))
            assert set(end.agreement.links) == set(end.notes)

    def same(self) -> bool:
        """Whether both have the same link, or none."""
        self.check()
        one, two = self.link(A), self.link(B)
        if one is None or two is None:
            return self.phase(A) is self.phase(B) is None and not self.ends[A].interfaces | self.ends[B].interfaces
        return fits(one, two) and one.number == two.number and one.role is not two.role and one.mtu == two.mtu


def other(own: Prefix) -> Prefix:
    return B if own == A else A


def fits(one: WireGuardLink, two: WireGuardLink) -> bool:
    """Whether each has what the other has of itself."""
    return one.own.terms == two.theirs and two.own.terms == one.theirs


def linked(**changes: Any) -> World:
    """Two nodes that have a link, opened by A; `changes` are those of their settings."""
    world = World(settings=replace(SETTINGS, **changes))
    world.attempt(A, 1)
    assert world.is_linked()
    return world


def told(world: World, message: Message) -> None:
    """A is told this by B, and B does not hear what A says."""
    world.carry(A, world.ends[A].agreement.received(B, message, world.now))
    world.flying.clear()
