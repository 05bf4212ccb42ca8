"""Budgets for work that others can cause: a bucket for each sender, and behind it one for all senders.

A budget is useless if one sender can use it up for everybody. So a sender with many requests empties its own bucket
first, and senders that we know have a bucket that strangers cannot touch. Times are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from re6st.core.prefix import Prefix

KEYS_LIMIT = 4096
"""Number of senders that a budget tells apart. A sender that was forgotten has a full bucket again; the bucket for all
still limits it.
"""
SOURCE_BITS = 16
"""A sender that we do not know yet is identified by this many bits of its address, after those of the network."""

K = TypeVar("K", bound=Hashable)


class Bucket:
    """Allows `burst` at once, then `rate` a second."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        """Take one, if the rate allows it."""
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
    """A bucket for each sender (`rate`), and behind these one that all senders share (`total`).

    Half of the total is reserved for senders that were quiet, so that many noisy ones cannot use it up.
    """

    def __init__(self, rate: float, burst: float, total: float, total_burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._shared = Bucket(total / 2, total_burst / 2)
        self._reserve = Bucket(total / 2, total_burst / 2)
        self._each: OrderedDict[K, Bucket] = OrderedDict()

    def take(self, sender: K, now: float) -> bool:
        """Take one, if both the sender's rate and the rate of all allow it."""
        own = self._each.get(sender)
        if own is None:
            own = self._each[sender] = Bucket(self._rate, self._burst)
            if len(self._each) > KEYS_LIMIT:
                self._each.popitem(last=False)
        self._each.move_to_end(sender)
        was_quiet = own.is_full(now)
        return own.take(now) and (self._shared.take(now) or (was_quiet and self._reserve.take(now)))


class HandshakeBudget:
    """The public-key operations of sessions. Measured with RSA-2048: verifying a certificate takes 0.12 ms, a signature
    0.03; signing an offer takes 0.44 ms, decrypting one 0.4.

    Peers that we greeted, peers that we know, and strangers have separate budgets. Strangers to whom we have a route
    get more than others: our answer would not reach the others, and inventing addresses without a route costs nothing.
    """

    def __init__(self) -> None:
        self._awaited: Buckets[Prefix] = Buckets(2, 8, 200, 200)
        self._known: Buckets[Prefix] = Buckets(1, 4, 60, 120)
        self._routed: Buckets[Prefix] = Buckets(2, 8, 400, 400)
        self._others: Buckets[Prefix] = Buckets(2, 8, 50, 100)
        self._signatures: Buckets[Prefix] = Buckets(20, 40, 400, 400)

    def offer(self, peer: Prefix, awaited: bool, now: float) -> bool:
        """Whether we may make or read a secret for this peer; `awaited`: we have greeted it."""
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
        """Whether we may verify the signature of an offer from a peer that we have greeted."""
        return self._signatures.take(peer, now)
