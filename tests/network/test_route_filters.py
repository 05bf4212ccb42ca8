"""What a member may announce to others, on the wire: a stock babeld that announces far more than its own subnet."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from re6st.core.routing.babel_settings import BabelSettings, configuration
from testbed import Bed, wait_until
from testbed.host import Host

LAN = "lan"
COMES = 60
OURS = BabelSettings(
    network=IPv6Network("2001:db8:42::/48"),
    subnet=IPv6Network("2001:db8:42:1::/64"),
    address=IPv6Address("2001:db8:42:1::1"),
    tunnels=(),
    lan=(LAN,),
    ipv4=IPv4Network("10.42.1.0/24"),
    ipv4_network=IPv4Network("10.42.0.0/16"),
    ipv4_length=24,
    longest=64,
    refused=(IPv4Network("192.168.9.0/24"),),
    accepted=(IPv4Network("192.168.0.0/16"), IPv6Network("2001:db8:99::/48")),
    hello=0.25,
)
LAST = "2001:db8:42:f::/64"
"""Announced after all others."""
TAKEN = {
    "2001:db8:42:2::/64",
    "2001:db8:42:80::/58",
    "10.42.3.0/24",
    "192.168.0.0/16",
    "192.168.7.0/24",
    "2001:db8:99:5::/64",
    "default from 2001:db8:42::/48",
    LAST,
}
REFUSED = {
    "0.0.0.0/1",
    "8.8.8.0/24",
    "10.42.0.0/16",
    "10.42.3.128/25",
    "192.168.9.0/24",
    "default",
    "2000::/3",
    "2001:db8:42::/48",
    "2001:db8:42:2::5/128",
    "2001:db8:42:3:8000::/65",
    "2001:db8::/32",
    "2001:db8:98::/48",
    "default from 2001:db8:98::/48",
    "2001:db8:42:4::/64 from 2001:db8:42:5::/64",
    # Our own, and parts of it.
    "2001:db8:42:1::/64",
    "2001:db8:42:1:8000::/65",
    "2001:db8:42:1::7/128",
    "10.42.1.0/24",
    "10.42.1.7/32",
}


def start(host: Host, text: str) -> None:
    (host.directory / "babeld.conf").write_text(text)
    places: list[str | Path] = ["-c", host.directory / "babeld.conf", "-S", host.state / "babeld"]
    host.start(["babeld", *places, "-I", "", "-s"], "babeld.log")


def by_babel(host: Host) -> set[str]:
    """The destinations of the routes in the kernel that babel made, also unreachable ones."""
    lines = host.ip("-4", "route", "show", "proto", "babel") + host.ip("-6", "route", "show", "proto", "babel")
    return {
        line.removeprefix("unreachable ").partition(" via ")[0].partition(" dev ")[0].strip()
        for line in lines.splitlines()
    }


@pytest.mark.parametrize("source_routes", [True, False])
def test_only_what_is_expected_gets_into_the_kernel(bed: Bed, source_routes: bool) -> None:
    victim, member = bed.host("victim"), bed.host("member")
    bed.segment(LAN, victim, member)
    victim.namespace.ip(f"address add {OURS.address}/64 dev lo", "address add 10.42.1.1/24 dev lo")
    for route in (*TAKEN - {LAST}, *REFUSED):
        member.namespace.ip(f"route add {route} dev lo proto static")
    start(victim, configuration(replace(OURS, source_routes=source_routes)))
    words = ["random-id true", "redistribute local deny", "redistribute ip ::/0 proto 4 allow"]
    words += ["redistribute ip 0.0.0.0/0 proto 4 allow", "redistribute deny"]
    words += ["default hello-interval 0.25 update-interval 1 split-horizon false", f"interface {LAN}"]
    start(member, "\n".join(words) + "\n")
    wait_until(lambda: "2001:db8:42:2::/64" in by_babel(victim), COMES, "routes come", bed.tails)
    member.namespace.ip(f"route add {LAST} dev lo proto static")
    wait_until(lambda: LAST in by_babel(victim), COMES, "the last one comes", bed.tails)
    expected = TAKEN if source_routes else {each for each in TAKEN if " from " not in each}
    # On a busy machine hellos are late, and its routes are unreachable for a moment.
    wait_until(lambda: by_babel(victim) == expected, COMES, "just these", lambda: f"{by_babel(victim)}\n{bed.tails()}")
