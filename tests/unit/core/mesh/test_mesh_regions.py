"""The policy in a network of regions: most tunnels in its own one, a share to others, and parts of one that rejoin."""

from __future__ import annotations

from typing import Any

from re6st.core.mesh.opening import ALONE_WAIT, ASK_TIME, SPLIT_LAST
from re6st.core.mesh.policy import (
    STRAY_TIME,
    AddressLearned,
    AskBootstrap,
    AskClose,
    AskRegion,
    BootstrapAnswered,
    ClientDown,
    ClientUp,
    CloseAllowed,
    CloseTunnel,
    DrainTunnel,
    RegionAnswered,
    TunnelDown,
    TunnelUp,
)
from re6st.core.prefix import Prefix
from re6st.core.routing.regions import region_of
from re6st.sim.names import endpoints, name
from tests.unit.mesh_policy import CLOSE_TIME, PEERS, REFRESH, Driver, asked, near, opened

LENGTH = 8
OWN_REGION = PEERS  # all of them, and the node, begin with the same bits
FAR = [Prefix(region << 8 | 5, 16) for region in range(1, 40)]
FAR_REGIONS = [region_of(peer, LENGTH) for peer in FAR]
REGISTRY = Prefix(0xFF00, 16)
CLIENT, CLIENT_OF_UP = Prefix(99, 16), Prefix(9999, 16)


def node_in_regions(**more: Any) -> Driver:
    return Driver(region_length=LENGTH, registry=REGISTRY, **more)


def regions_asked(actions: list[Any]) -> list[Prefix]:
    return [action.region for action in actions if isinstance(action, AskRegion)]


def test_whoever_has_a_route_to_the_region_of_the_registry_is_in_the_network() -> None:
    node = node_in_regions()
    node.sees(PEERS[0])
    assert not node.mesh.connected
    node.sees(region_of(REGISTRY, LENGTH))
    assert node.mesh.connected


def test_most_tunnels_are_in_the_region_and_a_share_leads_to_others() -> None:
    node = node_in_regions()
    node.tell(ClientUp(CLIENT))
    actions = node.sees(region_of(REGISTRY, LENGTH), *OWN_REGION, *FAR_REGIONS)
    assert len(asked(actions)) == 8
    assert set(asked(actions)) <= set(OWN_REGION)
    regions = regions_asked(actions)
    assert len(regions) == 2
    assert set(regions) <= {*FAR_REGIONS, region_of(REGISTRY, LENGTH)}
    peer = Prefix(regions[0].value << 8 | 77, 16)
    assert opened(node.tell(RegionAnswered(regions[0], peer, endpoints(peer)))) == [peer]


def test_who_is_named_for_a_region_must_be_in_it_and_have_been_asked_for() -> None:
    node = node_in_regions()
    node.tell(ClientUp(CLIENT))
    first, second = regions_asked(node.sees(region_of(REGISTRY, LENGTH), *OWN_REGION, *FAR_REGIONS))
    wrong = Prefix(second.value << 8 | 77, 16)
    assert not opened(node.tell(RegionAnswered(first, wrong, endpoints(wrong))))
    unasked = next(peer for peer in FAR if region_of(peer, LENGTH) not in (first, second))
    assert not opened(node.tell(RegionAnswered(region_of(unasked, LENGTH), unasked, endpoints(unasked))))
    assert not opened(node.tell(AddressLearned(unasked, endpoints(unasked))))


def test_another_region_is_asked_where_one_does_not_answer() -> None:
    node = node_in_regions()
    node.tell(ClientUp(CLIENT))
    first = regions_asked(node.sees(region_of(REGISTRY, LENGTH), *OWN_REGION, *FAR_REGIONS))
    again = regions_asked(node.wait(ASK_TIME + 2))
    assert len(again) == 2
    assert not set(again) & set(first)


def test_no_region_is_asked_next_to_which_the_node_is() -> None:
    node = node_in_regions()
    neighbours = near(*FAR_REGIONS[1:])
    node.tell(ClientUp(CLIENT))
    actions = node.sees(region_of(REGISTRY, LENGTH), *OWN_REGION, *FAR_REGIONS, **neighbours)
    assert set(regions_asked(actions)) <= {FAR_REGIONS[0], region_of(REGISTRY, LENGTH)}


def test_whoever_nobody_connects_to_stays_in_its_region() -> None:
    actions = node_in_regions().sees(region_of(REGISTRY, LENGTH), *OWN_REGION, *FAR_REGIONS)
    assert len(asked(actions)) == 2
    assert not regions_asked(actions)


