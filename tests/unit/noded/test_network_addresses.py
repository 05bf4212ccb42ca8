"""Addresses that the network gives and takes, on a machine that does not always do what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from ipaddress import IPv6Network
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from re6st.core.machine.wanted_state import AddressPlan
from re6st.linux.kernel import KernelError
from re6st.noded.left_behind import noted
from re6st.noded.network_addresses import NetworkAddresses

NETWORK = IPv6Network("2001:db8:42::/48")
ALL = [AddressPlan(NETWORK, NETWORK[number], 128, (NETWORK,)) for number in range(4)]


class Machine:
    def __init__(self) -> None:
        self.there: set[AddressPlan] = set()
        self.fails = False

    async def have(self, plans: Iterable[AddressPlan], interface: str) -> None:
        if self.fails and self.there != set(plans):
            raise KernelError("the machine does not")
        self.there = set(plans)


@given(st.lists(st.tuples(st.sets(st.sampled_from(ALL)), st.booleans()), max_size=8))
def test_whatever_failed_before_the_machine_has_what_is_wanted_once_it_does(
    steps: list[tuple[set[AddressPlan], bool]],
) -> None:
    async def follow(run: Path) -> None:
        machine = Machine()
        addresses = NetworkAddresses(machine, "lo", run)
        wanted: set[AddressPlan] = set()
        for wanted, machine.fails in steps:
            done = await addresses.follow(wanted)
            assert done == (machine.there == wanted)
            assert set(noted(run)) >= machine.there, "what no daemon could take away otherwise"
        machine.fails = False
        assert await addresses.follow(wanted)
        assert machine.there == wanted == set(noted(run))

    with TemporaryDirectory() as run:
        asyncio.run(follow(Path(run)))
