"""Makes the output of re6st-status from the answers of a node's control socket (docs/control.md).

Its tables are in view/status_tables.py, events in view/event_text.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from re6st.core.words import away, clock, duration, moment, plural
from re6st.view.event_text import event_lines
from re6st.view.screen import Column, Line, Span, Style, fold, line, table, wrap
from re6st.view.status_tables import cost, endpoint, milliseconds, tunnel_table
from re6st.view.uplink_table import summary

Answer = Mapping[str, Any]
"""A result of the control socket, from JSON."""

EVENTS_READ, EVENTS_SHOWN = 30, 5
HOPS_SHOWN = 6
VERDICTS: Mapping[str, Style] = {"ok": "good", "warning": "warning", "failed": "bad"}
_ORIGINS = {"given": "--ip", "upnp": "UPnP", "seen": "seen by peers", "local": "of this machine", "private": "private"}


def overview(
    status: Answer, tunnels: Sequence[Answer], routes: Answer, events: Sequence[Answer], now: float, width: int | None
) -> list[Line]:
    """Everything at a glance: the node, its health, its tunnels, the last events."""
    lines = [*headline(status, width), *facts(status, routes, now, width), ()]
    lines += tunnel_table(tunnels, width) if tunnels else [line(Span("no tunnels", "dim"))]
    if events:
        lines += [(), line(Span("LAST EVENTS", "bold")), *event_lines(events, now)[-EVENTS_SHOWN:]]
    return lines


def headline(status: Answer, width: int | None) -> list[Line]:
    """The program, the verdict on the right, and each problem on a line."""
    health = status["health"]
    left = f"re6st {status['version']} (protocol {status['protocol']}), up {duration(status['uptime_seconds'])}"
    verdict = Span(f"health: {verdict_of(health)}", VERDICTS.get(health["verdict"], "bad"))
    gap = max(2, (width or 80) - len(left) - len(verdict.text))
    lines = [line(Span(left, "bold"), " " * gap, verdict)]
    for problem in health["problems"]:
        style: Style = "bad" if problem["severity"] == "failed" else "warning"
        lines += [line(Span(each, style)) for each in wrap("  ! ", problem["text"], width)]
    return lines


def verdict_of(health: Answer) -> str:
    """`ok`, `1 warning`, `failed`."""
    if health["verdict"] == "warning":
        return plural(len(health["problems"]), "warning")
    return str(health["verdict"])


def facts(status: Answer, routes: Answer, now: float, width: int | None) -> list[Line]:
    """The node's properties, one on a line."""
    certificate, registry, mesh = status["certificate"], status["registry"], status["mesh"]
    until = certificate["until"]
    left = f"{'ends' if until > now else 'ended'} {away(until, now)} ({moment(until)})"
    told = [
        ("node", f"{status['cn']}, address {status['address']}" + _and("IPv4 ", status["ipv4"])),
        ("subnet", f"{status['subnet']} of the network {status['network']}"),
        ("certificate", f"{left}, {_renewal(certificate['renews'], now)}; CA until {moment(certificate['ca_until'])}"),
        ("registry", f"{registry_words(registry, status['cn'], now)}; {_parameters(status)}"),
    ]
    lines = [each for name, words in told for each in _fact(name, words, width)]
    lines += [each for words in other_registries(registry, now) for each in _fact("", words, width)]
    lines += _reachable(status, width)
    opening = f" ({mesh['tunnels_opening']} opening)" if mesh["tunnels_opening"] else ""
    regions = status.get("regions")  # an older daemon knows of none
    others = f"{plural(mesh['peers'], 'other node')}" if regions is None else _regions(regions)
    counted = (
        f"{plural(mesh['tunnels'], 'tunnel')} of ours{opening}, at most {mesh['tunnels_wanted']};"
        f" {plural(mesh['clients'], 'client')},"
        f" {plural(mesh['neighbours'], 'neighbour')}, {others}"
    )
    lines += _fact("mesh", counted, width)
    lines += _uplinks(status.get("uplinks"), width)
    lines += _links(status.get("links"), width)
    lines += _bulk(status.get("bulk"), width)
    lines += _dropped(status.get("packet_filter"), width)
    hops = [f"{hop['routes']} via {hop['peer'] or hop['address']}" for hop in routes["by_next_hop"]]
    if not hops:
        return [*lines, *_fact("routes", "none", width)]
    more = [f"{len(hops) - HOPS_SHOWN} more"] if len(hops) > HOPS_SHOWN else []
    return lines + fold(f"  {'routes':<12} {routes['count']}: ", [*hops[:HOPS_SHOWN], *more], width)


