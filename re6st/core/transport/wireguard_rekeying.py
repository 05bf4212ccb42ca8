"""How the keys of a WireGuard link change, with what its two ends say about it: for wireguard_agreement.py.

    client                                   server
      propose (number, link, terms) -------->
             <------------------------------  accept (terms)
      confirm ------------------------------>
             <------------------------------  done, twice
      CHANGE_DELAY later, both have the new keys on their interfaces; the client dials until there is a handshake

All of it may go by the link itself, which carries nothing while its ends have different keys. So the server speaks
before it changes; and where its word does not come, the client changes too, after a while. All else of the link stays.
Whoever gives a change up tries again later with the keys that there are.
All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_links import OwnEnd
from re6st.core.transport.wireguard_state import (
    CHANGE_AGAIN,
    CHANGE_DELAY,
    CHANGE_DIAL,
    CHANGE_KEPT,
    CHANGE_MARGIN,
    CHANGE_TIME,
    CHECK_AGAIN,
    CHECK_TIME,
    DIAL_TIME,
    LIVES,
    PROPOSE_TIME,
    RESEND_FIRST,
    RESEND_LAST,
    Action,
    Change,
    Entry,
    Fresh,
    KeyChange,
    LinkPhase,
    Send,
    Up,
    later_number,
)
from re6st.core.tunnel_protocols import Role
from re6st.core.wire.wireguard import Accept, Confirm, Done, NoLink, Propose, Reason, Refuse, Terms


class Rekeying:
    """The changes of one node's links. Each method returns what is to be done, or why the link ends.

    `fresh` makes keys, `life` is the seconds that they last, as things are now, and `is_ours` says whether a peer's
    terms have a key or an address of our own.
    """

    def __init__(
        self, own: Prefix, fresh: Callable[[], Fresh], life: Callable[[], float], is_ours: Callable[[Terms], bool]
    ) -> None:
        self._own = own
        self._fresh = fresh
        self._life = life
        self._is_ours = is_ours

    # -- time --

    def plan(self, entry: Entry, made: float) -> None:
        """The link has keys of that time: after their life its client changes them, else the link ends at both ends."""
        entry.change_at = made + self._life() if entry.role is Role.CLIENT else float("inf")
        entry.over_at = made + LIVES * self._life()

    def tick(self, entry: Entry, now: float) -> list[Action] | Reason:
        """Do what is due for a link that is up."""
        change = entry.change
        if now >= entry.over_at:
            return Reason.OLD_KEYS
        if change is None:
            return self._begin(entry, now) if now >= entry.change_at else []
        confirmed = change.theirs is not None and entry.role is Role.CLIENT
        if now >= change.at or (now >= change.until and confirmed):
            return self._switch(entry, change, now)
        if now >= change.until:
            return self.put_off(entry, now)
        return self._say_again(entry, change, now) if now >= change.resend else []

    def _begin(self, entry: Entry, now: float) -> list[Action]:
        """Propose other keys; not of a link by which nothing comes in."""
        if now - entry.heard >= CHECK_TIME:
            entry.change_at = now + CHECK_TIME
            return []
        own, clock = self._other_keys(entry)
        number = later_number(self._own, entry.peer, clock, entry.number)
        entry.change = KeyChange(number, own, None, now + PROPOSE_TIME, now)
        return self._say_again(entry, entry.change, now)

    def _say_again(self, entry: Entry, change: KeyChange, now: float) -> list[Action]:
        change.resend, change.wait = now + change.wait, min(2 * change.wait, RESEND_LAST)
        if change.theirs is None:
            return [Send(entry.peer, Propose(change.number, entry.number, change.own.terms))]
        keys = change.own.terms.key, change.theirs.key
        if entry.role is Role.CLIENT:
            return [Send(entry.peer, Confirm(change.number, *keys))]
        change.resend = float("inf")
        return [Send(entry.peer, Done(change.number, *keys))]

    # -- what the peer says --

    def proposed(self, peer: Prefix, entry: Entry | None, message: Propose, now: float) -> list[Action]:
        """The client of a link wants other keys."""
        if entry is None or entry.number != message.replaces:
            if entry is not None and entry.number == message.number:
                return []  # it is done
            return [Send(peer, NoLink(message.replaces))]
        if entry.role is Role.CLIENT or entry.phase is not LinkPhase.UP:
            return []
        change, terms = entry.change, entry.link.theirs
        if change is not None and message.number <= change.number:
            same = message.number == change.number and message.terms == change.theirs
            return [Send(peer, Accept(change.number, change.own.terms))] if same else []
        if replace(message.terms, key=terms.key) != terms or message.terms == terms or self._is_ours(message.terms):
            return [Send(peer, Refuse(message.number, Reason.BAD_VALUES))]
        own, _ = self._other_keys(entry)
        entry.change = KeyChange(message.number, own, message.terms, now + CHANGE_KEPT, float("inf"))
        return [Send(peer, Accept(message.number, own.terms))]

    def accepted(self, entry: Entry, change: KeyChange, terms: Terms, now: float) -> list[Action]:
        """The server has other keys, too: they are confirmed."""
        if entry.role is Role.SERVER or change.theirs is not None:
            return []
        if replace(terms, key=entry.link.theirs.key) != entry.theirs or self._is_ours(terms):
            return self.put_off(entry, now)
        change.theirs, change.until, change.wait = terms, now + CHANGE_TIME, RESEND_FIRST
        return self._say_again(entry, change, now)

    def confirmed(self, entry: Entry, change: KeyChange, keys: tuple[bytes, bytes], now: float) -> list[Action]:
        """The client knows the keys, ours and its own; or the server, where we are the client, has them by now."""
        if change.theirs is None or keys != (change.own.terms.key, change.theirs.key):
            return []
        if entry.role is Role.CLIENT:
            return self._switch(entry, change, now)
        change.at = min(change.at, now + CHANGE_DELAY)
        said = self._say_again(entry, change, now)
        change.resend = now + CHANGE_DELAY / 2
        return said

    def done(self, entry: Entry, change: KeyChange, keys: tuple[bytes, bytes], now: float) -> list[Action]:
        """The server is about to have the keys, ours and its own."""
        if change.theirs is None or keys != (change.own.terms.key, change.theirs.key):
            return []
        if entry.role is Role.CLIENT:
            change.at, change.resend = min(change.at, now + CHANGE_DELAY + CHANGE_MARGIN), float("inf")
        return []

    def _switch(self, entry: Entry, change: KeyChange, now: float) -> list[Action]:
        entry.number, entry.own, entry.theirs, entry.change = change.number, change.own, change.theirs, None
        entry.heard, entry.resend = now, now + CHECK_AGAIN
        self.plan(entry, now)
        entry.changing = True
        return [Change(entry.link), Up(entry.link)]

    # -- the interface --

    def changed(self, entry: Entry, now: float) -> list[Action]:
        """It has the new keys. A server says so: there may be another way to a client that has not heard of it."""
        entry.changing = False
        if entry.role is Role.SERVER:
            return [Send(entry.peer, Done(entry.number, entry.own.terms.key, entry.link.theirs.key))]
        entry.awaited, entry.until = True, now + DIAL_TIME
        entry.resend, entry.wait = now + CHANGE_DIAL, 2 * CHANGE_DIAL
        return []

    def dial_again(self, entry: Entry, now: float) -> list[Action]:
        """Nothing has come in with the new keys yet."""
        entry.resend, entry.wait = now + entry.wait, 2 * entry.wait
        return [Change(entry.link)]

    def heard(self, entry: Entry) -> None:
        """Something has come in."""
        if not entry.changing:
            entry.awaited, entry.until = False, float("inf")

    def put_off(self, entry: Entry, now: float) -> list[Action]:
        """Keep the keys that there are, for now."""
        entry.change = None
        if entry.role is Role.CLIENT:
            entry.change_at = now + CHANGE_AGAIN
        return []

    def _other_keys(self, entry: Entry) -> tuple[OwnEnd, int]:
        """Our end of a link with a fresh key, and the clock of then."""
        fresh = self._fresh()
        return OwnEnd(fresh.own.secret, replace(entry.own.terms, key=fresh.own.terms.key)), fresh.clock
