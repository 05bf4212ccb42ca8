"""Budgets for what others may make us do: a bucket for each sender, and one for all behind it.

A budget that one sender can use up for everybody is none. So whoever has much to ask empties his own bucket first, and
whom we know has one of his own that strangers cannot touch. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from re6st.core.prefix import Prefix

KEYS_LIMIT = 4096
"""Senders that a budget tells apart. Whoever was forgotten has a full bucket again: the one for all stands behind."""
SOURCE_BITS = 16
"""Bits of an address, behind the network's, that make one sender of those whom we do not know yet."""

K = TypeVar("K", bound=Hashable)


class Bucket:
    """`burst` at once, then `rate` a second."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        """Whether one more is within the rate."""
        self._fill(now)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def is_full(self, now: float) -> bool:
        """Whether nothing was taken lately."""
        self._fill(now)
        return self._left >= self._burst

    def _fill(self, now: float) -> None:
        if self._at < now:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now


class Buckets(Generic[K]):
    """A bucket for each sender, and behind those what all of them share: `rate` for each, `total` for all.

    Half of the total is kept for senders that were quiet: many noisy ones cannot use it up.
    """

    def __init__(self, rate: float, burst: float, total: float, total_burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._shared = Bucket(total / 2, total_burst / 2)
        self._reserve = Bucket(total / 2, total_burst / 2)
        self._each: OrderedDict[K, Bucket] = OrderedDict()

    def take(self, sender: K, now: float) -> bool:
        """Whether one more of this sender is within its rate and that of all."""
        own = self._each.get(sender)
        if own is None:
            own = self._each[sender] = Bucket(self._rate, self._burst)
            if len(self._each) > KEYS_LIMIT:
                self._each.popitem(last=False)
        self._each.move_to_end(sender)
        was_quiet = own.is_full(now)
        return own.take(now) and (self._shared.take(now) or (was_quiet and self._reserve.take(now)))


class HandshakeBudget:
    """The public-key work of sessions. Measured with RSA-2048: a certificate is verified in 0.12 ms, a signature in
    0.03; an offer is signed in 0.44, one is decrypted in 0.4.

    Whom we greeted, whom we know, and strangers do not share anything. Strangers that the routing table knows have more
    than others: our answer would not get to anybody else, and an address that has no route costs its inventor nothing.
    """

    def __init__(self) -> None:
        self._awaited: Buckets[Prefix] = Buckets(2, 8, 200, 200)
        self._known: Buckets[Prefix] = Buckets(1, 4, 60, 120)
        self._routed: Buckets[Prefix] = Buckets(2, 8, 400, 400)
        self._others: Buckets[Prefix] = Buckets(2, 8, 50, 100)
        self._signatures: Buckets[Prefix] = Buckets(20, 40, 400, 400)

    def offer(self, peer: Prefix, awaited: bool, now: float) -> bool:
        """Whether we may make a secret for this peer, or read one; `awaited`: we have greeted it."""
        return (self._awaited if awaited else self._known).take(peer, now)

    def certificate(self, source: Prefix, routed: bool, awaited: bool, now: float) -> bool:
        """Whether we may verify the certificate that came from this address."""
        if awaited:
            return self._awaited.take(source, now)
        key = (
            Prefix(source.value >> source.length - SOURCE_BITS, SOURCE_BITS) if source.length > SOURCE_BITS else source
        )
        return (self._routed if routed else self._others).take(key, now)

    def signature(self, peer: Prefix, now: float) -> bool:
        """Whether we may verify the signature under an offer of a peer that we have greeted."""
        return self._signatures.take(peer, now)
