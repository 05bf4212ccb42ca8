"""The tables of re6st-status."""

from __future__ import annotations

from re6st.view.screen import paint
from re6st.view.status_tables import peer_table, tunnel_table
from tests.unit.view.test_status_text import NOW, TUNNELS, event


def test_peers_and_what_came_of_them() -> None:
    there = {"host": "198.51.100.7", "port": 1194, "protocol": "udp", "country": ""}
    peers = [
        {"peer": "9/16", "addresses": [], "reached": False, "metric": None, "tunnel": None,
         "last": event("tunnel-failed", 90, "9/16")},
        {"peer": "4/16", "addresses": [there, {**there, "host": "2001:db8:ffff::4", "protocol": "udp6"}],
         "reached": True, "metric": 96, "tunnel": "out", "last": None},
    ]  # fmt: skip
    assert paint(peer_table(peers, NOW, 60), width=60) == [
        "PEER ADDRESSES              TUNNEL METRIC LAST",
        "4/16 198.51.100.7:1194/udp… out        96 -",
        "9/16 -                      -        away no answer 90 s ago",
    ]


def test_of_each_tunnel_it_is_said_what_carries_it_and_why_not_wireguard() -> None:
    link = {**TUNNELS[1], "carrier": "wireguard", "port": 21194}
    failed = {**TUNNELS[1], "peer": "5/16", "no_wireguard": "no handshake: does a firewall drop UDP?"}
    older = {name: value for name, value in TUNNELS[1].items() if name not in ("carrier", "no_wireguard")}
    lines = [
        "".join(span.text for span in each) for each in tunnel_table([link, failed, {**older, "peer": "6/16"}], None)
    ]
    assert "198.51.100.7:21194/wireguard" in lines[1]
    assert "198.51.100.7:1194/udp" in lines[2]
    assert "198.51.100.7:1194/udp" in lines[3]
    assert lines[4:] == ["5/16: no WireGuard, no handshake: does a firewall drop UDP?"]


def test_a_reason_why_wireguard_does_not_carry_tunnels_is_told_once() -> None:
    without = [{**TUNNELS[1], "peer": f"{number}/16", "no_wireguard": "not here: no module"} for number in range(7)]
    lines = ["".join(span.text for span in each) for each in tunnel_table(without, None)]
    assert lines[8:] == ["0/16, 1/16, 2/16, 3/16, 4/16 and others: no WireGuard, not here: no module"]
