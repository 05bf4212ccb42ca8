"""What the user set and what the network says, put together as each room wants it.

An `EffectiveConfig` is made anew when either the parameters or our certificate change; rooms compare what they got
before with what the new one says, and change only what differs.
"""

from __future__ import annotations

import logging
import os
import pwd
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from re6st import babel, cert
from re6st.babel import BabeldFiles
from re6st.client.files import Files
from re6st.core import interfaces
from re6st.core.machine.bulk_rules import Bulk
from re6st.core.machine.hosts import Ip
from re6st.core.machine.packet_rules import Rules
from re6st.core.machine.uplinks import UplinkOption
from re6st.core.machine.wanted_state import AddressPlan
from re6st.core.mesh import policy as mesh
from re6st.core.prefix import MAX_LENGTH, Prefix, PrefixError, address, ipv4_address, ipv4_subnet, subnet
from re6st.core.routing import babel_settings, babel_words, regions
from re6st.core.routing.babel_keys import key_in_use
from re6st.core.routing.planes import MAIN, THROUGHPUT, Plane
from re6st.core.transport.server_drain import DRAIN_HELLOS
from re6st.core.tunnel_protocols import SERVED, Role, Transport, TunnelProtocol
from re6st.core.wire.datagrams import Endpoint
from re6st.core.wire.params import Parameters
from re6st.service import run_names
from re6st.service.metrics_place import ListenAddress
from re6st.transport import openvpn
from re6st.transport.openvpn_tunnels import OpenVpn
from re6st.tunnel import TunnelFactory

CLOSE_TIME = 60.0
"""Seconds the exchange before closing a drained tunnel may take, less where hellos are short: it is silent meanwhile,
and OpenVPN's ping-exit runs on."""
LAST_QUESTION = 3.0
"""Seconds of it at least that are left for the peer's answer when the tunnel has been drained."""
WIREGUARD_PORTS = range(21194, 21450)
"""Outside those that the kernel gives to programs which ask for any (ip_local_port_range)."""
GIVEN_UP = 8
"""How many IPv4 networks that the registry no longer names we keep in mind."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Config:
    """What the user set (wire.md 11.2). None: the network's parameters decide."""

    registry: str
    """The URL of the registry, or of the first of several."""
    files: Files
    log: Path
    run: Path
    state: Path
    other_registries: tuple[str, ...] = ()
    main_interface: str = "lo"
    lan: tuple[str, ...] = ()
    ip: tuple[Ip, ...] = ()
    ports: tuple[tuple[int, TunnelProtocol], ...] = ((1194, TunnelProtocol.UDP), (1194, TunnelProtocol.TCP))
    both_families: bool = False
    """Servers that can serve IPv6 too do so: nobody has said where to listen."""
    disabled_protocols: frozenset[TunnelProtocol] = frozenset((TunnelProtocol.UDP, TunnelProtocol.UDP6))
    client_count: int | None = None
    max_clients: int | None = None
    neighbours: frozenset[Prefix] = frozenset()
    babel_arguments: tuple[str, ...] = ()
    openvpn_arguments: tuple[str, ...] = ()
    openvpn_log: bool = False
    babel_log: bool = True
    dh: Path | None = None
    country: str = ""
    places: Path | None = None
    """A database of countries."""
    gateway: bool = False
    packet_filter: bool = True
    """Hold packets of tunnels to what may come out of one, and limit connections to our servers."""
    accept_route: tuple[IPv4Network | IPv6Network, ...] = ()
    """What others may announce besides the network's own subnets."""
    upnp: bool = False
    """Open our IPv4 ports at the router."""
    up: tuple[str, ...] = ()
    daemons: tuple[str, ...] = ()
    verbosity: int = 2
    console: Path | None = None
    """Another place for the control socket."""
    metrics: ListenAddress | None = None
    """Where to serve metrics."""
    multicast: bool = False
    remote_gateways: tuple[IPv4Address, ...] = ()
    """Peers are reached by these, in turn."""
    uplinks: tuple[UplinkOption, ...] = ()
    """The lines to the Internet (--uplink); none: those that have a default route."""
    mptcp: bool = False
    """One connection uses all lines, by subflows of MPTCP."""
    wireguard: bool = False
    """Tunnels become WireGuard links where both ends can have them."""
    wireguard_asked: bool = True
    """The user says so: it is told if there are none."""
    wireguard_go: bool = False
    """The program wireguard-go makes these links where the kernel has no WireGuard."""
    wireguard_ports: range = WIREGUARD_PORTS
    """A link has one of these UDP ports."""
    bulk: tuple[Bulk, ...] = ()
    """What goes by capacity, although it sets no class itself (--bulk)."""
    probe: bool = True
    """Find out what links carry by sending packets (--no-probe)."""
    remotes: tuple[Endpoint, ...] = ()
    """One tunnel to one of these, and no other, nor a server (--client)."""

    @property
    def offered(self) -> tuple[tuple[int, TunnelProtocol], ...]:
        """Port and protocol of what we tell others to come to."""
        twins = [(port, openvpn.BOTH_FAMILIES[name]) for port, name in self.ports if name in openvpn.BOTH_FAMILIES]
        return (*self.ports, *(twins if self.both_families else ()))


