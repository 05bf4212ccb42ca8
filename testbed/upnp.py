"""UPnP on a router of the bed: the real miniupnpd, which opens ports for the hosts behind it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path

from testbed.host import Router
from testbed.namespace import BedError, command
from testbed.wait import wait_until

PUBLIC = IPv4Network("44.128.0.0/16")
"""Addresses of the bed that miniupnpd does not take for private ones."""
LOG = "miniupnpd.log"
PROGRAM, PACKAGE = "miniupnpd", "miniupnpd-nftables"

RULES = """
    table inet filter {
        chain forward { type filter hook forward priority filter; jump miniupnpd; }
        chain prerouting { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }
        chain postrouting { type nat hook postrouting priority srcnat; jump postrouting_miniupnpd; }
        chain miniupnpd { }
        chain prerouting_miniupnpd { }
        chain postrouting_miniupnpd { }
    }
"""
CONFIGURATION = """
    ext_ifname=eth0
    listening_ip=lan
    secure_mode=yes
    http_port=5000
    uuid=00000000-0000-0000-0000-000000000001
    allow 1024-65535 0.0.0.0/0 1024-65535
    deny 0-65535 0.0.0.0/0 0-65535
"""
WEB, REWRITER = 5000, 5001
"""Its port for questions, and that of the program in front of it where another address is to be told."""
REWRITE = f"""
    table ip rewrite {{
        chain in {{ type nat hook prerouting priority -110; iifname "lan" tcp dport {WEB} redirect to :{REWRITER}; }}
    }}
"""


class Upnp:
    """miniupnpd on a router. It maps nothing on a private address, so the router moves to a public one first, unless
    it is to stay where it is.
    """

    def __init__(self, router: Router, *, move: bool = True) -> None:
        if not shutil.which(PROGRAM):
            raise BedError(f"{PROGRAM}: not in PATH, or not installed: {PACKAGE}")
        self.router = router
        self._host = router.outside
        self._process: subprocess.Popen[bytes] | None = None
        if move:
            self.move(str(PUBLIC[1]))

    def move(self, address: str) -> None:
        """Give the router another external address, inside PUBLIC, which every host of the switch finds."""
        self._host.readdress(address, PUBLIC.prefixlen)
        self._host.namespace.ip("route replace 10.0.0.0/16 dev eth0")
        for host in self._host.bed.hosts.values():
            if host.ports["eth0"].switch is self._host.bed.switch and host is not self._host:
                host.namespace.ip(f"route replace {PUBLIC} dev eth0")

    @property
    def address(self) -> str:
        """The router's external address."""
        return self._host.address

    def start(self, *, secure: bool = True) -> None:
        """Start it, without a mapping: it remembers none, as many a router. `secure`: ports for who asks alone."""
        path = self._host.etc / "miniupnpd.conf"
        path.write_text(CONFIGURATION if secure else CONFIGURATION.replace("secure_mode=yes", "secure_mode=no"))
        self._nft("add table inet filter; delete table inet filter;" + RULES)
        pid_file = self._host.directory / "miniupnpd.pid"
        self._process = self._host.start([PROGRAM, "-d", "-f", path, "-P", pid_file], LOG)
        wait_until(pid_file.exists, 10, "miniupnpd runs", self._host.bed.tails)

    def tell(self, address: str) -> None:
        """Have it tell that it has another external address, as others than miniupnpd do behind a second NAT: that one
        opens no port while its own address is private.
        """
        self.stop()
        self.start(secure=False)  # as it is the rewriter that asks now
        self._nft(REWRITE)
        words = [self.router.inside, self.address, address]
        self._host.start([sys.executable, "-m", "testbed.upnp", *words], "rewriter.log", cwd=Path(__file__).parents[1])

    def stop(self) -> None:
        """Cut its power: nobody is told."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        (self._host.directory / "miniupnpd.pid").unlink()

    def mappings(self) -> dict[int, str]:
        """What it sends to hosts behind it: external port -> protocol, address and port."""
        rules = self._nft("list chain inet filter prerouting_miniupnpd")
        found = {}
        for line in rules.splitlines():
            words = line.split()
            if "dnat" in words:
                protocol = {"0x6": "tcp", "0x11": "udp"}[words[words.index("th") - 1]]
                found[int(words[words.index("dport") + 1])] = f"{protocol} {words[-1]}"
        return found

    def requests(self, name: str) -> int:
        """How often it was asked for this action of WANIPConnection."""
        return (self._host.log / LOG).read_text(errors="replace").count(f"#{name}\n")

    def _nft(self, text: str) -> str:
        return command("ip", "netns", "exec", self._host.namespace.full_name, "nft", "-f", "-", text=text)


async def _rewrite(router: str, old: bytes, new: bytes) -> None:
    """Pass questions on to miniupnpd, and its answers back with another address in them."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, onward = await asyncio.open_connection(router, WEB)
            asking = asyncio.create_task(_copy(reader, onward))
            writer.write((await there.read(-1)).replace(old, new))
            asking.cancel()
            onward.close()
        writer.close()

    async with await asyncio.start_server(answer, port=REWRITER) as server:
        await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)


if __name__ == "__main__":
    asyncio.run(_rewrite(sys.argv[1], *(word.encode() for word in sys.argv[2:])))
