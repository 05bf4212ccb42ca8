"""transport/wireguard.py over the kernel's WireGuard: three machines agree on links, each with each other one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations

import pytest

from re6st.core.prefix import Prefix
from re6st.core.transport import wireguard_agreement, wireguard_rekeying
from re6st.linux.wireguard_kernel import KernelWireGuard
from testbed import Bed, wait_until
from tests.link_machine import LinkMachine

SOON = 60
"""Seconds, under emulation."""
KEY_LIFE = 5.0


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[LinkMachine]]:
    for module in (wireguard_agreement, wireguard_rekeying):
        monkeypatch.setattr(module, "DIAL_TIME", 30.0)  # seconds are short here
    by_prefix: dict[Prefix, LinkMachine] = {}
    with Bed() as bed:
        three = [
            LinkMachine(bed.host(f"machine{number}"), number, by_prefix, KernelWireGuard, KEY_LIFE)
            for number in range(1, 4)
        ]
        for each in three:
            each.start()
        yield three
        for each in three:
            each.end()
            assert sorted(each.host.interfaces()) == ["eth0", "lo"]


def test_three_machines_have_links_that_carry_packets_and_change_their_keys(machines: list[LinkMachine]) -> None:
    for one, other in combinations(machines, 2):
        one.open(other)
    pairs = list(permutations(machines, 2))
    wait_until(lambda: all(one.link(other) for one, other in pairs), SOON, "each has a link with each")
    assert all(one.reaches(other) for one, other in pairs)
    assert [each.process for each in machines] == [None] * 3, "the kernel carries them"
    first = {(one, other): link.own for one, other in pairs if (link := one.link(other))}

    def changed() -> bool:
        assert not any(each.gone for each in machines)
        now = {(one, other): link.own for one, other in pairs if (link := one.link(other))}
        return all(now[pair].terms.key != own.terms.key for pair, own in first.items())

    wait_until(changed, SOON, "the keys of all links are changed")
    for each in machines:
        each.keep_keys()
    wait_until(lambda: all(one.reaches(other) for one, other in pairs), SOON, "packets pass again")
