"""Findings in words and as records."""

from __future__ import annotations

from re6st.view.findings import Finding, lines_of, merged, records, verdict
from re6st.view.screen import paint

TUN, ADMIN = Finding("ok", "machine", "tun device"), Finding("ok", "machine", "CAP_NET_ADMIN")
UPNP = Finding("warn", "upnp", "UPnP: no router answered in 2 s", "forward tcp/1194 to 192.168.0.5 by hand")
CLOSED = Finding("fail", "server", "tcp/1194: not listening", "see the log")


def test_the_verdict_is_that_of_the_worst() -> None:
    assert verdict([]) == verdict([TUN]) == "ok"
    assert verdict([TUN, UPNP]) == "warn"
    assert verdict([UPNP, CLOSED, TUN]) == "fail"


def test_good_ones_about_the_same_are_one_line() -> None:
    assert merged([TUN, ADMIN, UPNP, TUN]) == [Finding("ok", "machine", "tun device, CAP_NET_ADMIN"), UPNP, TUN]
    assert merged([CLOSED, CLOSED]) == [CLOSED, CLOSED]


def test_lines() -> None:
    assert paint(lines_of(TUN, 80)) == ["ok    tun device"]
    assert paint(lines_of(UPNP, None)) == [
        "warn  UPnP: no router answered in 2 s -> forward tcp/1194 to 192.168.0.5 by hand"
    ]
    assert paint(lines_of(UPNP, 50), width=50) == [
        "warn  UPnP: no router answered in 2 s -> forward",
        "      tcp/1194 to 192.168.0.5 by hand",
    ]
    assert "\x1b[" in paint(lines_of(CLOSED, 80), colour=True)[0]


def test_records() -> None:
    assert records([UPNP]) == [{"level": "warn", "about": "upnp", "text": UPNP.text, "remedy": UPNP.remedy}]
