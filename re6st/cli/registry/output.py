"""The output of the commands of re6st-registry: aligned tables, JSON. docs/registry-admin.md describes the records."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from re6st.api.invitation import printed
from re6st.cli.terminal import has_colour
from re6st.registryd.listings import Record, lasting, relative
from re6st.registryd.sqlite.check import Report
from re6st.view import screen
from re6st.view.dot import digraph
from re6st.view.screen import Column, paint

SCHEMA = 1
"""It counts up when a field of the JSON changes its meaning or is removed."""

NAMES_SHOWN = 10


def to_json(record: Record) -> str:
    return json.dumps({"schema": SCHEMA, **record}, indent=2)


def report_record(report: Report) -> Record:
    return asdict(report)


# --- pieces ---


def clean(value: object) -> str:
    """A value for a terminal: `-` for none, and nothing that a terminal would obey."""
    text = "-" if value is None or value == "" else str(value)
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def web_login(record: Record, options: argparse.Namespace) -> str:
    """The link; if the page is on a unix socket, it is behind a server whose name we do not know."""
    return str(record["url"] or f"{record['path']}    (served on {record['listening']})")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns, in colour on a terminal. No column is cut or folded, so that addresses can be copied."""
    cells = [[clean(value) for value in row] for row in rows]
    return "\n".join(paint(screen.table([Column(name) for name in head], cells), colour=has_colour()))


def lines(pairs: Iterable[tuple[str, object]]) -> str:
    """Names and values, one a line."""
    shown = [(name, clean(value)) for name, value in pairs]
    width = max(len(name) for name, _ in shown)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in shown)


def _when(when: str | None) -> str:
    return "-" if when is None else f"{when}, {relative(when)}"


def _state(node: Record, now: float | None = None) -> str | None:
    """How long a node is online or offline: `online 3 days`; None: nobody knows."""
    if node["online"] is None:
        return None
    since = node["online_since"] or node["offline_since"]
    if since is None:
        return "online" if node["online"] else "never online"
    return f"{'online' if node['online'] else 'offline'} {lasting(since, now)}"


def _software(node: Record) -> str:
    if node["protocol"] is None:
        return "-"
    version = (node["version"] or "other software").partition(",")[0]
    return f"{version} (p{node['protocol']})"


# --- words ---


def nodes(record: Record, options: argparse.Namespace) -> str:
    if options.cn is not None:
        return _node(record["nodes"][0])
    now = time.time()
    return table(
        ("CN", "NAME", "STATE", "SUBNET", "ADDRESS", "E-MAIL", "ISSUED", "EXPIRES", "LAST CALL", "VERSION", "TAGS"),
        (
            (
                *(node["cn"], node["name"], _state(node, now), node["subnet"], node["address"]),
                *(node["email"], (node["issued"] or "-")[:10]),
                relative(node["expires"], now) + (" (revoked)" if node["revoked"] else ""),
                *(relative(node["seen"], now), _software(node), " ".join(node["tags"])),
            )
            for node in record["nodes"]
        ),
    )


def _node(node: Record) -> str:
    older = ", ".join(map(str, node["older_serials"]))
    return lines(
        [
            ("CN", node["cn"] + (" (the registry's own node)" if node["registry"] else "")),
            ("name", node["name"]),
            ("subnet", node["subnet"]),
            ("address", node["address"]),
            ("e-mail", node["email"]),
            ("tags", " ".join(node["tags"])),
            ("number", node["number"]),
            ("serial", f"{node['serial']}{' (revoked: it has to renew)' if node['revoked'] else ''}"),
            ("older", older or None),
            ("issued", _when(node["issued"])),
            ("expires", _when(node["expires"])),
            ("state", _state(node)),
            ("since", node["online_since"] or node["offline_since"]),
            ("last call", _when(node["seen"])),
            ("version", f"{node['version'] or '-'} (protocol {node['protocol']})" if node["protocol"] else None),
            ("extensions", " ".join(node["extensions"]) or "none" if node["extensions"] is not None else None),
        ]
    )


