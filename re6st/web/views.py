"""The records of the pages, the same for HTML and JSON. None contains a private key or a key of babel."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from re6st import PROTOCOL, __version__, cert
from re6st.api import invitation
from re6st.api.admin import USES_LIMIT, Admin, guessed_url
from re6st.api.operations import AdminError
from re6st.client.certificate_report import name_text
from re6st.core.prefix import Prefix
from re6st.core.routing.told_claims import ToldClaims
from re6st.core.wire.extensions import needs_long_hellos
from re6st.keys import pki
from re6st.registry import Registry
from re6st.registryd import listings as report
from re6st.registryd.events import EventKind
from re6st.registryd.listings import Record, iso
from re6st.registryd.own_node import own_node
from re6st.registryd.records import NodeSelection
from re6st.registryd.repository import Lists, RepositoryError
from re6st.service.json_lines import Status
from re6st.web import mesh_graph
from re6st.web.node_query import NodeQuery
from re6st.web.watch import Watch

T = TypeVar("T")

ADDRESS_TIME = 1.5
"""Seconds to wait until a node says where it listens."""
EVENTS_SHOWN = 200
EVENTS_OF_NODE = 20
EXPIRING = 30 * 86400
"""A certificate that ends within so many seconds is marked; nodes renew a month before the end."""
CA_DAYS = 90
"""A CA certificate that ends within so many days is a problem."""
FREE_SHARE = 0.1
TOKEN_PAGE = 50
EXPORT_LIMIT = 100_000
SECONDS_LIMIT = 366 * 86400


@dataclass(frozen=True, slots=True)
class JoinAddress:
    """The registry's URL for nodes, in the command with which they join."""

    url: str | None
    port: int = 80


