"""What re6st-status shows of some answers, as text of 80 columns."""

from __future__ import annotations

from typing import Any

import pytest

from re6st.view import status_text as text
from re6st.view.screen import paint

NOW = 1_800_000_000.0
DAY = 86400.0
STATUS: dict[str, Any] = {
    "program": "re6stnet",
    "version": "1.0",
    "protocol": 11,
    "uptime_seconds": 3 * DAY + 4 * 3600,
    "cn": "120/16",
    "address": "2001:db8:42:78::1",
    "subnet": "2001:db8:42:78::/64",
    "network": "2001:db8:42::/48",
    "ipv4": "10.42.120.1",
    "parameters": 12,
    "certificate": {"until": NOW + 331 * DAY, "renews": NOW + 301 * DAY, "ca_until": NOW + 8 * 366 * DAY},
    "registry": {"url": "https://re6st.example.com/", "cn": "0/16", "connected": True, "answered": NOW - 7300},
    "advertised": [
        {"host": "203.0.113.9", "port": 1194, "protocol": "tcp", "origin": "upnp"},
        {"host": "2001:db8:ffff::9", "port": 1194, "protocol": "tcp6", "origin": "given"},
    ],
    "servers": [{"protocol": "tcp"}],
    "babel": {"running": True, "late": False},
    "claims": {"refused": [], "own_subnet_from": [], "doubled": []},
    "links": {"active": True, "probes": 0, "died": 0, "dead": 0, "lossy": 0, "detours": 0},
    "bulk": {"planes": 1, "active": False, "trouble": "", "routes": 0, "trains": 0, "links": {}},
    "uplinks": {"active": False, "trouble": "", "lines": []},
    "packet_filter": {"active": True, "missing": [], "dropped": {"own_source": 0, "foreign_source": 0}},
    "mesh": {"tunnels": 2, "tunnels_opening": 1, "tunnels_wanted": 10, "clients": 1, "neighbours": 3, "peers": 430},
    "health": {
        "verdict": "warning",
        "problems": [
            {
                "severity": "warning",
                "text": "babeld ended 2 times in the last hour: see its log, which is long but good",
            }
        ],
    },
}
UP = {"direction": "out", "state": "up", "protocol": "udp", "remote": "198.51.100.7", "port": 1194, "rtt_ms": 18.5,
      "interface": "re6stnet1", "carrier": "openvpn", "no_wireguard": None,
      "avoided": None, "lost_percent": None}  # fmt: skip
LINE = {"name": "fibre", "device": "eth0", "gateways": ["192.0.2.1"], "addresses": ["192.0.2.7"], "state": "up",
        "since": NOW - 720, "problem": "", "down_mbits": 100.0, "up_mbits": 20.0, "metered": False, "mark": 16,
        "table": 14601, "tunnels": 3, "received_bytes": 40 << 20, "sent_bytes": 3 << 20}  # fmt: skip
LTE = {**LINE, "name": "lte", "device": "wwan0", "gateways": [], "addresses": [], "state": "down", "metered": True,
       "problem": "there is no interface wwan0", "down_mbits": None, "up_mbits": None, "tunnels": 0,
       "received_bytes": None, "sent_bytes": None}  # fmt: skip
UPLINKS: dict[str, Any] = {"active": True, "trouble": "", "lines": [LINE, LTE]}
TUNNELS: list[dict[str, Any]] = [
    {**UP, "peer": "77/16", "direction": "in", "state": "draining", "port": None, "remote": "192.0.2.33", "cost": 410,
     "reach": "fff0", "up_seconds": 720, "received_bytes": 40 << 20, "sent_bytes": 3 << 20, "rtt_ms": 95.0},
    {**UP, "peer": "4/16", "cost": 130, "reach": "ffff", "up_seconds": 2 * DAY + 3600, "received_bytes": 1288490189,
     "sent_bytes": 310 << 20},
    {**UP, "peer": "9/16", "state": "opening", "rtt_ms": None, "cost": None, "reach": None, "up_seconds": None,
     "received_bytes": None, "sent_bytes": None, "remote": ""},
]  # fmt: skip
ROUTES = {
    "count": 431,
    "by_next_hop": [
        {"peer": f"{n}/16", "address": "fe80::1", "interface": "re6stnet1", "routes": 50} for n in range(8)
    ],
}


