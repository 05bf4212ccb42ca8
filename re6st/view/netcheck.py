"""Judges for re6st-status netcheck what the node, the registry, and the router at home answered.

The answers of the node are those of its control socket (docs/control.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from re6st.core.machine.hosts import is_behind_another
from re6st.core.registry.clock import skew
from re6st.core.telemetry.report import REVOKED
from re6st.core.tunnel_protocols import Family, Transport, TunnelCarrier, named
from re6st.core.wire.wireguard import Reason
from re6st.core.words import away, duration, plural
from re6st.view.findings import Finding, Level
from re6st.view.status_tables import endpoint, without_wireguard
from re6st.view.uplink_table import summary

Answer = Mapping[str, Any]

CLOCK_WARNING, CLOCK_WRONG = 10.0, 600.0
"""Seconds between our clock and the registry's. HTTP tells a time in whole seconds."""
EARLY = 600.0
"""For so many seconds after the start, it means nothing that nobody has connected."""


@dataclass(frozen=True, slots=True)
class RegistryAnswer:
    """The result of asking a registry for its CA over one family of addresses. `error` says why there is none."""

    family: str
    milliseconds: float = 0.0
    ca: str = ""
    """Fingerprint of the CA certificate; empty if the registry gave none."""
    clock: float | None = None
    """By how many seconds its clock is ahead of ours."""
    error: str = ""
    ca_key: str = ""
    """Fingerprint of the CA's key."""


@dataclass(frozen=True, slots=True)
class Router:
    """A router that speaks UPnP: our address behind it, and its own outer address."""

    lan: str
    outside: str


def health(status: Answer) -> Iterator[Finding]:
    """The problems that the node itself reports."""
    for problem in status["health"]["problems"]:
        yield Finding("fail" if problem["severity"] == "failed" else "warn", "node", problem["text"])


def registry(url: str, answers: Sequence[RegistryAnswer], ca: str, ca_key: str = "") -> Iterator[Finding]:
    """Whether the registry answers, is that of our network (by our fingerprints, if they are known), and its clock."""
    good = [answer for answer in answers if not answer.error]
    for answer in answers:
        if answer.error and good:  # one family is enough
            yield Finding("ok", "registry", f"not over {answer.family}: {answer.error}")
        elif answer.error:
            yield Finding("fail", "registry", f"registry {url} over {answer.family}: {answer.error}")
        else:
            yield Finding("ok", "registry", f"registry answers over {answer.family} in {answer.milliseconds:.0f} ms")
    others = {answer.ca: answer.ca_key for answer in good if answer.ca and ca and answer.ca != ca}
    for other, key in sorted(others.items()):
        if key and key == ca_key:
            yield Finding(
                "ok", "registry", "its CA certificate was renewed, with the key of ours, and replaces it near its end"
            )
            continue
        text = f"the registry's CA is {other}, ours is {ca}: another network's, or somebody in between"
        yield Finding("fail", "ca", text, "compare it with what the registry's operator says")
    if ca and any(answer.ca == ca for answer in good):
        yield Finding("ok", "registry", "CA matches")
    clocks = [answer.clock for answer in good if answer.clock is not None]
    if clocks:
        yield _clock(min(clocks, key=abs))


def failed_registries(told: Answer, now: float) -> Iterator[Finding]:
    """What a node that knows several registries says of them."""
    known = told.get("all", ())
    if len(known) < 2:
        return
    yield Finding("ok", "registry", f"the node asks {told['url']}")
    for each in known:
        if not each["works"]:
            text = f"{each['url']} failed {away(each['failed'], now)}: {each['error'].rstrip('.')}"
            yield Finding("warn", "registry", text, "see whether it runs; the node tries it again by itself")


def registries(asked: Mapping[str, Sequence[RegistryAnswer]], ca: str, ca_key: str = "") -> Iterator[Finding]:
    """The same of several, by their URLs: one that does not answer is no failure where another one does."""
    if len(asked) == 1:
        for url, answers in asked.items():
            yield from registry(url, answers, ca, ca_key)
        return
    works = any(not answer.error for answers in asked.values() for answer in answers)
    for url, answers in asked.items():
        for found in registry(url, answers, ca, ca_key):
            text = found.text if url in found.text else f"{url}: {found.text}"
            level: Level = "warn" if works and (found.level, found.about) == ("fail", "registry") else found.level
            yield replace(found, level=level, text=text)


def _clock(difference: float) -> Finding:
    if abs(difference) < CLOCK_WARNING:
        return Finding("ok", "registry", f"clock within {max(1.0, abs(difference)):.0f} s")
    level: Level = "fail" if abs(difference) > CLOCK_WRONG else "warn"
    return Finding(level, "clock", skew(difference), "set the clock, as by chrony")


