"""A new key for the subnet that a node has (docs/protocol.md, "Changing a key"): two methods that only we have.

First the node gets a certificate for the new key, while the old one stays valid. Then it asks, in a session that only
the new key can have begun, to revoke the old certificates. So a node that is killed in between goes on with one key or
the other.
"""

from __future__ import annotations

import logging
from datetime import datetime

from re6st import cert
from re6st.core.limits.rate import RateLimit
from re6st.core.prefix import Prefix
from re6st.keys import pki
from re6st.registryd.call_sessions import NodeSessions
from re6st.registryd.events import EventKind, Events
from re6st.registryd.parameters import ParameterService
from re6st.registryd.records import Issued
from re6st.registryd.repository import Changes, NotFound
from re6st.registryd.resources import Resources
from re6st.registryd.stored_certificates import believed
from re6st.registryd.validity import end_of_replacement

CHANGES_PER_SECOND, CHANGES = 1 / 86400, 5
"""Changes of key that a node may make: so many, then one a day. Each makes the list of revoked serials longer, which
all nodes have to fetch.
"""
REASON = "its key was changed"

logger = logging.getLogger("registry")


class TooMany(Exception):
    """This node changes its key too often."""


class BadRequest(Exception):
    """The caller did not send a certificate request."""


class KeyChanges:
    def __init__(
        self, resources: Resources, parameter_service: ParameterService, sessions: NodeSessions, events: Events
    ) -> None:
        self._authority = resources.authority
        self._repository = resources.repository
        self._parameter_service = parameter_service
        self._sessions = sessions
        self._events = events
        self._rate = RateLimit(CHANGES_PER_SECOND, CHANGES)

    async def issue(self, caller: Prefix, pem: str, now: datetime) -> bytes:
        """The caller's certificate for the key of this request; the request's signature proves that the caller has the
        key.

        Subject and end are those of the previous certificate; the request's subject is ignored. If the caller asks
        again, it gets the same certificate. Raises BadRequest, NotFound, TooMany, RepositoryError; CertError if a
        stored certificate is not ours.
        """
        try:
            key = self._authority.check_request(cert.load_request(pem.encode()))
        except cert.CertError as error:
            raise BadRequest(str(error)) from None
        issued = self._known(await self._repository.read(lambda queries: queries.issued(caller)), caller)
        if pki.same_key(cert.key_of_cert(believed(self._authority.trust, caller, issued.pem, issued.serial)), key):
            return issued.pem
        if not self._rate.allow(caller.bits, now.timestamp()):
            raise TooMany(f"{caller} changes its key too often")

        def job(changes: Changes) -> Issued:
            old = self._known(changes.issued(caller), caller)
            known = believed(self._authority.trust, caller, old.pem, old.serial)
            subject, until = known.subject, end_of_replacement(old, now)
            return changes.renew(old, lambda serial: self._authority.issue(subject, key, serial, now, until))

        new = await self._repository.change(job)
        await self._sessions.drop(caller)  # the previous certificate's
        logger.warning("certificate %d of %s replaced by %d, for another key", issued.serial, caller, new.serial)
        self._events.note(
            EventKind.RENEWED, f"certificate {issued.serial} became {new.serial}, for another key", caller
        )
        return new.pem

    async def revoke_superseded(self, caller: Prefix) -> None:
        """Revoke all certificates that the caller had before its present one. Raises RepositoryError."""
        now = self._parameter_service.trusted_now()

        def job(changes: Changes) -> tuple[list[int], bool]:
            serials = changes.revoke_superseded(caller, now, REASON)
            return serials, bool(serials) and self._parameter_service.update_version_for_member(changes)

        serials, news = await self._repository.change(job)
        if serials:
            text = ", ".join(map(str, serials))
            logger.warning("revoked: %s of %s, for another key", text, caller)
            self._events.note(EventKind.REVOKED, f"certificate {text}: {REASON}", caller)
        if news:
            await self._parameter_service.changed()

    @staticmethod
    def _known(issued: Issued | None, caller: Prefix) -> Issued:
        if issued is None:
            raise NotFound(f"no certificate for {caller}")
        return issued
