"""The large simulation: its ways and places, and what happens to networks of regions in it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from random import Random

import numpy as np
import pytest

from re6st.core.mesh.dead_clients import FREED
from re6st.core.prefix import Prefix
from re6st.sim import places
from re6st.sim.__main__ import main
from re6st.sim.fabric import Region, RegionSurvey
from re6st.sim.hosts import Host, Plan, Wire
from re6st.sim.measures import is_whole, reached, shape
from re6st.sim.names import name, server_name
from re6st.sim.network import Stuck
from re6st.sim.scenes import SCENES, Stage, form
from re6st.sim.world import NOTICED_MAX, NOTICED_MIN, World


def formed(nodes: int = 100, bits: int = 2, seed: int = 1, **more: float) -> Stage:
    """A network that all have joined."""
    stage = Stage(World(Plan(nodes, bits, seed, **more)), lambda text: None)  # type: ignore[arg-type]
    form(stage)
    return stage


# --- the model ---


def test_round_trips_are_like_those_of_the_king_data_set() -> None:
    rng = Random(1)
    found = [places.place(rng) for _ in range(2000)]
    trips = [places.round_trip(*rng.sample(found, 2)) for _ in range(20000)]
    assert 140 < statistics.median(trips) < 175
    assert 145 < statistics.mean(trips) < 190
    assert max(trips) > 500


def test_neighbourhoods_are_of_one_size_and_of_machines_that_are_near() -> None:
    rng = Random(1)
    found = [places.place(rng) for _ in range(800)]
    groups = places.neighbourhoods(found, 16)
    assert sorted(index for group in groups for index in group) == list(range(800))
    assert {len(group) for group in groups} == {50}

    def mean_trip(indices: list[int]) -> float:
        pairs = [rng.sample(indices, 2) for _ in range(300)]
        return statistics.mean(places.round_trip(found[one], found[other]) for one, other in pairs)

    assert statistics.mean(map(mean_trip, groups)) < 0.7 * mean_trip(list(range(800)))


def region_of_six() -> tuple[Region, dict[Prefix, int]]:
    """A ring of five, and one more that hangs on the first."""
    region = Region(Prefix(0, 2), 6)
    region.nodes = [Prefix(slot, 8) for slot in range(6)]
    for one, other in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (0, 5)]:
        region.link(one, other, 100.0)
    region.find_parts()
    return region, {Prefix(slot, 8): slot for slot in range(6)}


def test_what_a_node_of_a_region_sees() -> None:
    region, slots = region_of_six()
    (part,) = region.parts
    links = {name(Prefix(slot, 8)): (Prefix(slot, 8), 100) for slot in (1, 4, 5)}
    links["t999"] = Prefix(3, 2), 500
    part.regions = frozenset({Prefix(0, 2), Prefix(3, 2)})
    part.seen = part.members | {Prefix(3, 2)}
    seen = RegionSurvey(Prefix(0, 8), region, 0, part, links, slots)
    assert set(seen.peers) == {*(Prefix(slot, 8) for slot in range(1, 6)), Prefix(3, 2)}
    assert seen.neighbours.keys() == {Prefix(1, 8), Prefix(4, 8), Prefix(5, 8), Prefix(3, 2)}
    assert seen.metrics[Prefix(2, 8)] == 200
    assert seen.sole_by("t5") == {Prefix(5, 8)}
    assert seen.carried_by("t1") == {Prefix(1, 8), Prefix(2, 8)}
    assert not seen.sole_by("t1") - {Prefix(1, 8), Prefix(2, 8)}
    assert seen.carried_by("t999") == {Prefix(3, 2)}
    assert not seen.split


def test_metrics_are_those_of_the_cheapest_ways() -> None:
    rng = Random(2)
    region = Region(Prefix(0, 1), 12)
    region.nodes = [Prefix(slot, 8) for slot in range(12)]
    for _ in range(24):
        one, other = rng.sample(range(12), 2)
        region.link(one, other, float(rng.randrange(100, 900)))
    best = region.costs.astype(float).copy()
    np.fill_diagonal(best, 0)
    for middle in range(12):
        best = np.minimum(best, best[:, middle, None] + best[None, middle, :])
    for slot in range(12):
        assert region.metrics(slot) == {Prefix(n, 8): cost for n, cost in enumerate(best[slot]) if np.isfinite(cost)}


def test_a_region_falls_into_parts_when_links_go_and_others_stay_as_they_were() -> None:
    region, _ = region_of_six()
    (whole,) = region.parts
    region.find_parts()
    assert region.parts == [whole], "nothing has changed"
    region.unlink(0, 5)
    region.find_parts()
    assert sorted(len(part.members) for part in region.parts) == [1, 5]


# --- networks ---


def test_a_network_of_regions_forms_within_minutes_and_no_node_is_over_its_limits() -> None:
    world = formed().world
    assert is_whole(world)
    assert reached(world) == 1.0
    for machine in world.machines:
        inside = sum(other.region is machine.region for other in world.machines) - 1
        assert len(machine.mesh.survey.peers) == inside + 3
        assert len(machine.mesh.tunnels) <= 10
        assert len(machine.mesh.clients) <= 20
        across = [peer for peer in machine.mesh.tunnels if world.by_prefix[peer].region is not machine.region]
        assert len(across) <= 5
    found = shape(world, Random(1), 5, 20)
    assert found.hops < 6
    assert found.stretch_of_sums >= 1


def test_the_same_seed_gives_the_same_run() -> None:
    first, second, other = formed(60), formed(60), formed(60, seed=2)
    assert first.story.figures == second.story.figures
    assert first.story.figures != other.story.figures


@pytest.mark.parametrize(("scene", "seed"), [("deaths", 1), ("deaths", 2), ("upgrade", 1)])
def test_a_network_is_whole_again_after(scene: str, seed: int) -> None:
    stage = formed(seed=seed)
    SCENES[scene](stage)
    assert is_whole(stage.world)


@pytest.mark.parametrize("seed", [1, 2])
def test_after_many_deaths_the_living_find_together_before_servers_forget_the_dead(seed: int) -> None:
    stage = formed(200, 3, seed=seed)
    SCENES["deaths"](stage)
    assert stage.story.figures["30% dead: 99% of pairs, s"] <= 10
    assert stage.story.figures["30% dead: all pairs, s"] <= 30


def test_a_full_server_takes_a_newcomer_in_the_place_of_a_client_that_is_dead_for_some_seconds() -> None:
    world = formed(20, 1).world
    server = max(world.machines, key=lambda machine: machine.clients)
    clients = [link.client for link in server.links if link.server is server]
    near = {link.other_end(server) for link in server.links}
    newcomer = next(machine for machine in world.machines if machine not in near and machine is not server)
    server.max_clients = len(clients)
    for client in clients:
        world.kill(client)

    def is_in() -> bool:
        return any(link.server is server for link in newcomer.links)

    world.open(newcomer, server.prefix)
    world.run(NOTICED_MIN + FREED)
    assert not is_in()
    assert server.clients == server.max_clients
    world.run(NOTICED_MAX)
    world.open(newcomer, server.prefix)
    assert world.run(2, is_in) < 2
    assert server.clients <= server.max_clients


@pytest.mark.parametrize("scene", ["doubled", "crowd"])
def test_a_region_that_grows_stays_one(scene: str) -> None:
    stage = formed(80, spare=2.2)
    SCENES[scene](stage)
    assert is_whole(stage.world)
    assert len(stage.world.running()) == 100


def test_a_region_of_one_node_and_a_flat_network_form_too() -> None:
    assert is_whole(formed(8, 3, hidden=0.0).world)
    assert is_whole(formed(60, 0).world)


def test_a_region_whose_parts_have_no_link_between_them_becomes_one() -> None:
    stage = formed(120)
    world = stage.world
    region = world.machines[-1].region
    half = {machine for machine in world.machines if machine.region is region and machine.slot % 2}

    def between(one: Host, other: Host) -> bool:
        return one.region is other.region is region and (one in half) != (other in half)

    world.block(between)
    world.run(30)
    assert len(region.parts) > 1
    assert any(machine.mesh.survey.split for machine in half)
    world.block(None)
    assert world.run(60, lambda: is_whole(world)) < 30


def test_a_tunnel_that_is_stuck_ends_the_simulation() -> None:
    world = formed(20, 1).world
    machine = next(machine for machine in world.machines if machine.mesh.tunnels)
    tunnel = next(iter(machine.mesh.tunnels.values()))
    tunnel.phase = type(tunnel.phase).CLOSING
    with pytest.raises(Stuck, match=str(machine.prefix)):
        world.run(300)


def test_an_end_of_a_link_names_its_own_interface() -> None:
    world = formed(20, 1).world
    link: Wire = next(link for machine in world.machines for link in machine.links)
    assert link.interface_of(link.client) == name(link.server.prefix)
    assert link.interface_of(link.server) == server_name(link.client.prefix)
    assert link.other_end(link.client) is link.server


def test_the_command_shows_a_table_and_writes_all_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    assert main(["--nodes", "60", "--regions", "1", "--scene", "start", "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    assert figures["nodes"] == 60
    assert figures["start: hops"] > 1
    shown = capsys.readouterr()
    assert "start: hops" in shown.out
    assert "% of all pairs" in shown.err or "all pairs, s" in shown.err