def event(kind: str, ago: float, *peers: str, seconds: float | None = None, reason: str = "") -> dict[str, Any]:
    named = list(peers)
    return {"number": 1, "time": NOW - ago, "kind": kind, "peers": named, "count": len(named), "seconds": seconds,
            "reason": reason}  # fmt: skip


EVENTS = [
    event("tunnel-failed", 90, "9/16"),
    event("tunnel-failed", 70, "9/16"),
    event("peers-lost", 65, "5/16", "6/16"),
    event("peers-back", 63, "5/16", "6/16", seconds=1.63),
    event("tunnel-closed", 12, "3/16", seconds=300, reason="replaced"),
]

PICTURE = """\
re6st 1.0 (protocol 11), up 3 d 4 h                            health: 1 warning
  ! babeld ended 2 times in the last hour: see its log, which is long but good
  node         120/16, address 2001:db8:42:78::1, IPv4 10.42.120.1
  subnet       2001:db8:42:78::/64 of the network 2001:db8:42::/48
  certificate  ends in 331 d (2027-12-12), renewed in 301 d; CA until 2035-01-21
  registry     https://re6st.example.com/: its node 0/16 is in reach, it
               answered 2 h ago; parameters 12
  reachable    203.0.113.9:1194/tcp (UPnP), [2001:db8:ffff::9]:1194/tcp6 (--ip)
  mesh         2 tunnels of ours (1 opening), at most 10; 1 client, 3
               neighbours, 430 other nodes
  routes       431: 50 via 0/16, 50 via 1/16, 50 via 2/16, 50 via 3/16,
                    50 via 4/16, 50 via 5/16, 2 more

PEER  DIR VIA                   STATE      RTT COST REACH   UP      RX      TX
4/16  out 198.51.100.7:1194/udp up       18 ms  130 ffff  2d1h 1.2 GiB 310 MiB
9/16  out -                     opening      -    - -        -       -       -
77/16 in  192.0.2.33/udp        draining 95 ms  410 fff0   12m  40 MiB 3.0 MiB

LAST EVENTS
  70 s ago  no tunnel to 9/16: it never came up (2 times)
  65 s ago  lost 2 nodes: 5/16, 6/16
  63 s ago  2 nodes back: 5/16, 6/16, healed in 1.6 s
  12 s ago  closed our tunnel to 3/16: replaced, it was up 5 min
"""


def test_the_whole_picture_in_80_columns() -> None:
    lines = text.overview(STATUS, TUNNELS, ROUTES, EVENTS, NOW, 80)
    assert "\n".join(paint(lines, width=80)) + "\n" == PICTURE


@pytest.mark.parametrize("width", [30, 40, 60, 79, 120, None])
def test_other_widths(width: int | None) -> None:
    lines = paint(text.overview(STATUS, TUNNELS, ROUTES, EVENTS, NOW, width), width=width)
    assert width is None or max(map(len, lines)) <= width
    assert any("120/16" in each for each in lines)


def test_a_node_that_is_cut_off() -> None:
    status = {
        **STATUS,
        "advertised": [],
        "registry": {"url": "http://r/", "cn": "0/16", "connected": False, "answered": None},
        "certificate": {"until": NOW - 2 * DAY, "renews": NOW - 32 * DAY, "ca_until": NOW + DAY},
        "health": {"verdict": "failed", "problems": [{"severity": "failed", "text": "no other node can be reached"}]},
    }
    shown = "\n".join(paint(text.overview(status, [], {"count": 0, "by_next_hop": []}, [], NOW, 80)))
    assert "health: failed\n  ! no other node can be reached\n" in shown
    assert "certificate  ended 2 d ago (2027-01-13), its renewal is due" in shown
    assert "http://r/: its node 0/16 is out of reach; parameters 12" in shown
    assert "not from outside: no public address is known yet" in shown
    assert "routes       none" in shown
    assert shown.endswith("no tunnels")