def _regions(regions: Answer) -> str:
    """Whom the node knows in a network of regions."""
    known = f"{plural(regions['nodes'], 'other node')} of our region {regions['own']},"
    parts = "" if regions["whole"] else "; our region is in parts, which look for each other"
    return f"{known} {plural(regions['others'], 'other region')}{parts}"


def _renewal(when: float, now: float) -> str:
    return f"renewed {away(when, now)}" if when > now else "its renewal is due"


def _parameters(status: Answer) -> str:
    """The version of the parameters, and what they require of every node."""
    required = status.get("require", [])  # an older daemon does not tell the version
    return f"parameters {status['parameters']}" + (f", which require {' '.join(required)}" if required else "")


def registry_words(registry: Answer, own: str, now: float) -> str:
    """The registry's URL, and whether the node reaches it."""
    if registry["cn"] == own:
        through = "its node is this one"
    elif registry["connected"]:
        through = f"its node {registry['cn']} is in reach"
    else:
        through = f"its node {registry['cn']} is out of reach"
    answered = "" if registry["answered"] is None else f", it answered {away(registry['answered'], now)}"
    return f"{registry['url']}: {through}{answered}"


def other_registries(registry: Answer, now: float) -> list[str]:
    """Each of the registries that the node does not use now, and whether it works."""
    others = [each for each in registry.get("all", ()) if not each["used"]]  # an older daemon knows one
    return [f"{each['url']}: {'in reserve' if each['works'] else _failed(each, now)}" for each in others]


def _failed(registry: Answer, now: float) -> str:
    return f"failed {away(registry['failed'], now)}: {registry['error'].rstrip('.')}"


def _dropped(packets: Answer | None, width: int | None) -> list[Line]:
    """What our nftables table dropped; no line if it dropped nothing."""
    if packets is None:  # an older daemon
        return []
    counted = [f"{count} {name}" for name, count in packets["dropped"].items() if count]
    if not packets["active"]:
        return _fact("packets", "of tunnels are not filtered: without nft, or no-packet-filter is set", width)
    return fold(f"  {'packets':<12} dropped: ", counted, width) if counted else []


def _links(links: Answer | None, width: int | None) -> list[Line]:
    """What dead and lossy links there are, and dead ones there were; nothing while there was none."""
    lossy = 0 if links is None else links.get("lossy", 0)  # an older daemon does not look for them
    if links is None or not (links["died"] or lossy):
        return []
    now = f"; {links['dead']} now, {plural(links['detours'], 'destination')} led around" if links["dead"] else ""
    lose = f"; on {lossy} packets get lost" if lossy else ""
    return _fact("links", f"{links['died']} found dead, {plural(links['probes'], 'probe')} sent{now}{lose}", width)


def _uplinks(uplinks: Answer | None, width: int | None) -> list[Line]:
    """The lines to the Internet, where there are several, or one is named."""
    if uplinks is None or not (uplinks["active"] or uplinks["trouble"]):
        return []
    return _fact("uplinks", uplinks["trouble"] or summary(uplinks), width)


def _bulk(bulk: Answer | None, width: int | None) -> list[Line]:
    """By which plane bulk traffic goes, where the network has two."""
    if bulk is None or bulk["planes"] < 2:
        return []
    if not bulk["active"]:
        why = f": {bulk['trouble']}" if bulk["trouble"] else ""
        return _fact("bulk", f"by latency, as all else{why}", width)
    return _fact("bulk", f"by capacity, {plural(bulk['routes'], 'route')}", width)


def _reachable(status: Answer, width: int | None) -> list[Line]:
    """The addresses at which others can open tunnels to us, and servers that do not listen."""
    places = [
        f"{endpoint(e['host'], e['port'], e['protocol'])} ({_ORIGINS.get(e['origin'], e['origin'])})"
        for e in status["advertised"]
    ]
    if places:
        return fold(f"  {'reachable':<12} ", places, width)
    why = "no public address is known yet" if status["servers"] else "we have no server"
    return _fact("reachable", f"not from outside: {why}", width)


def _fact(name: str, text: str, width: int | None) -> list[Line]:
    return [line(each) for each in wrap(f"  {name:<12} ", text, width)]


def _and(name: str, value: object) -> str:
    return f", {name}{value}" if value else ""


def certificate_lines(certificate: Answer, now: float, width: int | None) -> list[Line]:
    """Our certificate, and that of its CA."""
    ca = certificate["ca"]
    told = [
        ("subject", certificate["subject"]),
        ("subnet", f"{certificate['subnet']}, address {certificate['address']}"),
        ("serial", f"{certificate['serial']}, key of {certificate['key_bits']} bits"),
        ("valid", _validity(certificate, now)),
        ("renewal", _renewal(certificate["renews"], now).removeprefix("renewed ")),
        ("fingerprint", certificate["fingerprint"]),
        ("CA", ca["subject"]),
        ("network", f"{ca['network']}, CA's key of {ca['key_bits']} bits"),
        ("CA valid", _validity(ca, now)),
        ("CA's print", ca["fingerprint"]),
    ]
    return [each for name, words in told for each in _fact_or_below(name, words, width)]