def tags(record: Record, options: argparse.Namespace) -> str:
    node = record["node"]
    return lines([("node", node["cn"]), ("tags", " ".join(node["tags"]))])


def invitation(record: Record, options: argparse.Namespace) -> str:
    good = f"   for {record['uses']} machines" if record["uses"] > 1 else ""
    good += f"   tags {' '.join(record['tags'])}" if record["tags"] else ""
    code = f"\n{printed(record['link'])}\n" if options.qr else ""
    return (
        f"token  {record['token']}   prefix /{record['prefix_length']}   until {record['expires']}{good}\n"
        f"{'Who has it runs' if record['uses'] == 1 else 'Each of the machines runs'} this as root:\n\n"
        f"{record['join']}\n{code}"
    )


def tokens(record: Record, options: argparse.Namespace) -> str:
    if options.delete is not None:
        return f"deleted  {clean(record['deleted'])}"
    return table(
        ("TOKEN", "E-MAIL", "PREFIX", "CREATED", "EXPIRES", "LEFT", "TAGS"),
        (
            (
                *(token["token"], token["email"], f"/{token['prefix_length']}", relative(token["created"])),
                "expired" if token["expired"] else relative(token["expires"]),
                *(token["uses"], " ".join(token["tags"])),
            )
            for token in record["tokens"]
        ),
    )


def warning(node: Record, serial: str) -> str:
    """Whom a revocation affects, and what it does. `serial` is empty for the whole node."""
    if serial and int(serial) != node["serial"]:
        effect = f"Serial {serial} will not be accepted any more; the node has another one by now, and keeps that."
    elif serial:
        effect = f"Serial {serial} will not be accepted any more; the node keeps its subnet and renews by itself."
    else:
        effect = "The node will be out of the network within seconds, and its subnet will be free for others."
    return f"{_node(node)}\n\n{effect}"


def revocation(record: Record, options: argparse.Namespace) -> str:
    node = record["node"]
    kept = "its subnet is kept" if record["subnet_kept"] else "its subnet is free"
    version = f"parameters of the network: version {record['version']}"
    if node is None:
        return f"revoked  serial {record['serial']}, of a node that is not known here; {version}"
    serial = record["serial"] or node["serial"]
    called = f"{node['cn']} {node['name'] or ''}".rstrip()
    return f"revoked  {clean(called)}, serial {serial}, {clean(node['email'])}; {kept}; {version}"


def own_node(record: Record, options: argparse.Namespace) -> str:
    own = record["own_node"]
    if own is None:
        return "none: the first certificate makes it"
    if record["changed"]:
        how = f"instead of {record['before'] or 'none'}; parameters of the network: version {record['version']}"
    elif record["certified"]:
        how = "it was already" if options.cn else "it has a certificate"
    else:
        how = "it has no certificate, so the network gets no news: see docs/registry-admin.md"
    return f"own node  {clean(own)}; {how}"


def name(record: Record, options: argparse.Namespace) -> str:
    instead = f"; before: {record['before'] or 'none'}" if record["changed"] else ""
    return f"name  {clean(record['cn'])}  {record['name'] or '-'}{instead}"


def revoked(record: Record, options: argparse.Namespace) -> str:
    return table(
        ("SERIAL", "CN", "E-MAIL", "REVOKED", "REASON", "LISTED UNTIL"),
        (
            (
                *(each["serial"], each["cn"], each["email"], relative(each["revoked"]), each["reason"]),
                (each["listed_until"] or "-")[:10],
            )
            for each in record["revoked"]
        ),
    )


def next_rotation(record: Record) -> str:
    """What to do after a step of a rotation."""
    when = record["next_not_before"]
    wait = f", not before {when}" if when is not None and not relative(when).endswith("ago") else ""
    match record["state"]:
        case "phase 1":
            return f"the new key is accepted beside the old one. Run rotate again{wait}, to sign with it."
        case "phase 2":
            return f"the new key signs. Run rotate again{wait}, to forget the old one."
        case "none":
            return "the network has no key. Run rotate to give it one."
    return "nothing to do; rotate starts the change to a new key."


