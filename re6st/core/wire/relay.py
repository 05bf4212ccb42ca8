"""Questions of the registry on this machine to peers, which its node passes on (wire.md 7).

Any program on the machine may ask as the registry does. So what is relayed are questions only; and the questions that
wait for an answer are shared: each user may have as many as are still free, so one more always finds room.
"""

from __future__ import annotations

from dataclasses import dataclass

from re6st.core.limits.budget import Buckets
from re6st.core.prefix import Prefix
from re6st.core.wire.datagrams import Code

RELAYED_CODES = frozenset({Code.ADDRESS, Code.SOFTWARE, Code.TOPOLOGY})
"""What a registry asks of peers. None of them changes anything there."""
TABLE_SIZE = 512
"""Questions that wait at one time."""
EACH_CODE = 128
"""Of those, of one user with one code."""
ANSWER_TIME = 3.0
"""Seconds a question waits; the registry does not wait longer either."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Waiting:
    until: float
    requester: Address
    user: int


class Relay:
    """Who waits for which answer. `user` is the one on this machine that asks, `now` seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Prefix, int], _Waiting] = {}
        self._users: Buckets[int] = Buckets(200, 400, 400, 800)
        self._peers: Buckets[tuple[int, Prefix]] = Buckets(4, 8, 800, 1600)

    def ask(self, peer: Prefix, code: int, requester: Address, user: int, now: float) -> bool:
        """Whether to ask the peer. The answer goes to who asked last, as in the older software."""
        if code not in RELAYED_CODES:
            return False
        self.expire(now)
        known = self._waiting.get((peer, code))
        if known is None and not self._has_room(user, code):
            return False
        if not (self._users.take(user, now) and self._peers.take((user, peer), now)):
            return False
        # Asking again does not make it wait longer.
        self._waiting[peer, code] = _Waiting(known.until if known else now + ANSWER_TIME, requester, user)
        return True

    def ask_us(self, user: int, now: float) -> bool:
        """Whether to answer a question about ourselves."""
        return self._users.take(user, now)

    def answered(self, peer: Prefix, code: int) -> Address | None:
        """Whom to give the answer of a peer; None where nobody waits for it any more."""
        waiting = self._waiting.pop((peer, code), None)
        return waiting.requester if waiting else None

    def expire(self, now: float) -> None:
        """Forget what was not answered in time."""
        while self._waiting:  # they stand in the order in which they began
            oldest = next(iter(self._waiting))
            if self._waiting[oldest].until > now:
                return
            del self._waiting[oldest]

    def __len__(self) -> int:
        return len(self._waiting)

    def _has_room(self, user: int, code: int) -> bool:
        codes = [asked for (_, asked), waiting in self._waiting.items() if waiting.user == user]
        return len(codes) < TABLE_SIZE - len(self._waiting) and codes.count(code) < EACH_CODE
