"""What is thought of a machine's place in the network, from answers made up."""

from __future__ import annotations

from typing import Any

import pytest

from re6st.core.wire.wireguard import Reason
from re6st.view import netcheck
from re6st.view.findings import Finding
from re6st.view.netcheck import RegistryAnswer, Router
from tests.unit.view.test_status_text import EVENTS, STATUS, TUNNELS

URL = "http://re6st.example.com"
SERVER = {"protocol": "tcp", "port": 1194, "listening": True, "clients": 0}
NODE: dict[str, Any] = {
    **STATUS,
    "servers": [SERVER],
    "mesh": {"peers": 3, "clients_served": 0},
    "advertised": [{"host": "203.0.113.9", "port": 1194, "protocol": "tcp", "origin": "seen"}],
}
HERE = ["192.168.0.5"]


def told(findings: Any) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in findings]


def test_a_firewall_is_named_only_where_it_may_be_one() -> None:
    silent, lacking = Reason.NO_HANDSHAKE.words, "not here: the kernel has no module wireguard"
    told_of = {
        finding.text: finding.remedy
        for reason in (silent, lacking)
        for finding in netcheck.tunnels([{**TUNNELS[1], "peer": "5/16", "no_wireguard": reason}], [])
        if finding.about == "wireguard"
    }
    assert told_of[f"no WireGuard with 5/16: {lacking}"] == ""
    assert "--wireguard-ports" in told_of[f"no WireGuard with 5/16: {silent}"]


def test_what_the_node_complains_of() -> None:
    (found,) = netcheck.health(STATUS)
    assert (found.level, found.text[:13]) == ("warn", "babeld ended ")


def test_the_registry_over_two_families() -> None:
    four, six = RegistryAnswer("IPv4", 41.2, "sha256:3f", 0.0), RegistryAnswer("IPv6", error="cannot connect")
    assert told(netcheck.registry(URL, [four, six], "sha256:3f")) == [
        ("ok", "registry answers over IPv4 in 41 ms"),
        ("ok", "not over IPv6: cannot connect"),
        ("ok", "CA matches"),
        ("ok", "clock within 1 s"),
    ]
    assert told(netcheck.registry(URL, [six], "")) == [("fail", f"registry {URL} over IPv6: cannot connect")]


def test_another_ca_is_told_with_both_fingerprints() -> None:
    answers = [RegistryAnswer("IPv4", 1, "sha256:77"), RegistryAnswer("IPv6", 1, "sha256:3f")]
    (_, _, other, match) = netcheck.registry(URL, answers, "sha256:3f")
    assert other.level == "fail"
    assert "sha256:77" in other.text
    assert "sha256:3f" in other.text
    assert match.text == "CA matches"
    assert len(list(netcheck.registry(URL, answers, ""))) == 2, "ours is not known"


def test_a_ca_renewed_with_its_key_is_no_fault() -> None:
    answers = [RegistryAnswer("IPv4", 1, "sha256:77", ca_key="sha256:aa")]
    assert [level for level, _ in told(netcheck.registry(URL, answers, "sha256:3f", "sha256:aa"))] == ["ok", "ok"]
    assert [level for level, _ in told(netcheck.registry(URL, answers, "sha256:3f", "sha256:bb"))] == ["ok", "fail"]


@pytest.mark.parametrize(
    ("ahead", "level", "words"),
    [
        (-3.0, "ok", "clock within 3 s"),
        (30.0, "warn", "the clock here is 30 s behind the registry's"),
        (-7200.0, "fail", "the clock here is 2 h ahead of the registry's"),
    ],
)
def test_clocks(ahead: float, level: str, words: str) -> None:
    *_, found = netcheck.registry(URL, [RegistryAnswer("IPv4", 1, "", ahead)], "")
    assert (found.level, found.text) == (level, words)