def rotation(record: Record, options: argparse.Namespace) -> str:
    return lines([("state", record["state"]), ("version", record["version"]), ("next", record["next"])])


def hellos(record: Record, options: argparse.Namespace) -> str:
    older = record["older_nodes"]
    if older:
        why = f"these nodes of older software need long ones: {' '.join(older[:NAMES_SHOWN])}"
        why += " ..." if older[NAMES_SHOWN:] else ""
    elif record["short_from"] is None:
        why = "no node of older software is left"
    else:
        why = f"no node of older software is left: short ones from {record['short_from']}, or at once with --short"
    return lines([("hellos", record["hellos"]), ("version", record["version"]), ("why", why)])


def regions(record: Record, options: argparse.Namespace) -> str:
    older = record["older_nodes"]
    shown = f"{record['bits']} bits of a prefix" if record["bits"] else "none: the network is flat"
    if not record["wanted"]:
        why = "the registry runs without --regions"
    elif older:
        why = f"{len(older)} node(s) of older software cannot have them: {' '.join(older[:NAMES_SHOWN])}"
        why += " ..." if older[NAMES_SHOWN:] else ""
    elif record["from"] is None:
        why = "all nodes can have them"
    else:
        why = f"no node of older software is left: regions from {record['from']}, or at once with --now"
    return lines([("regions", shown), ("version", record["version"]), ("why", why)])


def params(record: Record, options: argparse.Namespace) -> str:
    values = dict(record["parameters"])
    values["crl"] = f"{len(values['crl'])} serials, see revoked"
    values["registry_prefix"] = record["registry"]
    rows = [("version", record["version"]), ("babel keys", record["keys"]), *sorted(values.items())]
    return lines([(name, ", ".join(map(str, value)) if isinstance(value, list) else value) for name, value in rows])


def topology(record: Record, options: argparse.Namespace) -> str:
    if options.dot:
        return _dot(record["topology"]).rstrip()
    return table(
        ("CN", "TUNNELS TO"),
        (
            (node["cn"], " ".join(node["tunnels_to"]) or ("-" if node["answered"] else "no answer"))
            for node in record["topology"]
        ),
    )


def _dot(nodes: Sequence[Record]) -> str:
    """For Graphviz; nodes that did not answer are dashed."""
    return digraph(
        ((node["cn"], {} if node["answered"] else {"style": "dashed"}) for node in nodes),
        ((node["cn"], peer, {}) for node in nodes for peer in node["tunnels_to"]),
    )


def versions(record: Record, options: argparse.Namespace) -> str:
    shown = table(("CN", "VERSION"), ((node["cn"], node["version"] or "no answer") for node in record["versions"]))
    return f"{shown}\nrequired of every node: {' '.join(record['require'])}" if record["require"] else shown


def backup(record: Record, options: argparse.Namespace) -> str:
    return f"written  {clean(record['file'])}, {record['bytes'] / 2**20:.1f} MiB; {_holds(record)}; verified"


def check(record: Record, options: argparse.Namespace) -> str:
    if record["ok"]:
        return f"ok  {clean(record['database'])}: {_holds(record)}"
    if not record["problems"]:
        warnings = [f"warning  {clean(each)}" for each in record["warnings"]]
        return "\n".join([f"whole  {clean(record['database'])}: {_holds(record)}", *warnings])
    shown = [(each["table"] or "file", each["key"], each["problem"]) for each in record["findings"]]
    more = record["problems"] - len(shown)
    rest = [f"and {more} more"] if more else []
    title = f"{record['problems']} problems in {clean(record['database'])}"
    warnings = [f"warning  {clean(each)}" for each in record["warnings"]]
    return "\n".join([title, table(("TABLE", "KEY", "PROBLEM"), shown), *rest, *warnings])


def _holds(record: Record) -> str:
    return (
        f"{record['used']} certificates, {record['free']} free ranges, {record['reserved']} reserved prefixes, "
        f"{record['tokens']} tokens, {record['revoked']} revoked"
    )