def test_why() -> None:
    hop = {"peer": "4/16", "interface": "re6stnet1", "address": "fe80::4"}
    way = {**hop, "destination": "2001:db8:42:9::/64", "source": None, "via": "4/16", "metric": 226, "behind": 96}
    answer: dict[str, Any] = {
        "peer": "9/16",
        "address": "2001:db8:42:9::1",
        "subnet": "2001:db8:42:9::/64",
        "since": {"time": NOW - 3700, "via": hop, "before": {**hop, "peer": None}},
        "routes": [{**way, "in_use": True}, {**way, "via": None, "in_use": False, "metric": None, "behind": 65535}],
    }
    assert "\n".join(paint(text.why_lines(answer, NOW, 80))).startswith(
        """\
9/16 (2001:db8:42:9::/64) is reached via 4/16 on re6stnet1, metric 226
  for 1 h 1 min, before that via fe80::4 on re6stnet1

   VIA   INTERFACE  METRIC  REST  ADDRESS
*  4/16  re6stnet1     226    96  fe80::4
   ?     re6stnet1       -   inf  fe80::4
"""
    )
    answer["routes"][0] |= {"in_use": False}
    answer["since"] = None
    assert "out of reach" in paint(text.why_lines(answer, NOW, 80))[0]
    answer["routes"][0] |= {"in_use": True, "behind": 0}
    assert "is our neighbour on re6stnet1" in paint(text.why_lines(answer, NOW, 80))[0]
    answer["region"] = "2/14"
    assert "is known by its region 2/14, which is our neighbour on" in paint(text.why_lines(answer, NOW, 80))[0]
    answer["bulk"] = {"since": None, "routes": []}
    assert "Bulk traffic (class CS1 or LE) takes the same way" in paint(text.why_lines(answer, NOW, 80))[-1]
    answer["bulk"]["routes"] = [{**way, "via": "7/16", "in_use": True, "metric": 1024}]
    shown = paint(text.why_lines(answer, NOW, 80))
    assert "For bulk traffic (class CS1 or LE) it is reached via 7/16 on re6stnet1, metric 1024" in shown


def test_hops_and_pings() -> None:
    hop = {"hop": 1, "peer": "4/16", "address": "2001:db8:42:4::1", "ms": 1.23}
    assert paint([text.hop_line(hop)]) == ["  1  4/16       2001:db8:42:4::1          1.2 ms"]
    assert paint([text.hop_line({**hop, "peer": None, "address": None, "ms": None})]) == ["  1  no answer"]
    assert paint([text.ping_summary([1.0, None, 20.0])]) == [
        "3 sent, 2 answered; 1.0 ms at least, 10 ms on average, 20 ms at most"
    ]
    assert paint([text.ping_summary([None])]) == ["1 sent, 0 answered"]


CERTIFICATE = {
    "subject": "CN=120/16",
    "subnet": "2001:db8:42:78::/64",
    "address": "2001:db8:42:78::1",
    "serial": 7,
    "key_bits": 2048,
    "fingerprint": "sha256:" + "7a" * 32,
    "starts": NOW - 34 * DAY,
    "until": NOW + 331 * DAY,
    "renews": NOW + 301 * DAY,
    "ca": {
        "subject": "CN=Example mesh",
        "network": "2001:db8:42::/48",
        "key_bits": 4096,
        "fingerprint": "sha256:" + "3f" * 32,
        "starts": NOW - 700 * DAY,
        "until": NOW - 1 * DAY,
    },
}
CERTIFICATE_SHOWN = f"""\
  subject      CN=120/16
  subnet       2001:db8:42:78::/64, address 2001:db8:42:78::1
  serial       7, key of 2048 bits
  valid        2026-12-12 to 2027-12-12: ends in 331 d
  renewal      in 301 d
  fingerprint
    sha256:{"7a" * 32}
  CA           CN=Example mesh
  network      2001:db8:42::/48, CA's key of 4096 bits
  CA valid     2025-02-14 to 2027-01-14: ended 24 h ago
  CA's print
    sha256:{"3f" * 32}"""


def test_a_certificate_with_whole_fingerprints() -> None:
    assert "\n".join(paint(text.certificate_lines(CERTIFICATE, NOW, 80), width=80)) == CERTIFICATE_SHOWN
    wide = paint(text.certificate_lines(CERTIFICATE, NOW, None))
    assert f"  fingerprint  sha256:{'7a' * 32}" in wide
    later = paint(text.certificate_lines({**CERTIFICATE, "starts": NOW + 2 * DAY}, NOW, None))
    assert "  valid        2027-01-17 to 2027-12-12: starts in 2 d" in later