def test_a_region_that_is_one_node_has_tunnels_across_alone_and_keeps_room() -> None:
    node = node_in_regions()
    node.tell(ClientUp(FAR[-1]))
    actions = node.sees(region_of(REGISTRY, LENGTH), *FAR_REGIONS)
    assert not asked(actions)
    assert len(regions_asked(actions)) == 5
    alone = node_in_regions()
    assert len(regions_asked(alone.sees(region_of(REGISTRY, LENGTH), *FAR_REGIONS))) == 1


def test_too_many_tunnels_across_are_replaced_by_others() -> None:
    node = node_in_regions(client_count=4, memory=())
    node.tell(ClientUp(CLIENT))
    for peer in FAR[:4]:
        node.sees()
        node.tell(BootstrapAnswered(peer, endpoints(peer)))
        node.tell(TunnelUp(peer, name(peer)))
    links = near(*FAR_REGIONS[:4])["neighbours"]
    alive = frozenset(map(name, FAR[:4]))
    node.sees(region_of(REGISTRY, LENGTH), *OWN_REGION, *FAR_REGIONS[:4], neighbours=links, alive=alive)
    drained = [action.peer for action in node.wait(2 * REFRESH) if isinstance(action, DrainTunnel)]
    assert drained
    assert set(drained) <= set(FAR[:4])


def test_a_part_of_a_split_region_looks_for_the_other_part() -> None:
    node = node_in_regions()
    node.up(PEERS[1])
    node.memory.update({peer: endpoints(peer) for peer in (FAR[0], PEERS[0])})
    links = near(PEERS[1])
    node.sees(region_of(REGISTRY, LENGTH), PEERS[1], *FAR_REGIONS, **links)
    actions = node.sees(region_of(REGISTRY, LENGTH), PEERS[1], *FAR_REGIONS, split=True, **links) + node.wait(2)
    assert AskBootstrap() in actions
    assert opened(actions) == [PEERS[0]]
    assert opened(node.tell(BootstrapAnswered(PEERS[2], endpoints(PEERS[2])))) == [PEERS[2]]


def test_who_knows_nobody_of_its_region_asks_for_somebody_there() -> None:
    """All ways to the region may end at it: then nothing tells it that there are others."""
    node = node_in_regions()
    node.up(FAR[0])
    links = near(FAR_REGIONS[0])
    actions = node.sees(region_of(REGISTRY, LENGTH), *FAR_REGIONS, **links) + node.wait(2 * ALONE_WAIT)
    assert AskBootstrap() in actions
    assert opened(node.tell(BootstrapAnswered(PEERS[2], endpoints(PEERS[2])))) == [PEERS[2]]
    node.tell(TunnelUp(PEERS[2], name(PEERS[2])))
    later = node.sees(region_of(REGISTRY, LENGTH), PEERS[2], *FAR_REGIONS, **near(FAR_REGIONS[0], PEERS[2]))
    assert AskBootstrap() not in later + node.wait(SPLIT_LAST)


def test_the_only_node_of_a_region_does_not_ask_for_others_all_the_time() -> None:
    node = node_in_regions()
    node.up(FAR[0])
    asked_for = 0
    actions = node.sees(region_of(REGISTRY, LENGTH), *FAR_REGIONS, **near(FAR_REGIONS[0]))
    for _ in range(60):
        asked_for += sum(action == AskBootstrap() for action in actions)
        if AskBootstrap() in actions:
            node.tell(BootstrapAnswered(None))
        actions = node.wait(10)
    assert 5 <= asked_for <= 20, "in ten minutes"


def test_of_a_large_part_few_look_at_one_time_and_none_once_it_is_whole() -> None:
    at_once = 0
    for seed in range(40):
        node = node_in_regions(seed=seed)
        node.up(PEERS[0])
        seen = region_of(REGISTRY, LENGTH), *PEERS
        at_once += AskBootstrap() in node.sees(*seen, split=True, **near(PEERS[0])) + node.wait(1)
        later = node.sees(*seen, **near(PEERS[0])) + node.wait(SPLIT_LAST)
        assert AskBootstrap() not in later
    assert 0 < at_once <= 12, "some forty nodes: four a second"


