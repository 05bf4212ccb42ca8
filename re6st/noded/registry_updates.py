"""What the registry tells a node over time: network parameters and certificates, kept up to date (wire.md 2.3, 5.3).

`Updates` asks the registry when somebody says that there is something new, when the own knowledge is suspect, and when
a certificate nears its end. A registry that does not answer is asked again later; the node lives on what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from re6st import PROTOCOL, cert
from re6st.client import renewal
from re6st.client.files import Files
from re6st.client.registry_client import RegistryClient, RegistryError
from re6st.core.telemetry.expiry import AUTHORITY, OURS, Expiry
from re6st.core.wire import params
from re6st.core.wire.extensions import KNOWN, text
from re6st.core.wire.params import Parameters, ParamsError
from re6st.core.words import duration
from re6st.keys import pki
from re6st.linux import disk
from re6st.linux.process import Backoff
from re6st.noded.peer_cache import Cache

FETCH_DELAY = 1.0
FETCH_RETRY = 300.0
SECOND_LOOK = 15.0
"""Seconds, and as many more at random, until who joined asks again."""
CHECK_FIRST, CHECK_INTERVAL = 60.0, 3600.0
LOST_FIRST = 5.0
"""Seconds until who looks lost asks whether it was revoked: it may have been down when others were told."""
RENEW_RETRY = 86400.0
"""Seconds between two tries, where there are weeks left."""
RENEW_FIRST, RENEW_LAST = 5.0, 3600.0
"""And where our certificate is of no use: the first pause, and the last."""
LOOK = 10.0
"""Seconds between two looks at our files: re6st-conf may have put others there."""
RENEW_CHECK = 3600.0
"""Seconds between looks at the calendar: the clock may have been set since."""

log = logging.getLogger(__name__)


class Urgency(IntEnum):
    """Whether a certificate is to be renewed."""

    NONE = 0
    SOON = 1
    """It ends within weeks."""
    NOW = 2
    """Ours has ended, or is revoked: nobody lets us in."""


class TooOld(Exception):
    """This network no longer speaks our protocol."""


class MeshConnection(Protocol):
    """Who knows whether the registry's node can be reached through the mesh."""

    @property
    def connected(self) -> bool: ...


