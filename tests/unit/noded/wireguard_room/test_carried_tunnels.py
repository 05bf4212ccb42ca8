"""A WireGuard link carries a tunnel of ours, and the client of the other node stays one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.transport.wireguard_state import PEERS_LIMIT
from re6st.core.tunnel_protocols import TunnelCarrier, TunnelProtocol
from re6st.core.wire import wireguard as words
from re6st.core.wire.wireguard import Propose, Terms, link_local
from re6st.noded import wireguard as room
from re6st.tunnel import ServerClient
from tests.unit.fake_program import until
from tests.unit.wireguard_room_world import SERIAL, World, scene


@scene
async def test_a_tunnel_moves_to_a_link_and_the_client_of_the_other_stays_one(world: World) -> None:
    await world.moved()
    a, b = world.a, world.b
    assert a.mesh.tunnels[b.own].interface == "re6stnet-wg1"
    assert b.mesh.clients == {a.own: 1}
    assert b.client_events() == [policy.ClientUp, policy.ClientUp, policy.ClientDown]
    assert (a.room.carries(b.own), b.room.carries(a.own)) == (True, False)
    for node, outgoing in ((a, True), (b, False)):
        (listed,) = node.room.reports()
        assert (listed.outgoing, listed.carrier, listed.protocol) == (outgoing, TunnelCarrier.WIREGUARD, "udp")
        (other,) = node.room.ends()
        assert (other.peer, other.identity.serial) == (b.own if node is a else a.own, SERIAL)
    assert a.open == set(), "only a server needs its port open"
    assert b.open == {b.served_link(a).own.terms.port}
    assert b.room.served(TunnelProtocol.TCP, b.own) == 1
    assert b.room.served(TunnelProtocol.TCP, a.own) == b.room.served(TunnelProtocol.UDP, b.own) == 0


@scene
async def test_the_end_of_the_tunnel_ends_the_link_at_both_ends(world: World) -> None:
    await world.moved()
    world.a.room.end(world.b.own)
    await until(lambda: not world.air.devices)
    assert not world.a.kernel.links + world.b.kernel.links
    assert world.b.mesh.clients == {}
    assert world.a.kernel.bounced == ["re6stnet-wg1"], "babel is told that nobody is there"
    assert world.b.ways == ["+192.0.2.1", "-192.0.2.1"]
    assert world.b.links_ended == [world.a.own]
    assert not world.b.open, "the router sends nothing to it any more"


@scene
async def test_who_holds_a_tunnel_hears_when_its_link_ends(world: World) -> None:
    await world.moved()
    waiting = asyncio.create_task(world.a.room.outlast(world.b.own))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    for device in list(world.air.devices):
        if device.interface == "re6stnet-wg1":
            device.ended.set()
    await asyncio.wait_for(waiting, 10)
    assert not world.a.room.carries(world.b.own)
    assert world.a.room.why_not(world.b.own)


@scene
async def test_where_no_handshake_comes_the_tunnel_stays_and_it_is_said_why(world: World) -> None:
    world.air.passes = False
    world.a.dial(world.b)
    await until(lambda: world.a.room.why_not(world.b.own) != "")
    assert "no handshake" in world.a.room.why_not(world.b.own)
    assert world.a.moved() == []
    assert world.a.retired == []
    await until(lambda: not world.air.devices)
    assert world.b.client_events() == [policy.ClientUp]


@scene
async def test_a_peer_that_cannot_have_links_is_greeted_now_and_then_and_left_alone(world: World) -> None:
    world.a.speaks = False
    world.a.sessions.connected = lambda *_: False
    world.a.dial(world.b)
    await until(lambda: world.a.greeted == [world.b.own])
    await asyncio.sleep(0.1)
    assert world.a.greeted == [world.b.own]
    assert not world.air.devices


@scene
async def test_a_peer_that_was_started_without_wireguard_has_no_link_any_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel may still answer by the one it had, so that something comes in."""
    monkeypatch.setattr(room, "PEERS_EVERY", 0.0)
    await world.moved()
    waiting = asyncio.create_task(world.a.room.outlast(world.b.own))
    world.b.bare, world.a.hears, world.b.hears = True, False, False
    await asyncio.wait_for(waiting, 10)
    assert world.a.room.ends() == []


@scene
async def test_a_thousand_proposals_of_absurd_values_cost_no_interface(world: World) -> None:
    """From a peer that is let in as a client; from others not even one is looked at."""
    a, b = world.a, world.b
    b.clients[a.own] = ServerClient(a.own, SERIAL, "192.0.2.1")
    for number in range(1000):
        for terms in (
            Terms(bytes(32), 21194, 1420, link_local(1)),
            Terms(b"k" * 32, 22, 1420, link_local(1)),
            Terms(b"k" * 32, 21194, 100, link_local(1)),
        ):
            b.is_told(a, Propose(2 * number + 2 + (a.own > b.own), 0, terms))
    assert not world.air.devices
    for number in range(1000):
        terms = Terms(number.to_bytes(32, "big", signed=False)[:-1] + b"k", 21194, 1420, link_local(number + 1))
        b.is_told(a, Propose(2 * number + 2 + (a.own > b.own), 0, terms))
        b.first.received(a.own, bytes([number & 255]) * (number % 80))
    await asyncio.sleep(0.1)
    assert len(world.air.devices) <= 1, "one peer has one interface, however often it proposes"
    for number in range(3, PEERS_LIMIT):
        stranger = Prefix(number, 16)
        b.first.received(stranger, words.encode(Propose(2 + (stranger > b.own), 0, replace(terms, key=b"s" * 32))))
    await asyncio.sleep(0.1)
    assert len(world.air.devices) <= 1