@dataclass(frozen=True)
class EffectiveConfig:
    """The settings of every room, from the user's `config`, the network's `parameters` and our `identity`."""

    config: Config
    identity: cert.Identity
    parameters: Parameters
    programs: dict[str, str] = field(repr=False)
    """Paths of babeld and openvpn."""
    source_routes: bool = True
    """Whether the kernel has routes by source."""
    given_up: tuple[IPv4Network, ...] = ()
    """IPv4 networks of earlier parameters."""

    def follow(self, parameters: Parameters, identity: cert.Identity) -> EffectiveConfig:
        """The same with other parameters and another certificate."""
        new, known = parameters.ipv4, dict.fromkeys((*self.given_up, self.parameters.ipv4))
        given_up = tuple(each for each in known if each and not (new and each.overlaps(new)))[-GIVEN_UP:]
        return replace(self, parameters=parameters, identity=identity, given_up=given_up)

    @property
    def client_count(self) -> int:
        """How many client tunnels the policy may have."""
        count = 0 if self.config.remotes else self.config.client_count
        return self.parameters.client_count if count is None else count

    @property
    def max_clients(self) -> int:
        """Per server; 0: no server."""
        count = self.config.max_clients
        return self.parameters.max_clients if count is None else count

    @property
    def servers(self) -> list[tuple[int, TunnelProtocol]]:
        """Port and protocol of our servers: one per protocol, on the first port given for it."""
        first: dict[TunnelProtocol, int] = {}
        for port, protocol in self.config.ports if self.max_clients and not self.config.remotes else ():
            first.setdefault(protocol, port)
        return [(port, protocol) for protocol, port in first.items()]

    @property
    def client_interfaces(self) -> list[str]:
        """Interfaces of our client tunnels, whether they exist or not (wire.md 8.4)."""
        if self.config.remotes:
            return [interfaces.SOLE]
        return [interfaces.client(number) for number in range(1, self.client_count + 1)]

    @property
    def server_interfaces(self) -> list[str]:
        return [interfaces.server(protocol) for _, protocol in self.servers]

    @property
    def links(self) -> tuple[str, ...]:
        """All interfaces of WireGuard links."""
        roles = self.further_links(Role.CLIENT), self.further_links(Role.SERVER)
        return *self.own_links, *self.served_links, *roles[0], *roles[1]

    @property
    def own_links(self) -> list[str]:
        """Interfaces of WireGuard links in place of our client tunnels, whether they exist or not."""
        if not self.config.wireguard:
            return []
        # One more: that of a link which ended may still be there when the next one begins.
        count = (1 if self.config.remotes else self.client_count) + 1
        return [interfaces.link(Role.CLIENT, number) for number in interfaces.LINKS[:count]]

    @property
    def served_links(self) -> list[str]:
        """The same of links in place of our servers' clients."""
        if not self.config.wireguard or not self.servers:
            return []
        return [
            interfaces.link(Role.SERVER, number) for number in interfaces.LINKS[: self.max_clients * len(self.servers)]
        ]

    def further_links(self, role: Role) -> list[str]:
        """The same of links beside the first one with a peer, at whose end we have this role."""
        if not self.config.wireguard or (role is Role.SERVER and not self.servers):
            return []
        return [interfaces.link(role, number) for number in interfaces.FURTHER_LINKS]

    @cached_property
    def ipv4(self) -> IPv4Network | None:
        """Our IPv4 subnet, where the network has one for us (wire.md 1.4)."""
        if self.parameters.ipv4 is None:
            return None
        number = cert.number_of_cert(self.identity.cert)
        if number is not None and (found := ipv4_subnet(self.parameters.ipv4, self.parameters.ipv4_sublen, number)):
            return found
        log.warning("no IPv4 subnet for node number %s: going on without IPv4", number)
        return None

    @property
    def ipv4_address(self) -> IPv4Address | None:
        """Our address in it."""
        return None if self.ipv4 is None else ipv4_address(self.ipv4)

    @property
    def address_plans(self) -> list[AddressPlan]:
        """Our addresses and routes (wire.md 1.3, 1.4); each brings a route to our subnet, which babeld announces."""
        network, prefix = self.identity.trust.network, self.identity.prefix
        found = [AddressPlan(network, address(network, prefix), subnet(network, prefix).prefixlen, (network,))]
        if self.anycast is not None:
            net = subnet(network, regions.region_of(prefix, self.parameters.regions))
            unreachable = () if self.region is None else (net,)
            found.append(AddressPlan(net, self.anycast, MAX_LENGTH, unreachable, regions.ROUTE_PROTOCOL))
        if self.ipv4 is not None and self.ipv4_address is not None and self.parameters.ipv4 is not None:
            whole = self.parameters.ipv4
            if self.config.main_interface == "lo":
                # An address with that length would make all the subnet local.
                found.append(AddressPlan(whole, self.ipv4_address, 32, (whole, self.ipv4)))
            else:
                found.append(AddressPlan(whole, self.ipv4_address, self.ipv4.prefixlen, (whole,)))
        return found

    @property
    def subnet(self) -> IPv6Network:
        """Our own."""
        return subnet(self.identity.trust.network, self.identity.prefix)

    @property
    def region(self) -> Prefix | None:
        """The region that we tell others of; None where there are none, or our own prefix says as much."""
        return regions.own_region(self.identity.prefix, self.parameters.regions)

    @property
    def anycast(self) -> IPv6Address | None:
        """The address that we share with all nodes of our region, if it is known by one."""
        length, prefix = self.parameters.regions, self.identity.prefix
        if not 0 < length <= prefix.length:
            return None
        try:
            return regions.anycast_address(self.identity.trust.network, regions.region_of(prefix, length))
        except PrefixError:
            return None

    @property
    def environment(self) -> dict[str, str]:
        """What the user's commands are told (wire.md 10.8)."""
        network, prefix = self.identity.trust.network, self.identity.prefix
        return {
            "re6stnet_iface": self.config.main_interface,
            "re6stnet_ip": str(address(network, prefix)),
            "re6stnet_subnet": str(self.subnet),
            "re6stnet_network": str(network),
        }

    @property
    def longest_subnet(self) -> int:
        """The length of the longest subnet that the registry gave; 128 where it does not say (an older one)."""
        told, own = self.parameters.longest_prefix, self.identity.prefix.length
        network = self.identity.trust.network.prefixlen
        return MAX_LENGTH if told is None else min(network + max(told, own), MAX_LENGTH)

    @property
    def babel_hello(self) -> float:
        """Seconds between two hellos of babel."""
        return min(self.parameters.babel_hello or self.parameters.hello, self.parameters.hello)

    def mesh(self, *, can_drain: bool) -> mesh.Settings:
        """For the policy; tunnels are only refreshed where they can be drained first."""
        parameters = self.parameters
        # With rare hellos it takes long until a link is seen to have got worse, and some see it too late.
        drains = can_drain and parameters.babel_hello is not None
        link_drain = DRAIN_HELLOS * babel_settings.link_hello(self.babel_hello)
        return mesh.Settings(
            own=self.identity.prefix,
            registry=parameters.registry_prefix,
            other_registries=parameters.registry_nodes,
            client_count=self.client_count,
            tunnel_refresh=parameters.tunnel_refresh if can_drain and not self.config.remotes else float("inf"),
            drain_time=DRAIN_HELLOS * self.babel_hello,
            link_drain_time=link_drain,
            drains=drains,
            close_time=max(min(CLOSE_TIME, 3 * parameters.hello), link_drain + LAST_QUESTION)
            if drains
            else 8 * parameters.hello,
            meeting_time=(4 if drains else 6) * parameters.hello,
            neighbours=self.config.neighbours,
            disabled_protocols=self.config.disabled_protocols,
            lan=frozenset(self.config.lan),
            same_country=frozenset(parameters.same_country or ()),
            static_tunnel=bool(self.config.remotes),
            region_length=parameters.regions,
        )

    @property
    def planes(self) -> int:
        """How many routing planes this node is to have."""
        return self.parameters.planes

    def babel(self, plane: Plane, routes: int, now: float) -> babel_settings.BabelSettings:
        """For the babeld of a plane at the Unix time `now`; `routes` is how many routes the network had when we last
        looked."""
        settings = self._babel(plane, routes, now)
        if plane != THROUGHPUT:
            return settings
        # Only what is inside the network goes by it, so nobody may tell a default route there. The interfaces of the
        # tunnels that we open come once it is known what they carry.
        return replace(
            settings,
            by_capacity=True,
            tunnels=(*self.server_interfaces, *self.served_links, *self.further_links(Role.SERVER)),
            gateway=False,
            source_routes=False,
            accepted=(),
            ipv4=None,
            ipv4_network=None,
        )

    def _babel(self, plane: Plane, routes: int, now: float) -> babel_settings.BabelSettings:
        network, prefix, parameters = self.identity.trust.network, self.identity.prefix, self.parameters
        return babel_settings.BabelSettings(
            network=network,
            subnet=subnet(network, prefix),
            address=address(network, prefix),
            tunnels=(*self.server_interfaces, *self.client_interfaces, *self.links),
            links=frozenset(self.links),
            lan=tuple(dict.fromkeys((*self.config.lan, *babel_words.interfaces(self.config.babel_arguments)))),
            babel_default=parameters.babel_default,
            key_sign=key_in_use(
                parameters.babel_hmac_sign, parameters.babel_hmac_accept, parameters.babel_switch_time, now
            ),
            # Our nodes change keys all at one time, so none has to let in what another key signed.
            accept_unsigned=parameters.babel_hmac_accept == b"",
            ipv4=self.ipv4,
            ipv4_network=parameters.ipv4,
            ipv4_length=0 if parameters.ipv4 is None else min(parameters.ipv4.prefixlen + parameters.ipv4_sublen, 32),
            longest=self.longest_subnet,
            regions=parameters.regions,
            accepted=self.config.accept_route,
            refused=self.given_up,
            gateway=self.config.gateway,
            source_routes=self.source_routes,
            hello=self.babel_hello,
            update=babel_settings.update_interval(routes),
            port=plane.port,
            table=plane.table,
        )

    def tunnel_mtu(self, protocol: TunnelProtocol) -> int | None:
        """The size of packets on a tunnel, in bytes, as long as its path allows; None: any."""
        return openvpn.MTU.get((protocol.served, self.parameters.encrypt))

    @property
    def packet_rules(self) -> Rules:
        """For our nftables table."""
        config, network, prefix = self.config, self.identity.trust.network, self.identity.prefix
        servers = map(interfaces.server, SERVED)
        ports = [(port, protocol.transport) for port, protocol in self.servers]
        return Rules(
            # Those that are not there now may have been left by an earlier run.
            tunnels=(interfaces.SOLE, *servers, *self.client_interfaces, *self.links),
            links=self.links,
            user=os.geteuid(),
            network=network,
            subnet=subnet(network, prefix),
            filtered=config.packet_filter,
            ipv4=self.parameters.ipv4,
            ipv4_subnet=self.ipv4,
            accepted=config.accept_route,
            lan=config.lan,
            main_interface=config.main_interface,
            gateway=config.gateway,
            multicast=config.multicast,
            # Without routes by source we do not hear of gateways, but packets from outside may pass.
            outside=not self.source_routes,
            shared=tuple(self.server_interfaces),
            counted=True,  # noded/dead_links.py runs in every node
            planes=self.planes > 1,
            bulk=config.bulk,
            tcp_ports=tuple(port for port, transport in ports if transport is Transport.TCP),
            udp_ports=tuple(port for port, transport in ports if transport is Transport.UDP),
        )

    def babel_files(self, plane: Plane) -> BabeldFiles:
        """Where the babeld of a plane has its files."""
        config, name = self.config, plane.name
        return BabeldFiles(
            configuration=config.run / run_names.babeld(name, "conf"),
            socket=config.run / run_names.babeld(name, "ctl"),
            state=config.state / f"{name}.state",
            output=config.run / run_names.babeld(name, "out"),
            log=config.log / f"{name}.log" if config.babel_log else None,
        )

    def babel_command(self, plane: Plane) -> list[str]:
        """How it is started."""
        arguments = self.config.babel_arguments if plane == MAIN else ()
        return babel.command_line(self.programs[babel.PROGRAM], self.babel_files(plane), arguments)

    def openvpn(self) -> openvpn.OpenVpnSettings:
        """For every OpenVPN process."""
        config, parameters = self.config, self.parameters
        return openvpn.OpenVpnSettings(
            program=self.programs[openvpn.PROGRAM],
            run=config.run,
            log=config.log if config.openvpn_log else None,
            ca=config.files.ca,
            cert=config.files.cert,
            key=config.files.key,
            encrypt=parameters.encrypt,
            ping_exit=4 * parameters.hello,
            extra=config.openvpn_arguments,
            user=_user_name(),
        )

    def tunnel_factory(self) -> TunnelFactory:
        """What makes our tunnels."""
        dh = self.config.dh or self.config.state / "dh.pem"
        certificates = self.identity.der, self.identity.trust.ca.public_bytes(Encoding.DER)
        return OpenVpn(
            self.openvpn(), certificates, self.max_clients, dh if dh.exists() else None, self.config.both_families
        )


class InForce:
    """The effective configuration of now, which one room replaces and all others read."""

    def __init__(self, effective: EffectiveConfig) -> None:
        self.effective = effective

    def interfaces(self) -> tuple[str, ...]:
        """Those with peers on them, whether they exist or not: of tunnels, and those of -i."""
        effective = self.effective
        tunnels = *effective.server_interfaces, *effective.client_interfaces, *effective.links
        return *tunnels, *effective.config.lan

    def own(self) -> tuple[str, ...]:
        """Those of the tunnels that we open, whether they exist or not."""
        effective = self.effective
        return *effective.client_interfaces, *effective.own_links, *effective.further_links(Role.CLIENT)


def _user_name() -> str:
    """Who we are; empty for a number without a name, as containers have them."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""
