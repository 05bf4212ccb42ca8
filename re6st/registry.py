"""What the registry does for its callers: the methods of wire.md 3.4.

`Registry.call` carries out one call that api/http.py has read and admitted. State is in the repository, but for the
sessions, which live in memory only. A certificate is on the disk before it is sent.
"""

from __future__ import annotations

import json
import logging
import secrets
import string
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus

from cryptography import x509
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.client.blocking import RegistryClient as RegistryClient  # where programs of others look for it
from re6st.core.limits.networks import Limits, neighbourhood
from re6st.core.prefix import Prefix, PrefixError, control_address
from re6st.core.registry.allocator import AllocationError, choose_community
from re6st.core.registry.clock import ClockError, Marks
from re6st.core.registry.sessions import Sessions
from re6st.core.wire import extensions, offers
from re6st.core.wire.offers import OfferError
from re6st.core.wire.params import version_number
from re6st.core.wire.rpc import UNKNOWN_HEADER
from re6st.registryd.call import (
    SERIAL_DIGITS,
    Call,
    RpcError,
    caller_of,
    read_claims,
    read_integer,
    read_prefix,
    too_many,
)
from re6st.registryd.events import EventLog, Events, Kind, stored_events
from re6st.registryd.hello import Greeter, OtherKeyError
from re6st.registryd.last_seen import Seen, Served
from re6st.registryd.local_node import LocalNode
from re6st.registryd.mail import MailError, is_address, token_text
from re6st.registryd.mesh_view import MeshView
from re6st.registryd.own_node import refuse_to_revoke
from re6st.registryd.parameters import Upkeep, first_time
from re6st.registryd.records import Issued, Slot, StoredEvent
from re6st.registryd.rekey import BadRequest, KeyChanges, TooMany
from re6st.registryd.repository import Changes, Conflict, NotFound, Queries
from re6st.registryd.resources import Resources
from re6st.registryd.restored import ProofError, Restored, is_lost
from re6st.registryd.stored_certificates import Believed, believed
from re6st.registryd.validity import end_of_renewal
from re6st.service.geoip import Place

logger = logging.getLogger("registry")

TOKEN_LENGTH = 18
"""Letters: 84 bits. Shorter ones that an operator gives are good too."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a registry knows of its earlier lives when it starts."""

    marks: Marks
    events: Sequence[StoredEvent]


