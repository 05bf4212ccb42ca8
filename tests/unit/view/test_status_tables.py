"""The tables of re6st-status."""

from __future__ import annotations

from re6st.view.screen import paint
from re6st.view.status_tables import peer_table, tunnel_table
from re6st.view.uplink_table import uplink_lines
from tests.unit.view.test_status_text import LINE, NOW, TUNNELS, UPLINKS, event


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


def test_of_a_tunnel_that_is_avoided_it_is_said_why() -> None:
    why = "echo requests are not answered"
    avoided = [{**TUNNELS[1], "state": "lossy", "avoided": why, "lost_percent": part} for part in (47, None)]
    lines = ["".join(span.text for span in each) for each in tunnel_table(avoided, None)]
    peer = TUNNELS[1]["peer"]
    assert lines[3:] == [f"{peer}: avoided, as {why} (47% of late)", f"{peer}: avoided, as {why}"]


def test_a_reason_why_wireguard_does_not_carry_tunnels_is_told_once() -> None:
    without = [{**TUNNELS[1], "peer": f"{number}/16", "no_wireguard": "not here: no module"} for number in range(7)]
    lines = ["".join(span.text for span in each) for each in tunnel_table(without, None)]
    assert lines[8:] == ["0/16, 1/16, 2/16, 3/16, 4/16 and others: no WireGuard, not here: no module"]


def test_the_uplinks_are_a_column_where_tunnels_are_bound_to_them() -> None:
    bound = [{**TUNNELS[1], "uplink": "fibre"}, {**TUNNELS[0], "uplink": None}]
    shown = ["".join(span.text for span in each) for each in tunnel_table(bound, None)]
    assert shown[0].split()[:5] == ["PEER", "DIR", "VIA", "UPLINK", "STATE"]
    assert (shown[1].split()[3], shown[2].split()[3]) == ("fibre", "-")
    assert "UPLINK" not in "".join(span.text for span in tunnel_table(TUNNELS, None)[0])


def test_each_line_to_the_internet_and_what_is_wrong_with_it() -> None:
    shown = paint(uplink_lines(UPLINKS, NOW, None))
    assert [" ".join(each.split()) for each in shown[:3]] == [
        "UPLINK STATE SINCE INTERFACE ROUTER ADDRESS MBIT/S TUNNELS RX TX",
        "fibre up 12m eth0 192.0.2.1 192.0.2.7 100 down, 20 up 3 40 MiB 3.0 MiB",
        "lte down 12m wwan0 - - metered 0 - -",
    ]
    assert shown[3] == "lte: there is no interface wwan0"
    assert shown[4] == "Tunnels that this node opens are spread over them, each bound to its own."
    alone = {"active": False, "trouble": "", "lines": [LINE]}
    assert paint(uplink_lines(alone, NOW, None))[-1] == "With fewer than two, tunnels go as the machine's routes say."
    assert paint(uplink_lines({**alone, "lines": []}, NOW, None))[0] == "no line to the Internet is known"
    assert paint(uplink_lines({**alone, "trouble": "no rules"}, NOW, None))[-1].endswith(
        "not bound to uplinks: no rules"
    )


def test_how_connections_are_spread_over_lines() -> None:
    of = {"destinations": 3, "sent_mbits": 20.0, "groups": 0}
    sharing = {"active": True, "trouble": "", "lines": {"fibre": of, "lte": of}}
    assert paint(uplink_lines({**UPLINKS, "sharing": sharing}, NOW, None))[-1] == (
        "What this node sends goes over all of them once one is full (groups of connections: none is full now)."
    )
    full = {**sharing, "lines": {"fibre": {**of, "groups": 11}, "lte": {**of, "groups": 5}}}
    assert "now 11 over fibre, 5 over lte" in paint(uplink_lines({**UPLINKS, "sharing": full}, NOW, None))[-1]
    assert paint(uplink_lines({**UPLINKS, "sharing": {**sharing, "trouble": "no nft"}}, NOW, None))[-1].endswith(
        "not spread over them: no nft"
    )


def test_how_one_connection_uses_several_lines() -> None:
    def last(**found: object) -> str:
        record = {"wanted": True, "active": True, "trouble": "", "lines": {}, **found}
        return paint(uplink_lines({**UPLINKS, "mptcp": record}, NOW, None))[-1]

    lines = {"fibre": {"opening": "2001:db8::fe01", "announced": "2001:db8::fe11"}}
    assert last(lines=lines).endswith("by the addresses of its subflows: fibre 2001:db8::fe01, 2001:db8::fe11.")
    assert last(active=False).startswith("One connection of MPTCP uses all lines of the other end")
    assert last(trouble="no MPTCP") == "One connection has one line, as MPTCP cannot be used: no MPTCP"
    assert "MPTCP" not in last(wanted=False, active=False)


def test_what_others_are_told_of_lines() -> None:
    of = {"received_mbits": 20.0, "groups": 0}
    incoming = {"active": True, "trouble": "", "lines": {"fibre": of, "lte": {**of, "groups": 5}}}
    assert paint(uplink_lines({**UPLINKS, "incoming": incoming}, NOW, None))[-1] == (
        "Neighbours are told by which of them to send (groups of connections: now 5 over lte)."
    )
    idle = {**incoming, "active": False}
    assert "Neighbours" not in paint(uplink_lines({**UPLINKS, "incoming": idle}, NOW, None))[-1]
    assert paint(uplink_lines({**UPLINKS, "incoming": {**idle, "trouble": "no nft"}}, NOW, None))[-1].endswith(
        "What others send is not spread over them: no nft"
    )
