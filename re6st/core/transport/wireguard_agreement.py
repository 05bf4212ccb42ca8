"""How two nodes agree on a WireGuard link, over their session on port 326. No input, no output: see `Agreement`.

Who opens a link is its client, the other one its server, as with other tunnels. Messages: core/wire/wireguard.py.

    client                                   server
      propose (number, terms) -------------->  makes its interface
      makes its interface <------------------  accept (terms)
      dials; the first handshake means that both have the link: each end sees it for itself
      confirm ------------------------------>  done        (so that the server knows at once)

Rules, from which the rest follows:

- Each attempt has a number that no other one has, later ones greater ones. Its last bit says which of the two proposes.
  Of two links or attempts of a pair the greater number stays: so two that open at once get the same link, and who
  has started anew replaces what the other still has. A peer whose clock is late is told which number to be above.
- Whoever hears of a link that it does not have says so, and who hears that ends it. An end is told three times.
- A link that is up needs no word as long as something comes in by it, since that proves that both ends have the
  same keys. Where nothing does, each end asks the other whether it has the link, and ends it if that lasts.
- The client has the keys changed now and then (wireguard_rekeying.py). All else of the link stays.

So whatever is lost, doubled or late, and whoever starts anew when: after SETTLE_TIME (wireguard_state.py) both have the
same link, or none.
All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import assert_never

from re6st.core.limits.budget import Buckets
from re6st.core.limits.pauses import Pauses
from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_endings import Endings
from re6st.core.transport.wireguard_links import OwnEnd, WireGuardLink
from re6st.core.transport.wireguard_rekeying import Rekeying
from re6st.core.transport.wireguard_state import (
    ACCEPTED_TIME,
    CHECK_AGAIN,
    CHECK_TIME,
    DEAD_TIME,
    DIAL_TIME,
    MAKE_TIME,
    PEERS_LIMIT,
    PROPOSALS,
    PROPOSE_TIME,
    RENUMBERINGS,
    RESEND_FIRST,
    RESEND_LAST,
    Action,
    Dial,
    Ended,
    Entry,
    Fresh,
    LinkPhase,
    LinkSettings,
    Make,
    Pool,
    Remove,
    Send,
    Up,
    later_number,
    pause_after,
)
from re6st.core.tunnel_protocols import Role
from re6st.core.wire.wireguard import (
    NUMBER_LIMIT,
    Accept,
    Confirm,
    Done,
    End,
    Message,
    Met,
    NoLink,
    Propose,
    Reason,
    Refuse,
    Terms,
)


class Agreement:
    """The links of one node. Each method returns what is to be done, in that order; `deadline` says when to `tick`.

    `fresh` makes keys and an address, `admits` says whether a peer may open a link to us. What was received must be
    from an authenticated session with that peer. `beside` are other agreements of this node, on links beside these
    (core/transport/further_links.py): no two of its links have the same port, key or address.
    """

    def __init__(
        self,
        own: Prefix,
        settings: LinkSettings,
        fresh: Callable[[], Fresh],
        admits: Callable[[Prefix], bool],
        beside: Callable[[], Iterable[Agreement]] = tuple,
    ) -> None:
        self.settings = settings
        self._own = own
        self._fresh = fresh
        self._admits = admits
        self._beside = beside
        self._entries: dict[Prefix, Entry] = {}
        self._endings = Endings()
        self._pauses: Pauses[Reason] = Pauses(PEERS_LIMIT)
        self._ports: Pool[int] = Pool()
        self._names: Pool[str] = Pool()
        """Of interfaces."""
        self._proposals: Buckets[Prefix] = Buckets(*PROPOSALS)
        self._rekeying = Rekeying(own, fresh, lambda: self.settings.key_life, self._is_ours)

    # -- asking --

    @property
    def interfaces(self) -> frozenset[str]:
        """Those of all links, however far they are."""
        return frozenset(entry.interface for entry in self._entries.values())

    @property
    def links(self) -> dict[Prefix, WireGuardLink]:
        """Those that are up."""
        return {peer: entry.link for peer, entry in self._entries.items() if entry.phase is LinkPhase.UP}

    @property
    def begun(self) -> list[Prefix]:
        """The peers with whom one is agreed on that is not up yet."""
        return [peer for peer, entry in self._entries.items() if entry.phase is not LinkPhase.UP]

    @property
    def served_ports(self) -> frozenset[int]:
        """Where we listen for clients whose links are up, or agreed on; also for those of links beside these."""
        return frozenset(e.own.terms.port for e in self._all_entries() if e.role is Role.SERVER)

    def phase(self, peer: Prefix) -> LinkPhase | None:
        """How far the link with a peer is; None: there is none."""
        entry = self._entries.get(peer)
        return None if entry is None else entry.phase

    def role(self, peer: Prefix) -> Role | None:
        """At which end of the link with a peer, however far it is, we are; None: there is none."""
        entry = self._entries.get(peer)
        return None if entry is None else entry.role

    def awaits(self, peer: Prefix) -> bool:
        """Whether something is to come in soon by the link with a peer: the first with its keys."""
        entry = self._entries.get(peer)
        return entry is None or entry.phase is not LinkPhase.UP or entry.awaited

    def paused(self, peer: Prefix, now: float) -> Reason | None:
        """Why no link to a peer is opened for a while, if that is so."""
        return self._pauses.reason(peer, now)

    def deadline(self) -> float:
        """When `tick` is due next; infinity: never, as long as nothing happens."""
        return min((at for each in self._deadlines() for at in each), default=float("inf"))

    def _deadlines(self) -> Iterator[tuple[float, ...]]:
        for entry in self._entries.values():
            yield entry.until, entry.resend
            if entry.phase is LinkPhase.UP:
                yield entry.heard + DEAD_TIME, entry.over_at
                if entry.change is None:
                    yield (entry.change_at,)
                if entry.change is not None:
                    yield entry.change.until, entry.change.resend, entry.change.at
        yield tuple(self._endings.deadlines())

    # -- what we want --

    def open(self, peer: Prefix, interface: str, now: float) -> list[Action]:
        """Have a link to a peer, on this interface. Nothing is done where there is one, or a pause; see `phase`."""
        if peer in self._entries or peer == self._own or self.paused(peer, now) is not None:
            return []
        fresh, port = self._fresh(), self._free_port(now)
        if port is None:
            self._pauses.begin(peer, Reason.UNAVAILABLE, pause_after(Reason.UNAVAILABLE), now)
            return [Ended(peer, Role.CLIENT, interface, Reason.UNAVAILABLE, was_up=False)]
        terms = replace(fresh.own.terms, port=port, mtu=self.settings.mtu)
        own = OwnEnd(fresh.own.secret, terms)
        entry = Entry(peer, later_number(self._own, peer, fresh.clock, 0), Role.CLIENT, interface, own)
        entry.go(LinkPhase.PROPOSED, now + PROPOSE_TIME, now)
        self._entries[peer] = entry
        return self._propose_again(entry, now)

    def close(self, peer: Prefix, now: float, reason: Reason = Reason.CLOSED, *, tell: bool = True) -> list[Action]:
        """Have no link with a peer; without a word to it where it should get none any more."""
        entry = self._entries.get(peer)
        return [] if entry is None else self._end(entry, reason, now, tell=tell)

    def resume(self, links: Iterable[tuple[WireGuardLink, float]], now: float) -> None:
        """Go on with links that an earlier daemon left up, and when their keys were made; their interfaces are there.
        By what `tick` does at once, both ends are soon the same.
        """
        for link, made in links:
            entry = Entry(link.peer, link.number, link.role, link.interface, link.own, link.theirs)
            entry.go(LinkPhase.UP, float("inf"), now)
            entry.heard = now
            self._rekeying.plan(entry, min(made, now))
            self._entries[link.peer] = entry

    def met(self, peer: Prefix, now: float) -> list[Action]:
        """A new session with a peer began: it may have started anew, and is asked at once whether it has the link."""
        entry = self._entries.get(peer)
        if entry is None or entry.phase is not LinkPhase.UP:
            return []
        return self._again(entry, now)

    def is_proved(self, peer: Prefix, message: Message) -> bool:
        """Whether a message says that the peer has the link that is up, by its keys, or those that it is about to have.

        Who agreed on keys speaks by the certificate of the session of now. To be asked after `received`.
        """
        entry = self._entries.get(peer)
        if entry is None or entry.phase is not LinkPhase.UP or not isinstance(message, Confirm | Done):
            return False
        known = [(entry.number, entry.own, entry.theirs)]
        if entry.change is not None:
            known.append((entry.change.number, entry.change.own, entry.change.theirs))
        said = message.number, message.yours, message.mine
        return any(theirs and said == (number, own.terms.key, theirs.key) for number, own, theirs in known)

    # -- what happens to interfaces --

    def made(self, peer: Prefix, number: int, now: float) -> list[Action]:
        """The interface of a link is there."""
        entry = self._entries.get(peer)
        if entry is None or entry.number != number or entry.phase is not LinkPhase.MAKING:
            return []
        if entry.role is Role.SERVER:
            entry.go(LinkPhase.ACCEPTED, now + ACCEPTED_TIME, float("inf"))
            return [Send(peer, Accept(number, entry.own.terms))]
        entry.go(LinkPhase.DIALLED, now + DIAL_TIME, now)
        entry.tries = 0
        return self._dial(entry, now)

    def failed(self, peer: Prefix, number: int, now: float, *, port_taken: bool = False) -> list[Action]:
        """The interface of a link could not be made, or is gone."""
        entry = self._entries.get(peer)
        if entry is None or entry.number != number or entry.phase is LinkPhase.PROPOSED:
            return []
        if port_taken:
            self._ports.is_taken(entry.own.terms.port, now)
        if entry.role is Role.SERVER and entry.phase is LinkPhase.MAKING:
            told = Send(peer, Refuse(number, Reason.UNAVAILABLE))
            return [told, *self._end(entry, Reason.UNAVAILABLE, now, tell=False)]
        return self._end(entry, Reason.UNAVAILABLE, now)

    def changed(self, peer: Prefix, number: int, now: float) -> list[Action]:
        """The interface of a link has the keys that this number stands for."""
        entry = self._entries.get(peer)
        if entry is None or entry.number != number or not entry.changing:
            return []
        return self._rekeying.changed(entry, now)

    def heard(self, peer: Prefix, now: float) -> list[Action]:
        """A handshake was made, or a packet came in, with the keys that the link with a peer has now."""
        entry = self._entries.get(peer)
        if entry is None or entry.theirs is None:
            return []
        if entry.phase is LinkPhase.UP:
            entry.heard, entry.resend = now, now + CHECK_TIME
            self._rekeying.heard(entry)
            return []
        if entry.phase in (LinkPhase.ACCEPTED, LinkPhase.DIALLED):
            return self._up(entry, now)
        return []

    # -- time --

    def tick(self, now: float) -> list[Action]:
        """Do what is due."""
        actions: list[Action] = []
        for entry in list(self._entries.values()):
            if now >= entry.until:
                actions += self._give_up(entry, now)
            elif entry.phase is LinkPhase.UP and now - entry.heard >= DEAD_TIME:
                actions += self._end(entry, Reason.SILENT, now)
            else:
                if now >= entry.resend:
                    actions += self._again(entry, now)
                if entry.phase is LinkPhase.UP:
                    done = self._rekeying.tick(entry, now)
                    actions += self._end(entry, done, now) if isinstance(done, Reason) else done
        return [*actions, *self._endings.tick(now)]

    def _give_up(self, entry: Entry, now: float) -> list[Action]:
        match entry.phase:
            case LinkPhase.PROPOSED:
                return self._end(entry, Reason.NO_ANSWER, now)
            case LinkPhase.MAKING:
                return self._end(entry, Reason.UNAVAILABLE, now)
            case LinkPhase.ACCEPTED | LinkPhase.DIALLED | LinkPhase.UP:  # this one, with other keys
                return self._end(entry, Reason.NO_HANDSHAKE, now)
            case None:
                raise RuntimeError(f"a link that is {entry.phase} is given up")
        assert_never(entry.phase)

    def _again(self, entry: Entry, now: float) -> list[Action]:
        match entry.phase:
            case LinkPhase.PROPOSED:
                return self._propose_again(entry, now)
            case LinkPhase.DIALLED:
                return self._dial(entry, now)
            case LinkPhase.UP if entry.awaited:
                return self._rekeying.dial_again(entry, now)
            case LinkPhase.UP:
                entry.resend = now + CHECK_AGAIN
                # While keys change, the other end may have the new ones already: that is asked about then.
                asks = entry.change is None or entry.change.theirs is None or entry.role is Role.SERVER
                return [self._confirm(entry)] if asks and not entry.changing else []
            case LinkPhase.MAKING | LinkPhase.ACCEPTED | None:
                raise RuntimeError(f"a link that is {entry.phase} says nothing")
        assert_never(entry.phase)

    def _propose_again(self, entry: Entry, now: float) -> list[Action]:
        entry.resend, entry.wait = now + entry.wait, min(2 * entry.wait, RESEND_LAST)
        return [Send(entry.peer, Propose(entry.number, 0, entry.own.terms))]

    def _dial(self, entry: Entry, now: float) -> list[Action]:
        entry.resend, entry.wait, entry.tries = now + entry.wait, 2 * entry.wait, entry.tries + 1
        return [Dial(entry.link, entry.tries - 1)]

    def _confirm(self, entry: Entry) -> Send:
        return Send(entry.peer, Confirm(entry.number, entry.own.terms.key, entry.link.theirs.key))

    # -- what the peer says --

    def received(self, peer: Prefix, message: Message, now: float) -> list[Action]:
        """Take a message of a peer."""
        entry = self._entries.get(peer)
        match message:
            case Propose():
                return self._proposed(peer, message, now)
            case NoLink(number):
                self._endings.is_known(peer, number)
                return self._unknown(entry, number, now)
            case End(number, reason):
                self._endings.is_known(peer, number)
                if entry is not None and entry.number == number:
                    return [*self._end(entry, reason, now, tell=False), Send(peer, NoLink(number))]
                return [Send(peer, NoLink(number)), *self._forget_change(entry, number, now)]
            case Refuse():
                return self._refused(entry, message, now)
        if entry is None or not self._concerns(entry, message.number):
            return [Send(peer, NoLink(message.number))]
        match message:
            case Accept():
                return self._accepted(entry, message, now)
            case Confirm(number, mine, yours):
                return self._is_asked(entry, number, (yours, mine), now)
            case Done(number, mine, yours):
                return self._is_told(entry, number, (yours, mine), now)
            case Met():
                return []  # that is for who routes
        assert_never(message)

    @staticmethod
    def _concerns(entry: Entry, number: int) -> bool:
        return number == entry.number or (entry.change is not None and number == entry.change.number)

    def _proposed(self, peer: Prefix, message: Propose, now: float) -> list[Action]:
        if message.number & 1 != (peer > self._own) or peer == self._own:
            return []
        if not self._proposals.take(peer, now):
            return []
        entry = self._entries.get(peer)
        if message.replaces:
            return self._rekeying.proposed(peer, entry, message, now)
        if entry is not None and (entry.number, entry.theirs) == (message.number, message.terms):
            # While the interface is made, the answer is on its way.
            answers = entry.phase in (LinkPhase.ACCEPTED, LinkPhase.UP)
            return [Send(peer, Accept(entry.number, entry.own.terms))] if answers else []
        if entry is not None and message.number <= entry.latest:
            # One that opens a link itself learns that we do, too. One that is late has to know the number.
            late = entry.phase is not LinkPhase.PROPOSED
            return [Send(peer, Refuse(message.number, Reason.STALE, entry.latest))] if late else []
        if self._is_ours(message.terms):
            return [Send(peer, Refuse(message.number, Reason.BAD_VALUES))]
        if not self._admits(peer):
            return [Send(peer, Refuse(message.number, Reason.UNWANTED))]
        return self._serve(peer, entry, message, now)

    def _serve(self, peer: Prefix, entry: Entry | None, message: Propose, now: float) -> list[Action]:
        """Have a new link with a client, instead of what there was with it."""
        interface, port = self._free_interface(entry, now), self._free_port(now)
        if port is None and entry is not None and entry.interface == interface:
            # Its port is free before the new interface is made, which waits for the old one.
            port = next((each for each in self.settings.ports if each == entry.own.terms.port), None)
        if interface is None or port is None:
            return [Send(peer, Refuse(message.number, Reason.FULL))]
        actions: list[Action] = []
        if entry is not None:
            reason = Reason.YIELDED if entry.phase is LinkPhase.PROPOSED else Reason.REPLACED
            actions += self._end(entry, reason, now, tell=False)
        fresh = self._fresh()
        terms = replace(fresh.own.terms, port=port, mtu=min(self.settings.mtu, message.terms.mtu))
        own = OwnEnd(fresh.own.secret, terms)
        made = Entry(peer, message.number, Role.SERVER, interface, own, message.terms)
        made.go(LinkPhase.MAKING, now + MAKE_TIME, float("inf"))
        self._entries[peer] = made
        return [*actions, Make(made.link)]

    def _accepted(self, entry: Entry, message: Accept, now: float) -> list[Action]:
        change = entry.change
        if change is not None and message.number == change.number:
            return self._rekeying.accepted(entry, change, message.terms, now)
        if entry.role is Role.SERVER:
            return []
        if entry.phase is not LinkPhase.PROPOSED:
            # Who has started anew accepts an old proposal with another key: it is to know that we have the first one.
            other = entry.theirs != message.terms and entry.phase is LinkPhase.UP
            return [self._confirm(entry)] if other else []
        if self._is_ours(message.terms) or message.terms.mtu > entry.own.terms.mtu:
            return self._end(entry, Reason.BAD_VALUES, now)
        entry.theirs = message.terms
        entry.go(LinkPhase.MAKING, now + MAKE_TIME, float("inf"))
        return [Make(entry.link)]

    def _refused(self, entry: Entry | None, message: Refuse, now: float) -> list[Action]:
        if entry is None:
            return []
        if entry.change is not None and message.number == entry.change.number:
            return self._rekeying.put_off(entry, now) if entry.role is Role.CLIENT else []
        if entry.number != message.number or entry.phase is not LinkPhase.PROPOSED:
            return []
        if message.reason is Reason.STALE and entry.tries < RENUMBERINGS:
            number = later_number(self._own, entry.peer, 0, max(message.latest, entry.number))
            if number < NUMBER_LIMIT:
                entry.number, entry.tries, entry.wait = number, entry.tries + 1, RESEND_FIRST
                return self._propose_again(entry, now)
        return self._end(entry, message.reason, now, tell=False)

    def _is_asked(self, entry: Entry, number: int, keys: tuple[bytes, bytes], now: float) -> list[Action]:
        """Whether we have a link with these keys, ours and the peer's, which it has."""
        change = entry.change
        if change is not None and number == change.number:
            return self._rekeying.confirmed(entry, change, keys, now)
        if entry.theirs is None or entry.phase in (None, LinkPhase.PROPOSED, LinkPhase.MAKING):
            return []
        if keys != (entry.own.terms.key, entry.theirs.key):
            return [*self._end(entry, Reason.UNKNOWN, now, tell=False), Send(entry.peer, NoLink(number))]
        actions = [] if entry.phase is LinkPhase.UP else self._up(entry, now)
        return actions if entry.changing else [*actions, self._done(entry)]

    def _is_told(self, entry: Entry, number: int, keys: tuple[bytes, bytes], now: float) -> list[Action]:
        """The peer has a link with these keys, ours and its own."""
        change = entry.change
        if change is not None and number == change.number:
            return self._rekeying.done(entry, change, keys, now)
        if entry.phase is LinkPhase.UP and keys != (entry.own.terms.key, entry.link.theirs.key):
            return [*self._end(entry, Reason.UNKNOWN, now, tell=False), Send(entry.peer, NoLink(number))]
        return []

    def _done(self, entry: Entry) -> Send:
        return Send(entry.peer, Done(entry.number, entry.own.terms.key, entry.link.theirs.key))

    def _unknown(self, entry: Entry | None, number: int, now: float) -> list[Action]:
        """The peer knows of no link with this number."""
        if entry is None:
            return []
        if entry.number == number and entry.phase is not LinkPhase.PROPOSED:
            return self._end(entry, Reason.UNKNOWN, now, tell=False)
        return self._forget_change(entry, number, now)

    def _forget_change(self, entry: Entry | None, number: int, now: float) -> list[Action]:
        """A change of keys that the peer knows nothing of; what it has is asked at once."""
        if entry is None or entry.change is None or entry.change.number != number:
            return []
        return [*self._rekeying.put_off(entry, now), *self._again(entry, now)]

    # -- within --

    def _up(self, entry: Entry, now: float) -> list[Action]:
        entry.go(LinkPhase.UP, float("inf"), now + CHECK_TIME)
        entry.heard = now
        self._pauses.end(entry.peer)
        self._rekeying.plan(entry, now)
        return [Up(entry.link), *([self._confirm(entry)] if entry.role is Role.CLIENT else ())]

    def _end(self, entry: Entry, reason: Reason, now: float, *, tell: bool = True) -> list[Action]:
        del self._entries[entry.peer]
        self._ports.release(entry.own.terms.port, now)
        self._names.release(entry.interface, now)
        was_up = entry.phase is LinkPhase.UP
        actions: list[Action] = [] if entry.phase is LinkPhase.PROPOSED else [Remove(entry.link)]
        if tell:
            numbers = sorted({entry.number, entry.latest})
            actions += [self._endings.tell(entry.peer, number, reason, now) for number in numbers]
        if entry.role is Role.CLIENT and not was_up and reason not in (Reason.YIELDED, Reason.REPLACED, Reason.CLOSED):
            self._pauses.begin(entry.peer, reason, pause_after(reason), now)
        return [*actions, Ended(entry.peer, entry.role, entry.interface, reason, was_up)]

    def _free_interface(self, replaced: Entry | None, now: float) -> str | None:
        """One for another client; that of the link that it replaces if there is no other."""
        used = {entry.interface for entry in self._entries.values()}
        free = self._names.free(self.settings.interfaces, used, now)
        if free is None and replaced is not None and replaced.interface in self.settings.interfaces:
            return replaced.interface
        return free

    def _free_port(self, now: float) -> int | None:
        used = {entry.own.terms.port for entry in self._all_entries()}
        return self._ports.free(self.settings.ports, used, now)

    def _is_ours(self, terms: Terms) -> bool:
        """Whether a key, or an address, is one of our own."""
        own = [entry.own.terms for entry in self._all_entries()]
        own += [entry.change.own.terms for entry in self._all_entries() if entry.change is not None]
        return any(terms.key == each.key or terms.address == each.address for each in own)

    def _all_entries(self) -> Iterator[Entry]:
        yield from self._entries.values()
        for other in self._beside():
            yield from other._entries.values()
