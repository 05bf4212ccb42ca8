"""nebula, from Debian's package, on a chain of hosts. Two hops are made by its relays; it has no more."""

from __future__ import annotations

import json
import subprocess
from ipaddress import IPv4Address

from bench.support.chain import Chain
from bench.support.debian import Release, obtain
from testbed.host import Host
from testbed.namespace import command

PORT = 4242


class Nebula:
    """On the first three hosts: the middle one tells the others of each other, and passes on what they send."""

    most_hops = 2

    def __init__(self, chain: Chain, release: Release | None = None) -> None:
        """Raises UnavailableError."""
        self._program = obtain("nebula", "nebula", release)
        maker = str(obtain("nebula", "nebula-cert", release))
        place = chain.bed.directory / "nebula"
        place.mkdir()
        authority = ["-out-crt", f"{place}/ca.crt", "-out-key", f"{place}/ca.key"]
        command(maker, "ca", "-name", "bench", *authority)
        hosts = chain.hosts[: self.most_hops + 1]
        middle = hosts[1]
        self.addresses = {host: IPv4Address(f"192.168.100.{number}") for number, host in enumerate(hosts, 1)}
        relay = str(self.addresses[middle])
        anybody = [{"port": "any", "proto": "any", "host": "any"}]
        for host, address in self.addresses.items():
            by = ["-ca-crt", f"{place}/ca.crt", "-ca-key", f"{place}/ca.key"]
            files = {name: f"{host.etc}/nebula.{name}" for name in ("crt", "key")}
            own = ["-out-crt", files["crt"], "-out-key", files["key"]]
            command(maker, "sign", *by, "-name", host.name, "-ip", f"{address}/24", *own)
            ends = host is not middle
            settings = {
                "pki": {"ca": f"{place}/ca.crt", "cert": files["crt"], "key": files["key"]},
                "static_host_map": {relay: [f"{middle.address}:{PORT}"]} if ends else {},
                "lighthouse": {"am_lighthouse": not ends, "hosts": [relay] if ends else []},
                "listen": {"host": "0.0.0.0", "port": PORT},
                "tun": {"dev": "nebula0"},
                "relay": {"am_relay": not ends, "use_relays": ends, "relays": [relay] if ends else []},
                "firewall": {"outbound": anybody, "inbound": anybody},
            }
            # JSON is YAML.
            (host.etc / "nebula.yml").write_text(json.dumps(settings))

    def start(self, host: Host) -> subprocess.Popen[bytes]:
        return host.start([self._program, "-config", host.etc / "nebula.yml"], "nebula.log")