class Views:
    """Makes the records."""

    def __init__(self, registry: Registry, admin: Admin, watch: Watch, place: JoinAddress) -> None:
        self.admin = admin
        self.watch = watch
        self._registry = registry
        self._trust = registry.resources.authority.trust
        self._network = self._trust.network
        self._repository = registry.resources.repository
        self._settings = registry.resources.settings
        self._place = place
        self._clock = registry.resources.clocks.wall
        self._graph: tuple[int, Record] | None = None

    async def _browse(self, query: Callable[[Lists], T]) -> T:
        """Raises AdminError."""
        try:
            return await self._repository.browse(query)
        except RepositoryError as error:
            raise AdminError(Status.FAILED, str(error)) from None

    # --- looking ---

    async def overview(self) -> Record:
        """The whole network at a glance, and what is wrong."""
        picture = self.watch.picture
        now = self._clock()
        await self._registry.seen.try_flush()
        found = await self._numbers(picture.online, int(now))
        try:
            params = await self.admin.call("params", {})
        except AdminError:
            params = {"version": None, "keys": "none", "registry": None}  # before the first certificate
        free, share = await self._free()
        ca_end = pki.end_of(self._trust.ca).timestamp()
        mails = [
            event for event in self._registry.events.newest(EVENTS_SHOWN, EventKind.MAIL) if "no token" in event.text
        ]
        known, total = self.spread(params["version"])
        record = found | {
            "network": str(self._network),
            "registry": params["registry"],
            "registry_version": __version__,
            "protocol": PROTOCOL,
            "ca_expires": iso(ca_end),
            "prefix_length": self._settings.prefix_length or self._settings.anonymous_prefix_length,
            "free_prefixes": free,
            "keys": params["keys"],
            "parameters_version": params["version"],
            "parameters_known_to": known,
            "parameters_nodes": total,
            "tunnels": mesh_graph.tunnel_count(picture),
            "by_capacity": None if picture.by_capacity is None else len(picture.by_capacity),
            "uplinks": dict(picture.uplinks),
            "looked": iso(picture.looked),
            "crawled": iso(picture.crawled),
            "last_mail_error": None if not mails else {"time": iso(mails[0].time), "text": mails[0].text},
        }
        record["problems"] = await self._problems(record, ca_end - now, share)
        return record

    async def _numbers(self, online: frozenset[Prefix] | None, now: int) -> Record:
        """The numbers of the overview."""
        found = await self._browse(lambda lists: lists.counts(online or (), now, now + EXPIRING))
        return {
            "nodes": found.nodes,
            "online": None if online is None else found.routed,
            "offline": None if online is None else found.nodes - found.routed,
            "expiring": found.expiring,
            "expired": found.expired,
            "never_seen": found.never_seen,
            "tokens": found.tokens,
            "revoked": found.revoked,
            "versions": [
                {"version": each.software or None, "protocol": each.protocol, "older": each.older, "nodes": each.nodes}
                for each in found.software
            ],
        }

    async def _problems(self, record: Record, ca_left: float, free_share: float) -> list[str]:
        found = []
        own = await self._repository.read(own_node)
        if own is not None and own.problem:
            found.append(own.problem)
        found += self._claims(self.watch.picture.claims)
        if ca_left < CA_DAYS * 86400:
            found.append(f"The CA's certificate ends on {record['ca_expires'][:10]}: renew it.")
        if record["online"] is None:
            found.append(
                "Who is online is unknown: no babeld answers beside the registry. Start the registry's node, and check"
                " that --run is its run directory."
            )
        if self.watch.picture.late:
            found.append(
                "Who is online is as it was a while ago: the registry's node reads its babeld too slowly. Find with top"
                " what uses the processor there, and stop it."
            )
        if record["expired"]:
            found.append(f"{record['expired']} certificates have expired; their nodes are out until they renew.")
        if record["prefix_length"] and free_share < FREE_SHARE:
            found.append(f"Only {record['free_prefixes']} prefixes of /{record['prefix_length']} are free.")
        if record["last_mail_error"]:
            found.append(f"A mail could not be sent: {record['last_mail_error']['text']}")
        return found

    def _claims(self, claims: ToldClaims) -> list[str]:
        """What the registry's node says about who claims what: about other nodes, only their own logs tell."""
        found = [
            f"{peer} announced a subnet that is not its own, and the registry's node refuses it for a while: ask its"
            " owner, or revoke it, so that all nodes do."
            for peer in claims.refused
        ]
        if claims.own_subnet_from:
            found.append(
                "The subnet of the registry's node is announced by another machine too, by way of"
                f" {', '.join(claims.own_subnet_from)}: a member that lies, or a copied disk. See that node's log."
            )
        return found + [
            f"Two machines have the certificate of {peer}, next to the registry's node: enrol one of them anew."
            for peer in claims.doubled
        ]

    async def _free(self) -> tuple[int, float]:
        """How many prefixes of the usual length are free, and which part of all prefixes this is."""
        length = self._settings.prefix_length or self._settings.anonymous_prefix_length
        if not length:
            return 0, 1.0
        try:
            free = await self._repository.change(
                lambda changes: sum(
                    1 << (length - leaf.length) for leaf in changes.free_leaves() if leaf.length <= length
                )
            )
        except RepositoryError as error:
            raise AdminError(Status.FAILED, str(error)) from None
        return free, free / (1 << length)

    def spread(self, version: int | None) -> tuple[int, int | None]:
        """How many nodes fetched this version of the parameters, and how many are online, if this is known."""
        online = self.watch.picture.online
        known = self._registry.served.having(version)
        if online is None:
            return len(known), None
        return len(known & online), len(online)

    async def nodes(self, query: NodeQuery) -> Record:
        """One page of nodes."""
        await self._registry.seen.try_flush()
        await self._registry.presence.try_flush()
        record = await self._browse(partial(self._nodes, query=query, now=int(self._clock())))
        pages = max(1, math.ceil(record["total"] / query.limit))
        online_known = self.watch.picture.online is not None
        return {"page": query.offset // query.limit + 1, "pages": pages, "online_known": online_known, **record}

    def _nodes(self, lists: Lists, query: NodeQuery, now: int) -> Record:
        wanted = NodeSelection(
            report.read_search(self._network, query.search),
            *(query.state, query.sort, query.descending, query.offset, query.limit, query.online),
            ends_before=now + EXPIRING,
        )
        total, found = lists.select_nodes(wanted)
        own, peers = lists.registry_prefix(), self._degrees()
        nodes = [report.node_record(node, self._network, own, self._registry.presence) for node in found]
        for node in nodes:
            prefix = Prefix.from_bits(node["prefix"])
            node["tunnels"] = None if self.watch.picture.crawled is None else peers.get(prefix, 0)
            node["older"] = _is_older(node)
        return {"total": total, "nodes": nodes}

    def _degrees(self) -> dict[Prefix, int]:
        found: dict[Prefix, int] = {}
        for tunnel in self.watch.picture.tunnels:
            for end in tunnel:
                found[end] = found.get(end, 0) + 1
        return found

    async def node(self, cn: str, *, ask: bool = True) -> Record:
        """Everything about one node; with `ask`, the node is asked where it listens. Raises AdminError."""
        node = (await self.admin.call("node", {"target": cn}))["node"]
        prefix = Prefix.from_bits(node["prefix"])
        picture = self.watch.picture
        online = node["online"]
        addresses = []
        if ask and online:
            endpoints = await self._registry.mesh.addresses(prefix, ADDRESS_TIME)
            addresses = [{"host": each.host, "port": each.port, "protocol": str(each.protocol)} for each in endpoints]
        tunnels = [
            {
                "cn": peer.cn,
                "opened_by_it": opened,
                "online": picture.is_online(peer),
                "alive": None if online is None else bool(online and picture.is_online(peer)),
            }
            for peer, opened in mesh_graph.peers_of(picture, prefix)
        ]
        pem = await self._repository.read(lambda queries: queries.pem(prefix))
        subject = None
        if pem is not None:
            try:
                subject = name_text(cert.load_pem(pem).subject)
            except cert.CertError:
                pass  # shown as unknown; `re6st-registry check` tells
        extra = {
            "subject": subject,
            "refused": prefix in picture.claims.refused,
            "by_capacity": picture.is_by_capacity(prefix),
            "older": _is_older(node),
            "parameters_version": self._registry.served.version(prefix),
            "addresses": addresses,
            "tunnels": None if picture.crawled is None else tunnels,
            "crawled": iso(picture.crawled),
            "events": self._events(EVENTS_OF_NODE, None, prefix.cn),
        }
        return {**node, **extra}

    async def tokens(self, after: str = "") -> Record:
        """The unused tokens, without their secret: a person who reads the screen cannot join with it."""
        page = await self._browse(
            lambda lists: report.tokens(lists, self._settings.grace, self._clock(), after, TOKEN_PAGE)
        )
        for token in page.records:
            token["id"] = token_id(token["token"])
            token["token"] = masked(token["token"])
        return {"tokens": page.records, "next": None if page.next is None else token_id(page.next)}

    async def _token(self, wanted: str) -> str | None:
        """The token with an id."""

        def find(lists: Lists) -> str | None:
            return next((token for token in lists.every_token() if token_id(token) == wanted), None)

        return await self._browse(find)

    async def tokens_behind(self, last: str) -> Record:
        """The next page of tokens, after the one with this id."""
        return await self.tokens(await self._token(last) or "" if last else "")

    async def revoked(self, after: str = "") -> Record:
        """The revoked certificates, one page at a time, and how many nodes know of the last change."""
        page = await self.admin.call("revoked", {"after": after})
        known, total = self.spread(await self._parameters_version())
        return {"revoked": page["revoked"], "next": page["next"], "known_to": known, "nodes": total}

    async def _parameters_version(self) -> int | None:
        try:
            version: int = (await self.admin.call("params", {}))["version"]
        except AdminError:
            return None
        return version

    async def network(self) -> Record:
        """The parameters in force, and the state of a change of babel's key."""
        params = await self.admin.call("params", {})
        rotation = await self.admin.call("rotate", {})
        known, total = self.spread(params["version"])
        return params | {
            "network": str(self._network),
            "fingerprint": self._fingerprint(),
            "ca_expires": iso(pki.end_of(self._trust.ca).timestamp()),
            "next_not_before": rotation["next_not_before"],
            "known_to": known,
            "nodes": total,
        }

    def _fingerprint(self) -> str:
        return cert.shown_fingerprint(self._trust.ca)

    async def topology(self) -> Record:
        """The graph, which is made again only if something changed."""
        picture = self.watch.picture
        if self._graph is None or self._graph[0] != picture.revision:
            limit = mesh_graph.NODES_LIMIT

            def draw(lists: Lists) -> Record:
                names = {*lists.names_of(picture.online or ()), *lists.names(limit)}
                return mesh_graph.graph_record(picture, names, lists.count())

            self._graph = picture.revision, await self._browse(draw)
        _, record = self._graph
        return record | {"looked": iso(self.watch.picture.looked), "crawled": iso(self.watch.picture.crawled)}

    def events(self, kind: str = "") -> Record:
        """The events, including those from before the last start of the registry."""
        wanted = EventKind(kind) if kind in list(EventKind) else None
        return {"kinds": [each.value for each in EventKind], "events": self._events(EVENTS_SHOWN, wanted, None)}

    def _events(self, limit: int, kind: EventKind | None, cn: str | None) -> list[Record]:
        return [
            {
                "time": iso(event.time),
                "kind": event.kind.value,
                "cn": event.cn,
                "text": event.text,
                "count": event.count,
            }
            for event in self._registry.events.newest(limit, kind, cn)
        ]

    # --- changing ---

    async def invite(self, form: Mapping[str, str]) -> Record:
        """Make a token; only this record contains the command to join. Raises AdminError."""
        arguments: dict[str, Any] = {"email": form.get("email", "").strip() or None}
        if text := form.get("prefix_length", "").strip():
            arguments["prefix_length"] = _number(text, "prefix length", 128)
        if text := form.get("days", "").strip():
            arguments["life"] = _number(text, "days", SECONDS_LIMIT // 86400) * 86400
        if text := form.get("uses", "").strip():
            arguments["uses"] = _number(text, "machines", USES_LIMIT)
        arguments["tags"] = " ".join(form.get("tags", "").replace(",", " ").split())
        record = await self.admin.call("invite", arguments)
        url = self._place.url
        if url is None:
            url = await asyncio.to_thread(guessed_url, self._place.port)
        link = invitation.link(url, record)
        return record | {
            "url": url,
            "url_is_guess": self._place.url is None,
            "link": link,
            "join": invitation.command(link),
            "qr_code": invitation.drawn(link),
        }

    async def delete_token(self, wanted: str) -> Record:
        """Delete the token with this id. Raises AdminError."""
        token = await self._token(wanted)
        if token is None:
            raise AdminError(Status.NOT_FOUND, "this token is used, expired or deleted already")
        await self.admin.call("delete-token", {"token": token})
        return {"deleted": masked(token)}

    async def revoke(self, cn: str, form: Mapping[str, str]) -> Record:
        """Revoke a node, or only its certificate, if the user typed its CN. Raises AdminError."""
        typed = form.get("confirm", "").strip()
        if typed != cn:
            raise AdminError(Status.USAGE, f"nothing was revoked: type {cn} to confirm, not {typed[:40]!r}")
        reason = form.get("reason", "").strip()
        if form.get("keep"):
            node = (await self.admin.call("node", {"target": cn}))["node"]
            return await self.admin.call("revoke", {"target": str(node["serial"]), "reason": reason})
        return await self.admin.call("revoke", {"target": cn, "reason": reason})

    async def rotate(self) -> Record:
        """Take the next step of a change of babel's key. Raises AdminError."""
        return await self.admin.call("rotate", {"step": 1})


def _is_older(node: Record) -> bool:
    """Whether a node called with older software."""
    return node["extensions"] is not None and needs_long_hellos(frozenset(node["extensions"]))


def token_id(token: str) -> str:
    """A name for a token that does not reveal it."""
    return hashlib.sha256(b"re6st token " + token.encode()).hexdigest()[:24]


def masked(token: str) -> str:
    """Enough of a token to recognise it."""
    return token[:2] + "•" * 6


def _number(text: str, what: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 0 < int(text) <= most):
        raise AdminError(Status.USAGE, f"{what}: {text[:20]!r} is not a number between 1 and {most}")
    return int(text)
