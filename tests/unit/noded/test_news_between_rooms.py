"""What one room tells another by a small object between them."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network, ip_address
from pathlib import Path

import pytest

from re6st import cert
from re6st.client.files import Files
from re6st.core.mesh import policy
from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.core.wire.params import Parameters
from re6st.linux.kernel import Address
from re6st.noded.news import DeadLinkNews, Moves, PolicySettings, SettingsNews, Whereabouts
from re6st.noded.own_addresses import OwnAddresses
from re6st.noded.settings import Config, EffectiveConfig, InForce
from tests.unit.core.mesh.test_uplink_choice import HERE as HERE_TOO
from tests.unit.core.mesh.test_uplink_choice import choice as two_lines
from tests.unit.core.mesh.test_uplink_choice import line
from tests.unit.tunnel_doubles import FakeLinks

HERE = ip_address("192.0.2.1")


class Node:
    """A policy, tunnels and a memory that note what they hear."""

    available = True

    def __init__(self) -> None:
        self.heard: list[object] = []

    def event(self, event: policy.Event) -> None:
        self.heard.append(event)

    def moved(self, lost: frozenset[Address]) -> None:
        self.heard.append(lost)

    def set_own(self, endpoints: tuple[Endpoint, ...]) -> None:
        self.heard.append(endpoints)


def test_who_knows_the_lines_hears_of_a_link_that_seems_dead_before_the_policy() -> None:
    node, choice = Node(), two_lines(line("a"), line("b"))
    peer = Prefix(1, 16)
    choice.choose(peer, HERE_TOO, 0.0)
    news = DeadLinkNews(node, choice, FakeLinks())
    for event in (policy.LinkDead(peer, "re6stnet1"), policy.LinkDoubted(peer, "re6stnet1")):
        assert choice.to_prove(0.0) == []
        news.event(event)
    assert choice.to_prove(0.0) == ["a"]
    assert node.heard == [policy.LinkDead(peer, "re6stnet1"), policy.LinkDoubted(peer, "re6stnet1")]


def test_a_link_that_is_dead_while_another_one_with_the_peer_lives_is_no_news_for_the_policy() -> None:
    node, choice, links = Node(), two_lines(line("a"), line("b")), FakeLinks()
    peer, further = Prefix(1, 16), "re6stnet-wg961"
    links.spare = {further}
    choice.choose(peer, HERE_TOO, 0.0)
    choice.resume((peer, 1), choice.mark("b"))
    news = DeadLinkNews(node, choice, links)
    news.event(policy.LinkDoubted(peer, further))
    assert choice.to_prove(0.0) == ["b"], "the line of that link is doubted"
    news.event(policy.LinkDead(peer, further))
    assert node.heard == [policy.LinkDoubted(peer, further)]


@pytest.fixture
def in_force(tmp_path: Path, nodes: dict[str, cert.Identity]) -> InForce:
    files = Files(Path("ca.crt"), Path("cert.crt"), Path("cert.key"))
    config = Config("http://registry.example.com/", files, tmp_path, tmp_path, tmp_path)
    parameters = Parameters(Prefix(0, 16), ipv4=IPv4Network("10.42.0.0/16"), ipv4_sublen=8)
    return InForce(EffectiveConfig(config, nodes["1/16"], parameters, {}))


@pytest.mark.parametrize("news", [False, True])
def test_tunnels_are_left_before_others_are_opened_by_a_new_address(news: bool) -> None:
    node = Node()
    Moves(node, node).moved(frozenset((HERE,)), news=news)
    assert node.heard == [frozenset((HERE,)), *([policy.UplinkUp()] if news else [])]


def test_an_address_of_the_network_is_ours_in_both_families(in_force: InForce) -> None:
    where = Whereabouts(in_force, Node(), asyncio.Event())
    network = in_force.effective.identity.trust.network
    assert where.is_ours(network[1])
    assert where.is_ours(ip_address("10.42.7.7"))
    assert not where.is_ours(HERE)


def test_other_endpoints_are_remembered_and_told_to_who_waits_for_them(in_force: InForce) -> None:
    node, moved = Node(), asyncio.Event()
    endpoints = (Endpoint("192.0.2.1", 1194, TunnelProtocol.TCP),)
    Whereabouts(in_force, node, moved).keep(endpoints)
    assert node.heard == [endpoints]
    assert moved.is_set()


def test_the_policy_is_told_what_is_so_now(in_force: InForce) -> None:
    node, own = Node(), OwnAddresses([(1194, TunnelProtocol.TCP)])
    news = SettingsNews(PolicySettings(in_force, node, own), node)
    news.tell()
    own.country, node.available = "FR", False
    news.tell()
    first, second = node.heard
    assert isinstance(first, policy.SettingsChanged)
    assert isinstance(second, policy.SettingsChanged)
    assert (first.settings.country, second.settings.country) == ("", "FR")
    assert (first.settings.drains, second.settings.tunnel_refresh) == (False, float("inf"))
