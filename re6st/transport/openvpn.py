"""OpenVPN: its command lines and its management connection (wire.md section 8, design.md 3).

Every process is driven over its management socket, a unix socket in the run directory: no helper scripts, nothing is
evaluated. Revoked certificates are refused by OpenVPN itself, which looks for a file named like the serial number.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from re6st.core.prefix import Prefix
from re6st.core.transport.openvpn_lines import Event, Reader
from re6st.core.tunnel_protocols import Role, Transport, TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.linux.process import Child, connect
from re6st.service import run_names

PROGRAM = "openvpn"
PROTOCOLS = (
    TunnelProtocol.UDP,
    TunnelProtocol.TCP,
    TunnelProtocol.UDP4,
    TunnelProtocol.TCP4,
    TunnelProtocol.UDP6,
    TunnelProtocol.TCP6,
)
"""What it runs over. Another list, or order, changes the digest of every tunnel: a new version would cut them all."""
START_TIME = 5.0
"""Seconds a process has to open its management socket."""
COUNT_TIME = 5
"""Seconds between two reports of how many bytes went through a tunnel."""
FOLLOW = ("state on", f"bytecount {COUNT_TIME}")
REFUSALS = ("verb 1", "log on")
"""Only what OpenVPN prints tells why it refuses a certificate, and only from level 1 on."""

MTU = {
    (TunnelProtocol.UDP, True): 1348,
    (TunnelProtocol.UDP, False): 1372,
    (TunnelProtocol.UDP6, True): 1366,
    (TunnelProtocol.UDP6, False): 1390,
}
"""--tun-mtu by protocol and encryption (wire.md 8.3): every pair of versions 2.4 to 2.6 passes full-size packets."""

MAY_FRAGMENT = ("--mtu-disc", "no")
"""Over UDP, what is too large for the path goes in two pieces, instead of being lost without a word to its sender: on a
path of 1,400 bytes full-size packets did not pass before, on one of 1,300 none that IPv6 relies on. Only this machine
has to do it. It stands after `common_arguments`, whose other word belongs to the digest, and the last one counts."""

HAND_WINDOW = 30
"""Seconds that whoever connects to a server of ours has for its handshake."""
OPEN_FILES = 65536
"""Files that an OpenVPN may open: a server has one for each TCP connection, also before it knows whose that is."""
MOST_CLIENTS = 4096
"""What OpenVPN is told at least: the number of clients that the network wants is held by us, and may change."""

FIRST_PACKETS = 100_000
"""First packets that a UDP server answers in 10 s. OpenVPN's own limit, 100, is one for all senders together: at 500 a
second from 200 addresses nobody else got in. Each sender has its own limit in core/machine/packet_rules.py, and an
answer makes no state: with this one, honest clients got in within 0.2 s."""

PUSHED = (
    "setenv-safe external_ip ",
    "setenv-safe twin ",  # that another machine has our certificate, and where
    *("ping ", "ping-exit "),  # how long silence may last: both ends have to agree (see openvpn_server.py)
    *("peer-id ", "cipher ", "tun-mtu ", "key-derivation ", "protocol-flags "),  # OpenVPN's own negotiation
    "push-continuation ",  # more comes: without it, a push that is long is the end of the connection
)
"""What a client takes from the server at the other end, which may be anybody's: options that begin like this.

