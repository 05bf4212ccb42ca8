"""A registry whose database is an older copy: what the network proves that it has forgotten (docs/operations.md).

Two things are signed by the CA's key, which the copy does not make older: the number of the parameters' version
(wire.md 5.2), and certificates. A version above ours, or a certificate with a serial above ours, was given after the
copy was made. Then serials go on far above, so that none is given twice; the next version is above those that were; a
certificate that its node shows is stored again, so that nobody else gets its prefix. What was revoked since, the node
beside us knows: it got that from us, while we still knew.
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
from re6st.registryd.events import Events, Kind
from re6st.registryd.parameters import FLOOR, Upkeep
from re6st.registryd.records import Issued
from re6st.registryd.repository import Changes, Conflict, NotFound, Queries, RepositoryError
from re6st.registryd.resources import Resources
from re6st.service import control_client

SERIAL_GAP = 100_000
"""Serials left out: more than were given after any copy that is worth restoring."""
LOST = "re6st_lost"
"""Our own row of `config`: the serials that may have been given after the copy, FIRST-LAST."""
LOST_UNTIL = "re6st_lost_until"
"""Another: when the last of their certificates ends, Unix time."""
REASON = "revoked after the copy of the database that was restored"
LOOK_FIRST, LOOK_EVERY = 5.0, 300.0
"""Seconds until the node beside us is asked again, while it tells nothing and after: it may start later than we."""
ASK_TIMEOUT = 3.0
SERIALS_SHOWN = 10
SERIAL_LIMIT = 1 << 62
"""Above all serials; the database can have them."""

logger = logging.getLogger("registry")


class ProofError(Exception):
    """What was shown proves nothing."""


@dataclass(frozen=True, slots=True)
class Known:
    """The parameters in force at a node: their version, and the serials that are revoked."""

    version: bytes
    crl: frozenset[int]


class Restored:
    """Of one registry; without a restored copy it has nothing to do."""

    def __init__(self, resources: Resources, upkeep: Upkeep, events: Events) -> None:
        self._started = int(resources.clocks.wall())
        self._authority = resources.authority
        self._repository = resources.repository
        self._upkeep = upkeep
        self._events = events
        self._doubted: frozenset[int] = frozenset()

    async def happened(self) -> bool:
        """Whether the database is a copy that was restored, and certificates may be good that it has forgotten.

        Raises RepositoryError.
        """
        until = await self._repository.read(lambda queries: queries.config(LOST_UNTIL))
        return (until or 0) > self._upkeep.trusted_now()

    async def run(self, control: Path) -> None:
        """Look now and again, until cancelled."""
        delay = LOOK_FIRST
        while True:
            await asyncio.sleep(delay)
            delay = LOOK_EVERY if await self.look(control) else min(2 * delay, LOOK_EVERY)

    async def look(self, control: Path) -> bool:
        """Compare with the node beside us, by its control socket; whether it told us what it knows.

        Before we serve, too: who was thrown out since the copy would get another certificate until then.
        """
        known = await asyncio.to_thread(ask, control)
        try:
            if known is not None:
                await self.compare(known)
        except (RepositoryError, ProofError) as error:
            logger.error("cannot take over what the registry's own node knows: %s", error)
        return known is not None

    async def compare(self, known: Known) -> None:
        """Take over what the node beside us knows, if that is newer. Raises ProofError, RepositoryError."""
        number = self._proven(known.version)
        now = self._upkeep.trusted_now()

        def job(changes: Changes) -> tuple[frozenset[int], bool]:
            own, missing = version_number(changes.config("version") or b"\0"), known.crl - {*changes.crl()}
            if number <= own:
                return missing if number == own else frozenset(), False
            self._note(changes, now, number)
            self._revoke(changes, missing, now)
            self._upkeep.update_version(changes, always=True)
            return missing, True

        missing, news = await self._repository.change(job)
        if not news:
            self._doubt(missing)
            return
        self._say(
            f"the database is older than the network: the node beside us has version {number} of the parameters."
            f" {len(missing)} revocations were taken from there."
        )
        await self._upkeep.changed()

    async def present(self, pem: str, version: str) -> Prefix:
        """A node that is not known shows its certificate and the version that it has heard of (text: base64).

        Returns its prefix. Raises ProofError for what we have not signed, or need not store; CertError,
        RepositoryError.
        """
        found = cert.load_pem(pem.encode())
        prefix = self._checked(found)
        number = self._proven(_decoded(version)) if version else 0
        now = self._upkeep.trusted_now()

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
        self._events.note(Kind.ENROLLED, f"certificate {found.serial_number} is known again", prefix)
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
        """This database is a copy, and the network was further.

        Where that was noted before, by another proof or for another copy, what is lost since then stays so: what we
        gave out in between, and took back, is revoked or has ended.
        """
        last = int(changes.config("serial") or 0)
        first = (changes.config(LOST) or str(last + 1)).partition("-")[0]
        top = max(last, serial, *changes.crl(), 0) + SERIAL_GAP
        changes.set_config(LOST, f"{first}-{top}")
        changes.set_config(LOST_UNTIL, int(now + cert.VALIDITY.total_seconds()))
        changes.set_config("serial", top)
        changes.set_config(FLOOR, max(number, changes.config(FLOOR) or 0))

    def _doubt(self, missing: frozenset[int]) -> None:
        """Of our version, the node beside us says that these are revoked: we may have counted after the copy as far as
        the network had. That is its word only, so it is for the operator.
        """
        if missing and missing != self._doubted:
            serials = ", ".join(map(str, sorted(missing)[:SERIALS_SHOWN]))
            self._say(
                f"the node beside us has {len(missing)} serials as revoked that are not so here: {serials}"
                f"{' ...' if len(missing) > SERIALS_SHOWN else ''}. If the database was restored, revoke these again."
            )
        self._doubted = missing

    def _revoke(self, changes: Changes, serials: Iterable[int], now: float) -> None:
        """Who has one of these serials in the copy was thrown out, or has another certificate by now: it can show that.

        Its prefix is kept from others, as one or the other may still be using it.
        """
        for serial in sorted(serials):
            if changes.is_revoked(serial):  # with another one of its prefix
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
        """Whether we gave it out since we run, so to who was thrown out before, not the network before we forgot."""
        return (pki.begin_of(cert.load_pem(issued.pem)) + cert.BACKDATED).timestamp() >= self._started

    def _say(self, text: str) -> None:
        logger.warning("%s See docs/operations.md, Backup and restore.", text)
        self._events.note(Kind.PARAMETERS, text)


def _store_again(changes: Changes, prefix: Prefix, found: x509.Certificate, now: float) -> str:
    """Store a certificate, if it was given after the copy; why not, in words."""
    serial = found.serial_number
    current = changes.issued(prefix)
    if current is not None and current.serial == serial and current.pem == cert.to_pem(found):
        return "is known"
    # Where its place was given to somebody else since, that certificate is the newer one.
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
    """Whether a certificate with this serial may have been given after the copy."""
    first, _, last = (queries.config(LOST) or "").partition("-")
    return bool(last) and int(first) <= serial <= int(last)


def ask(control: Path) -> Known | None:
    """What the node beside us has; None without a node, or from one that does not tell."""
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
