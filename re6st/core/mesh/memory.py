"""Which peers a node remembers, and in which order the addresses of each (wire.md 10.2)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from random import Random

from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Endpoint

PEER_LIMIT = 200
"""Peers that are remembered while a node runs."""
KEPT = 10
"""Peers that are remembered for the next start, at least."""


def in_order(known: tuple[Endpoint, ...], told: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """The addresses that a peer told, those first that are known already: the first of them worked."""
    return (*(each for each in known if each in told), *(each for each in told if each not in known))


def worked_first(known: tuple[Endpoint, ...], worked: Endpoint) -> tuple[Endpoint, ...]:
    """The addresses of a peer, that which worked before the others; as they are, if it is none of them."""
    return (worked, *(each for each in known if each != worked)) if worked in known else known


def makes_room(known: Collection[Prefix], is_spare: Callable[[Prefix], bool], chance: Random) -> Prefix | None:
    """Who is forgotten before one more peer is remembered: one who is spare, or else anybody. None: there is room."""
    if len(known) < PEER_LIMIT:
        return None
    return chance.choice([peer for peer in known if is_spare(peer)] or [*known])


def worth_keeping(known: Collection[Prefix], neighbours: Container[Prefix], client_count: int) -> list[Prefix]:
    """Whom to remember for the next start of a node that wants so many client tunnels: those next to us first."""
    return sorted(known, key=lambda peer: peer not in neighbours)[: max(client_count, KEPT)]
