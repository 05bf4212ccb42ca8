"""What follows from the network's parameters."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from re6st import cert
from re6st.client.files import Files
from re6st.core.machine.wanted_state import Wanted
from re6st.core.prefix import Prefix, subnet
from re6st.core.routing.babel_settings import configuration
from re6st.core.routing.planes import MAIN, THROUGHPUT
from re6st.core.routing.regions import ROUTE_PROTOCOL
from re6st.core.tunnel_protocols import Role
from re6st.core.wire.params import Parameters
from re6st.noded.settings import GIVEN_UP, LAST_QUESTION, Config, EffectiveConfig


def test_parts_of_a_subnet_are_refused_as_far_as_the_registry_tells_the_longest_one(
    nodes: dict[str, cert.Identity],
) -> None:
    here, identity = Path("."), nodes["1/16"]
    effective = EffectiveConfig(
        Config("", Files(here, here, here), here, here, here), identity, Parameters(Prefix(0, 16)), {}
    )
    network = identity.trust.network.prefixlen

    def longest(told: int | None) -> int:
        return effective.follow(replace(effective.parameters, longest_prefix=told), identity).babel(MAIN, 0, 0).longest

    assert longest(None) == 128, "an older registry does not tell"
    assert longest(24) == network + 24
    assert longest(8) == network + 16, "our own is longer: the registry forgot us, or we have not heard yet"
    assert longest(128) == 128


def test_ipv4_networks_that_were_given_up_are_refused(nodes: dict[str, cert.Identity]) -> None:
    here, identity = Path("."), nodes["1/16"]
    effective = EffectiveConfig(
        Config("", Files(here, here, here), here, here, here), identity, Parameters(Prefix(0, 16)), {}
    )

    def refused(ipv4: str | None) -> list[str]:
        nonlocal effective
        parameters = replace(effective.parameters, ipv4=IPv4Network(ipv4) if ipv4 else None)
        effective = effective.follow(parameters, identity)
        return list(map(str, effective.babel(MAIN, 0, 0).refused))

    assert refused(None) == []
    assert refused("10.42.0.0/16") == []
    assert refused("10.99.0.0/16") == ["10.42.0.0/16"]
    assert refused(None) == ["10.42.0.0/16", "10.99.0.0/16"]
    assert refused("10.99.0.0/16") == ["10.42.0.0/16"], "it is back"
    assert refused("10.0.0.0/8") == [], "they are in it"
    for number in range(20):
        assert len(refused(f"192.168.{number}.0/24")) <= GIVEN_UP


@pytest.mark.parametrize("filtered", [True, False])
def test_packets_of_tunnels_are_counted_as_dead_links_are_found_by_that(
    nodes: dict[str, cert.Identity], filtered: bool
) -> None:
    """Without it a hello would be taken for traffic that wants an answer."""
    here = Path(".")
    config = Config("", Files(here, here, here), here, here, here, packet_filter=filtered)
    effective = EffectiveConfig(config, nodes["1/16"], Parameters(Prefix(0, 16)), {})
    assert effective.packet_rules.counted
    assert set(effective.packet_rules.shared) == set(effective.server_interfaces)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), ("lan",)),
        (("-d", "1", "eth1", "lan"), ("lan", "eth1")),
        (("-C", "interface eth3 hello-interval 4", "eth1"), ("lan", "eth1", "eth3")),
        (("-C", "redistribute local deny"), ("lan",)),
        (("-?", "eth1"), ("lan",)),
    ],
)
def test_babels_key_is_used_on_interfaces_that_are_named_for_babeld_alone(
    nodes: dict[str, cert.Identity], words: tuple[str, ...], names: tuple[str, ...]
) -> None:
    """Or anybody there could say what he likes."""
    here = Path(".")
    config = Config("", Files(here, here, here), here, here, here, lan=("lan",), babel_arguments=words)
    effective = EffectiveConfig(config, nodes["1/16"], Parameters(Prefix(0, 16)), {})
    assert effective.babel(MAIN, 0, 0).lan == names


@pytest.mark.parametrize("hello", [1, 2, 3, 15, 3600])
def test_there_is_time_to_close_a_tunnel_that_was_drained(nodes: dict[str, cert.Identity], hello: int) -> None:
    here = Path(".")
    parameters = Parameters(Prefix(0, 16), hello=hello, babel_hello=0.25)
    config = Config("", Files(here, here, here), here, here, here)
    mesh = EffectiveConfig(config, nodes["1/16"], parameters, {}).mesh(can_drain=True)
    assert mesh.close_time >= max(mesh.drain_time, mesh.link_drain_time) + LAST_QUESTION


def test_in_the_second_plane_are_the_subnets_of_the_network_alone_by_the_tunnels_of_others_at_first(
    nodes: dict[str, cert.Identity],
) -> None:
    """Those that we open come when it is known what they carry. What is not inside goes by the main plane."""
    here, identity = Path("."), nodes["1/16"]
    accepted = IPv4Network("192.168.7.0/24")
    config = Config(
        "", Files(here, here, here), here, here, here, wireguard=True, gateway=True, accept_route=(accepted,)
    )
    parameters = Parameters(Prefix(0, 16), planes=2, ipv4=IPv4Network("10.42.0.0/16"), ipv4_sublen=8)
    effective = EffectiveConfig(config, identity, parameters, {})
    settings = effective.babel(THROUGHPUT, 0, 0)
    further = effective.further_links(Role.SERVER)
    assert set(settings.tunnels) == {*effective.server_interfaces, *effective.served_links, *further}
    assert settings.links == frozenset(effective.links), "links have no key here either"
    text = configuration(settings)
    let_in = [line for line in text.splitlines() if line.startswith("in ") and line.endswith(" allow")]
    assert len(let_in) == 1
    assert f"in ip {identity.trust.network} ge " in let_in[0]
    assert "in ip ::/0 eq 0 deny" in text.splitlines(), "and no default route is"
    assert not [line for line in text.splitlines() if line.startswith("redistribute") and "10.42" in line]
    assert [line for line in configuration(effective.babel(MAIN, 0, 0)).splitlines() if "192.168.7.0/24" in line]


def test_in_a_network_of_regions_the_kernel_has_that_of_the_node_and_the_address_at_which_the_nearest_node_answers(
    nodes: dict[str, cert.Identity],
) -> None:
    here, identity = Path("."), nodes["1/16"]
    config = Config("", Files(here, here, here), here, here, here)
    network = identity.trust.network
    effective = EffectiveConfig(config, identity, Parameters(Prefix(0, 16), regions=14), {})
    region = subnet(network, Prefix(0, 14))
    plan = effective.address_plans[1]
    assert (plan.unreachable, plan.address, plan.length) == ((region,), region[-1], 128)
    [route] = [each for each in Wanted().with_plans([plan], "lo").routes if each.destination == region]
    own, shared = Wanted().with_plans(effective.address_plans, "lo").addresses
    assert (own.deprecated, shared.deprecated) == (False, True), "no program has the one of all as its source by chance"
    assert (route.protocol, route.priority) == (ROUTE_PROTOCOL, 1), "before any of babeld's, which has another one"
    assert f"redistribute ip {network} ge {network.prefixlen + 1} proto {ROUTE_PROTOCOL}\n" in configuration(
        effective.babel(MAIN, 0, 0)
    )
    for alone in (0, 16, 20):
        parameters = Parameters(Prefix(0, 16), regions=alone)
        plans = EffectiveConfig(config, identity, parameters, {}).address_plans[1:]
        assert [(each.address, each.unreachable) for each in plans] == (
            [(effective.subnet[-1], ())] if alone == 16 else []
        ), "a region that is this node alone is asked by the same address"