def port_mapping(status: Answer, local: Collection[str], router: Router | None, waited: float) -> Iterator[Finding]:
    """For a node that should open its ports at a router, found or not. `local` are this machine's addresses."""
    ports = [server for server in status["servers"] if _family(server) == 4]
    mapped = [each for each in status["advertised"] if each["origin"] == "upnp"]
    own = [each["host"] for each in status["advertised"] if each["host"] in local and each["origin"] != "private"]
    if not ports:
        return
    if mapped:
        places = ", ".join(endpoint(each["host"], each["port"], each["protocol"]) for each in mapped)
        yield Finding("ok", "upnp", f"UPnP: the router forwards {places} to this node")
        if router is not None and is_behind_another(router.outside):
            outer = " and ".join(f"{each['protocol']}/{each['port']}" for each in mapped)
            text = f"a second NAT: the router itself has {router.outside}, an address that is not public"
            remedy = f"forward {outer} to {router.outside} there, ask the provider for a public address, or use IPv6"
            yield Finding("warn", "upnp", text, remedy)
        return
    if own:
        yield Finding("ok", "upnp", f"no router in between: {own[0]} is this machine's own address")
        return
    by_hand = " and ".join(f"{server['protocol']}/{server['port']}" for server in ports)
    if router is None:
        text, to = f"UPnP: no router answered in {waited:.0f} s", next(iter(local), "this machine")
        yield Finding("warn", "upnp", text, f"forward {by_hand} to {to} by hand")
    elif router.outside and not is_behind_another(router.outside):
        text = f"UPnP: the router ({router.outside}) forwards nothing to us"
        yield Finding("warn", "upnp", text, f"see the node's log, or forward {by_hand} to {router.lan} by hand")
    else:
        text = "UPnP: the router opens no port and tells no public address: it may be behind another one, a second NAT"
        if router.outside:
            text = f"a second NAT: the router itself has {router.outside}, an address that is not public"
        remedy = (
            f"forward {by_hand} by hand at both, the inner one to {router.lan}, ask the provider for a public address"
        )
        yield Finding("warn", "upnp", text, f"{remedy}, or use IPv6; tunnels that this node opens need none of it")


def membership(cn: str, refused: str, proven: bool) -> Iterator[Finding]:
    """For a node that does not run: whether the registry has its certificate. `refused`: its other answer."""
    if refused and proven:
        yield Finding("fail", "registry", REVOKED)
    elif refused:  # perhaps not the registry: a node that enrols again because of it loses its subnet
        yield Finding("fail", "registry", refused, f"ask the operator of the network whether {cn} was revoked")


def uplink(unreachable: Sequence[str], asked: int) -> Iterator[Finding]:
    """Whether this machine has any uplink: to how many of the addresses that were `asked` for it has no route."""
    if asked and len(unreachable) == asked:
        text = (
            f"this machine has no route to any of {plural(asked, 'peer address', 'peer addresses')}: its uplink is down"
        )
        yield Finding("fail", "uplink", text, "see to the connection of this machine: ip route, ip -6 route")


def uplinks(status: Answer) -> Iterator[Finding]:
    """The lines to the Internet, where tunnels are bound to them; what is wrong with one is a problem of the node."""
    known = status.get("uplinks")
    if known is not None and known["active"]:
        yield Finding("ok", "uplinks", summary(known))


def servers(status: Answer) -> Iterator[Finding]:
    """Whether others can open tunnels to us, as far as the node knows from those that did."""
    if not status["servers"]:
        yield Finding("ok", "servers", "no server here: this node opens tunnels, and nobody opens one to it")
        return
    for server in status["servers"]:
        if not server["listening"]:
            text = f"{server['protocol']}/{server['port']}: not listening"
            yield Finding("fail", "servers", text, "see the node's log")
    ports = ", ".join(f"{server['protocol']}/{server['port']}" for server in status["servers"])
    connected, served = sum(server["clients"] for server in status["servers"]), status["mesh"]["clients_served"]
    uptime = status["uptime_seconds"]
    if connected or served:
        text = f"{ports}: {plural(connected, 'peer')} connected, {plural(served, 'tunnel')} since the start"
        yield Finding("ok", "servers", text)
    elif not status["mesh"]["peers"] or uptime < EARLY:
        yield Finding("ok", "servers", f"{ports}: nobody has connected yet, in {duration(uptime)}")
    else:
        remedy = "open it in the firewall, forward it at the router, or use --max-clients 0"
        yield Finding("warn", "servers", f"{ports}: nobody has connected in {duration(uptime)}", remedy)
    if not status["advertised"]:
        yield Finding("warn", "servers", "no public address of this machine is known", "give it with --ip")


