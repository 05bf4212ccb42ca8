"""transport/wireguard.py over the kernel's WireGuard: three machines agree on links, each with each other one.

What they say to each other is handed over here; a node has authenticated sessions for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from itertools import combinations, permutations

import pytest

from re6st.core.prefix import Prefix
from re6st.core.transport import wireguard_agreement
from re6st.core.transport.wireguard_links import WireGuardLink
from re6st.core.transport.wireguard_state import Ended, LinkSettings
from re6st.core.transport.wireguard_uapi import Address
from re6st.linux.rtnetlink import Netlink
from re6st.linux.wireguard_kernel import KernelWireGuard
from re6st.transport.wireguard import WireGuardLinks
from testbed import Bed, wait_until
from testbed.host import Host

SOON = 60
"""Seconds, under emulation."""
KEY_LIFE, KEY_LIFE_AFTER = 5.0, 86400.0


class Machine:
    """A host with its links, in a thread of its own, which is in the host's namespace."""

    def __init__(self, host: Host, number: int, machines: dict[Prefix, Machine]) -> None:
        self.host = host
        self.own = Prefix(number, 16)
        self.machines = machines
        self.clients = 0
        """Interfaces of links that we opened."""
        self.process: tuple[int, str] | None = None
        self.gone: list[Ended] = []
        self._there = threading.Event()
        self._thread = threading.Thread(target=lambda: host.namespace.call(lambda: asyncio.run(self._live())))

    def start(self) -> None:
        self._thread.start()
        assert self._there.wait(SOON)

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(SOON)
        assert not self._thread.is_alive()

    async def _live(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        netlink = Netlink()
        kernel = KernelWireGuard(netlink)
        settings = LinkSettings(range(51820, 51830), ("re6stnet11", "re6stnet12"), key_life=KEY_LIFE)
        self.links = WireGuardLinks(
            self.own, settings, kernel, netlink, self, lambda live, name: asyncio.create_task(live, name=name)
        )
        running = asyncio.create_task(self.links.run())
        self._there.set()
        await self._ended.wait()
        await self.links.end()
        running.cancel()
        kernel.close()
        netlink.close()

    def open(self, peer: Machine) -> None:
        self.clients += 1
        self.loop.call_soon_threadsafe(self.links.open, peer.own, f"re6stnet{self.clients}")

    def keep_keys(self) -> None:
        """Change none any more, but those that are due."""
        agreement = self.links.agreement
        agreement.settings = replace(agreement.settings, key_life=KEY_LIFE_AFTER)

    def link(self, peer: Machine) -> WireGuardLink | None:
        return self.links.agreement.links.get(peer.own)

    def reaches(self, peer: Machine) -> bool:
        """Whether packets as large as the link carries go there and back."""
        link = self.link(peer)
        assert link is not None
        ping = ["ping", "-6", "-n", "-q", "-c", "1", "-W", "5", "-M", "do", "-s", str(link.mtu - 48)]
        target = f"{link.theirs.address}%{link.interface}"
        return self.host.run([*ping, target], check=False).returncode == 0

    # --- what its links ask and tell ---

    def say(self, peer: Prefix, body: bytes) -> None:
        other = self.machines[peer]
        other.loop.call_soon_threadsafe(other.links.received, self.own, body)

    def admits(self, peer: Prefix) -> bool:
        return True

    def hosts(self, peer: Prefix) -> list[Address]:
        return [ip_address(self.machines[peer].host.address)]

    def made(self, interface: str) -> None: ...

    async def leaving(self, interface: str) -> None: ...

    def confirmed(self, link: WireGuardLink) -> None: ...

    def met(self, link: WireGuardLink, moved: bool) -> None: ...

    def up(self, link: WireGuardLink, process: tuple[int, str] | None) -> None:
        self.process = self.process or process

    def ended(self, ended: Ended) -> None:
        self.gone.append(ended)


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Machine]]:
    monkeypatch.setattr(wireguard_agreement, "DIAL_TIME", 30.0)  # seconds are short here
    by_prefix: dict[Prefix, Machine] = {}
    with Bed() as bed:
        for number in range(1, 4):
            machine = Machine(bed.host(f"machine{number}"), number, by_prefix)
            by_prefix[machine.own] = machine
        three = list(by_prefix.values())
        for each in three:
            each.start()
        yield three
        for each in three:
            each.end()
            assert sorted(each.host.interfaces()) == ["eth0", "lo"]


def test_three_machines_have_links_that_carry_packets_and_change_their_keys(machines: list[Machine]) -> None:
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
