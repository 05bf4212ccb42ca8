"""The ends of WireGuard links that their peers are told of: each a few times, until the peer says that it has none.

For wireguard_agreement.py. All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_state import PEERS_LIMIT, RESEND_FIRST, Send
from re6st.core.wire.wireguard import End, Reason

ENDINGS = 3
"""How often an end is told."""


@dataclass(slots=True)
class _Ending:
    reason: Reason
    told: int
    again: float


class Endings:
    """Those of one node, by peer and number, within PEERS_LIMIT: the oldest is given up for a later one."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Prefix, int], _Ending] = OrderedDict()

    def tell(self, peer: Prefix, number: int, reason: Reason, now: float) -> Send:
        """Tell a peer of an end, and again later."""
        self._known[peer, number] = _Ending(reason, 1, now + RESEND_FIRST)
        while len(self._known) > PEERS_LIMIT:
            self._known.popitem(last=False)
        return Send(peer, End(number, reason))

    def is_known(self, peer: Prefix, number: int) -> None:
        """The peer has no such link either: it is told no more."""
        self._known.pop((peer, number), None)

    def deadlines(self) -> Iterator[float]:
        """When something is to be told again."""
        return (each.again for each in self._known.values())

    def tick(self, now: float) -> Iterator[Send]:
        """What is to be told again now."""
        for (peer, number), each in list(self._known.items()):
            if now >= each.again:
                yield Send(peer, End(number, each.reason))
                each.told, each.again = each.told + 1, now + RESEND_FIRST * 2**each.told
                if each.told >= ENDINGS:
                    del self._known[peer, number]