def test_port_mapping() -> None:
    def found(status: dict[str, Any], router: Router | None = None) -> list[Finding]:
        return list(netcheck.port_mapping(status, HERE, router, 2.0))

    mapped = {**NODE, "advertised": [{**NODE["advertised"][0], "origin": "upnp"}]}
    assert told(found(mapped)) == [("ok", "UPnP: the router forwards 203.0.113.9:1194/tcp to this node")]
    good, second = found(mapped, Router("192.168.0.5", "100.64.3.4"))
    assert good.level == "ok"
    assert (second.level, second.text) == (
        "warn",
        "a second NAT: the router itself has 100.64.3.4, an address that is not public",
    )
    assert second.remedy.startswith("forward tcp/1194 to 100.64.3.4 there, ask the provider")
    assert len(found(mapped, Router("192.168.0.5", "203.0.113.9"))) == 2, "an address of documentation is not public"
    assert len(found(mapped, Router("192.168.0.5", "8.8.8.8"))) == 1
    own = {**NODE, "advertised": [{**NODE["advertised"][0], "host": HERE[0]}]}
    assert told(found(own)) == [("ok", "no router in between: 192.168.0.5 is this machine's own address")]
    (silent,) = found(NODE)
    assert (silent.level, silent.text) == ("warn", "UPnP: no router answered in 2 s")
    assert silent.remedy == "forward tcp/1194 to 192.168.0.5 by hand"
    (idle,) = found(NODE, Router("192.168.0.5", "8.8.8.8"))
    assert (idle.level, idle.text) == ("warn", "UPnP: the router (8.8.8.8) forwards nothing to us")
    assert idle.remedy == "see the node's log, or forward tcp/1194 to 192.168.0.5 by hand"
    for outside, words in (
        ("", "it may be behind another one, a second NAT"),
        ("10.9.0.2", "a second NAT: the router"),
    ):
        (second,) = found(NODE, Router("192.168.0.5", outside))
        assert second.level == "warn"
        assert words in second.text
        assert second.remedy.startswith("forward tcp/1194 by hand at both, the inner one to 192.168.0.5, ask the prov")
    assert not found({**NODE, "servers": [{**SERVER, "protocol": "udp6"}]})


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"servers": [{**SERVER, "clients": 2}]}, "ok", "tcp/1194: 2 peers connected, 0 tunnels since the start"),
        ({"mesh": {"peers": 3, "clients_served": 1}}, "ok", "tcp/1194: 0 peers connected, 1 tunnel since the start"),
        ({}, "warn", "tcp/1194: nobody has connected in 3 d 4 h"),
        ({"uptime_seconds": 60}, "ok", "tcp/1194: nobody has connected yet, in 1 min"),
        ({"mesh": {"peers": 0, "clients_served": 0}}, "ok", "tcp/1194: nobody has connected yet, in 3 d 4 h"),
        ({"servers": []}, "ok", "no server here: this node opens tunnels, and nobody opens one to it"),
    ],
)
def test_servers(change: dict[str, Any], level: str, words: str) -> None:
    assert told(netcheck.servers({**NODE, **change})) == [(level, words)]


def test_a_server_that_does_not_listen_and_an_address_nobody_knows() -> None:
    status = {**NODE, "servers": [{**SERVER, "listening": False}], "advertised": [], "uptime_seconds": 1}
    assert [each.level for each in netcheck.servers(status)] == ["fail", "ok", "warn"]


def test_tunnels() -> None:
    there = {"host": "198.51.100.7", "port": 1194, "protocol": "udp", "country": ""}

    def peers(*failed: int) -> list[dict[str, Any]]:
        last = {**EVENTS[0], "kind": "tunnel-failed"}
        kept: list[dict[str, Any]] = [{"peer": "4/16", "addresses": [there], "last": None}]
        return kept + [{"peer": f"{n}/16", "addresses": [], "last": last} for n in failed]

    up = ("ok", "1 tunnel of ours is up")
    assert told(netcheck.tunnels(TUNNELS, peers())) == [up]
    assert told(netcheck.tunnels(TUNNELS, peers(9))) == [up], "one of two is nothing to talk of"
    assert told(netcheck.tunnels(TUNNELS, peers(8, 9)))[1][0] == "warn"
    (found,) = netcheck.tunnels([], peers(*range(6)))
    assert (found.level, found.text[-9:]) == ("fail", "nd 1 more")
    assert found.remedy == "let udp/1194 out at the firewall"


