"""What is told of the options: everything that helps, and no secret."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path

from re6st import cert
from re6st.client.files import Files
from re6st.core.machine.bulk_rules import Bulk, BulkKind
from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.core.wire.params import Parameters
from re6st.noded.options_in_use import options_in_use
from re6st.noded.settings import Config, EffectiveConfig


def test_options_are_told_without_secrets(nodes: dict[str, cert.Identity]) -> None:
    config = Config(
        "http://user:SECRET@re6st.example.com/",
        Files(Path("ca.crt"), Path("cert.crt"), Path("cert.key")),
        Path("/var/log/re6stnet"),
        Path("/run/re6stnet"),
        Path("/var/lib/re6stnet"),
        ip=(ip_address("203.0.113.9"),),
        neighbours=frozenset((Prefix(4, 16),)),
        accept_route=(ip_network("192.168.7.0/24"),),
        babel_arguments=(
            "-C",
            "key id x type blake2s128 value SECRET",
            "-Ckey id x value SECRET",
            "-d",
            "--debug=SECRET",
        ),
        openvpn_arguments=("--http-proxy-user-pass", "SECRET"),
        up=("TOKEN=SECRET /usr/local/bin/up", "/usr/local/bin/register --password SECRET", "/bin/true"),
        remotes=(Endpoint("192.0.2.1", 1194, TunnelProtocol.UDP),),
        bulk=(Bulk(BulkKind.TCP, "873"), Bulk(BulkKind.CGROUP, "backup.slice")),
    )
    parameters = Parameters(Prefix(0, 16), babel_hmac_sign=b"SECRET", crl=frozenset((7, 8)))
    told = options_in_use(EffectiveConfig(config, nodes["1/16"], parameters, {}))
    assert "SECRET" not in json.dumps(told)
    options, network = told["options"], told["parameters"]
    assert isinstance(options, dict)
    assert isinstance(network, dict)
    assert options["registry"] == "http://re6st.example.com"
    assert (options["ip"], options["pp"]) == (["203.0.113.9"], [[1194, "udp"], [1194, "tcp"]])
    assert (options["neighbours"], options["remotes"]) == (["4/16"], ["192.0.2.1,1194,udp"])
    assert options["bulk"] == ["tcp 873", "cgroup backup.slice"]
    assert options["accept_route"] == ["192.168.7.0/24"]
    assert options["B"] == ["-C", "...", "-C...", "-d", "--debug"]
    assert options["O"] == ["--http-proxy-user-pass", "..."]
    assert options["up"] == ["...", "/usr/local/bin/register ...", "/bin/true"]
    assert options["client_count"] is None, "the network decides"
    assert (network["crl"], network["babel_hmac"], network["registry_prefix"]) == (2, True, "0/16")