def _fact_or_below(name: str, text: str, width: int | None) -> list[Line]:
    """A word that is too long for its place begins on the next line: a fingerprint that is cut is useless."""
    if width is not None and max(map(len, text.split())) > width - 15:
        return [line(f"  {name}"), line(f"    {text}")]
    return _fact(name, text, width)


def _validity(certificate: Answer, now: float) -> str:
    starts, until = certificate["starts"], certificate["until"]
    word = "starts" if starts > now else "ends" if until > now else "ended"
    return f"{moment(starts)} to {moment(until)}: {word} {away(starts if starts > now else until, now)}"


_LEVELS: Mapping[str, Style] = {
    "WARNING": "warning",
    "ERROR": "bad",
    "CRITICAL": "bad",
    "DEBUG": "dim",
    "TRACE": "dim",
}


def log_lines(record: Answer) -> list[Line]:
    """Log lines, as they are in the log."""
    style = _LEVELS.get(record["level"], "")
    lines = [line(Span(f"{plural(record['left_out'], 'line')} left out", "dim"))] if record.get("left_out") else []
    head = f"{clock(record['time'])} {record['level']} {record['name']}: "
    return lines + [line(Span(head, "dim"), Span(each, style)) for each in record["text"].split("\n")]


_WAYS = (
    Column(""),
    Column("VIA"),
    Column("INTERFACE"),
    Column("METRIC", right=True),
    Column("REST", right=True),
    Column("ADDRESS", drop=1),
)


def why_lines(answer: Answer, now: float, width: int | None) -> list[Line]:
    """The route in use to a node, since when it is used, and the other routes that babel could use."""
    region = answer.get("region")  # an older daemon knows of none
    by_region = f"known by its region {region}, which is " if region else ""
    lines = _ways_lines(f"{answer['peer']} ({answer['subnet']}) is {by_region}", answer, now, width)
    lines.append(line(Span("REST is the metric from the next hop on; 0: the next hop is the node itself.", "dim")))
    if (bulk := answer.get("bulk")) is not None:
        if any(way["in_use"] for way in bulk["routes"]):
            lines += [(), *_ways_lines("For bulk traffic (class CS1 or LE) it is ", bulk, now, width)]
        else:
            lines += [(), line("Bulk traffic (class CS1 or LE) takes the same way: none by capacity is known.")]
    return lines


def _ways_lines(head: str, answer: Answer, now: float, width: int | None) -> list[Line]:
    ways, since = answer["routes"], answer["since"]
    used = next((way for way in ways if way["in_use"]), None)
    if used is None:
        head += "out of reach: no route to it is in use"
    elif used["behind"] == 0:
        head += f"our neighbour on {used['interface']}, metric {used['metric']}"
    else:
        head += f"reached via {used['via'] or used['address']} on {used['interface']}, metric {used['metric']}"
    lines = [line(Span(head, "good" if used else "bad"))]
    if since is not None:
        before = f", before that via {_hop(since['before'])}" if since["before"] else ""
        lines.append(line(f"  for {duration(now - since['time'])}{before}"))
    rows = [
        (
            Span("*" if way["in_use"] else "", "good"),
            way["via"] or "?",
            way["interface"],
            cost(way["metric"]),
            cost(way["behind"]),
            way["address"],
        )
        for way in ways
    ]
    return [*lines, (), *table(_WAYS, rows, width)]


def _hop(hop: Answer) -> str:
    return f"{hop['peer'] or hop['address']} on {hop['interface']}"


# --- ping and trace ---


def hop_line(hop: Answer) -> Line:
    """One hop of a trace."""
    number = f"{hop['hop']:>3}  "
    if hop["address"] is None:
        return line(number, Span("no answer", "warning"))
    return line(number, f"{hop['peer'] or '-':<9}  {hop['address']:<24}  ", milliseconds(hop["ms"]))


def ping_summary(times: Sequence[float | None]) -> Line:
    """The results of some pings; times are in milliseconds."""
    known = [each for each in times if each is not None]
    text = f"{len(times)} sent, {len(known)} answered"
    if not known:
        return line(Span(text, "bad"))
    middle = sum(known) / len(known)
    text += (
        f"; {milliseconds(min(known))} at least, {milliseconds(middle)} on average, {milliseconds(max(known))} at most"
    )
    return line(Span(text, "good" if len(known) == len(times) else "warning"))