def test_a_machine_without_any_way_out_is_not_told_to_look_at_its_firewall() -> None:
    (found,) = netcheck.uplink(["198.51.100.7", "2001:db8:ffff::7"], 2)
    assert (found.level, found.about) == ("fail", "uplink")
    assert "its uplink is down" in found.text
    assert not list(netcheck.uplink(["2001:db8:ffff::7"], 2)), "one family is enough"
    assert not list(netcheck.uplink([], 0))


def test_inside() -> None:
    assert netcheck.software("9/16", "1.0, Linux").text == "udp/326 passes inside, 9/16 has version 1.0"
    assert netcheck.software("9/16", None).level == "warn"
    assert netcheck.path_mtu("9/16", 1420, 1420).text == "path MTU to 9/16 1420"
    vanished = netcheck.path_mtu("9/16", 1500, 1280)
    assert (vanished.level, "Packet Too Big" in vanished.remedy) == ("warn", True)
    assert netcheck.path_mtu("9/16", None, None).level == "warn"


def test_a_tunnel_that_loses_large_packets_is_named_with_what_to_do() -> None:
    first, second, third = ({**TUNNELS[1], "peer": f"{n}/16", "protocol": "udp"} for n in (1, 2, 3))
    tcp = {**first, "peer": "4/16", "protocol": "tcp", "remote": "192.0.2.4"}
    good, bad, worse = netcheck.large_packets(
        [(first, 1372, 1372), (second, 1372, 1280), (third, None, None), (tcp, 1500, 64)]
    )
    assert (good.level, good.text) == ("ok", "packets of full size pass on 1 tunnel")
    where = f"tunnel with 2/16 (udp, {second['remote']})"
    assert (bad.level, bad.text) == (
        "warn",
        f"{where}: packets of 1372 bytes vanish, those of 1280 pass: the path swallows large ones",
    )
    assert "disable-proto udp" in bad.remedy
    assert worse.text.startswith("tunnel with 4/16 (tcp, 192.0.2.4): packets of 1500 bytes vanish, those of 64 pass")
    assert "tcp_mtu_probing" in worse.remedy
    assert not list(netcheck.large_packets([])), "nothing was tried"


def test_of_several_registries_one_that_does_not_answer_is_a_warning_and_none_is_a_failure() -> None:
    good, dead = [RegistryAnswer("IPv4", 12.0, "sha256:a")], [RegistryAnswer("IPv4", error="cannot connect.")]
    found = list(netcheck.registries({"http://a": good, "http://b": dead}, "sha256:a"))
    assert [(each.level, each.about) for each in found if "http://b" in each.text] == [("warn", "registry")]
    assert all("http://a" in each.text for each in found if each.level == "ok")
    found = list(netcheck.registries({"http://a": dead, "http://b": dead}, "sha256:a"))
    assert [each.level for each in found] == ["fail", "fail"]
    assert list(netcheck.registries({"http://a": good}, "")) == list(netcheck.registry("http://a", good, ""))


def test_registries_that_failed_are_named_with_the_time() -> None:
    known = [
        {
            "url": "http://a",
            "used": False,
            "works": False,
            "failed": 1000,
            "error": "cannot connect: Connection refused.",
        },
        {"url": "http://b", "used": True, "works": True, "failed": None, "error": None},
    ]
    asked, failed = netcheck.failed_registries({"url": "http://b", "all": known}, 1120)
    assert (asked.level, asked.text) == ("ok", "the node asks http://b")
    assert (failed.level, failed.text) == ("warn", "http://a failed 2 min ago: cannot connect: Connection refused")
    assert list(netcheck.failed_registries({"url": "http://a", "all": known[:1]}, 1120)) == []
    assert list(netcheck.failed_registries({"url": "http://a"}, 1120)) == [], "an older daemon knows one"
