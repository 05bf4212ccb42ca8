"""The tunnels of a node: what one held is given back, however its end is cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from re6st import cert
from re6st.core import interfaces
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.routing.survey import Survey
from re6st.core.transport.records import ClientRecord
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.noded import server_rollout
from re6st.noded.contracts import BabelFilter
from re6st.noded.settings import EffectiveConfig
from re6st.noded.takeover import Found
from re6st.noded.tunnel_parts import TunnelParts
from re6st.noded.tunnels import Tunnels
from re6st.service.tasks import Tasks, end
from re6st.tunnel import Connected, Dialer, FoundClient
from tests.unit.core.mesh.test_uplink_choice import choice, line
from tests.unit.fake_program import until
from tests.unit.tunnel_doubles import (
    BusyKernel,
    FakeDialer,
    FakeFactory,
    FakeFilter,
    FakeKernel,
    FakeLinks,
    effective_config,
    parts_of,
)

PEER = Prefix(4, 16)
SOMEWHERE = (Endpoint("192.0.2.1", 1194, TunnelProtocol.UDP),)


def tunnels_of(parts: TunnelParts, *, drains: BabelFilter | None = None, found: Found | None = None) -> Tunnels:
    """Those of a node that is alone in its tests."""
    return Tunnels(parts, drains or FakeFilter(), lambda _: None, found or Found())


@pytest.fixture
def effective(tmp_path: Path, nodes: dict[str, cert.Identity]) -> EffectiveConfig:
    return effective_config(tmp_path, nodes["1/16"])


@pytest.mark.parametrize("encrypt", [True, False])
def test_where_encryption_begins_servers_wait_for_the_clients(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nodes: dict[str, cert.Identity], encrypt: bool
) -> None:
    """A server in clear takes clients that encrypt; one that encrypts and a client in clear do not understand."""
    effective = effective_config(tmp_path, nodes["1/16"], (1194, TunnelProtocol.TCP))
    later = effective.follow(replace(effective.parameters, encrypt=True), nodes["1/16"])
    log: list[str] = []
    monkeypatch.setattr(server_rollout, "CHANGE_OVER", 0.05)
    monkeypatch.setattr(server_rollout, "CHANGE_POLL", 0.01)
    before, after = (effective, later) if encrypt else (later, effective)

    async def run() -> None:
        async with Tasks() as tasks:

            def event(what: policy.Event) -> None:
                if isinstance(what, policy.TunnelsOutdated):
                    log.append("clients are outdated")
                    asyncio.get_running_loop().call_later(0.05, again)

            def again() -> None:
                log.append("the client is made anew")
                tunnels._clients[PEER].config_digest = FakeFactory(after).config_digest()

            parts = parts_of(before, tasks, event=event, factory=lambda now: FakeFactory(now, log))
            tunnels = tunnels_of(parts)
            await tunnels.servers.serve({})
            tunnels.open(PEER, SOMEWHERE)
            await until(lambda: tunnels._clients[PEER].config_digest)
            parts.in_force.effective = after
            await tunnels.renew(Survey)
            await until(lambda: "the client is made anew" in log)
            await tasks.end_all()

    asyncio.run(run())
    client, server = ["clients are outdated", "the client is made anew"], ["it ends", "a server starts, "]
    if encrypt:
        assert log[:5] == ["a server starts, clear", *client, server[0], server[1] + "encrypted"]
    else:
        assert log[:5] == ["a server starts, encrypted", server[0], server[1] + "clear", *client]


def test_a_tunnel_that_is_cut_twice_gives_its_interface_back(effective: EffectiveConfig) -> None:
    """Its address is lost while it ends, or its certificate is revoked."""
    kernel, drains = FakeKernel(), FakeFilter()
    events: list[policy.Event] = []

    async def run() -> None:
        async with Tasks() as tasks:
            tunnels = tunnels_of(parts_of(effective, tasks, kernel, event=events.append), drains=drains)
            tunnels.open(PEER, SOMEWHERE)
            await until(lambda: tunnels._taps)
            (tap,) = tunnels._taps
            tunnels.close(PEER)
            await until(lambda: kernel.bounced)
            tunnels.close(PEER)
            await until(lambda: PEER not in tunnels)
            assert (tunnels._taps, drains.undone) == (set(), [tap])
        assert events == [policy.TunnelDown(PEER)]

    asyncio.run(run())


def test_a_tunnel_that_is_closed_in_the_moment_it_is_opened_is_told_as_down(effective: EffectiveConfig) -> None:
    """A task that is cancelled before its first step would tell nobody, and the policy would wait for ever."""
    events: list[policy.Event] = []

    async def run() -> None:
        async with Tasks() as tasks:
            tunnels = tunnels_of(parts_of(effective, tasks, event=events.append))
            tunnels.open(PEER, SOMEWHERE)
            tunnels.close(PEER)
            await until(lambda: PEER not in tunnels)
        assert events == [policy.TunnelDown(PEER)]

    asyncio.run(run())


@pytest.mark.parametrize("closed", [False, True], ids=["the link ends", "the tunnel is closed"])
def test_a_tunnel_that_a_link_carries_is_held_until_that_ends(effective: EffectiveConfig, closed: bool) -> None:
    events: list[policy.Event] = []

    async def run() -> None:
        async with Tasks() as tasks:
            drains, links = FakeFilter(), FakeLinks()
            tunnels = tunnels_of(parts_of(effective, tasks, event=events.append, links=links), drains=drains)
            tunnels.open(PEER, SOMEWHERE)
            await until(lambda: bool(tunnels._taps))
            (tap,) = tunnels._taps
            await until(lambda: tunnels._clients[PEER].dialling is not None)
            links.carried[PEER] = asyncio.Event()
            tunnels.retire(PEER)
            await until(lambda: drains.undone == [tap])
            assert PEER in tunnels
            assert tunnels._taps == set(), "another tunnel may have its interface"
            assert tunnels.outdated_clients() == frozenset()
            assert tunnels.openvpn_tunnels() == {}
            assert events == []
            if closed:
                tunnels.close(PEER)
            else:
                links.carried.pop(PEER).set()
            await until(lambda: PEER not in tunnels)
        assert links.ended == [PEER]
        assert events == [policy.TunnelDown(PEER)]

    asyncio.run(run())


def test_who_has_one_tunnel_dials_none_while_a_link_of_an_earlier_daemon_carries_it(effective: EffectiveConfig) -> None:
    async def run() -> None:
        async with Tasks() as tasks:
            kernel, links = BusyKernel(), FakeLinks()
            links.carried[PEER] = asyncio.Event()
            tunnels = tunnels_of(parts_of(effective, tasks, kernel, links=links))
            tasks.start(tunnels.follow(), "--client")
            await asyncio.sleep(0.05)
            assert kernel.tries == 0
            links.carried.pop(PEER).set()
            await until(lambda: kernel.tries > 0)
            await tasks.end_all()

    asyncio.run(run())


class GoingOn(FakeDialer):
    """A tunnel that an earlier daemon left up."""

    def __init__(self, found: FoundClient, told: Callable[[Connected], Awaitable[None]]) -> None:
        super().__init__(found.connected.interface, found.connected.peer, connected=True)
        self._found = found
        self._told = told
        self.ended = False

    async def run(self) -> bool:
        await self._told(self._found.connected)
        try:
            await asyncio.sleep(60)
        finally:
            self.ended = True
        return True


@pytest.mark.parametrize("interface", ["re6stnet1", interfaces.SOLE])
@pytest.mark.parametrize(("serial", "stays"), [(12, True), (77, False), (None, False)])
def test_a_tunnel_to_who_was_revoked_while_the_daemon_was_replaced_is_ended_at_once(
    effective: EffectiveConfig, interface: str, serial: int | None, stays: bool
) -> None:
    """OpenVPN itself looks again only when the keys of the tunnel change, an hour later at worst."""
    config = replace(effective.config, remotes=SOMEWHERE if interface == interfaces.SOLE else ())
    effective = replace(effective, config=config, parameters=replace(effective.parameters, crl=frozenset({77})))
    record = ClientRecord(4711, "as now", "openvpn", PEER, SOMEWHERE[0], serial, None, 1500, 1e9)
    events: list[policy.Event] = []
    dialers: list[GoingOn] = []

    class Factory(FakeFactory):
        def dialer(self, *words: Any) -> Dialer:
            if words[4] is None:
                return FakeDialer(words[0], words[1])
            dialers.append(GoingOn(words[4], words[3]))
            return dialers[-1]

    async def run() -> None:
        async with Tasks() as tasks:
            found = Found(clients={interface: record})
            tunnels = tunnels_of(parts_of(effective, tasks, event=events.append, factory=Factory), found=found)
            tunnels.go_on()
            if interface == interfaces.SOLE:
                tasks.start(tunnels.follow(), "--client")
            await until(lambda: dialers and any(isinstance(e, policy.TunnelUp | policy.TunnelDown) for e in events))
            assert dialers[0].ended is not stays
            assert (PEER in tunnels) is stays
            ups = [event for event in events if isinstance(event, policy.TunnelUp)]
            assert bool(ups) is stays
            await tasks.end_all()

    asyncio.run(run())


@pytest.mark.parametrize("retired", [True, False], ids=["for a link", "by a stop meanwhile"])
def test_the_only_tunnel_leaves_its_interface_unmuted_and_a_stop_does_not_wait_for_its_link(
    effective: EffectiveConfig, retired: bool
) -> None:
    """It was muted so that routes moved to the link. The next tunnel on it comes when the link has died."""
    effective = replace(effective, config=replace(effective.config, remotes=SOMEWHERE))
    record = ClientRecord(4711, "as now", "openvpn", PEER, SOMEWHERE[0], 12, None, 1500, 1e9)

    class Factory(FakeFactory):
        def dialer(self, *words: Any) -> Dialer:
            return GoingOn(words[4], words[3])

    async def run() -> None:
        async with Tasks() as tasks:
            drains, links = FakeFilter(), FakeLinks()
            parts = parts_of(effective, tasks, factory=Factory, links=links)
            tunnels = tunnels_of(parts, found=Found(clients={interfaces.SOLE: record}), drains=drains)
            tunnels.go_on()
            follows = tasks.start(tunnels.follow(), "--client")
            await until(lambda: PEER in tunnels)
            links.carried[PEER] = asyncio.Event()
            if retired:
                tunnels.retire(PEER)
                await until(lambda: drains.undone == [interfaces.SOLE])
                assert PEER in tunnels
            async with asyncio.timeout(5):
                await end(follows)
            assert drains.undone == [interfaces.SOLE]
            assert links.ended == [PEER]
            assert PEER not in tunnels

    asyncio.run(run())


# --- over several uplinks ---

OTHER = Prefix(5, 16)


class Lines:
    """Tunnels over two lines: those that were dialled come up where a test says so."""

    def __init__(self, effective: EffectiveConfig, tasks: Tasks) -> None:
        self.choice = choice(line("a"), line("b"))
        self.dialled: dict[Prefix | None, tuple[int, tuple[str, ...], Callable[[Connected], Awaitable[None]]]] = {}
        self.events: list[policy.Event] = []
        self.links = FakeLinks()
        self.dialers: dict[Prefix | None, FakeDialer] = {}
        lines = self

        class Factory(FakeFactory):
            def dialer(
                self,
                interface: str,
                peer: Prefix | None,
                endpoints: Sequence[Endpoint],
                connected: Callable[[Connected], Awaitable[None]],
                found: FoundClient | None,
                mark: int = 0,
            ) -> Dialer:
                lines.dialled[peer] = mark, tuple(each.host for each in endpoints), connected
                lines.dialers[peer] = FakeDialer(interface, peer)
                return lines.dialers[peer]

        parts = parts_of(
            effective, tasks, event=self.events.append, links=self.links, factory=Factory, uplinks=self.choice
        )
        self.tunnels = tunnels_of(parts)

    async def up(self, peer: Prefix, source: str, *, interface: str = "re6stnet1") -> None:
        dialer = self.dialers[peer]
        dialer.connected, dialer.since, dialer.source = True, 1.0, ip_address(source)
        dialer.endpoint = SOMEWHERE[0]
        await self.dialled[peer][2](Connected(peer, SOMEWHERE[0], interface, 7, None, 1500, ip_address(source)))


def with_lines(effective: EffectiveConfig, steps: Callable[[Lines], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Tasks() as tasks:
            await steps(Lines(effective, tasks))
            await tasks.end_all()

    asyncio.run(run())


def test_each_tunnel_is_bound_to_a_line_and_the_policy_is_told_which(effective: EffectiveConfig) -> None:
    async def steps(lines: Lines) -> None:
        places = (*SOMEWHERE, Endpoint("2001:db8::7", 1194, TunnelProtocol.UDP6))
        for peer in (PEER, OTHER):
            lines.tunnels.open(peer, places)
            await until(lambda peer=peer: peer in lines.dialled)  # type: ignore[misc]
        assert [lines.dialled[peer][:2] for peer in (PEER, OTHER)] == [(0x10, ("192.0.2.1",)), (0x20, ("192.0.2.1",))]
        own = line("b").addresses[0]
        await lines.up(OTHER, str(own))
        assert lines.events == [policy.TunnelUp(OTHER, "re6stnet1", "b")]
        found = {link.peer: link.uplink for link in lines.tunnels.links()}
        assert found == {PEER: "a", OTHER: "b"}

    with_lines(effective, steps)


def test_the_tunnels_over_a_line_that_is_down_are_closed_at_once_and_no_others(effective: EffectiveConfig) -> None:
    async def steps(lines: Lines) -> None:
        for peer in (PEER, OTHER):
            lines.tunnels.open(peer, SOMEWHERE)
            await until(lambda peer=peer: peer in lines.dialled)  # type: ignore[misc]
        lines.tunnels.leave_lines(["b"])
        await until(lambda: OTHER not in lines.tunnels)
        assert PEER in lines.tunnels
        assert lines.choice.counts() == {"a": 1}
        assert lines.events == [policy.TunnelDown(OTHER)]

    with_lines(effective, steps)


def test_tunnels_that_were_there_before_the_second_line_belong_to_that_whose_address_they_have(
    effective: EffectiveConfig,
) -> None:
    async def steps(lines: Lines) -> None:
        lines.choice.follow({}, 0.0)
        lines.tunnels.open(PEER, SOMEWHERE)
        await until(lambda: PEER in lines.dialled)
        assert lines.dialled[PEER][0] == 0
        own = str(line("b").addresses[0])
        await lines.up(PEER, own)
        assert lines.events == [policy.TunnelUp(PEER, "re6stnet1", own)]
        lines.choice.follow({1: line("a"), 2: line("b")}, 1.0)
        lines.tunnels.join_lines()
        assert lines.choice.counts() == {"b": 1}

    with_lines(effective, steps)


def test_a_tunnel_that_died_makes_its_line_doubtful_and_one_that_was_closed_does_not(
    effective: EffectiveConfig,
) -> None:
    async def steps(lines: Lines) -> None:
        for peer in (PEER, OTHER):
            lines.tunnels.open(peer, SOMEWHERE)
            await until(lambda peer=peer: peer in lines.dialled)  # type: ignore[misc]
            await lines.up(peer, str(line("ab"[peer == OTHER]).addresses[0]))
        lines.tunnels.close(PEER)
        await until(lambda: PEER not in lines.tunnels)
        assert lines.choice.to_prove(0.0) == []
        lines.tunnels.close(OTHER, lost=True)
        assert lines.choice.to_prove(0.0) == ["b"]
        await until(lambda: OTHER not in lines.tunnels)

    with_lines(effective, steps)
