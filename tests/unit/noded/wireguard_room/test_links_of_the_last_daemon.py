"""What the next daemon makes of the WireGuard links that it finds."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from re6st.core.mesh import policy
from re6st.core.transport.link_records import LinkRecord
from re6st.core.transport.wireguard_state import KEY_LIFE, LIVES
from tests.unit.fake_program import until
from tests.unit.wireguard_room_world import SERIAL, World, killed, scene


@scene
async def test_the_next_daemon_ends_a_link_whose_keys_were_not_changed_for_long(world: World) -> None:
    await world.moved()
    b = world.b
    (found,) = (await killed(b)).values()
    b.ways.clear()
    b.room.go_on([replace(found, keyed=time.time() - LIVES * KEY_LIFE - 1)], lambda _: None)
    await until(lambda: b.room.ends() == [])
    assert b.client_events() == [policy.ClientUp, policy.ClientDown], "as every other one that ends"
    assert b.ways == ["+192.0.2.1", "-192.0.2.1"]
    await until(lambda: not b.air.devices or all(each.interface != "re6stnet-wgs1" for each in b.air.devices))


@scene
async def test_the_next_daemon_goes_on_with_links_at_both_ends(world: World) -> None:
    await world.moved()
    for node in (world.a, world.b):
        found = await killed(node)
        there = list[LinkRecord]()
        node.room.go_on(found.values(), there.extend)
        assert [record.peer for record in there] == ([world.b.own] if node is world.a else [])
    assert world.a.room.carries(world.b.own)
    assert world.b.mesh.clients == {world.a.own: 1}
    waiting = asyncio.create_task(world.a.room.outlast_all())
    await asyncio.sleep(0.1)
    assert not waiting.done(), "a tunnel of ours is carried by one"
    assert {end.interface for node in (world.a, world.b) for end in node.room.ends()} == {
        "re6stnet-wg1",
        "re6stnet-wgs1",
    }
    world.a.room.end(world.b.own)
    await asyncio.wait_for(waiting, 10)


@scene
async def test_the_policy_hears_of_tunnels_of_ours_before_it_hears_of_clients(world: World) -> None:
    """With each event it opens what is missing: there would be two tunnels with those that it does not know yet."""
    await world.moved()
    found = await killed(world.b)
    seen = list[int]()
    world.b.room.go_on(found.values(), lambda _: seen.append(len(world.b.mesh.clients)))
    assert seen == [0]
    assert world.b.mesh.clients == {world.a.own: 1}


@pytest.mark.parametrize("revoked", [True, False])
@scene
async def test_the_next_daemon_does_not_go_on_with_the_link_of_who_was_revoked_meanwhile(
    world: World, revoked: bool
) -> None:
    await world.moved()
    b = world.b
    found = await killed(b)
    crl = frozenset({SERIAL if revoked else SERIAL + 1})
    b.in_force.effective = replace(b.effective, parameters=replace(b.effective.parameters, crl=crl))
    b.room.go_on(found.values(), lambda _: None)
    assert [end.peer for end in b.room.ends()] == ([] if revoked else [world.a.own])
    assert b.mesh.clients == ({} if revoked else {world.a.own: 1})
    await until(lambda: b.kernel.deleted == (["re6stnet-wgs1"] if revoked else []))
    assert (b.noted() == {}) is revoked


@scene
async def test_a_link_that_was_ended_is_not_gone_on_with_by_the_next_daemon(world: World) -> None:
    """Though this one is killed while the interface is about to go."""
    await world.moved()
    b = world.b
    assert b.noted()
    b.room.cut_off(frozenset({SERIAL}))
    assert "re6stnet-wgs1" in b.kernel.links, "it is still there"
    assert b.noted() == {}
