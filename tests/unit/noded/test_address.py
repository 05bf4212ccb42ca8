"""Which addresses a node tells its peers (wire.md 10.5)."""

from __future__ import annotations

from ipaddress import IPv6Network, ip_address

import pytest

from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint, format_addresses, parse_addresses
from re6st.noded.own_addresses import LEARNED_LIMIT, PRIVATE_LIMIT, VOTERS_LIMIT, OwnAddresses

PORTS = ((1194, TunnelProtocol.UDP), (1194, TunnelProtocol.TCP), (1195, TunnelProtocol.TCP6))


def told(own: OwnAddresses) -> str:
    return format_addresses(own.endpoints())


def test_nothing_is_known() -> None:
    assert told(OwnAddresses(PORTS)) == ""


def test_given_addresses_each_with_each_port_of_their_family() -> None:
    own = OwnAddresses(PORTS, [ip_address("2001:db8::1"), ip_address("192.0.2.1"), ip_address("192.0.2.2")])
    assert told(own) == (
        "192.0.2.1,1194,udp;192.0.2.1,1194,tcp;192.0.2.2,1194,udp;192.0.2.2,1194,tcp;2001:db8::1,1195,tcp6"
    )


def test_what_peers_see_is_believed_only_where_nothing_was_given() -> None:
    own = OwnAddresses(PORTS, [ip_address("192.0.2.1")])
    assert not own.learn("198.51.100.7")
    assert own.learn("2001:db8::7")
    assert told(own) == "192.0.2.1,1194,udp;192.0.2.1,1194,tcp;2001:db8::7,1195,tcp6"


def test_the_latest_address_comes_first_and_is_news_once() -> None:
    own = OwnAddresses([(1194, TunnelProtocol.TCP)])
    assert own.learn("192.0.2.1", peer="a")
    assert not own.learn("192.0.2.1", peer="a")
    assert own.learn("192.0.2.2", peer="b")
    assert told(own) == "192.0.2.2,1194,tcp;192.0.2.1,1194,tcp"
    assert own.learn("192.0.2.1", peer="c")
    assert told(own) == "192.0.2.1,1194,tcp;192.0.2.2,1194,tcp"


def test_peers_cannot_make_us_tell_ever_more_addresses() -> None:
    own = OwnAddresses([(1194, TunnelProtocol.TCP), (1194, TunnelProtocol.TCP6)])
    for number in range(100):
        own.learn(f"192.0.2.{number}", peer=number)
        own.learn(f"2001:db8::{number:x}", peer=number)
    assert len(own.endpoints()) <= 2 * LEARNED_LIMIT
    assert len(own.votes) == VOTERS_LIMIT
    for number in range(100):
        own.learn(f"192.0.2.{number}", peer="one")
    assert sum(endpoint.host == "192.0.2.99" for endpoint in own.endpoints()) == 1
    assert len([peer for peer, _ in own.votes if peer == "one"]) == 1


def test_learning_in_one_family_is_no_news_in_the_other() -> None:
    own = OwnAddresses([(1, TunnelProtocol.TCP), (2, TunnelProtocol.TCP6)])
    assert own.learn("192.0.2.1")
    assert own.learn("2001:db8::1")
    assert not own.learn("192.0.2.1")
    assert not own.learn("2001:db8::1")


def test_public_addresses_of_the_machine_stay_whatever_a_peer_says() -> None:
    local = [ip_address(text) for text in ("10.0.0.1", "8.8.4.4", "fd00::1", "2600::1", "127.0.0.1")]
    own = OwnAddresses([(1194, TunnelProtocol.TCP), (1194, TunnelProtocol.TCP6)], local=local)
    assert told(own) == "8.8.4.4,1194,tcp;2600::1,1194,tcp6"
    own.learn("9.9.9.9", peer="a")
    assert told(own) == "8.8.4.4,1194,tcp;9.9.9.9,1194,tcp;2600::1,1194,tcp6"
    own.learn("9.9.9.9", peer="b")
    assert told(own) == "9.9.9.9,1194,tcp;8.8.4.4,1194,tcp;2600::1,1194,tcp6", "two of them agree"