class Updates:
    """`parameters` and `identity` are those in force. `changed` is called after either was replaced."""

    def __init__(
        self,
        client: RegistryClient,
        files: Files,
        identity: cert.Identity,
        cache: Cache,
        changed: Callable[[], object],
    ) -> None:
        self.identity = identity
        self.since: float | None = None
        """When the parameters came into force, Unix time; None: in an earlier life."""
        self._client = client
        self._files = files
        self._cache = cache
        self._changed = changed
        self._seen: list[tuple[int, int]] = []
        """What our files looked like when we read them last."""
        self._read = identity.der, identity.trust.ca
        """The certificates in them then. Ours may be newer, where it could not be written."""
        self._parameters: Parameters | None = None
        self._wanted = asyncio.Event()
        self._certificate_news = asyncio.Event()
        """There is a reason to look at our certificate: `_urgency` tells which."""
        self._unsaved: dict[Path, bytes] = {}
        """Certificates in use that could not be written yet, by the files they belong in."""
        self._heard = self._behind = b""
        self._doubts = Backoff(CHECK_FIRST, CHECK_INTERVAL)
        self._doubt_again = 0.0
        self._complaint = ""
        self._expiry = Expiry()

    @property
    def parameters(self) -> Parameters:
        """Those in force. Raises RuntimeError before `start`."""
        if self._parameters is None:
            raise RuntimeError("no parameters yet")
        return self._parameters

    def revoked(self) -> frozenset[int]:
        """The serial numbers of certificates that are out."""
        return self.parameters.crl

    def is_behind(self) -> bool:
        """Whether we have heard of parameters that are newer than ours."""
        return self._heard > self.parameters.version

    # -- at start --

    async def start(self) -> Parameters:
        """The parameters to start with: remembered ones if they are signed, else from the registry, until it answers.

        Raises TooOld.
        """
        remembered = self._cache.load_parameters()
        if remembered is not None and not self._signed(remembered):
            log.warning("the remembered network parameters are not of this network: asking the registry")
            remembered = None
        if remembered is None:
            remembered = await self._fetch_first()
        elif (
            not remembered.extensions >= KNOWN
            or remembered.babel_hello is None
            or remembered.longest_prefix is None
            or remembered.registry_prefix == self.identity.prefix
        ):
            # Others will tell us of a newer version; nobody tells the registry's node, and an upgrade may bring more.
            # Where older nodes are known, we may have been the last of them.
            self._wanted.set()
        self._use_parameters(remembered)
        self._heard = remembered.version
        self._check_protocol(remembered)
        return remembered

    async def _fetch_first(self) -> Parameters:
        backoff = Backoff(first=1, last=60)
        while True:
            try:
                parameters = await self._fetch()
            except (RegistryError, ParamsError) as error:
                delay = backoff.next()
                log.warning("no network parameters yet: %s Next try in %.0f s.", error, delay)
                await asyncio.sleep(delay)
            else:
                self._cache.store_parameters(parameters)
                self.since = datetime.now(UTC).timestamp()
                return parameters

    # -- while running --

    async def run(self, mesh: MeshConnection) -> None:
        """Keep everything up to date, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_parameters(), name="parameters")
            tasks.create_task(self._keep_suspicion(mesh), name="lost-node check")
            tasks.create_task(self._keep_certificates(), name="certificates")
            tasks.create_task(self._keep_files(), name="certificate files")
            if self.since is not None:
                tasks.create_task(self._look_again(), name="second look")

    def refresh(self) -> None:
        """Ask the registry for the parameters, soon."""
        self._wanted.set()

    def doubt(self) -> None:
        """Somebody does not understand us: ask the registry whether we missed something, ever more rarely.

        Where the registry's node is an older one, hellos that are too short for it keep us from hearing of others.
        """
        now = asyncio.get_running_loop().time()
        if now >= self._doubt_again:
            self._doubt_again = now + self._doubts.next()
            self._wanted.set()

    def hear(self, version: bytes) -> bytes | None:
        """A peer's version (code 0). Returns our own, if the peer should have it (wire.md 6.5)."""
        own = self.parameters.version
        if version < own:
            return own
        if version > max(own, self._heard) and params.check_version(version, self.identity.verify_version):
            log.info("the registry has published network parameters %s", params.version_number(version))
            self._heard = version
            self._wanted.set()
        return None

    async def _keep_parameters(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await asyncio.sleep(FETCH_DELAY)
            while not await self._update():
                try:
                    async with asyncio.timeout(FETCH_RETRY):
                        await self._wanted.wait()
                except TimeoutError:
                    pass
                self._wanted.clear()

    async def _look_again(self) -> None:
        """Ask once more, soon after we joined: where a network begins, others join at that moment, and change it.

        An older node among them may have nobody to tell it: 0.642 ends when it hears of a version before its own.
        """
        await asyncio.sleep(random.uniform(SECOND_LOOK, 2 * SECOND_LOOK))  # noqa: S311
        self._wanted.set()

    async def _keep_suspicion(self, mesh: MeshConnection) -> None:
        """Ask directly when we look lost twice in a row (wire.md 5.3 point 5).

        Soon, as we may have been cut off before we heard why; then ever more rarely, as others may be lost too.
        """
        backoff = Backoff(LOST_FIRST, CHECK_INTERVAL)
        suspect = False
        while True:
            parameters = self.parameters
            outdated = parameters.valid_until is not None and parameters.valid_until < datetime.now(UTC).timestamp()
            before, suspect = suspect, outdated or not mesh.connected
            if not (before and suspect):
                backoff.reset()
            elif parameters.registry_prefix != self.identity.prefix:
                await self._update()
            await asyncio.sleep(backoff.next())

    async def _update(self) -> bool:
        """Ask once; whether there is nothing more to ask for."""
        try:
            parameters = await self._fetch()
        except (RegistryError, ParamsError) as error:
            if self._look_at_files():  # it may know of another key of ours
                return await self._update()
            # It may be away for days: the same is said once.
            log.log(
                logging.DEBUG if str(error) == self._complaint else logging.WARNING, "network parameters: %s", error
            )
            self._complaint = str(error)
            return False
        self._complaint = ""
        self._take(parameters)
        if parameters.version >= self._heard:
            return True
        if self._behind == self._heard:  # for minutes already
            log.warning("the registry has older parameters than other nodes: was its database restored? Telling it")
            await self._client.present_certificate(self._heard)
        self._behind = self._heard
        return False

    def _take(self, parameters: Parameters) -> None:
        old = self.parameters
        if parameters == old or parameters.version < old.version:
            return
        self._cache.store_parameters(parameters)
        try:
            self._check_protocol(parameters)
        except TooOld as error:
            log.error("%s", error)
            return
        self._use_parameters(parameters)
        self.since = datetime.now(UTC).timestamp()
        self._doubts.reset()
        self._doubt_again = 0.0
        log.info("network parameters %s are in force", params.version_number(parameters.version))
        if self.identity.cert.serial_number in parameters.crl:
            log.warning("our certificate %s is revoked: renewing it", self.identity.cert.serial_number)
            self._certificate_news.set()
        self._changed()

    def _use_parameters(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._client.registries.learn(parameters.registries if self._signed(parameters) else ())
        self._client.expected, self._client.required = parameters.extensions, parameters.require
        # A registry that has extensions proves whom it does not know.
        self._client.witness = None if parameters.extensions else parameters.registry_prefix

    async def _fetch(self) -> Parameters:
        """Raises RegistryError, ParamsError."""
        blob = await self._client.get_network_config()
        parameters = params.decode(blob, self._decrypt)
        if parameters.version != b"\0" and not self._signed(parameters):
            raise ParamsError("the version of the registry's answer is not signed by our CA")
        return parameters

    def _signed(self, parameters: Parameters) -> bool:
        return params.check_version(parameters.version, self.identity.verify_version)

    def _decrypt(self, data: bytes) -> bytes:
        try:
            return cert.decrypt(self.identity.key, data)
        except cert.CertError as error:
            raise ParamsError(str(error)) from None

    def _check_protocol(self, parameters: Parameters) -> None:
        if parameters.min_protocol > PROTOCOL:
            raise TooOld(
                f"this network wants protocol {parameters.min_protocol}, this program speaks {PROTOCOL}: upgrade it"
            )
        if missing := parameters.require - KNOWN:
            raise TooOld(f"this network requires {text(missing)}, which this program lacks: upgrade it")
        if parameters.protocol > PROTOCOL:
            log.warning("the registry speaks protocol %s, we %s: upgrade is advised", parameters.protocol, PROTOCOL)

    # -- certificates --

    async def _keep_certificates(self) -> None:
        """Renew our certificate and the CA's 30 days before they end, and at once while ours is of no use.

        What is to be done is read from what is in force, each time: no news that came once may be lost by a failure, or
        by a restart.
        """
        clock = asyncio.get_running_loop().time
        pauses, next_try, before, failed = Backoff(RENEW_FIRST, RENEW_LAST), 0.0, Urgency.NONE, False
        while True:
            now = datetime.now(UTC)
            urgency = self._urgency(now)
            if urgency > before:
                next_try = 0.0
                pauses.reset()
            before = urgency
            if urgency and clock() >= next_try:
                # Also after success: a registry may hand out what is of no use.
                pause = pauses.next() if urgency is Urgency.NOW else RENEW_RETRY
                next_try = clock() + pause
                failed = not await self._renew(now, pause)
            if failed and urgency:
                self._warn(now)
            self._certificate_news.clear()
            if self._urgency(now) is not urgency:
                continue
            wait = min(RENEW_CHECK, next_try - clock()) if urgency else min(RENEW_CHECK, self._until_due(now))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._certificate_news.wait()

    def _urgency(self, now: datetime) -> Urgency:
        """Whether a certificate is to be renewed, and how soon."""
        revoked = self.identity.cert.serial_number in self.parameters.crl
        if revoked or pki.end_of(self.identity.cert) < now:
            return Urgency.NOW
        return Urgency.SOON if self._renewal < now else Urgency.NONE

    def _warn(self, now: datetime) -> None:
        """Say which certificate is near its end, though it should have been renewed."""
        for what, one in ((OURS, self.identity.cert), (AUTHORITY, self.identity.trust.ca)):
            if notice := self._expiry.notice(what, pki.end_of(one).timestamp(), now.timestamp()):
                log.log(logging.ERROR if notice.serious else logging.WARNING, "%s", notice.text)

    @property
    def _renewal(self) -> datetime:
        """When the first of the two is to be renewed."""
        ends = (pki.end_of(self.identity.cert), pki.end_of(self.identity.trust.ca))
        return min(ends) - cert.RENEW_BEFORE

    def _until_due(self, now: datetime) -> float:
        """Seconds until something is to be renewed."""
        return max(0.0, (self._renewal - now).total_seconds()) + 1

    async def _keep_files(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            self._look_at_files()
            self._save_again()

    def _look_at_files(self) -> bool:
        """Go on with the certificate and key that somebody has put into the place of ours; whether there were any."""
        files = self._files
        seen = [(found.st_ino, found.st_mtime_ns) for found in map(_look, (files.ca, files.cert, files.key)) if found]
        if seen == self._seen:
            return False
        self._seen, old = seen, self.identity
        try:
            new = cert.Identity.load(files.ca, files.cert, files.key, datetime.now(UTC))
        except cert.CertError as error:
            log.warning("keeping the previous certificate and key: %s", error)
            self._unsaved.clear()  # somebody is at work there
            return False
        before, self._read = self._read, (new.der, new.trust.ca)
        if self._read in (before, (old.der, old.trust.ca)):
            return False
        self._unsaved.clear()
        if new.prefix != old.prefix or old.trust.differs(new.trust.ca):
            log.warning(
                "%s is for %s, of another subnet or network: restart re6stnet to use it", files.cert, new.prefix
            )
            return False
        log.info("using the certificate %s, found in %s", new.cert.serial_number, files.cert)
        self._use(new)
        return True

    async def _renew(self, now: datetime, pause: float) -> bool:
        """Whether everything that was due is renewed; else the next try is after `pause`."""
        done = True
        try:
            if pki.end_of(self.identity.trust.ca) - cert.RENEW_BEFORE < now:
                done = await self._renew_ca() and done
            revoked = self.identity.cert.serial_number in self.parameters.crl
            if revoked or pki.end_of(self.identity.cert) - cert.RENEW_BEFORE < now:
                done = await self._renew_own() and done
        except (RegistryError, cert.CertError, OSError) as error:
            log.error("certificate renewal: %s. Next try in %s.", str(error).rstrip("."), duration(pause))
            return False
        return done

    async def _renew_own(self) -> bool:
        before = self.identity
        new = await renewal.renew(self._client, before, self.parameters.crl)
        self._look_at_files()
        if self.identity is not before:  # another one was put into their place meanwhile
            return True
        if new is None:
            log.warning("the registry gave our certificate back unchanged")
            return False
        self._use(new)
        self._save(self._files.cert, cert.to_pem(new.cert))
        log.info("certificate renewed: serial %s, until %s", new.cert.serial_number, pki.end_of(new.cert))
        return True

    async def _renew_ca(self) -> bool:
        before = self.identity
        new = await renewal.renew_ca(self._client, before, datetime.now(UTC))
        if self.identity is not before:
            return True
        if new is None:
            return False
        self._use(new)
        self._save(self._files.ca, cert.to_pem(new.trust.ca))
        log.info("CA certificate renewed, until %s", pki.end_of(new.trust.ca))
        return True

    def _save(self, path: Path, pem: bytes) -> None:
        """Write a certificate; where that cannot be now, it is used all the same, and written later."""
        try:
            disk.replace_file(path, pem)
        except OSError as error:
            log.error("certificate renewal: %s: %s. It is used, and will be written.", path, error.strerror or error)
            self._unsaved[path] = pem

    def _save_again(self) -> None:
        """Try to write what could not be written."""
        for path, pem in tuple(self._unsaved.items()):
            with contextlib.suppress(OSError):
                disk.replace_file(path, pem)
                del self._unsaved[path]
                log.info("%s is written at last", path)

    def _use(self, identity: cert.Identity) -> None:
        self.identity = self._client.identity = identity
        self._changed()


def _look(path: Path) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return path.stat()
    return None
