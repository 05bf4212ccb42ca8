"""What the operator is told, from a table and a policy made up."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv6Network
from random import Random

import pytest

from re6st.core.mesh import policy as mesh
from re6st.core.prefix import Prefix, address
from re6st.core.routing.babel_lines import Table
from re6st.core.routing.survey import survey
from re6st.core.telemetry import report
from re6st.core.telemetry.event_log import Happening
from re6st.core.telemetry.expiry import DAY
from re6st.core.telemetry.report import Link, Server, Vitals, health
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint

NETWORK = IPv6Network("2001:db8:42::/48")
OWN, NEAR, FAR = (Prefix(n, 16) for n in (1, 2, 3))
LINES = """\
add interface re6stnet1 up true
add neighbour 1 address fe80::2 if re6stnet1 reach fff0 ureach 0000 rxcost 96 txcost 97 rtt 18.5 rttcost 0 cost 130
add neighbour 2 address fe80::9 if re6stnet-tcp reach ffff ureach 0000 rxcost 96 txcost 96 cost 65535
add route a prefix 2001:db8:42:2::/64 from ::/0 installed yes id 0 metric 130 refmetric 0 via fe80::2 if re6stnet1
add route b prefix 2001:db8:42:3::/64 from ::/0 installed yes id 0 metric 230 refmetric 100 via fe80::2 if re6stnet1
add route c prefix 2001:db8:42:3::/64 from ::/0 installed no id 0 metric 300 refmetric 0 via fe80::9 if re6stnet-tcp
add route d prefix 2001:db8:42:3::/64 from ::/0 installed no id 0 metric 65535 refmetric 65535 via fe80::7 if eth0
"""
WELL = Vitals(
    now=0,
    connected=True,
    babel_running=True,
    babel_late=False,
    babel_ended=0,
    tunnels=2,
    clients=0,
    reachable=5,
    alone=False,
    servers=[Server(TunnelProtocol.TCP, 1194, "re6stnet-tcp", listening=True, clients=0)],
    certificate_until=300 * DAY,
    ca_until=900 * DAY,
)


@pytest.fixture
def table() -> Table:
    table = Table()
    for line in LINES.splitlines():
        table.feed(line)
    return table


@pytest.fixture
def policy(table: Table) -> mesh.Mesh:
    settings = mesh.Settings(own=OWN, registry=NEAR, client_count=4, tunnel_refresh=300, close_time=60)
    made = mesh.Mesh(settings, {}, Random(1))
    made.tunnels[NEAR] = mesh.Tunnel(NEAR, mesh.Phase.DRAINING, 5.0, "re6stnet1")
    made.handle(mesh.Surveyed(survey(table, NETWORK, OWN)), 5.0)
    return made


def test_a_tunnel_has_what_openvpn_babel_and_the_policy_know(table: Table, policy: mesh.Mesh) -> None:
    links = [
        Link(
            NEAR,
            True,
            TunnelProtocol.TCP,
            "198.51.100.7",
            1194,
            "re6stnet1",
            since=90.0,
            received=1000,
            sent=20,
            uplink="fibre",
        ),
        Link(FAR, False, TunnelProtocol.TCP, "192.0.2.33", None, "re6stnet-tcp", since=99.0),
        Link(Prefix(9, 16), True),
    ]
    up, incoming, opening = report.tunnels(policy, table, links, now=100.0)
    assert up == {
        "peer": "2/16",
        "direction": "out",
        "state": "draining",
        "avoided": None,
        "lost_percent": None,
        "carrier": "openvpn",
        "no_wireguard": None,
        "protocol": "tcp",
        "remote": "198.51.100.7",
        "port": 1194,
        "interface": "re6stnet1",
        "uplink": "fibre",
        "up_seconds": 10.0,
        "cost": 130,
        "rtt_ms": 18.5,
        "reach": "fff0",
        "routes": 2,
        "received_bytes": 1000,
        "sent_bytes": 20,
    }
    assert (incoming["state"], incoming["cost"], incoming["direction"], incoming["routes"]) == ("up", 65535, "in", 0)
    assert (opening["state"], opening["cost"], opening["up_seconds"]) == ("opening", None, None)


def test_a_tunnel_on_which_packets_get_lost(table: Table, policy: mesh.Mesh) -> None:
    policy.tunnels[NEAR].phase = mesh.Phase.UP
    policy.handle(mesh.ClientUp(FAR), 100.0)
    policy.handle(mesh.TunnelsLossy(frozenset({NEAR})), 100.0)
    links = [Link(peer, peer is NEAR, TunnelProtocol.TCP, interface="re6stnet1", since=90.0) for peer in (NEAR, FAR)]
    found = report.tunnels(policy, table, links, 100.0, lambda hop: 0.474)
    assert [each["state"] for each in found] == ["lossy", "up"]
    assert [each["avoided"] for each in found] == ["TCP has to send much again", None]
    assert found[0]["lost_percent"] == 47
    json.dumps(found)


def test_another_link_with_the_same_peer_is_not_shown_as_one_on_which_packets_get_lost(
    table: Table, policy: mesh.Mesh
) -> None:
    """As the WireGuard link that takes the place of a tunnel."""
    policy.tunnels[NEAR].phase = mesh.Phase.UP
    policy.handle(mesh.TunnelsLossy(frozenset({NEAR})), 100.0)
    links = [Link(NEAR, True, TunnelProtocol.TCP, interface=name, since=90.0) for name in ("re6stnet1", "re6stnet7")]
    found = report.tunnels(policy, table, links, 100.0)
    assert [(each["state"], each["avoided"] is None) for each in found] == [("lossy", False), ("up", True)]


def test_a_tunnel_at_whose_other_end_nobody_answers(table: Table, policy: mesh.Mesh) -> None:
    policy.tunnels[NEAR].phase = mesh.Phase.UP
    gone = Prefix(9, 16)
    policy.tunnels[gone] = mesh.Tunnel(gone, mesh.Phase.UP, 5.0, "re6stnet2")
    table.feed("add interface re6stnet2 up true")
    links = [Link(NEAR, True, TunnelProtocol.TCP, interface="re6stnet1", since=0.0)]
    links += [Link(gone, True, TunnelProtocol.TCP, interface="re6stnet2", since=since) for since in (0.0, 90.0)]
    states = [each["state"] for each in report.tunnels(policy, table, links, now=100.0)]
    assert states == ["up", "silent", "up"], "one that is new may not have been met yet"
    empty = report.tunnels(policy, Table(), links, now=100.0)
    assert {each["state"] for each in empty} == {"up"}, "babeld is away, so nothing is known of anybody"


def test_the_routes_are_counted_and_come_in_pages(table: Table, policy: mesh.Mesh) -> None:
    found = report.routes(policy.survey, table, NETWORK, 1, 1)
    assert (found["count"], found["known"]) == (2, 4)
    assert found["by_next_hop"] == [{"peer": "2/16", "interface": "re6stnet1", "address": "fe80::2", "routes": 2}]
    assert [r["peer"] for r in found["routes"]] == ["3/16"]  # type: ignore[attr-defined]  # a list of records
    json.dumps(found)


def test_why_a_peer_is_reached_so(table: Table, policy: mesh.Mesh) -> None:
    ways = report.why(policy.survey, table, NETWORK, FAR)
    assert [(w["via"], w["metric"], w["behind"], w["in_use"]) for w in ways] == [
        ("2/16", 230, 100, True),
        ("3/16", 300, 0, False),
        (None, None, None, False),
    ]
    assert report.why(policy.survey, table, NETWORK, Prefix(77, 16)) == []


def test_neighbours_have_names(table: Table, policy: mesh.Mesh) -> None:
    found = report.neighbours(policy.survey, table)
    assert [(n["peer"], n["address"], n["routes"]) for n in found] == [("2/16", "fe80::2", 2), ("3/16", "fe80::9", 0)]


def test_peers_are_those_remembered_and_those_next_to_us(policy: mesh.Mesh) -> None:
    there = Endpoint("198.51.100.7", 1194, TunnelProtocol.UDP, "FR")
    happenings = [
        Happening(1, 10.0, "tunnel-up", (FAR,), 1),
        Happening(2, 20.0, "tunnel-failed", (FAR,), 1),
        Happening(3, 30.0, "peers-lost", (FAR,), 1),
    ]
    near, far = report.peers(policy, {FAR: (there,)}, happenings)
    assert (near["peer"], near["addresses"], near["tunnel"], near["last"]) == (NEAR.cn, [], "out", None)
    assert (far["peer"], far["reached"], far["metric"], far["tunnel"]) == (FAR.cn, True, 230, None)
    assert far["addresses"] == [{"host": "198.51.100.7", "port": 1194, "protocol": "udp", "country": "FR"}]
    assert isinstance(far["last"], dict)
    assert (far["last"]["kind"], far["last"]["time"]) == ("tunnel-failed", 20.0)
    json.dumps([near, far])


@pytest.mark.parametrize(
    ("vitals", "verdict", "words"),
    [
        (WELL, "ok", ""),
        (replace(WELL, refused=True), "failed", "this node was revoked"),
        (replace(WELL, refused=True, connected=False, reachable=0), "failed", "this node was revoked"),
        (replace(WELL, likely_refused=True, connected=False, reachable=0), "failed", "likely this node was revoked"),
        (replace(WELL, likely_refused=True), "warning", "keep certificate and key until then"),
        (replace(WELL, refused=True, certificate_until=-1), "failed", "our certificate has expired"),
        (replace(WELL, babel_running=False, connected=False, reachable=0), "failed", "babeld is not running"),
        (replace(WELL, connected=False), "failed", "registry's node"),
        (replace(WELL, connected=False, reachable=0), "failed", "no other node"),
        (replace(WELL, connected=False, reachable=0, alone=True), "warning", "none is there yet"),
        (replace(WELL, tunnels=0), "warning", "no tunnels"),
        (replace(WELL, broken=["our address is missing"]), "failed", "our address is missing"),
        (replace(WELL, babel_late=True), "warning", "babeld runs, but this node reads it too slowly"),
        (replace(WELL, babel_ended=3), "warning", "3 times in the last hour"),
        (replace(WELL, servers=[replace(WELL.servers[0], listening=False)]), "warning", "tcp/1194 is not listening"),
        (replace(WELL, certificate_until=13 * DAY), "warning", "our certificate expires in 13 days"),
        (replace(WELL, certificate_until=-1), "failed", "our certificate has expired"),
        (replace(WELL, ca_until=80 * DAY), "warning", "the CA certificate expires in 80 days"),
    ],
)
def test_the_verdict_has_reasons(vitals: Vitals, verdict: str, words: str) -> None:
    found = health(vitals)
    problems = found["problems"]
    assert isinstance(problems, list)
    assert found["verdict"] == verdict
    assert len(problems) == bool(words)
    assert not words or words in problems[0]["text"]


def test_an_address_is_found_without_looking_at_every_route() -> None:
    """Sixty-four at once may be asked for, by anybody who may look at a node; a network may have 100,000 routes."""
    network, asked = IPv6Network("2001:db8::/32"), []
    node = Prefix(5, 16)

    def known(prefix: Prefix) -> bool:
        asked.append(prefix)
        return prefix == node

    assert report.find(known, network, str(address(network, node))) == node
    assert report.find(known, network, str(address(network, Prefix(6, 16)))) is None
    assert len(asked) <= 2 * 96
    assert report.find(known, network, "6/16") == Prefix(6, 16)