def test_one_server_cannot_fill_our_addresses_with_those_of_others() -> None:
    own = OwnAddresses([(1194, TunnelProtocol.UDP)], local=[ip_address("51.15.0.7")])
    own.learn("51.15.0.7", ip_address("51.15.0.7"), "honest")
    for fake in ("8.8.8.8", "8.8.4.4", "1.1.1.1", "9.9.9.9", "127.0.0.1", "10.0.0.1"):
        own.learn(fake, ip_address("51.15.0.7"), "attacker")
    assert told(own).startswith("51.15.0.7,1194,udp")
    assert len(own.endpoints()) <= 2


def test_behind_a_router_what_two_peers_see_comes_before_what_one_says() -> None:
    own = OwnAddresses([(1194, TunnelProtocol.UDP)])
    for peer in ("a", "b"):
        own.learn("51.15.0.7", peer=peer)
    own.learn("9.9.9.9", peer="attacker")
    assert told(own) == "51.15.0.7,1194,udp;9.9.9.9,1194,udp"
    for peer in ("a", "b"):
        own.learn("51.15.0.8", peer=peer)  # the line has another address
    assert told(own) == "51.15.0.8,1194,udp;9.9.9.9,1194,udp"


def test_a_private_address_that_is_seen_displaces_no_public_one() -> None:
    own = OwnAddresses([(1194, TunnelProtocol.UDP)], local=[ip_address("51.15.0.7")])
    own.learn("10.0.0.9", peer="a")
    own.learn("10.0.0.9", peer="b")
    assert told(own) == "51.15.0.7,1194,udp"


def test_what_peers_behind_the_same_router_see_is_told_to_nobody_else() -> None:
    inner = ip_address("192.168.1.5")
    own = OwnAddresses([(1194, TunnelProtocol.UDP)], local=[inner], uplinks=[inner])
    own.learn("51.15.0.7", inner, "outside")
    beside = [Endpoint("51.15.0.7", 2000, TunnelProtocol.TCP), Endpoint("192.168.1.6", 2000, TunnelProtocol.TCP)]
    for peer in ("a", "b"):
        assert not own.learn("192.168.1.5", inner, peer, beside)
    assert told(own) == "51.15.0.7,1194,udp"
    own.learn("51.15.0.8", inner, "c", beside)
    assert told(own) == "51.15.0.8,1194,udp;51.15.0.7,1194,udp", "a router that sends back inside"


def test_in_a_private_network_a_public_address_of_one_peer_displaces_none() -> None:
    own = OwnAddresses([(1194, TunnelProtocol.UDP)])
    own.learn("10.0.0.9", peer="a")
    own.learn("10.0.0.9", peer="b")
    own.learn("9.9.9.9", peer="attacker")
    assert told(own).startswith("10.0.0.9,1194,udp")


def test_private_addresses_are_told_while_there_is_nothing_else() -> None:
    """The first node of a private network: nobody is there to see it."""
    own = OwnAddresses([(1194, TunnelProtocol.TCP), (1195, TunnelProtocol.TCP6)], network=IPv6Network("fd42::/48"))
    texts = ("fd00::1", "fd42::1", "192.168.0.1", "100.64.0.1", "127.0.0.1", "169.254.1.1", "fe80::1")
    local = [ip_address(text) for text in texts]
    own.moved(local, local)
    assert told(own) == "192.168.0.1,1194,tcp;100.64.0.1,1194,tcp;fd00::1,1195,tcp6"
    assert {own.origin(endpoint) for endpoint in own.endpoints()} == {"private"}
    own.moved([*local, ip_address("2600::1")], local)
    assert told(own) == "2600::1,1195,tcp6;192.168.0.1,1194,tcp;100.64.0.1,1194,tcp", "some have no IPv6"
    own.moved([*local, ip_address("9.9.9.9")], local)
    assert told(own) == "9.9.9.9,1194,tcp", "a public one makes them needless"
    own.moved([ip_address(f"10.0.0.{number}") for number in range(1, 100)], local)
    assert len(own.endpoints()) <= PRIVATE_LIMIT
    own.learn("198.51.100.7", local[2])
    assert told(own) == "198.51.100.7,1194,tcp"
    own.moved(local, local)
    own.moved([], local)
    assert told(own) == "", "a peer saw us elsewhere, and the next one will again"