def tunnels(tunnels: Sequence[Answer], peers: Sequence[Answer]) -> Iterator[Finding]:
    """Whether we can open tunnels to others."""
    up = sum(each["direction"] == "out" and each["up_seconds"] is not None for each in tunnels)
    failed = [each["peer"] for each in peers if each["last"] is not None and each["last"]["kind"] == "tunnel-failed"]
    if up:
        yield Finding("ok", "tunnels", f"{plural(up, 'tunnel')} of ours {'is' if up == 1 else 'are'} up")
    yield from _links(tunnels)
    if not failed:
        return
    text = f"no answer from {plural(len(failed), 'peer')} at the last try: {', '.join(failed[:5])}"
    text += f" and {len(failed) - 5} more" if failed[5:] else ""
    ports = sorted({f"{e['protocol']}/{e['port']}" for each in peers for e in each["addresses"]})
    remedy = f"let {', '.join(ports[:4]) or 'the ports of the peers'} out at the firewall"
    if not up:
        yield Finding("fail", "tunnels", text, remedy)
    elif len(failed) > up:
        yield Finding("warn", "tunnels", text, remedy)


def _links(tunnels: Sequence[Answer]) -> Iterator[Finding]:
    """Which tunnels WireGuard carries, and why not others where that was tried."""
    if carried := sum(each.get("carrier") == TunnelCarrier.WIREGUARD for each in tunnels):
        yield Finding("ok", "wireguard", f"WireGuard carries {plural(carried, 'tunnel')}")
    for peers, reason in without_wireguard(tunnels):
        silent = reason == Reason.NO_HANDSHAKE.words
        remedy = "let UDP pass to their ports of --wireguard-ports; OpenVPN serves meanwhile" if silent else ""
        yield Finding("warn", "wireguard", f"no WireGuard with {peers}: {reason}", remedy)


def software(peer: str, answer: str | None) -> Finding:
    """Whether a node answered on port 326, with its version."""
    if answer is None:
        remedy = "let udp/326 pass between the addresses of re6st"
        return Finding("warn", "inside", f"udp/326: no answer from {peer}, though there is a route", remedy)
    return Finding("ok", "inside", f"udp/326 passes inside, {peer} has version {answer.partition(',')[0][:40]}")


def path_mtu(peer: str, told: int | None, passed: int | None) -> Finding:
    """The size of packets that reach a node: what the kernel was `told`, and what `passed`; None: nothing did."""
    if told is None or passed is None:
        text = f"{peer} does not answer echo requests, though babel has a route to it"
        return Finding("warn", "inside", text, f"see re6st-status trace {peer}")
    if passed < told:
        text = f"path MTU to {peer}: packets of {told} bytes vanish, those of {passed} pass"
        return Finding("warn", "inside", text, "let ICMPv6 Packet Too Big pass inside re6st")
    return Finding("ok", "inside", f"path MTU to {peer} {passed}")


def large_packets(tried: Sequence[tuple[Answer, int | None, int | None]]) -> Iterator[Finding]:
    """Whether packets as large as a tunnel carries reach its other end. For each tunnel: the size that it carries, and
    the size that passed; None: not even a small packet did, as when a firewall forbids pings.
    """
    whole = sum(told is not None and told == passed for _, told, passed in tried)
    if whole:
        where = f"on {plural(whole, 'tunnel')}"
        yield Finding("ok", "large packets", f"packets of full size pass {where}")
    for tunnel, told, passed in tried:
        if told is None or passed is None or passed >= told:
            continue
        vanish = f"packets of {told} bytes vanish, those of {passed} pass: the path swallows large ones"
        remedy = "have the path mended, or disable-proto udp at one of the two: over TCP packets are kept small"
        if (protocol := named(tunnel["protocol"])) and protocol.transport is Transport.TCP:
            remedy = "have the path mended, or the server upgraded, which then keeps packets small; until then"
            remedy += " sysctl net.ipv4.tcp_mtu_probing=1 at both ends"
        text = f"tunnel with {tunnel['peer']} ({tunnel['protocol']}, {tunnel['remote']}): {vanish}"
        yield Finding("warn", "large packets", text, remedy)


def _family(server: Answer) -> Family | None:
    """The IP version of one of our servers; None for a protocol that only a newer node has."""
    protocol = named(server["protocol"])
    return protocol.family if protocol else None