class Registry:
    @classmethod
    async def open(cls, resources: Resources, node: LocalNode) -> Registry:
        """The registry of what a repository has. Raises RepositoryError."""

        def begin(queries: Queries) -> Beginning:
            return Beginning(first_time(queries, resources.clocks.wall()), stored_events(queries))

        return cls(resources, node, await resources.repository.read(begin))

    def __init__(self, resources: Resources, node: LocalNode, beginning: Beginning) -> None:
        """For `open`."""
        authority, repository, clock = resources.authority, resources.repository, resources.clocks.wall
        self.resources = resources
        self.sessions = Sessions()
        self._authority = authority
        self._repository = repository
        self._believed = Believed(authority.trust)
        self._settings = resources.settings
        self.node = node
        self.mesh = MeshView(node)
        self.events = Events(clock, beginning.events)
        self.event_log = EventLog(self.events, repository)
        self.served = Served()
        self._clock = clock
        self.upkeep = Upkeep(resources, self.mesh, beginning.marks)
        self.seen = Seen(repository, clock, self.upkeep.review)
        self._keys = KeyChanges(resources, self.upkeep, self.sessions, self.events)
        self.restored = Restored(resources, self.upkeep, self.events)
        self.greeter = Greeter(authority, resources.clocks.monotonic)
        self.limits = Limits()
        self._methods: Mapping[str, Callable[[Call], Awaitable[bytes | None]]] = {
            "hello": self._hello,
            "getCa": self._get_ca,
            "requestToken": self._request_token,
            "requestCertificate": self._request_certificate,
            "renewCertificate": self._renew_certificate,
            "rekeyCertificate": self._rekey_certificate,
            "revokeSuperseded": self._revoke_superseded,
            "presentCertificate": self._present_certificate,
            "getDh": self._get_dh,
            "getNetworkConfig": self._get_network_config,
            "getCountry": self._get_country,
            "getBootstrapPeer": self._get_bootstrap_peer,
            "addToken": self._add_token,
            "isToken": self._is_token,
            "deleteToken": self._delete_token,
            "revoke": self._revoke,
            "updateHMAC": self._update_hmac,
            "getNodePrefix": self._get_node_prefix,
            "getIPv6Address": self._get_ipv6_address,
            "getIPv4Information": self._get_ipv4_information,
            "versions": self._versions,
            "topology": self._topology,
        }

    async def call(self, call: Call) -> bytes | None:
        """The answer to a call; None: an answer without content. Raises RpcError, RepositoryError."""
        try:
            return await self._methods[call.method](call)
        except NotFound as error:
            raise RpcError(HTTPStatus.NOT_FOUND, str(error)) from None
        except Conflict as error:
            raise RpcError(HTTPStatus.CONFLICT, str(error)) from None
        except ClockError as error:
            raise RpcError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
        except (AllocationError, cert.CertError) as error:
            raise RpcError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from None

    # --- sessions ---

    async def _hello(self, call: Call) -> bytes:
        prefix = read_prefix(call.arguments["client_prefix"])
        claims = read_claims(call)
        now, source = self._clock(), neighbourhood(call.source or "")
        if (answer := self.sessions.pending_answer(prefix, claims, source, now)) is not None:
            return answer
        try:
            certificate = await self._certificate(prefix)
        except NotFound as error:
            if not claims.offer:
                raise
            self._limit(call, self.limits.hello)
            proof = {UNKNOWN_HEADER: self.greeter.unknown(prefix, offers.decode(claims.offer))}
            raise RpcError(HTTPStatus.NOT_FOUND, str(error), proof) from None
        self._limit(call, self.limits.hello)
        if missing := self._settings.parameters.require - claims.extensions:
            cause = f"{prefix} lacks what this network requires: {extensions.text(missing)}"
            raise RpcError(HTTPStatus.UPGRADE_REQUIRED, cause)
        try:
            if claims.offer:
                greeting = self.greeter.sealed(prefix, certificate, offers.decode(claims.offer))
            else:
                greeting = self.greeter.plain(certificate)
        except OtherKeyError as error:
            raise RpcError(HTTPStatus.CONFLICT, str(error)) from None
        except OfferError as error:
            raise RpcError(HTTPStatus.BAD_REQUEST, str(error)) from None
        self.sessions.start(prefix, claims, source, greeting.keys, greeting.answer, now)
        return greeting.answer

    # --- certificates ---

    async def _get_ca(self, call: Call) -> bytes:
        return self._authority.pem

    async def _request_certificate(self, call: Call) -> bytes | None:
        token = call.arguments["token"]
        anonymous_length = self._settings.anonymous_prefix_length
        if not token and not anonymous_length:
            raise RpcError(HTTPStatus.FORBIDDEN, "this registry gives no anonymous certificates")
        try:
            request = cert.load_request(call.arguments["req"].encode())
            key = self._authority.check_request(request)
        except cert.CertError as error:
            raise RpcError(HTTPStatus.BAD_REQUEST, str(error)) from None
        # A serialNumber is passed over only: re6st-conf of the older software takes it over when it enrols again.
        if request.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
            raise RpcError(HTTPStatus.BAD_REQUEST, "the request sets the common name, which the registry sets")
        place = self._place(call)
        community = choose_community(self._settings.communities, place.country, place.continent)
        now = self._now()
        if token:
            self._limit(call, lambda source, now: self.limits.token(source, token, now))
        else:
            self._limit(call, self.limits.anonymous)

        def make(slot: Slot) -> x509.Certificate:
            subject = cert.subject_for(request.subject, slot.number, slot.prefix)
            return self._authority.issue(subject, key, slot.serial, now)

        # Whoever was forgotten may still be there, and unable to say so.
        taken = [each for each in await self.node.routed() if each.length] if await self.restored.happened() else ()

        def job(changes: Changes) -> tuple[Issued, bool] | None:
            email, length = None, anonymous_length
            if token:
                known = changes.token(token, now.timestamp())
                if known is None:
                    return None
                email, length = known.email, known.prefix_length
                changes.delete_token(token)
            first, longest = changes.registry_prefix() is None, changes.longest_prefix() or 0
            issued = changes.issue(community, length, email or None, make, taken)
            news = first or issued.prefix.length > longest
            return issued, news and self.upkeep.update_version(changes)

        result = await self._repository.change(job)
        if result is None:
            logger.warning(
                "requestCertificate from %s: token unknown, used or expired", call.source or "an authorized origin"
            )
            self.events.note(Kind.REFUSED, f"enrolment from {call.address}: token unknown, used or expired")
            return None
        if token and call.source is not None:
            self.limits.right_token(call.source, token)
        issued, news = result
        logger.info("certificate %d issued for %s", issued.serial, issued.prefix)
        self.events.note(Kind.ENROLLED, f"certificate {issued.serial}, from {call.address}", issued.prefix)
        self.served.forget(issued.prefix)
        self.sessions.drop(issued.prefix)
        if news:
            await self.upkeep.changed()
        return issued.pem

    async def _renew_certificate(self, call: Call) -> bytes:
        prefix = caller_of(call)

        def stored(queries: Queries) -> tuple[Issued, bool]:
            found = queries.issued(prefix)
            if found is None:
                raise NotFound(f"no certificate for {prefix}")
            return found, queries.is_revoked(found.serial)

        issued, is_revoked = await self._repository.read(stored)
        now = self._now()
        believed(self._authority.trust, prefix, issued.pem, issued.serial)
        if end_of_renewal(issued, is_revoked, now) is None:
            return issued.pem

        def job(changes: Changes) -> Issued:
            old, is_revoked = stored(changes)
            until = end_of_renewal(old, is_revoked, now)
            if until is None:
                return old
            known = believed(self._authority.trust, prefix, old.pem, old.serial)
            key = cert.key_of_cert(known)
            return changes.renew(old, lambda serial: self._authority.issue(known.subject, key, serial, now, until))

        renewed = await self._repository.change(job)
        logger.info("certificate %d of %s renewed with serial %d", issued.serial, prefix, renewed.serial)
        self.events.note(Kind.RENEWED, f"certificate {issued.serial} became {renewed.serial}", prefix)
        return renewed.pem

    async def _rekey_certificate(self, call: Call) -> bytes:
        try:
            return await self._keys.issue(caller_of(call), call.arguments["req"], self._now())
        except TooMany as error:
            raise RpcError(HTTPStatus.TOO_MANY_REQUESTS, str(error)) from None
        except BadRequest as error:
            raise RpcError(HTTPStatus.BAD_REQUEST, str(error)) from None

    async def _revoke_superseded(self, call: Call) -> None:
        await self._keys.revoke_superseded(caller_of(call))

    async def _present_certificate(self, call: Call) -> None:
        self._limit(call, self.limits.present)
        try:
            prefix = await self.restored.present(call.arguments["cert"], call.arguments.get("version", ""))
            self.sessions.drop(prefix)  # that of the certificate of before
        except (ProofError, cert.CertError) as error:
            raise RpcError(HTTPStatus.BAD_REQUEST, str(error)) from None

    async def _revoke(self, call: Call) -> None:
        text = call.text("cn_or_serial")
        reason = call.arguments.get("reason", "")  # only the operator on this machine gives one
        now = self.upkeep.trusted_now()
        if text.isascii() and text.isdigit():
            serial = read_integer(text, 10**SERIAL_DIGITS)

            def by_serial(changes: Changes) -> Prefix | None:
                prefix = None
                try:
                    prefix = changes.revoke(serial, now, reason)
                except NotFound:
                    if not is_lost(changes, serial):
                        raise
                    changes.revoke_unknown(serial, now + cert.VALIDITY.total_seconds())
                self.upkeep.update_version(changes)
                return prefix

            prefix: Prefix | None = await self._repository.change(by_serial)
        else:
            prefix = self._cn(text)

            def by_cn(changes: Changes) -> None:
                refuse_to_revoke(changes, prefix)
                changes.evict(prefix, now, reason)
                self.upkeep.update_version(changes)

            await self._repository.change(by_cn)
            self.sessions.drop(prefix)
            self.served.forget(prefix)
        logger.warning("revoked: %s", text)
        why = f": {reason}" if reason else ""
        self.events.note(Kind.REVOKED, f"certificate {text}{why}" if text.isdigit() else f"node {text}{why}", prefix)
        await self.upkeep.changed()

    # --- tokens ---

    async def _request_token(self, call: Call) -> None:
        email = call.text("email")
        mailer = self._settings.mailer
        if mailer is None or not self._settings.prefix_length:
            raise RpcError(HTTPStatus.FORBIDDEN, "this registry takes no enrolment by e-mail")
        if not is_address(email):
            raise RpcError(HTTPStatus.BAD_REQUEST, "parameter email is no e-mail address")
        if not self.limits.mail(call.source, email, self._clock()):
            raise too_many(call)
        token = await self.new_token(email, self._settings.prefix_length)
        try:
            await mailer.send(email, "re6st: your token", token_text(self._authority.trust.network, token))
        except MailError as error:
            await self._repository.change(lambda changes: changes.delete_token(token))
            self.events.note(Kind.MAIL, f"no token for {email}: {error}")
            raise RpcError(HTTPStatus.INTERNAL_SERVER_ERROR, str(error)) from None
        self.events.note(Kind.MAIL, f"a token was sent to {email}")

    async def new_token(self, email: str, length: int, expires: float | None = None) -> str:
        """Store a token that nobody can guess, of letters, good until `expires` (Unix time).

        Raises RepositoryError, ClockError.
        """
        now = self.upkeep.now()

        def job(changes: Changes) -> str:
            while True:
                token = "".join(secrets.choice(string.ascii_lowercase) for _ in range(TOKEN_LENGTH))
                try:
                    changes.add_token(token, email, length, now, expires)
                except Conflict:
                    continue
                return token

        return await self._repository.change(job)

    async def _add_token(self, call: Call) -> None:
        email, token = call.text("email"), call.text("token")
        if not self._settings.prefix_length:
            raise RpcError(HTTPStatus.FORBIDDEN, "this registry takes no tokens (--prefix-length 0)")
        length = self._settings.prefix_length
        now = self.upkeep.now()
        await self._repository.change(lambda changes: changes.add_token(token, email, length, now))

    async def _is_token(self, call: Call) -> bytes | None:
        token, now = call.arguments["token"], self.upkeep.trusted_now()
        return b"1" if await self._repository.read(lambda queries: queries.token(token, now)) else None

    async def _delete_token(self, call: Call) -> None:
        token = call.arguments["token"]
        await self._repository.change(lambda changes: changes.delete_token(token))

    # --- parameters ---

    async def _get_dh(self, call: Call) -> bytes:
        return self._settings.dh

    async def _get_network_config(self, call: Call) -> bytes:
        caller = caller_of(call)
        certificate = await self._certificate(caller)
        version = await self._repository.read(lambda queries: queries.config("version"))
        self.served.note(caller, version_number(version or b"\0"))
        return (await self.upkeep.encoder()).encode(partial(cert.encrypt, certificate))

    async def _update_hmac(self, call: Call) -> None:
        await self.upkeep.rotate_keys()
        self.events.note(Kind.PARAMETERS, "the next step of changing babel's key")

    # --- the mesh ---

    async def _get_country(self, call: Call) -> bytes | None:
        if self._settings.geoip is None:
            raise RpcError(HTTPStatus.BAD_REQUEST, "no geolocation database is configured")
        try:
            place = self._settings.geoip.place(call.text("address"))
        except ValueError:
            raise RpcError(HTTPStatus.BAD_REQUEST, "parameter address is no IP address") from None
        return place.country.encode("ascii") or None

    def _place(self, call: Call) -> Place:
        """Where the holder of a new certificate says it is, or where it calls from (wire.md 3.4, 4.3)."""
        locator = self._settings.geoip
        if locator is None:
            return Place()
        if location := call.arguments.get("location"):
            country, _, continent = location.partition(",")
            return Place(country, continent)
        try:
            return locator.place(call.arguments.get("ip") or call.address)
        except ValueError:
            return Place()

    async def _get_bootstrap_peer(self, call: Call) -> bytes | None:
        caller = caller_of(call)
        certificate = await self._certificate(caller)
        protocol = call.session.claims.protocol if call.session else 1
        room = self._authority.trust.key_size // 8 - 11
        peer = await self.mesh.bootstrap((await self.upkeep.parameters()).registry_prefix, caller, protocol, room)
        return None if peer is None else cert.encrypt(certificate, peer)

    async def _get_node_prefix(self, call: Call) -> bytes | None:
        prefix = await self._by_email(call)
        return None if prefix is None else prefix.cn.encode()

    async def _get_ipv6_address(self, call: Call) -> bytes | None:
        prefix = await self._by_email(call)
        return None if prefix is None else str(control_address(self._authority.trust.network, prefix)).encode()

    async def _get_ipv4_information(self, call: Call) -> bytes | None:
        prefix = await self._by_email(call)
        if prefix is None or not await self.mesh.is_routed((await self.upkeep.parameters()).registry_prefix, prefix):
            return None
        endpoints = await self.mesh.addresses(prefix)
        return endpoints[0].host.encode() if endpoints else None

    async def _versions(self, call: Call) -> bytes:
        return json.dumps(await self.mesh.versions((await self.upkeep.parameters()).registry_prefix)).encode()

    async def _topology(self, call: Call) -> bytes:
        return json.dumps(await self.mesh.topology((await self.upkeep.parameters()).registry_prefix)).encode()

    # --- helpers ---

    def _now(self) -> datetime:
        """The time, to date a certificate by. Raises ClockError."""
        return datetime.fromtimestamp(self.upkeep.now(), UTC)

    async def _certificate(self, prefix: Prefix) -> x509.Certificate:
        """The stored certificate of a prefix. Raises NotFound, CertError, RepositoryError."""
        pem = await self._repository.read(lambda queries: queries.pem(prefix))
        if pem is None:
            raise NotFound(f"no certificate for {prefix}")
        return self._believed.certificate(prefix, pem)

    async def _by_email(self, call: Call) -> Prefix | None:
        """The prefix of the first node of an e-mail address. Raises RpcError, RepositoryError."""
        email = call.text("email")
        return await self._repository.read(lambda queries: queries.prefix_by_email(email))

    def _cn(self, text: str) -> Prefix:
        try:
            return Prefix.from_cn(text)
        except PrefixError as error:
            raise RpcError(HTTPStatus.BAD_REQUEST, f"neither a serial nor a CN: {error}") from None

    def _limit(self, call: Call, allows: Callable[[str, float], bool]) -> None:
        if call.source is not None and not allows(call.source, self._clock()):
            raise too_many(call)
