"""The prefix for a new certificate: one that nobody uses, as far as the network shows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import AllocationError

logger = logging.getLogger("store")

TAKEN_LIMIT = 100
"""Number of prefixes that may be skipped for one certificate."""


def unused(allocate: Callable[[], Prefix], reserve: Callable[[Prefix], object], taken: Collection[Prefix]) -> Prefix:
    """The first prefix from `allocate` that neither contains nor is within one of those `taken`.

    One that is taken is reserved: a node that was forgotten uses it. Raises AllocationError.
    """
    for _ in range(TAKEN_LIMIT):
        prefix = allocate()
        if not any(each.contains(prefix) or prefix.contains(each) for each in taken):
            return prefix
        logger.warning("an unknown node uses %s: no other node gets this prefix", prefix)
        reserve(prefix)
    raise AllocationError(f"no free prefix of {prefix.length} bits that nobody uses, at {TAKEN_LIMIT} tries")