def test_a_part_of_a_split_region_asks_for_the_other_part_by_a_neighbour_outside() -> None:
    node = node_in_regions()
    node.sees(region_of(REGISTRY, LENGTH), PEERS[1], *FAR_REGIONS, **near(PEERS[1], FAR_REGIONS[0]))
    own = region_of(PEERS[0], LENGTH)
    seen = region_of(REGISTRY, LENGTH), PEERS[1], *FAR_REGIONS
    links = near(PEERS[1], FAR_REGIONS[0])
    assert own in regions_asked(node.sees(*seen, split=True, **links) + node.wait(2))
    assert not opened(node.tell(RegionAnswered(own, PEERS[1], endpoints(PEERS[1])))), "of our own part"
    while own not in regions_asked(node.wait(1)):
        assert node.now < 5000 + 2 * SPLIT_LAST
    assert opened(node.tell(RegionAnswered(own, PEERS[2], endpoints(PEERS[2])))) == [PEERS[2]]


def test_whom_a_node_remembers_in_another_region_is_not_asked_for() -> None:
    node = node_in_regions()
    node.tell(ClientUp(CLIENT))
    node.memory.update({peer: endpoints(peer) for peer in FAR})
    actions = node.sees(region_of(FAR[0], LENGTH), region_of(REGISTRY, LENGTH), *OWN_REGION, region_of(FAR[1], LENGTH))
    regions = regions_asked(actions)
    assert len(opened(actions)) + len(regions) == 2
    assert set(opened(actions)) <= {FAR[0], FAR[1]}
    assert opened(actions)


def test_a_tunnel_to_another_region_from_before_one_knew_ours_goes_soon() -> None:
    node = node_in_regions()
    node.up(FAR[0])
    node.tell(BootstrapAnswered(PEERS[0], endpoints(PEERS[0])))
    node.tell(TunnelUp(PEERS[0], name(PEERS[0])))
    node.tell(ClientDown(CLIENT_OF_UP))
    links = near(FAR_REGIONS[0], PEERS[0])["neighbours"]
    alive = frozenset({name(FAR[0]), name(PEERS[0])})
    node.sees(region_of(REGISTRY, LENGTH), *PEERS, *FAR_REGIONS, neighbours=links, alive=alive)
    drained = [action.peer for action in node.wait(2 * STRAY_TIME) if isinstance(action, DrainTunnel)]
    assert drained == [FAR[0]]


def test_in_a_part_of_a_split_region_one_tunnel_stays_free_for_the_other_part() -> None:
    node = node_in_regions()
    node.tell(ClientUp(CLIENT))
    actions = node.sees(region_of(REGISTRY, LENGTH), *OWN_REGION, *FAR_REGIONS, split=True)
    assert len(asked(actions)) + len(regions_asked(actions)) == 9


def test_who_has_all_tunnels_in_a_part_of_a_split_region_gives_one_up_and_looks_for_the_other_part() -> None:
    node = node_in_regions(client_count=4)
    node.up(*PEERS[:4])
    seen, links = (region_of(REGISTRY, LENGTH), *PEERS[:4]), near(*PEERS[:4])
    node.sees(*seen, **links)
    assert not [action for action in node.wait(STRAY_TIME) if isinstance(action, DrainTunnel)]
    actions = node.sees(*seen, split=True, **links) + node.wait(2 * STRAY_TIME)
    drained = [action.peer for action in actions if isinstance(action, DrainTunnel)]
    assert len(drained) == 1
    left = [peer for peer in PEERS[:4] if peer not in drained]
    idle = node.sees(*seen, split=True, **{**near(*left), "alive": links["alive"]}) + node.wait(CLOSE_TIME)
    assert AskClose(drained[0]) in idle
    closed = node.tell(CloseAllowed(drained[0])) + node.tell(TunnelDown(drained[0]))
    assert CloseTunnel(drained[0], "replaced", lost=False) in closed
    assert AskBootstrap() in closed + node.wait(SPLIT_LAST)
    other = PEERS[9]
    assert opened(node.tell(BootstrapAnswered(other, endpoints(other)))) == [other]


def test_the_only_way_to_somebody_is_not_given_up_for_the_other_part() -> None:
    node = node_in_regions(client_count=1)
    node.up(PEERS[0])
    links = near(PEERS[0], sole=frozenset([PEERS[0]]))
    actions = node.sees(region_of(REGISTRY, LENGTH), PEERS[0], split=True, **links) + node.wait(4 * STRAY_TIME)
    assert not [action for action in actions if isinstance(action, DrainTunnel)]
