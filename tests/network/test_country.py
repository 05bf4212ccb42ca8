"""Countries whose border no tunnel crosses (wire.md 10.5, 10.6)."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from testbed import Bed, Network, Node, wait_until

FORMS = 90


def database(path: Path, places: dict[str, list[str]]) -> Path:
    writer = MMDBWriter(6, "GeoLite2-Country", ipv4_compatible=True)
    for country, addresses in places.items():
        writer.insert_network(IPSet(addresses), {"country": {"iso_code": country}, "continent": {"code": "EU"}})
    writer.to_db_file(str(path))
    return path


def told(asker: Node, peer: Node) -> set[str]:
    """The countries in what a node knows of a peer's addresses, as its cache holds them."""
    with contextlib.closing(sqlite3.connect(asker.host.state / "cache.db")) as db:
        rows = db.execute("SELECT address FROM peer WHERE prefix = ?", (peer.prefix.bits,)).fetchall()
    return {entry.split(",")[3] for (text,) in rows for entry in text.split(";") if entry.count(",") == 3}


def test_no_tunnel_crosses_a_closed_border(bed: Bed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FR is closed: its two nodes meet each other and one whose country nobody knows, which joins them to the rest."""
    network = Network(bed, 6, registry_options=["--same-country", "FR", "--hello", "2"])
    bridge, said, found, *germans = network.nodes
    places = {"FR": [found.host.address], "DE": [node.host.address for node in germans]}
    monkeypatch.setenv("GEOIP2_MMDB", str(database(tmp_path / "country.mmdb", places)))
    network.create()
    network.enrol()
    monkeypatch.delenv("GEOIP2_MMDB")
    said.options += ["--country", "fr"]
    for node in network.nodes:
        node.start()
    network.wait_connected(FORMS)

    french = {said, found}
    for tunnel in network.tunnels():
        ends = {tunnel.client, tunnel.server} - {bridge}
        assert not ends & french or ends <= french, f"{tunnel} crosses the border"
    for node in (said, found):
        log = (node.host.log / "re6stnet.log").read_text()
        assert "this node is in the country FR" in log
        for german in germans:
            assert f"the tunnel to {german.prefix}" not in log, "none was even tried"
            assert f"tunnel to {german.prefix} at" not in log

    def meet() -> bool:
        return "FR" in told(said, found) | told(found, said)

    wait_until(meet, FORMS, "the country goes with the addresses that are told", bed.tails)