def test_a_line_of_the_log() -> None:
    record = {"time": NOW, "level": "WARNING", "name": "re6st.node", "text": "one\ntwo", "left_out": 2}
    head = "2027-01-15 08:00:00Z WARNING re6st.node: "
    assert paint(text.log_lines(record)) == ["2 lines left out", f"{head}one", f"{head}two"]


def test_packets_that_were_dropped_are_told_and_that_none_are_filtered() -> None:
    def said(**packets: Any) -> str:
        status = {**STATUS, "packet_filter": {**STATUS["packet_filter"], **packets}}
        return "\n".join(paint(text.facts(status, ROUTES, NOW, 80), width=80))

    assert "packets" not in said()
    assert "packets      dropped: 3 own_source, 7 foreign_source" in said(
        dropped={"own_source": 3, "foreign_source": 7}
    )
    assert "packets      of tunnels are not filtered" in said(active=False)


def test_links_that_died_are_told_of_and_what_is_led_around() -> None:
    def said(**links: Any) -> str:
        status = {**STATUS, "links": {**STATUS["links"], **links}}
        return "\n".join(paint(text.facts(status, ROUTES, NOW, 80), width=80))

    assert "links" not in said()
    assert "links        2 found dead, 31 probes sent" in said(died=2, probes=31)
    assert "links        1 found dead, 9 probes sent; 1 now, 3 destinations led around" in said(
        died=1, dead=1, probes=9, detours=3
    )
    assert "links        0 found dead, 900 probes sent; on 2 packets get lost" in said(lossy=2, probes=900)


def test_lines_to_the_internet_are_told_of_where_tunnels_are_bound_to_them() -> None:
    def shown(**uplinks: object) -> str:
        status = {**STATUS, "uplinks": {**UPLINKS, **uplinks}}
        return "\n".join(paint(text.overview(status, TUNNELS, ROUTES, EVENTS, NOW, 80)))

    assert "uplinks      1 of 2 lines up: fibre, lte (down)" in shown()
    assert "uplinks" not in shown(active=False)
    assert "uplinks      the kernel has no rules" in shown(active=False, trouble="the kernel has no rules")
    older = {name: value for name, value in STATUS.items() if name != "uplinks"}
    assert "uplinks" not in "\n".join(paint(text.overview(older, TUNNELS, ROUTES, EVENTS, NOW, 80)))


def test_whom_a_node_knows_in_a_network_of_regions() -> None:
    def shown(**changed: object) -> str:
        regions = {"bits": 8, "own": "2/8", "nodes": 240, "others": 14, "whole": True} | changed
        lines = paint(text.overview({**STATUS, "regions": regions}, [], ROUTES, [], NOW, 80))
        return " ".join(" ".join(lines).split())

    assert "3 neighbours, 240 other nodes of our region 2/8, 14 other regions routes" in shown()
    assert "14 other regions; our region is in parts, which look for each other" in shown(whole=False)


def test_by_which_plane_bulk_traffic_goes() -> None:
    def shown(**bulk: object) -> str:
        status = {**STATUS, "bulk": {**STATUS["bulk"], **bulk}}
        return "\n".join(paint(text.overview(status, TUNNELS, ROUTES, EVENTS, NOW, 80)))

    assert "bulk" not in shown()
    assert "bulk         by capacity, 7 routes" in shown(planes=2, active=True, routes=7)
    assert "bulk         by latency, as all else: no nftables" in shown(planes=2, trouble="no nftables")
    assert "bulk         by latency, as all else\n" in shown(planes=2)


def test_registries_in_reserve_and_those_that_failed_are_shown() -> None:
    known = [
        {"url": "http://a", "used": False, "works": False, "failed": NOW - 120, "error": "no connection within 1 s."},
        {"url": "http://b", "used": True, "works": True, "failed": None, "error": None},
        {"url": "http://c", "used": False, "works": True, "failed": NOW - 9000, "error": "cannot connect."},
    ]
    shown = text.other_registries({"url": "http://b", "all": known}, NOW)
    assert shown == ["http://a: failed 2 min ago: no connection within 1 s", "http://c: in reserve"]
    assert text.other_registries({"url": "http://b"}, NOW) == []
