"""OpenVPN as a tunnel.TunnelFactory: its servers, its clients, and what a running one cannot change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from re6st.core.prefix import Prefix
from re6st.core.tunnel_protocols import TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.service import run_names
from re6st.transport import openvpn
from re6st.transport.openvpn import OpenVpnSettings
from re6st.transport.openvpn_client import OpenVpnClient
from re6st.transport.openvpn_server import OpenVpnServer
from re6st.tunnel import Connected, FoundClient, FoundServer, ListenerOwner


@dataclass(frozen=True, slots=True)
class OpenVpn:
    """Makes servers and client tunnels with the settings of now. `certificates`: ours and the CA's, as DER."""

    settings: OpenVpnSettings
    certificates: tuple[bytes, ...]
    max_clients: int
    dh: Path | None
    """A file of DH parameters. Without one a server offers ECDHE only, which every OpenVPN 2.4 speaks."""
    both_families: bool
    """Servers that can serve IPv6 too do so."""

    def config_digest(self, *, encrypt: bool | None = None) -> str:
        """See tunnel.TunnelFactory. The time of silence may be an older one: both ends agree on it."""
        settings = replace(self.settings, ping_exit=0)
        if encrypt is not None:
            settings = replace(settings, encrypt=encrypt)
        words = [word for each in openvpn.PROTOCOLS for word in openvpn.common_arguments(settings, "", each, "")]
        words += openvpn.pull_filters()
        told = b"\0".join((*map(str.encode, (*words, *settings.extra)), *self.certificates))
        return hashlib.sha256(told).hexdigest()

    def listener(
        self, interface: str, port: int, protocol: TunnelProtocol, owner: ListenerOwner, found: FoundServer | None
    ) -> OpenVpnServer:
        command = openvpn.server_command(
            self.settings, interface, port, protocol, self.max_clients, self.dh, both_families=self.both_families
        )
        mtu = openvpn.MTU.get((protocol.served, self.settings.encrypt), 1500)
        return OpenVpnServer(self.settings, interface, command, owner, mtu, found)

    def dialer(
        self,
        interface: str,
        peer: Prefix | None,
        endpoints: Sequence[Endpoint],
        connected: Callable[[Connected], Awaitable[None]],
        found: FoundClient | None,
        mark: int = 0,
    ) -> OpenVpnClient:
        return OpenVpnClient(self.settings, interface, peer, endpoints, connected, found, mark)


def is_managed(argv: Sequence[str], run: Path, name: str) -> bool:
    """Whether a process is the OpenVPN of this name in a run directory."""
    socket = os.fspath(run / run_names.management(name))
    return any(option == "--management" and value == socket for option, value in pairwise(argv))
