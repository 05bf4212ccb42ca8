"""The operator's operations, on a running registry, or on the file of one that does not run."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from re6st import cert
from re6st.api.operations import AdminError, Arguments
from re6st.core import names
from re6st.core.prefix import Prefix
from re6st.core.registry.allocator import AllocationError, Allocator
from re6st.core.registry.clock import ClockError
from re6st.core.registry.tags import TAG_LIMIT, TAGS_LIMIT, read_tags
from re6st.core.routing.babel_keys import KeyState
from re6st.core.wire.params import version_number
from re6st.registry import Registry
from re6st.registryd import listings as report
from re6st.registryd.call import Call, RpcError
from re6st.registryd.events import EventKind
from re6st.registryd.listings import Page, Record, iso
from re6st.registryd.mail import is_address
from re6st.registryd.own_node import own_node, refuse_to_revoke, take_place
from re6st.registryd.records import NodeFilter
from re6st.registryd.repository import Changes, Conflict, NotFound, RepositoryError
from re6st.service.json_lines import Status

logger = logging.getLogger("admin")

LIFE_LIMIT = 100 * 366 * 86400
"""Seconds: a hundred years."""
USES_LIMIT = 100_000
"""Machines that one invitation lets in."""
TAGS_TEXT = (TAG_LIMIT + 1) * TAGS_LIMIT
"""Characters of all tags of a node."""


def guessed_url(port: int) -> str:
    """How nodes may reach a registry that was not told its URL. This asks DNS, so it may take seconds."""
    host = socket.getfqdn()
    return f"http://{host}/" if port == 80 else f"http://{host}:{port}/"


class Admin:
    """Operations on a registry."""

    def __init__(self, registry: Registry, page_limit: int = report.PAGE_LIMIT) -> None:
        self._registry = registry
        self._page_limit = page_limit
        self._trust = registry.resources.authority.trust
        self._network = self._trust.network
        self._repository = registry.resources.repository
        self._settings = registry.resources.settings
        self._clock = registry.resources.clocks.wall
        self.new_login: Callable[[], Record] | None = None
        """Makes a link to log in to the operator's page; None: there is no page."""
        self._operations: Mapping[str, Callable[[Arguments], Awaitable[Record]]] = {
            "nodes": self._nodes,
            "node": self._node,
            "tag": self._tag,
            "invite": self._invite,
            "tokens": self._tokens,
            "delete-token": self._delete_token,
            "revoke": self._revoke,
            "revoked": self._revoked,
            "own-node": self._own_node,
            "name": self._name,
            "rotate": self._rotate,
            "hellos": self._hellos,
            "regions": self._regions,
            "params": self._params,
            "topology": self._topology,
            "versions": self._versions,
            "web-login": self._web_login,
        }

    async def call(self, operation: str, arguments: Mapping[str, Any]) -> Record:
        """Carry out one operation. Raises AdminError."""
        try:
            carry_out = self._operations[operation]
        except KeyError:
            raise AdminError(Status.USAGE, f"unknown operation {operation[:40]!r}") from None
        try:
            return await carry_out(Arguments(arguments))
        except RpcError as error:
            known = {HTTPStatus.NOT_FOUND: Status.NOT_FOUND, HTTPStatus.CONFLICT: Status.CONFLICT}
            raise AdminError(known.get(error.status, Status.FAILED), str(error)) from None
        except NotFound as error:
            raise AdminError(Status.NOT_FOUND, str(error)) from None
        except Conflict as error:
            raise AdminError(Status.CONFLICT, str(error)) from None
        except (RepositoryError, ClockError) as error:
            raise AdminError(Status.FAILED, str(error)) from None

    # --- nodes ---

    async def _nodes(self, arguments: Arguments) -> Record:
        now = int(self._clock())
        expiring = arguments.integer("expiring", 0, LIFE_LIMIT)
        unseen = arguments.integer("unseen", 0, LIFE_LIMIT)
        wanted = NodeFilter(
            email=arguments.text("email"),
            ends_before=None if expiring is None else now + expiring,
            unseen_since=None if unseen is None else now - unseen,
        )
        after = arguments.text("after") or ""
        online = arguments.integer("online", 0, 1)
        arguments.end()
        presence = self._registry.presence
        if not after:
            await self._registry.seen.try_flush()
            await presence.fresh()
            await presence.try_flush()
        if online is not None and presence.sight.online is None:
            raise AdminError(
                Status.FAILED,
                "nobody knows who is online: no babeld answers beside the registry. Start the registry's own node, and"
                " check that --run is its run directory.",
            )
        page = await self._repository.browse(
            lambda lists: report.nodes(lists, self._network, wanted, after, self._page_limit, presence)
        )
        if online is None:
            return _listed("nodes", page)
        return _listed("nodes", Page([node for node in page.records if node["online"] == bool(online)], page.next))

    async def _node(self, arguments: Arguments) -> Record:
        target = arguments.required("target")
        arguments.end()
        return {"node": await self._find(target)}

    async def _find(self, target: str) -> Record:
        await self._registry.seen.try_flush()
        presence = self._registry.presence
        await presence.fresh()
        await presence.try_flush()
        try:
            found = await self._repository.browse(lambda lists: report.find(lists, self._network, target, presence))
        except ValueError:
            raise AdminError(
                Status.USAGE,
                f"{target!r} is not a name, a CN such as 120/16, a serial of a certificate or an IPv6 address",
            ) from None
        if found is None:
            raise AdminError(Status.NOT_FOUND, f"{target}: no such node")
        node: Record = found
        return node

    async def _tag(self, arguments: Arguments) -> Record:
        target, tags = arguments.required("target"), _tags(arguments)
        arguments.end()
        node = await self._find(target)
        prefix = Prefix.from_bits(node["prefix"])
        await self._repository.change(lambda changes: changes.set_tags(prefix, tags))
        if node["tags"] != list(tags):
            self._registry.events.note(EventKind.TAGS, f"tags: {' '.join(tags) or 'none'}", prefix)
        return {"node": node | {"tags": list(tags)}}

    async def _revoke(self, arguments: Arguments) -> Record:
        target, reason = arguments.required("target"), arguments.text("reason") or ""
        arguments.end()
        serial = int(target) if report.is_serial(target) else None
        node: Record | None = None
        try:
            node = await self._find(target)
        except AdminError as error:
            if serial is None or error.status is not Status.NOT_FOUND:
                raise  # after a restore, the registry has forgotten whose serials they were
        if node and node["revoked"] and node["serial"] == serial:
            raise AdminError(Status.CONFLICT, f"serial {target} is revoked already")
        if node and serial is None:
            await self._repository.read(partial(refuse_to_revoke, prefix=Prefix.from_bits(node["prefix"])))
        what = str(serial) if node is None or serial is not None else node["cn"]
        await self._registry.call(Call("revoke", {"cn_or_serial": what, "reason": reason}, None))
        kept = serial is not None
        return {"node": node, "serial": serial, "subnet_kept": kept, "version": await self._version()}

    async def _revoked(self, arguments: Arguments) -> Record:
        after = arguments.text("after") or ""
        arguments.end()
        if after and not (after.isascii() and after.isdigit()):
            raise AdminError(Status.USAGE, "after is not a serial")
        page = await self._repository.browse(lambda lists: report.revoked(lists, after, self._page_limit))
        return _listed("revoked", page)

    async def _own_node(self, arguments: Arguments) -> Record:
        target = arguments.text("target")
        arguments.end()
        before = await self._repository.read(own_node)
        changed = False
        if target:
            prefix = Prefix.from_bits((await self._find(target))["prefix"])
            if prefix in (await self._registry.node.routes() or ()):
                raise AdminError(
                    Status.FAILED,
                    f"{prefix.cn} runs on another machine: it is reached through the network. The registry's own node"
                    " has to run on the registry's machine.",
                )

            def job(changes: Changes) -> bool:
                return take_place(changes, prefix) and self._registry.parameter_service.update_version(changes)

            if changed := await self._repository.change(job):
                was = before.prefix.cn if before else "none"
                logger.warning("the registry's own node is %s now, and was %s", prefix.cn, was)
                self._registry.events.note(EventKind.PARAMETERS, f"the registry's own node, instead of {was}", prefix)
                await self._registry.parameter_service.changed()
        now = await self._repository.read(own_node)
        return {
            "own_node": now and now.prefix.cn,
            "certified": now is not None and now.certified,
            "before": before and before.prefix.cn,
            "changed": changed,
            "version": await self._version(),
        }

    async def _name(self, arguments: Arguments) -> Record:
        target, name = arguments.required("target"), arguments.text("name")
        remove = arguments.integer("remove", 0, 1)
        arguments.end()
        node = await self._find(target)
        before = node["name"]
        if name is None and not remove:
            return {"cn": node["cn"], "name": before, "before": before, "changed": False}
        try:
            new = None if name is None else names.check(name)
        except names.BadName as error:
            raise AdminError(Status.USAGE, str(error)) from None
        prefix = Prefix.from_bits(node["prefix"])
        if changed := new != before:
            await self._repository.change(lambda changes: changes.set_name(prefix, new))
            logger.info("%s has the name %s now, and had %s", prefix, new or "none", before or "none")
            self._registry.events.note(EventKind.NAME, f"{new or 'none'}, was {before or 'none'}", prefix)
        return {"cn": node["cn"], "name": new, "before": before, "changed": changed}

    # --- tokens ---

    async def _invite(self, arguments: Arguments) -> Record:
        email = arguments.text("email") or ""
        length = arguments.integer("prefix_length", 1, 128) or self._settings.prefix_length
        life = arguments.integer("life", 1, LIFE_LIMIT)
        uses, tags = arguments.integer("uses", 1, USES_LIMIT) or 1, _tags(arguments)
        arguments.end()
        if email and not is_address(email):
            raise AdminError(Status.USAGE, f"{email}: not an e-mail address")
        if not length:
            raise AdminError(
                Status.FAILED, "this registry has no default prefix length for tokens (--prefix-length 0): give one"
            )
        allocator = Allocator(self._network.prefixlen)
        for community in self._settings.communities:
            try:
                allocator.check_length(community.prefix, length)
            except AllocationError as error:
                raise AdminError(Status.USAGE, str(error)) from None
        now = int(self._clock())
        token = await self._registry.tokens.new(email, length, None if life is None else now + life, uses, tags)
        logger.info("an invitation was made for %s", email or "anybody")
        more = (f", for {uses} machines" if uses > 1 else "") + (f", tags: {' '.join(tags)}" if tags else "")
        self._registry.events.note(EventKind.TOKEN, f"made for {email or 'anybody'}, prefix /{length}{more}")
        return {
            "token": token,
            "email": email or None,
            "prefix_length": length,
            "uses": uses,
            "tags": list(tags),
            "created": iso(now),
            "expires": iso(now + (self._settings.grace if life is None else life)),
            "fingerprint": cert.shown_fingerprint(self._trust.ca),
        }

    async def _tokens(self, arguments: Arguments) -> Record:
        after = arguments.text("after") or ""
        arguments.end()
        now = self._clock()
        page = await self._repository.browse(
            lambda lists: report.tokens(lists, self._settings.grace, now, after, self._page_limit)
        )
        return _listed("tokens", page)

    async def _delete_token(self, arguments: Arguments) -> Record:
        token = arguments.required("token")
        arguments.end()
        known = await self._repository.read(lambda queries: queries.token(token))
        if not await self._repository.change(lambda changes: changes.delete_token(token)):
            raise AdminError(Status.NOT_FOUND, f"token {token!r}: unknown, used or expired")
        whose = (known.email if known else "") or "anybody"
        self._registry.events.note(EventKind.TOKEN, f"one for {whose} was deleted")
        return {"token": token}

    # --- the network ---

    async def _rotate(self, arguments: Arguments) -> Record:
        step, force = arguments.integer("step", 0, 1), arguments.integer("force", 0, 1)
        arguments.end()
        if step:
            due = _next_step(await self._babel_state())
            if due is not None and due > self._clock() and not force:
                raise AdminError(
                    Status.CONFLICT,
                    f"the next step is due {iso(due)}: nodes that have not heard of the last step yet would lose"
                    " their neighbours now. Nothing was changed. Give --force to do it now all the same.",
                )
            if await self._repository.read(lambda queries: queries.registry_prefix()) is None:
                raise AdminError(Status.FAILED, "no certificate has been issued yet, so there is no key to rotate")
            await self._registry.call(Call("updateHMAC", {}, None))
        state = await self._babel_state()
        return {
            "state": state_name(state),
            "changed": bool(step),
            "next_not_before": iso(_next_step(state)),
            "version": await self._version(),
        }

    async def _hellos(self, arguments: Arguments) -> Record:
        short = arguments.integer("short", 0, 1)
        arguments.end()
        await self._registry.seen.try_flush()
        parameter_service = self._registry.parameter_service
        await parameter_service.review()
        changed = bool(short) and await parameter_service.shorten_hellos()
        hellos, older = await parameter_service.hellos(), await parameter_service.older_nodes()
        return {
            "hellos": "short" if hellos.short else "long",
            "changed": changed,
            "older_nodes": [prefix.cn for prefix in older],
            "short_from": None if older else iso(hellos.short_from),
            "version": await self._version(),
        }

    async def _regions(self, arguments: Arguments) -> Record:
        now = arguments.integer("now", 0, 1)
        arguments.end()
        await self._registry.seen.try_flush()
        parameter_service = self._registry.parameter_service
        await parameter_service.review()
        changed = bool(now) and await parameter_service.begin_regions()
        state = await parameter_service.regions()
        return {
            "wanted": state.wanted,
            "bits": state.bits,
            "changed": changed,
            "older_nodes": [prefix.cn for prefix in state.older],
            "from": None if state.older or not state.wanted else iso(state.choice.short_from),
            "version": await self._version(),
        }

    async def _params(self, arguments: Arguments) -> Record:
        arguments.end()
        parameters = await self._registry.parameter_service.parameters()
        return {
            "version": await self._version(),
            "parameters": parameters.public(),
            "registry": parameters.registry_prefix.cn,
            "keys": state_name(await self._babel_state()),
        }

    async def _topology(self, arguments: Arguments) -> Record:
        arguments.end()
        graph = json.loads(await self._registry.call(Call("topology", {}, None)) or b"{}")
        answered = set(graph.pop("", ()))
        names = sorted({*graph, *answered, *(peer for peers in graph.values() for peer in peers)}, key=Prefix.from_cn)
        return {
            "topology": [{"cn": cn, "answered": cn in answered, "tunnels_to": graph.get(cn, [])} for cn in names],
        }

    async def _versions(self, arguments: Arguments) -> Record:
        arguments.end()
        found = json.loads(await self._registry.call(Call("versions", {}, None)) or b"{}")
        return {
            "versions": [
                {"cn": Prefix.from_bits(bits).cn, "prefix": bits, "version": found[bits]} for bits in sorted(found)
            ],
            "require": sorted((await self._registry.parameter_service.parameters()).require),
        }

    async def _web_login(self, arguments: Arguments) -> Record:
        arguments.end()
        if self.new_login is None:
            message = "no operator's page is served: the registry does not run, or its options have no `web 8326`"
            raise AdminError(Status.FAILED, message)
        return self.new_login()

    # --- helpers ---

    async def _version(self) -> int:
        return version_number(await self._repository.read(lambda queries: queries.config("version")) or b"\0")

    async def _babel_state(self) -> KeyState:
        return await self._repository.read(lambda queries: queries.babel_state())


def _tags(arguments: Arguments) -> tuple[str, ...]:
    """The tags in an argument, with blanks between them. Raises AdminError."""
    try:
        return read_tags((arguments.text("tags", TAGS_TEXT) or "").split())
    except ValueError as error:
        raise AdminError(Status.USAGE, str(error)) from None


def _listed(name: str, page: Page) -> Record:
    return {name: page.records, "next": page.next}


def state_name(state: KeyState) -> str:
    """The state of babel's keys, in the words of wire.md 5.4."""
    match [key is not None for key in state.keys]:
        case [True, False, False]:
            return "stable"
        case [False, False, False]:
            return "none"
        case [True, True, False]:
            return "phase 1"
        case _:
            return "phase 2"


def _next_step(state: KeyState) -> float | None:
    """When a rotation that has begun may continue, as Unix time."""
    match state_name(state):
        case "phase 1":
            return state.valid_until
        case "phase 2":
            return state.switch_time
    return None
