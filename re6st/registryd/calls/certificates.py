"""Certificates: issued, renewed, replaced, shown again, revoked. Each is on the disk before it is sent."""

from __future__ import annotations

import logging
from http import HTTPStatus

from cryptography import x509
from cryptography.x509.oid import NameOID

from re6st import cert
from re6st.core.names import BadName, free_name
from re6st.core.prefix import Prefix, PrefixError
from re6st.core.registry.allocator import choose_community
from re6st.keys import requested_name
from re6st.keys.requested_name import RequestedName
from re6st.registryd.call import SERIAL_DIGITS, Call, RpcError, caller_of, read_integer
from re6st.registryd.events import EventKind
from re6st.registryd.own_node import refuse_to_revoke
from re6st.registryd.parts import Parts
from re6st.registryd.records import Issued, Slot, Token
from re6st.registryd.rekey import BadRequest, TooMany
from re6st.registryd.repository import Changes, Conflict, NotFound, Queries
from re6st.registryd.restored import ProofError, is_lost
from re6st.registryd.stored_certificates import believed
from re6st.registryd.validity import end_of_renewal
from re6st.service.geoip import Location

logger = logging.getLogger("registry")


class CertificateCalls:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._authority = parts.resources.authority
        self._repository = parts.resources.repository
        self._settings = parts.resources.settings

    async def get_ca(self, call: Call) -> bytes:
        return self._authority.pem

    async def request(self, call: Call) -> bytes | None:
        token = call.arguments["token"]
        anonymous_length = self._settings.anonymous_prefix_length
        if not token and not anonymous_length:
            raise RpcError(HTTPStatus.FORBIDDEN, "this registry gives no anonymous certificates")
        try:
            request = cert.load_request(call.arguments["req"].encode())
            key = self._authority.check_request(request)
        except cert.CertError as error:
            raise RpcError(HTTPStatus.BAD_REQUEST, str(error)) from None
        try:
            wanted = requested_name.read(request)
        except BadName as error:
            raise RpcError(HTTPStatus.BAD_REQUEST, str(error)) from None
        # A serialNumber is only ignored: re6st-conf of the older software copies it when it enrols again.
        if request.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
            raise RpcError(HTTPStatus.BAD_REQUEST, "the request sets the common name, which the registry sets")
        place = self._place(call)
        community = choose_community(self._settings.communities, place.country, place.continent)
        now = self._parts.now()
        if token:
            self._parts.limit(call, lambda source, now: self._parts.limits.token(source, token, now))
        else:
            self._parts.limit(call, self._parts.limits.anonymous)

        def make(slot: Slot) -> x509.Certificate:
            subject = cert.subject_for(request.subject, slot.number, slot.prefix)
            return self._authority.issue(subject, key, slot.serial, now)

        # A node that was forgotten may still be there, and unable to say so.
        forgot = await self._parts.restored.happened()
        taken = [each for each in await self._parts.node.routed() if each.length] if forgot else ()

        def job(changes: Changes) -> tuple[Issued, str | None, bool] | None:
            known = Token("", anonymous_length)
            if token:
                found = changes.token(token, now.timestamp())
                if found is None:
                    return None
                known = found
                changes.use_token(token)
            name = None if wanted is None else _name_for(changes, wanted)
            first, longest = changes.registry_prefix() is None, changes.longest_prefix() or 0
            issued = changes.issue(community, known.prefix_length, known.email or None, make, taken)
            if known.tags:
                changes.set_tags(issued.prefix, known.tags)
            if name is not None:
                changes.set_name(issued.prefix, name)
            news = first or issued.prefix.length > longest
            return issued, name, news and self._parts.parameter_service.update_version(changes)

        result = await self._repository.change(job)
        if result is None:
            logger.warning(
                "requestCertificate from %s: token unknown, used or expired", call.source or "an authorized origin"
            )
            self._parts.events.note(EventKind.REFUSED, f"enrolment from {call.address}: token unknown, used or expired")
            return None
        if token and call.source is not None:
            self._parts.limits.right_token(call.source, token)
        issued, name, news = result
        called = "" if name is None else f", name {name}"
        logger.info("certificate %d issued for %s%s", issued.serial, issued.prefix, called)
        self._parts.events.note(
            EventKind.ENROLLED, f"certificate {issued.serial}{called}, from {call.address}", issued.prefix
        )
        self._parts.served.forget(issued.prefix)
        self._parts.presence.forget(issued.prefix)
        await self._parts.sessions.drop(issued.prefix)
        if news:
            await self._parts.parameter_service.changed()
        return issued.pem

    def _place(self, call: Call) -> Location:
        """Where the owner of a new certificate says it is, or where it calls from (wire.md 3.4, 4.3)."""
        locator = self._settings.geoip
        if locator is None:
            return Location()
        if location := call.arguments.get("location"):
            country, _, continent = location.partition(",")
            return Location(country, continent)
        try:
            return locator.place(call.arguments.get("ip") or call.address)
        except ValueError:
            return Location()

    async def renew(self, call: Call) -> bytes:
        prefix = caller_of(call)

        def stored(queries: Queries) -> tuple[Issued, bool]:
            found = queries.issued(prefix)
            if found is None:
                raise NotFound(f"no certificate for {prefix}")
            return found, queries.is_revoked(found.serial)

        issued, is_revoked = await self._repository.read(stored)
        now = self._parts.now()
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
        self._parts.events.note(EventKind.RENEWED, f"certificate {issued.serial} became {renewed.serial}", prefix)
        return renewed.pem

    async def rekey(self, call: Call) -> bytes:
        try:
            return await self._parts.keys.issue(caller_of(call), call.arguments["req"], self._parts.now())
        except TooMany as error:
            raise RpcError(HTTPStatus.TOO_MANY_REQUESTS, str(error)) from None
        except BadRequest as error:
            raise RpcError(HTTPStatus.BAD_REQUEST, str(error)) from None

    async def revoke_superseded(self, call: Call) -> None:
        await self._parts.keys.revoke_superseded(caller_of(call))

    async def present(self, call: Call) -> None:
        self._parts.limit(call, self._parts.limits.present)
        try:
            prefix = await self._parts.restored.present(call.arguments["cert"], call.arguments.get("version", ""))
            await self._parts.sessions.drop(prefix)  # the previous certificate's
        except (ProofError, cert.CertError) as error:
            raise RpcError(HTTPStatus.BAD_REQUEST, str(error)) from None

    async def revoke(self, call: Call) -> None:
        text = call.text("cn_or_serial")
        reason = call.arguments.get("reason", "")  # only the operator on this machine gives a reason
        now = self._parts.parameter_service.trusted_now()
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
                self._parts.parameter_service.update_version(changes)
                return prefix

            prefix: Prefix | None = await self._repository.change(by_serial)
        else:
            prefix = _read_cn(text)

            def by_cn(changes: Changes) -> None:
                refuse_to_revoke(changes, prefix)
                changes.evict(prefix, now, reason)
                self._parts.parameter_service.update_version(changes)

            await self._repository.change(by_cn)
            await self._parts.sessions.drop(prefix)
            self._parts.served.forget(prefix)
            self._parts.presence.forget(prefix)
        logger.warning("revoked: %s", text)
        why = f": {reason}" if reason else ""
        what = f"certificate {text}" if text.isdigit() else f"node {text}"
        self._parts.events.note(EventKind.REVOKED, f"{what}{why}", prefix)
        await self._parts.parameter_service.changed()


def _name_for(queries: Queries, wanted: RequestedName) -> str | None:
    """The name of a new node. Raises Conflict."""
    if wanted.only and queries.named(wanted.name) is not None:
        raise Conflict(f"another node has the name {wanted.name} already")
    return free_name(wanted.name, lambda name: queries.named(name) is not None)


def _read_cn(text: str) -> Prefix:
    try:
        return Prefix.from_cn(text)
    except PrefixError as error:
        raise RpcError(HTTPStatus.BAD_REQUEST, f"neither a serial nor a CN: {error}") from None
