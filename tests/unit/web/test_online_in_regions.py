"""Who is online for the operator's page in a network of regions, where the registry's node knows those of its own."""

from __future__ import annotations

from re6st.core.prefix import Prefix
from re6st.registryd.presence import online_nodes

OWN, BESIDE, GONE, REGION, THERE, AWAY = (
    *(Prefix(0, 16), Prefix(1, 16), Prefix(2, 16), Prefix(1, 14)),
    *(Prefix(5, 16), Prefix(9, 16)),
)


def test_nodes_of_other_regions_are_online_if_they_answered_and_their_region_has_a_route() -> None:
    answered = frozenset((BESIDE, GONE, THERE, AWAY))
    assert online_nodes(OWN, [BESIDE, REGION], answered, 14) == {OWN, BESIDE, THERE}


def test_a_node_that_is_a_region_by_itself_is_one_of_them() -> None:
    assert online_nodes(OWN, [REGION], frozenset(), 14) == {OWN}
    assert online_nodes(OWN, [REGION], frozenset((REGION,)), 14) == {OWN, REGION}


def test_in_a_flat_network_a_route_is_enough() -> None:
    assert online_nodes(OWN, [BESIDE, REGION], frozenset(), 0) == {OWN, BESIDE, REGION}
