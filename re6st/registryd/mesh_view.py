"""What the registry tells about the mesh after asking the nodes: first peers, versions, topology (wire.md 3.4)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from re6st.core.prefix import Prefix, PrefixError
from re6st.core.routing.regions import region_of
from re6st.core.wire.datagrams import Code, Endpoint, format_addresses, outside, parse_addresses
from re6st.registryd.local_node import LocalNode

CANDIDATES_LIFE = 60.0
"""Seconds for which a list of babeld's routes may be used to choose candidates."""
CANDIDATES_REST = 2.0
"""Seconds until babeld is asked again when all candidates had their turn."""
CANDIDATE_TIME = 1.0
"""Seconds to wait for a candidate's answer before the next one is tried."""
CANDIDATES_TRIED = 2
BESIDE_TRIED = 2
"""The same of those of the region of the caller, where the network has regions."""
BOOTSTRAP_TIME = 3.0
COUNTRY_PROTOCOL = 7
"""Older clients do not know the fourth field of an address (wire.md 6.7)."""
TOPOLOGY_LIMIT = 4096
"""Number of nodes that one node's answer may name."""
UNROUTED_LIMIT = 64
"""Number of them that are believed without a route: they may be joining, or invented. They are not asked."""
VERSION_LIMIT = 200
"""Characters of a node's version."""


