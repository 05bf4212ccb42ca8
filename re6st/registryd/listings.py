"""Lists for the operator, one page at a time.

Values are as in JSON: times as text in UTC, prefixes as CN and as bits. docs/registry-admin.md explains every field.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from re6st import cert
from re6st.core.names import is_name
from re6st.core.prefix import Prefix, PrefixError, address, address_bits, subnet
from re6st.registryd.presence import PresenceService
from re6st.registryd.records import ListedNode, NodeFilter, NodeSearch
from re6st.registryd.repository import Lists

PAGE_LIMIT = 500
"""Rows of one page, which take some milliseconds."""
SEARCH_LIMIT = 100
"""Maximum number of characters to search for."""
SERIAL_DIGITS = 18
_UNITS = (("year", 365.25 * 86400), ("day", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    records: list[Record]
    next: str | None
    """Where the next page begins; None: this is the last one."""


def iso(when: float | None) -> str | None:
    """A Unix time as text: 2027-06-01T00:00:00Z."""
    return None if when is None else datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def relative(when: str | None, now: float | None = None) -> str:
    """A time as `in 12 days` or `4 s ago`."""
    if when is None:
        return "-"
    distance = datetime.strptime(when, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp() - (now or time.time())
    name, size = next(((name, size) for name, size in _UNITS if abs(distance) >= 2 * size), _UNITS[-1])
    number = round(abs(distance) / size)
    text = f"{number} {name}{'s' if name in ('day', 'year') and number != 1 else ''}"
    return f"in {text}" if distance > 0 else f"{text} ago"


def lasting(when: str | None, now: float | None = None) -> str:
    """How long something lasts that began then: `3 days`."""
    return relative(when, now).removesuffix(" ago")


def nodes(
    lists: Lists,
    network: IPv6Network,
    wanted: NodeFilter,
    after: str,
    limit: int = PAGE_LIMIT,
    presence: PresenceService | None = None,
) -> Page:
    """Nodes in the order of their addresses, after the prefix `after` in bits."""
    own = lists.registry_prefix()
    found = lists.nodes(wanted, after, limit)
    return _page([node_record(node, network, own, presence) for node in found], "prefix", limit)


def find(lists: Lists, network: IPv6Network, target: str, presence: PresenceService | None = None) -> Record | None:
    """The node with a name, a CN, the serial of its certificate or of an older one, or an address in its subnet.

    Raises ValueError if the text is none of these.
    """
    if is_serial(target):
        node = lists.node_by_serial(int(target))
    elif is_name(target):
        named = lists.named(target)
        node = None if named is None else lists.node(named)
    else:
        candidates = prefixes_above(network, IPv6Address(target)) if ":" in target else (Prefix.from_cn(target),)
        node = next(filter(None, map(lists.node, candidates)), None)
    if node is None:
        return None
    record = node_record(node, network, lists.registry_prefix(), presence)
    return record | {"older_serials": lists.older_serials(node.prefix)}


def read_search(network: IPv6Network, text: str) -> NodeSearch:
    """What somebody searches for: a CN, an address, a serial, or a part of a name, an e-mail address or a version."""
    text = text.strip()[:SEARCH_LIMIT]
    if is_serial(text):
        return NodeSearch(serial=int(text))
    try:
        return NodeSearch(prefixes=(Prefix.from_cn(text),))
    except PrefixError:
        pass
    try:
        return NodeSearch(prefixes=prefixes_above(network, IPv6Address(text.partition("/")[0])))
    except ValueError:
        return NodeSearch(text=text)


def is_serial(text: str) -> bool:
    """Whether this is a serial rather than a CN."""
    return text.isascii() and text.isdigit() and len(text) <= SERIAL_DIGITS


def prefixes_above(network: IPv6Network, ip: IPv6Address) -> tuple[Prefix, ...]:
    """The prefixes whose subnets contain an address, the shortest first."""
    inside = address_bits(network, ip)
    return () if inside is None else tuple(Prefix.from_bits(inside.bits[:n]) for n in range(1, inside.length + 1))


def tokens(lists: Lists, grace: int, now: float, after: str, limit: int = PAGE_LIMIT) -> Page:
    """Tokens in alphabetical order, after `after`."""
    records = [
        {
            "token": each.token,
            "email": each.email or None,
            "prefix_length": each.prefix_length,
            "created": iso(each.created),
            "expires": iso(each.expires),
            "expired": each.expires <= now,
            "uses": each.uses,
            "tags": list(each.tags),
        }
        for each in lists.tokens(grace, after, limit)
    ]
    return _page(records, "token", limit)


def revoked(lists: Lists, after: str, limit: int = PAGE_LIMIT) -> Page:
    """Revoked certificates in the order of their serials, after the serial `after`."""
    records = [
        {
            "serial": each.serial,
            "cn": None if each.prefix is None else each.prefix.cn,
            "email": each.email or None,
            "revoked": iso(each.revoked),
            "reason": each.reason or None,
            "listed_until": iso(each.listed_until),
        }
        for each in lists.revoked(int(after or -1), limit)
    ]
    return _page(records, "serial", limit)


def _page(records: list[Record], key: str, limit: int) -> Page:
    return Page(records, str(records[-1][key]) if len(records) == limit else None)


def node_record(
    node: ListedNode, network: IPv6Network, own: Prefix | None, presence: PresenceService | None = None
) -> Record:
    """A node as JSON; `own` is the registry's own node. Without `presence`, it is not known whether it is online."""
    there = None if presence is None else presence.sight.online
    online = None if there is None else node.prefix in there
    since = None if presence is None else iso(presence.since(node.prefix, node))
    return {
        "cn": node.prefix.cn,
        "name": node.name,
        "prefix": node.prefix.bits,
        "subnet": str(subnet(network, node.prefix)),
        "address": str(address(network, node.prefix)),
        "email": node.email or None,
        "serial": node.serial,
        "number": node.number,
        "issued": _issued(node.pem),
        "expires": iso(node.not_after),
        "revoked": node.revoked,
        "registry": node.prefix == own,
        "online": online,
        "online_since": since if online else None,
        "offline_since": since if online is False else None,
        "seen": iso(node.seen),
        "version": node.software or None,
        "protocol": node.protocol,
        "extensions": None if node.protocol is None else list(node.extensions),
        "tags": list(node.tags),
    }


def _issued(pem: bytes | None) -> str | None:
    """When a certificate was issued; only the certificate itself says this."""
    try:
        return None if pem is None else iso(cert.issued_at(cert.load_pem(pem)).timestamp())
    except (cert.CertError, ValueError):
        return None
