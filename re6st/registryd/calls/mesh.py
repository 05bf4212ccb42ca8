"""Where nodes are: in the network, as the node beside the registry knows it, and in the world."""

from __future__ import annotations

import json
from http import HTTPStatus

from re6st import cert
from re6st.core.prefix import Prefix, control_address
from re6st.core.routing.regions import region_of
from re6st.registryd.call import Call, RpcError, caller_of
from re6st.registryd.parts import Parts

MEMBERS = 50
"""Nodes of a region of which one is named to a newcomer: those that called last are there most likely."""


class MeshCalls:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._mesh = parts.mesh
        self._authority = parts.resources.authority
        self._repository = parts.resources.repository
        self._settings = parts.resources.settings

    async def get_country(self, call: Call) -> bytes | None:
        if self._settings.geoip is None:
            raise RpcError(HTTPStatus.BAD_REQUEST, "no geolocation database is configured")
        try:
            place = self._settings.geoip.place(call.text("address"))
        except ValueError:
            raise RpcError(HTTPStatus.BAD_REQUEST, "parameter address is not an IP address") from None
        return place.country.encode("ascii") or None

    async def get_bootstrap_peer(self, call: Call) -> bytes | None:
        caller = caller_of(call)
        certificate = await self._parts.certificate(caller)
        protocol = call.session.claims.protocol if call.session else 1
        room = self._authority.trust.key_size // 8 - 11
        own, regions = await self._own_and_regions()
        peer = await self._mesh.bootstrap(own, caller, protocol, room, await self._beside(caller, regions), regions)
        return None if peer is None else cert.encrypt(certificate, peer)

    async def _beside(self, caller: Prefix, regions: int) -> list[Prefix]:
        """Nodes of the caller's region, which it needs a tunnel to; none where the network is flat."""
        if not regions:
            return []
        region = region_of(caller, regions)
        return await self._repository.read(lambda queries: queries.members(region, MEMBERS))

    async def get_node_prefix(self, call: Call) -> bytes | None:
        prefix = await self._by_email(call)
        return None if prefix is None else prefix.cn.encode()

    async def get_ipv6_address(self, call: Call) -> bytes | None:
        prefix = await self._by_email(call)
        return None if prefix is None else str(control_address(self._authority.trust.network, prefix)).encode()

    async def get_ipv4_information(self, call: Call) -> bytes | None:
        prefix = await self._by_email(call)
        own, regions = await self._own_and_regions()
        if prefix is None or not await self._mesh.is_routed(own, prefix, regions):
            return None
        endpoints = await self._mesh.addresses(prefix)
        return endpoints[0].host.encode() if endpoints else None

    async def versions(self, call: Call) -> bytes:
        return json.dumps(await self._mesh.versions(*await self._own_and_regions())).encode()

    async def topology(self, call: Call) -> bytes:
        return json.dumps(await self._mesh.topology(*await self._own_and_regions())).encode()

    async def _own_and_regions(self) -> tuple[Prefix, int]:
        """The prefix of the registry's node, and how many bits of a prefix tell the region.

        Raises NotFound before the first certificate, RepositoryError.
        """
        parameters = await self._parts.parameter_service.parameters()
        return parameters.registry_prefix, parameters.regions

    async def _by_email(self, call: Call) -> Prefix | None:
        """The prefix of the first node with this e-mail address. Raises RpcError, RepositoryError."""
        email = call.text("email")
        return await self._repository.read(lambda queries: queries.prefix_by_email(email))
