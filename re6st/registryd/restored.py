"""A registry whose database is an older copy: what it has forgotten, and the network proves (docs/operations.md).

The CA's key signs two things, and a copy does not make them older: the number of the parameters' version (wire.md 5.2),
and certificates. A version above ours, or a certificate with a serial above ours, was issued after the copy was made.
The registry then continues with much higher serials, so that none is given twice, and with a version above all earlier
ones. If a node shows its certificate, the registry stores it again, so that nobody else gets its prefix. The node
beside us knows what was revoked since: it heard that from us, while we still knew it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from re6st import cert
from re6st.core.prefix import Prefix, PrefixError, control_address
from re6st.core.wire.params import check_version, version_number
from re6st.keys import pki
from re6st.registryd.events import EventKind, Events
from re6st.registryd.parameters import FLOOR, ParameterService
from re6st.registryd.records import Issued
from re6st.registryd.repository import Changes, Conflict, NotFound, Queries, RepositoryError
from re6st.registryd.resources import Resources
from re6st.service import control_client

SERIAL_GAP = 100_000
"""Serials that are skipped: more than were issued after any copy that is worth restoring."""
LOST = "re6st_lost"
"""Our own row of `config`: the serials that may have been issued after the copy, FIRST-LAST."""
LOST_UNTIL = "re6st_lost_until"
"""Another one: when the last of their certificates ends, as Unix time."""
REASON = "revoked after the copy of the database that was restored"
LOOK_FIRST, LOOK_EVERY = 5.0, 300.0
"""Seconds until the node beside us is asked again, while it does not answer, and after that: it may start later than
we.
"""
ASK_TIMEOUT = 3.0
SERIALS_SHOWN = 10
SERIAL_LIMIT = 1 << 62
"""Higher than all serials; the database can store it."""

logger = logging.getLogger("registry")


class ProofError(Exception):
    """What was shown proves nothing."""


@dataclass(frozen=True, slots=True)
class Known:
    """The parameters in force at a node: their version, and the revoked serials."""

    version: bytes
    crl: frozenset[int]


class Restored:
    """The restored copy of one registry; if there is none, it does nothing."""

    def __init__(self, resources: Resources, parameter_service: ParameterService, events: Events) -> None:
        self._started = int(resources.clocks.wall())
        self._authority = resources.authority
        self._repository = resources.repository
        self._parameter_service = parameter_service
        self._events = events
        self._doubted: frozenset[int] = frozenset()

    async def happened(self) -> bool:
        """Whether the database is a restored copy, so that certificates which it has forgotten may be valid.

        Raises RepositoryError.
        """
        until = await self._repository.read(lambda queries: queries.config(LOST_UNTIL))
        return (until or 0) > self._parameter_service.trusted_now()

    async def run(self, control: Path) -> None:
        """Ask from time to time, until cancelled."""
        delay = LOOK_FIRST
        while True:
            await asyncio.sleep(delay)
            delay = LOOK_EVERY if await self.look(control) else min(2 * delay, LOOK_EVERY)

    async def look(self, control: Path) -> bool:
        """Compare with the node beside us, through its control socket; returns whether it told us what it knows.

        This is also done before we serve: otherwise a node that was revoked after the copy would get another
        certificate.
        """
        known = await asyncio.to_thread(ask, control)
        try:
            if known is not None:
                await self.compare(known)
        except (RepositoryError, ProofError) as error:
            logger.error("cannot take over what the registry's own node knows: %s", error)
        return known is not None

    async def compare(self, known: Known) -> None:
        """Take over what the node beside us knows, if it is newer. Raises ProofError, RepositoryError."""
        number = self._proven(known.version)
        now = self._parameter_service.trusted_now()

        def job(changes: Changes) -> tuple[frozenset[int], bool]:
            own, missing = version_number(changes.config("version") or b"\0"), known.crl - {*changes.crl()}
            if number <= own:
                return missing if number == own else frozenset(), False
            self._note(changes, now, number)
            self._revoke(changes, missing, now)
            self._parameter_service.update_version(changes, always=True)
            return missing, True

        missing, news = await self._repository.change(job)
        if not news:
            self._doubt(missing)
            return
        self._say(
            f"the database is older than the network: the node beside us has version {number} of the parameters."
            f" {len(missing)} revocations were taken from there."
        )
        await self._parameter_service.changed()

    async def present(self, pem: str, version: str) -> Prefix:
        """An unknown node shows its certificate, and the version that it has heard of (text: base64).

        Returns its prefix. Raises ProofError if we have not signed it, or need not store it; CertError,
        RepositoryError.
        """
        found = cert.load_pem(pem.encode())
        prefix = self._checked(found)
        number = self._proven(_decoded(version)) if version else 0
        now = self._parameter_service.trusted_now()

        def job(changes: Changes) -> tuple[bool, str]:
            version, serial = version_number(changes.config("version") or b"\0"), int(changes.config("serial") or 0)
            news = number > max(version, changes.config(FLOOR) or 0) or found.serial_number > serial
            if news:
                self._note(changes, now, number, found.serial_number)
            return news, _store_again(changes, prefix, found, now)

        news, refusal = await self._repository.change(job)
        if news:
            self._say(
                f"the database is older than the network: {prefix} shows a certificate, or a version of the parameters,"
                " of after it. What was revoked since has to be revoked again."
            )
        if refusal:
            raise ProofError(f"certificate {found.serial_number} of {prefix} {refusal}")
        logger.warning(
            "a certificate that the database did not have is known again: %d of %s", found.serial_number, prefix
        )
        self._events.note(EventKind.ENROLLED, f"certificate {found.serial_number} is known again", prefix)
        return prefix

    def _checked(self, found: x509.Certificate) -> Prefix:
        prefix = cert.prefix_of_cert(found)
        try:
            control_address(self._authority.trust.network, prefix)
        except PrefixError as error:
            raise ProofError(str(error)) from None
        if not self._authority.trust.signed(found):
            raise ProofError(f"the certificate of {prefix} was not signed by our CA")
        return prefix

    def _proven(self, version: bytes) -> int:
        """The number of a version that the CA signed."""
        if version == b"\0":
            return 0
        if not check_version(version, lambda packed, sign: cert.verify(self._authority.trust.ca, sign, packed)):
            raise ProofError("the version of the parameters is not signed by our CA")
        return version_number(version)

    def _note(self, changes: Changes, now: float, number: int, serial: int = 0) -> None:
        """This database is a copy, and the network is newer.

        If this was noted before, because of another proof or another copy, the serials lost since then stay lost:
        certificates that we issued in between, and took back, are revoked or have ended.
        """
        last = int(changes.config("serial") or 0)
        first = (changes.config(LOST) or str(last + 1)).partition("-")[0]
        top = max(last, serial, *changes.crl(), 0) + SERIAL_GAP
        changes.set_config(LOST, f"{first}-{top}")
        changes.set_config(LOST_UNTIL, int(now + cert.VALIDITY.total_seconds()))
        changes.set_config("serial", top)
        changes.set_config(FLOOR, max(number, changes.config(FLOOR) or 0))

    def _doubt(self, missing: frozenset[int]) -> None:
        """The node beside us says that these serials of our version are revoked: after the copy, we may have counted up
        as far as the network had. We have only its word for this, so the operator has to decide.
        """
        if missing and missing != self._doubted:
            serials = ", ".join(map(str, sorted(missing)[:SERIALS_SHOWN]))
            self._say(
                f"the node beside us has {len(missing)} serials as revoked that are not so here: {serials}"
                f"{' ...' if len(missing) > SERIALS_SHOWN else ''}. If the database was restored, revoke these again."
            )
        self._doubted = missing

    def _revoke(self, changes: Changes, serials: Iterable[int], now: float) -> None:
        """The owners of these serials in the copy were revoked, or have another certificate now, which they can show.

        Nobody else gets their prefixes, as they may still use them.
        """
        for serial in sorted(serials):
            if changes.is_revoked(serial):  # with another certificate for the prefix
                continue
            try:
                prefix = changes.revoke(serial, now, REASON)
            except NotFound:
                changes.revoke_unknown(serial, now + cert.VALIDITY.total_seconds())
                continue
            issued = changes.issued(prefix)
            if issued is not None and (issued.serial == serial or self._is_ours(issued)):
                changes.evict(prefix, now, REASON, keep=True)

    def _is_ours(self, issued: Issued) -> bool:
        """Whether we issued it in this run: then its owner was revoked before, and it is not the network that we have
        forgotten.
        """
        return (pki.begin_of(cert.load_pem(issued.pem)) + cert.BACKDATED).timestamp() >= self._started

    def _say(self, text: str) -> None:
        logger.warning("%s See docs/operations.md, Backup and restore.", text)
        self._events.note(EventKind.PARAMETERS, text)


def _store_again(changes: Changes, prefix: Prefix, found: x509.Certificate, now: float) -> str:
    """Store a certificate if it was issued after the copy; returns why not, as a text."""
    serial = found.serial_number
    current = changes.issued(prefix)
    if current is not None and current.serial == serial and current.pem == cert.to_pem(found):
        return "is known"
    # If its prefix was given to somebody else since, that certificate is the newer one.
    if current is not None and pki.begin_of(cert.load_pem(current.pem)) >= pki.begin_of(found):
        return "has been replaced"
    if changes.is_revoked(serial) or not is_lost(changes, serial):
        return "is revoked, or was given up"
    if pki.end_of(found) <= datetime.fromtimestamp(now, UTC):
        return "has ended"
    try:
        changes.restore(prefix, found)
    except Conflict as error:
        return f"has no place: {error}"
    return ""


def is_lost(queries: Queries, serial: int) -> bool:
    """Whether a certificate with this serial may have been issued after the copy."""
    first, _, last = (queries.config(LOST) or "").partition("-")
    return bool(last) and int(first) <= serial <= int(last)


def ask(control: Path) -> Known | None:
    """What the node beside us has; None without a node, or if it does not tell."""
    try:
        with control_client.connect(control, ASK_TIMEOUT) as connection:
            answer = connection.ask("parameters")
        version, revoked = base64.b64decode(answer["version"], validate=True), frozenset(map(int, answer["revoked"]))
        if not all(0 <= serial < SERIAL_LIMIT for serial in revoked):
            raise ValueError("a serial is too long")
        return Known(version, revoked)
    except control_client.Trouble as error:
        logger.debug("the node beside us: %s", error)
    except (LookupError, TypeError, ValueError) as error:
        logger.warning("cannot read the answer of the registry's own node: %r", error)
    return None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ProofError("the version is not base64") from None