class MeshView:
    """The mesh as the registry's own node sees it."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node
        self._random = random.SystemRandom()
        self._candidates: list[Prefix] = []
        self._dumped = float("-inf")
        self._dump: asyncio.Task[list[Prefix]] | None = None

    def announce(self, own: Prefix) -> None:
        """Tell the registry's own node that there are new parameters (wire.md 5.2)."""
        self._node.tell(own, Code.VERSION)

    async def bootstrap(
        self, own: Prefix, caller: Prefix, protocol: int, room: int, beside: Sequence[Prefix] = (), regions: int = 0
    ) -> bytes | None:
        """A peer for a newcomer, and its addresses, in at most `room` bytes; None if nobody answers in time.

        Two of those `beside` it are asked first, by chance. Other candidates take turns; `own`, the registry's own
        node, is the last resort. The caller itself is never returned. Prefixes of so many bits are `regions`, where the
        network has them.
        """
        try:
            async with asyncio.timeout(BOOTSTRAP_TIME):
                tried = {caller}
                others = [each for each in beside if each != caller]
                for candidate in self._random.sample(others, min(BESIDE_TRIED, len(others))):
                    if text := await self._peer(candidate, protocol, room, CANDIDATE_TIME):
                        return text
                for _ in range(2 * CANDIDATES_TRIED):
                    candidate = await self._next_candidate(own)
                    if candidate in tried or candidate.length == regions:
                        continue
                    if text := await self._peer(candidate, protocol, room, CANDIDATE_TIME):
                        return text
                    tried.add(candidate)
                    if len(tried) > CANDIDATES_TRIED:
                        break
                if own not in tried:
                    return await self._peer(own, protocol, room, BOOTSTRAP_TIME)
        except TimeoutError:
            pass
        return None

    async def addresses(self, prefix: Prefix, timeout: float = BOOTSTRAP_TIME) -> tuple[Endpoint, ...]:
        """Where a node listens; empty if it does not answer."""
        answer = await self._node.ask(prefix, Code.ADDRESS, timeout)
        return outside(parse_addresses((answer or b"").decode("utf-8", "replace")), self._node.network)

    async def is_routed(self, own: Prefix, prefix: Prefix, regions: int = 0) -> bool:
        """Whether there is a route to a node, or to its region."""
        return prefix == own or not {prefix, region_of(prefix, regions)}.isdisjoint(await self._node.routed())

    async def versions(self, own: Prefix, regions: int = 0) -> dict[str, str | None]:
        """By prefix in bits, the software of each node that has a route; None for one that does not answer.

        Where prefixes of so many bits are regions, those of other regions that the tunnels lead to.
        """
        if regions:
            known = [Prefix.from_cn(cn) for cn in (await self.topology(own, regions))[""]]
        else:
            known = await self._node.routed()
        answers = await self._node.survey([own, *known], Code.SOFTWARE)
        return {
            prefix.bits: None if answer is None else answer.decode("utf-8", "replace")[:VERSION_LIMIT]
            for prefix, answer in answers.items()
        }

    async def topology(self, own: Prefix, regions: int = 0) -> dict[str, list[str]]:
        """By CN, the nodes with which a node has client tunnels; under the empty CN, the nodes that answered.

        Where prefixes of so many bits are regions, a node of another one has a route if its region has.
        """
        tunnels: dict[Prefix, set[Prefix]] = {}
        routes = await self._node.routes()
        routed = None if routes is None else frozenset((own, *routes))

        def is_routed(peer: Prefix) -> bool:
            return routed is None or peer in routed or (regions > 0 and region_of(peer, regions) in routed)

        def follow(prefix: Prefix, answer: bytes) -> Iterable[Prefix]:
            ours, clients = (_believable(peers, is_routed) for peers in parse_topology(answer))
            tunnels.setdefault(prefix, set()).update(ours)
            for client in clients:
                tunnels.setdefault(client, set()).add(prefix)
            return list(filter(is_routed, ours + clients))

        answers = await self._node.survey([own], Code.TOPOLOGY, follow)
        graph = {prefix.cn: [peer.cn for peer in sorted(peers)] for prefix, peers in sorted(tunnels.items())}
        return graph | {"": [prefix.cn for prefix, answer in sorted(answers.items()) if answer is not None]}

    async def _peer(self, prefix: Prefix, protocol: int, room: int, timeout: float) -> bytes | None:
        """The answer of getBootstrapPeer about a node: with as many of its addresses as fit."""
        endpoints = await self.addresses(prefix, timeout)
        if protocol < COUNTRY_PROTOCOL:
            endpoints = tuple(replace(endpoint, country="") for endpoint in endpoints)
        while endpoints:
            text = f"{prefix.bits} {format_addresses(endpoints)}".encode()
            if len(text) <= room:
                return text
            endpoints = endpoints[:-1]
        return None

    async def _next_candidate(self, own: Prefix) -> Prefix:
        now = asyncio.get_running_loop().time()
        age = now - self._dumped
        if age > CANDIDATES_LIFE or not self._candidates:
            if age > CANDIDATES_REST or self._dump is None:
                self._dumped = now
                self._dump = asyncio.create_task(self._node.routed(), name="routed")
            routed = await asyncio.shield(self._dump)
            if not self._candidates:
                self._candidates = list({own, *routed})
                self._random.shuffle(self._candidates)
        return self._candidates.pop()


def parse_topology(answer: bytes) -> tuple[list[Prefix], list[Prefix]]:
    """The peers of a node's client tunnels, and the clients of its servers (wire.md 6.5, code 5).

    Parts that cannot be read are left out.
    """
    number, *words = answer.decode("ascii", "replace").split()[: TOPOLOGY_LIMIT + 1] or ["0"]
    count = int(number) if number.isdecimal() and len(number) < 6 else 0
    return _prefixes(words[:count]), _prefixes(words[count:])


def _believable(peers: list[Prefix], is_routed: Callable[[Prefix], bool]) -> list[Prefix]:
    """The peers of one node that have a route, and a few that have none."""
    unrouted = [peer for peer in peers if not is_routed(peer)][UNROUTED_LIMIT:]
    return [peer for peer in peers if peer not in set(unrouted)] if unrouted else peers


def _prefixes(words: Iterable[str]) -> list[Prefix]:
    found = []
    for word in words:
        try:
            found.append(Prefix.from_cn(word))
        except PrefixError:
            continue
    return found
