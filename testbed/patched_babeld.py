"""Stock babeld, spoken to as the patched one that the older software wants (wire.md 9.6); its nodes find it in PATH.

The options that stock babeld does not know are translated (wire.md 9.2). Stock babeld takes one key only, so where the
patched one would accept another key too, it accepts any (wire.md 9.4). A neighbour whose link is to be more expensive
has its babel packets dropped: with link-quality that raises the cost on both sides, as the multiplier would.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Network
from pathlib import Path

from re6st.babeld.binary_socket import serve
from re6st.core.routing.babel_binary import NORMAL, Dump, SetMultiplier, dump_of
from re6st.core.routing.babel_lines import LineError, NextHop, Table

PROGRAM = os.environ.get("REAL_BABELD", "/usr/sbin/babeld")
_OWN = re.compile(r"redistribute ip (\S+:\S+) eq \d+")
_KEY = re.compile(r"key type (\S+) id (\S+) value (\S+)")
_RULES = """
add table inet babeld
delete table inet babeld
table inet babeld {
    set expensive { type ifname . ipv6_addr; }
    chain input { type filter hook input priority 0; iifname . ip6 saddr @expensive udp dport 6696 drop; }
}
"""


@dataclass(frozen=True)
class Options:
    """What the older software asked for, in words of stock babeld."""

    binary: Path
    """Where it wants the binary socket."""
    arguments: list[str]
    own: tuple[IPv6Network, ...]

    @property
    def text(self) -> Path:
        """Where stock babeld has its own socket."""
        return self.binary.with_suffix(".text").absolute()


def translate(words: Sequence[str]) -> Options:
    """Read the older software's command line (wire.md 9.1)."""
    binary, arguments, own, rest, keys = Path("babeld.sock"), [], [], iter(words), 0
    for word in rest:
        if word == "-X":
            binary = Path(next(rest))
        elif word == "-C":
            statement = next(rest)
            if found := _OWN.fullmatch(statement):
                own.append(IPv6Network(found[1], strict=False))
            if found := _KEY.fullmatch(statement):
                statement = f"key id {found[2]} type {found[1]} value {found[3]}"
                keys += 1
            elif statement.startswith("default "):
                statement += " link-quality true" + (" accept-bad-signatures true" if keys > 1 else "")
            if not statement.startswith("ipv6-subtrees"):
                arguments += [word, statement]
        else:
            arguments.append(word)
    return Options(binary, arguments, tuple(own))


class Links:
    """The multipliers that were asked for."""

    def __init__(self) -> None:
        self._multipliers: dict[NextHop, int] = {}

    def multiplier(self, hop: NextHop) -> int:
        return self._multipliers.get(hop, NORMAL)

    async def multiply(self, request: SetMultiplier) -> None:
        address, index = request.hop
        with suppress(OSError):  # an interface that is gone
            hop = NextHop(address, socket.if_indextoname(index))
            before, self._multipliers[hop] = self.multiplier(hop), request.multiplier
            print(f"multiplier of {address} on {hop.interface}: {request.multiplier}", file=sys.stderr)
            if (before == NORMAL) != (request.multiplier == NORMAL):
                verb = "delete" if request.multiplier == NORMAL else "add"
                _nft(f"{verb} element inet babeld expensive {{ {hop.interface} . {address} }}")


def _nft(commands: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=commands, text=True, check=True, timeout=10)


async def follow(path: Path, table: Table) -> None:
    """Keep the table as babeld tells it, until babeld ends."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(str(path))
            break
        await asyncio.sleep(0.02)
    while line := (await reader.readline()).decode("ascii", "replace").strip():
        if line == "ok":
            break
    writer.write(b"monitor\n")
    async for raw in reader:
        with suppress(LineError):
            table.feed(raw.decode("ascii", "replace").strip())


def index(interface: str) -> int | None:
    with suppress(OSError):
        return socket.if_nametoindex(interface)
    return None


async def main(words: Sequence[str]) -> int:
    options, table, links = translate(words), Table(), Links()
    options.text.unlink(missing_ok=True)
    _nft(_RULES)
    child = await asyncio.create_subprocess_exec(PROGRAM, "-G", str(options.text), *options.arguments)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, child.send_signal, number)

    def dump() -> Dump:
        return dump_of(table, index, options.own, links.multiplier)

    try:
        async with serve(options.binary, dump, links.multiply):
            following = asyncio.create_task(follow(options.text, table))
            status = await child.wait()
            following.cancel()
        return status
    finally:
        _nft("delete table inet babeld")


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