def test_without_a_port_of_its_family_an_address_is_of_no_use() -> None:
    assert told(OwnAddresses([(1194, TunnelProtocol.TCP)], [ip_address("2001:db8::1")])) == ""


def test_the_country_goes_with_every_address() -> None:
    own = OwnAddresses([(1194, TunnelProtocol.TCP)], [ip_address("192.0.2.1")], country="FR")
    assert told(own) == "192.0.2.1,1194,tcp,FR"
    assert parse_addresses(told(own)) == own.endpoints()


def test_an_address_inside_the_network_is_never_told() -> None:
    """A tunnel inside a tunnel: whoever reaches us through re6st itself sees our re6st address."""
    own = OwnAddresses([(1194, TunnelProtocol.TCP6)], network=IPv6Network("2001:db8:42::/48"))
    assert not own.learn("2001:db8:42:1::1")
    assert told(own) == ""


@pytest.mark.parametrize(
    "text",
    ["fe80::1", "127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:1.2.3.4"],
)
def test_an_address_that_means_nothing_to_others_is_not_learned(text: str) -> None:
    own = OwnAddresses([(1194, TunnelProtocol.TCP), (1194, TunnelProtocol.TCP6)])
    assert not own.learn(text)
    assert told(own) == ""


def test_what_was_seen_through_an_address_we_lost_holds_no_more() -> None:
    wlan, wire = ip_address("192.168.0.5"), ip_address("10.1.2.3")
    own = OwnAddresses([(1194, TunnelProtocol.TCP)], local=[wlan, wire])
    own.learn("198.51.100.1", wlan, "a")
    own.learn("203.0.113.2", wire, "b")
    own.moved([wlan])
    assert told(own) == "198.51.100.1,1194,tcp"
    own.moved([ip_address("192.0.2.99")])
    assert told(own) == ""
    own.learn("198.51.100.1", ip_address("192.0.2.99"))
    assert told(own) == "198.51.100.1,1194,tcp"


def test_a_public_address_of_the_machine_follows_it() -> None:
    own = OwnAddresses([(1194, TunnelProtocol.TCP)], local=[ip_address("9.9.9.9")])
    assert told(own) == "9.9.9.9,1194,tcp"
    own.moved([ip_address("8.8.8.8"), ip_address("192.168.0.1")])
    assert told(own) == "8.8.8.8,1194,tcp"


def test_a_router_that_does_not_tell_its_address() -> None:
    own = OwnAddresses([(1194, TunnelProtocol.TCP)], mapped=(Endpoint("", 40000, TunnelProtocol.TCP),))
    assert told(own) == ""
    own.learn("198.51.100.7")
    assert told(own) == "198.51.100.7,40000,tcp"


@pytest.mark.parametrize("inner", ["100.64.3.4", "192.168.7.1", "10.1.2.3"])
def test_a_router_behind_another_router_displaces_nothing_that_peers_see(inner: str) -> None:
    own = OwnAddresses([(1194, TunnelProtocol.TCP)])
    own.mapped = (Endpoint(inner, 47813, TunnelProtocol.TCP),)
    assert told(own) == f"{inner},47813,tcp", "all may be behind that one"
    own.learn("8.8.4.4", peer="a")
    assert told(own) == "8.8.4.4,47813,tcp"
    assert own.addresses() == [ip_address("8.8.4.4")]
    own.mapped = (Endpoint("9.9.9.9", 47813, TunnelProtocol.TCP),)
    assert told(own) == "9.9.9.9,47813,tcp", "a router with a public address knows best"


def test_a_public_address_in_one_family_takes_no_private_one_of_the_other_away() -> None:
    """Peers in the private network may have IPv4 only."""
    lan, wide = ip_address("192.168.1.5"), ip_address("2a00:1::5")
    own = OwnAddresses(
        [(1194, TunnelProtocol.TCP), (1194, TunnelProtocol.TCP6)],
        local=[lan, wide],
        uplinks=[lan, wide, ip_address("fd00::5")],
    )
    assert told(own) == "2a00:1::5,1194,tcp6;192.168.1.5,1194,tcp"
    own.learn("8.8.4.4", lan, "peer")
    assert told(own) == "8.8.4.4,1194,tcp;2a00:1::5,1194,tcp6"