Nothing else: OpenVPN would give this machine whatever routes, addresses and resolvers a server names.
"""

BOTH_FAMILIES = {TunnelProtocol.TCP: TunnelProtocol.TCP6}
"""A server of the first may serve the second on the same port: OpenVPN binds :: then, for IPv4 too. Not so over UDP,
whose packets have another size in each."""


@dataclass(frozen=True, slots=True)
class OpenVpnSettings:
    """What all our OpenVPN processes have in common."""

    program: str
    run: Path
    log: Path | None
    """Directory of the logs, one per process (--ovpnlog); None: only the last words of each, in `run`."""
    ca: Path
    cert: Path
    key: Path
    encrypt: bool
    ping_exit: int
    """Seconds without traffic after which a tunnel ends: 4 hellos (wire.md 8.1)."""
    extra: tuple[str, ...] = ()
    """The user's arguments (-O)."""
    user: str = ""
    """Whom its management socket listens to, which anybody may open who gets into the run directory."""

    @property
    def follow_refusals(self) -> tuple[str, ...]:
        """What a server is told so that it says why it refuses somebody; where it prints more, that stays."""
        return REFUSALS[1:] if self.log or "--verb" in self.extra else REFUSALS

    @property
    def ping(self) -> int:
        """Seconds without traffic after which we send something."""
        return max(1, self.ping_exit // 4)

    @property
    def revoked(self) -> Path:
        """The directory with one empty file for each revoked serial number (--crl-verify DIR dir)."""
        return self.run / run_names.REVOKED

    def management(self, name: str) -> Path:
        return self.run / run_names.management(name)

    def output(self, name: str) -> Path:
        """What the process `name` prints; a log is one for the interface, however many addresses are tried on it."""
        return self.log / f"{run_names.interface_of(name)}.log" if self.log else self.run / run_names.output(name)


def proto(protocol: TunnelProtocol, role: Role) -> str:
    """What OpenVPN's --proto and --remote call a protocol at one end of a tunnel."""
    listens = protocol.transport is Transport.TCP and role is Role.SERVER
    return f"{protocol.transport}{protocol.family}{'-server' if listens else ''}"


def common_arguments(settings: OpenVpnSettings, interface: str, protocol: TunnelProtocol, name: str) -> list[str]:
    """The options that both sides share; `name` is that of the process."""
    arguments = [
        *("--dev-type", "tap", "--dev", interface, "--persist-tun", "--persist-key"),
        *("--script-security", "1", "--management-hold"),
        # Babel may be silent: on a tunnel that is drained, or while the network gets another interval.
        *("--ping", str(settings.ping)),
        *("--management", str(settings.management(name)), "unix"),
        *(("--management-client-user", settings.user) if settings.user else ()),
        *("--ca", str(settings.ca), "--cert", str(settings.cert), "--key", str(settings.key)),
        *("--crl-verify", str(settings.revoked), "dir"),
        *("--verb", "3" if settings.log else "0"),
    ]
    if not settings.encrypt:
        # 2.6 wants all three to speak in clear with 2.4 to 2.6 (wire.md 8.2). Who wants encryption gets it, so that a
        # network can change node by node.
        arguments += ["--cipher", "none", "--data-ciphers", "none:AES-256-GCM", "--data-ciphers-fallback", "none"]
    mtu = MTU.get((protocol.served, settings.encrypt))
    if mtu:
        arguments += ["--tun-mtu", str(mtu), "--mtu-disc", "yes"]
    else:
        # Nagle's algorithm against delayed acknowledgements costs 40 ms a hop.
        arguments += ["--socket-flags", "TCP_NODELAY"]
    return arguments


def server_command(
    settings: OpenVpnSettings,
    interface: str,
    port: int,
    protocol: TunnelProtocol,
    max_clients: int,
    dh: Path | None,
    *,
    both_families: bool = False,
) -> list[str]:
    """One server of ours: `protocol` as in --pp."""
    served = BOTH_FAMILIES.get(protocol, protocol) if both_families else protocol
    return [
        settings.program,
        *common_arguments(settings, interface, protocol, interface),
        *(MAY_FRAGMENT if protocol.transport is Transport.UDP else ()),
        *("--tls-server", "--mode", "server", "--dh", str(dh) if dh else "none"),
        *(
            "--port",
            str(port),
            "--proto",
            proto(served, Role.SERVER),
            "--max-clients",
            str(max(max_clients, MOST_CLIENTS)),
        ),
        *("--management-client-auth", "--auth-user-pass-optional", "--hand-window", str(HAND_WINDOW)),
        *("--ping-exit", str(settings.ping_exit)),
        *(("--connect-freq-initial", str(FIRST_PACKETS), "10") if served.transport is Transport.UDP else ()),
        *settings.extra,
    ]


def client_command(
    settings: OpenVpnSettings,
    interface: str,
    peer: Prefix | None,
    endpoint: Endpoint,
    name: str | None = None,
    mark: int = 0,
) -> list[str]:
    """One client tunnel, to one address of a peer; or of whoever of the network is there (--client)."""
    return [
        settings.program,
        *common_arguments(settings, interface, endpoint.protocol, name or interface),
        *(MAY_FRAGMENT if endpoint.protocol.transport is Transport.UDP else ()),
        *("--nobind", "--client"),
        *(("--mark", str(mark)) if mark else ()),
        *("--remote", endpoint.host, str(endpoint.port), proto(endpoint.protocol, Role.CLIENT)),
        *(("--verify-x509-name", peer.cn, "name") if peer else ()),
        *("--resolv-retry", "0", "--connect-retry", "1", "--connect-retry-max", "3", "--connect-timeout", "5"),
        *("--tls-exit", "--remap-usr1", "SIGTERM", "--management-up-down"),
        # Also with --client, where the older software has --ping-restart: we start the next one, at another address.
        *("--ping-exit", str(settings.ping_exit)),
        *("--route-noexec", "--ifconfig-noexec"),
        *settings.extra,
        # The first that matches counts, so the user may have more accepted, or less.
        *pull_filters(),
    ]


def pull_filters() -> list[str]:
    """Have a client obey only what is PUSHED."""
    accepted = [word for start in PUSHED for word in ("--pull-filter", "accept", start)]
    return [*accepted, "--pull-filter", "ignore", ""]


class Management:
    """The management connection of one process."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._lines = Reader()

    @classmethod
    async def open(cls, path: Path, child: Child) -> Management:
        """Connect as soon as the process listens. Raises OSError when it ends or takes too long."""
        return cls(*await connect(child, path, START_TIME))

    def send(self, *lines: str) -> None:
        self._writer.write("".join(f"{line}\n" for line in lines).encode())

    async def events(self) -> AsyncIterator[Event]:
        """What happens, until the connection ends."""
        while (line := await self._line()) is not None:
            if event := self._lines.feed(line.decode("utf-8", "replace").rstrip("\r\n")):
                yield event

    async def _line(self) -> bytes | None:
        """The next whole line; None at the end of the connection.

        One that is longer than the buffer is left out with its rest: others chose what is in it, and could make that
        look like a line of OpenVPN's own.
        """
        too_long = False
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as error:
                await self._reader.readexactly(error.consumed)
                too_long = True
            except (asyncio.IncompleteReadError, OSError):
                return None
            else:
                if not too_long:
                    return line
                too_long = False

    def close(self) -> None:
        self._writer.close()


async def start(settings: OpenVpnSettings, name: str, argv: Sequence[str]) -> tuple[Child, Management]:
    socket, output = settings.management(name), settings.output(name)
    socket.unlink(missing_ok=True)
    if not settings.log:
        output.unlink(missing_ok=True)
    child = await Child.start(name, argv, output)
    try:
        return child, await Management.open(socket, child)
    except BaseException:
        await child.stop()
        raise


def forget(settings: OpenVpnSettings, name: str) -> None:
    """Remove the files of a process that has ended."""
    with contextlib.suppress(OSError):
        settings.management(name).unlink(missing_ok=True)
        if not settings.log:
            settings.output(name).unlink(missing_ok=True)


async def resume(settings: OpenVpnSettings, name: str, pid: int) -> tuple[Child, Management]:
    """Go on with a process that an earlier daemon started. Raises OSError, and ends it, where that fails."""
    child = Child.adopt(name, pid)
    try:
        return child, await Management.open(settings.management(name), child)
    except BaseException:
        await child.stop()
        raise
