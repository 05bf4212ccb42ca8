"""The simulator: the same seed gives the same run, and its router says what babel's table would."""

from __future__ import annotations

from random import Random

import pytest

from re6st.core.mesh.policy import Phase
from re6st.core.prefix import Prefix
from re6st.core.routing.survey import SurveyLike
from re6st.sim.engine import Engine
from re6st.sim.names import name, prefix_of, server_name
from re6st.sim.network import Network, Stuck
from re6st.sim.rounds import Rounds
from re6st.sim.router import surveys


def after_a_while(seed: int) -> Network:
    """Twenty nodes, of which one dies and comes back."""
    network = Network(seed, client_count=4, refresh=30)
    for number in range(20):
        network.add(number, reachable=number % 4 != 1)
    network.run(60)
    victim = network.members[prefix_of(7)]
    network.kill(victim)
    network.run(20)
    network.restart(victim)
    network.run(100)
    return network


def story(network: Network) -> list[object]:
    links = [(link.client, link.server, link.up_at) for link in network.links]
    return [*links, *(member.opened for member in network.members.values()), network.closed]


def test_the_same_seed_gives_the_same_run_and_another_one_another() -> None:
    first = story(after_a_while(1))
    assert story(after_a_while(1)) == first
    assert story(after_a_while(2)) != first


def test_what_is_due_is_done_in_order_and_no_further_than_asked() -> None:
    engine, done = Engine(100.0), list[str]()
    engine.after(2, lambda: done.append("second"))
    engine.after(1, lambda: engine.after(1, lambda: done.append("third")))
    engine.after(9, lambda: done.append("too late"))
    assert engine.run(5, lambda: False) == 5
    assert done == ["second", "third"]
    assert engine.now == 105.0
    assert engine.run(100, lambda: bool(done[2:])) == 4


def linked(*pairs: tuple[int, int]) -> dict[Prefix, SurveyLike]:
    """What each node sees, the first of each pair being the client."""
    near: dict[Prefix, dict[Prefix, list[str]]] = {prefix_of(n): {} for pair in sorted(pairs) for n in pair}
    for one, other in pairs:
        client, server = prefix_of(one), prefix_of(other)
        near[client].setdefault(server, []).append(name(server))
        near[server].setdefault(client, []).append(server_name(client))
    return dict(surveys(near))


def prefixes(*numbers: int) -> frozenset[Prefix]:
    return frozenset(map(prefix_of, numbers))


def test_in_a_chain_every_tunnel_is_the_only_way() -> None:
    seen = linked((0, 1), (1, 2), (2, 3))[prefix_of(1)]
    assert seen.peers == prefixes(0, 2, 3)
    assert seen.neighbours.keys() == prefixes(0, 2)
    assert seen.alive == {"s0", "t2"}
    assert seen.carried_by("t2") == seen.sole_by("t2") == prefixes(2, 3)
    assert seen.carried(prefix_of(0)) == prefixes(0)
    assert seen.carried(prefix_of(0), besides={"s0"}) == prefixes()


def test_in_a_ring_there_are_two_ways_to_the_other_side() -> None:
    seen = linked((0, 1), (1, 2), (2, 3), (3, 0))[prefix_of(0)]
    assert seen.carried_by("t1") | seen.carried_by("s3") == prefixes(1, 2, 3)
    assert seen.sole_by("t1") <= prefixes(1)
    assert seen.sole_by("s3") <= prefixes(3)


def test_parts_do_not_see_each_other_and_nodes_of_a_part_share_what_they_see() -> None:
    seen = linked((0, 1), (2, 3), (3, 4))
    assert seen[prefix_of(0)].peers == prefixes(1)
    others = seen[prefix_of(3)].peers
    assert others == prefixes(2, 4)
    assert others - prefixes(4) == prefixes(4, 2) & others - prefixes(4) == prefixes(2)
    assert prefixes(2, 3, 9) - others == prefixes(3, 9)
    assert not others.isdisjoint(prefixes(2))
    assert prefix_of(3) not in others


def test_a_tunnel_that_is_stuck_ends_the_simulation() -> None:
    network = Network(1)
    member = network.add(0)
    network.add(1, memory=(0,))
    network.run(20)
    (tunnel,) = network.members[prefix_of(1)].mesh.tunnels.values()
    assert tunnel.phase is Phase.UP
    tunnel.phase = Phase.CLOSING
    with pytest.raises(Stuck, match=str(prefix_of(1))):
        network.run(20)
    network.check(member)


def test_a_walk_over_a_mesh_of_random_tunnels_soon_forgets_where_it_began() -> None:
    rounds = Rounds(3, 40, client_count=4)
    ends = Random(1).sample(rounds.nodes, 2)
    assert rounds.rtt(*ends) == rounds.rtt(*reversed(ends))
    assert rounds.stretch() > 1
    assert 2 <= rounds.diameter() <= 5
    assert 0.1 < rounds.gap() < 1
    rounds.near = {node: {} for node in rounds.nodes}
    assert rounds.diameter() == float("inf")
