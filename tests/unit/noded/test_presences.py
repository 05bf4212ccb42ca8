"""Addresses that the network gives and takes, on a machine that does not always do what it is told."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Network
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from re6st.linux.kept_state import Presence
from re6st.linux.kernel import KernelError
from re6st.noded.left_behind import noted
from re6st.noded.network_addresses import Presences

NETWORK = IPv6Network("2001:db8:42::/48")
ALL = [Presence(NETWORK, NETWORK[number], 128, (NETWORK,)) for number in range(4)]


class Machine:
    def __init__(self) -> None:
        self.there: set[Presence] = set()
        self.fails = False

    async def enter(self, presence: Presence, main: str) -> None:
        self._try()
        assert presence not in self.there
        self.there.add(presence)

    async def leave(self, presence: Presence, main: str) -> None:
        self._try()
        self.there.remove(presence)

    def _try(self) -> None:
        if self.fails:
            raise KernelError("the machine does not")


@given(st.lists(st.tuples(st.sets(st.sampled_from(ALL)), st.booleans()), max_size=8))
def test_whatever_failed_before_the_machine_has_what_is_wanted_once_it_does(
    steps: list[tuple[set[Presence], bool]],
) -> None:
    async def follow(run: Path) -> None:
        machine = Machine()
        presences = Presences(machine, "lo", run)
        wanted: set[Presence] = set()
        for wanted, machine.fails in steps:
            done = await presences.follow(wanted)
            assert done == (machine.there == wanted)
            assert set(noted(run)) == machine.there, "what no daemon could take away otherwise"
        machine.fails = False
        assert await presences.follow(wanted)
        assert machine.there == wanted

    with TemporaryDirectory() as run:
        asyncio.run(follow(Path(run)))
