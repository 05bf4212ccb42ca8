"""yggdrasil and tinc, from Debian's packages, on hosts of the bed: beside ours, in the same run.

With their default settings, but for names, keys, addresses and whom to connect to; yggdrasil does not look for peers by
multicast, since all hosts of a bed are on one switch.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from ipaddress import IPv6Address
from pathlib import Path

from bench.support.debian import Release, obtain
from testbed.host import Host
from testbed.namespace import command

PORT = 9001


class Yggdrasil:
    """Each host has the ones named with it as peers."""

    name = "yggdrasil"

    def __init__(self, peers: dict[Host, Sequence[Host]], release: Release | None = None) -> None:
        """Raises UnavailableError."""
        self._program = obtain("yggdrasil", "yggdrasil", release)
        self.addresses: dict[Host, IPv6Address] = {}
        for host, others in peers.items():
            settings = json.loads(command(str(self._program), "-genconf", "-json"))
            settings |= {
                "Peers": [f"tcp://{other.address}:{PORT}" for other in others],
                "Listen": [f"tcp://0.0.0.0:{PORT}"],
                "MulticastInterfaces": [],
                "AdminListen": "none",
                "IfName": "ygg0",
            }
            self._file(host).write_text(json.dumps(settings))
            said = command(str(self._program), "-useconffile", str(self._file(host)), "-address")
            self.addresses[host] = IPv6Address(said.strip())

    @staticmethod
    def _file(host: Host) -> Path:
        return host.etc / "yggdrasil.conf"

    def start(self, host: Host) -> subprocess.Popen[bytes]:
        return host.start([self._program, "-useconffile", self._file(host)], "yggdrasil.log")


class Tinc:
    """Each host connects to the ones named with it; all know all keys."""

    name = "tinc"

    def __init__(self, peers: dict[Host, Sequence[Host]]) -> None:
        """Raises UnavailableError."""
        self._program = obtain("tinc", "tincd")
        self.addresses = {host: IPv6Address(f"fd01::{number:x}") for number, host in enumerate(peers, 1)}
        known: dict[str, str] = {}
        for host, others in peers.items():
            directory = host.etc / "tinc"
            (directory / "hosts").mkdir(parents=True)
            connect = "".join(f"ConnectTo = {other.name}\n" for other in others)
            (directory / "tinc.conf").write_text(f"Name = {host.name}\nInterface = tinc0\n{connect}")
            up = directory / "tinc-up"
            up.write_text(
                f"#!/bin/sh\nip link set $INTERFACE up\nip address add {self.addresses[host]}/64 nodad dev $INTERFACE\n"
            )
            up.chmod(0o755)
            own = directory / "hosts" / host.name
            own.write_text(f"Address = {host.address}\nSubnet = {self.addresses[host]}/128\n")
            command(str(self._program), "-c", str(directory), "-K", "2048", text="\n\n")
            known[host.name] = own.read_text()
        for host in peers:
            for name, text in known.items():
                (host.etc / "tinc" / "hosts" / name).write_text(text)

    def start(self, host: Host) -> subprocess.Popen[bytes]:
        files = [f"--config={host.etc / 'tinc'}", f"--pidfile={host.directory / 'tinc.pid'}"]
        return host.start([self._program, "-D", *files], "tinc.log")


KINDS = (Yggdrasil, Tinc)
